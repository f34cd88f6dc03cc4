//! Readers at work while the maps change under them.

use kpx::dataplane::{Mode, Reason};
use kpx::model::{Frontend, Protocol};

use super::ground::{Ground, cluster_ip, table};
use super::server::Server;

const ENDPOINTS: [&str; 3] = ["127.0.0.1:8001", "127.0.0.1:8002", "127.0.0.1:8003"];

/// The `n`th state of a table in which nothing stays as it was for two states: lists grow and shrink, frontends come and
/// go beside those that are used.
fn state(n: usize) -> Vec<Frontend> {
    let some = |n: usize| -> Vec<&str> {
        match n % 6 {
            0 => vec![ENDPOINTS[0]],
            1 => vec![ENDPOINTS[0], ENDPOINTS[1]],
            2 => ENDPOINTS.to_vec(),
            3 => vec![ENDPOINTS[1], ENDPOINTS[2]],
            4 => vec![ENDPOINTS[2]],
            _ => vec![ENDPOINTS[0], ENDPOINTS[2]],
        }
    };
    let mut frontends = vec![
        cluster_ip("10.96.0.1:80", Protocol::Tcp, &some(n)),
        cluster_ip("10.96.0.2:53", Protocol::Udp, &some(n + 3)),
        // These two change in all but what answers, and must never be taken for one another.
        cluster_ip("10.96.0.3:53", Protocol::Udp, &[&["127.0.0.1:8004"][..], &["127.0.0.1:8005"]].concat()[n % 2..]),
        cluster_ip("10.96.0.4:53", Protocol::Udp, &["127.0.0.1:8006"]),
    ];
    for other in 0..n % 5 {
        let at = format!("10.97.{}.{other}:53", n % 3);
        frontends.push(cluster_ip(&at, Protocol::Udp, &["127.0.0.1:9"]));
    }
    frontends
}

#[test]
fn no_lookup_misses_during_thousands_of_changes() {
    Ground::with(|ground| {
        let names = ["a", "b", "c", "d", "e", "f"];
        let ports = [ENDPOINTS[0], ENDPOINTS[1], ENDPOINTS[2], "127.0.0.1:8004", "127.0.0.1:8005", "127.0.0.1:8006"];
        let _servers: Vec<_> = names.iter().zip(ports).map(|(name, at)| Server::start(name, at)).collect();
        let mut dataplane = ground.dataplane(&table(state(0)), Mode::Active);
        let mut clients = [ground.agent(), ground.agent(), ground.agent(), ground.agent()];
        clients[0].tell("tcp-many 10.96.0.1:80 2000");
        clients[1].tell("udp-many 10.96.0.3:53 3000");
        clients[2].tell("udp-many 10.96.0.4:53 3000");
        // No route leads to a frontend here: a datagram that is not translated fails at once.
        clients[3].tell("udp-flood 10.96.0.2:53 400000");
        let waiting = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| clients.each_mut().map(super::agent::Agent::answer));
            let mut changes = 0;
            while !waiting.is_finished() || changes < 3000 {
                changes += 1;
                assert!(!dataplane.fill(&table(state(changes))).expect("a change is written").is_empty());
            }
            println!("{changes} changes");
            waiting.join().expect("the clients answer")
        });
        let [tcp, two, one, flood] = &waiting;
        let names = |answer: &str| -> Vec<String> {
            let words = answer.split(' ').skip(1);
            words.filter_map(|word| word.split_once('=')).map(|(name, _)| name.to_owned()).collect()
        };
        assert!(names(tcp).iter().all(|name| ["a", "b", "c"].contains(&name.as_str())), "{tcp}");
        assert!(names(two).iter().all(|name| ["d", "e"].contains(&name.as_str())), "{two}");
        assert_eq!(one, "ok f=3000");
        assert_eq!(flood, "ok sent=400000");
        let counters = dataplane.counters().unwrap();
        assert_eq!(counters.of(Reason::Missed), 0, "{counters:?}");
        assert_eq!(counters.of(Reason::NotService), 0, "{counters:?}");
        println!("lookups that met a change half-way and looked again: {}", counters.of(Reason::Retried));
    });
}

//! `kpx top`: what it counts is what clients did.

use std::io::{BufRead as _, BufReader};

use kpx::capture::command;
use kpx::dataplane::Paths;
use serde_json::{Value, json};

use crate::agent::api::{service, slice};
use crate::agent::rig::Rig;
use crate::agent::serving;
use crate::cli::schema::conforms;
use crate::dataplane::ground::Ground;
use crate::dataplane::packets::peers::Talk;
use crate::dataplane::packets::services::{PORT, servers};
use crate::dataplane::packets::world::{NODE, POD, World, at};
use crate::dataplane::server::Server;

fn words(rig: &Rig<'_>, paths: &Paths, words: &str) -> Vec<String> {
    let (pins, kubeconfig) = (paths.pins.display(), rig.state("kubeconfig"));
    // Names come from the API's objects, since there are no rules.
    let line = format!("--bpffs {pins} --kubeconfig {} --node-name node-a -o json top {words}", kubeconfig.display());
    line.split_whitespace().map(str::to_owned).collect()
}

fn parse(text: &str) -> Value {
    let report = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    conforms(&report);
    report
}

fn once(rig: &Rig<'_>, paths: &Paths, more: &str) -> Value {
    let output = command::output(env!("CARGO_BIN_EXE_kpx"), words(rig, paths, more), None).expect("it runs");
    parse(std::str::from_utf8(&output).expect("UTF-8"))
}

#[test]
fn connections_are_counted_by_service_and_their_rates_add_up() {
    Ground::with(|ground| {
        let _server = Server::start("a", "127.0.0.1:8080");
        let rig = Rig::new(ground);
        for (name, ip) in [("web", "10.96.0.10"), ("idle", "10.96.0.11"), ("empty", "10.96.0.12")] {
            rig.api.put(service(name, ip, 80, "TCP"));
            let endpoints: &[&str] = if name == "empty" { &[] } else { &["127.0.0.1"] };
            rig.api.put(slice(name, &format!("{name}-1"), 8080, "TCP", endpoints));
        }
        let _agent = rig.start();
        rig.until_healthy();
        let mut client = ground.agent();
        client.ask("tcp-many 10.96.0.10:80 25");
        let mut top = command::start(
            env!("CARGO_BIN_EXE_kpx"),
            words(&rig, &ground.paths, "--rounds 3 --interval 500ms --active -n ns"),
        )
        .expect("it starts");
        let mut lines = BufReader::new(top.stdout.take().expect("piped")).lines().map(|line| line.expect("text"));
        let first = parse(&lines.next().expect("a first look"));
        assert_eq!(first["items"], json!([]), "nothing was used meanwhile");
        client.ask("tcp-many 10.96.0.10:80 15");
        client.ask("tcp-many 10.96.0.12:80 4");
        let rest: Vec<Value> = lines.map(|line| parse(&line)).collect();
        assert!(top.wait().expect("it ends").success());
        assert_eq!(rest.len(), 2);
        let sum = |name: &str, field: &str| -> f64 {
            let of = |look: &Value| {
                let items = look["items"].as_array().expect("a list").clone();
                let rate: f64 = items.iter().filter(|i| i["service"] == name).filter_map(|i| i[field].as_f64()).sum();
                rate * look["over_seconds"].as_f64().expect("a time")
            };
            rest.iter().map(of).sum()
        };
        assert!((sum("ns/web", "connects_per_second") - 15.0).abs() < 0.01, "{rest:?}");
        assert!((sum("ns/empty", "refused_per_second") - 4.0).abs() < 0.01, "{rest:?}");
        assert!(sum("ns/idle", "connects_per_second").abs() < 0.01);
        // Totals, sorted and selected.
        let all = once(&rig, &ground.paths, "--interval 10ms --sort total");
        let names: Vec<&Value> = all["items"].as_array().expect("a list").iter().map(|item| &item["service"]).collect();
        assert_eq!(names[0], "ns/web");
        assert_eq!((all["total"].as_u64(), all["items"][0]["connects"].as_u64()), (Some(3), Some(40)));
        let one = once(&rig, &ground.paths, "--interval 10ms --service ns/empty");
        assert_eq!((one["total"].as_u64(), one["items"][0]["refused"].as_u64()), (Some(1), Some(4)));
    });
}

#[test]
fn flows_are_counted_by_backend() {
    World::with(|world| {
        let _servers = servers(world);
        world.inside("node", || {
            let rig = serving::rig(world);
            let _agent = rig.start();
            rig.until_healthy();
            let open: Vec<_> = world
                .inside("client", || (0..3).map(|_| Talk::to(&at(NODE[0], 30_080)).expect("a connection").0).collect());
            let look = once(&rig, &world.paths, "--by backend --interval 10ms --service ns/here");
            let own = |item: &&Value| item["backend"] == at(POD[0], PORT).as_str() && item["port_name"] == "t";
            let items = look["items"].as_array().expect("a list");
            assert_eq!(items.iter().find(own).map(|item| &item["flows"]), Some(&json!(3)), "{look:#}");
            drop(open);
        });
    });
}

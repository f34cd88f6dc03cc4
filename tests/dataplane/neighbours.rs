//! Other namespaces, and other people's programs.

use kpx::capture::command;
use kpx::dataplane::{Capacity, Dataplane, Mode, Paths, Position, Reason, foreign_hooks, hooks_in_front};
use kpx::model::Protocol;
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::agent::Agent;
use super::ground::{Ground, cluster_ip, table};

/// From a pod, a refused datagram leaves the pod's namespace and is refused by the node's rules, unseen by the sender.
#[test]
fn datagrams_of_other_namespaces_are_refused_by_the_rules() {
    Ground::with(|ground| {
        let services =
            table([cluster_ip("10.96.0.10:53", Protocol::Udp, &[]), cluster_ip("10.96.0.10:80", Protocol::Tcp, &[])]);
        let dataplane = ground.dataplane(&services, Mode::Active);
        let mut pod = std::thread::scope(|scope| {
            let start = || {
                // SAFETY: not one flag that concerns memory or descriptors: only this thread's network namespace changes.
                #[expect(unsafe_code, reason = "unshare is unsafe for flags that are not used here")]
                unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("root can make a network namespace");
                ground.route_frontends();
                Agent::start(&ground.paths.cgroup)
            };
            scope.spawn(start).join().expect("the pod starts")
        });
        pod.ask("udp s 0.0.0.0:0");
        assert_eq!(pod.ask("send s 10.96.0.10:53"), "err timeout", "sent, and nobody answers");
        assert_eq!(pod.ask("tcp 10.96.0.10:80"), "err 111");
        let counters = dataplane.counters().unwrap();
        assert_eq!((counters.of(Reason::RefusalPassed), counters.of(Reason::Refused)), (1, 1));
    });
}

#[test]
fn programs_of_others_are_found_with_their_place() {
    Ground::with(|ground| {
        let below = ground.paths.cgroup.join("pod");
        fs_err::create_dir(&below).unwrap();
        let empty = table([]);
        assert!(foreign_hooks(&ground.paths).unwrap().is_empty());
        // Another program of the same kind stands in for somebody else's: on the cgroup before ours, and below it.
        let other = Paths { pins: ground.paths.pins.with_file_name("other"), cgroup: ground.paths.cgroup.clone() };
        let theirs = Dataplane::install(&other, &Capacity::for_table(&empty)).unwrap();
        let program = other.pins.join("programs/kpx_connect4");
        let attach = |cgroup: &std::path::Path, action: &str| {
            let words = ["cgroup", action, cgroup.to_str().unwrap(), "connect4", "pinned", program.to_str().unwrap()];
            let multi = (action == "attach").then_some("multi");
            command::output("bpftool", words.into_iter().chain(multi), None).unwrap();
        };
        attach(&ground.paths.cgroup, "attach");
        let mut ours = ground.dataplane(&empty, Mode::Off);
        attach(&below, "attach");
        let found = |position| {
            let all = foreign_hooks(&ground.paths).unwrap();
            let chosen = all.iter().filter(|hook| hook.position == position);
            chosen.map(|h| (h.cgroup.clone(), h.hook.clone(), h.name.clone())).collect::<Vec<_>>()
        };
        let entry = |cgroup: &std::path::Path| (cgroup.to_owned(), "connect4".to_owned(), "kpx_connect4".to_owned());
        assert_eq!(found(Position::Before), [entry(&ground.paths.cgroup), entry(&below)]);
        assert_eq!(hooks_in_front(&ground.paths).unwrap().len(), 2);
        // Ours again before theirs: what is attached first runs first.
        ours.detach().unwrap();
        attach(&ground.paths.cgroup, "detach");
        ours.attach().unwrap();
        attach(&ground.paths.cgroup, "attach");
        assert_eq!(found(Position::After), [entry(&ground.paths.cgroup)]);
        assert_eq!(found(Position::Before), [entry(&below)]);
        for cgroup in [&ground.paths.cgroup, &below] {
            attach(cgroup, "detach");
        }
        assert!(foreign_hooks(&ground.paths).unwrap().is_empty());
        drop(theirs);
        Dataplane::remove(&other).unwrap();
        fs_err::remove_dir(&below).unwrap();
    });
}

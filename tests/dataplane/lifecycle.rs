//! From installation to removal, also through a kill, with bpftool as the witness.

use std::path::Path;
use std::time::Duration;

use kpx::capture::command;
use kpx::dataplane::{Attachment, Capacity, Dataplane, DataplaneError, Mode, Served};
use kpx::model::{NoBackends, Policy, Protocol, ServiceTable, diff};

use super::ground::{Ground, cluster_ip, table};
use super::server::Server;

fn services() -> ServiceTable {
    let mut local = cluster_ip("10.96.0.12:80", Protocol::Tcp, &["127.0.0.1:8080", "127.0.0.1:8081"]);
    local.internal_policy = Policy::Local;
    local.local = vec![local.cluster[1]];
    let mut silent = cluster_ip("10.96.0.13:80", Protocol::Tcp, &["127.0.0.1:8080"]);
    silent.internal_policy = Policy::Local;
    silent.no_backends = Some(NoBackends::Drop);
    let mut weighted = cluster_ip("[fd00:96::14]:53", Protocol::Udp, &["[fd00::1]:53", "[fd00::2]:53"]);
    weighted.cluster[0].weight = 3;
    table([
        cluster_ip("10.96.0.10:80", Protocol::Tcp, &["127.0.0.1:8080"]),
        cluster_ip("10.96.0.11:53", Protocol::Udp, &[]),
        local,
        silent,
        weighted,
    ])
}

fn json(program: &str, args: &[&str]) -> serde_json::Value {
    let text = command::output(program, args, None).expect("the oracle runs");
    serde_json::from_slice(&text).expect("the oracle speaks JSON")
}

/// Ids of the programs, maps or links that bpftool lists.
fn ids(kind: &str) -> Vec<u64> {
    let list = json("bpftool", &["-j", kind, "show"]);
    list.as_array().expect("a list").iter().filter_map(|object| object["id"].as_u64()).collect()
}

/// Id of a pinned program or map, as bpftool tells it.
fn pinned(kind: &str, path: &Path) -> u64 {
    json("bpftool", &["-j", kind, "show", "pinned", path.to_str().expect("UTF-8")])["id"].as_u64().expect("an id")
}

/// The programs that bpftool finds on the cgroup.
fn attached(ground: &Ground) -> Vec<String> {
    let path = ground.paths.cgroup.to_str().expect("UTF-8");
    // bpftool fails on a cgroup without programs, or prints nothing, by version.
    let Ok(output) = command::run("bpftool", ["-j", "cgroup", "show", path], None) else { return Vec::new() };
    let list: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let names = list.as_array().into_iter().flatten().filter_map(|p| p["attach_type"].as_str().map(ToOwned::to_owned));
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn what_is_filled_in_is_what_is_read_back() {
    Ground::with(|ground| {
        let mut dataplane = Dataplane::install(&ground.paths, &Capacity::for_table(&services())).unwrap();
        assert!(dataplane.table().unwrap().frontends().is_empty());
        let changes = dataplane.fill(&services()).unwrap();
        assert_eq!((changes.frontends_added, changes.backends_added), (5, 4));
        assert!(Served::of(&services()).others.is_empty());
        let differences = diff(&services(), &dataplane.table().unwrap());
        assert!(differences.is_empty(), "{differences:#?}");
        assert!(dataplane.fill(&services()).unwrap().is_empty());
        assert_eq!(dataplane.fill(&table([])).unwrap().frontends_removed, 5);
        assert!(dataplane.table().unwrap().frontends().is_empty());
    });
}

#[test]
fn it_serves_when_its_loader_was_killed_and_the_next_one_takes_it_up_as_it_is() {
    Ground::with(|ground| {
        let _server = Server::start("a", "127.0.0.1:8080");
        let mut client = ground.agent();
        {
            let mut loader = ground.agent();
            let answer = loader.ask(format!(
                "load {} {} 10.96.0.10:80 127.0.0.1:8080",
                ground.paths.pins.display(),
                ground.paths.cgroup.display()
            ));
            assert_eq!(answer, "ok");
            // Its end here is SIGKILL.
        }
        let served = |answer: String| assert!(answer.starts_with("ok peer=10.96.0.10:80 a "), "{answer}");
        served(client.ask("tcp 10.96.0.10:80"));
        let index = ground.paths.pins.join("maps/kpx_backends");
        let dump = || json("bpftool", &["-j", "map", "dump", "pinned", index.to_str().unwrap()]);
        let before = dump();
        let map = pinned("map", &index);
        let same = table([cluster_ip("10.96.0.10:80", Protocol::Tcp, &["127.0.0.1:8080"])]);
        let mut dataplane = Dataplane::install(&ground.paths, &Capacity::for_table(&same)).unwrap();
        assert_eq!(dataplane.attachment().unwrap(), Attachment::Attached);
        assert_eq!(dataplane.mode().unwrap(), Mode::Active);
        assert!(dataplane.fill(&same).unwrap().is_empty());
        let more = [
            cluster_ip("10.96.0.10:80", Protocol::Tcp, &["127.0.0.1:8080"]),
            cluster_ip("10.96.0.9:80", Protocol::Tcp, &["127.0.0.1:8080"]),
        ];
        dataplane.fill(&table(more)).unwrap();
        served(client.ask("tcp 10.96.0.10:80"));
        let after = dump();
        let changed = before.as_array().unwrap().iter().zip(after.as_array().unwrap()).filter(|(a, b)| a != b).count();
        assert_eq!(changed, 1, "the new frontend's backend, and no other");
        assert_eq!(pinned("map", &index), map);
    });
}

#[test]
fn attaching_and_detaching_twice_is_once() {
    Ground::with(|ground| {
        let mut dataplane = ground.dataplane(&services(), Mode::Active);
        let hooks = attached(ground);
        assert_eq!(hooks.len(), 10, "{hooks:?}");
        dataplane.attach().unwrap();
        assert_eq!(attached(ground), hooks);
        // One link lost: found, and made again.
        fs_err::remove_file(ground.paths.pins.join("links/kpx_sendmsg6")).unwrap();
        assert_eq!(dataplane.attachment().unwrap(), Attachment::Partly(vec!["kpx_sendmsg6"]));
        dataplane.attach().unwrap();
        assert_eq!(dataplane.attachment().unwrap(), Attachment::Attached);
        for _ in 0..2 {
            dataplane.detach().unwrap();
            assert_eq!(dataplane.attachment().unwrap(), Attachment::Detached);
            assert!(attached(ground).is_empty());
        }
        dataplane.attach().unwrap();
        assert_eq!(attached(ground), hooks);
    });
}

#[test]
fn removal_leaves_nothing() {
    Ground::with(|ground| {
        ground.dataplane(&services(), Mode::Active);
        let mut made = Vec::new();
        for (kind, directory) in [("prog", "programs"), ("map", "maps")] {
            for entry in fs_err::read_dir(ground.paths.pins.join(directory)).unwrap() {
                made.push((kind, pinned(kind, &entry.unwrap().path())));
            }
        }
        assert!(made.len() > kpx_abi::map_name::ALL.len(), "{made:?}");
        for _ in 0..2 {
            Dataplane::remove(&ground.paths).unwrap();
            assert!(!ground.paths.pins.exists());
        }
        assert!(attached(ground).is_empty());
        // The kernel frees them after a while of its own.
        for _ in 0..100 {
            made.retain(|(kind, id)| ids(kind).contains(id));
            if made.is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("still there: {made:?}");
    });
}

#[test]
fn half_made_pins_are_taken_away_and_made_anew() {
    Ground::with(|ground| {
        let capacity = Capacity::for_table(&services());
        for lost in ["maps/kpx_index", "programs/kpx_connect6", "programs"] {
            drop(Dataplane::install(&ground.paths, &capacity).unwrap());
            let path = ground.paths.pins.join(lost);
            if path.is_dir() {
                for entry in fs_err::read_dir(&path).unwrap() {
                    fs_err::remove_file(entry.unwrap().path()).unwrap();
                }
            } else {
                fs_err::remove_file(path).unwrap();
            }
            assert!(Dataplane::adopt(&ground.paths).unwrap().is_none(), "{lost}");
            let mut dataplane = Dataplane::install(&ground.paths, &capacity).unwrap();
            dataplane.fill(&services()).unwrap();
            Dataplane::remove(&ground.paths).unwrap();
        }
    });
}

#[test]
fn what_is_attached_and_damaged_is_told_and_can_be_removed() {
    Ground::with(|ground| {
        ground.dataplane(&services(), Mode::Active);
        fs_err::remove_file(ground.paths.pins.join("maps/kpx_slots")).unwrap();
        let error = Dataplane::adopt(&ground.paths).unwrap_err();
        assert!(error.to_string().ends_with("is attached, but lacks map kpx_slots"), "{error}");
        Dataplane::remove(&ground.paths).unwrap();
        assert!(attached(ground).is_empty());
        assert!(Dataplane::adopt(&ground.paths).unwrap().is_none());
    });
}

#[test]
fn another_layout_and_another_cgroup_are_told() {
    Ground::with(|ground| {
        let dataplane = ground.dataplane(&services(), Mode::Active);
        let mut elsewhere = ground.paths.clone();
        elsewhere.cgroup = ground.paths.cgroup.parent().unwrap().to_owned();
        let other = Dataplane::adopt(&elsewhere).unwrap().unwrap();
        assert!(matches!(other.attachment(), Err(DataplaneError::OtherCgroup { .. })));
        drop(dataplane);
        let config = ground.paths.pins.join("maps/kpx_config");
        let mut value = vec!["99", "0", "0", "0"];
        value.extend(vec!["0"; size_of::<kpx_abi::Config>() - value.len()]);
        let mut args = vec!["map", "update", "pinned", config.to_str().unwrap(), "key", "0", "0", "0", "0", "value"];
        args.extend(value);
        command::output("bpftool", args, None).unwrap();
        let error = Dataplane::adopt(&ground.paths).unwrap_err();
        assert!(matches!(error, DataplaneError::Newer { found: 99, .. }), "{error}");
    });
}

#[test]
fn without_capabilities_it_says_which() {
    Ground::with(|ground| {
        let mut loader = ground.agent();
        let command =
            format!("load-without-capabilities {} {}", ground.paths.pins.display(), ground.paths.cgroup.display());
        assert_eq!(loader.ask(command), "ok not permitted: missing CAP_BPF and CAP_NET_ADMIN");
    });
}

#[test]
fn a_kill_at_any_moment_leaves_what_the_next_one_can_finish() {
    Ground::with(|ground| {
        let same = table([cluster_ip("10.96.0.10:80", Protocol::Tcp, &["127.0.0.1:8080"])]);
        for round in 0..12_u64 {
            {
                let mut loader = ground.agent();
                loader.tell(format!(
                    "come-and-go {} {} 10.96.0.10:80 127.0.0.1:8080",
                    ground.paths.pins.display(),
                    ground.paths.cgroup.display()
                ));
                std::thread::sleep(Duration::from_millis(11 * round));
            }
            let mut dataplane = Dataplane::install(&ground.paths, &Capacity::for_table(&same)).unwrap();
            dataplane.fill(&same).unwrap();
            dataplane.attach().unwrap();
            assert_eq!(dataplane.attachment().unwrap(), Attachment::Attached);
            let differences = diff(&same, &dataplane.table().unwrap());
            assert!(differences.is_empty(), "{differences:#?}");
            if round % 2 == 0 {
                Dataplane::remove(&ground.paths).unwrap();
            }
        }
    });
}

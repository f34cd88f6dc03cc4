//! The agent is restarted, killed and replaced by other binaries, and no packet notices.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kpx::capture::command;

use super::api::{service, slice};
use super::rig::{Rig, health};
use super::serving::rig;
use super::streams::{Pusher, Stream};
use crate::dataplane::ground::Ground;
use crate::dataplane::packets::services::PORT;
use crate::dataplane::packets::world::{CLUSTER_IP, NODE, POD, REMOTE, VIP, World, at};
use crate::dataplane::traffic::{Backends, Client, Traffic};

/// The same kpx with another object: its programs' licence reads otherwise.
fn another_kpx(folder: &Path, name: &str, licence: &[u8; 12]) -> PathBuf {
    let mut binary = fs_err::read(env!("CARGO_BIN_EXE_kpx")).expect("it is there");
    let object = fs_err::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("ebpf/kpx.bpf.o")).expect("it is there");
    let within = memchr::memmem::find(&object, b"Dual MIT/GPL\0").expect("it has a licence");
    // The compiler may have kept more copies than one.
    let copies: Vec<usize> = memchr::memmem::find_iter(&binary, &object).collect();
    assert!(!copies.is_empty(), "the binary has the object");
    for at in copies {
        binary[at + within..][..licence.len()].copy_from_slice(licence);
    }
    let path = folder.join(name);
    fs_err::write(&path, binary).expect("written");
    fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("it can be run");
    path
}

/// Ids of the programs on the cgroup and on devices, by bpftool.
fn programs(rig: &Rig<'_>, ground: &Ground) -> Vec<u64> {
    let links = fs_err::read_dir(ground.paths.pins.join("links")).expect("links are pinned").flatten();
    let program = |path: PathBuf| {
        let shown = command::output("bpftool", ["-j", "link", "show", "pinned", &path.to_string_lossy()], None);
        let shown = shown.unwrap_or_else(|error| panic!("{error}: {}", rig.log()));
        let link: serde_json::Value = serde_json::from_slice(&shown).expect("bpftool speaks JSON");
        link["prog_id"].as_u64().expect("an id")
    };
    let mut found: Vec<u64> = links.map(|entry| program(entry.path())).collect();
    found.sort_unstable();
    found
}

/// Whoever began a migration goes on with the programs that it began with.
#[test]
fn an_agent_beside_an_open_migration_leaves_programs_alone() {
    Ground::with(|ground| {
        let folder = tempfile::tempdir().expect("a folder");
        let other = another_kpx(folder.path(), "other", b"Dual BSD/GPL");
        let rig = Rig::new(ground);
        rig.api.put(service("web", "10.96.0.10", 80, "TCP"));
        rig.api.put(slice("web", "web-1", 8080, "TCP", &["127.0.0.1"]));
        let agent = rig.start_binary(&other);
        rig.until_healthy();
        agent.kill();
        let before = programs(&rig, ground);
        assert!(before.len() >= 12, "{before:?}");
        // One that nothing was written of yet.
        let migration = rig.state("state").join("migrations/20260101T000000Z");
        fs_err::create_dir_all(&migration).expect("created");
        let agent = rig.start();
        let told = || {
            let health = health("/healthz");
            let text = health.and_then(|(_, body)| Some(body["conditions"]["Upgrade"].as_str()?.to_owned()));
            text.is_some_and(|text| text.contains("another kpx's") && text.contains("migration"))
        };
        rig.until("it is told", told);
        // It follows the API all the same.
        rig.api.put(slice("web", "web-1", 8080, "TCP", &["127.0.0.2"]));
        rig.until("the change", || rig.backends() == ["127.0.0.2:8080".parse().expect("an address")]);
        assert_eq!(programs(&rig, ground), before);
        agent.kill();
        fs_err::remove_dir(&migration).expect("removed");
        let _agent = rig.start();
        rig.until("they are replaced", || rig.log().contains("another kpx's programs are replaced"));
        rig.until("all is attached", || {
            let now = programs(&rig, ground);
            now.len() == before.len() && now.iter().all(|id| !before.contains(id))
        });
    });
}

/// The programs on devices are replaced while clients outside and pods are served by them.
#[test]
fn another_binary_costs_no_packet_on_devices() {
    World::with(|world| {
        let folder = tempfile::tempdir().expect("a folder");
        let other = another_kpx(folder.path(), "other", b"Dual BSD/GPL");
        let start = |space: &str, addr: &str| world.inside(space, || Pusher::start(&at(addr, PORT)));
        let pushers: Vec<Pusher> =
            POD.map(|addr| start("pod", addr)).into_iter().chain(REMOTE.map(|addr| start("remote", addr))).collect();
        world.inside("node", || {
            let rig = rig(world);
            let agent = rig.start();
            rig.until_healthy();
            let mut streams = Vec::new();
            for family in [0, 1] {
                for (from, to) in [
                    ("client", at(VIP[family], 80)),
                    ("client", at(NODE[family], 30_081)),
                    ("neighbour", at(CLUSTER_IP[family], 80)),
                ] {
                    streams.extend(world.inside(from, || [Stream::tcp(&to), Stream::udp(&to)]));
                }
            }
            let wait = || std::thread::sleep(Duration::from_secs(1));
            let replaced = |times: usize| rig.log().matches("another kpx's programs are replaced").count() == times;
            wait();
            agent.kill();
            let agent = rig.start_binary(&other);
            rig.until("its programs are replaced", || replaced(1));
            wait();
            agent.kill();
            let _agent = rig.start();
            rig.until("and back", || replaced(2));
            wait();
            for heard in streams.into_iter().map(Stream::end) {
                assert_eq!((heard.missing, &heard.failure), (0, &None), "{}: {heard:?}", heard.name);
                assert!(heard.records > 100, "{heard:?}");
            }
            let seen: usize = pushers.iter().map(|pusher| pusher.seen().len()).sum();
            assert_eq!(seen, 12, "every server sees its clients as it saw them first");
        });
    });
}

#[test]
fn restarts_kills_and_other_binaries_cost_no_packet() {
    Ground::with(|ground| {
        let folder = tempfile::tempdir().expect("a folder");
        let other = another_kpx(folder.path(), "other", b"Dual BSD/GPL");
        // The kernel's verifier refuses these programs: they call what only free ones may.
        let refused = another_kpx(folder.path(), "refused", b"Proprietary!");
        let _backends =
            Backends::start(&[("/proc/self/ns/net", &["127.0.0.1:8080", "127.0.0.2:8080", "127.0.0.3:8080"])]);
        let rig = Rig::new(ground);
        let both = ["127.0.0.1", "127.0.0.2"];
        for (name, protocol) in [("web", "TCP"), ("dns", "UDP")] {
            rig.api.put(service(name, "10.96.0.10", 80, protocol));
            rig.api.put(slice(name, &format!("{name}-1"), 8080, protocol, &both));
        }
        let begun = |times: usize| rig.log().matches("the maps have everything").count() >= times;
        let agent = rig.start();
        rig.until_healthy();
        rig.until("it attaches", || ground.agent().ask("tcp-many 10.96.0.10:80 1").contains("=1"));
        let cgroup = Some(ground.paths.cgroup.as_path());
        let mut traffic = Traffic::start(&[Client { netns: None, cgroup, targets: &["10.96.0.10:80"] }]);
        std::thread::sleep(Duration::from_secs(2));

        traffic.phase("restart");
        assert_eq!(agent.terminate(), Some(0));
        let agent = rig.start();
        rig.until("it is back", || begun(2));
        std::thread::sleep(Duration::from_secs(1));

        traffic.phase("kill");
        agent.kill();
        let agent = rig.start();
        rig.until("it is back", || begun(3));
        std::thread::sleep(Duration::from_secs(1));
        assert!(!rig.log().contains("another kpx's programs"), "nothing was replaced so far");

        traffic.phase("another object");
        agent.kill();
        let agent = rig.start_binary(&other);
        rig.until("its programs are replaced", || rig.log().contains("another kpx's programs are replaced"));
        rig.until("it is back", || begun(4));
        std::thread::sleep(Duration::from_secs(1));

        traffic.phase("refused object");
        agent.kill();
        let _agent = rig.start_binary(&refused);
        rig.until("it is back", || begun(5));
        let told = || {
            health("/healthz").is_some_and(|(_, body)| {
                body["conditions"]["Upgrade"].as_str().is_some_and(|text| text.contains("refused program"))
            })
        };
        rig.until("it is told", told);
        // The old programs serve on and follow the API, and the look through all sockets that follows the start ends none
        // to an endpoint that comes meanwhile.
        rig.api.put(slice("web", "web-2", 8080, "TCP", &["127.0.0.3"]));
        rig.until("the change", || rig.backends().contains(&"127.0.0.3:8080".parse().expect("an address")));
        std::thread::sleep(Duration::from_secs(1));
        traffic.judge();
    });
}

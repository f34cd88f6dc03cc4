//! The agent is restarted, killed and replaced by other binaries, and no packet notices.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::api::{service, slice};
use super::rig::{Rig, health};
use crate::dataplane::ground::Ground;
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
        // The old programs serve on and follow the API. The look through all sockets that follows a start judges them by the
        // endpoints of its start, and ends those to one that comes meanwhile: that is not what this test is about.
        std::thread::sleep(Duration::from_secs(3));
        rig.api.put(slice("web", "web-2", 8080, "TCP", &["127.0.0.3"]));
        rig.until("the change", || rig.backends().contains(&"127.0.0.3:8080".parse().expect("an address")));
        std::thread::sleep(Duration::from_secs(1));
        traffic.judge();
    });
}

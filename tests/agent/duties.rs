//! What the agent does for the node besides serving, and what it leaves to a migration.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use kpx::dataplane::{Attachment, Dataplane, Mode};
use kpx::model::ServiceTable;

use super::api::{service, slice};
use super::devices::programs;
use super::rig::{Rig, health};
use crate::dataplane::ground::Ground;

fn sysctl(name: &str) -> Option<String> {
    fs_err::read_to_string(format!("/proc/sys/net/netfilter/nf_conntrack_{name}"))
        .ok()
        .map(|text| text.trim().to_owned())
}

#[test]
fn sysctls_are_set_as_kube_proxy_sets_them() {
    Ground::with(|ground| {
        if sysctl("tcp_timeout_established").is_none() {
            println!("skipped: this kernel has no conntrack in new network namespaces");
            return;
        }
        let most = sysctl("max");
        let stream = sysctl("udp_timeout_stream");
        let rig = Rig::new(ground).with("--kube-proxy-flag conntrack-udp-timeout=45s");
        let _agent = rig.start();
        rig.until_healthy();
        let now = |name: &str| sysctl(name).expect("it is there");
        assert_eq!(now("tcp_timeout_established"), "86400");
        assert_eq!(now("tcp_timeout_close_wait"), "3600");
        assert_eq!(now("udp_timeout"), "45");
        assert_eq!(
            (sysctl("udp_timeout_stream"), sysctl("max")),
            (stream, most),
            "not asked for, and not this namespace's"
        );
        assert!(
            rig.log().contains("nf_conntrack_tcp_timeout_established is 86400, as kube-proxy sets it; it was 432000")
        );
    });
}

#[test]
fn systemd_is_told_when_services_are_served() {
    Ground::with(|ground| {
        let rig = Rig::new(ground);
        let socket = UnixDatagram::bind(rig.state("notify")).expect("bound");
        socket.set_read_timeout(Some(Duration::from_secs(2))).expect("it can be set");
        let told = || {
            let mut room = [0; 512];
            socket.recv(&mut room).ok().map(|size| String::from_utf8_lossy(&room[..size]).into_owned())
        };
        rig.api.put(service("web", "10.96.0.10", 80, "TCP"));
        rig.api.put(slice("web", "web-1", 8080, "TCP", &["127.0.0.1"]));
        rig.api.refuse("EndpointSlice", 500);
        let agent = rig.start();
        rig.until("it asks", || rig.api.requests().contains(&("watch", "/api/v1/services")));
        assert_eq!(told(), None, "nothing is served yet");
        rig.api.refuse("EndpointSlice", 0);
        let mut last = String::new();
        rig.until("it is ready", || {
            last = told().unwrap_or_default();
            !last.is_empty()
        });
        assert!(last.starts_with("READY=1\nSTATUS=1 Services, packet path on 2 devices"), "{last}");
        assert_eq!(agent.terminate(), Some(0));
        while !last.starts_with("STOPPING=1") {
            last = told().expect("it says that it stops");
        }
    });
}

/// A migration whose journal is open: nothing is undone, so it is under way or in force.
fn open_migration(rig: &Rig<'_>) {
    fs_err::create_dir_all(rig.state("state").join("migrations/20260101T000000Z")).expect("made");
}

#[test]
fn before_a_migration_has_made_maps_the_agent_makes_none() {
    Ground::with(|ground| {
        let rig = Rig::new(ground);
        open_migration(&rig);
        rig.api.put(service("web", "10.96.0.10", 80, "TCP"));
        let _agent = rig.start();
        rig.until("it has synced", || {
            health("/healthz").is_some_and(|(_, body)| {
                body["lastUpdated"].is_string() || !body["status"]["IPv4"]["lastUpdated"].is_null()
            })
        });
        std::thread::sleep(Duration::from_secs(2));
        assert!(!ground.paths.pins.exists(), "nothing was pinned");
        assert_eq!((programs("kpx0").len(), programs("kpx1").len()), (0, 0));
    });
}

#[test]
fn under_a_migration_maps_are_kept_true_and_nothing_more_is_attached() {
    Ground::with(|ground| {
        let rig = Rig::new(ground);
        open_migration(&rig);
        let mut dataplane = ground.dataplane(&ServiceTable::default(), Mode::Shadow);
        dataplane.attach_devices(|device| device.name == "kpx0", |_| false).expect("it can be attached");
        rig.api.put(service("web", "10.96.0.10", 80, "TCP"));
        rig.api.put(slice("web", "web-1", 8080, "TCP", &["127.0.0.1"]));
        let agent = rig.start();
        let backends =
            |list: &[&str]| rig.backends() == list.iter().map(|a| a.parse().expect("an address")).collect::<Vec<_>>();
        rig.until("the maps are filled", || backends(&["127.0.0.1:8080"]));
        rig.api.put(slice("web", "web-1", 8080, "TCP", &["127.0.0.2"]));
        rig.until("the maps follow", || backends(&["127.0.0.2:8080"]));
        super::devices::ip("link add late type veth peer name later");
        let kept = |mode: Mode, attachment: &Attachment| {
            std::thread::sleep(Duration::from_secs(2));
            let now = Dataplane::expect(&ground.paths).expect("it is there");
            assert_eq!(now.mode().expect("it can be read"), mode);
            assert_eq!(now.attachment().expect("it can be read"), *attachment);
            assert_eq!((programs("kpx0").len(), programs("kpx1").len(), programs("late").len()), (2, 0, 0));
        };
        kept(Mode::Shadow, &Attachment::Attached);
        // What the migration has attached comes back to where it was.
        let index = Dataplane::expect(&ground.paths).expect("it is there").device_numbers().expect("told");
        let link = ground.paths.pins.join(format!("links/kpx_ingress-{}", index.first().expect("one")));
        fs_err::remove_file(link).expect("removed");
        rig.until("it is back", || programs("kpx0").len() == 2);
        // Before the phase that attaches, or on the way back after it: hooks that are off stay off.
        dataplane.detach().expect("detached");
        kept(Mode::Shadow, &Attachment::Detached);
        drop(agent);
        // Once it is closed, nobody else decides.
        fs_err::remove_dir_all(rig.state("state").join("migrations")).expect("removed");
        let _agent = rig.start();
        rig.until_healthy();
        rig.until("all is attached", || programs("kpx1").len() == 2 && programs("late").len() == 2);
    });
}

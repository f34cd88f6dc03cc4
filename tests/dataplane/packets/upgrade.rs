//! Programs and layouts are replaced while packets flow: through the hooks of sockets and those of devices.

use std::time::Duration;

use kpx::dataplane::{Capacity, Dataplane, Mode, Paths, Upgrade};
use kpx_abi::{Config, Exposure, Flags, LAYOUT_VERSION};

use super::super::old;
use super::super::traffic::{Backends, Client, Traffic};
use super::frontends::Tables;
use super::services::{exposed, serve};
use super::world::{BRIDGE, CLUSTER_IP, NEIGHBOUR, NODE, POD, REMOTE, World};

const DEVICES: [&str; 4] = ["eth0", "br0", "pod", "neighbour"];

#[test]
fn layout_2_and_then_its_programs_are_replaced_under_traffic() {
    replaced_from(2);
}

#[test]
fn layout_3_and_then_its_programs_are_replaced_under_traffic() {
    replaced_from(3);
}

#[test]
fn layout_4_and_then_its_programs_are_replaced_under_traffic() {
    replaced_from(4);
}

fn replaced_from(layout: u32) {
    World::with(|world| {
        let cgroup = world.paths.cgroup.join(format!("kpx-upgrade-{}", std::process::id()));
        fs_err::create_dir(&cgroup).expect("root can make a cgroup");
        let paths = Paths { pins: world.paths.pins.clone(), cgroup };
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| upgrade(world, &paths, layout)));
        let _ = world.inside("node", || Dataplane::remove(&paths));
        for _ in 0..100 {
            if fs_err::remove_dir(&paths.cgroup).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

fn upgrade(world: &World, paths: &Paths, layout: u32) {
    let config = Config {
        layout_version: layout,
        mode: Mode::Active as u32,
        yield_ns: 1_000_000_000,
        snat_first: 10_000,
        snat_last: 30_000,
        ..Config::default()
    };
    world.inside("node", || {
        old::install(&old::object(layout), paths, &DEVICES);
        old::set(paths, "kpx_config", 0, config);
        let mut tables = Tables::open(paths);
        for device in DEVICES {
            tables.ethernet_device(u32::try_from(old::index(device)).expect("small"));
        }
        tables.node(&[NODE, BRIDGE].concat(), &["10.244.0.0/16", "fd44::/16"]);
        serve(&mut tables, 1, CLUSTER_IP, 80, exposed(Exposure::ClusterIp), &[POD, NEIGHBOUR, REMOTE]);
        // Described devices have no address to masquerade with yet: what an agent of that layout gave them.
        tables.masquerade_address("eth0", NODE);
        tables.masquerade_address("br0", BRIDGE);
        let masqueraded = exposed(Exposure::NodePort).with(Flags::MASQUERADE_ALWAYS, true);
        serve(&mut tables, 9, ["0.0.0.0", "::"], 30080, masqueraded, &[POD, REMOTE]);
        serve(&mut tables, 17, ["0.0.0.0", "::"], 30081, exposed(Exposure::NodePort), &[NEIGHBOUR]);
    });
    let spaces = ["pod", "neighbour", "remote"].map(|space| world.name(space));
    let at = [POD, NEIGHBOUR, REMOTE].map(|[v4, v6]| [format!("{v4}:8080"), format!("[{v6}]:8080")]);
    let at = at.each_ref().map(|both| both.each_ref().map(String::as_str));
    let _backends = Backends::start(&[
        (spaces[0].as_str(), at[0].as_slice()),
        (spaces[1].as_str(), at[1].as_slice()),
        (spaces[2].as_str(), at[2].as_slice()),
    ]);
    let (node, client) = (world.name("node"), world.name("client"));
    let mut traffic = Traffic::start(&[
        Client { netns: Some(&node), cgroup: Some(&paths.cgroup), targets: &["10.96.0.10:80", "[fd96::10]:80"] },
        Client {
            netns: Some(&client),
            cgroup: None,
            targets: &["192.168.77.1:30080", "[fd77::1]:30080", "192.168.77.1:30081"],
        },
    ]);
    let before = world.inside("node", || old::links(paths));
    assert_eq!(before.len(), 10 + 2 * DEVICES.len());
    std::thread::sleep(Duration::from_secs(2));
    let mut links = before;
    for (phase, from) in [("layout", layout), ("programs", LAYOUT_VERSION)] {
        traffic.phase(phase);
        let dataplane = world.inside("node", || Dataplane::install(paths, &Capacity::default())).expect("taken over");
        assert_eq!(dataplane.upgraded(), Some(&Upgrade { from, to: LAYOUT_VERSION }), "{phase}");
        assert!(dataplane.is_current());
        std::thread::sleep(Duration::from_millis(1500));
        let now = world.inside("node", || old::links(paths));
        assert_eq!(now.len(), links.len());
        for (then, now) in links.iter().zip(&now) {
            assert_eq!((&then.0, then.1), (&now.0, now.1), "the link is the same");
            assert_ne!(then.2, now.2, "{}: the program is another", now.0);
        }
        links = now;
        // Without the mark, nobody knows whose the programs are.
        for entry in fs_err::read_dir(&paths.pins).expect("pins") {
            let path = entry.expect("an entry").path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("object-")) {
                fs_err::remove_dir(path).expect("an empty directory");
            }
        }
    }
    traffic.judge();
}

//! The short cut in drivers, by the agent's option: attached, repaired, and taken by the packets that it is for.

use kpx::capture::command;

use super::rig::metrics;
use super::serving::{FLAGS, rig};
use super::streams::{Pusher, Stream};
use crate::dataplane::packets::peers::{exchange, seen, udp};
use crate::dataplane::packets::services::{PORT, servers};
use crate::dataplane::packets::world::{NODE, REMOTE, World, at};

const GENERIC: &str = "--kube-proxy-flag cluster-cidr=10.244.0.0/16,fd44::/16 --xdp generic --xdp-devices eth0";
const NATIVE: &str = "--kube-proxy-flag cluster-cidr=10.244.0.0/16,fd44::/16 --xdp native --xdp-devices eth0";

/// How the kernel runs a program of XDP on the node's device, by `ip`.
fn xdp() -> Option<String> {
    let listed = command::output("ip", ["-j", "link", "show", "dev", "eth0"], None).expect("ip lists");
    let links: serde_json::Value = serde_json::from_slice(&listed).expect("ip speaks JSON");
    Some(match links[0]["xdp"]["mode"].as_u64()? {
        1 => "native".to_owned(),
        2 => "generic".to_owned(),
        other => format!("mode {other}"),
    })
}

/// How many packets took the short cut, as the agent tells.
fn short_cuts() -> u64 {
    let text = metrics();
    let line = text.lines().find_map(|line| line.strip_prefix("kpx_decisions{reason=\"short_cut\"} "));
    line.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Runs a test where the short cut can be taken, or prints why not.
fn where_it_can_be_taken(test: impl FnOnce(&World)) {
    World::with(|world| {
        if command::run("ethtool", ["--version"], None).is_err() {
            println!("skipped: no ethtool");
            return;
        }
        // Network cards deliver packets with their checksums; virtual devices are made to.
        for (space, device) in [("client", "wire"), ("client", "to-node"), ("other", "eth0"), ("node", "eth0")] {
            world.inside(space, || {
                command::output("ethtool", ["-K", device, "tx", "off"], None).expect("offloads can be switched off");
            });
        }
        test(world);
    });
}

/// A virtual device takes frames from its peer's driver only if it runs a program itself, whichever.
fn let_the_peer_take_frames(world: &World) {
    let program = world.paths.pins.join("programs/kpx_xdp");
    let program = program.to_str().expect("the path is UTF-8");
    world.ip("client", &[&format!("link set to-node xdpdrv pinned {program}")]);
}

fn node_ports_take_it(flags: &'static str, mode: &str) {
    where_it_can_be_taken(|world| {
        let _servers = servers(world);
        world.inside("node", || {
            let rig = rig(world).with(flags);
            let agent = rig.start();
            rig.until_healthy();
            rig.until("the short cut is attached", || xdp().as_deref() == Some(mode));
            if mode == "native" {
                let_the_peer_take_frames(world);
            }
            // NodePort 30081 has its backend on the other node.
            let talk = || {
                world.inside("client", || {
                    for (family, addr) in NODE.into_iter().enumerate() {
                        let socket = udp(family);
                        for _ in 0..20 {
                            let answer = exchange(&socket, &at(addr, 30_081), 700).expect("it answers");
                            assert_eq!((&answer[..6], seen(&answer)), ("remote", NODE[family].to_owned()));
                        }
                    }
                });
            };
            talk();
            rig.until("packets take it", || short_cuts() > 40);
            // Somebody takes it off.
            let links = fs_err::read_dir(world.paths.pins.join("links")).expect("links are pinned");
            let mut links = links.flatten().map(|entry| entry.path());
            let link = links.find(|path| path.to_string_lossy().contains("kpx_xdp-")).expect("it is pinned");
            command::output("bpftool", ["link", "detach", "pinned", &link.to_string_lossy()], None).expect("detached");
            rig.until("it is told", || rig.log().contains("kpx_xdp had been detached from eth0"));
            assert_eq!(xdp().as_deref(), Some(mode));
            let before = short_cuts();
            talk();
            rig.until("packets take it again", || short_cuts() > before + 40);
            // An agent without the option takes it off, and serves on.
            agent.kill();
            let rig = rig.with(FLAGS);
            let _agent = rig.start();
            rig.until("it is off", || xdp().is_none());
            talk();
        });
    });
}

#[test]
fn node_ports_take_the_generic_short_cut() {
    node_ports_take_it(GENERIC, "generic");
}

#[test]
fn node_ports_take_the_native_short_cut() {
    node_ports_take_it(NATIVE, "native");
}

#[test]
fn another_mode_costs_no_packet() {
    where_it_can_be_taken(|world| {
        let _pushers = REMOTE.map(|addr| world.inside("remote", || Pusher::start(&at(addr, PORT))));
        world.inside("node", || {
            let mut rig = rig(world).with(GENERIC);
            let mut agent = rig.start();
            rig.until_healthy();
            rig.until("the short cut is attached", || xdp().as_deref() == Some("generic"));
            let_the_peer_take_frames(world);
            let streams: Vec<Stream> = world.inside("client", || {
                let to = NODE.map(|addr| at(addr, 30_081));
                to.iter().flat_map(|to| [Stream::tcp(to), Stream::udp(to)]).collect()
            });
            for (flags, mode) in [(NATIVE, "native"), (GENERIC, "generic")] {
                rig.until("packets take it", || short_cuts() > 100);
                agent.kill();
                rig = rig.with(flags);
                agent = rig.start();
                rig.until("it has the other mode", || xdp().as_deref() == Some(mode));
                rig.until_healthy();
                let before = short_cuts();
                rig.until("packets take it again", || short_cuts() > before + 100);
            }
            for heard in streams.into_iter().map(Stream::end) {
                assert!(heard.failure.is_none() && heard.missing == 0 && heard.records > 100, "{heard:?}");
            }
        });
    });
}

//! The short cut in drivers: the same ways, and packets that never enter the node's stack.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use kpx::capture::command;
use kpx::dataplane::{Mode, Reason, XdpMode};
use kpx_abi::{Exposure, Flags};

use super::peers::{Talk, exchange, seen, udp};
use super::services::{capacity, exposed, serve, servers};
use super::world::{NODE, POD, REMOTE, VIP, World, at};

/// Packets that the node's stack has forwarded, IPv4 and IPv6.
fn forwarded(world: &World) -> u64 {
    world.inside("node", || {
        let number = |text: &str| text.trim().parse::<u64>().expect("a number");
        let table = fs_err::read_to_string("/proc/thread-self/net/snmp").expect("the kernel counts");
        let lines: Vec<&str> = table.lines().filter(|line| line.starts_with("Ip:")).collect();
        let column = lines[0].split(' ').position(|name| name == "ForwDatagrams").expect("a column");
        let four = number(lines[1].split(' ').nth(column).expect("a value"));
        let table = fs_err::read_to_string("/proc/thread-self/net/snmp6").expect("the kernel counts");
        let line = table.lines().find_map(|line| line.strip_prefix("Ip6OutForwDatagrams"));
        four + number(line.expect("a line"))
    })
}

fn flows_take_it(mode: XdpMode) {
    World::with(|world| {
        if command::run("ethtool", ["--version"], None).is_err() {
            println!("skipped: no ethtool");
            return;
        }
        let _servers = servers(world);
        let (mut dataplane, mut tables) = world.dataplane(&capacity(), Mode::Active);
        let masqueraded = exposed(Exposure::LoadBalancer).with(Flags::MASQUERADE_ALWAYS, true);
        serve(&mut tables, 1, VIP, 80, masqueraded, &[REMOTE]);
        serve(&mut tables, 11, VIP, 81, masqueraded, &[POD]);
        // Network cards deliver packets with their checksums; virtual devices are made to.
        for (space, device) in [("client", "wire"), ("client", "to-node"), ("other", "eth0"), ("node", "eth0")] {
            world.inside(space, || {
                command::output("ethtool", ["-K", device, "tx", "off"], None).expect("offloads can be switched off");
            });
        }
        // A virtual device takes frames from its peer's driver only if it runs a program itself, whichever.
        if mode == XdpMode::Native {
            let program = world.paths.pins.join("programs/kpx_xdp");
            let program = program.to_str().expect("the path is UTF-8");
            world.ip("client", &[&format!("link set to-node xdpdrv pinned {program}")]);
        }
        let attached = world.inside("node", || dataplane.attach_xdp(|device| device.name == "eth0", mode).unwrap());
        assert_eq!(attached.devices.len(), 1);
        world.inside("client", || {
            for (family, addr) in VIP.into_iter().enumerate() {
                let (mut talk, line) = Talk::to(&at(addr, 80)).expect("it connects");
                assert_eq!(seen(&line), NODE[family], "{line}");
                talk.echo(300_000);
                let socket = udp(family);
                for _ in 0..50 {
                    exchange(&socket, &at(addr, 80), 700).expect("it answers");
                }
                // Its backend is on the node: nothing turns round.
                Talk::to(&at(addr, 81)).expect("it connects").0.echo(10_000);
            }
        });
        let (taken, stack) = (dataplane.counters().unwrap().of(Reason::ShortCut), forwarded(world));
        println!("{mode:?}: {taken} packets took the short cut, {stack} the stack");
        assert!(taken > 190, "{taken}");
        world.inside("node", || {
            dataplane.detach_devices().unwrap();
            let shown = command::output("ip", ["link", "show", "eth0"], None).unwrap();
            assert!(!String::from_utf8(shown).unwrap().contains("xdp"));
        });
    });
}

#[test]
fn flows_take_the_short_cut_before_the_stack() {
    flows_take_it(XdpMode::Generic);
}

#[test]
fn flows_take_the_short_cut_in_the_driver() {
    flows_take_it(XdpMode::Native);
}

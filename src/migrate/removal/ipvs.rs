//! ipvs mode: virtual services of kube-proxy, and the device with their addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;

use serde::Deserialize;

use super::Count;
use super::change::{Act, Change};
use crate::capture::netlink::attribute;
use crate::inspect::ipvs::message::{
    DELETE_SERVICE, NEW_SERVER, NEW_SERVICE, SERVER, SERVER_ADDRESS, SERVER_FAMILY, SERVER_FORWARD,
    SERVER_LOWER_THRESHOLD, SERVER_PORT, SERVER_UPPER_THRESHOLD, SERVER_WEIGHT, SERVICE, SERVICE_ADDRESS,
    SERVICE_FAMILY, SERVICE_FLAGS, SERVICE_MARK, SERVICE_NETMASK, SERVICE_PORT, SERVICE_PROTOCOL, SERVICE_SCHEDULER,
    SERVICE_TIMEOUT, SET_SERVER,
};
use crate::inspect::ipvs::{DEVICE, RealServer, State, Virtual, VirtualService};
use crate::model::Family;

/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;

/// A message to the kernel's IPVS: what to do, and what follows the header of generic netlink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) number: u8,
    pub(super) attributes: Vec<u8>,
    /// The same for people, as ipvsadm has it.
    pub(super) shown: String,
}

/// The change that deletes kube-proxy's virtual services, which takes their servers along.
pub(super) fn removal(state: &State) -> Option<Change> {
    let delete = |service: &VirtualService| Command {
        number: DELETE_SERVICE,
        attributes: nested(SERVICE, &key(service)),
        shown: format!("-D {}", service.key),
    };
    let servers = state.own().map(|service| service.servers.len()).sum();
    change(state.own().map(delete).collect(), state.own().count(), servers)
}

/// The change that brings back virtual services and servers that are missing, and weights that differ.
pub(super) fn restoration(then: &State, now: &State) -> Option<Change> {
    let there: BTreeMap<Virtual, &VirtualService> =
        now.ipvs.services.iter().map(|service| (service.key, service)).collect();
    let (mut commands, mut services, mut servers) = (Vec::new(), 0, 0);
    for service in then.own() {
        let known = there.get(&service.key);
        if known.is_none() {
            let shown = format!("-A {} -s {}", service.key, service.scheduler);
            commands.push(Command { number: NEW_SERVICE, attributes: nested(SERVICE, &whole(service)), shown });
            services += 1;
        }
        for server in &service.servers {
            let known = known.and_then(|s| s.servers.iter().find(|known| known.address == server.address));
            let (number, word) = match known {
                Some(known) if known.weight == server.weight => continue,
                Some(_) => (SET_SERVER, "-e"),
                None => (NEW_SERVER, "-a"),
            };
            let mut attributes = nested(SERVICE, &key(service));
            attributes.extend(nested(SERVER, &of_server(server)));
            let shown = format!("{word} {} -r {} -w {}", service.key, server.address, server.weight);
            commands.push(Command { number, attributes, shown });
            servers += 1;
        }
    }
    change(commands, services, servers)
}

/// The change that gives the servers of kube-proxy's virtual services weight 0.
pub(super) fn drain(state: &State) -> Option<Change> {
    let drained = |service: &VirtualService, server: &RealServer| {
        let mut attributes = nested(SERVICE, &key(service));
        attributes.extend(nested(SERVER, &of_server(&RealServer { weight: 0, ..*server })));
        let shown = format!("-e {} -r {} -w 0", service.key, server.address);
        Command { number: SET_SERVER, attributes, shown }
    };
    let mut commands = Vec::new();
    for service in state.own() {
        commands
            .extend(service.servers.iter().filter(|server| server.weight > 0).map(|server| drained(service, server)));
    }
    let count = Count::new("ipvs", [("servers", commands.len())]);
    (!commands.is_empty()).then_some(Change { act: Act::Ipvs(commands), count })
}

fn change(commands: Vec<Command>, services: usize, servers: usize) -> Option<Change> {
    let count = Count::new("ipvs", [("services", services), ("servers", servers)]);
    (!commands.is_empty()).then_some(Change { act: Act::Ipvs(commands), count })
}

fn nested(kind: u16, inner: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    attribute(&mut out, kind | NESTED, inner);
    out
}

/// An address as the kernel takes it: of either family in 16 bytes.
fn address(ip: IpAddr) -> [u8; 16] {
    let mut bytes = [0; 16];
    match ip {
        IpAddr::V4(v4) => bytes[..4].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => bytes = v6.octets(),
    }
    bytes
}

const fn number(family: Family) -> u16 {
    match family {
        Family::V4 => libc::AF_INET as u16,
        Family::V6 => libc::AF_INET6 as u16,
    }
}

/// The attributes that name a service.
fn key(service: &VirtualService) -> Vec<u8> {
    let mut out = Vec::new();
    match service.key {
        Virtual::Address(at, protocol) => {
            attribute(&mut out, SERVICE_FAMILY, &number(Family::of(at.ip())).to_ne_bytes());
            attribute(&mut out, SERVICE_PROTOCOL, &u16::from(protocol.number()).to_ne_bytes());
            attribute(&mut out, SERVICE_ADDRESS, &address(at.ip()));
            attribute(&mut out, SERVICE_PORT, &at.port().to_be_bytes());
        }
        Virtual::Mark(family, mark) => {
            attribute(&mut out, SERVICE_FAMILY, &number(family).to_ne_bytes());
            attribute(&mut out, SERVICE_MARK, &mark.to_ne_bytes());
        }
    }
    out
}

fn whole(service: &VirtualService) -> Vec<u8> {
    let mut out = key(service);
    attribute(&mut out, SERVICE_SCHEDULER, &[service.scheduler.as_bytes(), b"\0"].concat());
    // Flags, and which of them count.
    attribute(&mut out, SERVICE_FLAGS, &[service.flags.0.to_ne_bytes(), u32::MAX.to_ne_bytes()].concat());
    attribute(&mut out, SERVICE_TIMEOUT, &service.persistence.to_ne_bytes());
    attribute(&mut out, SERVICE_NETMASK, &service.netmask.to_ne_bytes());
    out
}

fn of_server(server: &RealServer) -> Vec<u8> {
    let mut out = Vec::new();
    attribute(&mut out, SERVER_ADDRESS, &address(server.address.ip()));
    attribute(&mut out, SERVER_PORT, &server.address.port().to_be_bytes());
    attribute(&mut out, SERVER_FORWARD, &server.forward.number().to_ne_bytes());
    attribute(&mut out, SERVER_WEIGHT, &server.weight.to_ne_bytes());
    attribute(&mut out, SERVER_UPPER_THRESHOLD, &0_u32.to_ne_bytes());
    attribute(&mut out, SERVER_LOWER_THRESHOLD, &0_u32.to_ne_bytes());
    attribute(&mut out, SERVER_FAMILY, &number(Family::of(server.address.ip())).to_ne_bytes());
    out
}

/// A virtual service of kube-proxy that is there and was not.
pub(super) fn added(then: &State, now: &State) -> Option<Virtual> {
    let then: BTreeSet<Virtual> = then.own().map(|service| service.key).collect();
    now.own().map(|service| service.key).find(|key| !then.contains(key))
}

/// kube-proxy's device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Device {
    /// Its link-layer address, which the kernel draws.
    link: Option<String>,
    /// Its addresses with their prefixes, in the order that `ip` lists them.
    addresses: Vec<(IpAddr, u8)>,
}

#[derive(Deserialize)]
struct Link {
    ifname: String,
    address: Option<String>,
    linkinfo: Option<LinkInfo>,
    #[serde(default)]
    addr_info: Vec<AddressInfo>,
}

#[derive(Deserialize)]
struct LinkInfo {
    info_kind: Option<String>,
}

#[derive(Deserialize)]
struct AddressInfo {
    local: Option<IpAddr>,
    prefixlen: u8,
    scope: String,
}

impl Device {
    /// The device in what `ip -j -d addr` prints; `None` if there is none, or one of another kind that only has its name.
    pub(super) fn parse(json: &[u8]) -> Result<Option<Self>, serde_json::Error> {
        let links: Vec<Link> = serde_json::from_slice(json)?;
        let is_dummy = |link: &Link| {
            let kind = link.linkinfo.as_ref().and_then(|info| info.info_kind.as_deref());
            link.ifname == DEVICE && kind == Some("dummy")
        };
        // The kernel gives the device its link-local address by itself.
        let own = |info: AddressInfo| Some((info.local.filter(|_| info.scope != "link")?, info.prefixlen));
        let device = links.into_iter().find(is_dummy);
        Ok(device
            .map(|link| Self { link: link.address, addresses: link.addr_info.into_iter().filter_map(own).collect() }))
    }

    /// The change that takes it away, or all of its addresses but those `in_use`.
    pub(super) fn removal(&self, in_use: &BTreeSet<IpAddr>) -> Option<Change> {
        let (stay, go): (Vec<_>, Vec<_>) = self.addresses.iter().partition(|(ip, _)| in_use.contains(ip));
        if stay.is_empty() {
            return Some(Self::change(format!("link del {DEVICE}\n"), 1, self.addresses.len()));
        }
        let line = |(ip, prefix): &&(IpAddr, u8)| format!("addr del {ip}/{prefix} dev {DEVICE}\n");
        (!go.is_empty()).then(|| Self::change(go.iter().map(line).collect(), 0, go.len()))
    }

    /// Its addresses.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().map(|(ip, _)| *ip)
    }

    pub(super) fn restoration(&self, now: Option<&Self>) -> Option<Change> {
        let there: BTreeSet<_> = now.iter().flat_map(|device| &device.addresses).collect();
        let mut text = String::new();
        if now.is_none() {
            let link = self.link.as_ref().map(|link| format!(" address {link}")).unwrap_or_default();
            let _ = writeln!(text, "link add {DEVICE}{link} type dummy");
        }
        let missing = self.addresses.iter().filter(|address| !there.contains(address));
        // The kernel puts a new address of IPv4 behind the others, one of IPv6 in front of them.
        let (v4, v6): (Vec<_>, Vec<_>) = missing.partition(|(ip, _)| ip.is_ipv4());
        let missing: Vec<_> = v4.into_iter().chain(v6.into_iter().rev()).collect();
        for (ip, prefix) in &missing {
            let _ = writeln!(text, "addr add {ip}/{prefix} dev {DEVICE}");
        }
        (!text.is_empty()).then(|| Self::change(text, usize::from(now.is_none()), missing.len()))
    }

    fn change(text: String, devices: usize, addresses: usize) -> Change {
        let count = Count::new(format!("device {DEVICE}"), [("devices", devices), ("addresses", addresses)]);
        Change { act: Act::Device(text.into_bytes()), count }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::ipvs::{Flags, Forward, Ipvs, Stats, decode};
    use crate::model::Protocol;

    /// The one server that takes what is new.
    const ALONE: &str = "-e [fd00:10:96::a]:53/UDP -r [fd00::12]:5353 -w 0";

    fn service(address: &str, server: &str, flags: u32) -> VirtualService {
        let stats = Stats::default();
        let server = RealServer {
            address: server.parse().expect("an address"),
            forward: Forward::Masquerade,
            weight: 3,
            active: 0,
            inactive: 0,
            persistent: 0,
            stats,
        };
        VirtualService {
            key: Virtual::Address(address.parse().expect("an address"), Protocol::Udp),
            scheduler: "mh".to_owned(),
            flags: Flags(flags),
            persistence: 600,
            netmask: u32::MAX,
            stats,
            servers: vec![server],
        }
    }

    /// A message as the kernel answers, or the end of a list.
    fn answer(command: Option<&Command>) -> Vec<u8> {
        let (kind, body) = match command {
            Some(command) => (32_u16, [&[command.number, 1, 0, 0], command.attributes.as_slice()].concat()),
            None => (3, vec![0; 4]),
        };
        let length = u32::try_from(16 + body.len()).expect("short");
        [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], &body].concat()
    }

    /// The decoder is tried on what kernels have said: the same attributes, in requests, must say the same.
    #[test]
    fn what_is_written_is_read_as_it_was() {
        let services =
            [service("10.96.0.10:53", "10.244.1.12:53", 0x11), service("[fd00:10:96::a]:53", "[fd00::12]:5353", 0)];
        let state = |services: &[VirtualService]| State {
            ipvs: Ipvs { services: services.to_vec(), ..Ipvs::default() },
            addresses: Some(crate::inspect::ipvs::Addresses {
                services: Some(services.iter().filter_map(|s| Some(s.address()?.0)).collect()),
                ..Default::default()
            }),
            ..State::default()
        };
        let change = restoration(&state(&services), &State::default()).expect("all is missing");
        assert_eq!(change.count.to_string(), "ipvs: 2 servers, 2 services");
        let Act::Ipvs(commands) = &change.act else { panic!("it is of IPVS") };
        let of = |wanted: u8| commands.iter().filter(move |command| command.number == wanted);
        let mut bytes: Vec<u8> = of(NEW_SERVICE).flat_map(|command| answer(Some(command))).collect();
        bytes.extend(answer(None));
        for server in of(NEW_SERVER) {
            bytes.extend(answer(Some(server)));
            bytes.extend(answer(None));
        }
        assert_eq!(decode(&bytes).expect("it decodes").services, services);

        assert_eq!(restoration(&state(&services), &state(&services)), None);
        let mut drained = services.clone();
        drained[0].servers[0].weight = 0;
        assert_eq!(drain(&state(&drained)).map(|change| change.lines()), Some(vec![ALONE.to_owned()]));
        let change = restoration(&state(&services), &state(&drained)).expect("a weight differs");
        assert_eq!(change.lines(), ["-e 10.96.0.10:53/UDP -r 10.244.1.12:53 -w 3"]);
    }
}

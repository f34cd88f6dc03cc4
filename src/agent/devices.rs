//! Which network devices the packet path is attached to, and which of them have pods behind them.

use std::convert::Infallible;
use std::str::FromStr;

use crate::dataplane::{NodeDevice, carries_packets};
use crate::inspect::kube::Place;
use crate::model::Family;

/// Devices by their names: with `*` and `?`; with `!` before it, those that are not meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Devices {
    wanted: Vec<String>,
    unwanted: Vec<String>,
}

impl FromStr for Devices {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let mut devices = Self::default();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match word.strip_prefix('!') {
                Some(word) => devices.unwanted.push(word.to_owned()),
                None => devices.wanted.push(word.to_owned()),
            }
        }
        Ok(devices)
    }
}

impl Devices {
    /// Whether the packet path belongs on this device: it is named, or none is and packets of clients may come by it.
    pub(super) fn packets(&self, device: &NodeDevice) -> bool {
        self.choose(device, carries_packets(device))
    }

    /// Whether the short cut does: it is named, or none is and it is hardware.
    pub(super) fn short_cut(&self, device: &NodeDevice) -> bool {
        self.choose(device, device.kind.is_none() && device.mac.is_some())
    }

    fn choose(&self, device: &NodeDevice, unnamed: bool) -> bool {
        let among = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, &device.name));
        let wanted = if self.wanted.is_empty() { unnamed } else { among(&self.wanted) };
        wanted && !among(&self.unwanted)
    }
}

/// Whether pods are recognised by being behind this device.
pub(super) fn has_pods(place: &Place, device: &NodeDevice) -> bool {
    crate::dataplane::has_pods(Family::BOTH.map(|family| &place.facts.of(family).detector), device)
}

fn matches(pattern: &str, name: &str) -> bool {
    let Some(first) = pattern.chars().next() else { return name.is_empty() };
    let rest = &pattern[first.len_utf8()..];
    match first {
        '*' => (0..=name.len()).filter(|at| name.is_char_boundary(*at)).any(|at| matches(rest, &name[at..])),
        _ => name.chars().next().is_some_and(|c| (first == '?' || first == c) && matches(rest, &name[c.len_utf8()..])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str, kind: Option<&str>) -> NodeDevice {
        NodeDevice {
            index: 2,
            name: name.to_owned(),
            kind: kind.map(str::to_owned),
            master: None,
            mac: Some([2, 0, 0, 0, 0, 1]),
            xdp: None,
            addresses: Vec::new(),
        }
    }

    #[test]
    fn names_choose_devices() {
        let all: Devices = "".parse().expect("patterns");
        assert!(all.packets(&device("eth0", None)) && all.packets(&device("vxlan.calico", Some("vxlan"))));
        assert!(!all.packets(&device("kube-ipvs0", Some("dummy"))));
        assert!(all.short_cut(&device("eth0", None)) && !all.short_cut(&device("lxc1", Some("veth"))));
        let some: Devices = "eth*, cali?, !eth1".parse().expect("patterns");
        for (name, chosen) in [("eth0", true), ("eth1", false), ("cali1", true), ("cali12", false), ("wg0", false)] {
            assert_eq!(some.packets(&device(name, Some("dummy"))), chosen, "{name}");
        }
        let rest: Devices = "!docker*".parse().expect("patterns");
        assert!(rest.packets(&device("eth0", None)) && !rest.packets(&device("docker0", Some("bridge"))));
    }
}

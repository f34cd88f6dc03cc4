//! The packet path as a whole: on which devices it is, which source ports it uses.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use kpx_abi::{PortRange, map_name};

use super::attach::XdpMode;
use super::devices::{NodeDevice, described, read};
use super::error::DataplaneError;
use super::maps::{Maps, failed};
use super::pins::Paths;
use super::{Dataplane, attach, layouts};

/// Where programs of the packet path are, after they were attached.
#[derive(Debug, Default)]
pub struct OnDevices {
    /// The devices that have them.
    pub devices: Vec<NodeDevice>,
    /// Those of them that lacked programs, with the programs' names.
    pub new: Vec<(NodeDevice, Vec<&'static str>)>,
    /// Why other devices do not have them: one that cannot does not keep the rest from it.
    pub troubles: Vec<(NodeDevice, DataplaneError)>,
}

impl OnDevices {
    fn add(&mut self, device: &NodeDevice, attached: Result<Vec<&'static str>, DataplaneError>) {
        match attached {
            Ok(new) => {
                if !new.is_empty() {
                    self.new.push((device.clone(), new));
                }
                self.devices.push(device.clone());
            }
            Err(error) => self.troubles.push((device.clone(), error)),
        }
    }
}

impl Dataplane {
    /// Attaches the packet path to these of the devices of this network namespace, all but the loopback device, and detaches
    /// it from others. `pods` says behind which devices there are pods, where that is how pods are recognised.
    ///
    /// To be called again when devices or addresses have changed; what is attached stays.
    pub fn attach_devices(
        &mut self,
        wanted: impl Fn(&NodeDevice) -> bool,
        pods: impl Fn(&NodeDevice) -> bool,
    ) -> Result<OnDevices, DataplaneError> {
        let all = read()?;
        let chosen: Vec<&NodeDevice> = all.iter().filter(|device| wanted(device)).collect();
        let described: BTreeMap<u32, _> = described(&all, &wanted, pods).into_iter().collect();
        let now: BTreeMap<u32, _> = self.described()?;
        let mut found = OnDevices::default();
        for device in &chosen {
            let described = described[&device.index];
            if now.get(&device.index) != Some(&described) {
                self.maps.devices.put(&device.index, &described).map_err(failed("write", map_name::DEVICES))?;
            }
            found.add(device, attach::attach(&self.paths, device));
        }
        let stays: BTreeSet<u32> = chosen.iter().map(|device| device.index).collect();
        for index in known(&self.paths, &self.maps)?.difference(&stays) {
            self.leave(*index, &all)?;
        }
        Ok(found)
    }

    /// Attaches the short cut to the drivers of these of the devices that have the packet path, and detaches it from
    /// others: packets of known flows that would leave by the device they came by, to a backend on another node or back
    /// from there, never enter the stack (nor its filters).
    pub fn attach_xdp(
        &mut self,
        wanted: impl Fn(&NodeDevice) -> bool,
        mode: XdpMode,
    ) -> Result<OnDevices, DataplaneError> {
        let (chosen, rest): (Vec<_>, Vec<_>) = self.devices()?.into_iter().partition(wanted);
        let mut found = OnDevices::default();
        for device in &chosen {
            let attached = attach::attach_short_cut(&self.paths, device, mode);
            found.add(device, attached.map(|new| if new { vec![attach::SHORT_CUT] } else { Vec::new() }));
        }
        for device in &rest {
            attach::detach_short_cut(&self.paths, device.index)?;
        }
        Ok(found)
    }

    /// Detaches the packet path from all devices. Twice is no error.
    pub fn detach_devices(&mut self) -> Result<(), DataplaneError> {
        let all = read()?;
        for index in known(&self.paths, &self.maps)? {
            self.leave(index, &all)?;
        }
        Ok(())
    }

    /// Whether a driver runs the short cut, as far as its pins tell.
    pub fn has_short_cuts(&self) -> Result<bool, DataplaneError> {
        attach::has_short_cuts(&self.paths)
    }

    /// The numbers of the devices that the packet path is attached to, or was: one may have gone since.
    pub fn device_numbers(&self) -> Result<BTreeSet<u32>, DataplaneError> {
        known(&self.paths, &self.maps)
    }

    /// The devices that the packet path is attached to.
    pub fn devices(&self) -> Result<Vec<NodeDevice>, DataplaneError> {
        let known = known(&self.paths, &self.maps)?;
        Ok(read()?.into_iter().filter(|device| known.contains(&device.index)).collect())
    }

    fn described(&self) -> Result<BTreeMap<u32, kpx_abi::Device>, DataplaneError> {
        Ok(self.maps.devices.dump().map_err(failed("read", map_name::DEVICES))?.into_iter().collect())
    }

    fn leave(&self, index: u32, all: &[NodeDevice]) -> Result<(), DataplaneError> {
        let name = all.iter().find(|device| device.index == index).map(|device| device.name.as_str());
        attach::detach(&self.paths, index, name)?;
        self.maps.devices.delete(&index).map(drop).map_err(failed("delete from", map_name::DEVICES))
    }
}

/// The devices that the packet path was attached to, as its pins and its map remember.
fn known(paths: &Paths, maps: &Maps) -> Result<BTreeSet<u32>, DataplaneError> {
    let described = maps.devices.dump().map_err(failed("read", map_name::DEVICES))?;
    Ok(described.into_iter().map(|(index, _)| index).chain(attach::pinned(paths)?).collect())
}

/// Detaches the packet path from all devices, in whatever state the pins are.
pub(super) fn detach_all(paths: &Paths) -> Result<(), DataplaneError> {
    let known = match Maps::open(&paths.maps()) {
        Ok(maps) => known(paths, &maps)?,
        Err(_) => attach::pinned(paths)?.into_iter().collect(),
    };
    if known.is_empty() {
        return Ok(());
    }
    let all = read()?;
    for index in known {
        let name = all.iter().find(|device| device.index == index).map(|device| device.name.as_str());
        attach::detach(paths, index, name)?;
    }
    Ok(())
}

/// Gives the hooks of all devices that have the packet path the programs pinned in `programs`; see [`attach::renew`].
pub(super) fn renew(
    paths: &Paths,
    programs: &Path,
    before: &mut dyn FnMut() -> Result<(), DataplaneError>,
) -> Result<(), DataplaneError> {
    let described = layouts::first_words(&paths.maps(), map_name::DEVICES)?;
    let indexes: BTreeSet<u32> = described.into_iter().chain(attach::pinned(paths)?).collect();
    if indexes.is_empty() {
        return Ok(());
    }
    let named = read()?.into_iter().map(|device| (device.index, device.name)).collect();
    attach::renew(paths, programs, &indexes, &named, before)
}

/// The source ports that masqueraded flows get: none that sockets of the node choose for themselves, since a backend
/// could not tell such a socket's flow from a client's.
pub(super) fn source_ports() -> PortRange {
    let text = fs_err::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    beside(&text)
}

/// The larger range of unprivileged ports beside that of a sysctl's text; its default's if it cannot be read.
fn beside(text: &str) -> PortRange {
    let mut words = text.split_whitespace().map(str::parse::<u16>);
    let (first, last) = match (words.next(), words.next()) {
        (Some(Ok(first)), Some(Ok(last))) if first <= last => (first, last),
        _ => (32_768, 60_999),
    };
    let below = PortRange { first: 1024, last: first.saturating_sub(1) };
    let above = PortRange { first: last.saturating_add(1), last: u16::MAX };
    let size = |range: &PortRange| range.last.saturating_sub(range.first);
    if size(&below) >= size(&above) { below } else { above }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masqueraded_flows_keep_off_the_ports_that_sockets_choose() {
        assert_eq!(beside("32768\t60999\n"), PortRange { first: 1024, last: 32_767 });
        assert_eq!(beside("1024 40000"), PortRange { first: 40_001, last: 65_535 });
        assert_eq!(beside(""), PortRange { first: 1024, last: 32_767 });
    }
}

//! Whose a program or map is, by the names and pins that their owners give them.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// Who loaded an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// kpx, this one or another on the same host.
    Kpx,
    /// Cilium.
    Cilium,
    /// Calico.
    Calico,
    /// systemd.
    Systemd,
    /// Nobody who is known.
    #[default]
    Other,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Kpx => "kpx",
            Self::Cilium => "cilium",
            Self::Calico => "calico",
            Self::Systemd => "systemd",
            Self::Other => "other",
        })
    }
}

/// Prefixes of names, of the kernel's 15 characters and of pins.
const NAMES: [(&str, Owner); 6] = [
    ("kpx_", Owner::Kpx),
    ("cilium_", Owner::Cilium),
    ("cil_", Owner::Cilium),
    ("cali_", Owner::Calico),
    ("calico_", Owner::Calico),
    ("sd_", Owner::Systemd),
];

/// Directories of pins.
const DIRECTORIES: [(&str, Owner); 2] = [("cilium", Owner::Cilium), ("calico", Owner::Calico)];

fn by_name(name: &str) -> Option<Owner> {
    NAMES.iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, owner)| *owner)
}

fn by_pin(pin: &Path) -> Option<Owner> {
    let file = pin.file_name().and_then(|name| by_name(&name.to_string_lossy()));
    let directory =
        || DIRECTORIES.iter().find(|(name, _)| pin.iter().any(|part| part == *name)).map(|(_, owner)| *owner);
    file.or_else(directory)
}

impl Owner {
    /// The owner of an object with this name and these pins; `ours` if it is pinned where this dataplane is.
    pub fn of(name: &str, pins: &[PathBuf], ours: bool) -> Self {
        if ours {
            return Self::Kpx;
        }
        by_name(name).or_else(|| pins.iter().find_map(|pin| by_pin(pin))).unwrap_or_default()
    }

    /// This owner, or if it is not known, the one of the maps that a program uses: tail-called programs have neither
    /// telling names nor pins.
    pub(super) fn or_of_maps(self, mut maps: impl Iterator<Item = Self>) -> Self {
        match self {
            Self::Other => maps.find(|owner| *owner != Self::Other).unwrap_or_default(),
            known => known,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::Owner;

    #[test]
    fn names_and_pins_tell_owners() {
        let of = |name: &str, pin: &str| Owner::of(name, &[PathBuf::from(pin)], false);
        assert_eq!(of("cilium_lb4_serv", "/x"), Owner::Cilium);
        assert_eq!(of("cil_sock4_conne", "/x"), Owner::Cilium);
        assert_eq!(of("x", "/sys/fs/bpf/tc/globals/cilium_ct4_global"), Owner::Cilium);
        assert_eq!(of("x", "/sys/fs/bpf/cilium/socketlb/links/cgroup/x"), Owner::Cilium);
        assert_eq!(of("cali_v4_nat_fe3", "/x"), Owner::Calico);
        assert_eq!(of("calico_connect_", "/x"), Owner::Calico);
        assert_eq!(of("sd_fw_egress", "/x"), Owner::Systemd);
        assert_eq!(of("kpx_connect4", "/x"), Owner::Kpx);
        assert_eq!(of("silicium_", "/sys/fs/bpf/silicium"), Owner::Other);
        assert_eq!(Owner::of("cil_from_netdev", &[], true), Owner::Kpx);
    }

    #[test]
    fn a_program_is_of_who_owns_its_maps() {
        let maps = || [Owner::Other, Owner::Cilium].into_iter();
        assert_eq!(Owner::Other.or_of_maps(maps()), Owner::Cilium);
        assert_eq!(Owner::Systemd.or_of_maps(maps()), Owner::Systemd);
        assert_eq!(Owner::Other.or_of_maps(std::iter::empty()), Owner::Other);
    }
}

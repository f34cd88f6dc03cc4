//! What files say of a kernel that does not run here: its configuration, its BTF, its version.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::answer::{Answer, Basis, Finding};
use super::feature::{Area, Feature};
use crate::error::Hinted;
use crate::inspect::btf::{Btf, BtfError};

/// Most bytes that an unpacked file may have: no kernel comes near.
const LARGEST: u64 = 512 << 20;

/// A file that says nothing of a kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// It could not be read or unpacked.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No configuration is in it.
    #[error("{} is no kernel configuration, and has none in it", .path.display())]
    NoConfig {
        /// The file.
        path: PathBuf,
    },
    /// No BTF is in it.
    #[error("{} is no BTF, and has none in it", .path.display())]
    NoBtf {
        /// The file.
        path: PathBuf,
        /// Why what looked like it is none.
        source: Option<BtfError>,
    },
    /// The text is no version.
    #[error("{text} is no kernel version")]
    Version {
        /// As given.
        text: String,
    },
}

impl Hinted for KernelError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Read { .. } => Vec::new(),
            Self::NoConfig { .. } => vec![
                "a vmlinuz has its configuration only if built with CONFIG_IKCONFIG; distributions put it beside, as /boot/config-VERSION"
                    .to_owned(),
                "an image packed with lz4 or xz is not unpacked by kpx: give it the output of extract-vmlinux".to_owned(),
            ],
            Self::NoBtf { .. } => {
                vec!["on a machine that runs this kernel, BTF is the file /sys/kernel/btf/vmlinux".to_owned()]
            }
            Self::Version { .. } => vec!["as uname -r prints it, such as 6.1.0-56-cloud-amd64, or 6.1".to_owned()],
        }
    }
}

/// A kernel by its version, two numbers of which tell features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl std::str::FromStr for Version {
    type Err = KernelError;

    fn from_str(text: &str) -> Result<Self, KernelError> {
        let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => Ok(Self(major, minor)),
            _ => Err(KernelError::Version { text: text.to_owned() }),
        }
    }
}

/// The options of a kernel's configuration that are on, without `CONFIG_`: built in, or a module.
#[derive(Clone, Debug, Default)]
pub struct Config {
    options: BTreeMap<String, bool>,
    version: Option<Version>,
}

impl Config {
    /// Reads the text of a configuration; `None` if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut config = Self::default();
        let mut lines = 0;
        for line in text.lines() {
            if let Some(release) = line.strip_prefix("# Linux/").and_then(|rest| rest.split_whitespace().nth(1)) {
                config.version = release.parse().ok();
            }
            let Some(rest) = line.strip_prefix("CONFIG_") else {
                lines += usize::from(line.starts_with("# CONFIG_"));
                continue;
            };
            lines += 1;
            match rest.split_once('=') {
                Some((name, "y")) => drop(config.options.insert(name.to_owned(), true)),
                Some((name, "m")) => drop(config.options.insert(name.to_owned(), false)),
                _ => {}
            }
        }
        (lines > 0).then_some(config)
    }

    /// Reads a configuration as a file, plain or packed, or out of a kernel image that has it (`CONFIG_IKCONFIG`).
    pub fn read(path: &Path) -> Result<Self, KernelError> {
        let failed = |source| KernelError::Read { path: path.to_owned(), source };
        let bytes = fs::read(path).map_err(failed)?;
        contents(&bytes)
            .find_map(|bytes| {
                let text = match embedded(&bytes) {
                    Some(packed) => gunzip(packed)?,
                    None => bytes,
                };
                Self::parse(str::from_utf8(&text).ok()?)
            })
            .ok_or_else(|| KernelError::NoConfig { path: path.to_owned() })
    }

    /// The version that its first lines name.
    pub const fn version(&self) -> Option<Version> {
        self.version
    }
}

/// The packed configuration inside a kernel image, between the marks of kernel/configs.c.
fn embedded(image: &[u8]) -> Option<&[u8]> {
    let start = memchr::memmem::find(image, b"IKCFG_ST")? + 8;
    let length = memchr::memmem::find(&image[start..], b"IKCFG_ED")?;
    Some(&image[start..start + length])
}

fn gunzip(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    // What follows the packed part in an image is not of it.
    let read = flate2::bufread::GzDecoder::new(bytes).take(LARGEST).read_to_end(&mut out);
    read.is_ok().then_some(out)
}

fn unzstd(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let decoder = zstd::stream::read::Decoder::new(bytes).ok()?.single_frame();
    decoder.take(LARGEST).read_to_end(&mut out).ok().map(|_| out)
}

/// The bytes themselves, and what is packed in them by gzip or zstd: a kernel image is a small program with a packed one.
fn contents(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    const GZIP: &[u8] = &[0x1f, 0x8b, 8];
    const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
    let gzip = memchr::memmem::find_iter(bytes, GZIP).take(16).filter_map(|at| gunzip(&bytes[at..]));
    let zstd = memchr::memmem::find_iter(bytes, ZSTD).take(16).filter_map(|at| unzstd(&bytes[at..]));
    std::iter::once(bytes.to_vec()).chain(gzip).chain(zstd)
}

/// Reads a kernel's BTF as a file, or out of an image: an ELF file has it as a section, as it is.
pub fn read_btf(path: &Path) -> Result<Btf, KernelError> {
    let bytes = fs::read(path).map_err(|source| KernelError::Read { path: path.to_owned(), source })?;
    let mut wrong = None;
    for bytes in contents(&bytes) {
        // Magic, version 1, no flags, and a header of 24 bytes.
        let head = [&0xeb9f_u16.to_ne_bytes()[..], &[1, 0], &24_u32.to_ne_bytes()].concat();
        for at in memchr::memmem::find_iter(&bytes, &head) {
            match Btf::parse(&bytes[at..]) {
                Ok(btf) if btf.names("task_struct") => return Ok(btf),
                Ok(_) => {}
                Err(error) => wrong = Some(error),
            }
        }
    }
    Err(KernelError::NoBtf { path: path.to_owned(), source: wrong })
}

/// What is known of a kernel.
#[derive(Clone, Debug, Default)]
pub struct Kernel {
    /// As `uname -r` has it, for people.
    pub release: Option<String>,
    /// Its version.
    pub version: Option<Version>,
    /// Its configuration.
    pub config: Option<Config>,
    /// Its BTF.
    pub btf: Option<Btf>,
}

impl Kernel {
    /// The running one, as far as anybody may read.
    pub fn running() -> Self {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let places = [
            "/proc/config.gz".to_owned(),
            format!("/boot/config-{release}"),
            format!("/usr/lib/modules/{release}/config"),
        ];
        Self {
            version: release.parse().ok(),
            config: places.iter().find_map(|path| Config::read(Path::new(path)).ok()),
            btf: read_btf(Path::new("/sys/kernel/btf/vmlinux")).ok(),
            release: Some(release),
        }
    }

    /// What it will be able to do.
    pub fn predict(&self, feature: &Feature) -> Finding {
        let mut modules = Vec::new();
        if let Some(config) = &self.config {
            for option in feature.config {
                match config.options.get(*option) {
                    Some(true) => {}
                    Some(false) => modules.push(*option),
                    None => return Finding::known(false, format!("CONFIG_{option} is not set")),
                }
            }
        }
        // A configuration can rule out what a node is set up for, and no more.
        if feature.area == Area::Node {
            return Finding::unknown("only the node itself can tell");
        }
        let configured = match (&self.config, modules.as_slice()) {
            (None, _) => String::new(),
            (Some(_), []) => "; configured".to_owned(),
            (Some(_), modules) => format!("; as a module: {}", modules.join(", ")),
        };
        let certain = self.config.is_some() || feature.config.is_empty();
        let basis = if certain { Basis::Known } else { Basis::Inferred };
        match (feature.btf.and_then(|name| self.btf_says(name)), self.version, feature.since) {
            (Some((name, true)), ..) => Finding::new(Answer::Works, basis, format!("its BTF has {name}{configured}")),
            (Some((name, false)), ..) => Finding::known(false, format!("its BTF has no {name}")),
            (None, Some(version), Some(since)) if version >= since => {
                Finding::new(Answer::Works, Basis::Inferred, format!("Linux {version}, and {since} has it{configured}"))
            }
            (None, Some(version), Some(since)) => Finding::new(
                Answer::Lacks,
                Basis::Inferred,
                format!("Linux {version}, and {since} is the first with it"),
            ),
            _ if feature.since.is_none() && !feature.config.is_empty() && self.config.is_some() => {
                Finding::known(true, format!("configured{}", configured.replacen("; configured", "", 1)))
            }
            _ if feature.since.is_none() && feature.config.is_empty() => {
                Finding::unknown("only the node itself can tell")
            }
            _ => Finding::unknown("neither version nor configuration of the kernel is known"),
        }
    }

    /// Whether its BTF has a name; `None` where the enum that would have it is not in BTF at all.
    fn btf_says(&self, name: &'static str) -> Option<(&'static str, bool)> {
        const ENUMS: [(&str, &str); 7] = [
            ("BPF_F_ADJ_ROOM_", "BPF_F_ADJ_ROOM_FIXED_GSO"),
            ("BPF_MAP_TYPE_", "BPF_MAP_TYPE_HASH"),
            ("BPF_MAP_UPDATE_BATCH", "BPF_MAP_LOOKUP_ELEM"),
            ("BPF_CGROUP_", "BPF_CGROUP_INET_INGRESS"),
            ("BPF_TCX_", "BPF_CGROUP_INET_INGRESS"),
            ("BPF_LINK_TYPE_", "BPF_LINK_TYPE_UNSPEC"),
            ("BPF_FUNC_", "BPF_FUNC_map_lookup_elem"),
        ];
        let btf = self.btf.as_ref()?;
        let sibling = ENUMS.iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, sibling)| *sibling);
        match (btf.names(name), sibling) {
            (true, _) => Some((name, true)),
            (false, Some(sibling)) if btf.names(sibling) => Some((name, false)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::{Config, Version, contents, embedded};

    const TEXT: &str =
        "# Linux/x86 6.1.192 Kernel Configuration\nCONFIG_BPF=y\nCONFIG_VETH=m\n# CONFIG_NET_XGRESS is not set\n";

    #[test]
    fn versions_of_distributors() {
        assert_eq!("6.12.117+deb12-cloud-amd64".parse::<Version>().ok(), Some(Version(6, 12)));
        assert_eq!("4.18".parse::<Version>().ok(), Some(Version(4, 18)));
        assert!("newest".parse::<Version>().is_err());
        assert!(Version(5, 10) > Version(5, 4));
    }

    #[test]
    fn a_configuration_is_found_plain_packed_and_in_an_image() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(TEXT.as_bytes()).expect("memory takes it");
        let packed = gzip.finish().expect("memory takes it");
        let vmlinux = [b"\x7fELF", &b"IKCFG_ST"[..], &packed, b"IKCFG_ED", b"rest"].concat();
        let image = [b"MZ start", &zstd::encode_all(&vmlinux[..], 3).expect("packed")[..], b"tail"].concat();
        let folder = tempfile::tempdir().expect("a folder");
        for (name, bytes) in [("plain", TEXT.as_bytes()), ("gz", &packed), ("vmlinux", &vmlinux), ("vmlinuz", &image)] {
            let path = folder.path().join(name);
            fs_err::write(&path, bytes).expect("written");
            let config = Config::read(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(config.version(), Some(Version(6, 1)), "{name}");
            assert_eq!(
                config.options.iter().map(|(n, y)| (n.as_str(), *y)).collect::<Vec<_>>(),
                [("BPF", true), ("VETH", false)]
            );
        }
        assert!(embedded(&packed).is_none() && contents(&image).any(|bytes| bytes == vmlinux));
        let path = folder.path().join("other");
        fs_err::write(&path, b"\x1f\x8b\x08 cut \x28\xb5\x2f\xfd short").expect("written");
        assert!(Config::read(&path).is_err());
    }
}

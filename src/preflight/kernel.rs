//! What files say of a kernel that does not run here: its configuration, its BTF, its version.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::answer::{Answer, Basis, Finding};
use super::feature::{Area, Feature};
use crate::capture::{Captured, Host, Item, Node};
use crate::error::Hinted;
use crate::inspect::btf::{Btf, BtfError};
use crate::inspect::kernel::{Built, Config, Version, VersionError};

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
    #[error(transparent)]
    Version(#[from] VersionError),
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
            Self::Version(_) => vec!["as uname -r prints it, such as 6.1.0-56-cloud-amd64, or 6.1".to_owned()],
        }
    }
}

/// Reads a configuration as a file, plain or packed, or out of a kernel image that has it (`CONFIG_IKCONFIG`).
pub fn read_config(path: &Path) -> Result<Config, KernelError> {
    let failed = |source| KernelError::Read { path: path.to_owned(), source };
    let bytes = fs::read(path).map_err(failed)?;
    contents(&bytes)
        .find_map(|bytes| {
            let text = match embedded(&bytes) {
                Some(packed) => gunzip(packed)?,
                None => bytes,
            };
            Config::parse(str::from_utf8(&text).ok()?)
        })
        .ok_or_else(|| KernelError::NoConfig { path: path.to_owned() })
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
    /// A node's: of the one that runs here, its BTF as well.
    pub fn of(node: &Node) -> Self {
        let text = |item| match node.read(item) {
            Ok(Captured::Present { bytes, .. }) => String::from_utf8(bytes).ok(),
            Ok(Captured::Absent { .. }) | Err(_) => None,
        };
        let host = text(Item::Host).and_then(|text| serde_json::from_str::<Host>(&text).ok());
        let release = host.map(|host| host.kernel_release);
        Self {
            version: release.as_deref().and_then(|release| release.parse().ok()),
            config: text(Item::KernelConfig).and_then(|text| Config::parse(&text)),
            btf: node.is_live().then(|| read_btf(Path::new("/sys/kernel/btf/vmlinux")).ok()).flatten(),
            release,
        }
    }

    /// What it will be able to do.
    pub fn predict(&self, feature: &Feature) -> Finding {
        let mut modules = Vec::new();
        if let Some(config) = &self.config {
            for option in feature.config {
                match config.option(option) {
                    Some(Built::In) => {}
                    Some(Built::Module) => modules.push(*option),
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

    use super::{Built, Version, contents, embedded, read_config};

    const TEXT: &str =
        "# Linux/x86 6.1.192 Kernel Configuration\nCONFIG_BPF=y\nCONFIG_VETH=m\n# CONFIG_NET_XGRESS is not set\n";

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
            let config = read_config(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(config.version(), Some(Version(6, 1)), "{name}");
            assert_eq!((config.option("BPF"), config.option("VETH")), (Some(Built::In), Some(Built::Module)), "{name}");
        }
        assert!(embedded(&packed).is_none() && contents(&image).any(|bytes| bytes == vmlinux));
        let path = folder.path().join("other");
        fs_err::write(&path, b"\x1f\x8b\x08 cut \x28\xb5\x2f\xfd short").expect("written");
        assert!(read_config(&path).is_err());
    }
}

//! bpf(2) for tests: maps with types of our choosing, the smallest program, links; on a BPF filesystem of their own.
#![expect(unsafe_code, reason = "system calls with raw structures")]

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Resource, Rlimit, setrlimit};

/// `BPF_MAP_TYPE_…`.
pub(crate) const HASH: u32 = 1;
pub(crate) const ARRAY: u32 = 2;
pub(crate) const PERCPU_ARRAY: u32 = 6;
pub(crate) const LRU_HASH: u32 = 9;
pub(crate) const LPM_TRIE: u32 = 11;
pub(crate) const HASH_OF_MAPS: u32 = 13;

/// `BPF_PROG_TYPE_…`.
pub(crate) const SCHED_CLS: u32 = 3;
pub(crate) const XDP: u32 = 6;
pub(crate) const CGROUP_SOCK_ADDR: u32 = 18;

fn bpf<const N: usize>(command: i32, words: [u64; N]) -> i64 {
    let mut words = words;
    // SAFETY: the attribute is as long as it says, and callers' pointers outlive the call.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, words.as_mut_ptr(), size_of_val(&words)) };
    assert!(done >= 0, "bpf command {command}: {}", io::Error::last_os_error());
    done
}

/// Before Linux 5.11, maps count as locked memory. Who may not raise its limit learns from the map whether it was needed.
fn unlimited_memory() {
    let _ = setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None });
}

fn descriptor(raw: i64) -> OwnedFd {
    // SAFETY: the kernel has just made it.
    unsafe { OwnedFd::from_raw_fd(i32::try_from(raw).expect("an int")) }
}

fn fd(of: &OwnedFd) -> u64 {
    u64::try_from(of.as_raw_fd()).expect("it is open")
}

/// Two 32-bit members of an attribute side by side.
fn pair(first: u64, second: u64) -> u64 {
    let [a, b] = [first, second].map(|n| u32::try_from(n).expect("32 bits").to_ne_bytes());
    u64::from_ne_bytes([a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]])
}

fn name(text: &str) -> [u64; 2] {
    let mut bytes = [0; 16];
    bytes[..text.len().min(15)].copy_from_slice(&text.as_bytes()[..text.len().min(15)]);
    let (a, b) = bytes.split_at(8);
    [a, b].map(|half| u64::from_ne_bytes(half.try_into().expect("eight")))
}

/// Types of keys and values, or none.
#[derive(Clone, Copy, Default)]
pub(crate) struct Types<'a> {
    pub(crate) btf: Option<&'a OwnedFd>,
    pub(crate) key: u32,
    pub(crate) value: u32,
}

/// A map.
pub(crate) struct Map {
    pub(crate) fd: OwnedFd,
    key: usize,
    value: usize,
}

impl Map {
    pub(crate) fn new(kind: u32, title: &str, key: usize, value: usize, most: u64, types: Types<'_>) -> Self {
        Self::create(kind, title, key, value, most, types, 0)
    }

    /// A hash of maps like `inner`.
    pub(crate) fn of_maps(title: &str, key: usize, most: u64, inner: &Self) -> Self {
        Self::create(HASH_OF_MAPS, title, key, 4, most, Types::default(), fd(&inner.fd))
    }

    fn create(kind: u32, title: &str, key: usize, value: usize, most: u64, types: Types<'_>, inner: u64) -> Self {
        // A trie takes keys as they come: BPF_F_NO_PREALLOC.
        let flags = u64::from(kind == LPM_TRIE);
        let [a, b] = name(title);
        let btf = types.btf.map_or(0, fd);
        let words = [
            pair(u64::from(kind), key as u64),
            pair(value as u64, most),
            pair(flags, inner),
            pair(0, a & 0xffff_ffff),
            pair(a >> 32, b & 0xffff_ffff),
            pair(b >> 32, 0),
            pair(btf, u64::from(types.key)),
            pair(u64::from(types.value), 0),
        ];
        unlimited_memory();
        Self { fd: descriptor(bpf(0, words)), key, value }
    }

    pub(crate) fn put(&self, key: &[u8], value: &[u8]) {
        assert_eq!(key.len(), self.key);
        assert!(value.len() >= self.value);
        bpf(2, [fd(&self.fd), key.as_ptr() as u64, value.as_ptr() as u64, 0]);
    }

    /// Puts another map into a map of maps.
    pub(crate) fn put_map(&self, key: &[u8], map: &Self) {
        self.put(key, &map.fd.as_raw_fd().to_ne_bytes());
    }

    pub(crate) fn pin(&self, path: &Path) {
        pin(&self.fd, path);
    }
}

pub(crate) fn pin(object: &OwnedFd, path: &Path) {
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).expect("no zeros");
    bpf(6, [path.as_ptr() as u64, fd(object)]);
}

/// Loads BTF.
pub(crate) fn load_btf(bytes: &[u8]) -> OwnedFd {
    descriptor(bpf(18, [bytes.as_ptr() as u64, 0, pair(bytes.len() as u64, 0), 0]))
}

/// The smallest program: it returns `result`. `attach_type` is that of a cgroup program.
pub(crate) fn program(kind: u32, title: &str, result: u32, attach_type: u32) -> OwnedFd {
    // r0 = result; exit
    let code: [u64; 2] = if cfg!(target_endian = "big") {
        [0xb700_0000_0000_0000 | u64::from(result), 0x9500_0000_0000_0000]
    } else {
        [0xb7 | u64::from(result) << 32, 0x95]
    };
    let [a, b] = name(title);
    let words = [
        pair(u64::from(kind), 2),
        code.as_ptr() as u64,
        c"GPL".as_ptr() as u64,
        0,
        0,
        0,
        a,
        b,
        pair(0, u64::from(attach_type)),
    ];
    descriptor(bpf(5, words))
}

/// Attaches a program with a link; `target` is a cgroup's descriptor or an interface's index.
pub(crate) fn link(program: &OwnedFd, target: u64, attach_type: u32) -> OwnedFd {
    descriptor(bpf(28, [pair(fd(program), target), pair(u64::from(attach_type), 0), 0, 0]))
}

/// A BPF filesystem; unmounted with this value.
pub(crate) struct Bpffs {
    place: tempfile::TempDir,
}

impl Bpffs {
    pub(crate) fn new() -> Self {
        let place = tempfile::tempdir().expect("a folder");
        mount("bpf", place.path(), "bpf", MountFlags::empty(), None).expect("root can mount a BPF filesystem");
        Self { place }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        let _ = unmount(self.place.path(), UnmountFlags::DETACH);
    }
}

/// Writes BTF, type by type; each gives its number.
pub(crate) struct Btf {
    types: Vec<u8>,
    strings: Vec<u8>,
    count: u32,
}

impl Btf {
    pub(crate) fn new() -> Self {
        Self { types: Vec::new(), strings: vec![0], count: 0 }
    }

    fn name(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let at = u32::try_from(self.strings.len()).expect("small");
        self.strings.extend(text.bytes().chain([0]));
        at
    }

    /// `info` and the word after it, then what the kind needs.
    fn add(&mut self, text: &str, info: u32, size_or_type: u32, words: &[u32]) -> u32 {
        let name = self.name(text);
        self.types.extend([name, info, size_or_type].iter().chain(words).flat_map(|word| word.to_ne_bytes()));
        self.count += 1;
        self.count
    }

    pub(crate) fn int(&mut self, text: &str, size: u32, signed: bool) -> u32 {
        self.add(text, 1 << 24, size, &[u32::from(signed) << 24 | (size * 8)])
    }

    pub(crate) fn array(&mut self, element: u32, index: u32, count: u32) -> u32 {
        self.add("", 3 << 24, 0, &[element, index, count])
    }

    pub(crate) fn enumeration(&mut self, text: &str, values: &[(&str, u32)]) -> u32 {
        let words: Vec<u32> = values.iter().flat_map(|(name, value)| [self.name(name), *value]).collect();
        self.add(text, 6 << 24 | u32::try_from(values.len()).expect("few"), 4, &words)
    }

    /// Members: name, type, offset in bits, width of a bit field or 0.
    pub(crate) fn structure(&mut self, text: &str, size: u32, members: &[(&str, u32, u32, u32)]) -> u32 {
        let words: Vec<u32> =
            members.iter().flat_map(|(name, of, offset, bits)| [self.name(name), *of, bits << 24 | offset]).collect();
        self.add(text, 1 << 31 | 4 << 24 | u32::try_from(members.len()).expect("few"), size, &words)
    }

    pub(crate) fn load(&self) -> OwnedFd {
        let [types, strings] = [&self.types, &self.strings].map(|part| u32::try_from(part.len()).expect("small"));
        let mut bytes = 0xeb9f_u16.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        bytes.extend([24, 0, types, types, strings].iter().flat_map(|word| word.to_ne_bytes()));
        bytes.extend(&self.types);
        bytes.extend(&self.strings);
        load_btf(&bytes)
    }
}

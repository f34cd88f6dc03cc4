//! Hostile bytes at each parser of foreign bytes: an error or a state, never a panic, a hang or memory without bound.
//!
//! The functions are those of the fuzz targets. Each is tried on a recording that was damaged in a few places, in a process of its
//! own with a limit on memory and processor time, so that what runs away ends as a failure of its test and of nothing else.

#![expect(clippy::disallowed_types, reason = "the test runs itself")]

#[expect(unreachable_pub, reason = "it is a crate of its own, too")]
#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::io::Read as _;
use std::process::Command;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support;

/// Names the test that a process is for.
const CHILD: &str = "KPX_HOSTILE";

/// Bytes of memory that a target may take on top of what the process has: a thousand times the largest input.
const MEMORY: u64 = 512 << 20;

/// Processor time for all inputs of a target, seconds: some ten times what they take.
const SECONDS: u64 = 300;

/// Bytes of input in all, so that large recordings are tried less often.
const VOLUME: usize = 6 << 20;

/// Damage in one place.
#[derive(Clone, Debug)]
enum Edit {
    /// The rest is missing.
    Cut(Index),
    /// A bit is another.
    Flip(Index, u8),
    /// A number, such as a length, is another; so many bytes of it.
    Number(Index, u64, usize),
    /// Some bytes are replaced by others.
    Splice(Index, usize, Vec<u8>),
    /// Some bytes are there many times.
    Repeat(Index, usize, usize),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let at = any::<Index>;
    let numbers =
        prop::sample::select(vec![0, 1, 2, 3, 4, 7, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX]);
    let edit = prop_oneof![
        1 => at().prop_map(Edit::Cut),
        4 => (at(), 0_u8..8).prop_map(|(at, bit)| Edit::Flip(at, bit)),
        4 => (at(), numbers, prop::sample::select(vec![1, 2, 4, 8])).prop_map(|(at, n, width)| Edit::Number(at, n, width)),
        3 => (at(), 0_usize..16, prop::collection::vec(any::<u8>(), 0..16)).prop_map(|(at, cut, put)| Edit::Splice(at, cut, put)),
        1 => (at(), 1_usize..200, 2_usize..200).prop_map(|(at, length, times)| Edit::Repeat(at, length, times)),
    ];
    prop::collection::vec(edit, 0..6)
}

fn damaged(seed: &[u8], edits: &[Edit]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for edit in edits {
        let place = |at: &Index| at.index(bytes.len() + 1);
        match edit {
            Edit::Cut(at) => bytes.truncate(place(at)),
            Edit::Flip(at, bit) => {
                let at = place(at);
                bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << bit);
            }
            Edit::Number(at, number, width) => {
                let at = place(at) & !(width - 1);
                bytes.iter_mut().skip(at).zip(number.to_ne_bytes()).take(*width).for_each(|(byte, new)| *byte = new);
            }
            Edit::Splice(at, cut, put) => {
                let start = place(at);
                let end = (start + cut).min(bytes.len());
                bytes.splice(start..end, put.iter().copied());
            }
            Edit::Repeat(at, length, times) => {
                let start = place(at);
                let part = bytes[start..(start + length).min(bytes.len())].repeat(*times);
                bytes.splice(start..start, part);
            }
        }
    }
    bytes
}

/// Tries a target on damaged seeds, and on the texts of `whole` as they are, in a process with limits.
fn confined(test: &str, target: fn(&[u8]), seeds: impl FnOnce() -> Vec<Vec<u8>>, whole: impl FnOnce() -> Vec<Vec<u8>>) {
    if std::env::var(CHILD).as_deref() != Ok(test) {
        let program = std::env::current_exe().expect("the test is a program");
        let name = format!("hostile::{test}");
        let output = Command::new(program).args(["--exact", &name, "--nocapture"]).env(CHILD, test).output();
        let output = output.expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("running 1 test"), "{said}");
        assert!(output.status.success(), "{}\n{said}", output.status);
        return;
    }
    limit(Resource::Data, memory_taken() + MEMORY);
    limit(Resource::Cpu, SECONDS);
    for bytes in whole() {
        target(&bytes);
    }
    for seed in seeds() {
        assert!(!seed.is_empty());
        target(&seed);
        let cases = u32::try_from((VOLUME / seed.len()).clamp(32, 2000)).expect("few");
        let config = Config { cases, failure_persistence: None, ..Config::default() };
        // The same damage in every run.
        let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
        let tried = runner.run(&edits(), |edits| {
            target(&damaged(&seed, &edits));
            Ok(())
        });
        tried.unwrap_or_else(|failure| panic!("{failure}"));
    }
}

fn limit(resource: Resource, most: u64) {
    let before = getrlimit(resource);
    setrlimit(resource, Rlimit { current: Some(most), maximum: before.maximum }).expect("a limit can be lowered");
}

/// Bytes that count against [`Resource::Data`].
fn memory_taken() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("it is there");
    let line = status.lines().find_map(|line| line.strip_prefix("VmData:")).expect("the kernel tells");
    let kib = line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number");
    kib << 10
}

fn data(path: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(path);
    unpacked(&path)
}

fn unpacked(path: &std::path::Path) -> Vec<u8> {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    if path.extension().is_none_or(|end| end != "gz") {
        return bytes;
    }
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut out).expect("gzip");
    out
}

/// Files of the recordings, where those are there.
fn recorded(names: &[&str]) -> Vec<Vec<u8>> {
    let root = support::recordings();
    root.iter().flat_map(|root| names.iter().map(|name| unpacked(&root.join("small").join(name)))).collect()
}

const NOTHING: fn() -> Vec<Vec<u8>> = Vec::new;

/// Chains that call themselves, and chains of which each calls the next one twice: 2⁶⁰ ways through a few lines.
fn calls() -> Vec<Vec<u8>> {
    let of = |callee: fn(usize) -> usize| {
        let chains = (0..60).map(|i| format!(":C{i} - [0:0]\n")).collect::<Vec<_>>().concat();
        let rule = |i| {
            let to = callee(i);
            let lots = "-m statistic --mode random --probability 0.50000000000";
            format!("-A C{i} -j C{to}\n-A C{i} -j C{to}\n-A C{i} {lots} -j C{to}\n")
        };
        let rules = (0..60).map(rule).collect::<Vec<_>>().concat();
        format!("*nat\n:PREROUTING ACCEPT [0:0]\n:C60 - [0:0]\n{chains}-A PREROUTING -j C0\n{rules}COMMIT\n")
            .into_bytes()
    };
    vec![of(|i| i), of(|i| i + 1), of(|i| (i + 1) % 60)]
}

#[test]
fn iptables_save() {
    confined("iptables_save", targets::iptables_save, || vec![data("iptables/v1.36-nft-ipv6.txt")], calls);
}

#[test]
fn nft() {
    let nested = || vec![b"[".repeat(1 << 20), b"{\"nftables\":[{\"rule\":{\"expr\":".repeat(1 << 16)];
    confined("nft", targets::nft, || vec![data("nftables/v1.36/nft-ruleset.json.gz")], nested);
}

#[test]
fn ipset() {
    let sets = "create KUBE-CLUSTER-IP hash:ip,port family inet hashsize 1024 maxelem 65536\n\
                add KUBE-CLUSTER-IP 10.96.0.1,tcp:443\ncreate KUBE-6-X hash:ip,port,net family inet6\n\
                add KUBE-6-X fd00::1,udp:53,fd00::/64 timeout 5\ncreate P bitmap:port range 0-65535\nadd P 30080\n";
    let seeds = || [vec![sets.as_bytes().to_vec()], recorded(&["ipvs/running/ipset-save.txt"])].concat();
    confined("ipset", targets::ipset, seeds, NOTHING);
}

#[test]
fn ipvs() {
    let seeds = || {
        let recorded = recorded(&["ipvs/running/netlink-ipvs-services.bin", "ipvs/running/netlink-ipvs-dests.bin"]);
        [vec![crate::audit::one_service()], recorded].concat()
    };
    confined("ipvs", targets::ipvs, seeds, NOTHING);
}

#[test]
fn conntrack() {
    let seeds = || {
        let recorded = recorded(&["ipvs/running/netlink-conntrack.bin", "iptables-nft/running/nf_conntrack.txt"]);
        [vec![crate::conntrack::message()], recorded].concat()
    };
    confined("conntrack", targets::conntrack, seeds, NOTHING);
}

#[test]
fn btf() {
    confined("btf", targets::btf, || vec![types()], NOTHING);
}

/// BTF with a number, arrays of arrays of it, types that name themselves, a struct that holds itself, an enum; and a value.
fn types() -> Vec<u8> {
    let kind = |kind: u32, count: u32| kind << 24 | count;
    let mut words = vec![1, kind(1, 0), 4, 32];
    (1..20).for_each(|inner| words.extend([0, kind(3, 0), 0, inner, 1, 1000]));
    words.extend([1, kind(8, 0), 21]);
    words.extend([1, kind(4, 3), 64, 1, 1, 0, 1, 20, 32, 1, 22, 64]);
    words.extend([1, kind(6, 2), 4, 1, 5, 1, 6]);
    words.extend([1, kind(2, 0), 22]);
    let types: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let strings = b"\0name\0";
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("short");
    let head = [24, 0, length(&types), length(&types), length(strings)].map(u32::to_ne_bytes).concat();
    [&[0x9f, 0xeb, 1, 0][..], &head, &types, strings, &[7; 64]].concat()
}

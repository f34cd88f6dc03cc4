//! The committed object against the types of the shared crate, by a reader of BTF that knows nothing of either.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::offset_of;

use kpx_abi::packet::{FragmentKey, Ports};
use kpx_abi::{
    Addr, Affinity, AffinityKey, Backend, Client, Config, Device, Entry, Event, Flow, Frontend, FrontendKey,
    FrontendRef, List, Listener, NetworkKey, Peer, Socket, SourceKey, Stats, Tuple, YieldKey, YieldUntil, map_name,
};

const OBJECT: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/ebpf/kpx.bpf.o"));

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> usize {
    let value = u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    usize::try_from(value).expect("an offset in a file")
}

fn text(bytes: &[u8], at: usize) -> String {
    let end = bytes[at..].iter().position(|byte| *byte == 0).expect("a name ends") + at;
    String::from_utf8_lossy(&bytes[at..end]).into_owned()
}

/// Sections of an ELF64 file by name.
fn sections(elf: &[u8]) -> BTreeMap<String, &[u8]> {
    let (table, count, names) = (u64_at(elf, 0x28), u16_at(elf, 0x3c), u16_at(elf, 0x3e));
    let header = |n: u16| table + usize::from(n) * 64;
    let names = u64_at(elf, header(names) + 24);
    let section = |n| {
        let at = header(n);
        let start = u64_at(elf, at + 24);
        let name = text(elf, names + u32_at(elf, at) as usize);
        (name, &elf[start..start + u64_at(elf, at + 32)])
    };
    (0..count).map(section).collect()
}

#[derive(Debug, Clone)]
struct Type {
    name: String,
    kind: u32,
    /// Its size, or the type it refers to.
    refers: u32,
    /// Name, type and bit offset of a struct's members; a data section's variables.
    members: Vec<(String, u32, u32)>,
    /// Element type and count of an array.
    array: (u32, u32),
}

/// The types of a BTF section, by id.
fn types(btf: &[u8]) -> Vec<Type> {
    assert_eq!(u16_at(btf, 0), 0xeb9f, "BTF's magic number");
    let header = u32_at(btf, 4) as usize;
    let (start, length) = (header + u32_at(btf, 8) as usize, u32_at(btf, 12) as usize);
    let strings = header + u32_at(btf, 16) as usize;
    let void = Type { name: "void".into(), kind: 0, refers: 0, members: Vec::new(), array: (0, 0) };
    let mut found = vec![void];
    let mut at = start;
    while at < start + length {
        let info = u32_at(btf, at + 4);
        let (kind, count) = ((info >> 24) & 0x1f, (info & 0xffff) as usize);
        let mut entry = Type {
            name: text(btf, strings + u32_at(btf, at) as usize),
            kind,
            refers: u32_at(btf, at + 8),
            members: Vec::new(),
            array: (0, 0),
        };
        at += 12;
        match kind {
            1 | 14 | 17 => at += 4,
            3 => {
                entry.array = (u32_at(btf, at), u32_at(btf, at + 8));
                at += 12;
            }
            4 | 5 => {
                for _ in 0..count {
                    let name = text(btf, strings + u32_at(btf, at) as usize);
                    entry.members.push((name, u32_at(btf, at + 4), u32_at(btf, at + 8)));
                    at += 12;
                }
            }
            15 => {
                for _ in 0..count {
                    entry.members.push((String::new(), u32_at(btf, at), 0));
                    at += 12;
                }
            }
            19 => at += count * 12,
            6 | 13 => at += count * 8,
            2 | 7..=12 | 16 | 18 => {}
            other => panic!("unknown kind of type {other}"),
        }
        found.push(entry);
    }
    found
}

struct Btf(Vec<Type>);

impl Btf {
    fn get(&self, id: u32) -> &Type {
        &self.0[id as usize]
    }

    /// Past pointers, typedefs and qualifiers.
    fn target(&self, id: u32) -> &Type {
        let found = self.get(id);
        if matches!(found.kind, 2 | 8..=11 | 14) { self.target(found.refers) } else { found }
    }

    fn size(&self, id: u32) -> usize {
        self.size_of(self.get(id))
    }

    fn size_of(&self, found: &Type) -> usize {
        match found.kind {
            3 => self.size(found.array.0) * found.array.1 as usize,
            8..=11 | 14 => self.size(found.refers),
            2 => 8,
            _ => found.refers as usize,
        }
    }

    /// Name, offset and size of each member.
    fn layout(&self, found: &Type) -> Vec<(String, usize, usize)> {
        found.members.iter().map(|(name, id, bits)| (name.clone(), *bits as usize / 8, self.size(*id))).collect()
    }

    fn named(&self, name: &str) -> &Type {
        self.0
            .iter()
            .find(|t| t.kind == 4 && t.name == name)
            .unwrap_or_else(|| panic!("the object has a struct {name}"))
    }
}

fn size_of_field<T, F>(_: impl Fn(&T) -> &F) -> usize {
    size_of::<F>()
}

/// Name, offset and size of the named fields of a type, and the type's size.
macro_rules! layout {
    ($type:ty { $($field:ident),+ }) => {
        (
            vec![$((
                stringify!($field).to_owned(),
                offset_of!($type, $field),
                size_of_field(|value: &$type| &value.$field),
            )),+],
            size_of::<$type>(),
        )
    };
}

#[test]
fn map_types_are_those_of_the_shared_crate() {
    let sections = sections(OBJECT);
    let btf = Btf(types(sections[".BTF"]));
    let word = (Vec::new(), 4);
    let counter = (Vec::new(), 8);
    let key = layout!(FrontendKey { addr, port, proto, pad });
    let frontend = layout!(Frontend { key, service, cluster, local, flags, affinity });
    let backend = layout!(Backend { addr, port, proto, state, service, flags });
    let stats = layout!(Stats { connects, datagrams, refused, shadow, passed });
    let config =
        layout!(Config { layout_version, mode, yield_ns, node_netns, options, snat_first, snat_last, mark, unseen });
    let peer = layout!(Peer { frontend, backend, frontend_port, backend_port });
    let socket = layout!(Socket { lock, pad, entries });
    let yield_key = layout!(YieldKey { addr, port, source_port });
    let affinity_key = layout!(AffinityKey { client, service });
    let address = (Vec::new(), size_of::<Addr>());
    // aya's keys of longest-prefix maps have all that follows the prefix in one field.
    let prefixed = |size| (vec![("prefix_len".to_owned(), 0, 4), ("data".to_owned(), 4, size - 4)], size);
    let (network, source) = (prefixed(size_of::<NetworkKey>()), prefixed(size_of::<SourceKey>()));
    // A set of bits is a struct around a word.
    let bits = (vec![("__0".to_owned(), 0, 4)], 4);
    let tuple = layout!(Tuple { src, dst, sport, dport, proto, halfway, pad });
    let flow = layout!(Flow { to, last_ns, service, backend, device, role, seen, state, options });
    let fragment = layout!(FragmentKey { src, dst, id, proto, pad });
    let listener =
        layout!(Listener { until_ns, kinds, reasons, addr, cgroup, causes, sample, pid, port, services, pad });
    // Map type (enum bpf_map_type), key, value.
    let expected = BTreeMap::from([
        (map_name::CONFIG, (2, word.clone(), config)),
        (map_name::INDEX, (1, key.clone(), layout!(FrontendRef { entry }))),
        (map_name::FRONTENDS, (2, word.clone(), frontend)),
        (map_name::SLOTS, (2, word.clone(), word.clone())),
        (map_name::BACKENDS, (2, word.clone(), backend)),
        (map_name::STATS, (2, word.clone(), stats)),
        (map_name::REASONS, (6, word.clone(), counter.clone())),
        (map_name::PEERS, (24, word.clone(), peer)),
        (map_name::SOCKETS, (24, word.clone(), socket)),
        (map_name::YIELD, (1, yield_key, layout!(YieldUntil { until_ns }))),
        (map_name::ADDRESSES, (1, address, bits.clone())),
        (map_name::NETWORKS, (11, network, bits)),
        (map_name::SOURCES, (11, source, (Vec::new(), 1))),
        (map_name::CLIENTS, (1, counter.clone(), layout!(Client { v4, v6 }))),
        (map_name::CONNTRACK, (1, tuple.clone(), flow)),
        (map_name::DIRECT, (9, tuple, counter.clone())),
        (map_name::FRAGMENTS, (9, fragment, layout!(Ports { src, dst }))),
        (map_name::DEVICES, (1, word, layout!(Device { v4, v6, mac, flags }))),
        (map_name::LISTENER, (2, (Vec::new(), 4), listener)),
        (map_name::LISTENED, (1, (Vec::new(), 4), (Vec::new(), 1))),
        (map_name::AFFINITY, (9, affinity_key, layout!(Affinity { last_ns, backend, pad }))),
    ]);
    let maps = btf.0.iter().find(|t| t.kind == 15 && t.name == ".maps").expect("the object has maps");
    let mut seen = BTreeSet::new();
    for (_, id, _) in &maps.members {
        let variable = btf.get(*id);
        let name = variable.name.as_str();
        assert!(name.len() <= 15 && name.starts_with("kpx_"), "{name}");
        seen.insert(name.to_owned());
        // Nobody but the programs looks inside.
        if name == map_name::SCRATCH {
            continue;
        }
        // A ring buffer has neither keys nor values; the records' type is another test's.
        if name == map_name::EVENTS {
            continue;
        }
        let (kind, key, value) = expected.get(name).unwrap_or_else(|| panic!("{name} is not known"));
        let definition = btf.get(variable.refers);
        let member = |wanted: &str| {
            let found = definition.members.iter().find(|(name, ..)| name == wanted);
            found.unwrap_or_else(|| panic!("{name} has a {wanted}")).1
        };
        let number = btf.target(member("type")).array.1;
        assert_eq!(number, *kind, "type of {name}");
        for (side, id, expected) in [("key", member("key"), key), ("value", member("value"), value)] {
            let found = btf.target(id);
            assert_eq!((btf.layout(found), btf.size_of(found)), *expected, "{side} of {name}");
        }
    }
    assert_eq!(seen, map_name::ALL.iter().map(ToString::to_string).collect());
}

#[test]
fn nested_types_are_those_of_the_shared_crate() {
    let sections = sections(OBJECT);
    let btf = Btf(types(sections[".BTF"]));
    let layout = |name| (btf.layout(btf.named(name)), btf.named(name).refers as usize);
    assert_eq!(layout("List"), layout!(List { base, count }));
    let entry = layout!(Entry { last_ns, frontend, backend, frontend_port, backend_port, state, backend_id, pad });
    assert_eq!(layout("Entry"), entry);
    let event = layout!(Event {
        at_ns,
        cgroup,
        client,
        destination,
        to,
        service,
        backend,
        pid,
        device,
        client_port,
        destination_port,
        to_port,
        proto,
        reason,
        cause,
        pad
    });
    assert_eq!(layout("Event"), event);
    let source = btf.layout(btf.named("Source"));
    let after_prefix = |(name, offset, size): (String, usize, usize)| (name, offset - 4, size);
    let (expected, _) = layout!(SourceKey { service, addr });
    assert_eq!(source, expected.into_iter().map(after_prefix).collect::<Vec<_>>());
    assert_eq!(btf.named("bpf_spin_lock").refers as usize, size_of::<kpx_abi::bpf_spin_lock>());
}

#[test]
fn the_object_carries_no_paths_of_the_machine_that_built_it() {
    let text = String::from_utf8_lossy(OBJECT);
    for path in ["/home/", "/root/", "/tmp/", "/usr/"] {
        assert!(!text.contains(path), "{path}");
    }
}

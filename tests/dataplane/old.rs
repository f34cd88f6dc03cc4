//! Dataplanes as older kpx pinned them, from the objects that they had.

use std::path::Path;

use aya::maps::{Array, HashMap, MapData};
use aya::programs::links::FdLink;
use aya::programs::tc::TcAttachOptions;
use aya::programs::{CgroupAttachMode, LinkOrder, Program, TcAttachType};
use aya::{EbpfLoader, Pod};
use kpx::capture::command;
use kpx::dataplane::Paths;

/// The object of a layout.
pub(crate) fn object(layout: u32) -> Vec<u8> {
    let name = format!("tests/data/dataplane/layout-{layout}.bpf.o.zst");
    let file = fs_err::File::open(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).expect("it is there");
    zstd::decode_all(file).expect("zstd")
}

/// Loads, pins and attaches it: to the cgroup and, where it has a packet path, to these devices.
pub(crate) fn install(object: &[u8], paths: &Paths, devices: &[&str]) {
    let mut loader = EbpfLoader::new();
    loader.btf(None).override_global("HAVE_SET_RETVAL", &1_u32, true).map_max_entries("kpx_conntrack", 1 << 16);
    let mut object = loader.load(object).expect("it loads");
    let folder = |name: &str| {
        let folder = paths.pins.join(name);
        fs_err::create_dir_all(&folder).expect("a folder");
        folder
    };
    let (maps, programs, links) = (folder("maps"), folder("programs"), folder("links"));
    let names: Vec<String> = object.maps().map(|(name, _)| name.to_owned()).collect();
    for name in names.iter().filter(|name| name.starts_with("kpx_")) {
        object.map_mut(name).expect("it is there").pin(maps.join(name)).expect("it can be pinned");
    }
    let cgroup = || fs_err::File::open(&paths.cgroup).expect("it is there");
    for (name, program) in object.programs_mut() {
        let (pin, link) = (programs.join(name), links.join(name));
        match program {
            Program::CgroupSockAddr(program) => {
                program.load().expect("it loads");
                program.pin(pin).expect("it can be pinned");
                let id = program.attach(cgroup(), CgroupAttachMode::Single).expect("it can be attached");
                let made = FdLink::try_from(program.take_link(id).expect("made")).expect("a link");
                made.pin(link).expect("it can be pinned");
            }
            Program::CgroupSock(program) => {
                program.load().expect("it loads");
                program.pin(pin).expect("it can be pinned");
                let id = program.attach(cgroup(), CgroupAttachMode::Single).expect("it can be attached");
                let made = FdLink::try_from(program.take_link(id).expect("made")).expect("a link");
                made.pin(link).expect("it can be pinned");
            }
            Program::SchedClassifier(program) => {
                program.load().expect("it loads");
                program.pin(pin).expect("it can be pinned");
                let hook = if name == "kpx_ingress" { TcAttachType::Ingress } else { TcAttachType::Egress };
                for device in devices {
                    let order = TcAttachOptions::TcxOrder(LinkOrder::default());
                    let id = program.attach_with_options(device, hook, order).expect("it can be attached");
                    let made = FdLink::try_from(program.take_link(id).expect("made")).expect("a link");
                    made.pin(links.join(format!("{name}-{}", index(device)))).expect("it can be pinned");
                }
            }
            Program::Xdp(program) => {
                program.load().expect("it loads");
                program.pin(pin).expect("it can be pinned");
            }
            _ => panic!("kpx has no such program: {name}"),
        }
    }
}

/// The number of a device of this namespace.
pub(crate) fn index(device: &str) -> u64 {
    let shown = command::output("ip", ["-j", "link", "show", "dev", device], None).expect("it is there");
    serde_json::from_slice::<serde_json::Value>(&shown).expect("JSON")[0]["ifindex"].as_u64().expect("a number")
}

fn data(paths: &Paths, name: &str) -> MapData {
    MapData::from_pin(paths.pins.join("maps").join(name)).expect("the map is pinned")
}

/// Writes an element of an array.
pub(crate) fn set<V: Pod>(paths: &Paths, name: &str, index: u32, value: V) {
    let mut map: Array<_, V> = aya::maps::Map::Array(data(paths, name)).try_into().expect("an array of these");
    map.set(index, value, 0).expect("the map takes it");
}

/// Writes an element of a hash.
pub(crate) fn put<K: Pod, V: Pod>(paths: &Paths, name: &str, key: K, value: V) {
    let mut map: HashMap<_, K, V> = aya::maps::Map::HashMap(data(paths, name)).try_into().expect("a hash of these");
    map.insert(key, value, 0).expect("the map takes it");
}

/// Every pinned link: its pin's name, its id and its program's.
pub(crate) fn links(paths: &Paths) -> Vec<(String, u64, u64)> {
    let entries = fs_err::read_dir(paths.pins.join("links")).expect("there are links");
    let mut found: Vec<_> = entries
        .map(|entry| {
            let path = entry.expect("it can be read").path();
            let shown = command::output("bpftool", ["-j", "link", "show", "pinned", &path.to_string_lossy()], None);
            let shown: serde_json::Value = serde_json::from_slice(&shown.expect("bpftool runs")).expect("JSON");
            let number = |name: &str| shown[name].as_u64().expect("a number");
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, number("id"), number("prog_id"))
        })
        .collect();
    found.sort();
    found
}

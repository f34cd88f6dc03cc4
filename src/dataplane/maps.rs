//! The pinned maps: opened, read as an image, written op by op in batches.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use aya::Pod;
use kpx_abi::{
    Addr, AddressFlags, Backend, Client, Config, Device, Flow, Frontend, FrontendKey, FrontendRef, LAYOUT_VERSION,
    NetworkFlags, NetworkKey, SourceKey, Stats, Tuple, YieldKey, YieldUntil, map_name,
};

use super::error::DataplaneError;
use super::reconcile::{Image, Op, Sizes};
use crate::failpoint;
use crate::inspect::bpf::sys::Table;

/// The maps that user space reads or writes.
#[derive(Debug)]
pub(super) struct Maps {
    pub(super) config: Table<u32, Config>,
    index: Table<FrontendKey, FrontendRef>,
    frontends: Table<u32, Frontend>,
    slots: Table<u32, u32>,
    backends: Table<u32, Backend>,
    pub(super) stats: Table<u32, Stats>,
    pub(super) reasons: Table<u32, u64>,
    pub(super) yields: Table<YieldKey, YieldUntil>,
    pub(super) devices: Table<u32, Device>,
    pub(super) flows: Table<Tuple, Flow>,
    pub(super) addresses: Table<Addr, AddressFlags>,
    pub(super) networks: Table<NetworkKey, NetworkFlags>,
    sources: Table<SourceKey, u8>,
    pub(super) clients: Table<u64, Client>,
}

pub(super) fn failed(action: &'static str, map: &'static str) -> impl FnOnce(io::Error) -> DataplaneError {
    move |source| DataplaneError::Map { action, map, source }
}

/// Opens one pinned map.
pub(super) fn open<K: Pod + Default + PartialEq, V: Pod + Default>(
    pins: &Path,
    name: &'static str,
) -> Result<Table<K, V>, DataplaneError> {
    let path = pins.join(name);
    match Table::open(&path) {
        Ok(Some(table)) => Ok(table),
        Ok(None) => Err(DataplaneError::Layout {
            pins: pins.to_owned(),
            found: format!("a map {name} of other types"),
            expected: LAYOUT_VERSION,
        }),
        Err(source) => Err(DataplaneError::Object { action: "open", path, source }),
    }
}

impl Maps {
    /// Opens all pinned maps of a directory.
    pub(super) fn open(pins: &Path) -> Result<Self, DataplaneError> {
        Ok(Self {
            config: open(pins, map_name::CONFIG)?,
            index: open(pins, map_name::INDEX)?,
            frontends: open(pins, map_name::FRONTENDS)?,
            slots: open(pins, map_name::SLOTS)?,
            backends: open(pins, map_name::BACKENDS)?,
            stats: open(pins, map_name::STATS)?,
            reasons: open(pins, map_name::REASONS)?,
            yields: open(pins, map_name::YIELD)?,
            devices: open(pins, map_name::DEVICES)?,
            flows: open(pins, map_name::CONNTRACK)?,
            addresses: open(pins, map_name::ADDRESSES)?,
            networks: open(pins, map_name::NETWORKS)?,
            sources: open(pins, map_name::SOURCES)?,
            clients: open(pins, map_name::CLIENTS)?,
        })
    }

    /// The configuration.
    pub(super) fn config(&self) -> Result<Config, DataplaneError> {
        let found = self.config.get(&0).map_err(failed("read", map_name::CONFIG))?;
        Ok(found.unwrap_or_default())
    }

    /// Writes the configuration.
    pub(super) fn set_config(&self, config: &Config) -> Result<(), DataplaneError> {
        self.config.put(&0, config).map_err(failed("write", map_name::CONFIG))?;
        failpoint::changed();
        Ok(())
    }

    /// Reads what a lookup reads. Meant for when nobody writes.
    pub(super) fn image(&self) -> Result<Image, DataplaneError> {
        let index = self.index.dump().map_err(failed("read", map_name::INDEX))?;
        let index: BTreeMap<_, _> = index.into_iter().map(|(key, found)| (key, found.entry)).collect();
        let sources = self.sources.dump().map_err(failed("read", map_name::SOURCES))?;
        let sizes = Sizes {
            frontends: self.index.max_entries(),
            entries: self.frontends.max_entries(),
            services: self.stats.max_entries(),
            backends: self.backends.max_entries(),
            slots: self.slots.max_entries(),
            sources: self.sources.max_entries(),
        };
        Ok(Image::new(
            sizes,
            index,
            (
                array(&self.frontends, map_name::FRONTENDS)?,
                array(&self.slots, map_name::SLOTS)?,
                array(&self.backends, map_name::BACKENDS)?,
            ),
            sources.into_iter().map(|(key, _)| key),
        ))
    }

    /// Does the writes in their order, and in `image` what was done. Neighbours of one kind go into one batch.
    pub(super) fn apply(&self, ops: &[Op], image: &mut Image) -> Result<(), DataplaneError> {
        for group in ops.chunk_by(|a, b| std::mem::discriminant(a) == std::mem::discriminant(b)) {
            self.write(group)?;
            for op in group {
                image.apply(op);
            }
        }
        Ok(())
    }

    /// Writes a group of ops of one kind.
    fn write(&self, group: &[Op]) -> Result<(), DataplaneError> {
        match group[0] {
            Op::ResetStats { .. } => many(&self.stats, map_name::STATS, group, |op| match op {
                Op::ResetStats { service } => Some((*service, Stats::default())),
                _ => None,
            }),
            Op::PutBackend { .. } | Op::TrimBackend { .. } => {
                many(&self.backends, map_name::BACKENDS, group, |op| match op {
                    Op::PutBackend { id, backend } | Op::TrimBackend { id, backend } => Some((*id, *backend)),
                    _ => None,
                })
            }
            Op::PutFrontend { .. } => many(&self.frontends, map_name::FRONTENDS, group, |op| match op {
                Op::PutFrontend { entry, frontend } => Some((*entry, *frontend)),
                _ => None,
            }),
            Op::PutIndex { .. } => many(&self.index, map_name::INDEX, group, |op| match op {
                Op::PutIndex { key, entry } => Some((*key, FrontendRef { entry: *entry })),
                _ => None,
            }),
            Op::PutSlots { .. } => {
                let slots = group.iter().filter_map(|op| match op {
                    Op::PutSlots { base, ids } => Some((*base..).zip(ids.iter().copied())),
                    _ => None,
                });
                let (keys, values): (Vec<u32>, Vec<u32>) = slots.flatten().unzip();
                self.slots.put_many(&keys, &values).map_err(failed("write", map_name::SLOTS))
            }
            // Not in a batch: a longest-prefix map takes one element at a time anyway.
            Op::PutSource { .. } => group.iter().try_for_each(|op| match op {
                Op::PutSource { key } => self.sources.put(key, &1).map_err(failed("write", map_name::SOURCES)),
                _ => Ok(()),
            }),
            Op::DeleteSource { .. } => group.iter().try_for_each(|op| match op {
                Op::DeleteSource { key } => {
                    self.sources.delete(key).map(drop).map_err(failed("delete from", map_name::SOURCES))
                }
                _ => Ok(()),
            }),
            Op::DeleteIndex { .. } => group.iter().try_for_each(|op| match op {
                Op::DeleteIndex { key } => {
                    self.index.delete(key).map(drop).map_err(failed("delete from", map_name::INDEX))
                }
                _ => Ok(()),
            }),
        }
    }
}

fn many<K: Pod + Default + PartialEq, V: Pod + Default>(
    table: &Table<K, V>,
    name: &'static str,
    group: &[Op],
    part: impl Fn(&Op) -> Option<(K, V)>,
) -> Result<(), DataplaneError> {
    let (keys, values): (Vec<K>, Vec<V>) = group.iter().filter_map(part).unzip();
    table.put_many(&keys, &values).map_err(failed("write", name))
}

fn array<V: Pod + Default>(table: &Table<u32, V>, name: &'static str) -> Result<Vec<V>, DataplaneError> {
    let mut elements = table.dump().map_err(failed("read", name))?;
    elements.sort_unstable_by_key(|(index, _)| *index);
    Ok(elements.into_iter().map(|(_, value)| value).collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::reconcile::{Node, Planner, Wanted, table};
    use super::super::{Capacity, Paths, load};
    use super::*;
    use crate::model::{
        Backend as ModelBackend, Exposure, Frontend as ModelFrontend, FrontendKey as ModelKey, Masquerade, Origin,
        Policy, Protocol,
    };

    fn frontend(n: u8) -> ModelFrontend {
        let backend =
            |host| ModelBackend { ip: [10, 244, n, host].into(), port: 80, weight: 1, local: None, state: None };
        ModelFrontend {
            key: ModelKey {
                ip: [10, 96, 0, n].into(),
                port: 80,
                protocol: Protocol::Tcp,
                exposure: Exposure::ClusterIp,
            },
            service: None,
            port_name: None,
            cluster: vec![backend(1), backend(2)],
            local: Vec::new(),
            internal_policy: Policy::Cluster,
            external_policy: Policy::Cluster,
            affinity: None,
            sources: Vec::new(),
            masquerade: Masquerade::OffCluster,
            no_backends: None,
            selection: None,
            forwarding: None,
            origin: Origin::MapEntry { map: "test", id: 0 },
        }
    }

    /// A kernel before 5.6 has no batches; the same comes out, one element after the other.
    #[test]
    fn batches_change_nothing_but_the_number_of_calls() {
        use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root (BPF)");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        mount("bpf", directory.path(), "bpf", MountFlags::empty(), None).unwrap();
        let frontends: Vec<_> = (0..200).map(frontend).collect();
        let node = Node { pods: [true; 2], maglev_size: 251, ..Node::default() };
        let wanted = Wanted::of(&frontends, &node);
        let results: Vec<_> = [true, false]
            .into_iter()
            .map(|batches| {
                let paths = Paths { pins: directory.path().join(batches.to_string()), cgroup: "/".into() };
                let capacity = Capacity { frontends: 300, backends: 600, slots: 600, ..Capacity::default() };
                load::load_new(&paths, &capacity).unwrap();
                let maps = Maps::open(&paths.maps()).unwrap();
                if !batches {
                    maps.index.without_batches();
                    maps.frontends.without_batches();
                    maps.slots.without_batches();
                    maps.backends.without_batches();
                    maps.stats.without_batches();
                }
                let mut image = maps.image().unwrap();
                let (ops, _) = Planner::adopt(&image, Duration::ZERO).plan(&image, &wanted, Duration::ZERO).unwrap();
                maps.apply(&ops, &mut image).unwrap();
                let read = table(&maps.image().unwrap());
                load::unpin(&paths).unwrap();
                (read.0.frontends().to_vec(), read.1)
            })
            .collect();
        unmount(directory.path(), UnmountFlags::DETACH).unwrap();
        assert_eq!(results[0].0.len(), 200);
        assert_eq!(results[0], results[1]);
    }
}

//! What the programs have counted.

use std::collections::BTreeMap;

use kpx_abi::{Reason, Stats, map_name};

use super::error::DataplaneError;
use super::maps::{Maps, failed};
use super::reconcile;
use crate::model::FrontendKey;

/// Counters of one frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceCounters {
    /// The frontend.
    pub key: FrontendKey,
    /// Its counters since it was first written.
    pub stats: Stats,
}

/// What the programs have counted since they were loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// By reason, over all processors.
    pub reasons: BTreeMap<Reason, u64>,
    /// By frontend, those served now.
    pub services: Vec<ServiceCounters>,
}

impl Counters {
    /// How often this happened.
    pub fn of(&self, reason: Reason) -> u64 {
        self.reasons.get(&reason).copied().unwrap_or(0)
    }

    /// Datagrams of unconnected sockets translated. While it stands still in drain mode, no flow uses a translation of
    /// the hooks any more.
    pub fn datagrams(&self) -> u64 {
        self.of(Reason::UdpFirst) + self.of(Reason::UdpKept)
    }
}

pub(super) fn read(maps: &Maps) -> Result<Counters, DataplaneError> {
    let mut reasons = BTreeMap::new();
    for reason in Reason::ALL {
        let copies = maps.reasons.get_all(&(reason as u32)).map_err(failed("read", map_name::REASONS))?;
        reasons.insert(reason, copies.unwrap_or_default().iter().sum());
    }
    let stats: BTreeMap<u32, Stats> = maps.stats.dump().map_err(failed("read", map_name::STATS))?.into_iter().collect();
    let services = reconcile::services(&maps.image()?)
        .map(|(key, service)| ServiceCounters { key, stats: stats.get(&service).copied().unwrap_or_default() })
        .collect();
    Ok(Counters { reasons, services })
}

//! What holds of a whole table once all frontends are known.

use std::collections::BTreeSet;

use super::Reader;
use crate::inspect::nftables::name::ChainName;
use crate::inspect::nftables::notice::{Notice, Place};
use crate::model::{Backend, Policy, Protocol, ServiceTable};

impl Reader<'_> {
    /// With a way to recognise pods, every entry under the Local policy must use it.
    pub(super) fn check_short_circuits(&mut self) {
        if self.detector.is_none() {
            return;
        }
        let mut lacking: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.policy == Policy::Local && !entry.knows_pods)
            .map(|(name, _)| *name)
            .collect();
        lacking.sort_unstable();
        for chain in lacking {
            self.incomplete(chain, "the rule that sends pods to the endpoints of the cluster");
        }
    }

    /// The endpoints of Local lists are on this node.
    pub(super) fn check_hairpins(&mut self) {
        let Some(here) = &self.here else { return };
        let mut lacking = BTreeSet::new();
        for (port, shared) in &self.shared {
            for backend in shared.backends(Policy::Local) {
                if !here.contains(&(backend.ip, port.protocol, backend.port)) {
                    lacking.insert(address((port.protocol, backend)));
                }
            }
        }
        self.notices.extend(lacking.into_iter().map(|endpoint| Notice::NoHairpin { endpoint }));
    }

    /// Chains of Service ports and sets of endpoints that nothing leads to.
    pub(super) fn report_stale(&mut self) {
        let chains = self.table.chains.iter().map(|(name, chain)| ("chain", &**name, chain.rules.len()));
        let sets = self.table.sets.iter().map(|(name, set)| {
            let kind = if set.is_map { "map" } else { "set" };
            (kind, &**name, set.elements.len())
        });
        for (kind, name, size) in chains.chain(sets) {
            if name.contains('/') && !self.reached.contains(name) {
                let what = Place { kind, ..Place::chain(self.family, name) };
                self.notices.push(match ChainName::parse(name) {
                    Ok(_) => Notice::Stale { what, size },
                    Err(error) => Notice::BadName { at: what, error },
                });
            }
        }
    }
}

/// Endpoints that run on this node, as the API says, and that the tables do not masquerade when they connect to themselves.
///
/// The lift reports those in Local lists on its own; where the others run, only the API knows.
pub fn without_hairpin(tables: &ServiceTable, api: &ServiceTable) -> Vec<Notice> {
    let here: BTreeSet<_> = endpoints(api).filter(|(_, backend)| backend.local == Some(true)).map(address).collect();
    let lacking: BTreeSet<_> = endpoints(tables)
        .filter(|(_, backend)| backend.local == Some(false))
        .map(address)
        .filter(|endpoint| here.contains(endpoint))
        .collect();
    lacking.into_iter().map(|endpoint| Notice::NoHairpin { endpoint }).collect()
}

fn endpoints(table: &ServiceTable) -> impl Iterator<Item = (Protocol, &Backend)> {
    table.frontends().iter().flat_map(|f| f.cluster.iter().chain(&f.local).map(|backend| (f.key.protocol, backend)))
}

fn address((protocol, backend): (Protocol, &Backend)) -> String {
    format!("{}/{protocol}", backend.addr())
}

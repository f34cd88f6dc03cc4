//! The ServiceTable, kept up to date Service by Service: a change costs what the Services it touches cost.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use super::cluster::Cluster;
use super::ports::disturbed;
use crate::inspect::kube::{LiftedPort, LiftedService, Notice, Place, lift_service};
use crate::model::{Exposure, Frontend, Protocol, ServiceName, ServiceTable};

/// Where packets go to; what tells frontends apart in the maps.
pub(super) type Address = (IpAddr, u16, Protocol);

/// What lifting some Services anew has come to.
#[derive(Debug, Default)]
pub(super) struct Lifted {
    /// Addresses that may be served otherwise than before.
    pub(super) addresses: BTreeSet<Address>,
    /// Services whose flows may lead to where nobody serves any more.
    pub(super) disturbed: BTreeSet<ServiceName>,
}

/// What is served by which Service.
#[derive(Debug, Default)]
pub(super) struct LiveTable {
    services: HashMap<ServiceName, LiftedService>,
    /// The Services that claim an address. Nearly always one.
    claims: HashMap<Address, BTreeSet<ServiceName>>,
    /// The Services that each `healthCheckNodePort` answers for.
    checked: BTreeMap<u16, BTreeSet<ServiceName>>,
    /// Services left as they were, since one of their objects has a value that cannot be.
    faults: BTreeMap<ServiceName, String>,
    /// What is to be known of Services that are served.
    remarks: BTreeMap<ServiceName, Vec<String>>,
}

impl LiveTable {
    /// Lifts these Services anew.
    ///
    /// `frozen` are left as they are: their endpoints are not known.
    pub(super) fn lift<'a>(
        &mut self,
        services: impl IntoIterator<Item = &'a ServiceName>,
        cluster: &Cluster,
        place: &Place,
        frozen: &BTreeSet<ServiceName>,
    ) -> Lifted {
        let mut touched = Lifted::default();
        for name in services {
            if frozen.contains(name) && cluster.service(name).is_some() {
                continue;
            }
            match self.lift_one(name, cluster, place) {
                Ok(lifted) => self.replace(name, lifted, &mut touched),
                Err(fault) => drop(self.faults.insert(name.clone(), fault)),
            }
        }
        touched
    }

    fn lift_one(
        &mut self,
        name: &ServiceName,
        cluster: &Cluster,
        place: &Place,
    ) -> Result<Option<LiftedService>, String> {
        self.remarks.remove(name);
        let Some(service) = cluster.service(name) else { return Ok(None) };
        let mut notices: Vec<Notice> = Vec::new();
        let lifted = lift_service(service, cluster.slices(name), place, &mut notices).map_err(|e| e.to_string())?;
        if !notices.is_empty() {
            self.remarks.insert(name.clone(), notices.iter().map(ToString::to_string).collect());
        }
        Ok(lifted)
    }

    fn replace(&mut self, name: &ServiceName, lifted: Option<LiftedService>, touched: &mut Lifted) {
        self.faults.remove(name);
        let addresses = |service: &LiftedService| service.frontends.iter().map(|f| f.key.address()).collect::<Vec<_>>();
        let old = self.services.get(name).map(addresses).unwrap_or_default();
        let new = lifted.as_ref().map(addresses).unwrap_or_default();
        touched.addresses.extend(old.iter().chain(&new));
        if let Some((before, after)) = self.services.get(name).zip(lifted.as_ref())
            && disturbed(&before.ports, &after.ports)
        {
            touched.disturbed.insert(name.clone());
        }
        for address in &old {
            if let Some(claim) = self.claims.get_mut(address) {
                claim.remove(name);
                if claim.is_empty() {
                    self.claims.remove(address);
                }
            }
        }
        for address in new {
            self.claims.entry(address).or_default().insert(name.clone());
        }
        for (service, there) in [(self.services.get(name), false), (lifted.as_ref(), true)] {
            let Some(port) = service.and_then(|service| service.health_check) else { continue };
            let answers = self.checked.entry(port).or_default();
            if there {
                answers.insert(name.clone());
            } else {
                answers.remove(name);
            }
        }
        self.checked.retain(|_, services| !services.is_empty());
        match lifted {
            Some(lifted) => drop(self.services.insert(name.clone(), lifted)),
            None => drop(self.services.remove(name)),
        }
    }

    /// The frontend that is served at an address where several claim it: a ClusterIP, which the API server allocates, goes
    /// before addresses that users choose; among equals the first Service by name.
    pub(super) fn at(&self, address: &Address) -> Option<&Frontend> {
        let claims = self.claims.get(address)?;
        let frontends = claims.iter().filter_map(|name| self.services.get(name)).flat_map(|service| &service.frontends);
        frontends
            .filter(|frontend| frontend.key.address() == *address)
            .min_by_key(|frontend| rank(frontend.key.exposure))
    }

    /// The frontends of a Service, without those at addresses that another Service has.
    pub(super) fn of<'a>(&'a self, service: &ServiceName) -> impl Iterator<Item = &'a Frontend> {
        let frontends = self.services.get(service).into_iter().flat_map(|service| &service.frontends);
        frontends
            .filter(|frontend| self.at(&frontend.key.address()).is_some_and(|winner| std::ptr::eq(winner, *frontend)))
    }

    /// The whole table, one frontend an address.
    pub(super) fn table(&self, place: &Place) -> ServiceTable {
        let frontends = self.claims.keys().filter_map(|address| self.at(address)).cloned().collect();
        ServiceTable::new(frontends, place.facts.v4.clone(), place.facts.v6.clone())
    }

    /// The ports of a Service with their endpoints; none where it is not served.
    pub(super) fn ports(&self, service: &ServiceName) -> &[LiftedPort] {
        self.services.get(service).map_or(&[], |service| &service.ports)
    }

    /// All Services that are served.
    pub(super) fn services(&self) -> impl Iterator<Item = &LiftedService> {
        self.services.values()
    }

    /// The Service that each `healthCheckNodePort` answers for.
    pub(super) fn health_checks(&self) -> impl Iterator<Item = (u16, &LiftedService)> {
        let first = |names: &BTreeSet<ServiceName>| self.services.get(names.first()?);
        self.checked.iter().filter_map(move |(port, names)| Some((*port, first(names)?)))
    }

    /// Services left as they were, with the reason.
    pub(super) const fn faults(&self) -> &BTreeMap<ServiceName, String> {
        &self.faults
    }

    /// What is to be known of Services that are served.
    pub(super) fn remarks(&self) -> impl Iterator<Item = &String> {
        self.remarks.values().flatten()
    }
}

const fn rank(exposure: Exposure) -> u8 {
    match exposure {
        Exposure::ClusterIp => 0,
        Exposure::ExternalIp => 1,
        Exposure::LoadBalancer => 2,
        Exposure::NodePort => 3,
    }
}

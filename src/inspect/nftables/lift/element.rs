//! Elements of the maps that lead to Services, each a frontend.

use std::collections::HashMap;
use std::rc::Rc;

use ipnet::IpNet;

use super::entry::Entry;
use super::fixed::ClusterMasquerade;
use super::list::List;
use super::{Draft, Port, Reader, port_of};
use crate::inspect::nftables::name::ChainKind;
use crate::inspect::nftables::notice::{Notice, Place};
use crate::inspect::nftables::ruleset::{Element, Key, Verdict};
use crate::model::{Exposure, FrontendKey, Masquerade, NoBackends, Origin, Policy, Protocol, ServiceName};

impl<'a> Reader<'a> {
    /// Reads a map of frontends together with the map that refuses those without a backend.
    pub(super) fn read_map(
        &mut self,
        map: &'static str,
        refusing: &'static str,
        firewalls: &HashMap<Key, (Port, Vec<IpNet>)>,
    ) {
        let mut refusals = self.refusals(refusing);
        for element in self.set(map).map_or(&[][..], |set| &set.elements) {
            let refusal = refusals.remove(&element.key);
            if !self.frontend_element(map, element, refusal, refusing, firewalls) {
                self.unknown_element(map, &element.key);
            }
        }
        let mut rest: Vec<_> = refusals.into_values().collect();
        rest.sort_by_key(|(element, _)| &element.key);
        for (element, verdict) in rest {
            if !self.refused_element(map, refusing, element, verdict, firewalls) {
                self.unknown_element(refusing, &element.key);
            }
        }
    }

    /// Drafts the frontend of one element of `service-ips` or `service-nodeports`; `false` if it is not kube-proxy's.
    fn frontend_element(
        &mut self,
        map: &'static str,
        element: &'a Element,
        refusal: Option<(&'a Element, NoBackends)>,
        refusing: &'static str,
        firewalls: &HashMap<Key, (Port, Vec<IpNet>)>,
    ) -> bool {
        let Some(Verdict::Goto(target)) = &element.verdict else { return false };
        let Some(name) = self.name(target) else { return true };
        let cluster_ip = matches!(name.kind, ChainKind::Service | ChainKind::Local);
        let firewall = firewalls.get(&element.key);
        let Some(key) = self.key(&element.key, cluster_ip, firewall.is_some()) else { return false };
        if key.protocol != name.protocol || firewall.is_some_and(|(port, _)| *port != port_of(&name)) {
            return false;
        }
        let entry = match name.kind {
            ChainKind::Service | ChainKind::Local if key.exposure == Exposure::ClusterIp => {
                if !self.cluster_ips.contains(&key.ip) {
                    let what = self.element_place("cluster-ips", &Key::Address(key.ip));
                    self.notices.push(Notice::Missing { what });
                }
                let policy = if name.kind == ChainKind::Service { Policy::Cluster } else { Policy::Local };
                let list = self.list(target, &name);
                let masquerade = self.cluster_masquerade(&list, key);
                let (cluster, local) = match policy {
                    Policy::Cluster => (Some(list), None),
                    Policy::Local => (None, Some(list)),
                };
                Rc::new(Entry { policy, masquerade, knows_pods: false, cluster, local })
            }
            ChainKind::External if key.exposure != Exposure::ClusterIp => self.entry(target, &name),
            _ => return false,
        };
        let own = match entry.policy {
            Policy::Cluster => &entry.cluster,
            Policy::Local => &entry.local,
        };
        let empty = own.as_ref().is_none_or(|list| list.backends.is_empty());
        let no_backends = match (empty, refusal) {
            (true, Some((_, NoBackends::Drop))) if entry.policy == Policy::Local => {
                if self.fixed.refuses_output_early && key.exposure.is_external() && key.exposure != Exposure::NodePort {
                    self.notices.push(Notice::NodeTrafficRefused { key });
                }
                Some(NoBackends::Drop)
            }
            (true, None) => {
                self.notices.push(Notice::Unanswered { key, chain: Place::chain(self.family, target) });
                Some(NoBackends::Drop)
            }
            (false, None) => None,
            (empty, Some((element, verdict))) => {
                let at = self.element_place(refusing, &element.key);
                self.notices.push(Notice::Contradiction { at });
                empty.then_some(verdict)
            }
        };
        let port = port_of(&name);
        let shared = self.shared.entry(port.clone()).or_default();
        shared.set_policy(key.exposure, entry.policy);
        shared.cluster = shared.cluster.take().or_else(|| entry.cluster.clone());
        shared.local = shared.local.take().or_else(|| entry.local.clone());
        self.drafts.push(Draft {
            key,
            port: Some(port),
            served: true,
            policy: entry.policy,
            sources: firewall.map_or_else(Vec::new, |(_, sources)| sources.clone()),
            masquerade: entry.masquerade,
            no_backends,
            origin: self.origin(map, &element.key),
        });
        true
    }

    /// Drafts the frontend of an element that refuses and has no chain; `false` if it is not kube-proxy's.
    fn refused_element(
        &mut self,
        map: &'static str,
        refusing: &'static str,
        element: &'a Element,
        verdict: NoBackends,
        firewalls: &HashMap<Key, (Port, Vec<IpNet>)>,
    ) -> bool {
        let cluster_ip = matches!(element.key, Key::Service(ip, ..) if self.cluster_ips.contains(&ip));
        let firewall = firewalls.get(&element.key);
        let Some(key) = self.key(&element.key, cluster_ip, firewall.is_some()) else { return false };
        let port = element.comment.as_deref().and_then(|comment| port_in_comment(comment, key.protocol));
        let policy = if verdict == NoBackends::Drop { Policy::Local } else { Policy::Cluster };
        if key.exposure.is_external() && verdict == NoBackends::Drop {
            // Pods and the node itself would be sent to the endpoints of other nodes.
            self.notices.push(Notice::Missing { what: self.element_place(map, &element.key) });
        }
        if let Some(port) = &port
            && policy == Policy::Local
        {
            self.shared.entry(port.clone()).or_default().set_policy(key.exposure, policy);
        }
        self.drafts.push(Draft {
            key,
            port,
            served: false,
            policy,
            sources: firewall.map_or_else(Vec::new, |(_, sources)| sources.clone()),
            masquerade: self.refused_masquerade(key.exposure, policy),
            no_backends: Some(verdict),
            origin: self.origin(refusing, &element.key),
        });
        true
    }

    /// What would happen to a packet's source if it had a backend to go to.
    fn refused_masquerade(&self, exposure: Exposure, policy: Policy) -> Masquerade {
        match (exposure, policy, self.fixed.cluster_masquerade) {
            (Exposure::ClusterIp, _, ClusterMasquerade::All(masquerade)) => masquerade,
            (Exposure::ClusterIp, _, ClusterMasquerade::PerService) => Masquerade::OffCluster,
            (_, Policy::Cluster, _) => Masquerade::Always,
            (_, Policy::Local, _) => Masquerade::Never,
        }
    }

    fn key(&self, key: &Key, cluster_ip: bool, has_firewall: bool) -> Option<FrontendKey> {
        match *key {
            Key::Service(ip, protocol, port) => {
                let exposure = match (cluster_ip, has_firewall) {
                    (true, false) => Exposure::ClusterIp,
                    (true, true) => return None,
                    (false, true) => Exposure::LoadBalancer,
                    (false, false) => Exposure::ExternalIp,
                };
                Some(FrontendKey { ip, port, protocol, exposure })
            }
            Key::NodePort(protocol, port) if !cluster_ip => {
                Some(FrontendKey { ip: self.family.unspecified(), port, protocol, exposure: Exposure::NodePort })
            }
            _ => None,
        }
    }

    fn cluster_masquerade(&self, list: &List, key: FrontendKey) -> Masquerade {
        match self.fixed.cluster_masquerade {
            ClusterMasquerade::All(masquerade) => masquerade,
            ClusterMasquerade::PerService => {
                let mine = list.masquerades.iter().find(|(ip, port, _)| (*ip, *port) == (key.ip, key.port));
                mine.map_or(Masquerade::Never, |(_, _, masquerade)| *masquerade)
            }
        }
    }

    fn origin(&self, map: &'static str, key: &Key) -> Origin {
        Origin::NftElement { family: self.family, map, key: key.to_string().into() }
    }
}

/// `namespace/name:port`, or `namespace/name` for an unnamed port.
fn port_in_comment(comment: &str, protocol: Protocol) -> Option<Port> {
    let (service, port) = comment.split_once(':').unwrap_or((comment, ""));
    let (namespace, name) = service.split_once('/')?;
    let service = ServiceName { namespace: namespace.to_owned(), name: name.to_owned() };
    Some(Port { service, name: port.to_owned(), protocol })
}

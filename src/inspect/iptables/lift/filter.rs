//! The filter table: who is refused for want of an endpoint, who is dropped by source ranges, health check ports.

use std::net::IpAddr;

use super::super::Map;
use super::super::dump::{Rule, Table};
use super::super::notice::Notice;
use super::super::spec::{Action, Parts, Spec};
use super::services::service_port;
use super::{Draft, MasqueradeBy, Reader, node_port_key, split_name};
use crate::model::{Exposure, FrontendKey, NoBackends, Policy, Protocol};

/// Drafts by what a filter rule can tell: address (unspecified for a NodePort), port, protocol.
type DraftIndex = Map<(IpAddr, u16, Protocol), Vec<usize>>;

/// `-p tcp --comment … --dport P -j …`.
const BASE: Parts = Parts::PROTOCOL.and(Parts::COMMENT).and(Parts::DPORT).and(Parts::TARGET);

impl<'a> Reader<'_, 'a> {
    pub(super) fn read_filter(&mut self) {
        let dump = self.dump;
        let Some(filter) = dump.table("filter") else { return };
        let refuses = [&b"KUBE-SERVICES"[..], b"KUBE-EXTERNAL-SERVICES", b"KUBE-PROXY-FIREWALL"]
            .iter()
            .any(|name| filter.chain(name).is_some_and(|chain| filter.rules_of(chain).len() > 0));
        let index = if refuses { self.draft_index() } else { DraftIndex::default() };
        for (name, cluster_ip) in [(&b"KUBE-SERVICES"[..], true), (b"KUBE-EXTERNAL-SERVICES", false)] {
            self.each_rule(filter, name, |r, rule, number, spec| {
                r.refusal(filter, rule, number, spec, cluster_ip, &index)
            });
        }
        self.each_rule(filter, b"KUBE-NODEPORTS", |r, _, _, spec| r.health_check(spec));
        self.each_rule(filter, b"KUBE-PROXY-FIREWALL", |r, _, _, spec| r.firewall(spec, &index));
        for i in 0..self.drafts.len() {
            if self.drafts[i].wants_firewall {
                let missing = "the rule that drops what the source ranges of a load-balancer Service leave out";
                if let Some(chain) = filter.chain(b"KUBE-PROXY-FIREWALL") {
                    self.incomplete(filter, chain, missing);
                }
            }
        }
    }

    /// Hands each rule of a chain to `read`; a rule that it does not take is unknown.
    pub(super) fn each_rule(
        &mut self,
        table: &Table<'a>,
        chain: &[u8],
        mut read: impl FnMut(&mut Self, &Rule<'a>, usize, &Spec<'a>) -> Option<()>,
    ) {
        let Some(chain) = table.chain(chain) else { return };
        for (i, rule) in table.rules_of(chain).enumerate() {
            if read(self, rule, i + 1, &rule.spec()).is_none() {
                self.unknown(table, rule, i + 1);
            }
        }
    }

    fn draft_index(&self) -> DraftIndex {
        let mut index = DraftIndex::default();
        for (i, draft) in self.drafts.iter().enumerate() {
            index.entry((draft.key.ip, draft.key.port, draft.key.protocol)).or_default().push(i);
        }
        index
    }

    /// `[-d VIP] -p tcp --comment "N has no endpoints" [--dst-type LOCAL] --dport P -j REJECT`, or "no local endpoints" and DROP.
    fn refusal(
        &mut self,
        filter: &Table<'a>,
        rule: &Rule<'a>,
        number: usize,
        spec: &Spec<'a>,
        cluster_ip: bool,
        index: &DraftIndex,
    ) -> Option<()> {
        let comment = spec.plain_comment()?;
        let target = spec.target?;
        let (name, verdict) = match (target.name, target.action) {
            (b"REJECT", Action::Reject(b"icmp-port-unreachable" | b"icmp6-port-unreachable")) => {
                (comment.strip_suffix(" has no endpoints")?, NoBackends::Reject)
            }
            (b"DROP", Action::Plain) => (comment.strip_suffix(" has no local endpoints")?, NoBackends::Drop),
            _ => return None,
        };
        let (port, protocol) = (spec.destination_port()?, spec.protocol?);
        let key = if spec.is(BASE.and(Parts::DESTINATION)) {
            // The rule does not tell an externalIP from a load balancer's; packets are refused alike.
            let exposure = if cluster_ip { Exposure::ClusterIp } else { Exposure::ExternalIp };
            FrontendKey { ip: spec.destination_host()?, port, protocol, exposure }
        } else if !cluster_ip && spec.is(BASE.and(Parts::DST_TYPE)) && spec.dst_type == Some(b"LOCAL") {
            node_port_key(self.family, port, protocol)
        } else {
            return None;
        };
        let service = self.port(service_port(name)?, protocol);
        if verdict == NoBackends::Drop {
            let policies = &mut self.ports[service];
            let policy = if cluster_ip { &mut policies.internal } else { &mut policies.external };
            // The nat table's word on the policy stands if it says otherwise; the contradiction shows in the frontend.
            policy.get_or_insert(Policy::Local);
        }
        let origin = self.origin(filter, rule.chain(), number);
        let same = |draft: &Draft| draft.port == service && (draft.key.exposure == Exposure::ClusterIp) == cluster_ip;
        let mut known = false;
        for &i in index.get(&(key.ip, port, protocol)).into_iter().flatten() {
            let draft = &mut self.drafts[i];
            if same(draft) {
                known = true;
                draft.refusal = Some(verdict);
                draft.refused_by = Some((origin.clone(), rule.to_string()));
            }
        }
        if !known {
            if verdict == NoBackends::Drop && !cluster_ip {
                self.notices.push(Notice::Undispatched { at: origin.clone(), service: name.to_owned() });
            }
            self.drafts.push(Draft {
                key,
                port: service,
                origin,
                masquerade: MasqueradeBy::Nothing,
                sources: Vec::new(),
                refusal: Some(verdict),
                refused_by: None,
                wants_firewall: false,
            });
        }
        Some(())
    }

    /// `-p tcp --comment "N health check node port" --dport P -j ACCEPT`.
    fn health_check(&mut self, spec: &Spec<'a>) -> Option<()> {
        if !spec.is(BASE) || spec.protocol != Some(Protocol::Tcp) || spec.target_name() != b"ACCEPT" {
            return None;
        }
        let name = service_port(spec.plain_comment()?.strip_suffix(" health check node port")?)?;
        self.own.health.entry(spec.destination_port()?).or_default().insert(split_name(name).0);
        Some(())
    }

    /// `-d VIP -p tcp --comment "N traffic not accepted by KUBE-FW-H" --dport P -j DROP`.
    fn firewall(&mut self, spec: &Spec<'a>, index: &DraftIndex) -> Option<()> {
        if !spec.is(BASE.and(Parts::DESTINATION)) || spec.target_name() != b"DROP" {
            return None;
        }
        let (name, _) = spec.plain_comment()?.split_once(" traffic not accepted by KUBE-FW-")?;
        let (port, protocol) = (spec.destination_port()?, spec.protocol?);
        let service = *self.port_index.get(&(name, protocol))?;
        let drafts = index.get(&(spec.destination_host()?, port, protocol))?;
        let mut meant = None;
        for &i in drafts {
            let draft = &mut self.drafts[i];
            if draft.port == service && draft.key.exposure == Exposure::LoadBalancer {
                draft.wants_firewall = false;
                meant = Some(());
            }
        }
        meant
    }
}

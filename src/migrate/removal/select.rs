//! What of one iptables table is kube-proxy's alone, and what stays although it has its name.

use std::collections::HashSet;
use std::fmt;

use crate::inspect::iptables::{Chain, Owner, Parts, Spec, Table, owner};
use crate::model::KubeVersion;

/// Why a chain of kube-proxy's name stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A rule of somebody else refers to it.
    Refers {
        /// The chain that the rule is in.
        chain: String,
        /// Its number in there, from 1.
        number: usize,
        /// The rule.
        rule: String,
    },
    /// A chain that stays refers to it.
    NeededBy {
        /// That chain.
        chain: String,
    },
    /// A mark that is set by a chain that stays is acted upon here.
    Mark,
    /// The kubelet has a chain of the same name (before Kubernetes 1.28).
    Kubelet,
    /// A set or a counter that a rule uses which stays, or a set of somebody else.
    Used,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refers { chain, number, rule } => write!(f, "{chain} rule {number} refers to it: {rule}"),
            Self::NeededBy { chain } => write!(f, "{chain} refers to it"),
            Self::Mark => write!(f, "{MARK} stays, and this masquerades what it marks"),
            Self::Kubelet => f.write_str("the kubelet has it too"),
            Self::Used => f.write_str("something that stays uses it"),
        }
    }
}

const MARK: &str = "KUBE-MARK-MASQ";
const POSTROUTING: &[u8] = b"KUBE-POSTROUTING";
const MARK_DROP: &[u8] = b"KUBE-MARK-DROP";

/// What goes from a table, by indices into it.
#[derive(Debug, Default)]
pub(super) struct Selection {
    /// Chains.
    pub(super) chains: Vec<usize>,
    /// Jumps in built-in chains: chain, and number of the rule in it from 0.
    pub(super) jumps: Vec<(usize, usize)>,
    /// Chains that stay, and why.
    pub(super) kept: Vec<(usize, Reason)>,
}

/// Chooses what goes from a table.
pub(super) fn select(table: &Table<'_>, kubelet: Option<KubeVersion>) -> Selection {
    let shared = table.name() == b"nat" && shared(table, kubelet);
    let mut selector = Selector { table, goes: Vec::new(), selection: Selection::default() };
    for (i, chain) in table.chains().iter().enumerate() {
        let ours = match chain.name {
            _ if chain.is_builtin() => false,
            // kube-proxy before 1.25 made the chain where the kubelet had not, but never a rule in it.
            MARK_DROP => !shared && table.rules_of(i).len() == 0,
            name => owner(name).is_kube_proxy(),
        };
        let kubelets = shared && (chain.name == MARK.as_bytes() || chain.name == POSTROUTING);
        if kubelets {
            selector.selection.kept.push((i, Reason::Kubelet));
        }
        selector.goes.push(ours && !kubelets);
    }
    let jumps = selector.references();
    selector.finish(jumps)
}

/// All that bears kube-proxy's names, whoever else may need it: what may have gone by now, whatever kept it at first. The kubelet's
/// drop mark is among it, since rules of old versions cannot be without it.
pub(super) fn all(table: &Table<'_>) -> Selection {
    let names =
        |chain: &Chain<'_>| !chain.is_builtin() && (chain.name == MARK_DROP || owner(chain.name).is_kube_proxy());
    let goes = table.chains().iter().map(names).collect();
    let mut selector = Selector { table, goes, selection: Selection::default() };
    let jumps = selector.jumps(|_, _| {});
    selector.selection.jumps = jumps.into_iter().map(|jump| (jump.from, jump.number)).collect();
    selector.selection.chains = (0..selector.goes.len()).filter(|&i| selector.goes[i]).collect();
    selector.selection
}

/// Whether the kubelet has chains of its own under kube-proxy's names: before Kubernetes 1.27 it does, in 1.27 a feature gate
/// says, and its drop mark with a rule in it shows that it has or had.
fn shared(table: &Table<'_>, kubelet: Option<KubeVersion>) -> bool {
    let marks = || table.chain(MARK_DROP).is_some_and(|chain| table.rules_of(chain).len() > 0);
    match kubelet {
        Some(version) if version >= KubeVersion::v1(28) => false,
        Some(version) if version < KubeVersion::v1(27) => true,
        _ => marks(),
    }
}

struct Selector<'s, 'a> {
    table: &'s Table<'a>,
    /// Whether a chain goes.
    goes: Vec<bool>,
    selection: Selection,
}

/// A rule in a built-in chain that jumps to kube-proxy's.
struct Jump {
    from: usize,
    number: usize,
    to: usize,
}

impl Selector<'_, '_> {
    /// The chain that a rule refers to, if it is one that goes.
    fn reference(&self, spec: &Spec<'_>) -> Option<usize> {
        self.table.chain(spec.target_name()).filter(|&chain| self.goes[chain])
    }

    /// Tells jumps of kube-proxy from rules of others that refer to its chains; these keep them.
    fn references(&mut self) -> Vec<Jump> {
        let mut refer = Vec::new();
        let jumps = self.jumps(|chain, reason| refer.push((chain, reason)));
        for (chain, reason) in refer {
            self.keep(chain, reason);
        }
        jumps
    }

    /// kube-proxy's jumps; `refer` is told of the rules of others.
    fn jumps(&self, mut refer: impl FnMut(usize, Reason)) -> Vec<Jump> {
        let mut jumps = Vec::new();
        for (from, chain) in self.table.chains().iter().enumerate().filter(|&(i, _)| !self.goes[i]) {
            for (number, rule) in self.table.rules_of(from).enumerate() {
                let spec = rule.spec();
                let Some(to) = self.reference(&spec) else { continue };
                if chain.is_builtin() && is_jump(&spec) {
                    jumps.push(Jump { from, number, to });
                } else {
                    let (chain, rule) = (text(chain.name), rule.to_string());
                    refer(to, Reason::Refers { chain, number: number + 1, rule });
                }
            }
        }
        jumps
    }

    /// Keeps a chain, and what it needs.
    fn keep(&mut self, chain: usize, reason: Reason) {
        let mut open = vec![(chain, reason)];
        while let Some((chain, reason)) = open.pop() {
            let already = !std::mem::take(&mut self.goes[chain]);
            if already && !matches!(reason, Reason::Refers { .. }) {
                continue;
            }
            self.selection.kept.push((chain, reason));
            if already {
                continue;
            }
            let name = self.table.chains()[chain].name;
            let mut needed = HashSet::new();
            for rule in self.table.rules_of(chain) {
                needed.extend(self.reference(&rule.spec()));
            }
            open.extend(needed.into_iter().map(|to| (to, Reason::NeededBy { chain: text(name) })));
            if name == MARK.as_bytes()
                && let Some(acts) = self.table.chain(POSTROUTING)
            {
                open.push((acts, Reason::Mark));
            }
        }
    }

    fn finish(mut self, jumps: Vec<Jump>) -> Selection {
        let marks = self.table.chain(MARK.as_bytes()).filter(|&chain| !self.goes[chain]);
        let acts = marks.and_then(|_| self.table.chain(POSTROUTING));
        let jumps = jumps.into_iter().filter(|jump| Some(jump.to) != acts);
        self.selection.jumps = jumps.map(|jump| (jump.from, jump.number)).collect();
        self.selection.chains = (0..self.goes.len()).filter(|&i| self.goes[i]).collect();
        self.selection.kept.sort_by_key(|(chain, _)| *chain);
        self.selection
    }
}

/// Whether a rule of a built-in chain is a jump of kube-proxy, of any mode and version: without a condition but for new
/// connections, and with a comment that begins as all of its do. The userspace mode's have others, but nobody else used its
/// chains.
fn is_jump(spec: &Spec<'_>) -> bool {
    let commented = spec.parts.without(Parts::CTSTATE) == Parts::COMMENT.and(Parts::TARGET);
    match owner(spec.target_name()) {
        Owner::Userspace => true,
        Owner::KubeProxy | Owner::Ipvs => {
            commented
                && spec.negated == Parts::NONE
                && spec.target.is_some_and(|target| !target.goto)
                && spec.plain_comment().is_some_and(|comment| comment.starts_with("kube"))
        }
        _ => false,
    }
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::iptables::parse;

    /// What goes and what stays of a nat table with these rules, in words.
    fn selected(rules: &str, kubelet: Option<KubeVersion>) -> (Vec<String>, Vec<String>, Vec<String>) {
        let chains = [
            "PREROUTING ACCEPT",
            "POSTROUTING ACCEPT",
            "CNI -",
            "KUBE-SERVICES -",
            "KUBE-SVC-NPX46M4PTMTKRN6Y -",
            "KUBE-SEP-ONT5M3GKZCUX63CA -",
            "KUBE-MARK-MASQ -",
            "KUBE-POSTROUTING -",
            "KUBE-MARK-DROP -",
        ];
        let chains = format!(":{}\n", chains.join("\n:"));
        let fixed = "-A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING\n\
                     -A KUBE-SERVICES -j KUBE-SVC-NPX46M4PTMTKRN6Y\n\
                     -A KUBE-SVC-NPX46M4PTMTKRN6Y -j KUBE-SEP-ONT5M3GKZCUX63CA\n\
                     -A KUBE-SEP-ONT5M3GKZCUX63CA -j KUBE-MARK-MASQ\n";
        let text = format!("*nat\n{chains}{fixed}{rules}COMMIT\n");
        let dump = parse(text.as_bytes()).expect("it parses");
        let table = &dump.tables()[0];
        let found = select(table, kubelet);
        let name = |chain: usize| String::from_utf8_lossy(table.chains()[chain].name).into_owned();
        let jump = |(chain, number)| format!("{} {}", name(chain), table.rule(chain, number + 1).expect("a rule"));
        (
            found.chains.iter().map(|&chain| name(chain)).collect(),
            found.jumps.into_iter().map(jump).collect(),
            found.kept.iter().map(|(chain, reason)| format!("{}: {reason}", name(*chain))).collect(),
        )
    }

    const POSTROUTING_JUMP: &str =
        "POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING";

    #[test]
    fn without_others_all_goes() {
        let (chains, jumps, kept) = selected("", None);
        assert_eq!(chains.len(), 6);
        assert_eq!(jumps, [POSTROUTING_JUMP]);
        assert_eq!(kept, [""; 0]);
    }

    #[test]
    fn what_others_refer_to_stays_with_all_it_needs() {
        let (chains, jumps, kept) = selected("-A CNI -g KUBE-SVC-NPX46M4PTMTKRN6Y\n", None);
        assert_eq!(chains, ["KUBE-SERVICES", "KUBE-MARK-DROP"]);
        assert_eq!(jumps, [""; 0], "marks that are set are acted upon");
        assert_eq!(
            kept,
            [
                "KUBE-SVC-NPX46M4PTMTKRN6Y: CNI rule 1 refers to it: -g KUBE-SVC-NPX46M4PTMTKRN6Y",
                "KUBE-SEP-ONT5M3GKZCUX63CA: KUBE-SVC-NPX46M4PTMTKRN6Y refers to it",
                "KUBE-MARK-MASQ: KUBE-SEP-ONT5M3GKZCUX63CA refers to it",
                "KUBE-POSTROUTING: KUBE-MARK-MASQ stays, and this masquerades what it marks",
            ]
        );
    }

    #[test]
    fn a_jump_is_kube_proxys_by_its_form() {
        let own = "-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n";
        assert_eq!(selected(own, None).1.len(), 2);
        for foreign in [
            "-A PREROUTING -j KUBE-SERVICES\n",
            "-A PREROUTING -m comment --comment \"service portals\" -j KUBE-SERVICES\n",
            "-A PREROUTING -s 10.0.0.1/32 -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n",
            "-A PREROUTING -m comment --comment \"kubernetes service portals\" -g KUBE-SERVICES\n",
        ] {
            let (chains, _, kept) = selected(&[own, foreign].concat(), None);
            assert_eq!(chains, ["KUBE-MARK-DROP"], "{foreign}");
            assert!(kept[0].starts_with("KUBE-SERVICES: PREROUTING rule 2 refers to it"), "{kept:?}");
        }
    }

    #[test]
    fn a_mark_that_others_set_is_acted_upon_even_if_they_name_both_chains() {
        let both = "-A CNI -j KUBE-POSTROUTING\n-A CNI -j KUBE-MARK-MASQ\n";
        let (chains, jumps, kept) = selected(both, None);
        assert_eq!((chains.len(), jumps.len(), kept.len()), (4, 0, 2), "{kept:?}");
    }
}

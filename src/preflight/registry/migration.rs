//! What a migration does to sockets, flows and rules.

use super::super::feature::{Area, Feature};
use crate::inspect::kernel::Version;
use crate::severity::Severity;

pub(super) static FEATURES: [Feature; 3] = [
    Feature {
        id: "KPX-P501",
        area: Area::Migration,
        name: "sock-destroy",
        title: "Ending sockets of others (SOCK_DESTROY)",
        why: "Clients of an endpoint that is gone are told so at once, by the end of their socket, as with kube-proxy's clean-up of conntrack.",
        remedy: "Set CONFIG_INET_DIAG_DESTROY, or install the package with the module inet_diag.",
        without: "Such clients wait for their own timeout.",
        command: "ss --kill dst ADDRESS",
        since: Some(Version(4, 9)),
        config: &["INET_DIAG_DESTROY"],
        btf: None,
        kpx: Some(Severity::Warning),
        cilium: Some(Severity::Warning),
    },
    Feature {
        id: "KPX-P502",
        area: Area::Migration,
        name: "ctnetlink-nat",
        title: "Putting flows with their translation into conntrack",
        why: "On the way back to kube-proxy, flows that kpx translates are given to the kernel so that none is cut.",
        remedy: "Set CONFIG_NF_CT_NETLINK and CONFIG_NF_NAT, or install the package with these modules.",
        without: "Flows of the packet path are drained rather than handed over: the way back takes as long as they live.",
        command: "conntrack -L",
        since: Some(Version(3, 7)),
        config: &["NF_CT_NETLINK", "NF_NAT"],
        btf: None,
        kpx: Some(Severity::Warning),
        cilium: None,
    },
    Feature {
        id: "KPX-P503",
        area: Area::Migration,
        name: "nft-inet-nat",
        title: "nat chains for both families in nftables",
        why: "They hold the kernel's translation of old flows while kube-proxy's rules are taken away.",
        remedy: "Set CONFIG_NF_TABLES_INET and CONFIG_NFT_NAT, or install the package with these modules.",
        without: "kube-proxy's rules stay until the last of their flows has ended.",
        command: "nft list ruleset",
        since: Some(Version(5, 2)),
        config: &["NF_TABLES_INET", "NFT_NAT"],
        btf: None,
        kpx: Some(Severity::Warning),
        cilium: None,
    },
];

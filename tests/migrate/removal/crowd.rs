//! Rules of the kind that Docker, Calico, firewalld, the CNI's portmap plugin, the kubelet and an administrator leave, put around
//! kube-proxy's in a recorded text.

/// Chains of others, by table.
const CHAINS: [(&str, &[&str]); 3] = [
    (
        "filter",
        &[
            "DOCKER-USER",
            "DOCKER-FORWARD",
            "cali-INPUT",
            "cali-FORWARD",
            "cali-OUTPUT",
            "INPUT_ZONES",
            "IN_public",
            "KUBE-KUBELET-CANARY",
            "KUBE-NWPLCY-NPX46M4PTMTKRN6Y",
        ],
    ),
    ("nat", &["DOCKER", "cali-PREROUTING", "cali-POSTROUTING", "CNI-HOSTPORT-SETMARK", "KUBE-KUBELET-CANARY"]),
    ("mangle", &["cali-PREROUTING", "KUBE-KUBELET-CANARY", "KUBE-IPTABLES-HINT"]),
];

/// Rules in front of all others.
const FRONT: [(&str, &[&str]); 3] = [
    (
        "filter",
        &[
            r#"-A INPUT -m comment --comment "cali:Cz_u1IQiXIMmKD4c" -j cali-INPUT"#,
            r#"-A FORWARD -m comment --comment "cali:wUHhoiAYhphO9Mso" -j cali-FORWARD"#,
            r#"-A OUTPUT -m comment --comment "cali:tVnHkvAo15HuiPy0" -j cali-OUTPUT"#,
            "-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT",
        ],
    ),
    ("nat", &[r#"-A PREROUTING -m comment --comment "cali:6gwbT8clXdHdC1b1" -j cali-PREROUTING"#]),
    ("mangle", &[r#"-A PREROUTING -m comment --comment "cali:6gwbT8clXdHdC1b1" -j cali-PREROUTING"#]),
];

/// Rules between kube-proxy's.
const MIDDLE: [(&str, &[&str]); 2] = [
    ("filter", &["-A INPUT -i lo -j ACCEPT", "-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT"]),
    ("nat", &[r#"-A OUTPUT -m comment --comment "kubernetes is what this is about" -j RETURN"#]),
];

/// Rules behind all others.
const BACK: [(&str, &[&str]); 3] = [
    (
        "filter",
        &[
            r#"-A INPUT -p tcp -m comment --comment "allow KUBE-SERVICES from office" -m tcp --dport 6443 -j ACCEPT"#,
            "-A INPUT -m conntrack --ctstate INVALID -j DROP",
            "-A INPUT -j INPUT_ZONES",
            "-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT",
            "-A FORWARD -j DOCKER-USER",
            "-A FORWARD -j DOCKER-FORWARD",
            "-A FORWARD -i docker0 ! -o docker0 -j ACCEPT",
            "-A DOCKER-FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "-A DOCKER-USER -j RETURN",
            r#"-A cali-INPUT -m comment --comment "it's \"quoted\" \\ here" -m mark --mark 0x10000/0x10000 -j ACCEPT"#,
            "-A INPUT_ZONES -i eth0 -g IN_public",
            "-A IN_public -p udp -m udp --dport 5353 -j ACCEPT",
            "-A KUBE-NWPLCY-NPX46M4PTMTKRN6Y -j RETURN",
        ],
    ),
    (
        "nat",
        &[
            "-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
            "-A POSTROUTING -o eth7 -j MASQUERADE",
            r#"-A POSTROUTING -m comment --comment "cali:O3lYWMrLQYEMJtB5" -j cali-POSTROUTING"#,
            "-A DOCKER -i docker0 -j RETURN",
        ],
    ),
    ("mangle", &["-A cali-PREROUTING -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"]),
];

/// A rule of the portmap plugin that refers to a chain of kube-proxy.
const REFERENCE: &str =
    r#"-A CNI-HOSTPORT-SETMARK -m comment --comment "CNI portfwd masquerade mark" -j KUBE-MARK-MASQ"#;

/// A table that kube-proxy does not know.
const RAW: &str = "*raw\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:cali-PREROUTING - [0:0]\n\
                   -A PREROUTING -j cali-PREROUTING\n-A cali-PREROUTING -i cali+ -j RETURN\nCOMMIT\n";

/// A recorded text with others' rules around kube-proxy's, and with the rule that refers to its chain if so wanted.
pub(super) fn crowded(recorded: &str, reference: bool) -> String {
    let mut out = String::new();
    let (mut table, mut fronted) = ("", false);
    let say = |out: &mut String, rules: &[(&str, &[&str])], table: &str| {
        for line in rules.iter().filter(|(of, _)| *of == table).flat_map(|(_, lines)| *lines) {
            out.push_str(line);
            out.push('\n');
        }
    };
    for line in recorded.lines() {
        let is_rule = line.contains("-A ");
        if (is_rule || line == "COMMIT") && !std::mem::replace(&mut fronted, true) {
            say(&mut out, &FRONT, table);
        }
        if line == "COMMIT" {
            say(&mut out, &BACK, table);
            if table == "nat" && reference {
                out.push_str(REFERENCE);
                out.push('\n');
            }
        }
        out.push_str(line);
        out.push('\n');
        if let Some(name) = line.strip_prefix('*') {
            (table, fronted) = (name, false);
            for chain in CHAINS.iter().filter(|(of, _)| *of == table).flat_map(|(_, chains)| *chains) {
                out.push(':');
                out.push_str(chain);
                out.push_str(" - [0:0]\n");
            }
        }
        if line.contains("-A INPUT") && line.ends_with("-j KUBE-NODEPORTS")
            || line.contains("-A OUTPUT ") && table == "nat"
        {
            say(&mut out, &MIDDLE, table);
        }
    }
    out + RAW
}

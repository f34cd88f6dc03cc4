//! Every check on a recorded node that was edited in one place: it fires there, names it, and is silent elsewhere.

use std::collections::BTreeSet;

use kpx::audit::all;
use serde_json::json;

use super::folder::Folder;
use super::said;

/// One check: how the trouble is made, what the evidence must name, and how it is taken away where the recording has it.
struct Case {
    id: &'static str,
    trouble: fn(&Folder),
    says: &'static str,
    calm: fn(&Folder),
    nftables: bool,
}

/// Trouble on a node in iptables mode that has none of it.
const fn case(id: &'static str, says: &'static str, trouble: fn(&Folder)) -> Case {
    Case { id, trouble, says, calm: |_| (), nftables: false }
}

/// The same in nftables mode.
const fn nft(id: &'static str, says: &'static str, trouble: fn(&Folder)) -> Case {
    Case { nftables: true, ..case(id, says, trouble) }
}

/// What the recorded node has as it is, and what takes it away.
const fn there(id: &'static str, says: &'static str, calm: fn(&Folder)) -> Case {
    Case { id, trouble: |_| (), says, calm, nftables: false }
}

const V4: &str = "iptables-save.txt";
const V6: &str = "ip6tables-save.txt";

fn cases() -> Vec<Case> {
    let mut cases = vec![
        case("KPX-A101", "iptables-nft nat CNI-HOSTPORT-SETMARK rule 1: -j KUBE-MARK-MASQ", |f| {
            f.add(V4, "nat", &[":CNI-HOSTPORT-SETMARK - [0:0]", "-A CNI-HOSTPORT-SETMARK -j KUBE-MARK-MASQ"]);
        }),
        Case {
            trouble: |f| {
                f.add(V4, "filter", &["-A INPUT -p tcp -m comment --comment \"allow KUBE-API from office\" -m tcp --dport 6443 -j ACCEPT"]);
            },
            ..there(
                "KPX-A102",
                "filter INPUT rule 5: -p tcp -m comment --comment \"allow KUBE-API from office\"",
                |f| {
                    f.without(V4, "KUBE-FIREWALL");
                    f.without(V6, "KUBE-FIREWALL");
                },
            )
        },
        case("KPX-A103", "about kube-system/kube-dns:dns: -d 10.96.0.10/32", |f| {
            f.add(V4, "filter", &["-A OUTPUT -d 10.96.0.10/32 -p udp -m udp --dport 53 -j ACCEPT"]);
        }),
        case("KPX-A104", "iptables-nft nat PREROUTING rule 1: -m comment --comment mine -j ACCEPT", |f| {
            f.before(V4, "-A PREROUTING", "-A PREROUTING -m comment --comment mine -j ACCEPT");
        }),
        case("KPX-A105", "iptables-nft security", |f| {
            f.before(V4, "*mangle", "# Table `security' is incompatible, use 'nft' tool.");
        }),
        case("KPX-A106", "iptables-nft nat POSTROUTING rule 2: -j DROP (in nft it asks a set or map, too)", |f| {
            // As iptables 1.8.9 printed the rule, and as nft did.
            f.add(V4, "nat", &["-A POSTROUTING -j DROP"]);
            f.json("nft-ruleset.json", |ruleset| {
                let rule = |expr: serde_json::Value| {
                    json!({"rule": {"family": "ip", "table": "nat", "chain": "POSTROUTING", "handle": 9, "expr": expr}})
                };
                let field = |field: &str| json!({"payload": {"protocol": "ip", "field": field}});
                ruleset["nftables"].as_array_mut().expect("a list").extend([
                    rule(json!([{"xt": {"type": "match", "name": "comment"}}, {"counter": {"packets": 0, "bytes": 0}},
                        {"jump": {"target": "KUBE-POSTROUTING"}}])),
                    rule(json!([{"match": {"op": "==", "left": {"concat": [field("saddr"), field("daddr")]},
                        "right": {"set": [{"concat": ["1.2.3.4", "5.6.7.8"]}]}}}, {"drop": null}])),
                ]);
            });
        }),
        case("KPX-A107", "iptables-nft filter FORWARD rule 5: -m conntrack --ctstate DNAT -j ACCEPT", |f| {
            f.add(V4, "filter", &["-A FORWARD -m conntrack --ctstate DNAT -j ACCEPT"]);
        }),
        nft("KPX-A107", "nftables inet firewalld filter_FORWARD: rule with handle 9", |f| {
            f.json("nft-ruleset.json", |ruleset| {
                let dnat = json!({"match": {"op": "in", "left": {"ct": {"key": "status"}}, "right": "dnat"}});
                ruleset["nftables"].as_array_mut().expect("a list").extend([
                    json!({"table": {"family": "inet", "name": "firewalld", "handle": 1}}),
                    json!({"rule": {"family": "inet", "table": "firewalld", "chain": "filter_FORWARD", "handle": 9,
                        "expr": [dnat, {"accept": null}]}}),
                ]);
            });
        }),
        case("KPX-A110", "iptables-legacy: ", |f| {
            f.write("iptables-legacy-save.txt", &f.read(V4).replace(" (nf_tables)", ""));
        }),
        case("KPX-A111", "while kube-proxy runs in nftables mode", |f| f.write("proxyMode.txt", "nftables")),
        case("KPX-A112", "iptables-nft nat KUBE-SVC-AAAAAAAAAAAAAAAA", |f| {
            f.add(V4, "nat", &[":KUBE-SVC-AAAAAAAAAAAAAAAA - [0:0]"]);
        }),
        case("KPX-A113", "iptables-nft nat KUBE-PORTALS-HOST", |f| f.add(V4, "nat", &[":KUBE-PORTALS-HOST - [0:0]"])),
        there("KPX-A114", "localhost_nps_accepted_pkts: named by rules of iptables-nft", |f| {
            for file in [V4, V6] {
                f.replace_all(file, " -m nfacct --nfacct-name  ct_state_invalid_dropped_pkts", "");
            }
            f.replace_all(V4, " -m nfacct --nfacct-name  localhost_nps_accepted_pkts", "");
        }),
        case("KPX-A115", "ct_state_invalid_dropped_pkts", |f| f.without("nfacct-list.txt", "ct_state_invalid")),
        case("KPX-A120", "filter KUBE-FORWARD rule 4: -s 192.0.2.1/32 -j DROP", |f| {
            f.add(V4, "filter", &["-A KUBE-FORWARD -s 192.0.2.1/32 -j DROP"]);
        }),
        case("KPX-A121", "iptables-nft nat KUBE-MARK-MASQ: the rule that sets the mark is missing", |f| {
            f.without(V4, "-A KUBE-MARK-MASQ");
        }),
        case("KPX-A122", "iptables-nft nat PREROUTING: no jump to KUBE-SERVICES", |f| f.without(V4, "-A PREROUTING")),
        case("KPX-A123", "KUBE-SERVICES", |f| {
            f.replace(V4, "--dport 53 -j KUBE-SVC-TCOU7JCQXEZGVUNU", "--dport 53 -j KUBE-SVC-NPX46M4PTMTKRN6Y");
        }),
        case("KPX-A124", "gives its endpoints unequal shares", |f| {
            f.replace(V4, "--probability 0.50000000000", "--probability 0.25000000000");
        }),
        case("KPX-A125", "recognises pods in another way", |f| f.replace(V4, "! -s 10.244.0.0/16", "! -s 10.0.0.0/8")),
        case("KPX-A126", "kube-system/kube-dns:dns has no endpoints", |f| {
            f.add(V4, "filter", &[
                "-A KUBE-SERVICES -d 10.96.0.10/32 -p udp -m comment --comment \"kube-system/kube-dns:dns has no endpoints\" -m udp --dport 53 -j REJECT --reject-with icmp-port-unreachable",
            ]);
        }),
        case("KPX-A127", "never sees one", |f| {
            f.replace(V4, "*nat\n", "*nat\n:KUBE-EXT-TCOU7JCQXEZGVUNU - [0:0]\n");
            f.add(V4, "nat", &[
                "-A KUBE-EXT-TCOU7JCQXEZGVUNU -m comment --comment \"masquerade traffic for kube-system/kube-dns:dns external destinations\" -j KUBE-MARK-MASQ",
                "-A KUBE-EXT-TCOU7JCQXEZGVUNU -j KUBE-SVC-TCOU7JCQXEZGVUNU",
            ]);
            f.before(
                V4,
                "-A KUBE-SERVICES -d 10.96.0.10/32 -p udp",
                "-A KUBE-SERVICES -d 10.96.0.10/32 -p udp -m comment --comment \"kube-system/kube-dns:dns external IP\" -m udp --dport 53 -j KUBE-EXT-TCOU7JCQXEZGVUNU",
            );
        }),
        case("KPX-A128", "ip6tables-nft: ", |f| {
            f.write(V6, include_str!("../data/iptables/v1.23-nft-ipv6.txt"));
        }),
        case("KPX-A129", "no KUBE-PROXY-CANARY", |f| f.replace(V4, ":KUBE-PROXY-CANARY - [0:0]\n", "")),
        case("KPX-A130", "iptables-nft filter FORWARD: policy DROP", |f| {
            f.replace_all(V4, ":FORWARD ACCEPT", ":FORWARD DROP");
        }),
        case("KPX-A131", "KUBE-FIREWALL rule 2: -j DROP", |f| f.add(V4, "filter", &["-A KUBE-FIREWALL -j DROP"])),
        case("KPX-A132", "KUBE-FIREWALL rule 2", |f| {
            let text = f.read(V4);
            let rule = text.lines().find(|line| line.contains("-A KUBE-FIREWALL")).expect("it has one").to_owned();
            f.add(V4, "filter", &[&rule]);
        }),
        there("KPX-A133", "KUBE-IPTABLES-HINT", |f| f.add(V4, "mangle", &[":KUBE-IPTABLES-HINT - [0:0]"])),
        case("KPX-A134", "Docker: 2 chains", |f| {
            f.add(V4, "filter", &[":DOCKER-USER - [0:0]", ":DOCKER - [0:0]"]);
        }),
        case("KPX-A135", "nat POSTROUTING rule", |f| {
            f.add(V4, "nat", &["-A POSTROUTING -m mark --mark 0x4000/0x4000 -j RETURN"]);
        }),
        case("KPX-A136", "ufw is active", |f| f.add(V4, "filter", &[":ufw-before-input - [0:0]"])),
        case("KPX-A137", "v1.8.8", |f| f.replace(V4, "v1.8.9", "v1.8.8")),
        case("KPX-A138", "iptables-legacy filter: rules inside: 0", |f| {
            f.write(
                "iptables-legacy-save.txt",
                "# Generated by iptables-save v1.8.9 on x\n*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n",
            );
        }),
        case("KPX-A139", "iptables-nft: kube-proxy's rules; the kubelet's hint is in iptables-legacy", |f| {
            f.write(
                "iptables-legacy-save.txt",
                "# Generated by iptables-save v1.8.9 on x\n*mangle\n:KUBE-IPTABLES-HINT - [0:0]\nCOMMIT\n",
            );
        }),
        case("KPX-A140", "iptables-restor (process 7) holds it", |f| {
            f.write(
                "xtables-lock.json",
                r#"{"is_folder":false,"holders":[{"pid":7,"program":"iptables-restor","waits":false}]}"#,
            );
        }),
        case("KPX-A141", "2 clients of shop/session:http at ", |f| {
            let list = affinity_list(f);
            f.write("xt_recent.txt", &format!("# limit 2\n{list} src=10.0.0.3 ttl: 64 last_seen: 1 oldest_pkt: 1 1\n{list} src=10.0.0.4 ttl: 64 last_seen: 1 oldest_pkt: 1 1\n"));
        }),
    ];
    cases.extend(of_nftables());
    cases.extend(of_the_rest());
    cases.extend(against_the_api());
    cases
}

fn of_nftables() -> Vec<Case> {
    vec![
        nft("KPX-A201", "chain masquerading rule", |f| {
            f.json("nft-ruleset.json", |ruleset| {
                ruleset["nftables"].as_array_mut().expect("a list").push(json!({"rule": {
                    "family": "ip", "table": "kube-proxy", "chain": "masquerading", "handle": 9999, "expr": [{"accept": null}]
                }}));
            });
        }),
        nft("KPX-A202", "chain services", |f| {
            f.json("nft-ruleset.json", |ruleset| {
                let objects = ruleset["nftables"].as_array_mut().expect("a list");
                let at = objects
                    .iter()
                    .position(|o| o["rule"]["chain"] == "services" && o["rule"].to_string().contains("@service-ips"));
                let at = at.expect("it looks into the map");
                objects.remove(at);
            });
        }),
        nft("KPX-A203", "chain nat-prerouting", |f| {
            f.nft("chain", |chain| {
                if chain["name"] == "nat-prerouting" {
                    chain["prio"] = json!(-50);
                }
            });
        }),
        nft("KPX-A204", "service-", |f| {
            f.nft("map", |map| {
                if map["name"] == "service-ips" && map["family"] == "ip" {
                    map["elem"]
                        .as_array_mut()
                        .expect("it has elements")
                        .retain(|e| !e.to_string().contains("kube-dns/udp"));
                }
            });
        }),
        nft("KPX-A205", "2QRHZV4M", |f| f.replace_all("nft-ruleset.json", "2QRHZV4L", "2QRHZV4M")),
        nft("KPX-A206", "some of the numbers drawn choose no endpoint", |f| {
            f.replace("nft-ruleset.json", "\"mod\": 2,", "\"mod\": 3,");
        }),
        nft("KPX-A207", "recognises pods in another way", |f| {
            f.replace(
                "nft-ruleset.json",
                "\"addr\": \"10.244.0.0\", \"len\": 16",
                "\"addr\": \"10.0.0.0\", \"len\": 8",
            );
        }),
        nft("KPX-A208", "nothing refuses", |f| {
            f.nft("map", |map| {
                if map["name"] == "service-nodeports" || map["name"] == "no-endpoint-nodeports" {
                    let elements = map["elem"].as_array_mut().expect("it has elements");
                    elements.retain(map_keeps);
                }
            });
        }),
        nft("KPX-A209", "gets no answer when it connects to itself", |f| {
            f.nft("set", |set| {
                if set["name"] == "hairpin-connections" && set["family"] == "ip" {
                    set["elem"].as_array_mut().expect("it has elements").clear();
                }
            });
        }),
        nft("KPX-A210", "are dropped before they are translated", |f| {
            f.write("nft-ruleset.json", &Folder::nftables("v1.30").read("nft-ruleset.json"));
        }),
        nft("KPX-A211", "nft ip kube-proxy", |f| f.write("proxyMode.txt", "iptables")),
        nft("KPX-A212", "version 1.1.4", |f| f.nft("metainfo", |info| info["version"] = json!("1.1.4"))),
        nft("KPX-A214", "CONFIG_NFT_FIB_IPV4: is not set; mode nftables by", |f| {
            f.without("kernel-config.txt", "CONFIG_NFT_FIB_IPV4=");
        }),
        nft("KPX-A134", "nft ip cni_hostport: CNI portmap (hostPorts): 1 chains", |f| {
            f.json("nft-ruleset.json", |ruleset| {
                let objects = ruleset["nftables"].as_array_mut().expect("a list");
                objects.push(json!({"table": {"family": "ip", "name": "cni_hostport", "handle": 91}}));
                objects.push(
                    json!({"chain": {"family": "ip", "table": "cni_hostport", "name": "prerouting", "type": "nat",
                    "hook": "prerouting", "prio": -100, "policy": "accept"}}),
                );
            });
        }),
        nft("KPX-A213", "nft inet firewalld filter_INPUT: policy drop at input 10", |f| {
            f.json("nft-ruleset.json", |ruleset| {
                let objects = ruleset["nftables"].as_array_mut().expect("a list");
                objects.push(json!({"table": {"family": "inet", "name": "firewalld", "handle": 90}}));
                objects.push(
                    json!({"chain": {"family": "inet", "table": "firewalld", "name": "filter_INPUT", "type": "filter",
                    "hook": "input", "prio": 10, "policy": "drop"}}),
                );
            });
        }),
    ]
}

/// Whether an element stays when one refused NodePort of externalTrafficPolicy Local goes.
fn map_keeps(element: &serde_json::Value) -> bool {
    !element.to_string().contains("30082") || element.to_string().contains("goto")
}

fn of_the_rest() -> Vec<Case> {
    vec![
        case("KPX-A301", "kube-ipvs0: 1 addresses: 10.96.0.1", |f| {
            f.json("ip-addr.json", |links| {
                let link = json!({"ifname": "kube-ipvs0", "addr_info": [{"local": "10.96.0.1"}]});
                links.as_array_mut().expect("a list").push(link);
            });
        }),
        case("KPX-A302", "ipset KUBE-6-CLUSTER-IP: 1 entries", |f| {
            f.write(
                "ipset-save.txt",
                "create KUBE-6-CLUSTER-IP hash:ip,port family inet6\nadd KUBE-6-CLUSTER-IP fd00::1,tcp:443\n",
            );
        }),
        case("KPX-A303", "iptables-nft nat KUBE-NODE-PORT", |f| f.add(V4, "nat", &[":KUBE-NODE-PORT - [0:0]"])),
        case("KPX-A304", "filter FORWARD rule 5: -m set --match-set KUBE-CLUSTER-IP", |f| {
            f.add(V4, "filter", &["-A FORWARD -m set --match-set KUBE-CLUSTER-IP dst,dst -j ACCEPT"]);
        }),
        case("KPX-A305", "ipvs", |f| f.write("proxyMode.txt", "ipvs")),
        case("KPX-A306", "IPVS 10.96.0.1:443/TCP: rr, 1 servers", |f| {
            ipvs(f);
            f.write(
                "ipset-save.txt",
                "create KUBE-CLUSTER-IP hash:ip,port family inet\nadd KUBE-CLUSTER-IP 10.96.0.1,tcp:443\n",
            );
        }),
        case("KPX-A307", "10.96.0.1:443/TCP is not kube-proxy's", ipvs),
        case("KPX-A308", "IPVS 10.96.0.1:443/TCP: connections: 1", |f| {
            ipvs(f);
            f.write("proc-net-ip_vs_conn.txt", "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires\nTCP 0AF40102 BE32 0A600001 01BB C0A8320B 192B ESTABLISHED     890\n");
        }),
        case("KPX-A309", "10.96.0.1:443/TCP is on no device", |f| {
            ipvs(f);
            f.write("proxyMode.txt", "ipvs");
            f.write(
                "ipset-save.txt",
                "create KUBE-CLUSTER-IP hash:ip,port family inet\nadd KUBE-CLUSTER-IP 10.96.0.1,tcp:443\n",
            );
        }),
        there("KPX-A401", "IPv6: no rule of anybody else", |f| {
            for file in [V4, V6] {
                f.add(file, "nat", &["-A POSTROUTING -o eth0 -j MASQUERADE"]);
            }
        }),
        Case {
            calm: |f| {
                for file in [V4, V6] {
                    f.write(file, "# Generated by iptables-save v1.8.9 (nf_tables) on x\n*nat\n:POSTROUTING ACCEPT [0:0]\nCOMMIT\n");
                }
            },
            ..nft("KPX-A402", "IPv4: no nat chain", |_| ())
        },
        case("KPX-A403", "95 of 100 entries (95 %)", |f| {
            f.without("sysctl.txt", "net.netfilter.nf_conntrack_count");
            f.without("sysctl.txt", "net.netfilter.nf_conntrack_max");
            let more = "net.netfilter.nf_conntrack_count = 95\nnet.netfilter.nf_conntrack_max = 100\n";
            f.write("sysctl.txt", &(f.read("sysctl.txt") + more));
        }),
        Case {
            calm: |f| {
                f.replace("sysctl.txt", "nf_conntrack_tcp_be_liberal = 0", "nf_conntrack_tcp_be_liberal = 1");
            },
            ..nft("KPX-A404", "nf_conntrack_tcp_be_liberal: 0", |_| ())
        },
        case("KPX-A405", "conntrack statistics early_drop: 3 since boot, on 2 processors", |f| {
            f.write("conntrack-S.txt", "cpu=0 found=1 drop=0 early_drop=1\ncpu=1 found=1 drop=0 early_drop=2\n");
        }),
        case("KPX-A406", "100 buckets for 1000 entries: 10 to a bucket when full", |f| {
            limits(f, 1000, 100);
        }),
        case("KPX-A407", "kube-system/kube-dns:dns: 10.244.1.2:5353 to 10.244.9.9:53, which is in no list", |f| {
            f.write("nf_conntrack.txt", &flow("10.244.9.9"));
        }),
        case("KPX-A408", "1 entries of connection tracking: TCP 0, UDP 1, SCTP 0", |f| {
            f.write("nf_conntrack.txt", &flow("10.244.1.12"));
        }),
        there("KPX-A409", "nfacct ct_state_invalid_dropped_pkts: 1 packets since boot", |f| {
            f.without("nfacct-list.txt", "ct_state_invalid");
        }),
        case("KPX-A501", "cgroup_sock_addr program 7: cil_sock4_conne", |f| {
            program(f, "cgroup_sock_addr", "cil_sock4_conne");
        }),
        case("KPX-A503", "process 9 (kube-proxy): runs beside sched_cls program 7 (cali_tc_preambl)", |f| {
            program(f, "sched_cls", "cali_tc_preambl");
        }),
        case("KPX-A618", "NodePort 10.244.1.1:30080/TCP: 1 entries", |f| {
            let flow = |to: &str| {
                format!(
                    "ipv4     2 tcp      6 86400 ESTABLISHED src=192.168.50.12 dst={to} sport=40001 dport=30080 src=10.244.1.13 dst=192.168.50.12 sport=8080 dport=40001 [ASSURED] mark=0 zone=0 use=2\n"
                )
            };
            f.write("nf_conntrack.txt", &(flow("192.168.50.11") + &flow("10.244.1.1")));
        }),
        case("KPX-A502", "sched_cls program 7: cil_from_netdev", |f| program(f, "sched_cls", "cil_from_netdev")),
        case("KPX-A601", "no kube-proxy runs", |f| {
            f.remove("healthz.txt");
            f.listeners(&[]);
            f.write("processes.json", "[]");
        }),
        case("KPX-A602", "HTTP/1.1 503", |f| f.replace("healthz.txt", "200 OK", "503 Service Unavailable")),
        case("KPX-A603", "port 10256: nginx (process 9)", |f| f.listeners(&[(10256, "nginx"), (30722, "kube-proxy")])),
        case("KPX-A604", "healthCheckNodePort 30722: nobody listens", |f| f.listeners(&[(10256, "kube-proxy")])),
        case("KPX-A605", "kube-proxy.yaml:3", |f| {
            f.json("setup.json", |setup| {
                setup["manifests"] = json!([{"file": "/etc/kubernetes/manifests/kube-proxy.yaml", "line": 3, "text": "name: kube-proxy"}]);
            });
        }),
        case("KPX-A606", "kubelet.conf:6: server: https://10.96.0.1:443", |f| {
            f.json("setup.json", |setup| {
                setup["api_servers"] = json!([
                    {"file": "/etc/kubernetes/kubelet.conf", "line": 6, "text": "server: https://10.96.0.1:443"},
                    {"file": "/etc/kubernetes/other.conf", "line": 6, "text": "server: https://192.0.2.7:6443"},
                ]);
            });
        }),
        Case {
            calm: |f| {
                f.json("setup.json", |setup| {
                    let line = |text: &str| json!({"file": "/etc/sysctl.d/90.conf", "line": 1, "text": text});
                    setup["sysctls"] = json!([
                        line("net.netfilter.nf_conntrack_tcp_timeout_established = 86400"),
                        line("net/netfilter/nf_conntrack_tcp_timeout_close_wait=3600"),
                    ]);
                });
            },
            ..there("KPX-A607", "nf_conntrack_tcp_timeout_established: 86400 now; no file", |_| ())
        },
        case("KPX-A608", "no KUBE-FIREWALL drops", |f| f.without(V4, "KUBE-FIREWALL")),
        there("KPX-A609", "route_localnet: 1", |f| {
            f.replace("sysctl.txt", "all.route_localnet = 1", "all.route_localnet = 0");
        }),
        there("KPX-A610", "1 packets since boot", |f| f.without("nfacct-list.txt", "localhost_nps")),
        case("KPX-A611", "names no IPv6 network", |f| {
            f.replace("configz.json", "\"nodePortAddresses\":null", "\"nodePortAddresses\":[\"192.168.50.0/24\"]");
        }),
        case("KPX-A612", "kube-proxy v1.36, kubelet v1.34", |f| {
            f.json("nodes.json", |nodes| {
                for node in nodes["items"].as_array_mut().expect("a list") {
                    node["status"]["nodeInfo"]["kubeletVersion"] = json!("v1.34.1");
                }
            });
        }),
        case("KPX-A613", "mode: \"\"", |f| f.replace("configz.json", "\"mode\":\"iptables\"", "\"mode\":\"\"")),
        case("KPX-A614", "nginx listens on the NodePort of ", |f| {
            f.listeners(&[(10256, "kube-proxy"), (30722, "kube-proxy"), (30099, "nginx")]);
        }),
        case("KPX-A616", "iptables_restore_failures_total: 4 since", |f| {
            f.write(
                "metrics.txt",
                "kubeproxy_sync_proxy_rules_iptables_restore_failures_total{ip_family=\"IPv4\"} 4\n",
            );
        }),
        case("KPX-A617", "kubeproxy_proxy_healthz_total: 400 answers", |f| {
            f.write(
                "metrics.txt",
                "kubeproxy_proxy_healthz_total{code=\"200\"} 399\nkubeproxy_proxy_healthz_total{code=\"503\"} 1\n",
            );
        }),
        there("KPX-A615", "shop/session:http", |f| f.write("proxyMode.txt", "nftables")),
    ]
}

/// One virtual service with one server, as the kernel tells it; nothing of kube-proxy around it.
fn ipvs(folder: &Folder) {
    folder.write_bytes("netlink-ipvs.bin", &super::netlink::one_service());
}

/// The list of clients of one endpoint of the Service with affinity.
fn affinity_list(folder: &Folder) -> String {
    let rules = folder.read(V4);
    let rule = rules.lines().find(|line| line.contains("shop/session:http") && line.contains("--rcheck"));
    let rule = rule.expect("it remembers clients");
    rule.rsplit(' ').next().expect("a target").to_owned()
}

/// A flow of DNS to a backend, as /proc has it.
fn flow(backend: &str) -> String {
    format!(
        "ipv4     2 udp      17 25 src=10.244.1.2 dst=10.96.0.10 sport=5353 dport=53 src={backend} dst=10.244.1.2 sport=53 dport=5353 mark=0 zone=0 use=2\n"
    )
}

fn limits(folder: &Folder, max: u64, buckets: u64) {
    let text = folder.read("sysctl.txt");
    let kept: String = text
        .lines()
        .filter(|line| !line.contains("nf_conntrack_max") && !line.contains("nf_conntrack_buckets"))
        .flat_map(|line| [line, "\n"])
        .collect();
    let own = format!("net.netfilter.nf_conntrack_max = {max}\nnet.netfilter.nf_conntrack_buckets = {buckets}\n");
    folder.write("sysctl.txt", &(kept + &own));
}

fn program(folder: &Folder, kind: &str, name: &str) {
    folder.json("bpf.json", |bpf| {
        bpf["programs"] = json!([{"id": 7, "type": kind, "name": name, "tag": "0", "map_ids": []}]);
    });
}

fn against_the_api() -> Vec<Case> {
    vec![
        case("KPX-A701", "kube-system/kube-dns:dns, ClusterIP 10.96.0.10:53/UDP", |f| {
            f.json("services.json", |list| {
                list["items"].as_array_mut().expect("a list").retain(|s| s["metadata"]["name"] != "kube-dns");
            });
        }),
        case("KPX-A702", "default/kubernetes:https, ClusterIP 10.96.0.1:443/TCP", |f| {
            f.without(V4, "-A KUBE-SERVICES -d 10.96.0.1/32");
        }),
        case("KPX-A703", "backends", |f| {
            f.replace(V4, "-j DNAT --to-destination 10.244.1.12:53", "-j DNAT --to-destination 10.244.1.99:53");
        }),
        case("KPX-A704", "no_backends: reject in the API, drop in the rules", |f| {
            f.replace(
                V4,
                "\"edge/lb-empty:https has no endpoints\" -m tcp --dport 443 -j REJECT --reject-with icmp-port-unreachable",
                "\"edge/lb-empty:https has no local endpoints\" -m tcp --dport 443 -j DROP",
            );
        }),
        case("KPX-A705", "affinity_seconds", |f| f.replace_all(V4, "--seconds 10800", "--seconds 60")),
        case("KPX-A706", "local_detector of IPv4", |f| f.replace_all(V4, "10.244.0.0/16", "10.0.0.0/8")),
        case("KPX-A707", "kube-proxy's configuration is not known", |f| f.remove("configz.json")),
    ]
}

#[test]
fn every_check_fires_where_there_is_trouble_and_is_silent_where_there_is_none() {
    let mut wrong = Vec::new();
    for Case { id, trouble, says, calm, nftables } in cases() {
        let folder = || if nftables { Folder::nftables("v1.36") } else { Folder::iptables() };
        let troubled = folder();
        trouble(&troubled);
        let loud = said(&troubled.judged(), id);
        if !loud.starts_with("found") || !loud.contains(says) {
            wrong.push(format!("{id} should say {says:?}:\n{loud}"));
        }
        let calmed = folder();
        calm(&calmed);
        let quiet = said(&calmed.judged(), id);
        if quiet.starts_with("found") {
            wrong.push(format!("{id} should be silent:\n{quiet}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_check_is_without_a_case() {
    let tried: BTreeSet<_> = cases().iter().map(|case| case.id).collect();
    let untried: Vec<_> = all().map(|check| check.id).filter(|id| !tried.contains(id)).collect();
    assert!(untried.is_empty(), "{untried:?}");
}

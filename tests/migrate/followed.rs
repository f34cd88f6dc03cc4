//! The whole way with `kpx agent` beside it and Services that change meanwhile: kube-proxy's duties are done by one of the two at any
//! time, and what is new is served at once.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::process::Child;
use std::time::Duration;

use kpx::capture::command;
use kpx::lab::{Traffic, TrafficOptions, TrafficReport};
use serde_json::{Value, json};
use sha2::Digest as _;

use super::rig::{KPX, Run, tool};
use super::stage::Stage;
use crate::agent::api::Api;
use crate::agent::rig::ask;
use crate::support::privileged;

/// A Service that is not in the recording, and a backend that listens in the lab.
const LATE: &str = "10.96.201.7";
const BACKEND: (&str, u16) = ("10.244.2.41", 8080);

fn late() -> [Value; 2] {
    let service = json!({
        "kind": "Service", "apiVersion": "v1",
        "metadata": { "namespace": "default", "name": "late", "uid": "uid-late" },
        "spec": {
            "type": "ClusterIP", "clusterIP": LATE, "clusterIPs": [LATE], "ipFamilies": ["IPv4"],
            "ports": [{ "name": "p", "port": 80, "protocol": "TCP" }],
        },
    });
    let slice = json!({
        "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "addressType": "IPv4",
        "metadata": {
            "namespace": "default", "name": "late-1", "uid": "uid-late-1", "labels": { "kubernetes.io/service-name": "late" },
        },
        "ports": [{ "name": "p", "port": BACKEND.1, "protocol": "TCP" }],
        "endpoints": [{
            "addresses": [BACKEND.0], "nodeName": "node-b", "conditions": { "ready": true, "serving": true, "terminating": false },
        }],
    });
    [service, slice]
}

/// kube-proxy's name for a chain: of the Service port, and for an endpoint's chain with that behind it.
fn hash(of: &str) -> String {
    base32::encode(base32::Alphabet::Rfc4648 { padding: false }, &sha2::Sha256::digest(of))[..16].to_owned()
}

/// What a kube-proxy that starts writes for the Service that is new.
fn sync_of_late() -> String {
    let (svc, sep) = (hash("default/late:ptcp"), hash(&format!("default/late:ptcp{}:{}", BACKEND.0, BACKEND.1)));
    let to = format!("-d {LATE}/32 -p tcp -m comment --comment \"default/late:p cluster IP\" -m tcp --dport 80");
    format!(
        "iptables-nft-restore --noflush <<'END'\n*nat\n:KUBE-SVC-{svc} - [0:0]\n:KUBE-SEP-{sep} - [0:0]\n\
         -I KUBE-SERVICES 1 {to} -j KUBE-SVC-{svc}\n\
         -A KUBE-SVC-{svc} ! -s 10.244.0.0/16 {to} -j KUBE-MARK-MASQ\n\
         -A KUBE-SVC-{svc} -m comment --comment \"default/late:p -> {ip}:{port}\" -j KUBE-SEP-{sep}\n\
         -A KUBE-SEP-{sep} -s {ip}/32 -m comment --comment \"default/late:p\" -j KUBE-MARK-MASQ\n\
         -A KUBE-SEP-{sep} -p tcp -m comment --comment \"default/late:p\" -m tcp -j DNAT --to-destination {ip}:{port}\n\
         COMMIT\nEND\n",
        ip = BACKEND.0,
        port = BACKEND.1,
    )
}

/// A running agent; killed with this value.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Stage {
    fn agent(&self) -> Agent {
        let at = self.options.iter().position(|option| option == "--netns").unwrap();
        let mut words = self.options.clone();
        words.drain(at..at + 2);
        let line = format!(
            "exec {KPX} -v {} agent --interval 500ms --kube-proxy-flag cluster-cidr=10.244.0.0/16,fd00:10:244::/48 2>>{}",
            words.join(" "),
            self.at("log").display()
        );
        Agent(self.inside(|| command::start("sh", ["-c", &line]).unwrap()))
    }

    fn go(&self, more: &[&str]) -> Run {
        self.kpx(&[&["migrate", "apply", "--yes", "--probe-timeout", "300ms"][..], more].concat())
    }

    /// Whether a connect from a socket of the node, in its cgroup, is answered.
    fn connects(&self, to: &str) -> bool {
        let cgroup = self.rig.option("--cgroup");
        let line = format!(
            "echo $$ >{cgroup}/clients/cgroup.procs; exec perl -MIO::Socket::INET \
             -e 'exit(!IO::Socket::INET->new(PeerAddr => \"{to}\", Timeout => 1))'"
        );
        self.inside(|| command::run("sh", ["-c", &line], None).unwrap().status.success())
    }

    /// The same from a pod, whose packets the node forwards.
    fn connects_from_pod(&self, to: &str) -> bool {
        let netns = self.rig.lab.names().client();
        let code = format!("exit(!IO::Socket::INET->new(PeerAddr => \"{to}\", Timeout => 1))");
        let perl = ["netns", "exec", &netns, "perl", "-MIO::Socket::INET", "-e", &code];
        command::run("ip", perl, None).unwrap().status.success()
    }

    /// Flows that stay, and others that come and go.
    fn traffic(&mut self, flows: u32) -> Traffic {
        let options =
            TrafficOptions { flows, timed_per_second: 5, connects_per_second: 15, ..TrafficOptions::default() };
        Traffic::start(&mut self.rig.lab, &options).unwrap()
    }

    /// Sets a time-out of the node's conntrack, in seconds.
    fn timeout(&self, name: &str, seconds: u32) {
        let set = format!("net.netfilter.nf_conntrack_{name}={seconds}");
        tool("ip", &["netns", "exec", &self.rig.option("--netns"), "sysctl", "-qw", &set]);
    }

    fn udp_timeouts(&self, [first, answered]: [u32; 2]) {
        self.timeout("udp_timeout", first);
        self.timeout("udp_timeout_stream", answered);
    }

    /// Rules of nat that name the late Service, as iptables prints them.
    fn late_rules(&self) -> Vec<String> {
        let netns = self.rig.option("--netns");
        let saved = tool("ip", &["netns", "exec", &netns, "iptables-nft-save", "-t", "nat"]);
        let mut lines: Vec<String> =
            saved.lines().filter(|l| l.contains("default/late:p")).map(str::to_owned).collect();
        lines.sort();
        lines
    }
}

fn clean(report: &TrafficReport) {
    assert_eq!((report.flows_lost, report.connects_failed), (0, 0), "{:#?}", report.troubles);
    assert!(report.clean() && report.flows_total > 40, "{report:#?}");
}

/// How long conntrack keeps a UDP flow that is silent, in seconds: as the kernel has it, and so that nobody has to wait.
const UDP: [u32; 2] = [30, 120];
const QUICK: [u32; 2] = [1, 1];

/// A node in phase sockets, with its kube-proxy and traffic that began before.
fn begun(name: &str) -> (Stage, Api, Traffic) {
    let mut stage = Stage::up(name);
    // What has ended is forgotten before the test comes to wait for it.
    stage.timeout("tcp_timeout_time_wait", 2);
    let api = stage.api(true);
    stage.start_proxy("by-hand");
    let traffic = stage.traffic(40);
    stage.go(&["--until", "sockets"]).exits(0);
    (stage, api, traffic)
}

#[test]
fn the_agent_takes_kube_proxys_duties_over_and_gives_them_back() {
    if !privileged() {
        return;
    }
    let (mut stage, api, traffic) = begun("fol-agent");
    let _agent = stage.agent();
    stage.until("the agent knows everything", || {
        fs_err::read_to_string(stage.at("log")).unwrap_or_default().contains("the maps have everything")
    });
    // While there is a kube-proxy, its ports are its own, and what is attached is what the migration has attached.
    assert_eq!((stage.answers("/proxyMode").as_str(), stage.rig.devices()), ("iptables", 0));
    stage.go(&["--until", "stop"]).exits(0);
    assert_eq!(stage.proxies(), [] as [u32; 0]);
    stage.until("the agent answers", || stage.answers("/healthz").contains("\"conditions\""));
    // A load balancer goes on sending traffic here.
    assert_eq!(stage.inside(|| ask("127.0.0.1:10256", "/healthz")).map(|(status, ..)| status), Some(200));
    assert_eq!((stage.answers("/proxyMode").as_str(), stage.rig.devices()), ("ebpf", 0));
    let netns = stage.rig.option("--netns");
    let close_wait = "net.netfilter.nf_conntrack_tcp_timeout_close_wait";
    assert_eq!(tool("ip", &["netns", "exec", &netns, "sysctl", "-n", close_wait]).trim(), "3600");

    // Nobody writes rules any more: what is new is the agent's to serve, and no reason not to go on.
    assert!(!stage.connects(&format!("{LATE}:80")));
    for object in late() {
        api.put(object);
    }
    stage.until("the new Service is served", || stage.connects(&format!("{LATE}:80")));
    assert_eq!(stage.late_rules(), [] as [String; 0]);
    stage.go(&["--until", "packets"]).exits(0);
    stage.until("its packets too", || stage.connects_from_pod(&format!("{LATE}:80")));
    stage.go(&[]).exits(0);
    stage.kpx(&["migrate", "verify", "--probe-timeout", "300ms"]).exits(0);

    // The flows of the rules' time end, and with them what was kept for their sake; nothing of the switch is left to do.
    let state = || stage.kpx(&["migrate", "status", "-o", "json"]).exits(0).json()["state"].clone();
    let tables = || tool("ip", &["netns", "exec", &netns, "nft", "list", "tables"]);
    assert_eq!(state(), "waiting");
    assert!(tables().contains("kpx_"), "{}", tables());
    clean(&traffic.stop().unwrap());
    stage.udp_timeouts(QUICK);
    // An entry has the time that held when its last packet came.
    tool("ip", &["netns", "exec", &netns, "conntrack", "-D", "-p", "udp"]);
    stage.until("nothing is waited for", || {
        stage.go(&[]).exits(0);
        state() == "in-force"
    });
    stage.udp_timeouts(UDP);
    assert!(!tables().contains("kpx_"), "{}", tables());
    stage.kpx(&["migrate", "verify", "--probe-timeout", "300ms"]).exits(0);
    // Flows that end: a rollback waits for datagrams' sockets of the node that know no other translation than the programs'.
    let traffic = stage.traffic(0);

    // kube-proxy writes what it finds when it starts, and gets its ports; the agent stands back and stays so.
    fs_err::write(stage.at("pages/first"), sync_of_late()).unwrap();
    stage.kpx(&["migrate", "rollback"]).exits(0);
    assert_eq!((stage.answers("/proxyMode").as_str(), stage.proxies().len()), ("iptables", 1));
    assert!(!stage.answers("/healthz").contains("\"conditions\""));
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!((stage.rig.pins().len(), stage.rig.devices(), stage.rig.hooks().len()), (0, 0, 0));
    assert!(stage.connects(&format!("{LATE}:80")) && stage.connects_from_pod(&format!("{LATE}:80")));
    let log = fs_err::read_to_string(stage.at("log")).unwrap();
    assert!(log.contains("a rollback has given this node back to kube-proxy's rules"), "{log}");
    assert!(!log.contains("ERROR"), "{log}");
    clean(&traffic.stop().unwrap());
}

//! What still leads to backends that have gone is ended, and nothing else.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Child;
use std::time::Duration;

use kpx::capture::command;

use super::api::{service, slice};
use super::devices::ip;
use super::rig::{Rig, health};
use crate::dataplane::ground::Ground;
use crate::dataplane::server::Server;

/// Puts a UDP flow into the kernel's conntrack, as a rule of kube-proxy would have.
fn insert(port: u16, to: &str, to_port: u16, backend: &str) {
    let line = format!(
        "-I -p udp -t 600 -s 10.2.0.9 -d {to} --sport {port} --dport {to_port} \
         --reply-src {backend} --reply-dst 10.2.0.9 --reply-port-src 53 --reply-port-dst {port}"
    );
    command::output("conntrack", line.split(' '), None).expect("the entry can be made");
}

/// Source ports of the UDP flows in the kernel's conntrack that lead from there.
fn flows() -> Vec<u16> {
    let list = command::output("conntrack", ["-L", "-p", "udp", "-s", "10.2.0.9"], None).expect("conntrack lists");
    let list = String::from_utf8(list).expect("text");
    let port = |line: &str| line.split("sport=").nth(1)?.split(' ').next()?.parse().ok();
    let mut ports: Vec<u16> = list.lines().filter_map(port).collect();
    ports.sort_unstable();
    ports
}

#[test]
fn stale_udp_flows_of_the_kernel_are_ended() {
    Ground::with(|ground| {
        let rig = Rig::new(ground);
        let mut dns = service("dns", "10.96.0.10", 53, "UDP");
        dns["spec"]["type"] = "NodePort".into();
        dns["spec"]["ports"][0]["nodePort"] = 30_053.into();
        rig.api.put(dns);
        rig.api.put(slice("dns", "dns-1", 53, "UDP", &["10.244.0.1", "10.244.0.2"]));
        insert(1000, "10.96.0.10", 53, "10.244.0.9");
        let _agent = rig.start();
        // What was stale when the agent came, is looked for once.
        rig.until("the old flow is ended", || flows().is_empty());
        insert(1001, "10.96.0.10", 53, "10.244.0.1");
        insert(1002, "10.96.0.10", 53, "10.244.0.2");
        insert(1003, "10.2.0.1", 30_053, "10.244.0.2");
        // Other hosts' ports of the same number, and other ports of the same address.
        insert(1004, "198.51.100.7", 30_053, "198.51.100.7");
        insert(1005, "10.96.0.10", 54, "10.244.0.2");
        rig.api.put(slice("dns", "dns-1", 53, "UDP", &["10.244.0.1"]));
        rig.until("the stale flows are ended", || flows() == [1001, 1004, 1005]);
    });
}

#[test]
fn connections_end_with_their_endpoint_and_not_before() {
    Ground::with(|ground| {
        let listener = TcpListener::bind("127.0.0.1:8080").expect("the port is free");
        let rig = Rig::new(ground);
        rig.api.put(service("web", "10.96.0.10", 80, "TCP"));
        rig.api.put(slice("web", "web-1", 8080, "TCP", &["127.0.0.1"]));
        let _agent = rig.start();
        rig.until_healthy();
        let cgroup = ground.paths.cgroup.join("cgroup.procs");
        let connect = |to: &str| {
            let line = format!("echo $$ > {}; exec 3<>/dev/tcp/{to}; exec cat <&3", cgroup.display());
            let client = command::start("bash", ["-c", &line]).expect("bash starts");
            (client, listener.accept().expect("it connects"))
        };
        let (mut by_service, _held) = connect("10.96.0.10/80");
        let (mut direct, _held_too) = connect("127.0.0.1/8080");
        let mut leaving = slice("web", "web-1", 8080, "TCP", &["127.0.0.1"]);
        leaving["endpoints"][0]["conditions"] = serde_json::json!({ "ready": false, "serving": false });
        rig.api.put(leaving);
        rig.until("no backend", || rig.backends().is_empty());
        std::thread::sleep(Duration::from_secs(3));
        assert!(by_service.try_wait().expect("a child").is_none(), "an endpoint that is not ready may finish");
        rig.api.put(slice("web", "web-1", 8080, "TCP", &["127.0.0.2"]));
        rig.until("the connection ends", || by_service.try_wait().expect("a child").is_some());
        assert!(direct.try_wait().expect("a child").is_none(), "nobody has translated this one");
        direct.kill().expect("it can be killed");
        direct.wait().expect("it ends");
    });
}

/// A client in the cgroup that holds all the connections it has made, and the server's ends of them.
struct Held<'a> {
    listener: &'a TcpListener,
    client: Child,
}

impl<'a> Held<'a> {
    fn start(ground: &Ground, listener: &'a TcpListener) -> Self {
        let cgroup = ground.paths.cgroup.join("cgroup.procs");
        let line = format!(
            "echo $$ > {}; ulimit -n 65536; while read; do exec {{n}}<>/dev/tcp/10.96.0.10/80; done; exec sleep infinity",
            cgroup.display()
        );
        Self { listener, client: command::start("bash", ["-c", &line]).expect("bash starts") }
    }

    /// Connects until it gets this backend.
    fn connect(&mut self, backend: &str) -> TcpStream {
        for _ in 0..5000 {
            writeln!(self.client.stdin.as_mut().expect("piped")).expect("bash listens");
            let (stream, _) = self.listener.accept().expect("it connects");
            if stream.local_addr().expect("it is connected").ip().to_string() == backend {
                stream.set_nonblocking(true).expect("it can be");
                return stream;
            }
            // The change may be on its way.
            std::thread::sleep(Duration::from_millis(2));
        }
        panic!("{backend} is never chosen");
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}

/// Whether the client has its end of a connection still: it says nothing, and says goodbye when it is made to.
fn lives(mut stream: &TcpStream) -> bool {
    stream.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

/// A look is made a second after the change that it is made for; what has come meanwhile is judged by what there is then.
#[test]
fn connections_to_endpoints_that_have_just_come_live() {
    Ground::with(|ground| {
        let listener = TcpListener::bind("0.0.0.0:8080").expect("the port is free");
        let rig = Rig::new(ground);
        rig.api.put(service("web", "10.96.0.10", 80, "TCP"));
        let leaving: Vec<String> = (1..10).map(|n| format!("127.0.0.{n}")).collect();
        let leaving: Vec<&str> = leaving.iter().map(String::as_str).collect();
        rig.api.put(slice("web", "web-1", 8080, "TCP", &leaving));
        let _agent = rig.start();
        rig.until_healthy();
        let mut held = Held::start(ground, &listener);
        let (mut comers, mut lasting) = (Vec::new(), Vec::new());
        for n in 1..leaving.len() {
            let leaves = held.connect(leaving[n - 1]);
            // One goes, which is what a look is made for, and at once another comes.
            rig.api.put(slice("web", "web-1", 8080, "TCP", &leaving[n..]));
            let comer = format!("127.0.1.{n}");
            comers.push(comer.clone());
            let all: Vec<&str> = comers.iter().map(String::as_str).collect();
            rig.api.put(slice("web", "web-2", 8080, "TCP", &all));
            lasting.push((comer.clone(), held.connect(&comer)));
            rig.until("the connection ends", || !lives(&leaves));
        }
        for (comer, stream) in &lasting {
            assert!(lives(stream), "{comer}: {}", rig.log());
        }
    });
}

/// Without pins nobody knows which sockets the hooks have connected: the look is made again when they are there.
#[test]
fn a_look_that_fails_is_made_again() {
    Ground::with(|ground| {
        let listener = TcpListener::bind("0.0.0.0:8080").expect("the port is free");
        // It looks after pins when it is woken, and not before.
        let rig = Rig::new(ground).looking_every("1h");
        rig.api.put(service("web", "10.96.0.10", 80, "TCP"));
        rig.api.put(slice("web", "web-1", 8080, "TCP", &["127.0.0.1", "127.0.0.2"]));
        let _agent = rig.start();
        rig.until_healthy();
        let mut held = Held::start(ground, &listener);
        let leaves = held.connect("127.0.0.2");
        let peers = ground.paths.pins.join("maps/kpx_peers");
        fs_err::remove_file(&peers).expect("removed");
        // Something in its place, so that the agent does not pin it again at once.
        fs_err::create_dir(&peers).expect("created");
        rig.api.put(slice("web", "web-1", 8080, "TCP", &["127.0.0.1"]));
        let condition = || health("/healthz").map(|(_, body)| body["conditions"]["Cleanup"].is_string());
        rig.until("it is told", || condition() == Some(true));
        assert!(lives(&leaves));
        fs_err::remove_dir(&peers).expect("removed");
        ip("addr add 10.2.0.77/24 dev kpx0");
        rig.until("the pin is back", || peers.exists());
        rig.until("the connection ends", || !lives(&leaves));
        rig.until("it is over", || condition() == Some(false));
    });
}

#[test]
fn sockets_whose_backend_has_gone_are_closed_and_no_others() {
    Ground::with(|ground| {
        let (_a, _b) = (Server::start("a", "127.0.0.1:8080"), Server::start("b", "127.0.0.2:8080"));
        let rig = Rig::new(ground);
        rig.api.put(service("dns", "10.96.0.10", 53, "UDP"));
        rig.api.put(slice("dns", "dns-1", 8080, "UDP", &["127.0.0.1"]));
        let _agent = rig.start();
        rig.until_healthy();
        let mut client = ground.agent();
        for (name, to) in [("service", "10.96.0.10:53"), ("direct", "127.0.0.1:8080")] {
            client.ask(format!("udp {name} 0.0.0.0:0"));
            assert_eq!(client.ask(format!("connect {name} {to}")), "ok");
            assert!(client.ask(format!("exchange {name}")).contains(" a "));
        }
        rig.api.put(slice("dns", "dns-1", 8080, "UDP", &["127.0.0.2"]));
        rig.until("the socket is closed", || rig.log().contains("sockets closed whose backend has gone"));
        let told = client.ask("exchange service");
        assert!(
            told == format!("err {}", libc::EDESTADDRREQ) || told == format!("err {}", libc::ECONNABORTED),
            "{told}"
        );
        assert!(client.ask("exchange direct").contains(" a "), "nobody has translated this one");
        client.ask("close service");
        client.ask("udp service 0.0.0.0:0");
        client.ask("connect service 10.96.0.10:53");
        assert!(client.ask("exchange service").contains(" b "));
    });
}

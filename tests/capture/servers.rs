//! kube-proxy's end points and the API server, played by a thread inside the namespace.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use kpx::capture::{Item, command};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::network::Netns;
use super::{kpx, listing, open, read, scratch};
use crate::support::{privileged, recordings};

/// Answers GET requests inside a namespace until the process ends. `answer` gives the whole answer to a path.
fn serve(netns: &Netns, at: &str, answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> SocketAddr {
    let listener = netns.inside(|| TcpListener::bind(at).expect("the address is free"));
    let address = listener.local_addr().expect("it is bound");
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || {
                let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
                let request = lines.next().unwrap_or_default();
                if lines.any(|line| line.is_empty()) {
                    let path = request.split(' ').nth(1).unwrap_or_default();
                    // A client that has gone has its reasons.
                    let _ = (&stream).write_all(&answer(path));
                }
            });
        }
    });
    address
}

fn ok(body: &[u8]) -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n";
    [format!("{head}Content-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

fn status(code: u16, reason: &str) -> Vec<u8> {
    let body = format!(
        r#"{{"kind":"Status","apiVersion":"v1","metadata":{{}},"status":"Failure","message":"{reason} said the server","reason":"{reason}","code":{code}}}"#
    );
    let head = format!("HTTP/1.1 {code} {reason}\r\nContent-Type: application/json\r\nConnection: close\r\n");
    format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn in_chunks(body: &[u8]) -> Vec<u8> {
    let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for chunk in body.chunks(1000) {
        answer.extend(format!("{:x}\r\n", chunk.len()).bytes());
        answer.extend(chunk);
        answer.extend(b"\r\n");
    }
    answer.extend(b"0\r\n\r\n");
    answer
}

#[test]
fn kube_proxy_tells_about_itself() {
    let (true, Some(root)) = (privileged(), recordings()) else { return };
    let recorded = root.join("small/iptables-nft/running");
    let file = |name: &str| fs_err::read(recorded.join(name)).expect("the recording is there");
    let netns = Netns::with_loopback();
    let (mode, configz, metrics) = (file("proxyMode.txt"), file("configz.json"), file("metrics.txt"));
    // kube-proxy listens on the IPv6 loopback address of a node whose first family is IPv6.
    serve(&netns, "[::1]:10249", move |path| match path {
        "/proxyMode" => ok(&mode),
        "/configz" => ok(&configz),
        "/metrics" => in_chunks(&metrics),
        _ => status(404, "NotFound"),
    });
    let unhealthy = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 18\r\n\r\n{\"healthy\": false}".to_vec();
    let answer = unhealthy.clone();
    serve(&netns, "0.0.0.0:10256", move |path| match path {
        "/healthz" => answer.clone(),
        _ => status(404, "NotFound"),
    });
    let folder = scratch();
    let target = folder.path().join("node");
    kpx().args(["--netns", &netns.name, "snapshot"]).arg(&target).assert().success();
    let node = open(&target);
    assert_eq!(read(&node, Item::ProxyMode), Ok(file("proxyMode.txt")));
    assert_eq!(read(&node, Item::Configz), Ok(file("configz.json")));
    assert_eq!(read(&node, Item::Metrics), Ok(file("metrics.txt")));
    assert_eq!(read(&node, Item::Healthz), Ok(unhealthy));
    assert_eq!(read(&node, Item::Livez), Err("http://127.0.0.1:10256/livez answered with status 404".to_owned()));
    assert_eq!(node.node_name(), "node-a", "kube-proxy's own configuration names the node");
}

#[test]
fn a_kube_proxy_that_does_not_answer_is_no_reason_to_hang() {
    if !privileged() {
        return;
    }
    let netns = Netns::with_loopback();
    let _silent = netns.inside(|| TcpListener::bind("127.0.0.1:10256").expect("the address is free"));
    serve(&netns, "127.0.0.1:10249", |_| b"SSH-2.0-OpenSSH_9.2\r\n".to_vec());
    let folder = scratch();
    let target = folder.path().join("node");
    let output = kpx().args(["--netns", &netns.name, "snapshot"]).arg(&target).output().expect("kpx runs");
    assert_eq!(output.status.code(), Some(2), "something is there and cannot be read: {output:?}");
    let node = open(&target);
    let reason = |item| read(&node, item).expect_err("absent");
    assert!(reason(Item::Metrics).contains("not HTTP"), "{}", reason(Item::Metrics));
    assert!(reason(Item::Healthz).starts_with("cannot capture healthz from http://127.0.0.1:10256/healthz"));
}

#[test]
fn ctrl_c_ends_it_and_leaves_nothing() {
    if !privileged() {
        return;
    }
    let netns = Netns::with_loopback();
    // Whoever asks this kube-proxy waits: time enough for a signal.
    let _silent = ["127.0.0.1:10249", "127.0.0.1:10256"]
        .map(|at| netns.inside(|| TcpListener::bind(at).expect("the address is free")));
    let folder = scratch();
    let target = folder.path().join("node.tar.zst");
    let arguments = ["--netns", &netns.name, "snapshot", target.to_str().expect("UTF-8")];
    let mut kpx = command::start(env!("CARGO_BIN_EXE_kpx"), arguments).expect("kpx starts");
    while listing(folder.path()).is_empty() {
        assert!(kpx.try_wait().expect("it can be waited for").is_none(), "it ended by itself");
        std::thread::sleep(Duration::from_millis(10));
    }
    kill_process(Pid::from_child(&kpx), Signal::INT).expect("it can be signalled");
    let status = kpx.wait().expect("it ends");
    assert_eq!(status.code(), Some(130));
    assert_eq!(listing(folder.path()), [] as [&str; 0]);
}

/// kpx where the system has no certificates of authorities, as in a small container image: for a server without TLS none
/// are needed.
fn kpx_without_authorities() -> assert_cmd::Command {
    let mut kpx = kpx();
    kpx.env("SSL_CERT_FILE", "/dev/null");
    kpx
}

/// A kubeconfig for a server without TLS.
fn kubeconfig(folder: &std::path::Path, address: SocketAddr) -> std::path::PathBuf {
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
         clusters:\n- name: test\n  cluster:\n    server: http://{address}\n\
         users:\n- name: test\n  user: {{}}\n\
         contexts:\n- name: test\n  context:\n    cluster: test\n    user: test\n"
    );
    let path = folder.join("kubeconfig");
    fs_err::write(&path, text).expect("written");
    path
}

#[test]
fn objects_are_what_the_api_server_answers() {
    let (true, Some(root)) = (privileged(), recordings()) else { return };
    let recorded = root.join("small/replay");
    let file = move |name: &str| fs_err::read(recorded.join(name)).expect("the recording is there");
    let netns = Netns::with_loopback();
    let lists = [
        ("/api/v1/services", file("list-services.json")),
        ("/apis/discovery.k8s.io/v1/endpointslices", file("list-endpointslices.json")),
        ("/api/v1/nodes", file("list-nodes.json")),
    ];
    let answers = lists.clone();
    let address = serve(&netns, "127.0.0.1:0", move |path| {
        let path = path.trim_end_matches('?').trim_end_matches('&');
        let list = answers.iter().find(|(at, _)| *at == path);
        list.map_or_else(|| status(404, "NotFound"), |(_, body)| ok(body))
    });
    let folder = scratch();
    let target = folder.path().join("node.tar.zst");
    kpx_without_authorities()
        .args(["--netns", &netns.name, "--kubeconfig"])
        .arg(kubeconfig(folder.path(), address))
        .arg("snapshot")
        .arg(&target)
        .assert()
        .success();
    let node = open(&target);
    for (item, (_, list)) in [Item::Services, Item::EndpointSlices, Item::Nodes].into_iter().zip(lists) {
        assert_eq!(read(&node, item), Ok(list), "{item}");
    }
    let reason = read(&node, Item::ProxyConfigMap).expect_err("the server has none");
    assert!(reason.ends_with("has no /api/v1/namespaces/kube-system/configmaps/kube-proxy"), "{reason}");
}

#[test]
fn refusals_of_the_api_server_are_recorded() {
    if !privileged() {
        return;
    }
    let netns = Netns::with_loopback();
    let address = serve(&netns, "127.0.0.1:0", |_| status(403, "Forbidden"));
    let folder = scratch();
    let target = folder.path().join("node");
    let output = kpx_without_authorities()
        .args(["--netns", &netns.name, "-o", "json", "--kubeconfig"])
        .arg(kubeconfig(folder.path(), address))
        .arg("snapshot")
        .arg(&target)
        .output()
        .expect("kpx runs");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let items = report["items"].as_array().expect("a list");
    let services = items.iter().find(|e| e["item"] == "services").expect("an entry");
    assert_eq!(services["failed"], true);
    assert!(services["absent"].as_str().expect("a reason").contains("Forbidden said the server"), "{services}");
    assert_eq!(services["source"], "GET /api/v1/services");
}

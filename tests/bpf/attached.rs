//! `inspect devices` and `inspect cgroups`, against bpftool.

use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use kpx::capture::{cgroup, command};
use serde_json::{Value, json};

use super::raw::{self, Bpffs};
use crate::cli::environment::{finish, kpx};
use crate::cli::schema;
use crate::dataplane::features::has_function;
use crate::support;

static NUMBER: AtomicU32 = AtomicU32::new(0);

fn unique(what: &str) -> String {
    format!("kpx-{what}-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

fn ip(words: &[&str]) {
    command::output("ip", words.iter().copied(), None).expect("ip runs");
}

/// A network namespace; gone with this value.
struct Netns(String);

impl Netns {
    fn new() -> Self {
        let name = unique("dev");
        ip(&["netns", "add", &name]);
        Self(name)
    }

    fn run(&self, words: &[&str]) -> Vec<u8> {
        let all = ["netns", "exec", &self.0].into_iter().chain(words.iter().copied());
        command::output("ip", all, None).expect("it runs in the namespace")
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = command::output("ip", ["netns", "del", &self.0], None);
    }
}

fn listed(words: &[&str]) -> Vec<Value> {
    let run = finish(kpx().arg("inspect").args(words).args(["-o", "json"]));
    assert_eq!(run.code, 0, "{}", run.err);
    let document: Value = serde_json::from_str(&run.out).expect("JSON");
    schema::conforms(&document);
    document["items"].as_array().expect("items").clone()
}

/// Interface, hook and program id of everything that is attached.
fn brief(items: &[Value]) -> Vec<Value> {
    items.iter().map(|item| json!([item["device"], item["hook"], item["program_id"]])).collect()
}

#[test]
fn programs_on_interfaces_are_what_bpftool_says() {
    if !support::privileged() {
        return;
    }
    let (netns, bpffs) = (Netns::new(), Bpffs::new());
    netns.run(&["ip", "link", "add", "d0", "type", "veth", "peer", "name", "d1"]);
    let (filter, xdp) =
        (raw::program(raw::SCHED_CLS, "cil_from_test", 0, 0), raw::program(raw::XDP, "other_xdp", 2, 0));
    let [filter_pin, xdp_pin] = [(&filter, "filter"), (&xdp, "xdp")].map(|(program, name)| {
        let path = bpffs.path(name);
        raw::pin(program, &path);
        path.to_str().expect("UTF-8").to_owned()
    });
    netns.run(&["tc", "qdisc", "add", "dev", "d0", "clsact"]);
    for priority in ["7", "3"] {
        let words = ["tc", "filter", "add", "dev", "d0", "ingress", "prio", priority, "bpf", "da", "object-pinned"];
        netns.run(&words.iter().copied().chain([filter_pin.as_str()]).collect::<Vec<_>>());
    }
    netns.run(&["ip", "link", "set", "dev", "d1", "xdpgeneric", "pinned", &xdp_pin]);

    let mut ours = listed(&["devices", "--netns", &netns.0]);
    ours.sort_by_key(|item| item["device"].to_string());
    let ids = |id: &Value| id.as_u64().expect("a number");
    assert_eq!(ours.len(), 3, "{ours:?}");
    assert_eq!(
        (&ours[0]["device"], &ours[0]["hook"], &ours[0]["owner"]),
        (&json!("d0"), &json!("tc_ingress"), &json!("cilium"))
    );
    assert_eq!(
        (&ours[1]["order"], &ours[2]["hook"], &ours[2]["owner"]),
        (&json!(2), &json!("xdp_generic"), &json!("other"))
    );
    if command::output("bpftool", ["version"], None).is_err() {
        println!("skipped: no bpftool");
        return;
    }
    let theirs: Value = serde_json::from_slice(&netns.run(&["bpftool", "-j", "net", "show"])).expect("JSON");
    let (tc, generic) = (&theirs[0]["tc"], &theirs[0]["xdp"]);
    assert_eq!(tc.as_array().map(Vec::len), Some(2), "{theirs}");
    assert_eq!(ids(&tc[0]["id"]), ids(&ours[0]["program_id"]));
    assert_eq!(generic[0]["ifindex"], ours[2]["interface"]);
}

#[test]
fn links_to_interfaces_have_their_place() {
    if !support::privileged() {
        return;
    }
    if !has_function("tcx_link_attach") {
        println!("skipped: this kernel has no tcx (6.6)");
        return;
    }
    // The program and its link belong to this process; the interface to a namespace that only the binary enters.
    let netns = Netns::new();
    netns.run(&["ip", "link", "add", "t0", "index", "4242", "type", "veth", "peer", "name", "t1"]);
    let program = raw::program(raw::SCHED_CLS, "kpxtest_tcx", 0, 0);
    let name = netns.0.clone();
    let link = std::thread::spawn(move || {
        kpx::capture::netns::enter(&name).expect("root can enter");
        raw::link(&program, 4242, 46)
    });
    let link = link.join().expect("it attaches");
    let on = listed(&["devices", "t0", "--netns", &netns.0]);
    assert_eq!(brief(&on), [json!(["t0", "tcx_ingress", on[0]["program_id"]])]);
    let place = |words: &[&str]| {
        let all = listed(words);
        let found = all.iter().find(|link| link["program_id"] == on[0]["program_id"]).expect("the link is listed");
        found["place"].clone()
    };
    assert_eq!(
        place(&["links", "--netns", &netns.0]),
        json!({ "hook": "tcx_ingress", "cgroup": null, "device": "t0" })
    );
    assert_eq!(place(&["links"])["device"], Value::Null, "the index means nothing in another namespace");
    drop(link);
}

/// A cgroup with one below it; both gone with this value.
struct Cgroups {
    above: PathBuf,
    below: PathBuf,
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.below);
        let _ = std::fs::remove_dir(&self.above);
    }
}

#[test]
fn programs_on_cgroups_are_in_the_order_bpftool_says() {
    if !support::privileged() {
        return;
    }
    let above = match cgroup::root() {
        Ok(root) => root.join(unique("order")),
        Err(error) => {
            println!("skipped: {error}");
            return;
        }
    };
    let cgroups = Cgroups { below: above.join("below"), above };
    std::fs::create_dir_all(&cgroups.below).expect("root can make cgroups");
    let connect4 = 10;
    let attach = |name: &str, at: &PathBuf| {
        let directory = fs_err::File::open(at).expect("it is there");
        let program = raw::program(raw::CGROUP_SOCK_ADDR, name, 1, connect4);
        raw::link(&program, u64::try_from(directory.as_raw_fd()).expect("open"), connect4)
    };
    let links = [
        attach("kpxtest_above", &cgroups.above),
        attach("sd_first", &cgroups.below),
        attach("kpxtest_second", &cgroups.below),
    ];
    let names = |items: &[Value]| {
        items.iter().map(|item| item["program"].as_str().expect("text").to_owned()).collect::<Vec<_>>()
    };
    let [above, below] = [&cgroups.above, &cgroups.below].map(|path| path.to_str().expect("UTF-8"));
    let tree = listed(&["cgroups", "--cgroup", above]);
    assert_eq!(names(&tree), ["kpxtest_above", "sd_first", "kpxtest_second"]);
    assert_eq!((&tree[0]["cgroup"], &tree[1]["cgroup"]), (&json!(above), &json!(below)));
    assert_eq!(
        (&tree[1]["owner"], &tree[1]["sharing"], &tree[2]["order"]),
        (&json!("systemd"), &json!("multi"), &json!(2))
    );
    let runs = listed(&["cgroups", below]);
    assert_eq!(names(&runs), ["sd_first", "kpxtest_second", "kpxtest_above"]);
    match command::output("bpftool", ["-j", "cgroup", "show", below, "effective"], None) {
        Ok(out) => {
            let theirs: Vec<Value> = serde_json::from_slice(&out).expect("JSON");
            let ids = |items: &[Value], field: &str| items.iter().map(|i| i[field].clone()).collect::<Vec<_>>();
            assert_eq!(ids(&runs, "program_id"), ids(&theirs, "id"));
        }
        Err(error) => println!("skipped: no bpftool ({error})"),
    }
    drop(links);
}

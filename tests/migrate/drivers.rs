//! kube-proxy taken off the node and brought back by who runs it: real processes, and other programs' words for what became of them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::rig::Run;
use super::stage::Stage;
use crate::agent::api::Api;
use crate::support::privileged;

const APPLY: [&str; 7] = ["migrate", "apply", "--yes", "--probe-timeout", "300ms", "--accept", "no-agent"];
const ROLLBACK: [&str; 2] = ["migrate", "rollback"];

impl Stage {
    fn plan(&self) -> Value {
        self.kpx(&["migrate", "plan", "-o", "json"]).json()
    }

    fn apply(&self, more: &[&str]) -> Run {
        self.kpx(&[&APPLY[..], more].concat())
    }

    /// What a process was started with, and where.
    fn started_with(pid: u32) -> [String; 4] {
        let read = |name: &str| String::from_utf8(fs_err::read(format!("/proc/{pid}/{name}")).unwrap()).unwrap();
        let link = |name: &str| fs_err::read_link(format!("/proc/{pid}/{name}")).unwrap().display().to_string();
        [read("cmdline"), read("environ"), link("cwd"), link("exe")]
    }

    /// From phase hold on, kpx is killed around each write of the journal that has to do with kube-proxy, on both ways.
    fn killed_around_the_stop(&self, check: impl Fn(&str)) {
        let mut kills = 0;
        for n in 1..=5 {
            let (when, crash) = (format!("killed after journal write {n}"), format!("after:{n}"));
            self.apply(&["--until", "hold"]).exits(0);
            let until_stop = [&APPLY[..], &["--until", "stop"]].concat();
            kills += usize::from(self.kpx_with(&until_stop, Some(&crash)).code.is_none());
            self.kpx(&until_stop).exits(0);
            assert_eq!(self.proxies(), [] as [u32; 0], "{when}");
            kills += usize::from(self.kpx_with(&ROLLBACK, Some(&crash)).code.is_none());
            self.kpx(&ROLLBACK).exits(0);
            self.until("kube-proxy is back", || self.proxies().len() == 1);
            check(&when);
        }
        assert!(kills >= 9, "only {kills} kills: the failpoint does not work");
    }
}

/// What a run said, as one line.
fn said(run: &Run) -> String {
    format!("{} {}", run.stdout, run.stderr).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_process_is_ended_and_started_again_as_it_was() {
    if !privileged() {
        return;
    }
    let stage = Stage::up("drv-proc");
    let pid = stage.start_proxy("by-hand");
    let before = (stage.rig.fingerprint(), Stage::started_with(pid));
    let plan = stage.plan();
    assert_eq!((&plan["driver"]["by"], &plan["driver"]["pid"]), (&"process".into(), &pid.into()), "{plan}");
    assert!(plan["driver_evidence"].to_string().contains("by-hand"), "{plan}");

    stage.apply(&["--until", "handover"]).exits(0);
    assert_eq!(stage.proxies(), [] as [u32; 0]);
    // Somebody starts it: no rule is touched.
    stage.start_proxy("by-hand");
    let refused = stage.apply(&[]).exits(0);
    assert_eq!(stage.proxies(), [] as [u32; 0], "it was ended once more: {refused:?}");

    stage.kpx(&ROLLBACK).exits(0);
    let back = stage.proxies();
    assert_eq!(back.len(), 1);
    assert_eq!(stage.answers("/proxyMode"), "iptables");
    assert_eq!((stage.rig.fingerprint(), Stage::started_with(back[0])), before);
}

#[test]
fn a_process_comes_back_from_kills_around_the_stop() {
    if !privileged() {
        return;
    }
    let stage = Stage::up("drv-proc-k");
    let pid = stage.start_proxy("by-hand");
    let before = Stage::started_with(pid);
    stage.killed_around_the_stop(|when| assert_eq!(Stage::started_with(stage.proxies()[0]), before, "{when}"));
}

/// A process that is in nobody's hands but somebody's: what made its mount namespace would have to start it.
#[test]
fn a_process_of_a_container_is_not_taken_for_a_plain_one() {
    if !privileged() {
        return;
    }
    let stage = Stage::up("drv-cont");
    let script = stage.script("machine.slice/libpod-0123.scope");
    stage.start(Path::new("/usr/bin/unshare"), &["-m", "sh", script.to_str().unwrap()]);
    stage.until("kube-proxy runs", || stage.answers("/proxyMode") == "iptables");
    let plan = stage.plan();
    assert_eq!(plan["driver"]["by"], "operator");
    assert!(plan["warnings"].to_string().contains("mount namespace"), "{plan}");
    let stopped = stage.apply(&[]).exits(3);
    assert!(
        stopped.stderr.contains("is called kube-proxy") && stopped.stderr.contains("--stop-command"),
        "{stopped:?}"
    );
    stage.kpx(&ROLLBACK).exits(0);
}

const UNIT: &str = "system.slice/kube-proxy.service";

/// The unit's own state, and what systemctl was asked to change, in order.
fn asked(stage: &Stage) -> (String, Vec<String>) {
    let asked = fs_err::read_to_string(stage.at("asked")).unwrap();
    let changes = asked.lines().filter(|line| !line.starts_with("show ")).map(str::to_owned).collect();
    fs_err::write(stage.at("asked"), "").unwrap();
    (fs_err::read_to_string(stage.at("state")).unwrap().trim().to_owned(), changes)
}

/// No systemd runs where these tests do: a script plays systemctl, keeps what it was told and says what it was asked.
#[test]
fn a_unit_is_barred_before_it_is_stopped_and_unbarred_before_it_is_started() {
    if !privileged() {
        return;
    }
    let stage = Stage::up("drv-unit");
    for (fragment, [bar, unbar], barred) in [
        ("/usr/lib/systemd/system/kube-proxy.service", ["mask", "unmask"], "masked"),
        ("/etc/systemd/system/kube-proxy.service", ["disable", "enable"], "disabled"),
    ] {
        stage.systemd("enabled", fragment);
        let pid = stage.start_proxy(UNIT);
        fs_err::write(stage.at("pid"), pid.to_string()).unwrap();
        let plan = stage.plan();
        assert_eq!((&plan["driver"]["by"], &plan["driver"]["unit"]), (&"systemd".into(), &"kube-proxy.service".into()));
        assert!(plan["phases"].to_string().contains(&format!("systemctl {bar} kube-proxy.service")), "{plan}");
        asked(&stage);
        stage.apply(&["--until", "packets"]).exits(0);
        let unit = |verb: &str| format!("{verb} kube-proxy.service");
        assert_eq!(asked(&stage), (barred.to_owned(), vec![unit(bar), unit("stop")]));
        assert_eq!(stage.proxies(), [] as [u32; 0]);
        // Somebody lifts the bar: the next boot would start it, so no rule is touched before it is there again.
        fs_err::write(stage.at("state"), "enabled").unwrap();
        let status = stage.kpx(&["migrate", "status"]).exits(0);
        assert!(said(&status).contains("a boot would start it"), "{status:?}");
        stage.apply(&["--until", "handover"]).exits(0);
        assert_eq!(asked(&stage).0, barred);
        stage.kpx(&ROLLBACK).exits(0);
        let (state, changes) = asked(&stage);
        assert_eq!((state.as_str(), &changes[..2]), ("enabled", &[unit(unbar), unit("start")][..]));
        assert_eq!(stage.proxies().len(), 1);
        stage.stop_proxies();
    }
}

#[test]
fn a_unit_comes_back_from_kills_around_the_stop() {
    if !privileged() {
        return;
    }
    let stage = Stage::up("drv-unit-k");
    stage.systemd("enabled", "/usr/lib/systemd/system/kube-proxy.service");
    let pid = stage.start_proxy(UNIT);
    fs_err::write(stage.at("pid"), pid.to_string()).unwrap();
    stage.killed_around_the_stop(|when| assert_eq!(asked(&stage).0, "enabled", "{when}"));
    // And right behind each thing that systemctl was asked for.
    for (there, back) in [("mask", "unmask"), ("stop", "start")] {
        for (verb, args) in [(there, &APPLY[..]), (back, &ROLLBACK[..])] {
            let args = if verb == there { [args, &["--until", "stop"]].concat() } else { args.to_vec() };
            fs_err::write(stage.at("kill-after"), verb).unwrap();
            assert_eq!(stage.kpx(&args).code, None, "killed behind {verb}");
            stage.kpx(&args).exits(0);
        }
        assert_eq!((asked(&stage).0.as_str(), stage.proxies().len()), ("enabled", 1));
    }
}

/// A shell of an ssh session is in sshd's cgroup: what it has started is not sshd.
#[test]
fn a_process_in_a_units_cgroup_is_not_the_unit() {
    if !privileged() {
        return;
    }
    let stage = Stage::up("drv-ssh");
    stage.systemd("enabled", "/usr/lib/systemd/system/ssh.service");
    stage.start_proxy("system.slice/ssh.service");
    assert_eq!(stage.plan()["driver"]["by"], "process");
    // Named all the same, it is the operator's word; and a unit that systemd made by itself cannot be brought back.
    fs_err::write(stage.at("state"), "transient").unwrap();
    let refused = stage.kpx(&["migrate", "plan", "--driver", "systemd=proxy.service"]).exits(2);
    assert!(said(&refused).contains("could not be started again"), "{refused:?}");
}

const STATIC: &str = "kubepods.slice/kubepods-pod0123456789abcdef0123456789abcdef.slice/cri-containerd-1.scope";

const MANIFEST: &str = "# as the installer made it\napiVersion: v1\nkind: Pod\nmetadata:\n  name: kube-proxy\nspec:\n  \
                        containers:\n  - name: kube-proxy\n    command: [/usr/local/bin/kube-proxy, --config=/x]\n";

impl Stage {
    /// A kubelet that runs kube-proxy from a manifest.
    fn kubelet(&self) -> std::path::PathBuf {
        let folder = self.at("manifests");
        fs_err::create_dir(&folder).unwrap();
        fs_err::write(folder.join("etcd.yaml"), MANIFEST.replace("kube-proxy", "etcd")).unwrap();
        let manifest = folder.join("kube-proxy.yaml");
        fs_err::write(&manifest, MANIFEST).unwrap();
        fs_err::set_permissions(&manifest, std::fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::chown(&manifest, Some(1234), Some(4321)).unwrap();
        let run = self.script(STATIC);
        let words = [format!("--pod-manifest-path={}", folder.display()), run.display().to_string()];
        let script = self.at("kubelet.pl");
        self.start(&self.at("kubelet"), &[script.to_str().unwrap(), &words[0], &words[1]]);
        self.until("kube-proxy runs", || self.answers("/proxyMode") == "iptables");
        manifest
    }

    fn stop_proxies(&self) {
        for pid in self.proxies() {
            super::rig::tool("kill", &[&pid.to_string()]);
        }
        self.until("kube-proxy has gone", || self.proxies().is_empty());
    }
}

/// Bytes, mode and owner.
fn file(path: &Path) -> (Vec<u8>, [u32; 3]) {
    let about = fs_err::metadata(path).unwrap();
    (fs_err::read(path).unwrap(), [about.mode(), about.uid(), about.gid()])
}

#[test]
fn a_static_pods_manifest_goes_and_comes_back_as_it_was() {
    if !privileged() {
        return;
    }
    let stage = Stage::up("drv-pod");
    let manifest = stage.kubelet();
    let before = (file(&manifest), stage.rig.fingerprint());
    let plan = stage.plan();
    assert_eq!(plan["driver"]["manifest"], manifest.to_str().unwrap(), "{plan}");
    stage.apply(&["--until", "handover"]).exits(0);
    assert!(!manifest.exists() && stage.proxies().is_empty());
    // An upgrade writes another one: nothing of kube-proxy's is removed while it runs.
    fs_err::write(&manifest, MANIFEST).unwrap();
    stage.until("the kubelet starts it", || stage.proxies().len() == 1);
    stage.apply(&["--until", "handover"]).exits(0);
    assert!(!manifest.exists() && stage.proxies().is_empty(), "it was stopped once more");
    stage.kpx(&ROLLBACK).exits(0);
    assert_eq!(file(&manifest).0, before.0.0);
    assert_eq!(stage.rig.fingerprint(), before.1);

    // Without anybody's doing in between: the very file.
    std::os::unix::fs::chown(&manifest, Some(1234), Some(4321)).unwrap();
    fs_err::set_permissions(&manifest, std::fs::Permissions::from_mode(0o640)).unwrap();
    stage.killed_around_the_stop(|when| assert_eq!(file(&manifest), before.0, "{when}"));
    assert_eq!(stage.rig.fingerprint(), before.1);
}

#[test]
fn a_kube_proxy_that_is_part_of_something_else_is_refused_with_the_way_out() {
    if !privileged() {
        return;
    }
    let stage = Stage::up("drv-k3s");
    let (script, pages) = (stage.at("kube-proxy.pl"), stage.at("pages"));
    stage.start(&stage.at("k3s-server"), &[script.to_str().unwrap(), pages.to_str().unwrap()]);
    stage.until("k3s runs", || stage.answers("/proxyMode") == "iptables");
    let refused = stage.kpx(&["migrate", "apply", "--yes"]).exits(2);
    for part in ["kube-proxy is a part of k3s", "disable-kube-proxy: true", "k3s-server (process", "--until hold"] {
        assert!(said(&refused).contains(part), "{part}: {refused:?}");
    }
    assert!(stage.rig.pins().is_empty(), "nothing was loaded");
    // As far as it goes with k3s as it is.
    stage.apply(&["--driver", "operator", "--until", "hold"]).exits(0);
    let stopped = stage.apply(&[]).exits(3);
    assert!(stopped.stderr.contains("port 10249 answers as kube-proxy"), "{stopped:?}");
    stage.kpx(&ROLLBACK).exits(0);
}

/// Whoever writes rules where nobody can be seen writing them is noticed before one is removed.
#[test]
fn rules_that_change_after_kube_proxy_has_gone_are_noticed() {
    if !privileged() {
        return;
    }
    let stage = Stage::up("drv-canary");
    stage.start_proxy("by-hand");
    stage.apply(&["--until", "handover"]).exits(0);
    let netns = stage.rig.option("--netns");
    let nat = |args: &[&str]| {
        super::rig::tool("ip", &[&["netns", "exec", &netns, "iptables-nft", "-w", "-t", "nat"][..], args].concat())
    };
    // A sync of a Service that nobody else has: one more chain of kube-proxy's.
    nat(&["-N", "KUBE-SVC-AAAAAAAAAAAAAAAA"]);
    nat(&["-A", "KUBE-SERVICES", "-d", "10.96.77.77/32", "-j", "KUBE-SVC-AAAAAAAAAAAAAAAA"]);
    let status = stage.kpx(&["migrate", "status"]).exits(0);
    assert!(said(&status).contains("have changed since it was stopped"), "{status:?}");
    nat(&["-D", "KUBE-SERVICES", "-d", "10.96.77.77/32", "-j", "KUBE-SVC-AAAAAAAAAAAAAAAA"]);
    nat(&["-X", "KUBE-SVC-AAAAAAAAAAAAAAAA"]);
    stage.apply(&["--until", "remove"]).exits(0);
    stage.kpx(&ROLLBACK).exits(0);
}

const UID: &str = "6f1c2b3a-0d4e-4f5a-8b6c-7d8e9f0a1b2c";
const SET: (&str, &str) = ("DaemonSet", "kube-system/kube-proxy");

/// The DaemonSet controller, the scheduler and the kubelet, as far as they matter here: a pod is where the affinity lets it be.
struct Controller<'s> {
    stage: &'s Stage,
    api: Api,
    ended: AtomicBool,
}

impl Controller<'_> {
    fn cgroup() -> String {
        format!("kubepods.slice/kubepods-pod{}.slice/cri-containerd-1.scope", UID.replace('-', "_"))
    }

    /// Whether one of the terms is met by the labels.
    fn wants(&self) -> bool {
        let (node, set) = (self.api.get("Node", "node-a"), self.api.get(SET.0, SET.1));
        let terms = &set["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
            ["nodeSelectorTerms"];
        let met = |expression: &Value| {
            let label = &node["metadata"]["labels"][expression["key"].as_str().unwrap()];
            match expression["operator"].as_str().unwrap() {
                "DoesNotExist" => label.is_null(),
                "In" => expression["values"].as_array().unwrap().contains(label),
                other => panic!("operator {other}"),
            }
        };
        let all = |term: &Value| term["matchExpressions"].as_array().unwrap().iter().all(met);
        terms.as_array().is_none_or(|terms| terms.iter().any(all))
    }

    fn run(&self) {
        while !self.ended.load(Ordering::SeqCst) {
            match (self.wants(), self.stage.proxies().is_empty()) {
                (true, true) => {
                    self.stage.start_proxy(&Self::cgroup());
                    self.api.put(json!({
                        "kind": "Pod", "apiVersion": "v1",
                        "metadata": {
                            "namespace": "kube-system", "name": "kube-proxy-abcde", "uid": UID,
                            "ownerReferences": [{ "kind": "DaemonSet", "name": "kube-proxy", "uid": "uid-set" }],
                        },
                        "spec": { "nodeName": "node-a" },
                    }));
                }
                (false, false) => {
                    self.stage.stop_proxies();
                    self.api.delete("Pod", "kube-system/kube-proxy-abcde");
                }
                _ => {}
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Runs a test beside a controller of a DaemonSet with this affinity.
fn with_daemon_set(name: &str, affinity: &Value, test: impl FnOnce(&Stage, &Api)) {
    let mut stage = Stage::up(name);
    let api = stage.api(false);
    let mut set = json!({
        "kind": "DaemonSet", "apiVersion": "apps/v1",
        "metadata": { "namespace": "kube-system", "name": "kube-proxy", "uid": "uid-set", "labels": { "k8s-app": "kube-proxy" } },
        "spec": { "template": { "spec": { "hostNetwork": true } }, "updateStrategy": { "type": "RollingUpdate" } },
    });
    if !affinity.is_null() {
        set["spec"]["template"]["spec"]["affinity"] = affinity.clone();
    }
    api.put(set);
    let controller = Controller { stage: &stage, api: api.clone(), ended: AtomicBool::new(false) };
    std::thread::scope(|scope| {
        scope.spawn(|| controller.run());
        let tested = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            stage.until("the pod runs", || stage.answers("/proxyMode") == "iptables" && !stage.proxies().is_empty());
            test(&stage, &api);
        }));
        controller.ended.store(true, Ordering::SeqCst);
        tested.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// What is the cluster's: the DaemonSet but for its version, and the node's labels.
fn cluster(api: &Api) -> [Value; 2] {
    let (mut set, node) = (api.get(SET.0, SET.1), api.get("Node", "node-a"));
    set["metadata"]["resourceVersion"] = Value::Null;
    if let Some(annotations) = set["metadata"].get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove("example.org/changed");
        if annotations.is_empty() {
            set["metadata"].as_object_mut().unwrap().remove("annotations");
        }
    }
    [set, node["metadata"]["labels"].clone()]
}

#[test]
fn a_daemon_set_leaves_this_node_out_and_takes_it_in_again() {
    if !privileged() {
        return;
    }
    let linux = json!({ "key": "kubernetes.io/os", "operator": "In", "values": ["linux"] });
    let affinity = json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{ "matchExpressions": [linux] }] } } });
    with_daemon_set("drv-ds", &affinity, |stage, api| {
        let before = (cluster(api), stage.rig.fingerprint());
        let plan = stage.plan();
        let driver = &plan["driver"];
        assert_eq!((&driver["by"], &driver["name"]), (&"daemonset".into(), &"kube-proxy".into()), "{plan}");
        let patch: Value = serde_json::from_str(driver["patch"].as_str().unwrap()).unwrap();
        // Others write the object all the while.
        api.disturb(3);
        stage.apply(&["--until", "handover"]).exits(0);
        assert_eq!(stage.proxies(), [] as [u32; 0]);
        let [set, labels] = cluster(api);
        assert_eq!(labels["kpx.dev/dataplane"], "ebpf");
        let path = "/spec/template/spec/affinity";
        assert_eq!(set.pointer(path), patch.pointer(path), "what the plan has shown");

        // Somebody takes the label off: the pod comes back, and no rule is touched before it has gone again.
        let mut node = api.get("Node", "node-a");
        node["metadata"]["labels"].as_object_mut().unwrap().remove("kpx.dev/dataplane");
        api.put(node);
        stage.until("the pod is back", || stage.proxies().len() == 1);
        stage.apply(&["--until", "remove"]).exits(0);
        assert_eq!(stage.proxies(), [] as [u32; 0]);
        // Where only the API shows it, too.
        let mut node = api.get("Node", "node-a");
        node["metadata"]["labels"]["kpx.dev/dataplane"] = "ebpf".into();
        api.put(node);

        stage.kpx(&ROLLBACK).exits(0);
        assert_eq!(stage.proxies().len(), 1);
        assert_eq!((cluster(api), stage.rig.fingerprint()), before);

        // What was asked for is what the role allows, and nothing else: the rest is read from files here.
        let role = fs_err::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/kpx-migrate.yaml")).unwrap();
        let role: Value = serde_saphyr::from_str(&role).unwrap();
        let mut allowed = std::collections::BTreeSet::new();
        for rule in role["rules"].as_array().unwrap() {
            let words = |key: &str| rule[key].as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned());
            for (resource, verb) in words("resources").flat_map(|r| words("verbs").map(move |v| (r.clone(), v))) {
                let group = words("apiGroups").next().unwrap();
                let path = if group.is_empty() { "/api/v1".to_owned() } else { format!("/apis/{group}/v1") };
                allowed.insert(format!("{verb} {path}/{resource}"));
            }
        }
        let asked: Vec<String> = api.requests().into_iter().map(|(verb, path)| format!("{verb} {path}")).collect();
        assert!(asked.iter().all(|one| allowed.contains(one)), "{asked:?} {allowed:?}");
        assert!(asked.contains(&"patch /apis/apps/v1/daemonsets".to_owned()), "{asked:?}");
    });
}

/// kpx dies between two changes of the API, either way; and another node that needs the affinity keeps it.
#[test]
fn a_daemon_set_is_right_after_a_kill_between_two_patches() {
    if !privileged() {
        return;
    }
    with_daemon_set("drv-ds-k", &Value::Null, |stage, api| {
        let before = cluster(api);
        let netns = stage.rig.option("--netns");
        let until_stop = [&APPLY[..], &["--until", "stop"]].concat();
        for patches in [1, 2] {
            for args in [until_stop.clone(), ROLLBACK.to_vec()] {
                let netns = netns.clone();
                api.after_patches(patches, move || Stage::kill_kpx(&netns));
                assert_eq!(stage.kpx(&args).code, None, "killed behind patch {patches}: {args:?}");
                stage.kpx(&args).exits(0);
            }
            assert_eq!((cluster(api), stage.proxies().len()), (before.clone(), 1), "behind patch {patches}");
        }
        let mut other = api.get("Node", "node-b");
        other["metadata"]["labels"]["kpx.dev/dataplane"] = "ebpf".into();
        api.put(other);
        stage.kpx(&until_stop).exits(0);
        let stopped = cluster(api);
        stage.kpx(&ROLLBACK).exits(0);
        assert_eq!(cluster(api), [stopped[0].clone(), before[1].clone()], "node-b is left out as before");
    });
}

#[test]
fn an_api_that_is_away_and_a_manager_of_the_daemon_set_are_told_with_the_way_out() {
    if !privileged() {
        return;
    }
    with_daemon_set("drv-ds-no", &Value::Null, |stage, api| {
        // Nobody tells whose the pod is: the operator is told what kpx would need.
        api.refuse("Pod", 403);
        let plan = stage.plan();
        assert_eq!(plan["driver"]["by"], "operator");
        assert!(plan["warnings"].to_string().contains("does not know how to stop kube-proxy"), "{plan}");
        let refused = stage.kpx(&["migrate", "plan", "--driver", "daemonset=net/proxy"]).exits(2);
        assert!(said(&refused).contains("the API has no DaemonSet net/proxy"), "{refused:?}");
        api.refuse("Pod", 0);

        let mut set = api.get(SET.0, SET.1);
        set["metadata"]["labels"]["addonmanager.kubernetes.io/mode"] = "Reconcile".into();
        api.put(set);
        let refused = stage.kpx(&["migrate", "apply", "--yes"]).exits(2);
        for part in
            ["the add-on manager (label addonmanager.kubernetes.io/mode: Reconcile)", "--accept managed-daemonset"]
        {
            assert!(said(&refused).contains(part), "{part}: {refused:?}");
        }
        stage.apply(&["--accept", "managed-daemonset", "--until", "packets"]).exits(0);
        // With the API away nothing is lost, and the way back says what it needs.
        api.refuse("Node", 503);
        stage.kpx(&["migrate", "status"]).exits(0);
        let stuck = stage.kpx(&ROLLBACK).exits(3);
        assert!(said(&stuck).contains("of http://127.0.0.1:") && said(&stuck).contains("has to answer"), "{stuck:?}");
        assert_eq!(stage.proxies(), [] as [u32; 0]);
        api.refuse("Node", 0);
        stage.kpx(&ROLLBACK).exits(0);
        assert_eq!(stage.proxies().len(), 1);
    });
}

//! The running kernel: what trying finds, against what its files say and against what other tools say.

use assert_cmd::Command;
use serde_json::Value;

use super::{feature, preflight};
use crate::cli::environment::kpx;
use crate::support::privileged;

/// The configuration of a kernel of Debian's that tests run on in machines of their own.
fn recorded(release: &str) -> Option<&'static str> {
    match release {
        r if r.starts_with("6.1.") && r.contains("amd64") => Some(include_str!("../data/kernels/config-6.1")),
        r if r.starts_with("6.12.") && r.contains("amd64") => Some(include_str!("../data/kernels/config-6.12")),
        _ => None,
    }
}

fn release() -> String {
    fs_err::read_to_string("/proc/sys/kernel/osrelease").expect("every Linux has it").trim().to_owned()
}

/// Cgroups of trials. Those of other tests, which run beside this one, go when these have ended.
fn left() -> Vec<String> {
    let root = kpx::capture::cgroup::root().expect("cgroup2 is mounted");
    let names = fs_err::read_dir(root).expect("it can be read").flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("kpx-preflight-")).collect()
}

#[test]
fn what_is_foretold_is_what_trying_finds() {
    if !privileged() {
        return;
    }
    let release = release();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("config");
    let mut args = vec!["--kernel-version".to_owned(), release.clone()];
    let known = match recorded(&release) {
        Some(text) => fs_err::write(&path, text).map(|()| path.clone()).expect("written"),
        None => "/proc/config.gz".into(),
    };
    if !known.exists() {
        println!("skipped: nothing has the configuration of Linux {release}");
        return;
    }
    args.extend(["--kernel-config".to_owned(), known.display().to_string()]);
    args.extend(["--btf".to_owned(), "/sys/kernel/btf/vmlinux".to_owned()]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let ((_, tried), (_, foretold)) = (preflight(&[]), preflight(&args));
    let (mut compared, mut differ) = (0, Vec::new());
    for item in tried["items"].as_array().expect("a list").iter().filter(|item| item["basis"] == "tried") {
        let name = item["name"].as_str().expect("a name");
        let said = feature(&foretold, name);
        println!("tried {name}: {} ({})", item["answer"], said["basis"]);
        // That the verifier takes the programs can only be tried.
        if said["answer"] != "cannot-tell" {
            compared += 1;
            if said["answer"] != item["answer"] {
                differ.push(format!(
                    "{name}: {} is tried, {} is foretold: {}",
                    item["reason"], said["answer"], said["reason"]
                ));
            }
        } else if name != "programs" {
            differ.push(format!("{name} is not foretold: {}", said["reason"]));
        }
    }
    assert!(differ.is_empty(), "{differ:#?}");
    assert!(compared >= 25, "{compared} compared");
}

#[test]
fn each_hook_is_tried_with_traffic_and_nothing_stays() {
    if !privileged() {
        return;
    }
    let (_, report) = preflight(&[]);
    let patience = std::time::Instant::now() + std::time::Duration::from_mins(1);
    while !left().is_empty() {
        assert!(std::time::Instant::now() < patience, "{:?} stays", left());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    for name in ["connect", "sendmsg", "recvmsg", "getpeername", "post-bind"] {
        let item = feature(&report, &format!("{name}4"));
        assert_eq!((item["answer"].as_str(), item["basis"].as_str()), (Some("works"), Some("tried")), "{item}");
    }
    let connect = feature(&report, "connect4")["reason"].as_str().expect("a text");
    assert!(connect.starts_with("a connect to 192.0.2.1:53 came to the server at 127.0.0.1:"), "{connect}");
    assert_eq!(feature(&report, "programs")["answer"], "works", "{}", feature(&report, "programs"));
    let jit = fs_err::read_to_string("/proc/sys/net/core/bpf_jit_enable").expect("the kernel has BPF");
    assert_eq!(feature(&report, "jit")["answer"] == "works", jit.trim() != "0");
}

#[test]
fn without_rights_there_are_fewer_answers_and_no_failure() {
    if !privileged() {
        return;
    }
    // The binary is copied to where nobody may read it from.
    let folder = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir()
        .expect("a folder");
    let binary = folder.path().join("kpx");
    fs_err::copy(kpx().get_program(), &binary).expect("copied");
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&binary).args([
        "preflight",
        "-o",
        "json",
        "--fail-on",
        "never",
    ]);
    let Ok(output) = command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").output() else {
        println!("skipped: setpriv is not installed");
        return;
    };
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(feature(&report, "capabilities")["answer"], "does-not");
    let connect = feature(&report, "connect4");
    assert_ne!(connect["basis"], "tried", "{connect}");
    assert_ne!(connect["answer"], "does-not", "want of rights says nothing of the kernel: {connect}");
    assert_eq!(feature(&report, "programs")["answer"], "cannot-tell", "{}", feature(&report, "programs"));
}

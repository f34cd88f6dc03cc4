//! Kernels from their files: configurations of Debian's kernels, cut to the options that preflight looks at.

use std::io::Write as _;

use super::{feature, preflight};
use crate::cli::environment::{project, run};
use crate::cli::schema::conforms;

fn config(version: &str) -> String {
    project("tests/data/kernels").join(format!("config-{version}")).display().to_string()
}

#[test]
fn a_configuration_tells_what_its_kernel_can_do() {
    for (version, tcx, code) in [("6.1", "does-not", 2), ("6.12", "works", 0)] {
        let (ended, report) = preflight(&["--kernel-config", &config(version), "--require", "tcx"]);
        conforms(&report);
        assert_eq!(ended.code, code, "{version}: {}", ended.err);
        assert_eq!(feature(&report, "tcx")["answer"], tcx, "{version}");
        assert_eq!(feature(&report, "tcx")["required"], true);
        assert_eq!(feature(&report, "sock-destroy")["answer"], "works");
        // The version stands in the first line of the configuration; without BTF it is all that tells of hooks.
        assert_eq!(feature(&report, "connect4")["basis"], "inferred");
        // How a node is set up does not follow from its kernel.
        for name in ["capabilities", "cgroup2", "bpffs"] {
            assert_eq!(feature(&report, name)["answer"], "cannot-tell", "{name}");
        }
    }
}

#[test]
fn an_old_version_lacks_what_came_later() {
    let (ended, report) = preflight(&["--kernel-version", "5.4.0-200-generic"]);
    for (name, answer) in
        [("recvmsg4", "works"), ("getpeername4", "does-not"), ("cgroup-link", "does-not"), ("lpm-trie", "works")]
    {
        assert_eq!(feature(&report, name)["answer"], answer, "{name}");
        assert_eq!(feature(&report, name)["basis"], "inferred", "{name}");
    }
    assert_eq!(ended.code, 2);
    assert_eq!(report["advice"]["leaning"], "stay");
    let (ended, _) = preflight(&["--kernel-version", "5.4", "--fail-on", "never"]);
    assert_eq!(ended.code, 0);
}

#[test]
fn an_option_that_is_off_is_known_to_be() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = fs_err::read_to_string(config("6.12")).expect("it is committed");
    let path = folder.path().join("config.gz");
    let mut gzip =
        flate2::write::GzEncoder::new(fs_err::File::create(&path).expect("made"), flate2::Compression::fast());
    gzip.write_all(text.replace("CONFIG_CGROUP_BPF=y", "# CONFIG_CGROUP_BPF is not set").as_bytes()).expect("written");
    gzip.finish().expect("written");
    let (ended, report) = preflight(&["--kernel-config", &path.display().to_string()]);
    let connect = feature(&report, "connect4");
    assert_eq!((connect["answer"].as_str(), connect["basis"].as_str()), (Some("does-not"), Some("known")));
    assert_eq!(connect["reason"], "CONFIG_CGROUP_BPF is not set");
    assert_eq!(ended.code, 2);
}

#[test]
fn what_cilium_needs_is_another_thing() {
    let args = ["--kernel-config", &config("6.12"), "--target", "cilium"];
    let (_, report) = preflight(&args);
    assert_eq!(report["target"], "cilium");
    assert_eq!(feature(&report, "crypto-user-hash")["answer"], "works");
    assert!(report["items"].as_array().expect("a list").iter().all(|item| item["name"] != "sk-storage"));
    let (_, report) = preflight(&args[..2]);
    assert!(report["items"].as_array().expect("a list").iter().all(|item| item["name"] != "crypto-user-hash"));
}

#[test]
fn a_recorded_node_has_its_cluster_too() {
    let node = project("tests/data/lab/node").display().to_string();
    let (_, report) = preflight(&["--from", &node]);
    conforms(&report);
    let services = feature(&report, "service-count");
    assert_eq!(services["answer"], "works", "{services}");
    // The oracle is the recording itself.
    let list = project("tests/data/lab/node");
    let files = fs_err::read_dir(list)
        .expect("it is there")
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.file_name().is_some_and(|name| name.to_string_lossy().contains("services")));
    for path in files {
        let value: serde_json::Value = serde_json::from_slice(&fs_err::read(path).expect("it is there")).expect("JSON");
        let items = value["items"].as_array().expect("a list");
        let count = items.iter().filter(|s| s["spec"]["clusterIP"].as_str().is_some_and(|ip| ip != "None")).count();
        let said = services["reason"].as_str().expect("a text");
        assert!(said.starts_with(&format!("{count} Service")), "{said}: {count}");
    }
}

#[test]
fn a_snapshot_has_the_configuration_of_its_kernel() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name, text: &str| fs_err::write(folder.path().join(name), text).expect("written");
    let release = "6.12.117+deb12-cloud-amd64";
    let host = serde_json::json!({"hostName": "n", "kernelRelease": release, "kernelVersion": "", "machine": "", "bootId": ""});
    write("host.json", &host.to_string());
    let from = folder.path().display().to_string();
    let tcx = |args: &[&str]| {
        let (_, report) = preflight(&[&["--from", from.as_str(), "--fail-on", "never"], args].concat());
        let tcx = feature(&report, "tcx");
        format!("{} {}", tcx["answer"].as_str().expect("a word"), tcx["basis"].as_str().expect("a word"))
    };
    assert_eq!(tcx(&[]), "works inferred");
    let text = fs_err::read_to_string(config("6.12")).expect("it is committed");
    write("kernel-config.txt", &text.replace("CONFIG_NET_XGRESS=y", "# CONFIG_NET_XGRESS is not set"));
    assert_eq!(tcx(&[]), "does-not known");
    // Another kernel, by its version or its own configuration, is not the recorded one.
    assert_eq!(tcx(&["--kernel-version", release]), "works inferred");
    assert_eq!(tcx(&["--kernel-config", &config("6.12")]), "works inferred");
}

#[test]
fn ci_systems_get_what_they_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let junit = folder.path().join("kernel.xml").display().to_string();
    let ended = run(&[
        "preflight",
        "--kernel-config",
        &config("6.1"),
        "--require",
        "tcx",
        "-o",
        "github",
        "--report",
        &format!("junit={junit}"),
    ]);
    assert_eq!(ended.code, 2);
    let errors: Vec<&str> = ended.out.lines().filter(|line| line.starts_with("::error ")).collect();
    assert_eq!(errors.len(), 1, "{}", ended.out);
    assert!(
        errors[0].starts_with("::error title=KPX-P301 Links of programs to network devices (tcx)::"),
        "{}",
        errors[0]
    );
    assert!(errors[0].contains("%0A"), "{}", errors[0]);
    let xml = fs_err::read_to_string(junit).expect("it was written");
    assert_eq!(xml.matches("<failure").count(), 1, "{xml}");
    assert!(xml.contains("KPX-P301") && xml.contains("<skipped"), "{xml}");
    let ended = run(&["preflight", "--kernel-config", &config("6.1"), "--require", "tcx", "--ignore", "KPX-P301"]);
    assert_eq!(ended.code, 0, "{}", ended.out);
    let ended = run(&["version", "-o", "github"]);
    assert_eq!(ended.code, 64, "{}", ended.err);
}

#[test]
fn mistakes_are_named() {
    let ended = run(&["preflight", "--require", "connect"]);
    assert!(ended.code == 64 && ended.err.contains("connect4 is (KPX-P101)"), "{}: {}", ended.code, ended.err);
    let ended = run(&["preflight", "--kernel-config", &project("Cargo.toml").display().to_string()]);
    assert!(ended.code == 1 && ended.err.contains("CONFIG_IKCONFIG"), "{}", ended.err);
    let ended = run(&["explain", "kpx-p301"]);
    assert!(ended.code == 0 && ended.out.contains("tcx"), "{}{}", ended.out, ended.err);
}

#[test]
fn the_screen_has_areas_answers_and_advice() {
    let ended = run(&["preflight", "--kernel-config", &config("6.1")]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    for word in ["sockets", "KPX-P101", "+ works", "- does not", "advice: "] {
        assert!(ended.out.contains(word), "{word}: {}", ended.out);
    }
}

/// Each command in docs/preflight.md that needs no root, on files in the place of those that it names.
#[test]
fn the_commands_of_the_docs_run() {
    let page = fs_err::read_to_string(project("docs/preflight.md")).expect("it is there");
    let folder = tempfile::tempdir().expect("a folder");
    let mut count = 0;
    for line in page.lines().map(str::trim).filter_map(|line| line.trim_start_matches("- ").strip_prefix("kpx ")) {
        let words: Vec<String> = line
            .split_whitespace()
            .take_while(|word| *word != ">>")
            .map(|word| match word {
                "config-6.12" | "boot/config-*" => config("6.12"),
                "config-6.1" => config("6.1"),
                "node-a.tar.zst" => project("tests/data/lab/node").display().to_string(),
                other => other.replace("junit=", &format!("junit={}/", folder.path().display())),
            })
            .collect();
        let ended = run(&words);
        assert!(matches!(ended.code, 0 | 2), "kpx {line}: {}", ended.err);
        assert!(!ended.err.contains("error:"), "kpx {line}: {}", ended.err);
        count += 1;
    }
    assert!(count >= 6, "{count} commands");
}

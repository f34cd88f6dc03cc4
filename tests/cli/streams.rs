//! Which bytes go where: data to stdout, the rest to stderr, colour only where it is wanted.

use super::environment::{finish, kpx, run};

#[test]
fn version_in_every_format() {
    let fields = ["version", "commit", "object_sha256", "layout_version", "kernel_floor"];
    let json: serde_json::Value = serde_json::from_str(&run(&["version", "-o", "json"]).out).expect("JSON");
    assert_eq!((&json["apiVersion"], &json["kind"]), (&"kpx.dev/v1".into(), &"Version".into()));
    let keys: Vec<&str> = json["items"][0].as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(keys, fields);
    let yaml = run(&["version", "-o", "yaml"]).out;
    let table = run(&["version"]).out;
    for field in fields {
        assert!(yaml.contains(&format!("{field}: ")), "{yaml}");
        assert!(table.contains(field), "{table}");
    }
    assert_eq!(run(&["version", "-o", "name"]).out, format!("kpx {}\n", env!("CARGO_PKG_VERSION")));
    assert!(!run(&["version", "--no-headers"]).out.contains("FIELD"));
}

#[test]
fn a_full_disk_is_told() {
    let full = finish(kpx().args(["completions", "bash"]).env("KPX_LOG", "off"));
    assert_eq!(full.code, 0);
    let script = "exec \"$0\" completions bash > /dev/full";
    let mut shell = assert_cmd::Command::new("sh");
    let full = finish(shell.args(["-c", script, env!("CARGO_BIN_EXE_kpx")]));
    assert_eq!(full.code, 1);
    assert!(full.err.starts_with("error: cannot write output: "), "{}", full.err);
}

#[test]
fn colour_is_asked_for_by_flag_or_environment() {
    let escape = '\u{1b}';
    assert!(!run(&["version"]).out.contains(escape));
    assert!(run(&["version", "--color", "always"]).out.contains(escape));
    assert!(finish(kpx().arg("version").env("FORCE_COLOR", "1")).out.contains(escape));
    assert!(!finish(kpx().arg("version").env("FORCE_COLOR", "1").env("NO_COLOR", "1")).out.contains(escape));
    assert!(finish(kpx().arg("inpsect").env("CLICOLOR_FORCE", "1")).err.contains(escape));
    assert!(!finish(kpx().args(["inpsect", "--color=never"]).env("CLICOLOR_FORCE", "1")).err.contains(escape));
}

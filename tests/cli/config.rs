//! Defaults of options by files and variables, and the name under which kubectl calls kpx.

use serde_json::Value;

use super::environment::{Run, finish, kpx, run};

/// A home with a file of defaults.
fn home(text: &str) -> tempfile::TempDir {
    let home = tempfile::tempdir().expect("a folder");
    fs_err::create_dir_all(home.path().join(".config/kpx")).expect("made");
    fs_err::write(home.path().join(".config/kpx/config.toml"), text).expect("written");
    home
}

fn is_json(run: &Run) -> bool {
    run.code == 0 && serde_json::from_str::<Value>(&run.out).is_ok()
}

fn is_yaml(run: &Run) -> bool {
    run.code == 0 && run.out.starts_with("apiVersion: ")
}

#[test]
fn flags_go_before_variables_and_these_before_files() {
    let home = home("output = 'json'\n");
    let with = |args: &[&str], variables: &[(&str, &str)]| {
        finish(kpx().env("HOME", home.path()).envs(variables.iter().copied()).args(args))
    };
    assert!(is_json(&with(&["version"], &[])));
    assert!(is_yaml(&with(&["version"], &[("KPX_OUTPUT", "yaml")])));
    assert!(is_json(&with(&["version", "-o", "json"], &[("KPX_OUTPUT", "yaml")])));
    // One that is named is read instead; an empty name is none.
    let other = home.path().join("other.toml");
    fs_err::write(&other, "output = 'yaml'\n").expect("written");
    let other = other.display().to_string();
    assert!(is_yaml(&with(&["version", "--config", &other], &[])));
    assert!(is_yaml(&with(&["version"], &[("KPX_CONFIG", &other)])));
    assert!(with(&["version"], &[("KPX_CONFIG", "")]).out.starts_with("FIELD"));
    assert!(is_json(&with(&["version"], &[("XDG_CONFIG_HOME", &home.path().join(".config").display().to_string())])));
}

#[test]
fn a_file_that_is_wrong_is_named_with_what_to_do() {
    let refused = |text: &str| {
        let home = home(text);
        let run = finish(kpx().env("HOME", home.path()).arg("version"));
        assert_eq!((run.out.as_str(), run.code), ("", 64), "{text}");
        // Help is given all the same.
        assert_eq!(finish(kpx().env("HOME", home.path()).args(["version", "-h"])).code, 0);
        run.err.replace(&home.path().display().to_string(), "~")
    };
    insta::assert_snapshot!(refused("[agent]\ninterval-seconds = 5\n"), @r"
    error: ~/.config/kpx/config.toml: interval-seconds is no option of kpx agent
    hint: there is interval
    ");
    insta::assert_snapshot!(refused("output = 'xml'\n"), @r"
    error: invalid value 'xml' for '--output <FORMAT>'
      [possible values: table, wide, json, yaml, name, markdown, github]

      tip: a similar value exists: 'yaml'

    For more information, try '--help'.
    hint: defaults were read from ~/.config/kpx/config.toml
    ");
    let unquoted = refused("output = json\n");
    assert!(
        unquoted.starts_with("error: ~/.config/kpx/config.toml is not TOML: ") && unquoted.contains("hint: "),
        "{unquoted}"
    );
    let missing = run(&["version", "--config", "/no/such.toml"]);
    assert_eq!(missing.code, 64);
    assert!(missing.err.contains("/no/such.toml"), "{}", missing.err);
}

#[test]
fn the_example_that_packages_install_is_taken_with_and_without_its_marks() {
    let text = fs_err::read_to_string(super::environment::project("deploy/config.toml")).expect("it is committed");
    let bare = |line: &'_ str| {
        let option = line.strip_prefix("# ").filter(|rest| rest.contains(" = ") || rest.starts_with('['));
        option.unwrap_or(line).to_owned()
    };
    let plain = text.lines().map(bare).collect::<Vec<_>>().join("\n");
    assert!(plain.contains("\n[agent]\n"));
    for text in [text, plain] {
        let home = home(&text);
        let run = finish(kpx().env("HOME", home.path()).arg("version"));
        assert_eq!((run.err.as_str(), run.code), ("", 0));
    }
}

#[test]
fn kubectl_finds_it_by_its_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let plugin = folder.path().join("kubectl-kpx");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_kpx"), &plugin).expect("linked");
    let mut command = assert_cmd::Command::new(&plugin);
    let help = finish(command.env_clear().args(["inspect", "services", "-h"]));
    assert!(help.out.contains("Usage: kubectl kpx inspect services [OPTIONS]"), "{}", help.out);
    assert!(run(&["inspect", "services", "-h"]).out.contains("Usage: kpx inspect services [OPTIONS]"));
}

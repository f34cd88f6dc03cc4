//! `kpx report`: the page has what the commands say; where a browser is there, it is looked at through one.

use std::path::Path;

use kpx::capture::command;
use serde_json::Value;

use super::environment::{project, run};

fn node() -> String {
    project("tests/data/lab/node").display().to_string()
}

fn written(folder: &Path) -> String {
    let path = folder.join("node.html").display().to_string();
    let ended = run(&["report", "--html", &path, "--from", &node()]);
    assert_eq!((ended.code, ended.out.as_str()), (0, ""), "{}", ended.err);
    fs_err::read_to_string(path).expect("the page was written")
}

/// What the page must show, as the commands give it to programs: identifiers of findings, names of Services, states of flows.
fn wanted() -> Vec<String> {
    let items = |command: &str| -> Vec<Value> {
        let words: Vec<&str> = command.split(' ').collect();
        let node = node();
        let ended = run(&[&words[..], &["--from", &node, "-o", "json"]].concat());
        let document: Value =
            serde_json::from_str(&ended.out).unwrap_or_else(|e| panic!("{command}: {e}\n{}", ended.err));
        document["items"].as_array().expect("a list").clone()
    };
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let findings = items("audit").into_iter().filter(|item| item["result"] == "found").map(|item| text(&item["id"]));
    let services = items("inspect services").into_iter().filter_map(|item| item["service"].as_str().map(str::to_owned));
    let features = items("preflight --no-try").into_iter().filter(|item| item["answer"] == "does-not");
    let wanted: Vec<String> = findings.chain(services).chain(features.map(|item| text(&item["id"]))).collect();
    assert!(wanted.len() > 20, "{wanted:?}");
    wanted
}

#[test]
fn the_page_has_what_the_commands_say() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = written(folder.path());
    let missing: Vec<_> = wanted().into_iter().filter(|word| !text.contains(word.as_str())).collect();
    assert!(missing.is_empty(), "{missing:?}");
    // It must not fetch anything: no address stands where a browser would follow it by itself.
    assert!(!text.contains("src=") && !text.contains("@import") && !text.contains("url("));
    let stdout = run(&["report", "--html", "-", "--from", &node()]);
    assert!(stdout.out.starts_with("<!DOCTYPE html>") && stdout.out.ends_with("</html>"));
}

#[test]
fn a_page_that_cannot_be_written_is_an_error_and_leaves_the_old_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("absent/node.html").display().to_string();
    let ended = run(&["report", "--html", &path, "--from", &node()]);
    assert!(ended.code == 1 && ended.err.contains("cannot write") && ended.err.contains(&path), "{}", ended.err);
}

#[test]
fn a_browser_shows_it() {
    const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
    let folder = tempfile::tempdir().expect("a folder");
    written(folder.path());
    let page = format!("file://{}", folder.path().join("node.html").display());
    let profile = format!("--user-data-dir={}", folder.path().join("profile").display());
    let arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", &profile, &page];
    let dump = |browser: &&str| match command::output(browser, arguments, None) {
        Err(command::CommandError::NotInstalled { .. }) => None,
        shown => Some(shown.unwrap_or_else(|e| panic!("{browser}: {e}"))),
    };
    let Some(shown) = BROWSERS.iter().find_map(dump) else {
        println!("skipped: none of {BROWSERS:?} is installed");
        return;
    };
    let document = String::from_utf8(shown).expect("a browser prints UTF-8");
    let missing: Vec<_> = wanted().into_iter().filter(|word| !document.contains(word.as_str())).collect();
    assert!(missing.is_empty(), "{missing:?}");
    // A tag that was not closed would have been moved or doubled by the browser: it has as many as kpx wrote.
    let written = fs_err::read_to_string(folder.path().join("node.html")).expect("it is there");
    for tag in ["<table", "</table>", "<tr", "<td", "<h2", "<section", "</section>"] {
        assert_eq!(document.matches(tag).count(), written.matches(tag).count(), "{tag}");
    }
}

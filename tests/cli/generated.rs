//! Committed files that are generated from the command line's definition and from the checks.

use super::environment::{project, run};

#[test]
fn completions_are_fresh() {
    for (shell, file) in [("bash", "kpx.bash"), ("zsh", "_kpx"), ("fish", "kpx.fish")] {
        let committed = fs_err::read_to_string(project("completions").join(file)).expect("it is committed");
        assert!(run(&["completions", shell]).out == committed, "completions/{file} is stale: cargo xtask generate");
    }
}

#[test]
fn the_page_of_checks_is_fresh() {
    let committed = fs_err::read_to_string(project("docs/checks.md")).expect("it is committed");
    assert!(kpx::audit::page() + &kpx::preflight::page() == committed, "docs/checks.md is stale: cargo xtask generate");
}

#[test]
fn man_pages_are_fresh() {
    let fresh = tempfile::tempdir().expect("a folder");
    assert_eq!(run(&["man".as_ref(), fresh.path().as_os_str()]).code, 0);
    let names = |directory: &std::path::Path| {
        let mut names: Vec<_> = fs_err::read_dir(directory)
            .expect("it is there")
            .map(|entry| entry.expect("it can be read").file_name())
            .collect();
        names.sort();
        names
    };
    let committed = project("man");
    assert_eq!(names(fresh.path()), names(&committed), "a command without a page: cargo xtask generate");
    for name in names(&committed) {
        let read = |directory: &std::path::Path| fs_err::read_to_string(directory.join(&name)).expect("it can be read");
        assert!(read(fresh.path()) == read(&committed), "man/{} is stale: cargo xtask generate", name.display());
    }
}

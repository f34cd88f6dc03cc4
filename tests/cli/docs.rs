//! The documents: every command they show is one that kpx takes, and what their sessions show is what comes out.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use assert_cmd::Command;

use super::environment::{Run, finish, project};

/// The README and everything below docs/, by their paths below the project's directory.
fn documents() -> Vec<(String, String)> {
    let mut folders = vec![project("docs")];
    let mut files: Vec<PathBuf> = vec![project("README.md")];
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(folder).expect("the documents can be listed") {
            let path = entry.expect("the documents can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "md") {
                files.push(path);
            }
        }
    }
    files.sort();
    let name = |path: &Path| path.strip_prefix(project("")).expect("it is below it").display().to_string();
    files.iter().map(|path| (name(path), fs_err::read_to_string(path).expect("a document can be read"))).collect()
}

/// The words of a command line, up to whatever ends the command: a pipe, a comment, or prose set off by two blanks.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let (mut quote, mut blanks) = (None, 0);
    for letter in line.chars() {
        match (quote, letter) {
            (Some(open), _) if letter == open => quote = None,
            (None, '\'' | '"') => quote = Some(letter),
            (None, '|' | '>' | ';' | '&' | '#') => break,
            (None, ' ') => {
                blanks += 1;
                if blanks == 2 {
                    break;
                }
                words.push(String::new());
                continue;
            }
            _ => words.last_mut().expect("there is one").push(letter),
        }
        blanks = 0;
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The command lines in a text: those of sessions, of lists of commands, and of scripts.
fn commands(text: &str) -> Vec<(usize, &str)> {
    let mut code = false;
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let bare = line.trim_start();
        code ^= bare.starts_with("```");
        let line = bare.trim_start_matches("- ").trim_start_matches("$ ").trim_start_matches("sudo ");
        let shown = code || bare.len() + 4 <= text.lines().nth(number).map_or(0, str::len);
        if shown && line.starts_with("kpx ") && !line.contains('…') {
            found.push((number + 1, line));
        }
    }
    found
}

#[test]
fn every_command_that_a_document_shows_is_one_that_kpx_takes() {
    let mut wrong = Vec::new();
    let mut all = 0;
    for (name, text) in documents() {
        for (number, line) in commands(&text) {
            all += 1;
            if let Err(error) = kpx::cmd::parse(words(line).into_iter().map(OsString::from))
                && error.use_stderr()
            {
                wrong.push(format!("{name}:{number}: {line}\n{error}"));
            }
        }
    }
    println!("{all} commands in documents");
    assert!(all > 40, "{all}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// One command of a session and what the document shows of its output.
struct Shown<'a> {
    line: usize,
    command: &'a str,
    output: Vec<&'a str>,
    /// Code that `echo $?` shows behind it.
    code: i32,
}

/// The commands of the sessions (```console) in a document.
fn sessions(text: &str) -> Vec<Shown<'_>> {
    let mut found: Vec<Shown<'_>> = Vec::new();
    let (mut inside, mut asked) = (false, false);
    for (number, line) in text.lines().enumerate() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if inside && line == "$ echo $?" {
            asked = true;
        } else if inside && let Some(command) = line.strip_prefix("$ ") {
            found.push(Shown { line: number + 1, command, output: Vec::new(), code: 0 });
        } else if inside && let Some(last) = found.last_mut() {
            if asked {
                last.code = line.trim().parse().expect("a code follows echo $?");
            } else if !line.is_empty() && line != "…" {
                last.output.push(line);
            }
            asked = false;
        }
    }
    found
}

/// Runs a command of a session where its files are.
fn live(command: &str, folder: &Path) -> Run {
    let binary = Path::new(env!("CARGO_BIN_EXE_kpx")).parent().expect("it is in a folder");
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", binary.display());
    finish(
        Command::new("sh")
            .env_clear()
            .env("PATH", path)
            .env("COLUMNS", "80")
            .env("LANG", "C.UTF-8")
            .current_dir(folder)
            .args(["-c", command]),
    )
}

/// Copies a folder of files.
fn copy(from: &Path, to: &Path) {
    fs_err::create_dir(to).expect("a folder can be made");
    for entry in fs_err::read_dir(from).expect("the recording can be listed") {
        let path = entry.expect("the recording can be listed").path();
        fs_err::copy(&path, to.join(path.file_name().expect("it has a name"))).expect("it can be copied");
    }
}

#[test]
fn what_the_sessions_of_the_guides_show_is_what_comes_out() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    copy(&project("tests/data/lab/node"), &folder.path().join("node-a"));
    for kernel in ["config-6.1", "config-6.12"] {
        fs_err::copy(project("tests/data/kernels").join(kernel), folder.path().join(kernel)).expect("it can be copied");
    }
    let mut wrong = Vec::new();
    let mut all = 0;
    for (name, text) in documents() {
        for shown in sessions(&text) {
            all += 1;
            let run = live(shown.command, folder.path());
            let mut rest = run.out.lines();
            let missing = shown.output.iter().find(|line| !rest.any(|printed| printed.trim_end() == **line));
            if let Some(missing) = missing {
                wrong.push(format!(
                    "{name}:{}: {}: not printed, or not there: {missing}\n{}{}",
                    shown.line, shown.command, run.out, run.err
                ));
            }
            if run.code != shown.code {
                wrong.push(format!(
                    "{name}:{}: {}: exit code {}, not {}\n{}",
                    shown.line, shown.command, run.code, shown.code, run.err
                ));
            }
        }
    }
    assert!(all >= 8, "{all} commands");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

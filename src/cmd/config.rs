//! Defaults of options from files and from the environment: flags, then `KPX_*`, then files, then what kpx has built in.
//!
//! A file names options as the command line does, those of a command in a table of its name. So it can say nothing that a flag could not,
//! and what it says is checked by the parser that checks flags.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::builder::OsStr;
use clap::{Arg, ArgAction, Command};
use toml::{Table, Value};

use crate::error::Hinted;

/// Of the whole machine.
const SYSTEM: &str = "/etc/kpx/config.toml";
/// Names of files instead of those that are looked for; empty: none.
pub(super) const VARIABLE: &str = "KPX_CONFIG";
/// What the variables of options begin with.
const PREFIX: &str = "KPX";

/// Why a file of defaults cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConfigFileError {
    /// It cannot be read.
    #[error("cannot read defaults")]
    Read(#[from] std::io::Error),
    /// It is not TOML.
    #[error("{} is not TOML", .path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// Where, and what.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// It names something that is no option.
    #[error("{}: {key} is no option of {command}", .path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The command.
        command: String,
        /// Options of similar names.
        near: Vec<String>,
    },
    /// The value is of a kind that no flag has.
    #[error("{}: {key} is neither text, a number, true or false, nor a list of these", .path.display())]
    Kind {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
}

impl Hinted for ConfigFileError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Unknown { near, .. } if !near.is_empty() => vec![format!("there is {}", near.join(", "))],
            Self::Unknown { command, .. } => vec![format!("list the options: {command} --help")],
            Self::Read(_) | Self::Toml { .. } | Self::Kind { .. } => {
                vec![format!("without it: {VARIABLE}= kpx …, or --config with another file")]
            }
        }
    }
}

/// A file of defaults.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    table: Table,
}

/// The files that count, the weakest first: of the machine and of the user; or the one that is named.
pub(super) fn files(
    given: Option<&Path>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Vec<File>, ConfigFileError> {
    let named = given.map(Path::to_owned).or_else(|| variable(VARIABLE).map(PathBuf::from));
    if let Some(path) = named {
        return if path.as_os_str().is_empty() { Ok(Vec::new()) } else { Ok(vec![File::read(path)?]) };
    }
    let folder = variable("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| Some(PathBuf::from(variable("HOME").filter(|home| !home.is_empty())?).join(".config")));
    let own = folder.map(|folder| folder.join("kpx/config.toml"));
    let mut found = Vec::new();
    for path in [Some(PathBuf::from(SYSTEM)), own].into_iter().flatten() {
        match File::read(path) {
            Ok(file) => found.push(file),
            Err(ConfigFileError::Read(error)) if is_absent(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn is_absent(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    // Another user's home is nobody's business.
    matches!(error.kind(), NotFound | NotADirectory | PermissionDenied)
}

impl File {
    fn read(path: PathBuf) -> Result<Self, ConfigFileError> {
        let text = fs_err::read_to_string(&path)?;
        Self::parse(path, &text)
    }

    fn parse(path: PathBuf, text: &str) -> Result<Self, ConfigFileError> {
        match text.parse() {
            Ok(table) => Ok(Self { path, table }),
            Err(source) => Err(ConfigFileError::Toml { path, source: Box::new(source) }),
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// The command line with these files' defaults, and with a variable for every option.
pub(super) fn with_defaults(command: Command, files: &[File]) -> Result<Command, ConfigFileError> {
    let mut command = with_variables(command, PREFIX, true);
    for file in files {
        command = of_file(command, file, &file.table, "kpx")?;
    }
    Ok(command)
}

/// Options that are about one run and no other: to have a default for them would be a trap.
const ONE_RUN: [&str; 5] = ["config", "help", "version", "from", "accept"];

fn takes_default(arg: &Arg) -> bool {
    arg.get_long().is_some_and(|long| !ONE_RUN.contains(&long)) && !arg.is_required_set()
}

fn with_variables(command: Command, prefix: &str, is_root: bool) -> Command {
    let shout = |name: &str| name.replace('-', "_").to_uppercase();
    let names: Vec<(String, String)> = command
        .get_arguments()
        .filter(|arg| takes_default(arg) && arg.get_env().is_none() && (is_root || !arg.is_global_set()))
        .map(|arg| (arg.get_id().to_string(), format!("{prefix}_{}", shout(arg.get_long().unwrap_or_default()))))
        .collect();
    let below: Vec<(String, bool)> =
        command.get_subcommands().map(|below| (below.get_name().to_owned(), below.is_hide_set())).collect();
    let command = names.into_iter().fold(command, |command, (id, variable)| {
        command.mut_arg(id, |arg| arg.env(OsStr::from(variable)).hide_env(true))
    });
    // Commands on behalf of others do what these tell them, and nothing else.
    below.into_iter().filter(|(_, hidden)| !hidden).fold(command, |command, (name, _)| {
        let prefix = format!("{prefix}_{}", shout(&name));
        command.mut_subcommand(name, |below| with_variables(below, &prefix, false))
    })
}

fn of_file(mut command: Command, file: &File, table: &Table, words: &str) -> Result<Command, ConfigFileError> {
    for (key, value) in table {
        let below = command.get_subcommands().any(|below| below.get_name() == key && !below.is_hide_set());
        let arg = command
            .get_arguments()
            .find(|arg| arg.get_long() == Some(key) && takes_default(arg))
            .map(|arg| (arg.get_id().to_string(), takes_list(arg)));
        command = match (arg, value) {
            (None, Value::Table(inner)) if below => {
                let words = format!("{words} {key}");
                let mut trouble = None;
                let changed = command.mut_subcommand(key, |below| {
                    of_file(below.clone(), file, inner, &words).unwrap_or_else(|error| {
                        trouble = Some(error);
                        below
                    })
                });
                if let Some(trouble) = trouble {
                    return Err(trouble);
                }
                changed
            }
            (Some((id, list)), value) => {
                let values = values(value, list)
                    .ok_or_else(|| ConfigFileError::Kind { path: file.path.clone(), key: key.clone() })?;
                command.mut_arg(id, |arg| arg.default_values(values.into_iter().map(OsStr::from)))
            }
            (None, _) => {
                return Err(ConfigFileError::Unknown {
                    path: file.path.clone(),
                    key: key.clone(),
                    command: words.to_owned(),
                    near: near(&command, key),
                });
            }
        };
    }
    Ok(command)
}

fn takes_list(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Append)
        || arg.get_value_delimiter().is_some()
        || arg.get_num_args().is_some_and(|range| range.max_values() > 1)
}

fn values(value: &Value, list: bool) -> Option<Vec<String>> {
    let one = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Boolean(yes) => Some(yes.to_string()),
        Value::Float(_) | Value::Datetime(_) | Value::Array(_) | Value::Table(_) => None,
    };
    match value {
        Value::Array(all) if list => all.iter().map(one).collect(),
        value => Some(vec![one(value)?]),
    }
}

/// Options and commands with a part of the name.
fn near(command: &Command, key: &str) -> Vec<String> {
    let options = command.get_arguments().filter(|arg| takes_default(arg)).filter_map(Arg::get_long);
    let all = options.chain(command.get_subcommands().filter(|below| !below.is_hide_set()).map(Command::get_name));
    let parts: Vec<&str> = key.split(['-', '_']).filter(|part| part.len() > 2).collect();
    all.filter(|name| parts.iter().any(|part| name.contains(part))).take(4).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str, line: &str) -> Result<clap::ArgMatches, String> {
        let file = File::parse(PathBuf::from("c.toml"), text).map_err(|e| e.to_string())?;
        let command = with_defaults(super::super::command(), &[file]).map_err(|e| e.to_string())?;
        command.try_get_matches_from(line.split(' ')).map_err(|e| e.to_string())
    }

    #[test]
    fn files_give_defaults_and_flags_win() {
        let text = "bpffs = '/bpf'\nverbose = 2\nno-headers = true\n[agent]\ninterval = '30s'\npaths = ['sockets']\n\
                    [inspect.services]\nvia = 'api'\n";
        let matches = parsed(text, "kpx agent --interval 5s").expect("it is a command line");
        let (_, agent) = matches.subcommand().expect("a command");
        assert_eq!(agent.get_one::<PathBuf>("bpffs"), Some(&PathBuf::from("/bpf")));
        assert_eq!((agent.get_count("verbose"), agent.get_flag("no_headers")), (2, true));
        assert_eq!(agent.get_one::<std::time::Duration>("interval"), Some(&std::time::Duration::from_secs(5)));
        assert_eq!(agent.get_raw("paths").expect("it has a default").collect::<Vec<_>>(), ["sockets"]);
        let matches = parsed(text, "kpx --bpffs /other inspect services").expect("it is a command line");
        let (_, services) = matches.subcommand().and_then(|(_, inspect)| inspect.subcommand()).expect("a command");
        assert_eq!(services.get_one::<PathBuf>("bpffs"), Some(&PathBuf::from("/other")));
        assert_eq!(services.get_raw("via").expect("it has a default").collect::<Vec<_>>(), ["api"]);
    }

    #[test]
    fn what_is_no_option_or_no_value_is_named() {
        let error = |text: &str| parsed(text, "kpx version").expect_err(text);
        assert_eq!(error("colour = 'never'"), "c.toml: colour is no option of kpx");
        assert_eq!(error("[agent]\nspeed = 1"), "c.toml: speed is no option of kpx agent");
        assert_eq!(error("from = 'node-a'"), "c.toml: from is no option of kpx", "one run's");
        assert_eq!(
            error("output = 1.5"),
            "c.toml: output is neither text, a number, true or false, nor a list of these"
        );
        assert!(error("output = 'xml'").contains("invalid value 'xml' for '--output <FORMAT>'"));
        assert_eq!(error("x ="), "c.toml is not TOML");
    }

    #[test]
    fn every_option_of_people_has_a_variable() {
        let command = with_defaults(super::super::command(), &[]).expect("no file, no fault");
        let variable = |command: &Command, id: &str| {
            command.get_arguments().find(|arg| arg.get_id() == id).and_then(|arg| Some(arg.get_env()?.to_owned()))
        };
        assert_eq!(variable(&command, "output"), Some("KPX_OUTPUT".into()));
        assert_eq!(variable(&command, "node_name"), Some("KPX_NODE_NAME".into()));
        assert_eq!(variable(&command, "kubeconfig"), Some("KUBECONFIG".into()));
        assert_eq!(variable(&command, "from"), None);
        let agent = command.find_subcommand("agent").expect("there is one");
        assert_eq!(variable(agent, "health_address"), Some("KPX_AGENT_HEALTH_ADDRESS".into()));
        let mut all: Vec<OsString> = Vec::new();
        let mut left = vec![&command];
        while let Some(one) = left.pop() {
            all.extend(one.get_arguments().filter_map(|arg| Some(arg.get_env()?.to_owned())));
            left.extend(one.get_subcommands());
        }
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count, "no two options share one");
        for taken in [crate::ui::LOG_VARIABLE, VARIABLE, "KPX_CRASH", "KPX_COMMIT"] {
            assert!(!all.iter().any(|name| name == taken), "{taken} means something else");
        }
    }
}

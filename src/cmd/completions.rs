//! `kpx completions` and the hidden `kpx man`: what is generated from the command line's own definition.

use std::io;
use std::path::{Path, PathBuf};

use clap::Command;
use clap_complete::Shell;

use super::Context;
use crate::ui::{Exit, Failure};

const EXAMPLES: &str = "\
Examples:
  Complete kpx in this bash
    $ source <(kpx completions bash)

  Complete kpx in every zsh
    $ kpx completions zsh > \"${fpath[1]}/_kpx\"";

/// Arguments of `kpx completions`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Arguments of `kpx man`.
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// Directory to write the pages to
    directory: PathBuf,
}

pub(super) fn run(context: &mut Context, args: &Args) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "kpx", &mut script);
    context.ui.raw(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Fine)
}

pub(super) fn man(_context: &mut Context, args: &ManArgs) -> Result<Exit, Failure> {
    let mut command = super::command().disable_help_subcommand(true);
    command.build();
    write_pages(&command, &args.directory).map_err(|error| Failure::new(format!("cannot write man pages: {error}")))?;
    Ok(Exit::Fine)
}

fn write_pages(command: &Command, directory: &Path) -> io::Result<()> {
    fs_err::create_dir_all(directory)?;
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        write_pages(below, directory)?;
    }
    // A page is the long help: what `-h` leaves out for brevity belongs here.
    let page = command.clone().mut_args(|arg| arg.hide_short_help(false));
    let page = clap_mangen::Man::new(page).source(concat!("kpx ", env!("CARGO_PKG_VERSION"))).manual("kpx");
    let mut text = Vec::new();
    page.render(&mut text)?;
    fs_err::write(directory.join(page.get_filename()), text)
}

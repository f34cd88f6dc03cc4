//! Parses, runs, turns the result into an exit code.

use std::process::ExitCode;

use clap::Parser as _;

use kpx::cmd::{self, Cli};
use kpx::ui::Exit;

fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => cmd::run(cli).into(),
        Err(error) => {
            // A failure to print help to a closed pipe is nobody's concern.
            let _ = error.print();
            if error.use_stderr() { Exit::Usage.into() } else { Exit::Fine.into() }
        }
    }
}

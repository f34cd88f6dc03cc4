//! Parses, runs, turns the result into an exit code.

use std::process::ExitCode;

use kpx::cmd;
use kpx::ui::Exit;

fn main() -> ExitCode {
    match cmd::parse_here(std::env::args_os()) {
        Ok(cli) => cmd::run(cli).into(),
        Err(error) => {
            // A failure to print help to a closed pipe is nobody's concern.
            let _ = error.print();
            if error.use_stderr() { Exit::Usage.into() } else { Exit::Fine.into() }
        }
    }
}

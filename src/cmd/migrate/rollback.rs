//! `kpx migrate rollback`.

use super::super::Context;
use super::narrator::{Narrator, close, close_failed, stop_flag};
use super::{DrainArgs, LockArgs, command_line};
use crate::migrate::{Direction, Outcome, RunOptions, Session};
use crate::ui::{Exit, Failure};

const EXAMPLES: &str = "\
Examples:
  Bring this node back to the rules
    $ kpx migrate rollback

  The same without waiting for UDP sockets: their next datagram goes through the rules
    $ kpx migrate rollback --force";

/// Arguments of `kpx migrate rollback`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// Do not wait for sockets and flows that eBPF alone translates, nor for rules that are behind the API
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    drain: DrainArgs,
    #[command(flatten)]
    lock: LockArgs,
}

pub(super) fn run(context: &mut Context, args: &Args) -> Result<Exit, Failure> {
    let stop = stop_flag()?;
    let session = Session::open(super::session_options(&context.globals))?;
    let _lock = session.lock(args.lock.lock_timeout)?;
    let Some(migration) = session.current()? else {
        close(&mut context.ui, Exit::Fine, "Nothing is migrated on this node: the rules serve.", &[], None)?;
        return Ok(Exit::Fine);
    };
    let options = RunOptions { drain_timeout: args.drain.drain_timeout, force: args.force, ..RunOptions::default() };
    let mut narrator = Narrator::begin(&mut context.ui, &migration.id)?;
    let result = session.backward(&migration, options, &stop, &mut |notice| narrator.tell(notice));
    narrator.finish()?;
    let again = command_line(&context.globals, "migrate rollback");
    match result {
        Ok(Outcome::RolledBack) => {
            let text = "The node is as before: the rules serve, and nothing of kpx is on it.";
            let took = session.took(&migration, Direction::Backward)?;
            close(&mut context.ui, Exit::Fine, text, &[], took.as_ref())?;
            Ok(Exit::Fine)
        }
        Ok(_) => {
            let text = "Interrupted; the step at hand was finished and everything is recorded.";
            close(&mut context.ui, Exit::Interrupted, text, &[("go on", again)], None)?;
            Ok(Exit::Interrupted)
        }
        Err(error) => {
            let waiting = error.is_waiting();
            let exit = if error.is_interrupted() { Exit::Interrupted } else { Exit::Partial };
            let failure: Failure = error.into();
            let failure = failure.exit(exit).hint(format!("go on: {again}"));
            let failure = if waiting {
                failure
                    .hint(format!("wait longer: {again} --drain-timeout 5m"))
                    .hint(format!("do not wait (such sockets' next datagrams go through the rules): {again} --force"))
            } else {
                failure
            };
            Err(close_failed(&mut context.ui, failure))
        }
    }
}

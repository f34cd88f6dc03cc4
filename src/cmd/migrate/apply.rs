//! `kpx migrate apply`.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use super::super::Context;
use super::narrator::{Narrator, close, close_failed, stop_flag};
use super::plan::PlanReport;
use super::{DrainArgs, LockArgs, ProbeArgs, WishArgs, command_line};
use crate::migrate::{Direction, Migration, Outcome, PhaseName, Plan, RunOptions, Session, SessionError, Wishes};
use crate::ui::{Exit, Failure};

const EXAMPLES: &str = "\
Examples:
  Plan, show the plan, ask, and carry this node over
    $ kpx migrate apply

  Carry out a saved plan as far as shadow mode, and stay there
    $ kpx migrate apply node-a.plan --until shadow --yes

  Say who runs kube-proxy where that does not show
    $ kpx migrate apply --driver systemd=proxy.service";

/// Arguments of `kpx migrate apply`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// A saved plan; refused when the node has changed since [default: plan now]
    #[arg(value_name = "PLAN")]
    plan: Option<PathBuf>,
    /// Stop after this phase
    #[arg(long, value_enum, value_name = "PHASE")]
    until: Option<PhaseName>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    wishes: WishArgs,
    #[command(flatten)]
    lock: LockArgs,
    #[command(flatten)]
    probe: ProbeArgs,
    #[command(flatten)]
    drain: DrainArgs,
}

pub(super) fn run(context: &mut Context, args: &Args) -> Result<Exit, Failure> {
    if args.plan.is_some() && args.wishes.wishes() != Wishes::default() {
        return Err(Failure::usage("a saved plan says itself how kube-proxy is stopped, and what is accepted")
            .hint("give these options to kpx migrate plan"));
    }
    let stop = stop_flag()?;
    let session = Session::open(super::session_options(&context.globals))?;
    let _lock = session.lock(args.lock.lock_timeout)?;
    let migration = match session.current()? {
        Some(migration) => resume(context, args, &session, migration)?,
        None => match begin(context, args, &session)? {
            Ok(migration) => migration,
            Err(exit) => return Ok(exit),
        },
    };
    carry_out(context, args, &session, &migration, &stop)
}

/// Goes on with a migration that is under way. The node may have changed since: the gates look at it as it is now.
fn resume(context: &mut Context, args: &Args, session: &Session, migration: Migration) -> Result<Migration, Failure> {
    if let Some(path) = &args.plan
        && Plan::read(path)? != migration.plan()?
    {
        return Err(SessionError::OtherPlan { id: migration.id }.into());
    }
    let wishes = args.wishes.wishes();
    if wishes != Wishes::default() {
        session.amend(&migration, &wishes)?;
    }
    let now = session.blockers(&migration)?;
    if now.is_blocked() {
        context.ui.report(&PlanReport(&now, None))?;
        return Err(Failure::new(format!("migration {} cannot go on: its plan is blocked now", migration.id))
            .exit(Exit::ActOn)
            .hint(command_line(&context.globals, "migrate rollback")));
    }
    context.ui.note(&format!("migration {} goes on", migration.id));
    Ok(migration)
}

/// Plans or reads a plan, shows it and asks.
fn begin(context: &mut Context, args: &Args, session: &Session) -> Result<Result<Migration, Exit>, Failure> {
    let spinner = context.ui.progress(None, "reading the node");
    let saved = args.plan.as_deref().map(Plan::read).transpose()?;
    let wishes = saved.as_ref().map_or_else(|| args.wishes.wishes(), Plan::wishes);
    let now = session.plan(&wishes)?;
    drop(spinner);
    if let Some(saved) = saved {
        let changes = saved.changes(&now);
        if !changes.is_empty() {
            return Err(SessionError::PlanStale { changes }.into());
        }
    }
    if now.is_blocked() {
        context.ui.report(&PlanReport(&now, None))?;
        return Ok(Err(Exit::ActOn));
    }
    // A saved plan was agreed to when it was made.
    if args.plan.is_none() {
        let text_only = !context.ui.format().is_data();
        if text_only {
            context.ui.report(&PlanReport(&now, None))?;
        }
        if !args.yes && !agreed(context, &now.node.name)? {
            context.ui.note("nothing was changed");
            return Ok(Err(Exit::Failed));
        }
    }
    Ok(Ok(session.create(&now)?))
}

fn agreed(context: &mut Context, name: &str) -> Result<bool, Failure> {
    let question = format!("Type the name of the node ({name}) to carry it over:");
    match context.ui.ask(&question) {
        Some(answer) => Ok(answer == name),
        None => Err(Failure::usage("nobody can be asked here")
            .hint("to carry the node over without a question, give --yes")
            .hint("or save the plan and apply that: kpx migrate plan --out FILE, kpx migrate apply FILE")),
    }
}

fn carry_out(
    context: &mut Context,
    args: &Args,
    session: &Session,
    migration: &Migration,
    stop: &AtomicBool,
) -> Result<Exit, Failure> {
    let options =
        RunOptions { probe_timeout: args.probe.probe_timeout, drain_timeout: args.drain.drain_timeout, force: false };
    let mut narrator = Narrator::begin(&mut context.ui, &migration.id)?;
    let result = session.forward(migration, args.until, options, stop, &mut |notice| narrator.tell(notice));
    narrator.finish()?;
    let verify = command_line(&context.globals, "migrate verify");
    let rollback = command_line(&context.globals, "migrate rollback");
    let again = command_line(&context.globals, "migrate apply");
    let (exit, text, next) = match result {
        Ok(Outcome::Complete) => (
            Exit::Fine,
            "eBPF serves this node's Services; kube-proxy's rules are gone.".to_owned(),
            vec![("verify", verify), ("roll back", rollback)],
        ),
        Ok(Outcome::Waiting { phase: PhaseName::Remove, why }) => (
            Exit::Fine,
            format!(
                "eBPF serves what is new. Virtual services and kube-ipvs0 stay for {why}; no server of theirs takes a new one."
            ),
            vec![
                ("remove them once these have ended", again.clone()),
                ("cut what has not ended in time", format!("{again} --accept cut-connections")),
                ("roll back", rollback),
            ],
        ),
        Ok(Outcome::Waiting { why, .. }) => (
            Exit::Fine,
            format!("eBPF serves this node's Services. Conntrack and NAT are kept at work for {why}."),
            vec![("let go of them once these have ended", again), ("verify", verify), ("roll back", rollback)],
        ),
        Ok(Outcome::Reached(phase)) => (
            Exit::Fine,
            format!("Stopped after phase {phase}, as asked; {}.", phase.who_serves()),
            vec![("go on", again), ("verify", verify), ("roll back", rollback)],
        ),
        Ok(Outcome::GateFailed { phase, undone, .. }) => {
            let now = if undone { " The phase was undone." } else { "" };
            (
                Exit::Partial,
                format!("Stopped: the gate after phase {phase} was not passed.{now}"),
                vec![("try again", again), ("roll back", rollback)],
            )
        }
        Ok(Outcome::Interrupted) => (
            Exit::Interrupted,
            "Interrupted; the step at hand was finished and everything is recorded.".to_owned(),
            vec![("go on", again), ("roll back", rollback)],
        ),
        Ok(Outcome::RolledBack) => (Exit::Fine, "Rolled back.".to_owned(), Vec::new()),
        Err(error) => {
            let part_way = error.is_part_way();
            let failure: Failure = error.into();
            let failure = if part_way { failure.exit(Exit::Partial) } else { failure };
            let failure = failure.hint(format!("go on: {again}")).hint(format!("roll back: {rollback}"));
            return Err(close_failed(&mut context.ui, failure));
        }
    };
    let took = session.took(migration, Direction::Forward)?;
    close(&mut context.ui, exit, &text, &next, took.as_ref())?;
    Ok(exit)
}

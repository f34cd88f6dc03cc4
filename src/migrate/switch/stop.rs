//! The step of phase *stop*.

use std::time::{Duration, Instant};

use super::packets::{self, SERVE_PACKETS};
use super::proxy::{self, ProxyError};
use crate::error::with_causes;
use crate::migrate::gates::equality;
use crate::migrate::journal::Mark;
use crate::migrate::phase::{Check, Finding, Gate, Lasting, Step};
use crate::migrate::steps::{Facts, done};
use crate::migrate::world::{NodeWorld, StepError};

/// Sees to it that no kube-proxy writes rules.
pub(in crate::migrate) struct Stop;

/// Name of the step.
pub(in crate::migrate) const STOP: &str = "stop-kube-proxy";

/// How long the agent may take to listen on kube-proxy's ports, which it does as soon as they are free.
const AGENT: Duration = Duration::from_secs(10);

impl Step<NodeWorld<'_>> for Stop {
    fn id(&self) -> &'static str {
        STOP
    }

    fn lasting(&self) -> Lasting {
        Lasting::IfBegun
    }

    fn describe(&self, facts: &Facts) -> String {
        facts.driver.describe_stop()
    }

    fn describe_undo(&self, facts: &Facts) -> String {
        facts.driver.describe_start()
    }

    fn check(&self, world: &mut NodeWorld<'_>) -> Result<Check, StepError> {
        if let Err(why) = proxy::is_away(world) {
            return Ok(Check::NotDone(why));
        }
        Ok(done(!proxy::is_rewritten(world)?, "kube-proxy's rules have changed since it was stopped"))
    }

    fn perform(&self, world: &mut NodeWorld<'_>) -> Result<(), StepError> {
        let followed = world.no_agent || proxy::agent_runs() || proxy::agent_answers(world.node);
        if !followed {
            return Err(ProxyError::NoAgent.into());
        }
        proxy::stop(world)?;
        proxy::keep_rules(world)
    }

    fn undo(&self, world: &mut NodeWorld<'_>) -> Result<(), StepError> {
        // Whoever takes the packet path away has seen to the rules already.
        let started = match world.mark(SERVE_PACKETS)? {
            Mark::Untouched => packets::kube_proxy_back(world),
            _ => proxy::start(world).map_err(StepError::from),
        };
        match started {
            Ok(true) => {}
            Ok(false) => world.note("kube-proxy does not run: start it, or nobody keeps the rules in step".to_owned()),
            Err(error) if world.options.force => {
                let why = with_causes(&error);
                world.note(format!("kube-proxy does not run ({why}): start it, or nobody keeps the rules in step"));
            }
            Err(error) => return Err(error),
        }
        proxy::forget(world)
    }

    fn is_undone(&self, world: &mut NodeWorld<'_>) -> Result<bool, StepError> {
        Ok(world.options.force || !world.driver.starts() || !proxy::seen(world.node).is_empty())
    }
}

/// The rules that nobody writes any more are what the API says, and somebody follows the API.
pub(in crate::migrate) struct Stopped;

impl Gate<NodeWorld<'_>> for Stopped {
    fn describe(&self) -> &'static str {
        "API, rules and maps still agree, and an agent follows the API"
    }

    fn findings(&self, world: &mut NodeWorld<'_>) -> Result<Vec<Finding>, StepError> {
        let mut out = equality(world)?;
        out.push(agent(world));
        Ok(out)
    }
}

fn agent(world: &NodeWorld<'_>) -> Finding {
    if world.no_agent {
        return Finding::ok("agent", "accepted: nobody follows the API");
    }
    let deadline = Instant::now() + AGENT;
    while !proxy::agent_answers(world.node) {
        if Instant::now() >= deadline {
            return Finding::fail("agent", "no agent answers http://127.0.0.1:10249/proxyMode");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Finding::ok("agent", "answers in kube-proxy's place")
}

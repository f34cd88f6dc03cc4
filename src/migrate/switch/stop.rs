//! The step of phase *stop*.

use std::time::{Duration, Instant};

use super::proxy::{self, ProxyError};
use crate::migrate::gates::equality;
use crate::migrate::phase::{Check, Finding, Gate, Lasting, Step};
use crate::migrate::steps::{Facts, done};
use crate::migrate::world::{NodeWorld, StepError};

/// Sees to it that no kube-proxy writes rules.
pub(in crate::migrate) struct Stop;

/// How long the agent may take to listen on kube-proxy's ports, which it does as soon as they are free.
const AGENT: Duration = Duration::from_secs(10);

impl Step<NodeWorld<'_>> for Stop {
    fn id(&self) -> &'static str {
        "stop-kube-proxy"
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
        let seen = proxy::seen(world.node);
        Ok(done(seen.is_empty(), &format!("kube-proxy runs: {}", seen.join("; "))))
    }

    fn perform(&self, world: &mut NodeWorld<'_>) -> Result<(), StepError> {
        let followed = world.no_agent || proxy::agent_runs() || proxy::agent_answers(world.node);
        if !followed {
            return Err(ProxyError::NoAgent.into());
        }
        Ok(proxy::stop(world.node, &world.driver, &world.migration.dir.join("stop.log"))?)
    }

    fn undo(&self, world: &mut NodeWorld<'_>) -> Result<(), StepError> {
        let runs = proxy::start(world.node, &world.driver, &world.migration.dir.join("start.log"))?;
        if !runs {
            world.note("kube-proxy does not run: start it, or nobody keeps the rules in step".to_owned());
        }
        Ok(())
    }

    fn is_undone(&self, world: &mut NodeWorld<'_>) -> Result<bool, StepError> {
        Ok(world.driver.start().is_none() || !proxy::seen(world.node).is_empty())
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

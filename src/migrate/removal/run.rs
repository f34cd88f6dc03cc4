//! Doing it: read, compute, commit, and read again until nothing is left to do.

use super::change::{Change, CommitError};
use super::{Count, Removal, RemovalError, Restoration, State, ipvs};
use crate::capture::Node;
use crate::model::KubeVersion;

/// How often a node is read before giving up. The last reading of a run that nobody disturbs is the second.
const TRIES: usize = 8;

/// What was changed, change by change.
pub type Done = Vec<Count>;

/// Takes away all that [`Removal::of`] finds on the node, and looks until nothing is left. Refuses whatever is not in `kept` as it
/// is on the node.
pub fn remove(node: &Node, kept: &State, kubelet: Option<KubeVersion>) -> Result<Done, RemovalError> {
    converge(
        || State::read(node),
        |now| {
            let removal = Removal::of(now, kubelet)?;
            removal.is_in(kept, now)?;
            Ok(removal.changes())
        },
        Change::commit,
    )
}

/// Keeps kube-proxy's virtual services from anything new: each server gets weight 0, and what is open goes on.
pub fn drain(node: &Node) -> Result<Done, RemovalError> {
    let compute = |now: &State| Ok(ipvs::drain(&now.virtual_services()?).into_iter().collect());
    converge(|| State::read(node), compute, Change::commit)
}

/// Puts back all that a removal has taken, and looks until it is all in its place.
pub fn restore(node: &Node, kept: &State) -> Result<Done, RemovalError> {
    converge(
        || State::read(node),
        |now| Restoration::of(kept, now).map(|restoration| restoration.changes),
        Change::commit,
    )
}

/// Reads, computes and commits until there is nothing to commit. A change that fails is computed anew from what is there then;
/// if it is the same again, and fails again, nobody's change was the reason.
fn converge(
    mut read: impl FnMut() -> Result<State, RemovalError>,
    mut compute: impl FnMut(&State) -> Result<Vec<Change>, RemovalError>,
    mut commit: impl FnMut(&Change) -> Result<(), CommitError>,
) -> Result<Done, RemovalError> {
    let mut done = Vec::new();
    let mut failed: Option<Change> = None;
    for tries in 1.. {
        let changes = compute(&read()?)?;
        let Some(first) = changes.first() else { return Ok(done) };
        if tries > TRIES {
            return Err(RemovalError::Restless { place: first.count.place.clone(), tries: TRIES });
        }
        for change in changes {
            match commit(&change) {
                Ok(()) => done.push(change.count),
                Err(source) if failed.as_ref() == Some(&change) || !source.is_refusal() => {
                    return Err(RemovalError::Commit { place: change.count.place, source });
                }
                Err(source) => {
                    tracing::debug!(%source, place = change.count.place, "refused; read again");
                    failed = Some(change);
                    break;
                }
            }
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::super::state::Text;
    use super::*;
    use crate::capture::Variant;
    use crate::capture::command::CommandError;
    use crate::model::Family;
    use std::cell::RefCell;
    use std::os::unix::process::ExitStatusExt as _;

    const JUMP: &str = "-A INPUT -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD\n";

    fn state(rules: &str) -> State {
        let text = format!("*filter\n:INPUT ACCEPT [0:0]\n:KUBE-FORWARD - [0:0]\n:X - [0:0]\n{rules}COMMIT\n");
        let text = Text { variant: Variant::Nft, family: Family::V4, bytes: text.into(), place: "here".into() };
        State { rules: vec![text], ..State::default() }
    }

    fn gone() -> State {
        let mut state = state("");
        state.rules[0].bytes = b"*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n".to_vec();
        state
    }

    fn refused() -> CommitError {
        let status = std::process::ExitStatus::from_raw(256);
        let command = "iptables-nft-restore".into();
        CommandError::Failed { command, status, stderr: "line 4 failed".into() }.into()
    }

    /// Removes, while the node is read as `states` say, and commits end as `outcomes` do; gives what was committed.
    fn remove_while(states: Vec<State>, outcomes: Vec<bool>) -> (Result<Done, RemovalError>, Vec<String>) {
        let (mut states, mut outcomes) = (states.into_iter(), outcomes.into_iter());
        let committed = RefCell::new(Vec::new());
        let result = converge(
            || Ok(states.next().expect("the node is not read more often")),
            |now| Removal::of(now, None).map(Removal::changes),
            |change| {
                committed.borrow_mut().push(change.lines().join("\n") + "\n");
                if outcomes.next().expect("no more commits") { Ok(()) } else { Err(refused()) }
            },
        );
        (result, committed.into_inner())
    }

    #[test]
    fn a_table_that_changes_is_computed_again() {
        let other = "-A X -j KUBE-FORWARD\n";
        let (states, outcomes) = (vec![state(JUMP), state(&[JUMP, other].concat()), state(other)], vec![false, true]);
        let (result, committed) = remove_while(states, outcomes);
        assert_eq!(result.expect("it ends").len(), 1);
        let deletes = JUMP.replace("-A", "-D");
        let first = format!("*filter\n:KUBE-FORWARD - [0:0]\n{deletes}-X KUBE-FORWARD\nCOMMIT\n");
        let second = format!("*filter\n{deletes}COMMIT\n");
        assert_eq!(committed, [first, second], "somebody refers to the chain by now: it stays");
    }

    #[test]
    fn a_refusal_without_a_change_is_an_error() {
        let (result, committed) = remove_while(vec![state(JUMP), state(JUMP)], vec![false, false]);
        let error = result.expect_err("it does not go");
        assert_eq!(error.to_string(), "cannot change iptables-nft IPv4 filter");
        assert_eq!(committed.len(), 2, "what failed for a lock that was held is tried again");
    }

    #[test]
    fn what_always_comes_back_is_given_up() {
        let (result, committed) = remove_while(vec![state(JUMP); TRIES + 1], vec![true; TRIES]);
        let error = result.expect_err("it does not stay away");
        assert!(error.to_string().ends_with("was changed by somebody else each of 8 times"), "{error}");
        assert_eq!(committed.len(), TRIES);
    }

    #[test]
    fn nothing_to_do_commits_nothing() {
        let (result, committed) = remove_while(vec![gone()], Vec::new());
        assert_eq!((result.expect("it ends"), committed), (Vec::new(), Vec::new()));
    }
}

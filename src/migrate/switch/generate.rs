//! kube-proxy's rules without kube-proxy: where it cannot be started on the way back, and its rules are behind the API.

use super::proxy::ProxyError;
use crate::capture::{Captured, Item};
use crate::inspect::proxy_rules;
use crate::migrate::removal::{Form, render, restore};
use crate::migrate::survey::{ReadError, Tables};
use crate::migrate::world::{NodeWorld, StepError};
use crate::model::Family;

/// How kube-proxy has written the rules that stand, by their text.
fn form(text: &str) -> Form {
    let has = |part: &str| text.contains(part);
    let mark = text
        .lines()
        .filter(|line| line.contains("-A KUBE-MARK-MASQ "))
        .find_map(|line| line.split("--set-xmark 0x").nth(1)?.split('/').next())
        .and_then(|mark| u32::from_str_radix(mark, 16).ok());
    let mut endpoints = text.lines().filter(|line| line.contains("-A KUBE-SEP-")).peekable();
    Form {
        mark: mark.unwrap_or(Form::default().mark),
        random_fully: has("--random-fully"),
        drop_invalid: has("--ctstate INVALID"),
        counters: has("--nfacct-name"),
        terse: endpoints.peek().is_some() && endpoints.all(|line| !line.contains("--comment")),
    }
}

/// Brings the rules in step with the API as kube-proxy would have: in its own form, and in the form in which the rules stand.
/// How the node is set up (pods' networks, NodePorts' addresses) is read from these, since nobody else tells any more.
pub(super) fn rules_in_step(world: &NodeWorld<'_>, tables: &Tables) -> Result<(), StepError> {
    let behind = || ProxyError::RulesBehind { differences: tables.differences().len() };
    let standing = proxy_rules::read_node(world.node).map_err(ReadError::from)?;
    let Some(variant) = standing.rules.first().and_then(|rules| rules.mode().variant()) else {
        return Err(behind().into());
    };
    let text = match world.node.read(Item::IptablesSave(Family::V4, variant)).map_err(ReadError::from)? {
        Captured::Present { bytes, .. } => String::from_utf8_lossy(&bytes).into_owned(),
        Captured::Absent { .. } => String::new(),
    };
    let mut table = tables.api.clone();
    table.v4.clone_from(&tables.rules.v4);
    table.v6.clone_from(&tables.rules.v6);
    restore(world.node, &render(&table, variant, form(&text)))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_that_of_the_rules_that_stand() {
        let standing = "[0:0] -A KUBE-MARK-MASQ -j MARK --set-xmark 0x8000/0x8000\n\
                        [0:0] -A KUBE-POSTROUTING -m comment --comment \"x\" -j MASQUERADE\n\
                        [0:0] -A KUBE-SEP-A -p tcp -m tcp -j DNAT --to-destination 10.0.0.1:80\n";
        let expected = Form { mark: 0x8000, random_fully: false, drop_invalid: false, counters: false, terse: true };
        assert_eq!(form(standing), expected);
        assert_eq!(form("").mark, 0x4000);
    }
}

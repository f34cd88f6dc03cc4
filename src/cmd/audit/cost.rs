//! "What it costs" for people.

use crate::audit::{Cost, Growth, Met};
use crate::ui::Table;

/// One row a family; in wide also the rules by chain and each frontend's place.
pub(super) fn tables(costs: &[Cost], wide: bool) -> Vec<Table> {
    if costs.is_empty() {
        return Vec::new();
    }
    let numbers = ["SERVICES", "RULES", "EACH", "BEST", "MEDIAN", "WORST", "OTHERS"];
    let mut table = Table::new(&["RULES-OF", "SERVICES", "RULES", "EACH", "BEST", "MEDIAN", "WORST", "OTHERS"])
        .right(&numbers)
        .title("what it costs: rules, and how many of them a new connection's first packet meets");
    for cost in costs {
        let Met { best, median, worst, others } = cost.met;
        let each = cost.rules.checked_div(cost.services).unwrap_or(0);
        let numbers = [cost.services, cost.rules, each, best, median, worst, others];
        table.row(std::iter::once(cost.tool.clone()).chain(numbers.iter().map(usize::to_string)));
    }
    let mut tables = vec![table.footer(words(costs))];
    if wide {
        let mut chains = Table::new(&["RULES-OF", "CHAIN", "RULES"]).right(&["RULES"]);
        let mut places = Table::new(&["RULES-OF", "SERVICE", "FRONTEND", "CHAIN", "POSITION", "BEST", "WORST"])
            .right(&["POSITION", "BEST", "WORST"]);
        for cost in costs {
            for (chain, rules) in &cost.by_chain {
                chains.row([cost.tool.clone(), chain.clone(), rules.to_string()]);
            }
            for place in &cost.places {
                let position = place.position.map(|n| n.to_string()).unwrap_or_default();
                places.row([
                    cost.tool.clone(),
                    place.service.clone(),
                    place.frontend.clone(),
                    place.chain.clone(),
                    position,
                    place.best.to_string(),
                    place.worst.to_string(),
                ]);
            }
        }
        tables.extend([chains, places]);
    }
    tables
}

/// What the numbers mean, of the family that costs most.
fn words(costs: &[Cost]) -> String {
    let Some(most) = costs.iter().max_by_key(|cost| cost.met.median) else { return String::new() };
    let Growth { rules, median, worst } = most.growth;
    let threshold = most.threshold();
    let pays = if worst == 0 {
        "none to what a connection meets".to_owned()
    } else {
        format!("{median} to the median connection and {worst} to the worst")
    };
    format!(
        "{}: {} ({}). 100 more Services like these add {rules} rules, {pays}. OTHERS is what connections to no Service meet. \
         Counted is the nat table until there is an endpoint; kpx path counts all tables' rules for one packet.",
        most.tool, threshold.advice, threshold.source
    )
}

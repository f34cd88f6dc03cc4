//! The names of Services, which the maps do not hold.

use std::time::{Duration, Instant};

use super::Context;
use crate::model::{Frontend, FrontendKey, ServiceTable};
use crate::source::Via;
use crate::ui::Failure;

/// How long names that are missing are not asked for again.
const PATIENCE: Duration = Duration::from_secs(10);

/// Names as they were read last.
pub(super) struct Names {
    table: ServiceTable,
    read: Instant,
}

impl Names {
    /// Reads them: a node without names is no reason to show nothing.
    pub(super) fn read(context: &mut Context) -> Self {
        let read = |via| Ok::<_, Failure>(context.lift(&context.node()?, via)?.table);
        let given = context.via(None);
        // Once the rules are gone, only the API knows names.
        let table = match read(given) {
            Ok(table) if !table.frontends().is_empty() => Ok(table),
            _ if given != Via::Api => read(Via::Api),
            other => other,
        };
        let table = table.unwrap_or_else(|failure| {
            context.ui.warn(&format!("no names of Services: {}", failure.message));
            ServiceTable::default()
        });
        Self { table, read: Instant::now() }
    }

    /// No names.
    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self { table: ServiceTable::default(), read: Instant::now() }
    }

    /// Reads them again, but not all the time; whether it did.
    pub(super) fn refresh(&mut self, context: &mut Context) -> bool {
        let again = self.read.elapsed() > PATIENCE && !self.table.frontends().is_empty();
        if again {
            *self = Self::read(context);
        }
        again
    }

    /// The frontend that names a Service port with these frontends.
    pub(super) fn of(&self, frontends: &[FrontendKey]) -> Option<&Frontend> {
        frontends.iter().flat_map(|key| self.table.get(key)).find(|frontend| frontend.service.is_some())
    }
}

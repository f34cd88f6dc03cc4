//! `--watch`: the same look again and again.

use std::time::Duration;

use super::Context;
use crate::ui::{Exit, Failure};

/// Options of commands that can look again.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Watch {
    /// Look again and again: redrawn on a terminal, one object a line with -o json
    #[arg(short, long)]
    watch: bool,
    /// Seconds between two looks
    #[arg(long, hide_short_help = true, value_name = "SECONDS", default_value_t = 2, requires = "watch")]
    interval: u64,
}

impl Watch {
    /// Looks once, or until interrupted or nobody reads any more.
    pub(super) fn run(
        &self,
        context: &mut Context,
        look: impl Fn(&mut Context) -> Result<(), Failure>,
    ) -> Result<Exit, Failure> {
        if !self.watch {
            return look(context).map(|()| Exit::Fine);
        }
        context.ui.watch();
        while !context.ui.is_closed() {
            look(context)?;
            std::thread::sleep(Duration::from_secs(self.interval.max(1)));
        }
        Ok(Exit::Fine)
    }
}

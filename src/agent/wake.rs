//! Wakes the worker when a network device or an address comes or goes, or a qdisc is taken away.

use std::sync::mpsc::Sender;

use super::work::Task;
use crate::capture::netlink::{NetlinkError, RouteNews};
use crate::error::with_causes;

/// Starts a thread that does so for as long as the process runs. Without it, the worker looks by itself, only later.
pub(super) fn start(tasks: Sender<Task>) -> std::io::Result<()> {
    let mut news = match RouteNews::listen() {
        Ok(news) => news,
        Err(error) => {
            tracing::warn!("devices that come are noticed late: {}", with_causes(&error));
            return Ok(());
        }
    };
    let mut body = move || -> Result<(), NetlinkError> {
        loop {
            news.wait()?;
            if tasks.send(Task::Look).is_err() {
                return Ok(());
            }
        }
    };
    std::thread::Builder::new().name("wake".to_owned()).spawn(move || {
        if let Err(error) = body() {
            tracing::warn!("devices that come are noticed late: {}", with_causes(&error));
        }
    })?;
    Ok(())
}

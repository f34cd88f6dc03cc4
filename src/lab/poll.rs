//! The event loop that backends and clients of the lab share: ready descriptors and due times, in one thread.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::event::epoll::{CreateFlags, Event, EventData, EventFlags};

/// What a turn of the loop is about: the token given with the descriptor or the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// The descriptor can be read or written, or has an error.
    Ready(u64),
    /// The time has come.
    Due(u64),
}

/// Descriptors and times to wait for.
pub(super) struct Poller {
    epoll: OwnedFd,
    due: BinaryHeap<Reverse<(Instant, u64)>>,
    ready: Vec<Event>,
}

impl Poller {
    /// A loop that waits for nothing yet.
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, due: BinaryHeap::new(), ready: Vec::with_capacity(256) })
    }

    /// Waits for the descriptor to become readable.
    pub(super) fn readable(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, EventData::new_u64(token), EventFlags::IN)?)
    }

    /// Waits for the descriptor to become writable, which is how a connect ends.
    pub(super) fn writable(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, EventData::new_u64(token), EventFlags::OUT)?)
    }

    /// Changes from waiting for writable to waiting for readable.
    pub(super) fn now_readable(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, fd, EventData::new_u64(token), EventFlags::IN)?)
    }

    /// Waits for a time. Times cannot be taken back: a token whose work is gone comes all the same.
    pub(super) fn at(&mut self, when: Instant, token: u64) {
        self.due.push(Reverse((when, token)));
    }

    /// Waits for the next turns and puts them into `turns`.
    pub(super) fn wait(&mut self, turns: &mut Vec<Turn>) -> io::Result<()> {
        turns.clear();
        let now = Instant::now();
        let rest = self.due.peek().map_or(Duration::from_secs(1), |Reverse((when, _))| when.duration_since(now));
        let timeout =
            rustix::event::Timespec { tv_sec: rest.as_secs().cast_signed(), tv_nsec: rest.subsec_nanos().into() };
        self.ready.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.ready), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        turns.extend(self.ready.iter().map(|event| Turn::Ready(event.data.u64())));
        let now = Instant::now();
        while let Some(Reverse((when, token))) = self.due.peek().copied() {
            if when > now {
                break;
            }
            self.due.pop();
            turns.push(Turn::Due(token));
        }
        Ok(())
    }
}

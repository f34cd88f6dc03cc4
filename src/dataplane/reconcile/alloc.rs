//! Numbers and ranges that are free, and those that a reader may still hold.
//!
//! A program that runs at this moment may hold a number that the maps named when it started. So a number given back rests
//! for [`GRACE`] before it is given out again; a program runs for microseconds.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// How long a number rests.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// Contiguous ranges of numbers from 1 to `end - 1`; single numbers are ranges of length one.
#[derive(Clone, Debug)]
pub(super) struct Ranges {
    /// First number → length, never adjacent.
    free: BTreeMap<u32, u32>,
    /// When, first number, length.
    resting: VecDeque<(Duration, u32, u32)>,
    /// What was taken since [`Self::begin`], and how many ranges were given back since then.
    taken: Vec<(u32, u32)>,
    given_back: usize,
}

impl Ranges {
    /// Everything from 1 to `end - 1` is free.
    pub(super) fn new(end: u32) -> Self {
        let free = if end > 1 { BTreeMap::from([(1, end - 1)]) } else { BTreeMap::new() };
        Self { free, resting: VecDeque::new(), taken: Vec::new(), given_back: 0 }
    }

    /// Takes these numbers out of what is free; whether they were.
    pub(super) fn claim(&mut self, first: u32, length: u32) -> bool {
        if length == 0 {
            return true;
        }
        let Some((&start, &free)) = self.free.range(..=first).next_back() else { return false };
        let Some(end) = first.checked_add(length) else { return false };
        if end > start + free {
            return false;
        }
        self.free.remove(&start);
        if first > start {
            self.free.insert(start, first - start);
        }
        if start + free > end {
            self.free.insert(end, start + free - end);
        }
        true
    }

    /// Takes a range of this length; `None` if there is none.
    pub(super) fn take(&mut self, length: u32) -> Option<u32> {
        if length == 0 {
            return Some(0);
        }
        let first = self.free.iter().find(|(_, free)| **free >= length).map(|(first, _)| *first)?;
        self.taken.push((first, length));
        self.claim(first, length).then_some(first)
    }

    /// From here on what is taken and given back can be undone.
    pub(super) fn begin(&mut self) {
        self.taken.clear();
        self.given_back = 0;
    }

    /// Makes it as if nothing had been taken or given back since [`Self::begin`].
    pub(super) fn undo(&mut self) {
        self.resting.truncate(self.resting.len() - self.given_back);
        for (first, length) in std::mem::take(&mut self.taken) {
            self.release(first, length);
        }
        self.given_back = 0;
    }

    /// Gives numbers back, to rest from `now` on.
    pub(super) fn rest(&mut self, now: Duration, first: u32, length: u32) {
        if length > 0 {
            self.resting.push_back((now, first, length));
            self.given_back += 1;
        }
    }

    /// Frees what has rested long enough.
    pub(super) fn wake(&mut self, now: Duration) {
        while let Some((since, first, length)) = self.resting.front().copied() {
            if now < since + GRACE {
                return;
            }
            self.resting.pop_front();
            self.release(first, length);
        }
    }

    fn release(&mut self, mut first: u32, mut length: u32) {
        if let Some((&start, &free)) = self.free.range(..first).next_back()
            && start + free == first
        {
            self.free.remove(&start);
            first = start;
            length += free;
        }
        if let Some(free) = self.free.remove(&(first + length)) {
            length += free;
        }
        self.free.insert(first, length);
    }

    /// Whether something rests.
    pub(super) fn resting(&self) -> bool {
        !self.resting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_given_back_rests_before_it_is_given_out_again() {
        let mut ids = Ranges::new(3);
        assert_eq!((ids.take(1), ids.take(1), ids.take(1)), (Some(1), Some(2), None));
        ids.rest(Duration::from_secs(10), 1, 1);
        ids.wake(Duration::from_millis(10_999));
        assert_eq!(ids.take(1), None);
        ids.wake(Duration::from_secs(11));
        assert_eq!(ids.take(1), Some(1));
    }

    #[test]
    fn neighbours_grow_together_again() {
        let mut slots = Ranges::new(101);
        let (a, b, c) = (slots.take(30).unwrap(), slots.take(30).unwrap(), slots.take(30).unwrap());
        for first in [a, c, b] {
            slots.rest(Duration::ZERO, first, 30);
        }
        slots.wake(GRACE);
        assert_eq!(slots.take(100), Some(1));
    }

    #[test]
    fn what_is_undone_never_was() {
        let mut ids = Ranges::new(100);
        let held = ids.take(10).unwrap();
        ids.rest(Duration::ZERO, 90, 1);
        let (free, resting) = (ids.free.clone(), ids.resting.clone());
        ids.begin();
        assert_eq!((ids.take(20), ids.take(1)), (Some(11), Some(31)));
        ids.rest(Duration::from_secs(1), held, 10);
        ids.undo();
        assert_eq!((&ids.free, &ids.resting), (&free, &resting));
    }

    #[test]
    fn what_is_claimed_twice_is_told() {
        let mut ids = Ranges::new(10);
        assert!(ids.claim(4, 2));
        assert!(!ids.claim(5, 1));
        assert!(!ids.claim(9, 2), "beyond the end");
        assert!(!ids.claim(0, 1), "zero is none");
        assert!(ids.claim(1, 3) && ids.claim(6, 4));
        assert_eq!(ids.take(1), None);
    }

    #[test]
    fn nothing_takes_no_room() {
        assert_eq!(Ranges::new(0).take(0), Some(0));
        assert_eq!(Ranges::new(1).take(1), None);
    }
}

//! What happens to a datagram of an unconnected UDP socket that is sent to a frontend.

use crate::Mode;

/// What is known of the flow from this socket to this frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Nothing.
    New,
    /// Its datagrams went to the kernel's rules, the last one at this time (monotonic nanoseconds).
    Kernel {
        /// When it was last sent to.
        last_ns: u64,
    },
    /// The kernel's conntrack had it, as found in `kpx_yield`, and keeps it until then.
    KernelUntil {
        /// Monotonic nanoseconds.
        until_ns: u64,
    },
    /// We translate it.
    Ours {
        /// Whether its backend still serves the frontend.
        serving: bool,
    },
}

/// What to do with a datagram that has a backend to go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datagram {
    /// Leave it to the kernel's rules and remember that.
    Kernel,
    /// Translate it to the backend that the flow has.
    Keep,
    /// Translate it to a newly chosen backend, and remember that.
    Choose,
}

/// Decides for one datagram.
///
/// A flow that conntrack has translated must not be translated here as well while its entry lives: the second
/// translation's reply tuple clashes with the first one's, conntrack renumbers the source port, and the server sees
/// another client. So such a flow stays with the kernel until it has been idle for as long as conntrack would keep it.
#[inline(always)]
pub const fn datagram(mode: Mode, known: Known, now_ns: u64, yield_ns: u64) -> Datagram {
    match (mode, known) {
        (Mode::Active | Mode::Drain, Known::Ours { serving: true }) => Datagram::Keep,
        (Mode::Active, Known::Kernel { last_ns }) if now_ns.saturating_sub(last_ns) < yield_ns => Datagram::Kernel,
        (Mode::Active, Known::KernelUntil { until_ns }) if now_ns < until_ns => Datagram::Kernel,
        (Mode::Active, _) => Datagram::Choose,
        (Mode::Off | Mode::Shadow | Mode::Drain, _) => Datagram::Kernel,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_new_flow_is_ours_in_active_mode_only() {
        for mode in Mode::ALL {
            let expected = if mode == Mode::Active { Datagram::Choose } else { Datagram::Kernel };
            assert_eq!(datagram(mode, Known::New, 5 * SECOND, SECOND), expected, "{mode:?}");
        }
    }

    #[test]
    fn the_kernels_flow_is_left_to_it_until_idle() {
        let known = Known::Kernel { last_ns: 10 * SECOND };
        assert_eq!(datagram(Mode::Active, known, 129 * SECOND, 120 * SECOND), Datagram::Kernel);
        assert_eq!(datagram(Mode::Active, known, 130 * SECOND, 120 * SECOND), Datagram::Choose);
        // Two processors' clocks may disagree by a little.
        assert_eq!(datagram(Mode::Active, known, 9 * SECOND, 120 * SECOND), Datagram::Kernel);
        let known = Known::KernelUntil { until_ns: 50 * SECOND };
        assert_eq!(datagram(Mode::Active, known, 49 * SECOND, SECOND), Datagram::Kernel);
        assert_eq!(datagram(Mode::Active, known, 50 * SECOND, SECOND), Datagram::Choose);
    }

    #[test]
    fn drain_serves_flows_that_are_ours_and_no_other() {
        assert_eq!(datagram(Mode::Drain, Known::Ours { serving: true }, 0, 0), Datagram::Keep);
        assert_eq!(datagram(Mode::Drain, Known::Ours { serving: false }, 0, 0), Datagram::Kernel);
        assert_eq!(datagram(Mode::Drain, Known::Kernel { last_ns: 0 }, u64::MAX, 0), Datagram::Kernel);
    }

    #[test]
    fn a_flow_whose_backend_went_chooses_again() {
        assert_eq!(datagram(Mode::Active, Known::Ours { serving: false }, 0, u64::MAX), Datagram::Choose);
    }

    #[test]
    fn shadow_and_off_translate_nothing() {
        for known in [Known::New, Known::Kernel { last_ns: 0 }, Known::Ours { serving: true }] {
            assert_eq!(datagram(Mode::Shadow, known, SECOND, 0), Datagram::Kernel);
            assert_eq!(datagram(Mode::Off, known, SECOND, 0), Datagram::Kernel);
        }
    }
}

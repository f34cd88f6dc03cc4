//! The map types as plain old data, for user space.

use crate::packet::{FragmentKey, Ports};
use crate::{
    AddressFlags, Affinity, AffinityKey, Backend, Client, Config, Device, Event, Flow, Frontend, FrontendKey,
    FrontendRef, Listener, NetworkFlags, NetworkKey, Peer, Socket, SourceKey, Stats, Tuple, YieldKey, YieldUntil,
};

macro_rules! pod {
    ($($name:ty),+ $(,)?) => {
        $(
            // SAFETY: `repr(C)` or `repr(transparent)` over integers, with explicit padding only, as `tests` below prove:
            // every byte is initialised and every bit pattern is a value.
            #[expect(unsafe_code, reason = "the promise that a type is plain old data")]
            unsafe impl aya::Pod for $name {}
        )+

        #[cfg(test)]
        mod tests {
            use super::*;

            /// Sizes as the sum of the fields' sizes: an implicit padding byte would make a type larger.
            #[test]
            fn no_type_has_hidden_padding() {
                assert_eq!(size_of::<Config>(), 4 + 4 + 8 + 8 + 4 + 2 + 2 + 4 + 4);
                assert_eq!(size_of::<FrontendKey>(), 16 + 2 + 1 + 1);
                assert_eq!(size_of::<FrontendRef>(), 4);
                assert_eq!(size_of::<Frontend>(), 20 + 4 + 8 + 8 + 4 + 4);
                assert_eq!(size_of::<Backend>(), 16 + 2 + 1 + 1 + 4 + 4);
                assert_eq!(size_of::<Stats>(), 5 * 8);
                assert_eq!(size_of::<Peer>(), 16 + 16 + 2 + 2);
                assert_eq!(size_of::<crate::Entry>(), 8 + 16 + 16 + 2 + 2 + 4 + 4 + 4);
                assert_eq!(size_of::<Socket>(), 4 + 4 + Socket::ENTRIES * 56);
                assert_eq!(size_of::<YieldKey>(), 16 + 2 + 2);
                assert_eq!(size_of::<YieldUntil>(), 8);
                assert_eq!(size_of::<NetworkKey>(), 4 + 16);
                assert_eq!(size_of::<SourceKey>(), 4 + 4 + 16);
                assert_eq!(size_of::<Client>(), 16 + 16);
                assert_eq!(size_of::<AffinityKey>(), 16 + 4);
                assert_eq!(size_of::<Affinity>(), 8 + 4 + 4);
                assert_eq!(size_of::<Event>(), 8 + 8 + 3 * 16 + 4 * 4 + 3 * 2 + 3 + 7);
                assert_eq!(size_of::<Listener>(), 3 * 8 + 16 + 8 + 3 * 4 + 2 + 1 + 1);
                assert_eq!(size_of::<Tuple>(), 16 + 16 + 2 + 2 + 1 + 3);
                assert_eq!(size_of::<Flow>(), 40 + 8 + 4 + 4 + 4 + 1 + 1 + 1 + 1);
                assert_eq!(size_of::<FragmentKey>(), 16 + 16 + 4 + 1 + 3);
                assert_eq!(size_of::<Ports>(), 2 + 2);
                assert_eq!(size_of::<Device>(), 16 + 16 + 6 + 2);
                assert_eq!((size_of::<AddressFlags>(), size_of::<NetworkFlags>()), (4, 4));
            }
        }
    };
}

pod!(
    AddressFlags,
    Affinity,
    AffinityKey,
    Backend,
    Client,
    Config,
    Device,
    Event,
    Flow,
    FragmentKey,
    Frontend,
    FrontendKey,
    FrontendRef,
    Listener,
    NetworkFlags,
    NetworkKey,
    Peer,
    Ports,
    Socket,
    SourceKey,
    Stats,
    Tuple,
    YieldKey,
    YieldUntil
);

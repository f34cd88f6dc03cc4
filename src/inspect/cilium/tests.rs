//! Any bytes, and damaged state, are read without panic.

use proptest::prelude::*;

use super::layout::{Affinity, Backend, CtEntry, NatEntry, ServiceKey, ServiceValue, SourceRange, Tuple};
use super::{State, lift};
use crate::model::Family;

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        for family in Family::BOTH {
            let _ = (ServiceKey::read(&bytes, family), ServiceValue::read(&bytes), Backend::read(&bytes, family));
            let _ = (SourceRange::read(&bytes, family), Tuple::of_conntrack(&bytes, family), Tuple::of_nat(&bytes, family));
            let _ = (CtEntry::read(&bytes).map(|entry| entry.flag_names()), NatEntry::read(&bytes, family));
            for size in [16, 24] {
                let key: Vec<u8> = bytes.iter().copied().cycle().take(if bytes.is_empty() { 0 } else { size }).collect();
                let _ = Affinity::read(&key, &bytes, family);
            }
        }
    }

    #[test]
    fn any_state_is_lifted_without_panic(
        services in prop::collection::vec((prop::array::uniform12(0_u8..6), prop::array::uniform12(any::<u8>())), 0..24),
        backends in prop::collection::vec((0_u32..8, prop::array::uniform12(any::<u8>())), 0..8),
        ranges in prop::collection::vec(prop::array::uniform12(any::<u8>()), 0..4),
    ) {
        let service = |(key, mut value): ([u8; 12], [u8; 12])| {
            // Few slots, so that some are there.
            value[5] = 0;
            Some((ServiceKey::read(&key, Family::V4)?, ServiceValue::read(&value)?))
        };
        let state = State {
            services: services.into_iter().filter_map(service).collect(),
            backends: backends.into_iter().filter_map(|(id, b)| Some(((Family::V4, id), Backend::read(&b, Family::V4)?))).collect(),
            ranges: ranges.iter().filter_map(|key| SourceRange::read(key, Family::V4)).collect(),
            ..State::default()
        };
        let (table, _, ids) = lift(&state);
        prop_assert_eq!(table.frontends().len(), ids.values().map(Vec::len).sum::<usize>());
    }
}

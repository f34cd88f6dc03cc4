//! Maglev hashing: a table in which each backend has its share of the slots, the same on every node, and in which few
//! slots change hands when a backend comes or goes (Eisenbud and others, "Maglev: A Fast and Reliable Software Network
//! Load Balancer", NSDI 2016, section 3.4).

use super::reconcile::Endpoint;

/// Sizes of a table: primes, so that every step walks over all slots. A table should have a hundred times as many slots
/// as the largest Service has backends.
pub const SIZES: [u32; 10] = [251, 509, 1021, 2039, 4093, 8191, 16_381, 32_749, 65_521, 131_071];

/// Size of a table unless another is asked for.
pub const DEFAULT_SIZE: u32 = 16_381;

/// How the maps' configuration numbers a size: 0 is the usual one, as is any that is not of [`SIZES`].
pub(super) fn number(size: u32) -> u32 {
    let place = SIZES.iter().position(|known| *known == size && size != DEFAULT_SIZE);
    place.and_then(|place| u32::try_from(place + 1).ok()).unwrap_or(0)
}

/// The size of a number.
pub(super) fn size(number: u32) -> u32 {
    let place = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
    place.and_then(|place| SIZES.get(place)).copied().unwrap_or(DEFAULT_SIZE)
}

/// The backend of each slot; `size` is one of [`SIZES`]. No backend makes no table.
///
/// In turns, each backend takes the next slot of its own order that is free, as many of them as its weight says: a
/// backend's order depends on nothing but its address, and turns go by address, so the table depends on no order of
/// `backends`.
pub(super) fn table(backends: &[(Endpoint, u16)], size: u32) -> Vec<Endpoint> {
    let mut backends: Vec<_> = backends.iter().filter(|(_, weight)| *weight != 0).collect();
    backends.sort_unstable();
    if backends.is_empty() {
        return Vec::new();
    }
    let size = u64::from(size);
    let mut orders: Vec<Order> = backends.iter().map(|(endpoint, _)| Order::of(endpoint, size)).collect();
    let mut slots: Vec<Option<Endpoint>> = vec![None; usize::try_from(size).unwrap_or(usize::MAX)];
    let mut free = slots.len();
    while free > 0 {
        for ((endpoint, weight), order) in backends.iter().zip(&mut orders) {
            for _ in 0..(*weight as usize).min(free) {
                while slots[order.place()].is_some() {
                    order.step(size);
                }
                slots[order.place()] = Some(*endpoint);
                order.step(size);
                free -= 1;
            }
        }
    }
    slots.into_iter().flatten().collect()
}

/// The order in which a backend asks for slots.
struct Order {
    next: u64,
    skip: u64,
}

impl Order {
    fn of((addr, port): &Endpoint, size: u64) -> Self {
        // Which hash it is does not matter, only that all nodes have the same; a node serves IPv4 and IPv6 alike.
        let hash = |seed| u64::from(kpx_abi::flow_hash(addr, *port, &[seed; 16], *port, 0));
        Self { next: hash(1) % size, skip: hash(2) % (size - 1) + 1 }
    }

    fn place(&self) -> usize {
        usize::try_from(self.next).unwrap_or(usize::MAX)
    }

    fn step(&mut self, size: u64) {
        self.next = (self.next + self.skip) % size;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn backends(n: u8) -> Vec<(Endpoint, u16)> {
        let addr = |n| super::super::reconcile::addr([10, 244, 7, n].into());
        (1..=n).map(|n| ((addr(n), 8080_u16.to_be()), 1)).collect()
    }

    fn shares(table: &[Endpoint]) -> BTreeMap<Endpoint, usize> {
        table.iter().fold(BTreeMap::new(), |mut shares, endpoint| {
            *shares.entry(*endpoint).or_default() += 1;
            shares
        })
    }

    #[test]
    fn every_slot_has_a_backend_and_shares_are_even() {
        for (size, n) in [(251, 1), (251, 2), (1021, 10), (DEFAULT_SIZE, 100), (DEFAULT_SIZE, 160)] {
            let table = table(&backends(n), size);
            assert_eq!(table.len(), size as usize);
            let shares = shares(&table);
            let (least, most) = (shares.values().min().unwrap(), shares.values().max().unwrap());
            println!("{n} backends, {size} slots: between {least} and {most} slots each");
            assert_eq!(shares.len(), usize::from(n));
            assert!(most - least <= 1, "they take turns, so nobody is ahead by more than one");
        }
    }

    #[test]
    fn weights_are_shares() {
        let mut backends = backends(3);
        backends[1].1 = 3;
        backends[2].1 = 0;
        let shares = shares(&table(&backends, 4093));
        assert_eq!(shares.len(), 2, "weight 0 is no share");
        assert_eq!(shares[&backends[0].0], 1024);
        assert_eq!(shares[&backends[1].0], 3069);
    }

    #[test]
    fn the_table_depends_on_no_order() {
        let mut other = backends(20);
        other.reverse();
        assert_eq!(table(&backends(20), 2039), table(&other, 2039));
        assert!(table(&[], 251).is_empty());
    }

    /// Slots of the backend that leaves must change hands; of the others, few do.
    #[test]
    fn few_slots_change_hands_when_a_backend_leaves() {
        for n in [10_u8, 100] {
            let before = table(&backends(n), DEFAULT_SIZE);
            let gone = backends(n)[usize::from(n) / 2].0;
            let rest: Vec<_> = backends(n).into_iter().filter(|(endpoint, _)| *endpoint != gone).collect();
            let after = table(&rest, DEFAULT_SIZE);
            let staying = before.iter().zip(&after).filter(|(old, _)| **old != gone);
            let (kept, moved): (Vec<_>, Vec<_>) = staying.partition(|(old, new)| old == new);
            let percent = 100.0 * moved.len() as f64 / (kept.len() + moved.len()) as f64;
            println!("one of {n} leaves {DEFAULT_SIZE} slots: {percent:.2} % of the others' slots change hands");
            assert!(percent < 2.0, "{percent} %");
        }
    }
}

//! What an unconnected UDP socket remembers of the frontends it sends to.

/// The kernel's spin lock, guarding [`Socket::entries`]: threads may send on one socket at the same time.
///
/// The kernel finds it by this very name in the map's BTF.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct bpf_spin_lock {
    val: u32,
}

/// Who serves the flow of an [`Entry`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum EntryState {
    /// The entry is free.
    Free = 0,
    /// Datagrams went untranslated, to the kernel's rules.
    Kernel = 1,
    /// Datagrams are translated to the entry's backend.
    Ours = 2,
}

/// One frontend that a socket sends to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Entry {
    /// When the last datagram was sent, monotonic nanoseconds; 0 in a free entry.
    pub last_ns: u64,
    /// Address of the frontend, network byte order.
    pub frontend: [u8; 16],
    /// Address of the backend, network byte order.
    pub backend: [u8; 16],
    /// Port of the frontend, network byte order.
    pub frontend_port: u16,
    /// Port of the backend, network byte order.
    pub backend_port: u16,
    /// An [`EntryState`].
    pub state: u32,
    /// Backend id.
    pub backend_id: u32,
    /// Zero.
    pub pad: u32,
}

/// Value of `kpx_sockets`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Socket {
    /// Guards the entries.
    pub lock: bpf_spin_lock,
    /// Zero.
    pub pad: u32,
    /// The frontends it sent to last; a further one takes the place of the one idle longest.
    pub entries: [Entry; Socket::ENTRIES],
}

impl Socket {
    /// Number of frontends a socket remembers.
    pub const ENTRIES: usize = 8;

    /// The entry of a frontend.
    #[inline(always)]
    pub fn find(&self, frontend: &[u8; 16], port: u16) -> Option<usize> {
        let mut i = 0;
        while i < Self::ENTRIES {
            let entry = &self.entries[i];
            if entry.state != EntryState::Free as u32 && entry.frontend_port == port && same(&entry.frontend, frontend)
            {
                return Some(i);
            }
            i += 1;
        }
        None
    }

    /// The entry whose backend this is; where several frontends share it, the one used last.
    #[inline(always)]
    pub fn find_backend(&self, backend: &[u8; 16], port: u16) -> Option<usize> {
        let mut found: Option<usize> = None;
        let mut latest = 0;
        let mut i = 0;
        while i < Self::ENTRIES {
            let entry = &self.entries[i];
            let matches =
                entry.state == EntryState::Ours as u32 && entry.backend_port == port && same(&entry.backend, backend);
            if matches && entry.last_ns >= latest {
                latest = entry.last_ns;
                found = Some(i);
            }
            i += 1;
        }
        found
    }

    /// Forgets whatever frontends lead to this backend.
    #[inline(always)]
    pub fn forget_backend(&mut self, backend: &[u8; 16], port: u16) {
        let mut i = 0;
        while i < Self::ENTRIES {
            let entry = &mut self.entries[i];
            let matches =
                entry.state == EntryState::Ours as u32 && entry.backend_port == port && same(&entry.backend, backend);
            if matches {
                entry.state = EntryState::Free as u32;
                entry.last_ns = 0;
            }
            i += 1;
        }
    }

    /// The place for a frontend that has no entry: a free one, or that of the frontend idle longest.
    ///
    /// Time and place travel in one number: were the place chosen by branches, the verifier would have to follow each of
    /// the 256 ways through them.
    #[inline(always)]
    pub fn place(&self) -> usize {
        const PLACE: u64 = Socket::ENTRIES as u64 - 1;
        let mut oldest = u64::MAX;
        let mut i = 0;
        while i < Self::ENTRIES {
            let packed = (self.entries[i].last_ns & !PLACE) | i as u64;
            if packed < oldest {
                oldest = packed;
            }
            i += 1;
        }
        (oldest & PLACE) as usize
    }
}

/// Equality of addresses in two words: under the lock no function may be called, and a slice comparison is one.
#[inline(always)]
fn same(a: &[u8; 16], b: &[u8; 16]) -> bool {
    u128::from_ne_bytes(*a) == u128::from_ne_bytes(*b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(frontend: u8, backend: u8, state: EntryState, last_ns: u64) -> Entry {
        Entry {
            last_ns,
            frontend: [frontend; 16],
            backend: [backend; 16],
            frontend_port: 53,
            backend_port: 5353,
            state: state as u32,
            ..Entry::default()
        }
    }

    #[test]
    fn an_entry_is_found_by_address_and_port() {
        let mut socket = Socket::default();
        socket.entries[3] = entry(1, 9, EntryState::Kernel, 7);
        assert_eq!(socket.find(&[1; 16], 53), Some(3));
        assert_eq!(socket.find(&[1; 16], 54), None);
        assert_eq!(socket.find(&[2; 16], 53), None);
        assert_eq!(socket.find(&[0; 16], 0), None, "a free entry is no entry");
    }

    #[test]
    fn a_reply_belongs_to_the_frontend_used_last() {
        let mut socket = Socket::default();
        socket.entries[1] = entry(1, 9, EntryState::Ours, 20);
        socket.entries[4] = entry(2, 9, EntryState::Ours, 10);
        socket.entries[5] = entry(3, 9, EntryState::Kernel, 30);
        assert_eq!(socket.find_backend(&[9; 16], 5353), Some(1));
        assert_eq!(socket.find_backend(&[9; 16], 53), None);
    }

    #[test]
    fn all_frontends_of_a_backend_are_forgotten_and_no_other() {
        let mut socket = Socket::default();
        socket.entries[1] = entry(1, 9, EntryState::Ours, 20);
        socket.entries[4] = entry(2, 9, EntryState::Ours, 10);
        socket.entries[5] = entry(3, 8, EntryState::Ours, 30);
        socket.forget_backend(&[9; 16], 5353);
        assert_eq!(socket.find_backend(&[9; 16], 5353), None);
        assert_eq!(socket.find_backend(&[8; 16], 5353), Some(5));
    }

    #[test]
    fn the_frontend_idle_longest_makes_room() {
        let mut socket = Socket::default();
        for i in 0..Socket::ENTRIES {
            assert_eq!(socket.place(), i, "free places first");
            socket.entries[i] = entry(i as u8 + 1, 9, EntryState::Ours, 1000 - 8 * i as u64);
        }
        assert_eq!(socket.place(), Socket::ENTRIES - 1);
    }
}

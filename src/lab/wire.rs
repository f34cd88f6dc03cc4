//! What clients and backends of the lab say to each other: frames of one size, over TCP and UDP alike.
//!
//! A client opens a session with [`Kind::Hello`] (TCP) or its first [`Kind::Keep`] (UDP) and goes on numbering its
//! [`Kind::Keep`]s; the backend pushes numbered [`Kind::Push`]es all the while. [`Kind::End`] asks for the backend's own
//! account of the session, which comes as [`Kind::Account`]: an echo would not show that a source port changed on the
//! way, the backend does.

/// Bytes of a frame.
pub(super) const FRAME: usize = 64;

const MAGIC: [u8; 4] = *b"kpxL";

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Client: start pushing, every `a` microseconds.
    Hello = 1,
    /// Backend: record `seq`, from 1.
    Push = 2,
    /// Client: record `seq`, from 1; `a` is the push interval in microseconds, for a backend that missed the start.
    Keep = 3,
    /// Client: the session ends; `seq` is the last `Keep`.
    End = 4,
    /// Backend: its account of the session.
    Account = 5,
    /// Client: one question; the backend answers with the same frame.
    Echo = 6,
}

impl Kind {
    const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Hello,
            2 => Self::Push,
            3 => Self::Keep,
            4 => Self::End,
            5 => Self::Account,
            6 => Self::Echo,
            _ => return None,
        })
    }
}

/// One frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// What it is for.
    pub(super) kind: Kind,
    /// The session, unique in the lab.
    pub(super) session: u64,
    /// Number of the record.
    pub(super) seq: u64,
    /// The push interval in microseconds, or the account.
    pub(super) account: Account,
}

/// What the backend saw of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Account {
    /// Push interval, microseconds (client to backend only).
    pub(super) interval_us: u64,
    /// Records pushed.
    pub(super) pushed: u64,
    /// Distinct records received.
    pub(super) received: u64,
    /// How often a datagram came from another address or port than the first one.
    pub(super) source_changes: u32,
    /// How often a datagram of the session reached another backend than the first one.
    pub(super) moves: u32,
    /// Longest time between two records of the client, microseconds.
    pub(super) longest_gap_us: u64,
}

impl Frame {
    /// A frame without an account.
    pub(super) fn new(kind: Kind, session: u64, seq: u64) -> Self {
        Self { kind, session, seq, account: Account::default() }
    }

    /// A question of a session, full of what only its number tells, so that an answer shows every byte that changed.
    pub(super) fn question(session: u64, seq: u64) -> Self {
        let word = |n: u64| (session ^ seq.rotate_left(32) ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        let account = Account {
            interval_us: word(1),
            pushed: word(2),
            received: word(3),
            source_changes: word(4) as u32,
            moves: word(5) as u32,
            longest_gap_us: word(6),
        };
        Self { kind: Kind::Echo, session, seq, account }
    }

    /// The same with a push interval.
    #[must_use]
    pub(super) const fn every(mut self, interval_us: u64) -> Self {
        self.account.interval_us = interval_us;
        self
    }

    /// The bytes on the wire.
    pub(super) fn to_bytes(self) -> [u8; FRAME] {
        let mut bytes = [0; FRAME];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = self.kind as u8;
        let account = self.account;
        let words = [
            self.session,
            self.seq,
            account.interval_us,
            account.pushed,
            account.received,
            u64::from(account.source_changes) << 32 | u64::from(account.moves),
            account.longest_gap_us,
        ];
        for (slot, word) in bytes[8..].chunks_exact_mut(8).zip(words) {
            slot.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }

    /// The frame in these bytes; `None` for anything else.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != FRAME || bytes[..4] != MAGIC {
            return None;
        }
        let word = |i: usize| u64::from_be_bytes(bytes[8 * i..8 * i + 8].try_into().expect("eight bytes"));
        Some(Self {
            kind: Kind::from_byte(bytes[4])?,
            session: word(1),
            seq: word(2),
            account: Account {
                interval_us: word(3),
                pushed: word(4),
                received: word(5),
                source_changes: (word(6) >> 32) as u32,
                moves: word(6) as u32,
                longest_gap_us: word(7),
            },
        })
    }
}

/// Cuts a TCP stream into frames.
#[derive(Debug, Default)]
pub(super) struct Stream {
    buffer: Vec<u8>,
}

/// The bytes of a stream are no frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Garbled;

impl Stream {
    /// Adds received bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Takes the next whole frame.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, Garbled> {
        if self.buffer.len() < FRAME {
            return Ok(None);
        }
        let frame = Frame::from_bytes(&self.buffer[..FRAME]).ok_or(Garbled)?;
        self.buffer.drain(..FRAME);
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_survives_the_wire() {
        let account = Account {
            interval_us: 20_000,
            pushed: u64::MAX,
            received: 7,
            source_changes: 3,
            moves: u32::MAX,
            longest_gap_us: 5,
        };
        let frame = Frame { kind: Kind::Account, session: 1 << 63, seq: 9, account };
        assert_eq!(Frame::from_bytes(&frame.to_bytes()), Some(frame));
    }

    #[test]
    fn a_stream_is_cut_at_frames_whatever_the_segments() {
        let frames = [Frame::new(Kind::Hello, 1, 0).every(5), Frame::new(Kind::Keep, 1, 1)];
        let bytes: Vec<u8> = frames.iter().flat_map(|f| f.to_bytes()).collect();
        let mut stream = Stream::default();
        let mut seen = Vec::new();
        for piece in bytes.chunks(7) {
            stream.push(piece);
            while let Ok(Some(frame)) = stream.next() {
                seen.push(frame);
            }
        }
        assert_eq!(seen, frames);
    }

    #[test]
    fn foreign_bytes_are_not_frames() {
        let mut stream = Stream::default();
        stream.push(&[b'G'; FRAME]);
        assert_eq!(stream.next(), Err(Garbled));
        assert_eq!(Frame::from_bytes(b"short"), None);
    }
}

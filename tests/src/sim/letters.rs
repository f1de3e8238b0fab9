//! What must be true of datagrams: they come as they were sent, to whom they were sent, or not at all.
use super::MS;
use super::book::Book;
use super::net::StationId;
use ix_dataplane::rng::SipKey;
use std::collections::BTreeMap;

/// A datagram on its way.
#[derive(Debug)]
pub struct Letter {
    /// Who sends it.
    pub from: StationId,
    to: StationId,
    len: usize,
    /// How often it has come.
    pub arrived: u32,
    /// All cores of the station that it goes to knew of the binding when it was sent.
    pub awaited: bool,
}

/// Datagrams by number.
pub type Datagrams = BTreeMap<u64, Letter>;

/// The bytes of a datagram: its number, and what follows from it.
fn content(id: u64, len: usize) -> Vec<u8> {
    let key = SipKey([id, len as u64]);
    let words = (0..).flat_map(|n: u64| key.hash([n]).to_le_bytes());
    id.to_le_bytes().into_iter().chain(words).take(len).collect()
}

impl Book {
    /// A datagram that is about to be sent; its bytes.
    pub fn datagram(&mut self, id: u64, from: StationId, to: u8, len: usize) -> Vec<u8> {
        let to = StationId(to);
        // Cores hear of a binding one after the other; peers have theirs from the beginning.
        let bound = self.bound.get(&to).is_some_and(|at| at + MS <= self.now);
        let awaited = bound || to.0 >= self.machines;
        let letter = Letter { from, to, len, arrived: 0, awaited };
        let old = self.datagrams.insert(id, letter);
        assert!(old.is_none(), "two datagrams with one number");
        content(id, len)
    }

    /// A datagram at `at` reads as it must.
    pub fn check_datagram(&self, at: StationId, bytes: &[u8]) {
        let id = bytes.first_chunk::<8>().map(|id| u64::from_le_bytes(*id));
        let Some(letter) = id.and_then(|id| self.datagrams.get(&id)) else {
            panic!("{at:?}: a datagram that nobody sent: {bytes:02x?}")
        };
        assert_eq!(letter.to, at, "a datagram at the wrong station: {letter:?}");
        let right = bytes == content(id.unwrap_or(0), letter.len);
        assert!(right, "{at:?}: other bytes than those of {letter:?}: {bytes:02x?}");
    }

    /// A datagram has come to `at`, says its header from `from`. Its number and sender.
    pub fn datagram_arrived(
        &mut self,
        at: StationId,
        from: [u8; 4],
        bytes: &[u8],
    ) -> (u64, StationId) {
        self.check_datagram(at, bytes);
        let id = bytes.first_chunk::<8>().map_or(0, |id| u64::from_le_bytes(*id));
        let letter = self.datagrams.get_mut(&id).expect("just checked");
        assert_eq!(letter.from.ip(), from, "a datagram with another sender: {letter:?}");
        letter.arrived += 1;
        (id, letter.from)
    }
}

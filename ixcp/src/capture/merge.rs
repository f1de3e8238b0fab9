//! Packets of several cores in the order of time. Each core's are in order; a core that was slow to
//! record is waited for, for a short while.
use super::format::{Counts, PacketWriter};
use super::reader::Reader;
use crate::page::Page;
use ix_abi::capture::{Head, ring};
use std::collections::BTreeMap;
use std::io;

/// What was recorded in the last moments may lack packets of another core.
const WINDOW_NS: u64 = 20_000_000;
/// Most packets that wait for their turn.
const WAITING_MAX: usize = 100_000;

/// A packet out of a ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Whose ring.
    pub core: usize,
    /// Its record's head.
    pub head: Head,
    /// What was kept of it.
    pub bytes: Vec<u8>,
}

/// Puts packets in order.
#[derive(Debug)]
pub struct Merger {
    /// Unix time of the boot in nanoseconds.
    pub base: u64,
    /// Packets written.
    pub written: u64,
    /// By time, then order of arrival.
    waiting: BTreeMap<(u64, u64), Packet>,
    arrived: u64,
    /// Number of the last packet of each core: gaps are what was missed.
    next: Vec<u64>,
}

impl Merger {
    /// For so many cores.
    pub fn new(cores: usize, base: u64) -> Merger {
        Merger { base, written: 0, waiting: BTreeMap::new(), arrived: 0, next: vec![0; cores] }
    }

    /// Takes a packet in.
    pub fn add(&mut self, packet: Packet) {
        self.arrived += 1;
        self.waiting.insert((packet.head.time_ns, self.arrived), packet);
    }

    /// Writes packets that are old enough at `now`, or all; up to `limit` in the whole capture.
    pub fn write(
        &mut self,
        writer: &mut dyn PacketWriter,
        limit: u64,
        now: Option<u64>,
    ) -> io::Result<()> {
        let horizon = now.map_or(u64::MAX, |now| now.saturating_sub(WINDOW_NS));
        let mut any = false;
        while let Some(first) = self.waiting.first_entry() {
            let old = first.key().0 <= horizon;
            let crowded = self.waiting.len() > WAITING_MAX;
            if !(old || crowded) || self.written >= limit {
                break;
            }
            let Some((_, packet)) = self.waiting.pop_first() else { break };
            let next = &mut self.next[packet.core];
            let missed = packet.head.number.saturating_sub(*next);
            *next = packet.head.number.saturating_add(1);
            writer.packet(self.base.wrapping_add(packet.head.time_ns), missed, &packet)?;
            self.written += 1;
            any = true;
        }
        if any { writer.flush() } else { Ok(()) }
    }

    /// Writes what the rings count.
    pub fn finish(
        &self,
        writer: &mut dyn PacketWriter,
        page: &Page,
        readers: &[Reader],
    ) -> io::Result<()> {
        for (core, reader) in readers.iter().enumerate() {
            let word = |at| reader.word(page, at);
            let (seen, missed) = (word(ring::SEEN), word(ring::MISSED));
            let accepted = word(ring::CAPTURED).wrapping_add(missed);
            writer.counts(core, Counts { seen, missed, accepted })?;
        }
        writer.flush()
    }
}

//! A connection as the peer and the wire see it.
use crate::frame::{IpFields, Segment};
use crate::options::{self, Bases, Seen as Option_};
use crate::player::{Side, stream};
use crate::script::flag;
use ix_abi::{Condition, Handle};
use ix_dataplane::time::Instant;
use std::collections::VecDeque;
use std::net::IpAddr;

/// A segment of the engine.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When it came out.
    pub at: Instant,
    /// Its IP header.
    pub ip: IpFields,
    /// The segment.
    pub segment: Segment,
    /// Its options.
    pub options: Vec<Option_>,
}

/// See the module.
#[derive(Debug)]
pub struct Conn {
    /// The script's name for it.
    pub label: String,
    /// Its place in the list; the application's cookie is one more.
    pub index: usize,
    /// The peer's address.
    pub peer: IpAddr,
    /// The peer's port.
    pub peer_port: u16,
    /// The engine's, once known.
    pub local_port: Option<u16>,
    /// The peer's first sequence number.
    pub peer_isn: u32,
    /// The engine's, once known.
    pub engine_isn: Option<u32>,
    /// The engine's first timestamp.
    pub ts_base: Option<u32>,
    /// The engine's latest.
    pub ts_latest: u32,
    /// The last timestamp of the peer that a script has named, and when.
    pub ts_peer: (u32, Instant),
    /// The peer's SYN had timestamps; the engine's had.
    pub ts_offered: (bool, bool),
    /// The window field of the peer's last segment.
    pub win: u16,
    /// The application's.
    pub handle: Option<Handle>,
    /// Segments that no line of the script has asked for yet.
    pub segments: VecDeque<Seen>,
    /// The same of events.
    pub events: VecDeque<(Instant, Condition)>,
    /// The last packet with SYN or payload, for messages that quote it.
    pub quoted: Vec<u8>,
}

impl Conn {
    /// One of which only the peer's side is known.
    pub fn new(label: &str, index: usize, peer: IpAddr, peer_isn: u32) -> Conn {
        Conn {
            label: label.to_owned(),
            index,
            peer,
            peer_port: 40_000 + index as u16,
            local_port: None,
            peer_isn,
            engine_isn: None,
            ts_base: None,
            ts_latest: 0,
            ts_peer: (1000, Instant(0)),
            ts_offered: (false, false),
            win: 65_535,
            handle: None,
            segments: VecDeque::new(),
            events: VecDeque::new(),
            quoted: Vec::new(),
        }
    }

    /// What relative numbers count from.
    pub fn bases(&self) -> Bases {
        Bases {
            engine: self.engine_isn.unwrap_or(0),
            peer: self.peer_isn,
            ts: self.ts_base.unwrap_or(0),
        }
    }

    /// Timestamps were agreed on.
    pub fn has_timestamps(&self) -> bool {
        self.ts_offered == (true, true)
    }

    /// Takes note of a segment of the engine. `Err`: what is wrong with it, whatever the script says.
    pub fn take(&mut self, seen: Seen) -> Result<(), String> {
        let segment = &seen.segment;
        let timestamps = seen.options.iter().find_map(|option| match option {
            Option_::Ts(value, echo) => Some((*value, *echo)),
            _ => None,
        });
        if segment.flags & flag::SYN != 0 {
            if self.engine_isn.is_none() {
                self.engine_isn = Some(segment.seq);
                self.ts_base = timestamps.map(|(value, _)| value);
            }
            self.ts_offered.1 = timestamps.is_some();
        } else if self.has_timestamps() && segment.flags & flag::RST == 0 && timestamps.is_none() {
            return Err("no timestamps, though they were agreed on (RFC 7323 §3.2)".to_owned());
        }
        if let Some((value, _)) = timestamps {
            self.ts_latest = value;
        }
        self.check_payload(segment)?;
        self.segments.push_back(seen);
        Ok(())
    }

    fn check_payload(&self, segment: &Segment) -> Result<(), String> {
        let first = segment.seq.wrapping_sub(self.bases().engine).wrapping_sub(1);
        for (i, byte) in segment.payload.iter().enumerate() {
            let at = u64::from(first) + i as u64;
            if *byte != stream(Side::Engine, self.index, at) {
                return Err(format!("byte {} of the stream is wrong", at + 1));
            }
        }
        Ok(())
    }

    /// The peer's payload from a sequence number on.
    pub fn payload(&self, seq: u32, len: u32) -> Vec<u8> {
        let first = seq.wrapping_sub(self.peer_isn).wrapping_sub(1) as i32;
        let byte = |i: u32| {
            stream(Side::Peer, self.index, i64::from(first).wrapping_add(i64::from(i)) as u64)
        };
        (0..len).map(byte).collect()
    }

    /// A segment in the words of a script.
    pub fn describe(
        &self,
        segment: &Segment,
        options: &[Option_],
        ip: &IpFields,
        side: Side,
    ) -> String {
        let bases = self.bases();
        let (seq_base, ack_base) = match side {
            Side::Engine => (bases.engine, bases.peer),
            Side::Peer => (bases.peer, bases.engine),
        };
        let mut text = String::new();
        for (letter, bit) in flag::LETTERS {
            if segment.flags & bit != 0 {
                text.push(letter);
            }
        }
        if text.is_empty() {
            text.push('-');
        }
        let seq = i64::from(segment.seq.wrapping_sub(seq_base) as i32);
        let len = segment.payload.len();
        text += &format!(" {seq}:{}({len})", seq + len as i64);
        if segment.flags & flag::ACK != 0 {
            text += &format!(" ack {}", segment.ack.wrapping_sub(ack_base) as i32);
        }
        text += &format!(" win {}", segment.win);
        if segment.flags & flag::URG != 0 {
            text += &format!(" urg {}", segment.urg);
        }
        if !options.is_empty() {
            text += " ";
            text += &options::describe(options, &bases, side == Side::Peer);
        }
        match ip.class & 3 {
            1 => text += " ect1",
            2 => text += " ect0",
            3 => text += " ce",
            _ => {}
        }
        text
    }
}

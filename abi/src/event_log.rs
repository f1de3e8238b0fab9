//! The last events of each core, for post-mortems: a ring of fixed records in the control page, which
//! stays readable when the machine is dead. `docs/control.md` §8.
//!
//! A ring has one writer, its core, and no reader that it knows of: old records are overwritten. A
//! record's first word carries its number, is 0 while the record is written and stored last; a reader
//! that finds another number than before it read the rest has read two records' parts.
use crate::control::LOG_STRIDE;
use crate::status::open_enum;

/// Byte offset of the number of the newest record, which are counted from 1; 0: none yet.
pub const NEWEST: usize = 0x00;
/// Where the records begin.
pub const RECORDS: usize = 0x40;
/// Bytes of a record.
pub const RECORD_BYTES: usize = 32;
/// Records of a ring. Number `n` is in slot `n % CAPACITY`.
pub const CAPACITY: usize = (LOG_STRIDE - RECORDS) / RECORD_BYTES;

/// Where record `number` is in its ring.
pub const fn record_offset(number: u64) -> usize {
    RECORDS + (number % CAPACITY as u64) as usize * RECORD_BYTES
}

open_enum! {
    /// What happened. `small`, `a` and `b` are the record's arguments.
    EventKind {
        /// The kernel has begun to run this core's loop.
        CoreStarts = 1: "core starts",
        /// The port is open: `small` queue pairs, `a` flow groups, `b` the hardware address.
        PortOpen = 2: "port open",
        /// The application was started for the `a`-th time.
        AppStarts = 3: "app starts",
        /// It says that it is ready; `a`: for the how-manieth time it was started.
        AppReady = 4: "app ready",
        /// It has ended: `a` as the control page's `APP_EXIT` says it.
        AppEnds = 5: "app ends",
        /// A command was carried out: `small` its code, `a` its first argument, `b` the status.
        Command = 6: "command",
        /// The IPv4 address changed: `a` the address (first octet lowest; 0: none), `b` its prefix.
        Address = 7: "address",
        /// Packets were dropped: `small` the reason's place in the order of drops, `a` how many
        /// since the last such record (at most one a second for each reason), `b` how many in all.
        Drops = 8: "drops",
        /// The application did not return within its bound: `a` times since the last such record.
        Overrun = 9: "app overrun",
        /// The pool of receive buffers has run low: `a` free of `b`.
        BuffersLow = 10: "buffers low",
        /// It has recovered: `a` free of `b`.
        BuffersBack = 11: "buffers back",
        /// A receive queue was stopped for good: the device's answers make no sense.
        QueueStopped = 12: "queue stopped",
        /// Capture number `a` begins.
        CaptureStarts = 13: "capture starts",
        /// Capture number `a` ends; `small` is 1 if its client was silent for too long.
        CaptureEnds = 14: "capture ends",
        /// The packet trace was switched: `a` 1 on, 0 off.
        Trace = 15: "trace",
        /// A port is listened on, or a UDP port is bound: `small` the port, `a` the IP protocol.
        Listen = 16: "listen",
        /// It is no longer: `small` the port, `a` the IP protocol.
        Unlisten = 17: "unlisten",
        /// A flow group has come to this core: `a`.
        GroupIn = 18: "group in",
        /// A flow group has gone to core `b`: `a`, and `small` others to the same core just before it (core 0's ring).
        GroupOut = 19: "group out",
        /// The kernel has panicked: `small` the line, `a` the instruction, `b` the last eight
        /// letters of the file's name. `Text` follows.
        Panic = 20: "panic",
        /// An exception in the kernel: `small` the vector, `a` the instruction, `b` the address
        /// (CR2) of a page fault.
        Exception = 21: "exception",
        /// Sixteen bytes of text that belong to the record before.
        Text = 22: "text",
        /// This core was congested and has woken a parked one, as it had been granted: `small` which, `a` the
        /// queueing delay in ns, `b` for how long it had been above the threshold, in ns.
        CoreWoken = 23: "core woken",
        /// This core is parked.
        CoreParked = 24: "core parked",
        /// This core serves again.
        CoreServes = 25: "core serves",
        /// The dataplane wants another number of cores (core 0's ring): `small` how many; `a` the 99th percentile of the
        /// queueing delay in ns; `b` bits 0–15 the utilisation in ‰, 16–31 the reason
        /// (`crate::demand::Reason`), 32–47 how many serve.
        CoresWanted = 26: "cores wanted",
        /// The grant to wake cores has ended, since nobody renewed it (core 0's ring): `a` the number of the limits.
        GrantEnds = 27: "grant ends",
        /// The IOMMU has refused a request of a device (core 0's ring): `small` the device (bus, device and function as in PCI), `a` the
        /// page, `b` bits 0–7 why, bit 8 a write.
        DmaRefused = 28: "dma refused",
        /// This core leaves for another dataplane: `small` 0, as it was asked to; 1, with all that it has, since its time is over.
        CoreLeaves = 29: "core leaves",
        /// This core is back: `small` 1 if it was stopped where it was, and had to give up what it had: `a` connections.
        CoreReturns = 30: "core returns",
    }
}

/// A record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Counts this core's records, from 1.
    pub number: u64,
    /// What happened.
    pub kind: EventKind,
    /// First argument.
    pub small: u16,
    /// Nanoseconds since boot.
    pub time_ns: u64,
    /// Second argument.
    pub a: u64,
    /// Third argument.
    pub b: u64,
}

/// Numbers in a record's first word are cut to so many bits.
const NUMBER_BITS: u64 = 0xffff_ffff;

impl Record {
    /// Its words; the first is to be stored last.
    pub const fn encode(&self) -> [u64; 4] {
        let first = (self.number & NUMBER_BITS) << 32 | (self.small as u64) << 16;
        [first | self.kind.0 as u64, self.time_ns, self.a, self.b]
    }

    /// Record `number`, if that is what the words are.
    pub const fn decode(words: [u64; 4], number: u64) -> Option<Record> {
        let [first, time_ns, a, b] = words;
        if number == 0 || first == 0 || first >> 32 != number & NUMBER_BITS {
            return None;
        }
        let (kind, small) = (EventKind(first as u16), (first >> 16) as u16);
        Some(Record { number, kind, small, time_ns, a, b })
    }
}

/// The text of a `Text` record, as words.
pub fn text_words(bytes: &[u8]) -> [u64; 2] {
    let mut all = [0; 16];
    let n = bytes.len().min(16);
    all[..n].copy_from_slice(&bytes[..n]);
    let word = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&all[at..at + 8]);
        u64::from_le_bytes(word)
    };
    [word(0), word(8)]
}

/// The inverse of [`text_words`], padded with 0.
pub fn text_bytes(words: [u64; 2]) -> [u8; 16] {
    let mut all = [0; 16];
    all[..8].copy_from_slice(&words[0].to_le_bytes());
    all[8..].copy_from_slice(&words[1].to_le_bytes());
    all
}

/// In a line, without time and core.
impl core::fmt::Display for Record {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Record { kind, small, a, b, .. } = *self;
        match kind {
            EventKind::Text => {
                let bytes = text_bytes([a, b]);
                return bytes
                    .iter()
                    .filter(|c| (0x20..0x7f).contains(*c))
                    .try_for_each(|c| core::fmt::Write::write_char(f, char::from(*c)));
            }
            _ => write!(f, "{kind}")?,
        }
        match kind {
            EventKind::CoreStarts | EventKind::QueueStopped | EventKind::Text => Ok(()),
            EventKind::CoreParked | EventKind::CoreServes => Ok(()),
            EventKind::PortOpen => {
                let [m0, m1, m2, m3, m4, m5, ..] = b.to_le_bytes();
                write!(f, ": {small} queue pairs, {a} groups, ")?;
                write!(f, "{m0:02x}:{m1:02x}:{m2:02x}:{m3:02x}:{m4:02x}:{m5:02x}")
            }
            EventKind::AppStarts | EventKind::AppReady => write!(f, ": start {a}"),
            EventKind::AppEnds => app_end(f, a),
            EventKind::Command => {
                let status = u16::try_from(b).map_or("unknown", |b| crate::Status(b).text());
                write!(f, " {} ({a}): {status}", crate::control::CommandCode(small).text())
            }
            EventKind::Address => {
                let [o0, o1, o2, o3, ..] = a.to_le_bytes();
                if a == 0 { f.write_str(": none") } else { write!(f, ": {o0}.{o1}.{o2}.{o3}/{b}") }
            }
            EventKind::Drops => {
                let reason = crate::stats::Drop::ALL.get(usize::from(small));
                write!(f, ": {} {a}, {b} in all", reason.map_or("unknown", |reason| reason.name()))
            }
            EventKind::Overrun => write!(f, ": {a} times"),
            EventKind::BuffersLow | EventKind::BuffersBack => write!(f, ": {a} of {b} free"),
            EventKind::CaptureStarts => write!(f, ": number {a}"),
            EventKind::CaptureEnds => {
                let why = if small == 1 { ", its client was silent" } else { "" };
                write!(f, ": number {a}{why}")
            }
            EventKind::Trace => f.write_str(if a == 0 { ": off" } else { ": on" }),
            EventKind::Listen | EventKind::Unlisten => {
                write!(f, ": port {small}/{}", if a == 17 { "udp" } else { "tcp" })
            }
            EventKind::GroupIn => write!(f, ": {a}"),
            EventKind::GroupOut if small > 0 => write!(f, ": {a} and {small} others, to core {b}"),
            EventKind::GroupOut => write!(f, ": {a} to core {b}"),
            EventKind::Panic => {
                write!(f, " at …")?;
                for c in b.to_le_bytes().into_iter().filter(|c| (0x21..0x7f).contains(c)) {
                    core::fmt::Write::write_char(f, char::from(c))?;
                }
                write!(f, ":{small}, rip {a:#x}")
            }
            EventKind::Exception => write!(f, ": vector {small}, rip {a:#x}, cr2 {b:#x}"),
            EventKind::CoreWoken => {
                let (delay_us, for_us) = (a / 1000, b / 1000);
                write!(f, ": {small}, queueing delay {delay_us} us, too long for {for_us} us")
            }
            EventKind::CoresWanted => {
                let (permille, serving) = (b as u16, (b >> 32) as u16);
                let why = crate::demand::Reason((b >> 16) as u16).text();
                write!(f, ": {small} instead of {serving}, {why}: ")?;
                write!(f, "queueing delay p99 {} us, utilisation {permille}‰", a / 1000)
            }
            EventKind::GrantEnds => write!(f, ": limits {a}"),
            EventKind::DmaRefused => {
                let (bus, device, function) = (small >> 8, small >> 3 & 31, small & 7);
                let what = if b >> 8 & 1 == 0 { "read from" } else { "write to" };
                write!(
                    f,
                    ": {bus:02x}:{device:02x}.{function} tried to {what} {a:#x}, reason {}",
                    b as u8
                )
            }
            _ => write!(f, " {}: {small} {a:#x} {b:#x}", kind.0),
        }
    }
}

/// See the control page's `APP_EXIT`.
fn app_end(f: &mut core::fmt::Formatter<'_>, code: u64) -> core::fmt::Result {
    if code >> 32 & 1 == 0 {
        return write!(f, ": exited with {}", code as u32);
    }
    match code as u32 {
        1 => write!(f, ": fault, vector {}", code >> 40 & 0xff),
        2 => f.write_str(": not responding"),
        3 => f.write_str(": impossible ring index"),
        4 => f.write_str(": by command"),
        other => write!(f, ": reason {other}"),
    }
}

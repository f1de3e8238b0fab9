//! The monitor page: what the monitor tells a dataplane about itself. In the dataplane's memory, which
//! it can read but (by EPT) not write; its address is in CPUID leaf 40000001h. 64-bit words; the number of
//! cores decides how many pages there are.
//!
//! A word has one writer: those of a core are written by the monitor on that core, the head by whichever
//! core starts or contains the dataplane, one at a time.

use core::sync::atomic::{AtomicU64, Ordering, fence};

use super::cores::Cores;
use super::exits::COUNTERS;
use super::partition::DATAPLANES_MAX;

#[cfg(test)]
mod tests;

/// `IXMONITR`.
pub const MAGIC: u64 = u64::from_le_bytes(*b"IXMONITR");
pub const VERSION: u64 = 2;
pub const NAME_BYTES: usize = 32;

const WORD_MAGIC: usize = 0;
const WORD_VERSION: usize = 1;
const WORD_LEN: usize = 2;
const WORD_CORES: usize = 3;
const WORD_INDEX: usize = 4;
const WORD_DATAPLANES: usize = 5;
const WORD_LIVES: usize = 6;
const WORD_CONTAINMENTS: usize = 7;
/// Odd while the containment is being written.
const WORD_SEQUENCE: usize = 8;
const WORD_CONTAINMENT: usize = 16;
/// Words of a containment.
pub const CONTAINMENT_WORDS: usize = 10;
const WORD_NAME: usize = 32;
/// Names of the dataplanes that share a core with this one, by number; of others there is nothing.
const WORD_NEIGHBOURS: usize = 64;
const NAME_WORDS: usize = NAME_BYTES / 8;
const WORD_CORE: usize = WORD_NEIGHBOURS + DATAPLANES_MAX * NAME_WORDS;
/// Of one core: a counter per exit reason, then the words below.
const CORE_WORDS: usize = 96;
const CORE_WISH: usize = COUNTERS;
const CORE_DEADLINE: usize = COUNTERS + 1;
const CORE_YIELDED: usize = COUNTERS + 2;
const CORE_TAKEN: usize = COUNTERS + 3;
const CORE_AWAY: usize = COUNTERS + 4;
const _: () = assert!(CORE_AWAY < CORE_WORDS);
const _: () = assert!(WORD_CONTAINMENT + CONTAINMENT_WORDS <= WORD_NAME);
const _: () = assert!(WORD_NAME + NAME_WORDS <= WORD_NEIGHBOURS);

/// Words that a dataplane of so many cores needs: whole pages.
#[must_use]
pub const fn words(cores: usize) -> usize {
    (WORD_CORE + cores * CORE_WORDS).next_multiple_of(512)
}

/// Why a dataplane was stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Cause {
    EptViolation = 1,
    EptMisconfiguration,
    Msr,
    Port,
    Icr,
    Pci,
    Instruction,
    ControlRegister,
    Xsetbv,
    TripleFault,
    EntryFailure,
    UnknownExit,
    Hang,
    Ended,
    Hypercall,
}

impl Cause {
    const ALL: [Self; 15] = [
        Self::EptViolation,
        Self::EptMisconfiguration,
        Self::Msr,
        Self::Port,
        Self::Icr,
        Self::Pci,
        Self::Instruction,
        Self::ControlRegister,
        Self::Xsetbv,
        Self::TripleFault,
        Self::EntryFailure,
        Self::UnknownExit,
        Self::Hang,
        Self::Ended,
        Self::Hypercall,
    ];

    #[must_use]
    pub fn from_number(n: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|c| *c as u64 == n)
    }

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::EptViolation => "an access to memory that is not its own",
            Self::EptMisconfiguration => "an EPT misconfiguration",
            Self::Msr => "an MSR that is not listed",
            Self::Port => "a port that is not listed",
            Self::Icr => "an interrupt command that is not allowed",
            Self::Pci => "a configuration write that is not allowed",
            Self::Instruction => "an instruction that is not allowed",
            Self::ControlRegister => "a control-register value that is not allowed",
            Self::Xsetbv => "a value for XCR0 that is not allowed",
            Self::TripleFault => "a triple fault",
            Self::EntryFailure => "a VM-entry failure",
            Self::UnknownExit => "an exit that is not known",
            Self::Hang => "a hang",
            Self::Ended => "its own end",
            Self::Hypercall => "a call that the monitor does not know",
        }
    }
}

/// The last time that the dataplane was stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Containment {
    pub cause: Cause,
    /// Its number in the dataplane.
    pub core: u32,
    /// The exit-reason field as it was.
    pub exit: u32,
    pub qualification: u64,
    /// What the cause is about: guest-physical address, MSR, port, status.
    pub detail: u64,
    pub rip: u64,
    pub rsp: u64,
    pub cr3: u64,
    pub rflags: u64,
    pub tsc: u64,
}

impl Containment {
    /// In the order of the fields: as the control page has it.
    #[must_use]
    pub const fn to_words(self) -> [u64; CONTAINMENT_WORDS] {
        let Self { cause, core, exit, qualification, detail, rip, rsp, cr3, rflags, tsc } = self;
        [cause as u64, core as u64, exit as u64, qualification, detail, rip, rsp, cr3, rflags, tsc]
    }

    fn from_words(w: [u64; CONTAINMENT_WORDS]) -> Option<Self> {
        let [cause, core, exit, qualification, detail, rip, rsp, cr3, rflags, tsc] = w;
        let (core, exit) = (u32::try_from(core).ok()?, u32::try_from(exit).ok()?);
        let cause = Cause::from_number(cause)?;
        Some(Self { cause, core, exit, qualification, detail, rip, rsp, cr3, rflags, tsc })
    }
}

/// What the monitor wants of a core.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    Keep,
    /// It is to leave by this TSC value, or it is taken.
    Leave {
        deadline: u64,
    },
}

/// The page, on either side.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    words: &'a [AtomicU64],
    cores: usize,
}

impl<'a> Page<'a> {
    /// The monitor's: makes an empty page of one dataplane. `None`: too few words or too many cores.
    #[must_use]
    pub fn create(
        words: &'a [AtomicU64],
        name: &str,
        cores: usize,
        (index, dataplanes): (usize, usize),
    ) -> Option<Self> {
        let len = self::words(cores);
        if cores > Cores::MAX || words.len() < len {
            return None;
        }
        words[..len].iter().for_each(|w| w.store(0, Ordering::Relaxed));
        let page = Self { words: &words[..len], cores };
        page.put(WORD_VERSION, VERSION);
        page.put(WORD_LEN, len as u64);
        page.put(WORD_CORES, cores as u64);
        page.put(WORD_INDEX, index as u64);
        page.put(WORD_DATAPLANES, dataplanes as u64);
        page.put_name(WORD_NAME, name);
        page.words[WORD_MAGIC].store(MAGIC, Ordering::Release);
        Some(page)
    }

    /// The guest's: `words` are what is mapped. `None`: this is no page of this version.
    #[must_use]
    pub fn open(words: &'a [AtomicU64]) -> Option<Self> {
        let word = |i: usize| words.get(i).map(|w| w.load(Ordering::Acquire));
        if word(WORD_MAGIC)? != MAGIC || word(WORD_VERSION)? != VERSION {
            return None;
        }
        let cores = usize::try_from(word(WORD_CORES)?).ok().filter(|n| *n <= Cores::MAX)?;
        let len = self::words(cores);
        let whole = word(WORD_LEN)? == len as u64 && words.len() >= len;
        whole.then(|| Self { words: &words[..len], cores })
    }

    /// How many words a page says that it has, from its first four: to map the rest. `None`: no page.
    #[must_use]
    pub fn len_of(head: &[AtomicU64]) -> Option<usize> {
        let word = |i: usize| head.get(i).map(|w| w.load(Ordering::Acquire));
        let known = word(WORD_MAGIC)? == MAGIC && word(WORD_VERSION)? == VERSION;
        let len = usize::try_from(word(WORD_LEN)?).ok()?;
        (known && len <= words(Cores::MAX)).then_some(len)
    }

    fn get(&self, i: usize) -> u64 {
        self.words[i].load(Ordering::Relaxed)
    }

    fn put(&self, i: usize, value: u64) {
        self.words[i].store(value, Ordering::Relaxed);
    }

    /// A word of a core; `None` if there is no such core.
    fn of_core(&self, core: usize, word: usize) -> Option<&'a AtomicU64> {
        (core < self.cores && word < CORE_WORDS)
            .then(|| &self.words[WORD_CORE + core * CORE_WORDS + word])
    }

    fn core_word(&self, core: usize, word: usize) -> u64 {
        self.of_core(core, word).map_or(0, |w| w.load(Ordering::Relaxed))
    }

    /// One writer: no locked instruction.
    fn add(&self, core: usize, word: usize) {
        if let Some(w) = self.of_core(core, word) {
            w.store(w.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        }
    }

    #[must_use]
    pub const fn cores(&self) -> usize {
        self.cores
    }

    /// Which of how many dataplanes it is.
    #[must_use]
    pub fn place(&self) -> (u64, u64) {
        (self.get(WORD_INDEX), self.get(WORD_DATAPLANES))
    }

    /// The dataplane's name, padded with zeros.
    #[must_use]
    pub fn name(&self) -> [u8; NAME_BYTES] {
        self.get_name(WORD_NAME)
    }

    fn get_name(&self, at: usize) -> [u8; NAME_BYTES] {
        let mut name = [0; NAME_BYTES];
        for (i, part) in name.chunks_mut(8).enumerate() {
            part.copy_from_slice(&self.get(at + i).to_le_bytes());
        }
        name
    }

    fn put_name(&self, at: usize, name: &str) {
        for (i, part) in name.as_bytes().chunks(8).take(NAME_WORDS).enumerate() {
            let mut bytes = [0; 8];
            bytes[..part.len()].copy_from_slice(part);
            self.put(at + i, u64::from_le_bytes(bytes));
        }
    }

    /// Before it runs: dataplane `number` shares a core with it.
    pub fn set_neighbour(&self, number: usize, name: &str) {
        if number < DATAPLANES_MAX {
            self.put_name(WORD_NEIGHBOURS + number * NAME_WORDS, name);
        }
    }

    /// The name of dataplane `number`, padded with zeros, if it shares a core with this one.
    #[must_use]
    pub fn neighbour(&self, number: u8) -> Option<[u8; NAME_BYTES]> {
        let number = usize::from(number);
        let name =
            (number < DATAPLANES_MAX).then(|| self.get_name(WORD_NEIGHBOURS + number * NAME_WORDS));
        name.filter(|name| name[0] != 0)
    }

    /// The number of the one of that name that does. `name` may be any bytes.
    #[must_use]
    pub fn find_neighbour(&self, name: &[u8]) -> Option<u8> {
        let mut padded = [0; NAME_BYTES];
        padded.get_mut(..name.len())?.copy_from_slice(name);
        (0..DATAPLANES_MAX as u8).find(|number| self.neighbour(*number) == Some(padded))
    }

    /// How often the dataplane was started: 1 in its first life.
    #[must_use]
    pub fn lives(&self) -> u64 {
        self.get(WORD_LIVES)
    }

    pub fn set_lives(&self, lives: u64) {
        self.put(WORD_LIVES, lives);
    }

    /// How often it was stopped.
    #[must_use]
    pub fn containments(&self) -> u64 {
        self.get(WORD_CONTAINMENTS)
    }

    pub fn set_containment(&self, c: Containment) {
        let sequence = self.get(WORD_SEQUENCE);
        self.put(WORD_SEQUENCE, sequence | 1);
        fence(Ordering::Release);
        for (i, word) in c.to_words().into_iter().enumerate() {
            self.put(WORD_CONTAINMENT + i, word);
        }
        self.put(WORD_CONTAINMENTS, self.get(WORD_CONTAINMENTS).wrapping_add(1));
        self.words[WORD_SEQUENCE].store((sequence | 1).wrapping_add(1), Ordering::Release);
    }

    /// The last containment; `None`: there was none, or it is being written.
    #[must_use]
    pub fn containment(&self) -> Option<Containment> {
        let before = self.words[WORD_SEQUENCE].load(Ordering::Acquire);
        let words = core::array::from_fn(|i| self.get(WORD_CONTAINMENT + i));
        fence(Ordering::Acquire);
        let same = before & 1 == 0 && before != 0 && self.get(WORD_SEQUENCE) == before;
        same.then(|| Containment::from_words(words)).flatten()
    }

    /// Counts an exit; counters from `exits::Exit::counter`.
    pub fn count_exit(&self, core: usize, counter: usize) {
        self.add(core, counter.min(COUNTERS - 1));
    }

    #[must_use]
    pub fn exits(&self, core: usize, counter: usize) -> u64 {
        if counter < COUNTERS { self.core_word(core, counter) } else { 0 }
    }

    /// What the monitor wants of core `core` (of the dataplane).
    pub fn set_wish(&self, core: usize, wish: Wish) {
        let (word, deadline) = match wish {
            Wish::Keep => (0, 0),
            Wish::Leave { deadline } => (1, deadline),
        };
        if let (Some(d), Some(w)) =
            (self.of_core(core, CORE_DEADLINE), self.of_core(core, CORE_WISH))
        {
            d.store(deadline, Ordering::Relaxed);
            w.store(word, Ordering::Release);
        }
    }

    #[must_use]
    pub fn wish(&self, core: usize) -> Wish {
        let asked = self.of_core(core, CORE_WISH).is_some_and(|w| w.load(Ordering::Acquire) == 1);
        if asked {
            Wish::Leave { deadline: self.core_word(core, CORE_DEADLINE) }
        } else {
            Wish::Keep
        }
    }

    /// Whether the core runs somebody else's dataplane now.
    pub fn set_away(&self, core: usize, is_away: bool) {
        if let Some(w) = self.of_core(core, CORE_AWAY) {
            w.store(u64::from(is_away), Ordering::Release);
        }
    }

    #[must_use]
    pub fn is_away(&self, core: usize) -> bool {
        self.of_core(core, CORE_AWAY).is_some_and(|w| w.load(Ordering::Acquire) != 0)
    }

    /// The core has left: as asked, or by force.
    pub fn count_leave(&self, core: usize, was_forced: bool) {
        self.add(core, if was_forced { CORE_TAKEN } else { CORE_YIELDED });
    }

    /// How often it has left as asked and by force.
    #[must_use]
    pub fn leaves(&self, core: usize) -> (u64, u64) {
        (self.core_word(core, CORE_YIELDED), self.core_word(core, CORE_TAKEN))
    }
}

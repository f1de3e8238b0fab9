//! The raw ABI: direct calls, the two rings of a context, memory by address.
#![allow(unsafe_code, reason = "raw system calls and rings; memory by address, on purpose")]

use core::arch::{asm, naked_asm};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use ix_abi::call::{Call, Direct};
use ix_abi::event::Event;
use ix_abi::layout::{
    CALL_PAGE, CALL_SLOTS, EVENT_PAGE, EVENT_SLOTS, INFO_BASE, InfoPage, RING_SLOTS_OFFSET,
    context_base,
};
use ix_abi::ring;

#[unsafe(no_mangle)]
#[unsafe(naked)]
extern "C" fn _start() -> ! {
    naked_asm!("xor ebp, ebp", "jmp {main}", main = sym begin)
}

extern "C" fn begin(context: u64) -> ! {
    crate::main(context as usize)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    log("the hostile application panicked");
    loop {
        direct(Direct::Exit, 101, 0, 0);
    }
}

/// A direct call.
pub fn direct(number: Direct, a: u64, b: u64, c: u64) -> u64 {
    number_call(u64::from(number.0), a, b, c)
}

/// A direct call of any number.
pub fn number_call(number: u64, a: u64, b: u64, c: u64) -> u64 {
    let result;
    // SAFETY: the clobbers are the ABI's.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            inlateout("rdi") a => _,
            inlateout("rsi") b => _,
            inlateout("rdx") c => _,
            clobber_abi("sysv64"),
        );
    }
    result
}

pub fn log(text: &str) {
    direct(Direct::Log, text.as_ptr() as u64, text.len() as u64, 3);
}

/// Nanoseconds since boot.
pub fn now_ns() -> u64 {
    direct(Direct::Clock, 0, 0, 0)
}

/// The information page.
pub fn info() -> &'static InfoPage {
    // SAFETY: mapped read-only and constant while the program runs.
    unsafe { &*(INFO_BASE as *const InfoPage) }
}

/// Writes a word, wherever that is.
pub fn poke(at: u64, value: u64) {
    // SAFETY: none where the address is not this program's: the kernel then ends it here.
    unsafe { (at as *mut u64).write_volatile(value) }
}

/// Reads a word, wherever that is.
pub fn peek(at: u64) -> u64 {
    // SAFETY: as in `poke`.
    unsafe { (at as *const u64).read_volatile() }
}

/// Bytes of a received buffer.
pub fn received(addr: u64, len: usize) -> &'static [u8] {
    // SAFETY: the kernel named them in an event, and they stay mapped; the caller looks at them only
    // while they are held.
    unsafe { core::slice::from_raw_parts(addr as *const u8, len) }
}

/// The rings of a context.
#[derive(Debug)]
pub struct Rings {
    base: u64,
    produced: u32,
    consumed: u32,
}

impl Rings {
    pub fn new(context: usize) -> Rings {
        Rings { base: context_base(context), produced: 0, consumed: 0 }
    }

    fn word(at: u64) -> &'static AtomicU32 {
        // SAFETY: a header word of a mapped ring page, aligned, shared with the kernel.
        unsafe { AtomicU32::from_ptr(at as *mut u32) }
    }

    /// The application's index of the syscall ring.
    pub fn produced_word(&self) -> &'static AtomicU32 {
        Rings::word(self.base + CALL_PAGE)
    }

    /// The application's index of the event ring.
    pub fn consumed_word(&self) -> &'static AtomicU32 {
        Rings::word(self.base + CALL_PAGE + 4)
    }

    fn slot(&self) -> u64 {
        let index = ring::slot(self.produced, CALL_SLOTS) as u64;
        self.base + CALL_PAGE + RING_SLOTS_OFFSET as u64 + index * 64
    }

    /// Address of the syscall ring's first slot.
    pub fn slots(context: usize) -> u64 {
        context_base(context) + CALL_PAGE + RING_SLOTS_OFFSET as u64
    }

    /// Room for calls.
    pub fn room(&self) -> u32 {
        let taken = Rings::word(self.base + EVENT_PAGE + 4).load(Ordering::Acquire);
        CALL_SLOTS - self.produced.wrapping_sub(taken).min(CALL_SLOTS)
    }

    /// Writes any slot.
    pub fn push_words(&mut self, words: &[u64; 8]) {
        let at = self.slot();
        for (i, word) in words.iter().enumerate() {
            poke(at + i as u64 * 8, *word);
        }
        self.produced = self.produced.wrapping_add(1);
    }

    pub fn push(&mut self, call: &Call) {
        let words: [u64; 8] = zerocopy::transmute!(*call);
        self.push_words(&words);
    }

    /// Shows the kernel what was pushed, and enters.
    pub fn enter(&mut self) {
        self.produced_word().store(self.produced, Ordering::Release);
        self.consumed_word().store(self.consumed, Ordering::Release);
        direct(Direct::Enter, 0, 0, 0);
    }

    /// Index of the next call.
    pub fn produced(&self) -> u32 {
        self.produced
    }

    /// The kernel's index of the event ring.
    pub fn events_written(&self) -> u32 {
        Rings::word(self.base + EVENT_PAGE).load(Ordering::Acquire)
    }

    /// Whether an event is unread.
    pub fn has_event(&self) -> bool {
        self.consumed != self.events_written()
    }

    pub fn next_event(&mut self) -> Option<Event> {
        if !self.has_event() {
            return None;
        }
        let index = ring::slot(self.consumed, EVENT_SLOTS) as u64;
        let at = self.base + EVENT_PAGE + RING_SLOTS_OFFSET as u64 + index * 64;
        let words: [u64; 8] = core::array::from_fn(|i| peek(at + i as u64 * 8));
        self.consumed = self.consumed.wrapping_add(1);
        Some(zerocopy::transmute!(words))
    }
}

/// What contexts tell each other.
#[derive(Debug)]
pub struct Shared {
    /// What other contexts shall do: see `app::Duty`; 0 for nothing.
    pub duty: AtomicU64,
    /// Of which context.
    pub target: AtomicU64,
    /// For how long, in nanoseconds.
    pub lasts: AtomicU64,
    /// An address to do it to.
    pub address: AtomicU64,
    /// A connection of each context.
    pub conns: [AtomicU64; 64],
    /// The UDP port of the echo.
    pub echo_port: AtomicU64,
    /// No buffer is returned.
    pub hoard: AtomicU64,
}

pub static SHARED: Shared = Shared {
    duty: AtomicU64::new(0),
    target: AtomicU64::new(0),
    lasts: AtomicU64::new(0),
    address: AtomicU64::new(0),
    conns: [const { AtomicU64::new(0) }; 64],
    echo_port: AtomicU64::new(0),
    hoard: AtomicU64::new(0),
};

//! What the monitor keeps of a dataplane: what it owns, and how its cores tell one another to start, to stop, and why.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use ix_kernel_core::addr::Phys;
use ix_kernel_core::vmx::ept::Ept;
use ix_kernel_core::vmx::page::Page;
use ix_kernel_core::vmx::pci::Filter;
use ix_kernel_core::vmx::restart::Lives;
use ix_kernel_core::vmx::uart::Uart;
use spin::Mutex;

use super::kept::Vectors;
use super::memory::Memory;
use super::moves;
use super::vmcs::{Fences, Start};
use crate::{apic, console, pci, time};

/// How long a core may take to come out of its guest: an NMI ends whatever it does there.
const OUT_MAX_NS: u64 = 1_000_000_000;
/// How often it is asked again.
const ASK_NS: u64 = 1_000_000;

/// How it is with a dataplane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum State {
    Runs,
    /// A core has stopped it; the others come out, or are out.
    Stops,
    /// It has ended by itself.
    Ended,
    /// It is not started again.
    Down,
}

/// What a dataplane's accesses to ports change.
#[derive(Debug)]
pub struct Devices {
    pub uart: Uart,
    pub pci: Filter,
    /// The CMOS register that was selected.
    pub cmos: u8,
}

/// A core of a dataplane.
#[derive(Debug)]
pub struct VirtualCore {
    pub vmcs: Phys,
    /// 0: nothing; else what it is to do, see `encode`.
    start: AtomicU32,
    /// It got an INIT and waits for a start-up IPI from now on.
    pub init: AtomicBool,
    /// It got an NMI from a core of its dataplane.
    pub nmi: AtomicBool,
    /// Guest-physical address of the word that it counts up while it is alive; 0: not announced.
    pub heartbeat: AtomicU64,
    /// Interrupts that came while another dataplane had its core, a bit for each vector.
    pending: [AtomicU32; 8],
}

const BOOT: u32 = 1;
const STARTUP: u32 = 0x100;

impl VirtualCore {
    pub fn new(vmcs: Phys) -> Self {
        Self {
            vmcs,
            start: AtomicU32::new(0),
            init: AtomicBool::new(false),
            nmi: AtomicBool::new(false),
            heartbeat: AtomicU64::new(0),
            pending: [const { AtomicU32::new(0) }; 8],
        }
    }

    /// An interrupt for later.
    pub fn keep_pending(&self, vector: u8) {
        self.pending[usize::from(vector / 32)].fetch_or(1 << (vector % 32), Ordering::AcqRel);
    }

    pub fn keep_all_pending(&self, vectors: Vectors) {
        for (word, vectors) in self.pending.iter().zip(vectors) {
            word.fetch_or(vectors, Ordering::AcqRel);
        }
    }

    pub fn take_pending(&self) -> Vectors {
        core::array::from_fn(|i| self.pending[i].swap(0, Ordering::AcqRel))
    }

    /// Its core was elsewhere, or goes there: a start-up IPI that it has not followed is lost.
    pub fn forget_start(&self) {
        self.start.store(0, Ordering::Release);
    }

    fn reset(&self) {
        self.start.store(0, Ordering::Relaxed);
        self.init.store(false, Ordering::Relaxed);
        self.nmi.store(false, Ordering::Relaxed);
        self.heartbeat.store(0, Ordering::Relaxed);
        let _of_the_past = self.take_pending();
    }

    /// An INIT: from now on it waits, and a start-up IPI of before is forgotten.
    pub fn got_init(&self) {
        self.start.store(0, Ordering::Relaxed);
        self.init.store(true, Ordering::Release);
    }

    /// A start-up IPI: without effect until it waits for one.
    pub fn startup(&self, page: u8) {
        self.start.store(STARTUP | u32::from(page), Ordering::Release);
    }

    /// What it is to begin with, once.
    pub fn take_start(&self, entry: u64, start_info: u64) -> Option<Start> {
        match self.start.swap(0, Ordering::AcqRel) {
            0 => None,
            BOOT => Some(Start::Boot { entry, start_info }),
            n => Some(Start::Startup { page: n as u8 }),
        }
    }
}

#[derive(Debug)]
pub struct Dataplane {
    pub name: String,
    pub command_line: String,
    /// Physical cores, in the order of its own numbers, and their APIC ids.
    pub cores: Vec<usize>,
    pub apic_ids: Vec<u32>,
    pub functions: Vec<pci::Function>,
    pub memory: Memory,
    pub ept: Ept,
    pub fences: Fences,
    pub page: Page<'static>,
    pub page_at: Phys,
    pub devices: Mutex<Devices>,
    pub lives: Mutex<Lives>,
    pub virtual_cores: Vec<VirtualCore>,
    pub start_info: AtomicU64,
    /// Its own end, if it has: the status.
    pub status: AtomicU32,
    state: AtomicU32,
    /// Cores that are out while it stops, a bit each.
    out: AtomicU64,
}

impl Dataplane {
    /// One that stops, until [`Dataplane::run`].
    #[allow(clippy::too_many_arguments, reason = "made in one place")]
    pub fn new(
        (name, command_line): (String, String),
        (cores, apic_ids): (Vec<usize>, Vec<u32>),
        (functions, filter): (Vec<pci::Function>, Filter),
        memory: Memory,
        (ept, fences): (Ept, Fences),
        (page, page_at): (Page<'static>, Phys),
        virtual_cores: Vec<VirtualCore>,
    ) -> Self {
        Self {
            name,
            command_line,
            cores,
            apic_ids,
            functions,
            memory,
            ept,
            fences,
            page,
            page_at,
            devices: Mutex::new(Devices { uart: Uart::new(), pci: filter, cmos: 0 }),
            lives: Mutex::new(Lives::new()),
            virtual_cores,
            start_info: AtomicU64::new(0),
            status: AtomicU32::new(0),
            state: AtomicU32::new(State::Stops as u32),
            out: AtomicU64::new(0),
        }
    }

    pub fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            0 => State::Runs,
            1 => State::Stops,
            2 => State::Ended,
            _ => State::Down,
        }
    }

    /// Its first core begins; the memory is ready.
    pub fn run(&self) {
        self.virtual_cores.iter().for_each(VirtualCore::reset);
        self.out.store(0, Ordering::Relaxed);
        self.virtual_cores[0].start.store(BOOT, Ordering::Relaxed);
        self.state.store(State::Runs as u32, Ordering::Release);
    }

    /// Stops it; whether this core is the one that does.
    pub fn stop(&self) -> bool {
        let (runs, stops) = (State::Runs as u32, State::Stops as u32);
        self.state.compare_exchange(runs, stops, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// For good.
    pub fn leave(&self, state: State) {
        self.state.store(state as u32, Ordering::Release);
    }

    /// Its core `me` is out of the guest as long as the dataplane stops.
    pub fn stay_out(&self, me: usize) -> State {
        loop {
            let state = self.state();
            if state != State::Stops {
                // Whoever stops it next must wait for this core again, even if it was seen here after `run`.
                self.out.fetch_and(!(1 << me), Ordering::AcqRel);
                return state;
            }
            self.out.fetch_or(1 << me, Ordering::AcqRel);
            core::hint::spin_loop();
        }
    }

    /// Calls all cores but `me` out; the first that does not come.
    pub fn call_out(&self, me: usize) -> Result<(), usize> {
        let until = time::now_ns() + OUT_MAX_NS;
        let others = (0..self.cores.len()).filter(|core| *core != me);
        for core in others {
            while self.out.load(Ordering::Acquire) >> core & 1 == 0
                && !moves::is_elsewhere(self, core)
            {
                self.kick(core);
                time::wait_ns(ASK_NS / 10);
                if time::now_ns() > until {
                    return Err(core);
                }
            }
        }
        Ok(())
    }

    /// Makes a core look at what it is to do. One that is away does when it is back.
    pub fn kick(&self, core: usize) {
        moves::while_there(self, core, |is_there| {
            if is_there {
                apic::nmi(self.cores[core]);
            }
        });
    }

    /// A line that the dataplane itself has written.
    pub fn line(&self, text: &[u8]) {
        for part in text.utf8_chunks() {
            let end = if part.invalid().is_empty() { "" } else { "?" };
            console::guest_line(&self.name, format_args!("{}{end}", part.valid()));
        }
    }

    /// A line about it.
    pub fn say(&self, args: fmt::Arguments<'_>) {
        log::error!("{}: {args}", self.name);
    }
}

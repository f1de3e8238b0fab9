//! A loaded application: its address space laid out as `ix_abi::layout` says.
#![allow(unsafe_code, reason = "fills user frames, hands their aliases to the engine's table")]

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ptr::NonNull;

use ix_abi::layout::{
    CALL_PAGE, EVENT_PAGE, EventHeader, HEAP_BASE, HEAP_END, INFO_BASE, InfoPage, PAGE_BYTES,
    RX_BASE, STACK_PAGE, STACK_TOP, context_base,
};
use ix_abi::limits::ARGS_BYTES_MAX;
use ix_dataplane::device::BusAddr;
use ix_dataplane::rings::AppRings;
use ix_dataplane::usermem::UserMap;
use ix_kernel_core::addr::Phys;
use ix_kernel_core::elf_image::{ElfError, Image};
use ix_kernel_core::paging::{Access, MapError};
use ix_vtd::Rights;
use spin::Mutex;

use super::background::Threads;
use super::space::AddressSpace;
use super::state::UserState;
use crate::mem::{self, layout};
use crate::{entropy, iommu, time};

/// What the application is told and given, besides its image.
#[derive(Clone, Copy)]
pub struct Environment<'a> {
    pub cores: usize,
    pub groups: u16,
    /// The receive area: contiguous, a multiple of 2 MiB.
    pub rx_area: (Phys, u64),
    pub address: [u8; 16],
    pub mss: u16,
    pub args: &'a str,
    /// Heap mapped at start, and the most that `map` may reach, in pages.
    pub heap_pages: (u64, u64),
    pub boot_unix_ns: u64,
}

#[derive(Debug)]
pub enum LoadError {
    NotInArchive,
    Elf(ElfError),
    Map(MapError),
    ArgsTooLong,
}

impl core::fmt::Display for LoadError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NotInArchive => f.write_str("it is not in the boot archive"),
            Self::Elf(e) => write!(f, "{e}"),
            Self::Map(MapError::NoMemory) => {
                f.write_str("not enough memory: give more to the machine")
            }
            Self::Map(e) => write!(f, "{e:?}"),
            Self::ArgsTooLong => write!(f, "its arguments are longer than {ARGS_BYTES_MAX} bytes"),
        }
    }
}

impl From<MapError> for LoadError {
    fn from(e: MapError) -> Self {
        Self::Map(e)
    }
}

/// A page taken out of the address space, to be freed when no core's TLB and no frame in flight
/// refers to it any more.
pub struct Leaving {
    pub addr: u64,
    pub frame: Phys,
    pub epoch: u64,
}

pub struct Program {
    pub name: String,
    entry: u64,
    /// What engines look up.
    pub map: Arc<UserMap>,
    pub space: Mutex<AddressSpace>,
    pub leaving: Mutex<Vec<Leaving>>,
    root: Phys,
    /// Event and syscall page of each context.
    contexts: Vec<(Phys, Phys)>,
    pub heap_pages_max: u64,
    /// Its background threads.
    pub threads: Threads,
}

impl Program {
    pub fn load(name: &str, file: &[u8], env: &Environment<'_>) -> Result<Self, LoadError> {
        let image = Image::parse(file).map_err(LoadError::Elf)?;
        let space = AddressSpace::new().ok_or(MapError::NoMemory)?;
        let (heap, heap_max) = env.heap_pages;
        let heap_max = heap_max.min((HEAP_END - HEAP_BASE) / PAGE_BYTES);
        let map = Arc::new(UserMap::new(heap_max as u32, env.cores as u16));
        let root = space.root();
        let mut b = Builder { space, map };
        for (page, access) in image.pages() {
            b.page(page, access, true)?;
        }
        for s in image.segments() {
            b.fill(s.addr, s.contents)?;
        }
        for i in 0..heap.min(heap_max) {
            b.page(HEAP_BASE + i * PAGE_BYTES, Access::Write, true)?;
        }
        if env.rx_area.1 > 0 {
            b.space.map_shared(RX_BASE, env.rx_area.0, env.rx_area.1, Access::Read)?;
        }
        let mut contexts = Vec::with_capacity(env.cores);
        for i in 0..env.cores {
            let base = context_base(i);
            let events = b.page(base + EVENT_PAGE, Access::Read, false)?;
            let calls = b.page(base + CALL_PAGE, Access::Write, false)?;
            b.page(base + STACK_PAGE, Access::Write, true)?;
            set_boot_time(events, env.boot_unix_ns);
            contexts.push((events, calls));
        }
        let info = b.page(INFO_BASE, Access::Read, false)?;
        write_info(info, env, heap.min(heap_max), heap_max)?;
        Ok(Self {
            name: String::from(name),
            entry: image.entry,
            map: b.map,
            space: Mutex::new(b.space),
            leaving: Mutex::new(Vec::new()),
            root,
            contexts,
            heap_pages_max: heap_max,
            threads: Threads::new(),
        })
    }

    pub fn root(&self) -> Phys {
        self.root
    }

    /// The rings of a context. Once per load of the program and context: they have one owner.
    pub fn rings(&self, context: usize) -> AppRings {
        let (events, calls) = self.contexts[context];
        // SAFETY: two 2 MiB frames of this program, in the direct map; the engine that gets the rings
        // drops them before the program is freed (`lifecycle`), nothing else writes the pages.
        unsafe { AppRings::new(alias(events), alias(calls)) }
    }

    /// Kernel aliases of a context's event and syscall page headers.
    pub fn ring_pages(&self, context: usize) -> (NonNull<u8>, NonNull<u8>) {
        let (events, calls) = self.contexts[context];
        (alias(events), alias(calls))
    }

    /// The registers with which a context starts: its number and the information page as arguments.
    pub fn start_state(&self, context: usize) -> UserState {
        let stack = context_base(context) + STACK_TOP;
        UserState::start(self.entry, stack, context as u64, INFO_BASE)
    }
}

fn alias(frame: Phys) -> NonNull<u8> {
    NonNull::new(layout::direct(frame) as *mut u8).expect("the direct map is not at 0")
}

struct Builder {
    space: AddressSpace,
    map: Arc<UserMap>,
}

impl Builder {
    /// Maps a fresh page; `sendable` ones go into the engine's table.
    fn page(&mut self, va: u64, access: Access, sendable: bool) -> Result<Phys, LoadError> {
        let frame = self.space.map_fresh(va, access)?;
        if sendable && !enter_in_map(&self.map, va, frame) {
            return Err(MapError::NoMemory.into());
        }
        Ok(frame)
    }

    /// Copies file contents to where they belong; the pages are there.
    fn fill(&self, mut va: u64, mut bytes: &[u8]) -> Result<(), LoadError> {
        while !bytes.is_empty() {
            let (frame, within) = self.space.frame_of(va).ok_or(MapError::BadRange)?;
            let n = bytes.len().min((PAGE_BYTES - within) as usize);
            let to = layout::direct(Phys(frame.0 + within)) as *mut u8;
            // SAFETY: `n` bytes of a fresh frame, which the archive does not overlap.
            unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), to, n) };
            bytes = &bytes[n..];
            va += n as u64;
        }
        Ok(())
    }
}

/// Lets engines send from a frame, and the card read it. `false`: there is no memory for the IOMMU's tables.
#[must_use]
pub fn enter_in_map(map: &UserMap, va: u64, frame: Phys) -> bool {
    if !iommu::give(frame, PAGE_BYTES, Rights::Read) {
        return false;
    }
    // SAFETY: the frame is RAM in the direct map; bus addresses are physical ones, which the card was given; it is
    // freed only as the contract says (`lifecycle`, `calls::unmap`).
    unsafe { map.map(va, layout::direct(frame) as usize, BusAddr(frame.0)) };
    true
}

fn set_boot_time(events: Phys, unix_ns: u64) {
    let at = layout::direct(events) + core::mem::offset_of!(EventHeader, boot_unix_ns) as u64;
    // SAFETY: within a fresh frame, aligned.
    unsafe { (at as *mut u64).write_volatile(unix_ns) };
}

fn write_info(page: Phys, env: &Environment<'_>, heap: u64, max: u64) -> Result<(), LoadError> {
    let mut args = [0; ARGS_BYTES_MAX];
    let given = env.args.as_bytes();
    args.get_mut(..given.len()).ok_or(LoadError::ArgsTooLong)?.copy_from_slice(given);
    let info = InfoPage {
        version: ix_abi::VERSION,
        cores: env.cores as u32,
        groups: u32::from(env.groups),
        tsc_khz: time::tsc_khz() as u32,
        heap_bytes: heap * PAGE_BYTES,
        heap_max_bytes: max * PAGE_BYTES,
        rx_bytes: env.rx_area.1,
        address: env.address,
        mss: u32::from(env.mss),
        args_len: given.len() as u32,
        seed: core::array::from_fn(|_| entropy::next()),
        args,
    };
    // SAFETY: a fresh frame, large and aligned enough; nobody reads it yet.
    unsafe { (layout::direct(page) as *mut InfoPage).write(info) };
    Ok(())
}

/// Heap pages mapped at start, if there may be so many.
const AT_START: u64 = 16;

/// About how many frames a program takes at its start: heap, rings and stacks, image, information page.
pub fn frames_at_start(cores: usize) -> usize {
    AT_START as usize + 3 * cores + 6
}

/// How much heap an application gets: what was asked for, else most of what is free, and how much of
/// it is mapped at once (mapping costs boot time).
pub fn heap_pages(asked_mib: Option<u64>) -> (u64, u64) {
    let free = mem::free_bytes() / PAGE_BYTES;
    let max = match asked_mib {
        Some(mib) => mib.div_ceil(PAGE_BYTES >> 20),
        // The rest: stacks and rings of its contexts, the kernel's own needs.
        None => (free * 3 / 4).max(1),
    };
    (AT_START.min(max), max)
}

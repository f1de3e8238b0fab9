//! The application's heap: chunks for what it sends, in pages that are not neighbours for the
//! kernel. Freed memory is overwritten at once: whoever still refers to it sends nonsense.
use super::memory::{Bus, Pages};
use ix_abi::layout::{HEAP_BASE, PAGE_BYTES};
use ix_dataplane::device::BusAddr;
use std::rc::Rc;

const GRAIN: usize = 256;
/// What freed memory holds.
const FREED: u8 = 0xdd;

/// A chunk of the heap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// User address.
    pub addr: u64,
    /// Bytes in use.
    pub len: usize,
}

/// The heap.
#[derive(Debug)]
pub struct Heap {
    pages: Vec<(Rc<Pages>, BusAddr)>,
    used: Vec<bool>,
    cursor: usize,
}

impl Heap {
    /// A heap of `count` pages.
    pub fn new(count: u32, bus: &Bus) -> Heap {
        let page = |_| {
            let pages = Rc::new(Pages::new(PAGE_BYTES as usize));
            let at = bus.attach(&pages);
            (pages, at)
        };
        let grains = count as usize * PAGE_BYTES as usize / GRAIN;
        // Begins near a page's end, so that small runs cross it, too.
        let cursor = (PAGE_BYTES as usize - 5 * GRAIN) / GRAIN % grains;
        Heap { pages: (0..count).map(page).collect(), used: vec![false; grains], cursor }
    }

    /// The pages, for the kernel's table.
    pub fn pages(&self) -> impl Iterator<Item = (u64, &Pages, BusAddr)> {
        self.pages
            .iter()
            .enumerate()
            .map(|(i, (pages, bus))| (HEAP_BASE + i as u64 * PAGE_BYTES, &**pages, *bus))
    }

    /// Whether nothing is allocated.
    pub fn is_empty(&self) -> bool {
        self.used.iter().all(|used| !used)
    }

    /// A chunk of `len` bytes, if there is room.
    pub fn alloc(&mut self, len: usize) -> Option<Chunk> {
        let need = len.div_ceil(GRAIN);
        let count = self.used.len();
        let (mut run, mut at) = (0, self.cursor);
        for _ in 0..count + need {
            if at == count {
                (run, at) = (0, 0);
            }
            run = if self.used[at] { 0 } else { run + 1 };
            at += 1;
            if run == need {
                let first = at - need;
                self.used[first..at].fill(true);
                self.cursor = if at == count { 0 } else { at };
                return Some(Chunk { addr: HEAP_BASE + (first * GRAIN) as u64, len });
            }
        }
        None
    }

    /// Writes to it.
    pub fn write(&self, addr: u64, bytes: &[u8]) {
        let mut at = (addr - HEAP_BASE) as usize;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (page, within) = (at / PAGE_BYTES as usize, at % PAGE_BYTES as usize);
            let len = rest.len().min(PAGE_BYTES as usize - within);
            self.pages[page].0.write(within, &rest[..len]);
            rest = &rest[len..];
            at += len;
        }
    }

    /// Overwrites bytes that are the application's again.
    pub fn scribble(&self, addr: u64, len: usize) {
        self.write(addr, &vec![FREED; len]);
    }

    /// Gives a chunk back.
    pub fn free(&mut self, chunk: &Chunk) {
        self.scribble(chunk.addr, chunk.len);
        let first = (chunk.addr - HEAP_BASE) as usize / GRAIN;
        let last = first + chunk.len.div_ceil(GRAIN);
        assert!(self.used[first..last].iter().all(|used| *used), "{chunk:?} is freed twice");
        self.used[first..last].fill(false);
    }
}

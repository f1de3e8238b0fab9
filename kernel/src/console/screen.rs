//! The screen that the loader left: VGA text or a linear framebuffer. It is only ever written to; what
//! it shows is remembered in a `TextGrid`.
#![allow(unsafe_code, reason = "writes the screen's memory")]

use core::fmt;

use ix_kernel_core::addr::Phys;
use ix_kernel_core::pixels::{CELL_HEIGHT, CELL_WIDTH, Pixels, intensity};
use ix_kernel_core::text_grid::{Surface, TextGrid};

use crate::mem::{self, layout};
use crate::once::BootCell;

const VGA_COLUMNS: usize = 80;
/// Light grey on black.
const VGA_ATTRIBUTE: u16 = 0x0700;

/// One screen, so one grid: too large for a stack.
static GRID: BootCell<TextGrid> = BootCell::new(TextGrid::new(0, 0));

#[derive(Clone, Copy, Debug)]
enum Format {
    Text { rows: usize },
    Pixels(Pixels),
}

/// Where the memory is now; 0: cannot be reached.
#[derive(Debug)]
pub struct Screen {
    format: Format,
    addr: u64,
    len: usize,
    base: u64,
    blank: bool,
}

impl Screen {
    pub fn text(addr: u64, rows: usize) -> Self {
        let rows = rows.clamp(1, 60);
        Self::new(Format::Text { rows }, addr, VGA_COLUMNS * rows * 2, VGA_COLUMNS, rows)
    }

    pub fn pixels(p: Pixels) -> Self {
        let (columns, rows) = p.grid();
        Self::new(Format::Pixels(p), p.addr, p.len(), columns, rows)
    }

    fn new(format: Format, addr: u64, len: usize, columns: usize, rows: usize) -> Self {
        // SAFETY: called once, by the boot core, before the screen is used (`boot::start_screen`).
        unsafe { (*GRID.get()).reset(columns, rows) };
        Self { format, addr, len, base: 0, blank: false }
    }

    /// Uses the boot page tables' mapping of everything below `mapped`.
    pub fn boot(&mut self, mapped: u64) {
        if self.addr.checked_add(self.len as u64).is_some_and(|end| end <= mapped) {
            self.base = layout::direct(Phys(self.addr));
            self.clear();
        }
    }

    pub fn unmapped(&mut self) {
        self.base = 0;
    }

    /// Maps it as device memory; stays dark if that cannot be.
    pub fn map(&mut self) {
        if let Ok(va) = mem::map_device(Phys(self.addr), self.len as u64) {
            self.base = va.0;
            if !self.blank {
                self.clear();
            }
        }
    }

    pub fn is_shown(&self) -> bool {
        self.base != 0
    }

    /// Whether it was cleared, so that what was said so far is on it.
    pub fn is_blank_slate_done(&self) -> bool {
        self.blank
    }

    fn clear(&mut self) {
        self.blank = true;
        let words = self.len / 2;
        let blank = match self.format {
            Format::Text { .. } => VGA_ATTRIBUTE | u16::from(b' '),
            Format::Pixels(_) => 0,
        };
        for i in 0..words {
            self.put16(i * 2, blank);
        }
    }

    fn put16(&self, at: usize, value: u16) {
        if at + 2 <= self.len {
            // SAFETY: inside of the screen's memory, which is mapped at `base` (checked by callers'
            // `is_shown`); even offsets from an even address.
            unsafe { ((self.base + at as u64) as *mut u16).write_volatile(value) };
        }
    }

    fn put8(&self, at: usize, value: u8) {
        if at < self.len {
            // SAFETY: as in `put16`.
            unsafe { ((self.base + at as u64) as *mut u8).write_volatile(value) };
        }
    }

    fn put32(&self, at: usize, value: u32) {
        if at + 4 <= self.len && (self.base + at as u64).is_multiple_of(4) {
            // SAFETY: as in `put16`, and aligned.
            unsafe { ((self.base + at as u64) as *mut u32).write_volatile(value) };
        }
    }

    fn pixel(&self, p: &Pixels, x: usize, y: usize, value: u32) {
        let at = y * p.pitch + x * p.bytes_per_pixel;
        match p.bytes_per_pixel {
            4 => self.put32(at, value),
            2 => self.put16(at, value as u16),
            n => (0..n).for_each(|i| self.put8(at + i, (value >> (8 * i)) as u8)),
        }
    }
}

impl Surface for &Screen {
    fn draw(&mut self, column: usize, row: usize, character: u8) {
        match self.format {
            Format::Text { .. } => {
                let value = VGA_ATTRIBUTE | u16::from(character);
                self.put16((row * VGA_COLUMNS + column) * 2, value);
            }
            Format::Pixels(p) => {
                let (left, top) = (column * CELL_WIDTH * p.scale, row * CELL_HEIGHT * p.scale);
                for y in 0..CELL_HEIGHT * p.scale {
                    for x in 0..CELL_WIDTH * p.scale {
                        let level = intensity(character, x / p.scale, y / p.scale);
                        self.pixel(&p, left + x, top + y, p.grey(level));
                    }
                }
            }
        }
    }
}

impl fmt::Write for Screen {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        if self.is_shown() {
            // SAFETY: there is one screen, and whoever writes to it holds the console's lock; the one
            // exception, a crash report that broke the lock, is the only writer from then on.
            let grid = unsafe { &mut *GRID.get() };
            grid.write(s, &mut &*self);
        }
        Ok(())
    }
}

impl fmt::Display for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.format {
            Format::Text { rows } => write!(f, "VGA text {VGA_COLUMNS}x{rows}"),
            Format::Pixels(p) => write!(
                f,
                "framebuffer {}x{}x{} at {:#x}",
                p.width,
                p.height,
                p.bytes_per_pixel * 8,
                p.addr
            ),
        }
    }
}

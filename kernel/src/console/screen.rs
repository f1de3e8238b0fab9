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
/// Bytes of one line of a character: two by two pixels of four bytes at most.
const LINE_MAX: usize = CELL_WIDTH * 2 * 4;
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
        let [low, high] = match self.format {
            Format::Text { .. } => (VGA_ATTRIBUTE | u16::from(b' ')).to_le_bytes(),
            Format::Pixels(_) => [0, 0],
        };
        let chunk = core::array::from_fn::<u8, 64, _>(|i| if i % 2 == 0 { low } else { high });
        for at in (0..self.len).step_by(chunk.len()) {
            self.put(at, &chunk[..chunk.len().min(self.len - at)]);
        }
    }

    /// Writes bytes, eight at a time where that is possible: to uncached memory each write is a trip.
    fn put(&self, at: usize, bytes: &[u8]) {
        if at.checked_add(bytes.len()).is_none_or(|end| end > self.len) {
            return;
        }
        let to = self.base + at as u64;
        if to.is_multiple_of(8) && bytes.len().is_multiple_of(8) {
            for (i, chunk) in bytes.chunks_exact(8).enumerate() {
                let word = chunk.iter().rev().fold(0, |w, b| w << 8 | u64::from(*b));
                // SAFETY: inside of the screen's memory, which is mapped at `base` (callers look at
                // `is_shown`), and aligned.
                unsafe { (to as *mut u64).add(i).write_volatile(word) };
            }
        } else {
            for (i, b) in bytes.iter().enumerate() {
                // SAFETY: as above; bytes need no alignment.
                unsafe { (to as *mut u8).add(i).write_volatile(*b) };
            }
        }
    }

    /// A line of a character's pixels.
    fn pixels_of(p: &Pixels, character: u8, y: usize, line: &mut [u8; LINE_MAX]) -> usize {
        let mut len = 0;
        for x in 0..CELL_WIDTH * p.scale {
            let pixel = p.grey(intensity(character, x / p.scale, y)).to_le_bytes();
            line[len..len + p.bytes_per_pixel].copy_from_slice(&pixel[..p.bytes_per_pixel]);
            len += p.bytes_per_pixel;
        }
        len
    }
}

impl Surface for &Screen {
    fn draw(&mut self, column: usize, row: usize, character: u8) {
        match self.format {
            Format::Text { .. } => {
                let value = VGA_ATTRIBUTE | u16::from(character);
                self.put((row * VGA_COLUMNS + column) * 2, &value.to_le_bytes());
            }
            Format::Pixels(p) => {
                let left = column * CELL_WIDTH * p.scale * p.bytes_per_pixel;
                let mut line = [0; LINE_MAX];
                for y in 0..CELL_HEIGHT * p.scale {
                    let len = Screen::pixels_of(&p, character, y / p.scale, &mut line);
                    self.put((row * CELL_HEIGHT * p.scale + y) * p.pitch + left, &line[..len]);
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

//! What a multiboot2 loader (GRUB) hands over: the boot information structure, read tag by tag
//! (Multiboot2 Specification 2.0, 3.6). Every length is checked against what surrounds it; a tag that
//! makes no sense is left out, not believed.

use arrayvec::ArrayVec;

use crate::memory_map::Kind;

#[cfg(test)]
mod tests;

/// What EAX holds at the entry.
pub const MAGIC: u32 = 0x36D7_6289;
/// No loader writes more than this: memory and EFI maps of a few hundred entries.
pub const BYTES_MAX: u32 = 1 << 20;
/// Modules that are looked at, and kept from being overwritten: the archive is among the first.
pub const MODULES_MAX: usize = 16;

/// A module, `start..end` in physical memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Module {
    pub start: u64,
    pub end: u64,
}

/// The screen as the loader left it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Framebuffer {
    pub addr: u64,
    /// Bytes from one line to the next.
    pub pitch: u32,
    pub width: u32,
    pub height: u32,
    pub bits: u8,
    pub kind: FramebufferKind,
}

/// How pixels are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FramebufferKind {
    /// Position and number of bits of red, green and blue.
    Rgb([(u8, u8); 3]),
    /// VGA text; width and height are in characters.
    Text,
    /// With a palette, or of a kind that the specification does not know.
    Other(u8),
}

/// The structure's contents. Slices refer to the loader's memory.
#[derive(Clone, Debug, Default)]
pub struct Info<'a> {
    pub cmdline: &'a [u8],
    pub loader: &'a [u8],
    pub modules: ArrayVec<Module, MODULES_MAX>,
    /// Modules beyond [`MODULES_MAX`].
    pub more_modules: usize,
    memory: Option<Entries<'a>>,
    efi_memory: Option<Entries<'a>>,
    pub framebuffer: Option<Framebuffer>,
    /// A copy of the RSDP; that of ACPI 2.0 and later if there are both.
    pub rsdp: Option<&'a [u8]>,
    /// The 64-bit EFI system table.
    pub efi_system_table: Option<u64>,
}

/// Records of a size that the loader says.
#[derive(Clone, Copy, Debug)]
struct Entries<'a> {
    size: usize,
    bytes: &'a [u8],
}

impl<'a> Entries<'a> {
    /// `None` if records are too small for what is read of them.
    fn new(size: u32, least: usize, bytes: &'a [u8]) -> Option<Self> {
        let size = size as usize;
        (size >= least && size < 4096).then_some(Self { size, bytes })
    }
}

fn u32_at(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(b.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(b: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(b.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

/// A text without its terminator.
fn text(b: &[u8]) -> &[u8] {
    b.split(|c| *c == 0).next().unwrap_or_default()
}

/// Total length of the structure whose first four bytes these are.
#[must_use]
pub fn total_bytes(first: u32) -> Option<u32> {
    (16..=BYTES_MAX).contains(&first).then_some(first)
}

impl<'a> Info<'a> {
    /// Reads the whole structure, its total length first.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Self {
        let mut info = Self::default();
        let mut at = 8;
        while let (Some(kind), Some(size)) = (u32_at(bytes, at), u32_at(bytes, at + 4)) {
            let end = at.checked_add(size as usize).filter(|end| *end <= bytes.len());
            let Some(end) = end.filter(|_| size >= 8 && kind != 0) else { break };
            let _ = info.tag(kind, &bytes[at + 8..end]);
            // Tags start at multiples of 8.
            at = end.next_multiple_of(8);
        }
        info
    }

    fn tag(&mut self, kind: u32, body: &'a [u8]) -> Option<()> {
        match kind {
            1 => self.cmdline = text(body),
            2 => self.loader = text(body),
            3 => {
                let (start, end) = (u64::from(u32_at(body, 0)?), u64::from(u32_at(body, 4)?));
                if start < end && self.modules.try_push(Module { start, end }).is_err() {
                    self.more_modules += 1;
                }
            }
            6 => self.memory = Entries::new(u32_at(body, 0)?, 20, body.get(8..)?),
            8 => self.framebuffer = Some(framebuffer(body)?),
            12 => self.efi_system_table = Some(u64_at(body, 0)?),
            14 if self.rsdp.is_none() && body.len() >= 20 => self.rsdp = Some(body),
            15 if body.len() >= 36 => self.rsdp = Some(body),
            17 => self.efi_memory = Entries::new(u32_at(body, 0)?, 40, body.get(8..)?),
            _ => {}
        }
        Some(())
    }

    /// Start, length and kind of each range of the firmware's memory map.
    pub fn memory(&self) -> impl Iterator<Item = (u64, u64, Kind)> + '_ {
        let records = self.memory.iter().flat_map(|e| e.bytes.chunks_exact(e.size));
        records
            .filter_map(|r| Some((u64_at(r, 0)?, u64_at(r, 8)?, Kind::from_e820(u32_at(r, 16)?))))
    }

    /// What EFI's own map says is not free, whatever the other map makes of it (UEFI 2.10, 7.2).
    pub fn efi_taken(&self) -> impl Iterator<Item = (u64, u64, Kind)> + '_ {
        let records = self.efi_memory.iter().flat_map(|e| e.bytes.chunks_exact(e.size));
        records.filter_map(|r| {
            let kind = match u32_at(r, 0)? {
                // Loader, boot services and conventional memory: free once boot services ended.
                1..=4 | 7 => return None,
                8 => Kind::Bad,
                9 => Kind::AcpiReclaim,
                10 => Kind::AcpiNvs,
                _ => Kind::Reserved,
            };
            let pages = u64_at(r, 24)?;
            Some((u64_at(r, 8)?, pages.saturating_mul(4096), kind))
        })
    }

    /// Whether a memory map came along: without one nothing can be done.
    #[must_use]
    pub fn has_memory_map(&self) -> bool {
        self.memory.is_some()
    }
}

fn framebuffer(body: &[u8]) -> Option<Framebuffer> {
    let kind = match *body.get(21)? {
        1 => {
            let c = body.get(24..30)?;
            FramebufferKind::Rgb([(c[0], c[1]), (c[2], c[3]), (c[4], c[5])])
        }
        2 => FramebufferKind::Text,
        n => FramebufferKind::Other(n),
    };
    Some(Framebuffer {
        addr: u64_at(body, 0)?,
        pitch: u32_at(body, 8)?,
        width: u32_at(body, 12)?,
        height: u32_at(body, 16)?,
        bits: *body.get(20)?,
        kind,
    })
}

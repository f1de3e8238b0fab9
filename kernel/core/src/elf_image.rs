//! The application's ELF file: checked completely before anything is loaded.
//!
//! Accepted is a static, non-relocatable x86-64 file whose segments lie in the image area of
//! `ix_abi::layout`, none writable and executable at once. Memory is 2 MiB pages, so two segments
//! that share a page must agree: constants may lie beside code, nothing beside writable data.

use elf::abi::{EM_X86_64, ET_EXEC, PF_W, PF_X, PT_DYNAMIC, PT_INTERP, PT_LOAD};
use elf::endian::LittleEndian;
use ix_abi::layout::{IMAGE_BASE, IMAGE_END, PAGE_BYTES};

use crate::addr::align_down;
use crate::paging::Access;

#[cfg(test)]
mod tests;

/// Segments of one image.
pub const SEGMENTS_MAX: usize = 16;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ElfError {
    NotElf,
    /// Not a 64-bit little-endian x86-64 file, or not linked at a fixed address.
    WrongKind,
    /// It wants a dynamic linker.
    Dynamic,
    TooManySegments,
    NoSegments,
    /// Outside the image area, or wrapping; the segment's address.
    OutOfArea(u64),
    /// File contents missing, or longer than the memory.
    BadContents(u64),
    /// Writable and executable.
    WriteAndExecute(u64),
    /// Overlaps another, or shares a 2 MiB page with one of other access.
    Clash(u64),
    /// The entry point is not in an executable segment.
    BadEntry(u64),
}

impl core::fmt::Display for ElfError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NotElf => f.write_str("not an ELF file"),
            Self::WrongKind => f.write_str("not a static x86-64 executable"),
            Self::Dynamic => f.write_str("wants a dynamic linker"),
            Self::TooManySegments => write!(f, "more than {SEGMENTS_MAX} segments"),
            Self::NoSegments => f.write_str("nothing to load"),
            Self::OutOfArea(a) => write!(f, "segment at {a:#x} is outside the image area"),
            Self::BadContents(a) => {
                write!(f, "contents of the segment at {a:#x} are not in the file")
            }
            Self::WriteAndExecute(a) => write!(f, "segment at {a:#x} is writable and executable"),
            Self::Clash(a) => write!(f, "segment at {a:#x} shares memory with another"),
            Self::BadEntry(a) => write!(f, "entry point {a:#x} is not in code"),
        }
    }
}

/// A segment to load.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    pub addr: u64,
    pub contents: &'a [u8],
    /// Bytes in memory; what `contents` does not fill is 0.
    pub bytes: u64,
    pub access: Access,
}

impl Segment<'_> {
    fn pages(&self) -> (u64, u64) {
        (align_down(self.addr, PAGE_BYTES), align_down(self.addr + self.bytes - 1, PAGE_BYTES))
    }
}

/// A checked image.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    segments: [Option<Segment<'a>>; SEGMENTS_MAX],
    pub entry: u64,
}

impl<'a> Image<'a> {
    pub fn parse(file: &'a [u8]) -> Result<Self, ElfError> {
        let elf =
            elf::ElfBytes::<LittleEndian>::minimal_parse(file).map_err(|_| ElfError::NotElf)?;
        let h = &elf.ehdr;
        if h.class != elf::file::Class::ELF64 || h.e_machine != EM_X86_64 || h.e_type != ET_EXEC {
            return Err(ElfError::WrongKind);
        }
        let mut image = Self { segments: [None; SEGMENTS_MAX], entry: h.e_entry };
        let mut n = 0;
        for p in elf.segments().ok_or(ElfError::NoSegments)?.iter() {
            match p.p_type {
                PT_DYNAMIC | PT_INTERP => return Err(ElfError::Dynamic),
                PT_LOAD if p.p_memsz > 0 => {}
                _ => continue,
            }
            let s = check_segment(file, &p)?;
            image.segments().try_for_each(|other| check_pair(&s, other))?;
            *image.segments.get_mut(n).ok_or(ElfError::TooManySegments)? = Some(s);
            n += 1;
        }
        if n == 0 {
            return Err(ElfError::NoSegments);
        }
        let in_code = |s: &Segment<'_>| {
            s.access == Access::Execute && image.entry >= s.addr && image.entry < s.addr + s.bytes
        };
        if !image.segments().any(in_code) {
            return Err(ElfError::BadEntry(image.entry));
        }
        Ok(image)
    }

    pub fn segments(&self) -> impl Iterator<Item = &Segment<'a>> {
        self.segments.iter().flatten()
    }

    /// Every 2 MiB page of the image, ascending, with the access that it needs.
    pub fn pages(&self) -> impl Iterator<Item = (u64, Access)> + '_ {
        let last = self.segments().map(|s| s.pages().1).max().unwrap_or(0);
        (IMAGE_BASE..=last).step_by(PAGE_BYTES as usize).filter_map(|page| {
            let here = self.segments().filter(|s| s.pages().0 <= page && page <= s.pages().1);
            let access = here.map(|s| s.access).reduce(merge)?;
            Some((page, access))
        })
    }
}

/// Code wins over constants; `check_pair` has excluded everything else.
fn merge(a: Access, b: Access) -> Access {
    if a == Access::Execute || b == Access::Execute { Access::Execute } else { a }
}

fn check_segment<'a>(
    file: &'a [u8],
    p: &elf::segment::ProgramHeader,
) -> Result<Segment<'a>, ElfError> {
    let addr = p.p_vaddr;
    let end = addr.checked_add(p.p_memsz).ok_or(ElfError::OutOfArea(addr))?;
    if addr < IMAGE_BASE || end > IMAGE_END {
        return Err(ElfError::OutOfArea(addr));
    }
    let access = match (p.p_flags & PF_W != 0, p.p_flags & PF_X != 0) {
        (true, true) => return Err(ElfError::WriteAndExecute(addr)),
        (true, false) => Access::Write,
        (false, true) => Access::Execute,
        (false, false) => Access::Read,
    };
    let range = usize::try_from(p.p_offset).ok().zip(usize::try_from(p.p_filesz).ok());
    let contents = range.and_then(|(o, n)| file.get(o..o.checked_add(n)?));
    let contents = contents.ok_or(ElfError::BadContents(addr))?;
    if p.p_filesz > p.p_memsz {
        return Err(ElfError::BadContents(addr));
    }
    Ok(Segment { addr, contents, bytes: p.p_memsz, access })
}

fn check_pair(s: &Segment<'_>, other: &Segment<'_>) -> Result<(), ElfError> {
    let overlap = s.addr < other.addr + other.bytes && other.addr < s.addr + s.bytes;
    let ((a0, a1), (b0, b1)) = (s.pages(), other.pages());
    let share_page = a0 <= b1 && b0 <= a1;
    let one_writes = (s.access == Access::Write) != (other.access == Access::Write);
    if overlap || (share_page && one_writes) { Err(ElfError::Clash(s.addr)) } else { Ok(()) }
}

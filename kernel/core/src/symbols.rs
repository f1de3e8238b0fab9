//! The kernel's symbol table for backtraces: archive member `kernel.sym`, made from the kernel's ELF file
//! by whoever packs the archive. Without it backtraces show bare addresses.
//!
//! Little-endian: magic `IXSYMS01`, `u32` count, `u32` 0; then per symbol `u64` address, `u32` size, `u32`
//! name offset, sorted by address; then the names, each a `u16` length and UTF-8.

use alloc::format;
use alloc::vec::Vec;

#[cfg(test)]
mod tests;

const MAGIC: &[u8; 8] = b"IXSYMS01";
const HEADER: usize = 16;
const RECORD: usize = 16;
/// Longer names are cut.
const NAME_MAX: usize = 200;
/// The archive member that holds the table.
pub const MEMBER: &str = "kernel.sym";

/// A table; nothing in it is trusted, a lying one gives wrong names and nothing worse.
#[derive(Clone, Copy, Debug)]
pub struct Symbols<'a> {
    records: &'a [u8],
    names: &'a [u8],
}

fn word<const N: usize>(b: &[u8], at: usize) -> Option<[u8; N]> {
    b.get(at..at.checked_add(N)?)?.try_into().ok()
}

impl<'a> Symbols<'a> {
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        if bytes.get(..8)? != MAGIC {
            return None;
        }
        let count = u32::from_le_bytes(word(bytes, 8)?) as usize;
        let end = count.checked_mul(RECORD)?.checked_add(HEADER)?;
        Some(Self { records: bytes.get(HEADER..end)?, names: &bytes[end..] })
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len() / RECORD
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    fn address(&self, i: usize) -> u64 {
        word(self.records, i * RECORD).map_or(0, u64::from_le_bytes)
    }

    /// The symbol that `address` lies in, and the distance from its start.
    #[must_use]
    pub fn find(&self, address: u64) -> Option<(&'a str, u64)> {
        let (mut lo, mut hi) = (0, self.len());
        while lo < hi {
            let mid = lo + (hi - lo) / 2;
            if self.address(mid) <= address { lo = mid + 1 } else { hi = mid }
        }
        let i = lo.checked_sub(1)?;
        let size = u32::from_le_bytes(word(self.records, i * RECORD + 8)?);
        let offset = address.checked_sub(self.address(i))?;
        if size != 0 && offset > u64::from(size) {
            return None;
        }
        let at = u32::from_le_bytes(word(self.records, i * RECORD + 12)?) as usize;
        let len = usize::from(u16::from_le_bytes(word(self.names, at)?));
        let name = self.names.get(at + 2..at + 2 + len)?;
        Some((core::str::from_utf8(name).ok()?, offset))
    }
}

/// Makes the table from the kernel's ELF file. `None` if that is not an ELF file with symbols.
#[must_use]
pub fn build(elf: &[u8]) -> Option<Vec<u8>> {
    let file = elf::ElfBytes::<elf::endian::LittleEndian>::minimal_parse(elf).ok()?;
    let (table, strings) = file.symbol_table().ok()??;
    let mut found: Vec<(u64, u64, &str)> = table
        .iter()
        .filter(|s| s.st_symtype() == elf::abi::STT_FUNC || s.st_symtype() == elf::abi::STT_NOTYPE)
        .filter(|s| s.st_shndx != elf::abi::SHN_UNDEF && s.st_shndx != elf::abi::SHN_ABS)
        .filter_map(|s| Some((s.st_value, s.st_size, strings.get(s.st_name as usize).ok()?)))
        .filter(|(_, _, name)| !name.is_empty())
        .collect();
    // Of several names for one address the one with a size is the function's own.
    found.sort_by_key(|&(addr, size, _)| (addr, core::cmp::Reverse(size)));
    found.dedup_by_key(|&mut (addr, _, _)| addr);
    let mut out = Vec::new();
    let mut names: Vec<u8> = Vec::new();
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&(found.len() as u32).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    for (addr, size, name) in found {
        let readable = format!("{:#}", rustc_demangle::demangle(name));
        let mut len = readable.len().min(NAME_MAX);
        while !readable.is_char_boundary(len) {
            len -= 1;
        }
        out.extend_from_slice(&addr.to_le_bytes());
        out.extend_from_slice(&u32::try_from(size).unwrap_or(0).to_le_bytes());
        out.extend_from_slice(&(names.len() as u32).to_le_bytes());
        names.extend_from_slice(&(len as u16).to_le_bytes());
        names.extend_from_slice(&readable.as_bytes()[..len]);
    }
    out.extend_from_slice(&names);
    Some(out)
}

//! The boot archive: the one file that a loader hands over beside the kernel (`-initrd`), holding the
//! applications and the kernel's symbol table.
//!
//! Little-endian. Header: magic `IXARCH01`, `u32` number of members, `u32` 0. Then for each member 64
//! bytes: name (40 bytes, UTF-8, padded with 0), `u64` offset from the archive's start, `u64` length,
//! `u64` 0. Then the contents, each at a multiple of 64. Nothing in it is trusted: every number is
//! checked where it is read.

use alloc::vec::Vec;

#[cfg(test)]
mod tests;

/// The first bytes of an archive.
pub const MAGIC: &[u8; 8] = b"IXARCH01";
const HEADER: usize = 16;
const RECORD: usize = 64;
/// Bytes of a member's name.
pub const NAME_MAX: usize = 40;
/// Members of one archive.
pub const MEMBERS_MAX: usize = 256;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ArchiveError {
    /// Shorter than its header, or another magic.
    NotAnArchive,
    /// More members than it has room for, or than is allowed.
    BadCount(u32),
    /// Member number: name not UTF-8 or empty.
    BadName(usize),
    /// Member number: contents outside the archive.
    BadRange(usize),
}

impl core::fmt::Display for ArchiveError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NotAnArchive => f.write_str("no boot archive (wrong magic)"),
            Self::BadCount(n) => write!(f, "boot archive says {n} members, which it cannot hold"),
            Self::BadName(i) => write!(f, "name of archive member {i} is not text"),
            Self::BadRange(i) => write!(f, "contents of archive member {i} are out of range"),
        }
    }
}

/// A checked archive: every member's name and range is valid.
#[derive(Clone, Copy, Debug)]
pub struct Archive<'a> {
    bytes: &'a [u8],
    count: usize,
}

fn u32_at(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(b.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(b: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(b.get(at..at + 8)?.try_into().ok()?))
}

impl<'a> Archive<'a> {
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ArchiveError> {
        if bytes.len() < HEADER || &bytes[..8] != MAGIC {
            return Err(ArchiveError::NotAnArchive);
        }
        let said = u32_at(bytes, 8).ok_or(ArchiveError::NotAnArchive)?;
        let count = said as usize;
        if count > MEMBERS_MAX || HEADER + count * RECORD > bytes.len() {
            return Err(ArchiveError::BadCount(said));
        }
        let archive = Self { bytes, count };
        for i in 0..count {
            archive.name(i).ok_or(ArchiveError::BadName(i))?;
            archive.contents(i).ok_or(ArchiveError::BadRange(i))?;
        }
        Ok(archive)
    }

    /// All of it, as the loader handed it over.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    fn name(&self, i: usize) -> Option<&'a str> {
        let at = HEADER + i * RECORD;
        let field = self.bytes.get(at..at + NAME_MAX)?;
        let len = field.iter().position(|&b| b == 0).unwrap_or(NAME_MAX);
        let name = core::str::from_utf8(&field[..len]).ok()?;
        (!name.is_empty()).then_some(name)
    }

    fn contents(&self, i: usize) -> Option<&'a [u8]> {
        let at = HEADER + i * RECORD + NAME_MAX;
        let start = usize::try_from(u64_at(self.bytes, at)?).ok()?;
        let len = usize::try_from(u64_at(self.bytes, at + 8)?).ok()?;
        self.bytes.get(start..start.checked_add(len)?)
    }

    /// Members in order.
    pub fn members(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + '_ {
        (0..self.count).filter_map(|i| Some((self.name(i)?, self.contents(i)?)))
    }

    /// The first member of that name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&'a [u8]> {
        self.members().find(|(n, _)| *n == name).map(|(_, c)| c)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BuildError {
    TooManyMembers,
    /// Empty, longer than [`NAME_MAX`] or with a NUL; the member's number.
    BadName(usize),
}

impl core::fmt::Display for BuildError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::TooManyMembers => write!(f, "more than {MEMBERS_MAX} members"),
            Self::BadName(i) => write!(f, "name of member {i} is empty or over {NAME_MAX} bytes"),
        }
    }
}

/// Builds an archive: what `xtask` and `ixcp` call.
pub fn build(members: &[(&str, &[u8])]) -> Result<Vec<u8>, BuildError> {
    if members.len() > MEMBERS_MAX {
        return Err(BuildError::TooManyMembers);
    }
    let mut out = Vec::new();
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&(members.len() as u32).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    let mut at = (HEADER + members.len() * RECORD).next_multiple_of(64);
    for (i, (name, contents)) in members.iter().enumerate() {
        if name.is_empty() || name.len() > NAME_MAX || name.contains('\0') {
            return Err(BuildError::BadName(i));
        }
        let mut field = [0; NAME_MAX];
        field[..name.len()].copy_from_slice(name.as_bytes());
        out.extend_from_slice(&field);
        out.extend_from_slice(&(at as u64).to_le_bytes());
        out.extend_from_slice(&(contents.len() as u64).to_le_bytes());
        out.extend_from_slice(&[0; 8]);
        at = (at + contents.len()).next_multiple_of(64);
    }
    for (_, contents) in members {
        out.resize(out.len().next_multiple_of(64), 0);
        out.extend_from_slice(contents);
    }
    Ok(out)
}

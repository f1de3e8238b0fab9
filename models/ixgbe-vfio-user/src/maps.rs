//! Which memory of the client the chip can reach: a list of maps by bus address, which lives: firmware and guests
//! change it many times.
use crate::piece::Piece;
use ix_model_ixgbe::Memory;
use nix::errno::Errno;
use std::os::fd::OwnedFd;

/// Most maps at a time (`max_dma_maps`). A machine has some tens; behind an IOMMU each page that a driver gives to the
/// card may be one. The system allows a process about 65,000.
pub const MAPS_MAX: usize = 32_768;
/// What addresses, sizes and offsets of maps are multiples of (`pgsizes`).
pub const PAGE_BYTES: u64 = 4096;

/// A client's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Bus address.
    pub at: u64,
    /// Size.
    pub bytes: u64,
}

impl Range {
    /// Where it ends; none if that is no address.
    fn end(self) -> Option<u64> {
        self.at.checked_add(self.bytes)
    }
}

/// Memory at a bus address.
#[derive(Debug)]
struct Map {
    at: u64,
    bytes: u64,
    /// None: the client names the range, but gave no file: it can only be reached by asking the client, which no
    /// memory of a machine is (QEMU's ROMs are like that).
    piece: Option<Piece>,
    readable: bool,
}

impl Map {
    fn last(&self) -> u64 {
        self.at + (self.bytes - 1)
    }
}

/// All of it.
#[derive(Debug, Default)]
pub struct Maps {
    /// By address; none overlaps another.
    sorted: Vec<Map>,
}

/// What the device may do with a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// It may read.
    pub read: bool,
    /// It may write.
    pub write: bool,
}

impl Maps {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// Adds one.
    ///
    /// # Errors
    /// `EINVAL` for what is no range of pages, for a range in the place of another one, and for a file that is not that
    /// long; `ENOSPC` for more than [`MAPS_MAX`].
    pub fn add(
        &mut self,
        range: Range,
        access: Access,
        file: Option<(OwnedFd, u64)>,
    ) -> Result<(), Errno> {
        let offset = file.as_ref().map_or(0, |(_, offset)| *offset);
        let paged = [range.at, range.bytes, offset].iter().all(|v| v.is_multiple_of(PAGE_BYTES));
        let end = range.end().filter(|_| paged && range.bytes > 0).ok_or(Errno::EINVAL)?;
        let place = self.sorted.partition_point(|m| m.at < range.at);
        let before = place.checked_sub(1).and_then(|i| self.sorted.get(i));
        if before.is_some_and(|m| m.last() >= range.at)
            || self.sorted.get(place).is_some_and(|m| m.at < end)
        {
            return Err(Errno::EINVAL);
        }
        if self.sorted.len() >= MAPS_MAX {
            return Err(Errno::ENOSPC);
        }
        let piece = match file {
            Some((fd, offset)) => Some(Piece::map(&fd, offset, range.bytes, access.write)?),
            None => None,
        };
        let map = Map { at: range.at, bytes: range.bytes, piece, readable: access.read };
        self.sorted.insert(place, map);
        Ok(())
    }

    /// Removes those within a range.
    ///
    /// # Errors
    /// `EINVAL` if it cuts one in two, `ENOENT` if there is none in it; then nothing is removed.
    pub fn remove(&mut self, range: Range) -> Result<(), Errno> {
        let end = range.end().filter(|_| range.bytes > 0).ok_or(Errno::EINVAL)?;
        let touched = |m: &Map| m.at < end && m.last() >= range.at;
        let within = |m: &Map| m.at >= range.at && m.last() < end;
        if self.sorted.iter().any(|m| touched(m) && !within(m)) {
            return Err(Errno::EINVAL);
        }
        let before = self.sorted.len();
        self.sorted.retain(|m| !within(m));
        if self.sorted.len() == before { Err(Errno::ENOENT) } else { Ok(()) }
    }

    /// Removes all.
    pub fn clear(&mut self) {
        self.sorted.clear();
    }

    /// Goes over the pieces that a transfer touches: piece, place in it, bytes already done, bytes of this one. `None` if
    /// some of it is not there or must not be accessed.
    fn walk<'a>(
        &'a self,
        at: u64,
        len: usize,
        may: impl Fn(&Map, &Piece) -> bool,
        mut each: impl FnMut(&'a Piece, usize, usize, usize),
    ) -> Option<()> {
        at.checked_add(len as u64)?;
        let mut index = self.sorted.partition_point(|m| m.last() < at);
        let mut done = 0;
        while done < len {
            let map = self.sorted.get(index)?;
            let piece = map.piece.as_ref().filter(|p| may(map, p))?;
            // An address below the map is in a gap.
            let inside = (at + done as u64).checked_sub(map.at)?;
            let part = usize::try_from(map.bytes - inside).unwrap_or(usize::MAX).min(len - done);
            each(piece, inside as usize, done, part);
            done += part;
            index += 1;
        }
        Some(())
    }
}

impl Memory for Maps {
    fn read(&self, at: u64, to: &mut [u8]) -> bool {
        let len = to.len();
        let readable = |map: &Map, _: &Piece| map.readable;
        let each = |piece: &Piece, inside, done, part| {
            piece.read(inside, &mut to[done..done + part]);
        };
        self.walk(at, len, readable, each).is_some()
    }

    fn write(&self, at: u64, from: &[u8]) -> bool {
        let writable = |_: &Map, piece: &Piece| piece.writable();
        // All of it or nothing.
        if self.walk(at, from.len(), writable, |_, _, _, _| ()).is_none() {
            return false;
        }
        let each = |piece: &Piece, inside, done, part| {
            piece.write(inside, &from[done..done + part]);
        };
        self.walk(at, from.len(), writable, each).is_some()
    }
}

#[cfg(test)]
mod tests;

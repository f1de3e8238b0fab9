//! Received bytes that the application has not dealt with yet: pieces of the receive area.
#![allow(unsafe_code, reason = "turns addresses that the kernel vouches for into slices")]

use alloc::collections::VecDeque;

/// Some bytes in the receive area.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) addr: u64,
    pub(crate) len: u32,
}

impl Piece {
    /// No bytes.
    const NONE: Piece = Piece { addr: 0, len: 0 };

    /// # Safety
    /// The kernel reported the piece as received, and for all of `'a` nobody returns it.
    #[inline]
    pub(crate) unsafe fn bytes<'a>(self) -> &'a [u8] {
        let start = core::ptr::with_exposed_provenance(self.addr as usize);
        // SAFETY: the kernel keeps received bytes readable and unchanged until they are returned.
        unsafe { core::slice::from_raw_parts(start, self.len as usize) }
    }
}

/// The unread pieces of one connection, oldest first. There is nearly always one at most, which has a place of
/// its own.
///
/// Invariant: every piece was reported by the kernel for this connection and has not been
/// returned. Who returns bytes takes their pieces out first, by `&mut self`: so a slice from
/// [`Inbox::pieces`] cannot be alive then.
#[derive(Debug)]
pub(crate) struct Inbox {
    /// The oldest; empty if there is none.
    first: Piece,
    /// The others, none of them empty.
    rest: VecDeque<Piece>,
    /// Bytes in `rest`.
    rest_bytes: usize,
}

impl Inbox {
    pub(crate) fn new() -> Inbox {
        Inbox { first: Piece::NONE, rest: VecDeque::new(), rest_bytes: 0 }
    }

    /// # Safety
    /// The kernel has just reported `piece` for this connection.
    #[inline]
    pub(crate) unsafe fn push(&mut self, piece: Piece) {
        if self.first.len == 0 {
            self.first = piece;
        } else {
            self.push_behind(piece);
        }
    }

    #[cold]
    fn push_behind(&mut self, piece: Piece) {
        if piece.len > 0 {
            self.rest_bytes += piece.len as usize;
            self.rest.push_back(piece);
        }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.first.len as usize + self.rest_bytes
    }

    /// The oldest piece; empty if there is none.
    #[inline]
    pub(crate) fn front(&self) -> &[u8] {
        if self.first.len == 0 {
            return &[];
        }
        // SAFETY: the invariant; the slice borrows the inbox.
        unsafe { self.first.bytes() }
    }

    /// All pieces but the oldest.
    #[inline]
    pub(crate) fn behind(&self) -> impl Iterator<Item = &[u8]> {
        // SAFETY: the invariant; the slices borrow the inbox.
        self.rest.iter().map(|piece| unsafe { piece.bytes() })
    }

    pub(crate) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        Some(self.front()).filter(|bytes| !bytes.is_empty()).into_iter().chain(self.behind())
    }

    /// Takes out the only piece there is, if it is not longer than `max`; else nothing happens.
    #[inline]
    pub(crate) fn take_only(&mut self, max: usize) -> Option<Piece> {
        let only = self.first;
        if self.rest_bytes != 0 || only.len == 0 || only.len as usize > max {
            return None;
        }
        self.first.len = 0;
        Some(only)
    }

    /// Takes the oldest piece out, or as much of it as `max` allows.
    pub(crate) fn take(&mut self, max: usize) -> Option<Piece> {
        let mut taken = self.first;
        if taken.len == 0 {
            return None;
        }
        if taken.len as usize > max {
            taken.len = max as u32;
            self.first.addr += max as u64;
            self.first.len -= taken.len;
        } else {
            self.first = self.rest.pop_front().unwrap_or(Piece::NONE);
            self.rest_bytes -= self.first.len as usize;
        }
        Some(taken)
    }

    /// Takes the oldest `bytes` out, as far as there are so many; returns how many there were.
    #[inline]
    pub(crate) fn skip(&mut self, bytes: usize) -> usize {
        match self.take_only(bytes) {
            Some(piece) => piece.len as usize,
            None => self.skip_pieces(bytes),
        }
    }

    #[cold]
    fn skip_pieces(&mut self, bytes: usize) -> usize {
        let mut left = bytes;
        while left > 0
            && let Some(piece) = self.take(left)
        {
            left -= piece.len as usize;
        }
        bytes - left
    }

    /// Forgets everything: it is being returned.
    pub(crate) fn clear(&mut self) {
        self.first = Piece::NONE;
        self.rest.clear();
        self.rest_bytes = 0;
    }
}

#[cfg(test)]
mod tests;

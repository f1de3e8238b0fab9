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
    /// # Safety
    /// The kernel reported the piece as received, and for all of `'a` nobody returns it.
    pub(crate) unsafe fn bytes<'a>(self) -> &'a [u8] {
        let start = core::ptr::with_exposed_provenance(self.addr as usize);
        // SAFETY: the kernel keeps received bytes readable and unchanged until they are returned.
        unsafe { core::slice::from_raw_parts(start, self.len as usize) }
    }
}

/// The unread pieces of one connection, oldest first.
///
/// Invariant: every piece was reported by the kernel for this connection and has not been
/// returned. Who returns bytes takes their pieces out first, by `&mut self`: so a slice from
/// [`Inbox::pieces`] cannot be alive then.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    pieces: VecDeque<Piece>,
    len: usize,
}

impl Inbox {
    /// # Safety
    /// The kernel has just reported `piece` for this connection.
    pub(crate) unsafe fn push(&mut self, piece: Piece) {
        self.len += piece.len as usize;
        self.pieces.push_back(piece);
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        // SAFETY: the invariant; the slices borrow the inbox.
        self.pieces.iter().map(|piece| unsafe { piece.bytes() })
    }

    /// Takes the oldest piece out, or as much of it as `max` allows.
    pub(crate) fn take(&mut self, max: usize) -> Option<Piece> {
        let front = self.pieces.front_mut()?;
        let mut taken = *front;
        if front.len as usize > max {
            taken.len = max as u32;
            front.addr += max as u64;
            front.len -= taken.len;
        } else {
            self.pieces.pop_front();
        }
        self.len -= taken.len as usize;
        Some(taken)
    }

    /// Forgets everything: it is being returned.
    pub(crate) fn clear(&mut self) {
        self.pieces.clear();
        self.len = 0;
    }
}

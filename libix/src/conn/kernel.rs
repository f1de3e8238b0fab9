//! A connection's side towards the kernel: what its events change, and what is told at the end of a batch.
//!
//! Nearly every message takes the short way: the connection is open, all that it has offered is with the
//! kernel, and what it sends is one piece. The `_otherwise` functions are the general way, and do the same
//! with what the short way can do.
#![allow(unsafe_code, reason = "returns received bytes to the kernel, after taking them out")]

use super::{Conn, End};
use crate::cx::Cx;
use crate::event_loop::App;
use crate::inbox::Piece;
use crate::outbox::SgList;
use crate::pool::Pool;
use ix_abi::Status;

impl<A: App> Conn<A> {
    /// Tells the kernel what has gathered: at the end of each batch.
    #[inline]
    pub(crate) fn flush(&mut self, cx: &mut Cx<A>, app: &mut A) {
        self.dirty = false;
        if self.end != End::Open || self.blocked || !self.is_settled(cx) {
            return self.flush_otherwise(cx, app);
        }
        if !self.offer(cx, app) {
            self.give_back(cx);
        }
    }

    #[cold]
    #[inline(never)]
    fn flush_otherwise(&mut self, cx: &mut Cx<A>, app: &mut A) {
        match self.end {
            End::Gone => return,
            End::AbortWanted => return self.leave(cx, true),
            End::Open | End::ShutdownWanted | End::ShutdownDone | End::CloseWanted => {}
        }
        let offers = !self.blocked && self.is_settled(cx);
        if offers && self.offer(cx, app) {
            return;
        }
        self.give_back(cx);
        if !offers {
            return;
        }
        // Nothing waits, and the kernel has taken all that was offered: FIN may follow.
        match self.end {
            End::CloseWanted => self.leave(cx, false),
            End::ShutdownWanted => {
                cx.context.shutdown(self.handle);
                self.end = End::ShutdownDone;
            }
            _ => {}
        }
    }

    /// Returns what is to be returned, in a call of its own.
    #[inline]
    fn give_back(&mut self, cx: &mut Cx<A>) {
        if self.done > 0 {
            // SAFETY: `done` counts pieces that were taken out of the inbox, so that no slice of
            // them is left (see `Inbox`), and that the outbox no longer sends; they are the oldest.
            unsafe { cx.context.recv_done(self.handle, core::mem::take(&mut self.done)) }
        }
    }

    /// Offers what waits; `false` if there was nothing. One `sendv` at a time: were its last bytes
    /// refused, those of another that is already on its way could leave a hole in the stream.
    #[inline]
    fn offer(&mut self, cx: &mut Cx<A>, app: &mut A) -> bool {
        if A::PULLS {
            let mut sg = SgList::new();
            app.pull(&mut self.data, &mut sg);
            return self.offer_list(cx, &sg);
        }
        if self.outbox.waiting() == 0 {
            return false;
        }
        let Some(entry) = self.outbox.offer_one() else { return self.offer_otherwise(cx) };
        // What is to follow, FIN, awaits the result.
        let want_result = self.end != End::Open;
        let done = core::mem::take(&mut self.done);
        // SAFETY: as in `offer_list`.
        unsafe {
            cx.context.sendv_and_done(self.handle, &[entry], entry.len, want_result, done);
        }
        self.offered(cx, entry.len);
        true
    }

    #[cold]
    fn offer_otherwise(&mut self, cx: &mut Cx<A>) -> bool {
        let mut sg = SgList::new();
        self.outbox.offer(&mut sg);
        self.offer_list(cx, &sg)
    }

    #[inline]
    fn offer_list(&mut self, cx: &mut Cx<A>, sg: &SgList) -> bool {
        let bytes = sg.bytes();
        if bytes == 0 {
            return false;
        }
        // What is to follow, more bytes or FIN, awaits the result.
        let want_result = sg.room() == 0 || self.end != End::Open;
        let done = core::mem::take(&mut self.done);
        // SAFETY: `done` counts pieces that were taken out of the inbox, so that no slice of them is left
        // (see `Inbox`), and that the outbox does not send any more; they are the oldest.
        unsafe { cx.context.sendv_and_done(self.handle, sg.entries(), bytes, want_result, done) };
        self.offered(cx, bytes);
        true
    }

    #[inline]
    fn offered(&mut self, cx: &Cx<A>, bytes: u64) {
        self.last_offer = Some(cx.context.call_index());
        self.in_flight += bytes;
    }

    /// Whether the kernel's answer to all that was offered is known.
    #[inline]
    fn is_settled(&mut self, cx: &Cx<A>) -> bool {
        let Some(index) = self.last_offer else { return true };
        let is_settled = cx.context.is_settled(index);
        if is_settled {
            self.last_offer = None;
        }
        is_settled
    }

    /// Closes or aborts: the one call that returns all received bytes.
    fn leave(&mut self, cx: &mut Cx<A>, abort: bool) {
        self.inbox.clear();
        self.done = 0;
        if self.end == End::Gone {
            return;
        }
        self.end = End::Gone;
        // SAFETY: the inbox is empty and `&mut self` says that no slice of it is left.
        unsafe {
            if abort {
                cx.context.abort(self.handle);
            } else {
                cx.context.close(self.handle);
            }
        }
    }

    /// `recv` came: the application is told, unless it has ended the connection.
    #[inline(always)]
    pub(crate) fn on_recv(&mut self, cx: &mut Cx<A>, app: &mut A, piece: Piece) {
        if self.end >= End::CloseWanted {
            return self.on_unwanted(cx, piece);
        }
        // SAFETY: the event loop passes on what the kernel reported for this handle.
        unsafe { self.inbox.push(piece) }
        if A::PULLS {
            self.mark_dirty(cx);
        }
        app.on_recv(cx, self);
    }

    #[cold]
    fn on_unwanted(&mut self, cx: &mut Cx<A>, piece: Piece) {
        if self.end == End::Gone {
            return; // already returned with `close`
        }
        // SAFETY: as in `on_recv`.
        unsafe { self.inbox.push(piece) }
        self.consume(cx, usize::MAX);
    }

    pub(crate) fn on_eof(&mut self) -> bool {
        self.eof = true;
        self.end < End::CloseWanted
    }

    /// `sent` came. Nothing that it leaves in a connection that is gone is told to the kernel.
    #[inline(always)]
    pub(crate) fn on_sent(&mut self, cx: &mut Cx<A>, bytes: u32, window: u32) {
        let bytes = u64::from(bytes).min(self.in_flight);
        self.in_flight -= bytes;
        let done = if A::PULLS { 0 } else { self.outbox.sent(bytes, &mut cx.pool) };
        if self.blocked {
            self.blocked = window == 0;
        }
        if self.in_flight == 0 {
            self.last_offer = None;
        }
        self.done += done;
        if A::PULLS || done > 0 || self.outbox.waiting() > 0 || self.is_ending() {
            self.mark_dirty(cx);
        }
    }

    /// The result of a `sendv` of `offered` bytes came: the kernel took `accepted` of them.
    pub(crate) fn on_sendv_result(
        &mut self,
        cx: &mut Cx<A>,
        app: &mut A,
        status: Status,
        offered: u64,
        accepted: u64,
    ) {
        let accepted = match status {
            Status::Ok => offered,
            Status::Again => accepted.min(offered),
            // Bad memory is the program's error; anything else means that `dead` is to come.
            Status::Invalid | Status::Fault | Status::Denied => {
                log::error!("libix: sendv on {:x}: {status}; aborting it", self.handle.0);
                self.abort(cx);
                0
            }
            _ => 0,
        };
        let refused = (offered - accepted).min(self.in_flight);
        if refused > 0 {
            self.in_flight -= refused;
            self.blocked = true;
            if A::PULLS {
                app.refused(&mut self.data, refused);
            } else {
                self.outbox.refuse(refused);
            }
        }
        self.mark_dirty(cx);
    }

    /// `dead` has come and the application has seen it: everything goes.
    pub(crate) fn finish(mut self, cx: &mut Cx<A>) {
        self.leave(cx, false);
        self.forget(&mut cx.pool);
    }

    /// The kernel does not know the connection any more.
    pub(crate) fn forget(&mut self, pool: &mut Pool) {
        self.end = End::Gone;
        self.inbox.clear();
        self.outbox.clear(pool);
    }

    /// Whether a callback has left something to tell the kernel.
    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty
    }
}

//! One TCP connection as an application's callbacks see it.
#![allow(unsafe_code, reason = "returns received bytes to the kernel, after taking them out")]

use crate::cx::Cx;
use crate::event_loop::App;
use crate::inbox::{Inbox, Piece};
use crate::outbox::{Outbox, Segment, SgList};
use crate::pool::Pool;
use core::fmt;
use core::time::Duration;
use ix_abi::{Congestion, Handle, SocketAddress, Status, TcpOption};

/// How far the application's wish to end a connection has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// No such wish.
    Open,
    /// FIN when everything queued is with the kernel; receiving goes on.
    ShutdownWanted,
    ShutdownDone,
    /// Close when everything queued is with the kernel.
    CloseWanted,
    AbortWanted,
    /// The kernel has been told; nothing of the inbox is ours any more.
    Gone,
}

/// A connection: received bytes to read, bytes to send, and the application's own state.
///
/// What it sends and returns is collected and goes to the kernel once, at the end of the batch of
/// events. Received bytes can be looked at only by borrowing the connection, and everything that
/// returns them borrows it mutably: a slice cannot outlive its memory. All sending is in order.
///
/// ```compile_fail,E0502
/// fn outlives<A: libix::App>(cx: &mut libix::Cx<A>, conn: &mut libix::Conn<A>) -> u8 {
///     let bytes = conn.front();
///     conn.consume(cx, 1);
///     bytes[0] // error: `bytes` borrows what `consume` has returned
/// }
/// ```
pub struct Conn<A: App> {
    handle: Handle,
    remote: SocketAddress,
    end: End,
    /// Is in the list of those to flush.
    dirty: bool,
    /// The kernel has refused bytes; it will say when the window opens.
    blocked: bool,
    eof: bool,
    /// Bytes to return at the end of the batch.
    done: u64,
    /// Bytes offered, and neither refused nor sent.
    in_flight: u64,
    /// [`crate::Context::call_index`] after the last `sendv`, while its result may be to come.
    last_offer: Option<u32>,
    inbox: Inbox,
    outbox: Outbox<A::Buf>,
    /// The application's state of this connection.
    pub data: A::Conn,
}

impl<A: App> Conn<A> {
    pub(crate) fn new(handle: Handle, remote: SocketAddress, data: A::Conn) -> Conn<A> {
        Conn {
            handle,
            remote,
            end: End::Open,
            dirty: false,
            blocked: false,
            eof: false,
            done: 0,
            in_flight: 0,
            last_offer: None,
            inbox: Inbox::default(),
            outbox: Outbox::new(),
            data,
        }
    }

    /// The kernel's name for it.
    pub fn handle(&self) -> Handle {
        self.handle
    }

    /// The other end.
    pub fn remote(&self) -> SocketAddress {
        self.remote
    }

    /// Whether the peer has said that it sends no more.
    pub fn is_eof(&self) -> bool {
        self.eof
    }

    /// Whether the application has asked for the end: nothing more can be sent.
    pub fn is_ending(&self) -> bool {
        self.end != End::Open
    }

    /// The received bytes that were not consumed or forwarded yet, in pieces, oldest first.
    pub fn received(&self) -> impl Iterator<Item = &[u8]> {
        self.inbox.pieces()
    }

    /// The oldest piece of [`Conn::received`]; empty if there is nothing.
    pub fn front(&self) -> &[u8] {
        self.inbox.pieces().next().unwrap_or_default()
    }

    /// How many bytes [`Conn::received`] holds.
    pub fn received_len(&self) -> usize {
        self.inbox.len()
    }

    /// Copies the oldest received bytes, leaving them there; returns how many.
    pub fn peek(&self, into: &mut [u8]) -> usize {
        let mut filled = 0;
        for piece in self.inbox.pieces() {
            let rest = &mut into[filled..];
            if rest.is_empty() {
                break;
            }
            let n = rest.len().min(piece.len());
            rest[..n].copy_from_slice(&piece[..n]);
            filled += n;
        }
        filled
    }

    /// The state of the connection, and beside it what [`Conn::received`] gives.
    pub fn parts(&mut self) -> (&mut A::Conn, impl Iterator<Item = &[u8]>) {
        (&mut self.data, self.inbox.pieces())
    }

    /// Feeds the received bytes to `f`, piece by piece, with the state of the connection, and
    /// consumes as many as it says; stops where it does not use all of a piece. Returns how many.
    pub fn read(
        &mut self,
        cx: &mut Cx<A>,
        mut f: impl FnMut(&mut A::Conn, &[u8]) -> usize,
    ) -> usize {
        let mut total = 0;
        for piece in self.inbox.pieces() {
            let used = f(&mut self.data, piece).min(piece.len());
            total += used;
            if used < piece.len() {
                break;
            }
        }
        if total > 0 {
            self.consume(cx, total);
        }
        total
    }

    /// Gives the oldest `bytes` received bytes back (at most all): the peer may send as many more.
    pub fn consume(&mut self, cx: &mut Cx<A>, bytes: usize) {
        let mut left = bytes.min(self.inbox.len());
        while left > 0
            && let Some(piece) = self.inbox.take(left)
        {
            left -= piece.len as usize;
            // The kernel takes bytes back oldest first: those still going out come before.
            if !self.outbox.done_after(piece.len) {
                self.done += u64::from(piece.len);
            }
        }
        self.mark_dirty(cx);
    }

    /// Sends the oldest `bytes` received bytes (at most all) back on this connection, from where
    /// they are. They are consumed when the peer has acknowledged them, so that the peer's own
    /// pace of reading holds back its writing.
    pub fn forward(&mut self, cx: &mut Cx<A>, bytes: usize) {
        let mut left = bytes.min(self.inbox.len());
        if self.is_ending() {
            return self.consume(cx, left);
        }
        while left > 0
            && let Some(piece) = self.inbox.take(left)
        {
            left -= piece.len as usize;
            self.outbox.push_received(piece);
        }
        self.mark_dirty(cx);
    }

    /// Sends memory that the application does not change until it is dropped: no copy.
    pub fn send(&mut self, cx: &mut Cx<A>, buf: A::Buf) {
        self.queue(cx, Segment::Buf(buf));
    }

    /// Sends constant bytes: no copy.
    pub fn send_static(&mut self, cx: &mut Cx<A>, bytes: &'static [u8]) {
        self.queue(cx, Segment::Static(bytes));
    }

    /// Sends a copy of `bytes`: for what is small and made up on the way.
    pub fn write(&mut self, cx: &mut Cx<A>, bytes: &[u8]) {
        if !self.is_ending() {
            self.outbox.write(bytes, &mut cx.pool);
            self.mark_dirty(cx);
        }
    }

    /// For `write!`: a writer that does as [`Conn::write`].
    pub fn writer<'a>(&'a mut self, cx: &'a mut Cx<A>) -> Writer<'a, A> {
        Writer { conn: self, cx }
    }

    fn queue(&mut self, cx: &mut Cx<A>, segment: Segment<A::Buf>) {
        if !self.is_ending() {
            self.outbox.push(segment);
            self.mark_dirty(cx);
        }
    }

    /// Has [`App::pull`] asked at the end of this batch.
    pub fn wake(&mut self, cx: &mut Cx<A>) {
        self.mark_dirty(cx);
    }

    /// Bytes queued that the kernel has not taken yet: grows when the peer does not read. Who makes
    /// more output than it gets input should stop at some bound and go on in `on_sent`.
    pub fn unsent(&self) -> u64 {
        self.outbox.waiting()
    }

    /// Bytes that were sent and not yet acknowledged.
    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Has the kernel ask the peer whether it lives when the connection was idle for `idle`, and end the
    /// connection if it does not; `None`: not any more. A failure comes to [`App::on_result`].
    pub fn set_keep_alive(&mut self, cx: &mut Cx<A>, idle: Option<Duration>) {
        self.set_option(cx, TcpOption::KeepAlive, idle.map_or(0, whole_us));
    }

    /// How often the peer is asked without an answer, and how many times; the defaults are 75 s and 9.
    pub fn set_keep_alive_probes(&mut self, cx: &mut Cx<A>, interval: Duration, probes: u8) {
        self.set_option(cx, TcpOption::KeepAliveInterval, whole_us(interval));
        self.set_option(cx, TcpOption::KeepAliveProbes, u64::from(probes));
    }

    /// Ends the connection when what was sent has stayed without any answer for so long; `None`: the
    /// kernel's default. A failure comes to [`App::on_result`].
    pub fn set_user_timeout(&mut self, cx: &mut Cx<A>, timeout: Option<Duration>) {
        self.set_option(cx, TcpOption::UserTimeout, timeout.map_or(0, whole_us));
    }

    /// Chooses the congestion control, which begins anew. A failure comes to [`App::on_result`].
    pub fn set_congestion(&mut self, cx: &mut Cx<A>, congestion: Congestion) {
        self.set_option(cx, TcpOption::Congestion, u64::from(congestion.0));
    }

    fn set_option(&mut self, cx: &mut Cx<A>, option: TcpOption, value: u64) {
        if self.end != End::Gone {
            cx.context.set_option(self.handle, option, value, 0);
        }
    }

    /// Ends sending, after everything queued; receiving goes on.
    pub fn shutdown(&mut self, cx: &mut Cx<A>) {
        if self.end == End::Open {
            self.end = End::ShutdownWanted;
            self.mark_dirty(cx);
        }
    }

    /// Ends the connection in order, after everything queued. Nothing more is received; `on_dead`
    /// follows when all is acknowledged.
    pub fn close(&mut self, cx: &mut Cx<A>) {
        if matches!(self.end, End::Open | End::ShutdownWanted | End::ShutdownDone) {
            self.end = End::CloseWanted;
            self.consume(cx, usize::MAX);
        }
    }

    /// Ends the connection with RST at the end of this batch; `on_dead` follows.
    pub fn abort(&mut self, cx: &mut Cx<A>) {
        if self.end != End::Gone {
            self.end = End::AbortWanted;
            self.mark_dirty(cx);
        }
    }

    pub(crate) fn mark_dirty(&mut self, cx: &mut Cx<A>) {
        if !self.dirty {
            self.dirty = true;
            cx.dirty.push(self.handle);
        }
    }

    /// Tells the kernel what has gathered: at the end of each batch.
    pub(crate) fn flush(&mut self, cx: &mut Cx<A>, app: &mut A) {
        self.dirty = false;
        match self.end {
            End::Gone => return,
            End::AbortWanted => return self.leave(cx, true),
            End::Open | End::ShutdownWanted | End::ShutdownDone | End::CloseWanted => {}
        }
        let offers = !self.blocked && self.is_settled(cx);
        if offers && self.offer(cx, app) {
            return;
        }
        if self.done > 0 {
            // SAFETY: `done` counts pieces that were taken out of the inbox, so that no slice of
            // them is left (see `Inbox`), and that the outbox no longer sends; they are the oldest.
            unsafe { cx.context.recv_done(self.handle, core::mem::take(&mut self.done)) }
        }
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

    /// Offers what waits; `false` if there was nothing. One `sendv` at a time: were its last bytes
    /// refused, those of another that is already on its way could leave a hole in the stream.
    fn offer(&mut self, cx: &mut Cx<A>, app: &mut A) -> bool {
        if !A::PULLS && self.outbox.waiting() == 0 {
            return false;
        }
        let mut sg = SgList::new();
        if A::PULLS {
            app.pull(&mut self.data, &mut sg);
        } else {
            self.outbox.offer(&mut sg);
        }
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
        self.last_offer = Some(cx.context.call_index());
        self.in_flight += bytes;
        true
    }

    /// Whether the kernel's answer to all that was offered is known.
    fn is_settled(&mut self, cx: &Cx<A>) -> bool {
        match self.last_offer {
            Some(index) if !cx.context.is_settled(index) => false,
            _ => {
                self.last_offer = None;
                true
            }
        }
    }

    /// Closes or aborts: the one call that returns all received bytes.
    pub(crate) fn leave(&mut self, cx: &mut Cx<A>, abort: bool) {
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

    /// `recv` came. Returns whether the application is to be told.
    pub(crate) fn on_recv(&mut self, cx: &mut Cx<A>, addr: u64, len: u32) -> bool {
        if self.end == End::Gone {
            return false; // already returned with `close`
        }
        // SAFETY: the event loop passes on what the kernel reported for this handle.
        unsafe { self.inbox.push(Piece { addr, len }) }
        if matches!(self.end, End::CloseWanted | End::AbortWanted) {
            self.consume(cx, usize::MAX);
            return false;
        }
        true
    }

    pub(crate) fn on_eof(&mut self) -> bool {
        self.eof = true;
        !matches!(self.end, End::CloseWanted | End::AbortWanted | End::Gone)
    }

    /// `sent` came.
    pub(crate) fn on_sent(&mut self, cx: &mut Cx<A>, bytes: u32, window: u32) {
        let done = self.outbox.sent(u64::from(bytes), &mut cx.pool);
        self.in_flight = self.in_flight.saturating_sub(u64::from(bytes));
        self.blocked &= window == 0;
        if self.in_flight == 0 {
            self.last_offer = None;
        }
        if self.end == End::Gone {
            return;
        }
        self.done += done;
        if done > 0 || self.outbox.waiting() > 0 || A::PULLS || self.is_ending() {
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

/// In microseconds, rounded up: what is not 0 stays so. Beyond the ABI's limit the kernel refuses it.
fn whole_us(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX)
}

impl<A: App> fmt::Debug for Conn<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn")
            .field("handle", &format_args!("{:x}", self.handle.0))
            .field("end", &self.end)
            .field("received", &self.inbox.len())
            .field("unsent", &self.outbox.waiting())
            .field("in_flight", &self.in_flight)
            .finish_non_exhaustive()
    }
}

/// Formats into a connection's output.
pub struct Writer<'a, A: App> {
    conn: &'a mut Conn<A>,
    cx: &'a mut Cx<A>,
}

impl<A: App> fmt::Write for Writer<'_, A> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.conn.write(self.cx, text.as_bytes());
        Ok(())
    }
}

impl<A: App> fmt::Debug for Writer<'_, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Writer").field(&self.conn).finish()
    }
}

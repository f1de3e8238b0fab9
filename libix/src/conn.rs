//! One TCP connection as an application's callbacks see it; `kernel` is its other side.

mod kernel;

use crate::cx::Cx;
use crate::event_loop::App;
use crate::inbox::Inbox;
use crate::outbox::Outbox;
use core::fmt;
use core::time::Duration;
use ix_abi::{Congestion, Handle, SocketAddress, TcpOption};

/// How far the application's wish to end a connection has got: never back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
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
            inbox: Inbox::new(),
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
    #[inline]
    pub fn front(&self) -> &[u8] {
        self.inbox.front()
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
        let front = self.inbox.front();
        if front.is_empty() {
            return 0;
        }
        let mut total = f(&mut self.data, front).min(front.len());
        if total == front.len() && total < self.inbox.len() {
            for piece in self.inbox.behind() {
                let used = f(&mut self.data, piece).min(piece.len());
                total += used;
                if used < piece.len() {
                    break;
                }
            }
        }
        if total > 0 {
            self.consume(cx, total);
        }
        total
    }

    /// Gives the oldest `bytes` received bytes back (at most all): the peer may send as many more.
    pub fn consume(&mut self, cx: &mut Cx<A>, bytes: usize) {
        let taken = self.inbox.skip(bytes) as u64;
        // The kernel takes bytes back oldest first: those still going out come before.
        if !self.outbox.done_after(taken) {
            self.done += taken;
        }
        self.mark_dirty(cx);
    }

    /// Sends the oldest `bytes` received bytes (at most all) back on this connection, from where
    /// they are. They are consumed when the peer has acknowledged them, so that the peer's own
    /// pace of reading holds back its writing.
    pub fn forward(&mut self, cx: &mut Cx<A>, bytes: usize) {
        if self.is_ending() {
            return self.consume(cx, bytes);
        }
        match self.inbox.take_only(bytes) {
            Some(piece) => self.outbox.push_received(piece),
            None => self.forward_pieces(bytes),
        }
        self.mark_dirty(cx);
    }

    #[cold]
    fn forward_pieces(&mut self, bytes: usize) {
        let mut left = bytes;
        while left > 0
            && let Some(piece) = self.inbox.take(left)
        {
            left -= piece.len as usize;
            self.outbox.push_received(piece);
        }
    }

    /// Sends memory that the application does not change until it is dropped: no copy.
    pub fn send(&mut self, cx: &mut Cx<A>, buf: A::Buf) {
        if !self.is_ending() {
            self.outbox.push_buf(buf);
            self.mark_dirty(cx);
        }
    }

    /// Sends constant bytes: no copy.
    pub fn send_static(&mut self, cx: &mut Cx<A>, bytes: &'static [u8]) {
        if !self.is_ending() {
            self.outbox.push_static(bytes);
            self.mark_dirty(cx);
        }
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

    #[inline]
    fn mark_dirty(&mut self, cx: &mut Cx<A>) {
        if !self.dirty {
            self.dirty = true;
            cx.dirty.push(self.handle);
        }
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

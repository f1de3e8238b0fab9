//! What callbacks use to talk to the kernel, besides their connection.

use crate::context::Context;
use crate::event_loop::App;
use crate::outbox::{Buf, entry};
use crate::pool::{CHUNK_BYTES, Pool};
use crate::slab::Slab;
use crate::udp::{Datagram, UdpOut};
use alloc::vec::Vec;
use core::fmt;
use ix_abi::layout::InfoPage;
use ix_abi::{Cookie, Handle, SgEntry, SocketAddress, TcpOption};

/// Tags of the event loop's own calls have this bit; those of applications do not.
const OWN_TAG: u64 = 1 << 63;

/// The context of the event loop, as callbacks see it.
pub struct Cx<A: App> {
    pub(crate) context: Context,
    pub(crate) pool: Pool,
    /// Connections with something to tell the kernel.
    pub(crate) dirty: Vec<Handle>,
    /// The state of connections whose `connect` has no result yet.
    pub(crate) dials: Slab<(A::Conn, SocketAddress)>,
    pub(crate) udp_out: Slab<UdpOut<A::Buf>>,
}

impl<A: App> Cx<A> {
    pub(crate) fn new(context: Context) -> Cx<A> {
        Cx {
            context,
            pool: Pool::default(),
            dirty: Vec::new(),
            dials: Slab::new(),
            udp_out: Slab::new(),
        }
    }

    /// The number of this context, counted from 0.
    pub fn index(&self) -> usize {
        self.context.index()
    }

    /// What the kernel tells every program.
    pub fn info(&self) -> &'static InfoPage {
        self.context.info()
    }

    /// Nanoseconds since boot, the same all through a batch; costs nothing.
    pub fn now_ns(&self) -> u64 {
        self.context.now_ns()
    }

    /// Nanoseconds since boot, now: from the time-stamp counter, without a system call.
    pub fn precise_ns(&self) -> u64 {
        let ticks = crate::clock::tsc().wrapping_sub(self.context.tsc_at_enter());
        self.now_ns() + crate::clock::ticks_to_ns(ticks, self.info().tsc_khz)
    }

    /// Seconds since 1970 at the start of this batch; since boot where the machine has no clock.
    pub fn unix_seconds(&self) -> u64 {
        (self.context.boot_unix_ns() + self.now_ns()) / 1_000_000_000
    }

    /// Opens a TCP port for the whole dataplane: every context then gets knocks. Call it in one
    /// context. The outcome comes to [`App::on_result`] with `tag`.
    pub fn listen(&mut self, local: SocketAddress, backlog: u32, tag: u64) {
        self.context.listen(local, backlog, tag & !OWN_TAG);
    }

    /// Closes a listening port; its connections stay.
    pub fn unlisten(&mut self, listener: Handle) {
        self.context.unlisten(listener);
    }

    /// Sets what connections of a listener begin with from now on, see [`TcpOption`]. A failure comes to
    /// [`App::on_result`] with `tag`.
    pub fn set_listener_option(
        &mut self,
        listener: Handle,
        option: TcpOption,
        value: u64,
        tag: u64,
    ) {
        self.context.set_option(listener, option, value, tag & !OWN_TAG);
    }

    /// Opens a connection; [`App::on_connected`] or [`App::on_connect_failed`] follows.
    pub fn connect(&mut self, remote: SocketAddress, data: A::Conn) {
        let key = self.dials.insert((data, remote));
        self.context.connect(key, remote, OWN_TAG | key.0);
    }

    /// Binds a UDP port for the whole dataplane. The outcome comes to [`App::on_result`] with `tag`;
    /// its `value` is the socket's handle. Datagrams carry `cookie`.
    pub fn udp_bind(&mut self, local: SocketAddress, cookie: u64, tag: u64) {
        self.context.udp_bind(local, Cookie(cookie), tag & !OWN_TAG);
    }

    /// Gives a received datagram back.
    pub fn udp_done(&mut self, datagram: Datagram) {
        datagram.give_back(&mut self.context);
    }

    /// Sends a received datagram back to whom it came from, from where it is; gives it back when it
    /// has left.
    pub fn udp_reply(&mut self, datagram: Datagram) {
        let sg = SgEntry { addr: datagram.piece.addr, len: u64::from(datagram.piece.len) };
        let (socket, remote) = (datagram.socket, datagram.remote);
        self.udp_out(socket, remote, sg, UdpOut::Datagram(datagram));
    }

    /// Sends one datagram from memory of the application's, which is dropped when it has left.
    pub fn udp_send(&mut self, socket: Handle, remote: SocketAddress, buf: A::Buf) {
        let sg = entry(buf.bytes());
        self.udp_out(socket, remote, sg, UdpOut::Buf(buf));
    }

    /// Sends a copy of `bytes`, at most 4096 of them, as one datagram.
    pub fn udp_write(&mut self, socket: Handle, remote: SocketAddress, bytes: &[u8]) {
        let bytes = &bytes[..bytes.len().min(CHUNK_BYTES)];
        let mut chunk = self.pool.take();
        chunk[..bytes.len()].copy_from_slice(bytes);
        let sg = entry(&chunk[..bytes.len()]);
        self.udp_out(socket, remote, sg, UdpOut::Chunk(chunk));
    }

    fn udp_out(&mut self, socket: Handle, remote: SocketAddress, sg: SgEntry, out: UdpOut<A::Buf>) {
        let key = self.udp_out.insert(out);
        self.context.udp_sendv(socket, remote, &[sg], OWN_TAG | key.0);
    }

    /// A datagram has left, or will not: what it kept alive goes.
    pub(crate) fn udp_left(&mut self, tag: u64) {
        match own_key(tag).and_then(|key| self.udp_out.remove(key)) {
            Some(UdpOut::Datagram(datagram)) => self.udp_done(datagram),
            Some(UdpOut::Chunk(chunk)) => self.pool.give(chunk),
            Some(UdpOut::Buf(_)) | None => {}
        }
    }

    /// Calls [`App::on_timer`] once with `cookie`, after `delay_us` microseconds. The handle, for
    /// [`Cx::timer_cancel`], or the failure comes to [`App::on_result`] with `tag`.
    pub fn timer_set(&mut self, cookie: u64, delay_us: u64, tag: u64) {
        self.context.timer_set(Cookie(cookie), delay_us, tag & !OWN_TAG);
    }

    /// Stops a timer.
    pub fn timer_cancel(&mut self, timer: Handle) {
        self.context.timer_cancel(timer);
    }

    /// Tells the kernel that the application serves from now on: it prints `ix: ready`.
    pub fn ready(&mut self) {
        self.context.ready();
    }

    /// The raw tier. Calling for a handle that the event loop manages confuses its accounts.
    pub fn context(&mut self) -> &mut Context {
        &mut self.context
    }
}

/// The slab key in a tag of the event loop's own.
pub(crate) fn own_key(tag: u64) -> Option<Cookie> {
    (tag & OWN_TAG != 0).then_some(Cookie(tag & !OWN_TAG))
}

impl<A: App> fmt::Debug for Cx<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cx").field("context", &self.context).finish_non_exhaustive()
    }
}

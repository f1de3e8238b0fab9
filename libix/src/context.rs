//! A context: one elastic thread's pair of rings, with the batched calls as methods.
//!
//! This is the lower of the two tiers. Calls that give received bytes back to the kernel are
//! `unsafe` here, because this tier cannot know who still looks at them; [`crate::event_loop`]
//! knows, and is safe.
#![allow(unsafe_code, reason = "states the contracts of the raw tier and enters through raw rings")]

use crate::ring::{Pages, Rings};
use crate::syscall::{Door, outcome, syscall};
use alloc::collections::VecDeque;
use core::ptr::NonNull;
use ix_abi::call::{Direct, SENDV_INLINE_SG, UDP_SENDV_INLINE_SG, slots};
use ix_abi::event::Event;
use ix_abi::layout::{CALL_PAGE, EVENT_PAGE, InfoPage, context_base};
use ix_abi::limits::SG_MAX;
use ix_abi::{Call, Condition, Cookie, Handle, Op, SgEntry, SocketAddress, TcpOption};

/// What a context is made of.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    /// The context's number.
    pub index: usize,
    /// The rings.
    pub pages: Pages,
    /// The information page.
    pub info: &'static InfoPage,
    /// The way into the kernel.
    pub door: Door,
}

/// One elastic thread: its rings and its way into the kernel.
///
/// Calls are only recorded; [`Context::enter`] runs them. When the syscall ring is full, the call
/// that finds it so enters the kernel itself to have the batch run (see [`Context::reserve`]): no
/// call ever fails for want of room.
#[derive(Debug)]
pub struct Context {
    index: usize,
    rings: Rings,
    info: &'static InfoPage,
    door: Door,
    /// What the kernel has last been told about events that were read.
    published: u32,
    /// Calls whose results have all been read: see [`Context::is_settled`].
    settled: u32,
    /// Events moved out of a full ring by [`Context::reserve`]; older than those in the ring.
    backlog: VecDeque<Event>,
    /// The one of them that was read last.
    from_backlog: Event,
    tsc_at_enter: u64,
}

impl Context {
    /// The context of the calling thread, as the kernel has mapped it.
    ///
    /// # Safety
    /// Called once in context `index`, by its start code, with the address of the information page
    /// that the kernel passed.
    pub unsafe fn start(index: usize, info: *const InfoPage) -> Context {
        let page = |offset: u64| {
            let address = (context_base(index) + offset) as usize;
            NonNull::new(core::ptr::with_exposed_provenance_mut(address))
                .unwrap_or(NonNull::dangling())
        };
        let pages = Pages { events: page(EVENT_PAGE), calls: page(CALL_PAGE) };
        // SAFETY: the kernel maps the pages of this context and the information page before it
        // starts the thread, for as long as the program lives.
        unsafe { Context::from_parts(Parts { index, pages, info: &*info, door: syscall }) }
    }

    /// A context of given parts: for tests that play the kernel.
    ///
    /// # Safety
    /// The pages are two distinct areas of 2 MiB, aligned to 64 bytes, zeroed or left by a former
    /// context, that outlive the context; only the kernel side changes the event page and reads the
    /// syscall page, and only while `door` runs. What `door` reports as received or sent is true.
    pub unsafe fn from_parts(parts: Parts) -> Context {
        // SAFETY: passed on.
        let rings = unsafe { Rings::new(parts.pages) };
        let published = rings.read_index();
        let settled = rings.consumed();
        Context {
            index: parts.index,
            rings,
            info: parts.info,
            door: parts.door,
            published,
            settled,
            backlog: VecDeque::new(),
            from_backlog: Event::default(),
            tsc_at_enter: 0,
        }
    }

    /// The number of this context: the core's, counted from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// What the kernel tells every program: cores, groups, arguments, address.
    pub fn info(&self) -> &'static InfoPage {
        self.info
    }

    /// Nanoseconds since boot at the last return from the kernel: the time of this batch.
    pub fn now_ns(&self) -> u64 {
        self.rings.now_ns()
    }

    /// Unix time of the boot in nanoseconds, 0 if the machine does not know.
    pub fn boot_unix_ns(&self) -> u64 {
        self.rings.boot_unix_ns()
    }

    /// Time-stamp counter at the last return from the kernel; goes with [`Context::now_ns`].
    pub fn tsc_at_enter(&self) -> u64 {
        self.tsc_at_enter
    }

    /// Runs the batch and waits for events; returns how many are unread.
    pub fn enter(&mut self) -> u32 {
        let read = self.rings.read_index();
        self.enter_holding(read);
        self.unread()
    }

    fn enter_holding(&mut self, read: u32) {
        self.rings.publish(read);
        self.published = read;
        (self.door)(Direct::Enter, 0, 0, 0);
        self.tsc_at_enter = crate::clock::tsc();
        self.rings.refresh();
    }

    /// Events that were delivered and not yet read.
    pub fn unread(&self) -> u32 {
        self.rings.unread() + self.backlog.len() as u32
    }

    /// The next event of this batch. `None` ends the batch: time for [`Context::enter`].
    #[inline]
    pub fn next_event(&mut self) -> Option<Condition> {
        self.next_record().map(Condition::decode)
    }

    /// The record of the next event, where it lies.
    #[inline]
    pub(crate) fn next_record(&mut self) -> Option<&Event> {
        if !self.backlog.is_empty() {
            return self.next_of_backlog();
        }
        if self.rings.is_read() {
            self.settled = self.rings.consumed();
        }
        self.rings.next()
    }

    #[cold]
    fn next_of_backlog(&mut self) -> Option<&Event> {
        self.from_backlog = self.backlog.pop_front()?;
        Some(&self.from_backlog)
    }

    /// How many slots of the syscall ring have been written: the call just made is known by it.
    #[inline]
    pub fn call_index(&self) -> u32 {
        self.rings.written()
    }

    /// Whether every call before `index` has run and its result, if any, has been read.
    #[inline]
    pub fn is_settled(&self, index: u32) -> bool {
        self.settled.wrapping_sub(index).cast_signed() >= 0
    }

    /// Makes room for `slots` slots of the syscall ring by running the batch so far if need be.
    ///
    /// While it does, one event stays unread in the kernel's eyes if this batch has any, so that
    /// `enter` returns at once instead of waiting for news. Should the event ring be so full that the
    /// kernel cannot run calls, the events move to a list on the heap, and come from there.
    #[inline]
    pub fn reserve(&mut self, slots: usize) {
        if (self.rings.free() as usize) < slots {
            self.make_room(slots);
        }
    }

    #[cold]
    fn make_room(&mut self, slots: usize) {
        loop {
            let read = self.rings.read_index();
            let held = if read == self.published { read } else { read.wrapping_sub(1) };
            let before = self.rings.consumed();
            self.enter_holding(held);
            if self.rings.free() as usize >= slots {
                return;
            }
            if self.rings.consumed() == before {
                while let Some(event) = self.rings.next() {
                    self.backlog.push_back(*event);
                }
            }
        }
    }

    #[inline]
    fn push(&mut self, call: Call) {
        self.reserve(1);
        self.rings.push(call);
    }

    /// Any call of one slot, for records that have no method of their own.
    ///
    /// # Safety
    /// If the call returns received memory, nothing may refer to that memory any more.
    pub unsafe fn call(&mut self, call: Call) {
        self.push(call);
    }

    /// Opens a listening port for the whole dataplane; a `result` with `tag` tells the outcome.
    pub fn listen(&mut self, local: SocketAddress, backlog: u32, tag: u64) {
        self.push(Call::listen(local, backlog).with_result(tag));
    }

    /// Closes a listening port; its connections stay.
    pub fn unlisten(&mut self, listener: Handle) {
        self.push(Call::new(Op::Unlisten, listener));
    }

    /// Takes a connection that knocked; its events carry `cookie`.
    pub fn accept(&mut self, handle: Handle, cookie: Cookie) {
        self.push(Call::accept(handle, cookie));
    }

    /// Turns a connection that knocked away, with RST.
    pub fn reject(&mut self, handle: Handle) {
        self.push(Call::new(Op::Reject, handle));
    }

    /// Opens a connection: a `result` with `tag` names the handle, `connected` tells the outcome.
    pub fn connect(&mut self, cookie: Cookie, remote: SocketAddress, tag: u64) {
        self.push(Call::connect(cookie, remote).with_result(tag));
    }

    /// Sends at most [`SG_MAX`] pieces of memory, which stay unchanged until `sent` reports them;
    /// further pieces are left out. A failure's or a partial acceptance's `result` carries `tag`.
    ///
    /// Safe although the addresses are not checked here: the kernel only reads them, and refuses
    /// those that are not this program's. Memory changed too early harms only this stream.
    pub fn sendv(&mut self, handle: Handle, sg: &[SgEntry], tag: u64, want_result: bool) {
        // SAFETY: nothing is returned.
        unsafe { self.sendv_and_done(handle, sg, tag, want_result, 0) };
    }

    /// [`Context::sendv`] and [`Context::recv_done`] of `done` bytes in one record; nothing of either without
    /// an entry.
    ///
    /// # Safety
    /// No reference to the oldest `done` received bytes exists any more.
    #[inline]
    pub unsafe fn sendv_and_done(
        &mut self,
        handle: Handle,
        sg: &[SgEntry],
        tag: u64,
        want_result: bool,
        done: u64,
    ) {
        // With so many entries a record needs no slots behind it: the usual case.
        let few = match *sg {
            [] => return,
            [only] => Call::sendv(handle, 1, only, SgEntry::default()),
            [first, second] => Call::sendv(handle, 2, first, second),
            _ => return self.sendv_long(handle, sg, tag, want_result, done),
        };
        self.push(finish(few, tag, want_result, done));
    }

    #[inline(never)]
    fn sendv_long(
        &mut self,
        handle: Handle,
        sg: &[SgEntry],
        tag: u64,
        want_result: bool,
        done: u64,
    ) {
        let sg = &sg[..sg.len().min(SG_MAX)];
        let (inline, more) = sg.split_at(SENDV_INLINE_SG);
        self.reserve(slots(sg.len(), SENDV_INLINE_SG));
        let call = Call::sendv(handle, sg.len() as u16, inline[0], inline[1]);
        self.rings.push(finish(call, tag, want_result, done));
        for entries in more.chunks(4) {
            self.rings.push_sg(entries);
        }
    }

    /// Returns the oldest `bytes` received bytes and opens the window by as much.
    ///
    /// # Safety
    /// No reference to these bytes exists any more.
    #[inline]
    pub unsafe fn recv_done(&mut self, handle: Handle, bytes: u64) {
        self.push(Call::recv_done(handle, bytes));
    }

    /// Sets an option of a connection, or of those that a listener gets from then on. A failure's `result`
    /// carries `tag`.
    pub fn set_option(&mut self, handle: Handle, option: TcpOption, value: u64, tag: u64) {
        self.push(Call::set_option(handle, option, value).with_tag(tag));
    }

    /// FIN after all accepted data; receiving goes on.
    pub fn shutdown(&mut self, handle: Handle) {
        self.push(Call::new(Op::Shutdown, handle));
    }

    /// Orderly end: FIN after all accepted data, `dead` when all is done.
    ///
    /// # Safety
    /// Returns everything received: no reference to any of it exists any more.
    pub unsafe fn close(&mut self, handle: Handle) {
        self.push(Call::new(Op::Close, handle));
    }

    /// RST, then `dead`.
    ///
    /// # Safety
    /// Returns everything received: no reference to any of it exists any more.
    pub unsafe fn abort(&mut self, handle: Handle) {
        self.push(Call::new(Op::Abort, handle));
    }

    /// Binds a UDP port for the whole dataplane; a `result` with `tag` names the handle.
    pub fn udp_bind(&mut self, local: SocketAddress, cookie: Cookie, tag: u64) {
        self.push(Call::udp_bind(local, cookie).with_result(tag));
    }

    /// Sends one datagram of at most [`SG_MAX`] pieces; exactly one of `udp_sent` or a failed
    /// `result` comes with `tag`, and until then the memory stays unchanged.
    pub fn udp_sendv(&mut self, socket: Handle, remote: SocketAddress, sg: &[SgEntry], tag: u64) {
        let sg = &sg[..sg.len().min(SG_MAX)];
        let Some(&first) = sg.first() else { return };
        self.reserve(slots(sg.len(), UDP_SENDV_INLINE_SG));
        self.rings.push(Call::udp_sendv(socket, remote, sg.len() as u16, first).with_tag(tag));
        for entries in sg[UDP_SENDV_INLINE_SG.min(sg.len())..].chunks(4) {
            self.rings.push_sg(entries);
        }
    }

    /// Returns the datagram that was reported at `addr`.
    ///
    /// # Safety
    /// No reference to its bytes exists any more.
    pub unsafe fn udp_recv_done(&mut self, socket: Handle, addr: u64) {
        self.push(Call::udp_recv_done(socket, addr));
    }

    /// Closes a UDP port.
    ///
    /// # Safety
    /// Returns all its datagrams: no reference to any of them exists any more.
    pub unsafe fn udp_close(&mut self, socket: Handle) {
        self.push(Call::new(Op::UdpClose, socket));
    }

    /// One shot after `delay_us`; a `result` with `tag` names the handle, or tells the failure.
    pub fn timer_set(&mut self, cookie: Cookie, delay_us: u64, tag: u64) {
        self.push(Call::timer_set(cookie, delay_us).with_result(tag));
    }

    /// Stops a timer; if it has fired already, a `BadHandle` result comes.
    pub fn timer_cancel(&mut self, timer: Handle) {
        self.push(Call::new(Op::TimerCancel, timer));
    }

    /// Tells the kernel that the application serves from now on.
    pub fn ready(&mut self) {
        // A kernel that does not know the call only prints no line.
        let _ = outcome((self.door)(Direct::Ready, 0, 0, 0));
    }
}

/// A `sendv` with all that it says besides its entries.
#[inline]
fn finish(sendv: Call, tag: u64, want_result: bool, done: u64) -> Call {
    let call = sendv.with_recv_done(done);
    if want_result { call.with_result(tag) } else { call.with_tag(tag) }
}

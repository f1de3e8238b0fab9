//! The event loop: from batches of events to callbacks of an application, and back to one batch of
//! calls.

use crate::conn::Conn;
use crate::conns::Conns;
use crate::context::Context;
use crate::cx::{Cx, own_key};
use crate::inbox::Piece;
use crate::outbox::{Buf, SgList};
use crate::udp::Datagram;
use core::fmt;
use core::marker::PhantomData;
use ix_abi::event::Kind;
use ix_abi::{Condition, Cookie, DeadReason, GroupId, Handle, Op, SocketAddress, Status};

/// A connection that waits to be taken.
#[derive(Clone, Copy, Debug)]
pub struct Knock {
    /// Its handle.
    pub handle: Handle,
    /// The listener that it came to.
    pub listener: Handle,
    /// Who it is.
    pub remote: SocketAddress,
    /// The port that it came to.
    pub local_port: u16,
}

/// How a call ended.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Which operation.
    pub op: Op,
    /// How it ended.
    pub status: Status,
    /// The object of the call.
    pub handle: Handle,
    /// The tag given with the call.
    pub tag: u64,
    /// By operation; where the call made an object, its handle.
    pub value: u64,
}

impl Outcome {
    /// The handle of the object that the call made.
    pub fn made(&self) -> Handle {
        if self.value != 0 { Handle(self.value) } else { self.handle }
    }
}

/// An application: called back for events, in the order in which they happened.
///
/// Each context runs the same code with an `App` value of its own, which therefore needs no locks.
/// Callbacks must return soon: meanwhile the core does nothing else.
#[allow(unused_variables, reason = "default implementations ignore what they are told")]
pub trait App: Sized + 'static {
    /// The application's state of one connection; it follows the connection to another core.
    type Conn: Send + 'static;
    /// What it sends from without copying: [`crate::NoBuf`] if only received or static bytes.
    type Buf: Buf;

    /// Whether the application keeps queues of output of its own: then [`App::pull`] is asked for
    /// what to send, and [`Conn::send`], `write` and `forward` are not used.
    const PULLS: bool = false;

    /// What this connection is to send next, if the application `PULLS`: asked at the end of a batch
    /// in which bytes were received, sent or consumed, or [`Conn::wake`] was called. What is put into
    /// `sg` counts as offered, and is not put there again unless it is refused.
    fn pull(&mut self, data: &mut Self::Conn, sg: &mut SgList) {}

    /// The kernel did not take the last `bytes` bytes of what was offered: they wait again.
    fn refused(&mut self, data: &mut Self::Conn, bytes: u64) {}

    /// Before the first batch: time to listen, in one of the contexts.
    fn on_start(&mut self, cx: &mut Cx<Self>) {}

    /// Somebody wants to connect: the new connection's state, or `None` to turn them away.
    fn on_knock(&mut self, cx: &mut Cx<Self>, knock: &Knock) -> Option<Self::Conn>;

    /// A connection that this side opened is established.
    fn on_connected(&mut self, cx: &mut Cx<Self>, conn: &mut Conn<Self>) {}

    /// A connection that this side opened could not be.
    fn on_connect_failed(&mut self, cx: &mut Cx<Self>, data: Self::Conn, status: Status) {}

    /// Bytes have arrived: [`Conn::received`] holds them, after those not consumed before.
    fn on_recv(&mut self, cx: &mut Cx<Self>, conn: &mut Conn<Self>);

    /// `bytes` more were acknowledged. What is queued goes on by itself; this is for those who make
    /// output as it is taken.
    fn on_sent(&mut self, cx: &mut Cx<Self>, conn: &mut Conn<Self>, bytes: u32) {}

    /// The peer sends no more. By default: what is queued is sent, then the connection closed.
    fn on_eof(&mut self, cx: &mut Cx<Self>, conn: &mut Conn<Self>) {
        conn.close(cx);
    }

    /// The connection is gone; its state is dropped afterwards.
    fn on_dead(&mut self, cx: &mut Cx<Self>, conn: &mut Conn<Self>, reason: DeadReason) {}

    /// A datagram has arrived.
    fn on_udp(&mut self, cx: &mut Cx<Self>, datagram: Datagram) {
        cx.udp_done(datagram);
    }

    /// A timer has fired.
    fn on_timer(&mut self, cx: &mut Cx<Self>, conns: &mut Conns<Self>, timer: Handle, cookie: u64) {
    }

    /// A call of this application's own has ended, or has failed.
    fn on_result(&mut self, cx: &mut Cx<Self>, outcome: &Outcome) {
        if outcome.status != Status::Ok {
            log::warn!("{:?}: {}", outcome.op, outcome.status);
        }
    }

    /// A flow group, and the connections in it, is now served here.
    fn on_group_in(&mut self, cx: &mut Cx<Self>, conns: &mut Conns<Self>, group: GroupId) {}

    /// A flow group is about to leave, with its connections.
    fn on_group_out(&mut self, cx: &mut Cx<Self>, conns: &mut Conns<Self>, group: GroupId) {}

    /// This context's core is about to be parked.
    fn on_parking(&mut self, cx: &mut Cx<Self>) {}

    /// The dataplane ends.
    fn on_shutdown(&mut self, cx: &mut Cx<Self>) {}

    /// All events of a batch are handled; what follows is the kernel's turn.
    fn idle(&mut self, cx: &mut Cx<Self>, conns: &mut Conns<Self>) {}
}

/// Runs an application in this context, for ever.
pub fn run<A: App>(context: Context, app: &mut A) -> ! {
    let mut events = EventLoop::new(context);
    events.start(app);
    loop {
        events.enter();
        events.turn(app);
    }
}

/// The loop in steps, for those who drive it themselves, such as tests.
pub struct EventLoop<A: App> {
    cx: Cx<A>,
    conns: Conns<A>,
}

impl<A: App> EventLoop<A> {
    /// A loop that has not started.
    pub fn new(context: Context) -> EventLoop<A> {
        EventLoop { cx: Cx::new(context), conns: Conns::new() }
    }

    /// Lets the application start.
    pub fn start(&mut self, app: &mut A) {
        app.on_start(&mut self.cx);
    }

    /// Runs the batch in the kernel and waits for events; returns how many there are.
    pub fn enter(&mut self) -> u32 {
        self.cx.context.enter()
    }

    /// Handles all events and leaves the batch of calls that follows from them.
    pub fn turn(&mut self, app: &mut A) {
        while let Some(event) = self.cx.context.next_record() {
            // Bytes that came or were sent are nearly all events: of them nothing is looked at twice. Where the kind
            // is known, `decode` has no choices left.
            match Kind(event.kind) {
                Kind::Recv => {
                    if let Condition::Recv { handle, addr, len, .. } = Condition::decode(event) {
                        self.received(app, handle, Piece { addr, len });
                    }
                }
                Kind::Sent => {
                    if let Condition::Sent { handle, bytes, window, .. } = Condition::decode(event)
                    {
                        self.sent(app, handle, bytes, window);
                    }
                }
                Kind::RecvSent => {
                    if let Condition::RecvSent { handle, addr, len, sent, window, .. } =
                        Condition::decode(event)
                    {
                        self.both(app, handle, (sent, window), Piece { addr, len });
                    }
                }
                _ => {
                    let condition = Condition::decode(event);
                    self.other(app, condition);
                }
            }
        }
        app.idle(&mut self.cx, &mut self.conns);
        self.flush(app);
    }

    /// The connections.
    pub fn conns(&mut self) -> &mut Conns<A> {
        &mut self.conns
    }

    fn flush(&mut self, app: &mut A) {
        // Nothing is added meanwhile; if it were, it would have its turn.
        let mut next = 0;
        while let Some(&handle) = self.cx.dirty.get(next) {
            next += 1;
            if let Some(conn) = self.conns.get_mut(handle) {
                conn.flush(&mut self.cx, app);
            }
        }
        self.cx.dirty.clear();
    }

    #[inline]
    fn received(&mut self, app: &mut A, handle: Handle, piece: Piece) {
        if let Some(conn) = self.conns.get_mut(handle) {
            conn.on_recv(&mut self.cx, app, piece);
        }
    }

    #[inline]
    fn sent(&mut self, app: &mut A, handle: Handle, bytes: u32, window: u32) {
        if let Some(conn) = self.conns.get_mut(handle) {
            conn.on_sent(&mut self.cx, bytes, window);
            app.on_sent(&mut self.cx, conn, bytes);
        }
    }

    /// The `sent` comes first.
    #[inline]
    fn both(&mut self, app: &mut A, handle: Handle, (bytes, window): (u32, u32), piece: Piece) {
        if let Some(conn) = self.conns.get_mut(handle) {
            conn.on_sent(&mut self.cx, bytes, window);
            app.on_sent(&mut self.cx, conn, bytes);
            conn.on_recv(&mut self.cx, app, piece);
        }
    }

    #[inline(never)]
    fn other(&mut self, app: &mut A, condition: Condition) {
        let EventLoop { cx, conns } = self;
        match condition {
            Condition::Knock { handle, listener, remote, local_port } => {
                self.knock(app, Knock { handle, listener, remote, local_port });
            }
            Condition::Eof { handle, .. } => {
                if let Some(conn) = conns.get_mut(handle)
                    && conn.on_eof()
                {
                    app.on_eof(cx, conn);
                }
            }
            Condition::Dead { handle, reason, .. } => {
                if let Some(mut conn) = conns.remove(handle) {
                    app.on_dead(cx, &mut conn, reason);
                    conn.finish(cx);
                }
            }
            Condition::Connected { handle, outcome, .. } => {
                self.connected(app, handle, outcome);
            }
            Condition::UdpRecv { handle, cookie, addr, len, remote } => {
                let piece = Piece { addr, len };
                let not_send = PhantomData;
                app.on_udp(cx, Datagram { socket: handle, piece, remote, cookie, not_send });
            }
            Condition::UdpSent { tag, .. } => cx.udp_left(tag),
            Condition::Timer { handle, cookie } => app.on_timer(cx, conns, handle, cookie.0),
            Condition::Result { op, status, handle, tag, value } => {
                self.result(app, Outcome { op: Op(op), status, handle, tag, value });
            }
            Condition::GroupIn { group, life } => self.group_in(app, group, life),
            Condition::GroupOut { group, life } => self.group_out(app, group, life),
            Condition::Parking => app.on_parking(cx),
            Condition::Shutdown => app.on_shutdown(cx),
            Condition::Nop | Condition::Unknown { .. } => {}
            // See `turn`.
            Condition::Recv { .. } | Condition::Sent { .. } | Condition::RecvSent { .. } => {}
        }
    }

    fn knock(&mut self, app: &mut A, knock: Knock) {
        let cx = &mut self.cx;
        match app.on_knock(cx, &knock) {
            Some(data) => {
                cx.context.accept(knock.handle, Cookie(knock.handle.0));
                let former = self.conns.insert(Conn::new(knock.handle, knock.remote, data));
                if let Some(mut former) = former {
                    former.forget(&mut cx.pool);
                }
            }
            None => cx.context.reject(knock.handle),
        }
    }

    fn connected(&mut self, app: &mut A, handle: Handle, outcome: Status) {
        let cx = &mut self.cx;
        if outcome == Status::Ok {
            if let Some(conn) = self.conns.get_mut(handle) {
                app.on_connected(cx, conn);
            }
        } else if let Some(mut conn) = self.conns.remove(handle) {
            conn.forget(&mut cx.pool);
            app.on_connect_failed(cx, conn.data, outcome);
        }
    }

    fn result(&mut self, app: &mut A, outcome: Outcome) {
        let cx = &mut self.cx;
        match outcome.op {
            Op::Sendv => {
                if let Some(conn) = self.conns.get_mut(outcome.handle) {
                    let Outcome { status, tag, value, .. } = outcome;
                    conn.on_sendv_result(cx, app, status, tag, value);
                }
            }
            Op::UdpSendv => cx.udp_left(outcome.tag),
            Op::Connect => {
                let Some((data, remote)) = own_key(outcome.tag).and_then(|k| cx.dials.remove(k))
                else {
                    return;
                };
                if outcome.status == Status::Ok {
                    self.conns.insert(Conn::new(outcome.made(), remote, data));
                } else {
                    app.on_connect_failed(cx, data, outcome.status);
                }
            }
            Op::Accept if outcome.status != Status::Ok => self.not_accepted(app, &outcome),
            Op::Accept
            | Op::RecvDone
            | Op::UdpRecvDone
            | Op::Close
            | Op::Abort
            | Op::Shutdown
            | Op::Reject => {
                log::debug!(
                    "libix: {:?} of {:x}: {}",
                    outcome.op,
                    outcome.handle.0,
                    outcome.status
                );
            }
            _ => app.on_result(cx, &outcome),
        }
    }

    /// The connection ended between its knock and its acceptance.
    fn not_accepted(&mut self, app: &mut A, outcome: &Outcome) {
        let cx = &mut self.cx;
        if let Some(mut conn) = self.conns.remove(outcome.handle) {
            app.on_dead(cx, &mut conn, DeadReason::Reset);
            if outcome.status == Status::BadHandle {
                conn.forget(&mut cx.pool);
            }
            // Where the handle still names something, nobody else would release it.
            conn.finish(cx);
        }
    }

    fn group_in(&mut self, app: &mut A, group: GroupId, life: u16) {
        self.conns.group_in(group, life);
        if let Some(table) = self.conns.group_mut(group) {
            self.cx.dirty.append(&mut table.dirty);
        }
        app.on_group_in(&mut self.cx, &mut self.conns, group);
    }

    fn group_out(&mut self, app: &mut A, group: GroupId, life: u16) {
        app.on_group_out(&mut self.cx, &mut self.conns, group);
        // Calls would come too late here: those who have any leave them to the next context.
        if let Some(table) = self.conns.group_mut(group) {
            table.dirty = table.iter_mut().filter(|c| c.is_dirty()).map(|c| c.handle()).collect();
            self.cx.dirty.retain(|handle| handle.group() != group);
        }
        self.conns.group_out(group, life);
    }
}

impl<A: App> fmt::Debug for EventLoop<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventLoop").field("cx", &self.cx).field("conns", &self.conns).finish()
    }
}

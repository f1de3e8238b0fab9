//! Once warm, the event loop allocates nothing: no allocator, and so no lock, is on the fast path.

mod fake;

use fake::{boot, kernel};
use ix_abi::Handle;
use libix::{App, Conn, Cx, Datagram, EventLoop, Knock};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Counts the allocations of a thread while it is told to.
struct Counting;

thread_local! {
    static COUNT: Cell<Option<u64>> = const { Cell::new(None) };
}

// SAFETY: passes everything on; the cell needs no allocation and no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get().map(|n| n + 1));
        // SAFETY: passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: passed on.
        unsafe { System.dealloc(start, layout) }
    }
}

#[global_allocator]
static HEAP: Counting = Counting;

/// Uses every way of sending.
struct Busy;

impl App for Busy {
    type Conn = u64;
    type Buf = &'static [u8];

    fn on_knock(&mut self, _: &mut Cx<Self>, _: &Knock) -> Option<u64> {
        Some(0)
    }

    fn on_recv(&mut self, cx: &mut Cx<Self>, conn: &mut Conn<Self>) {
        conn.forward(cx, 2);
        conn.consume(cx, usize::MAX);
        conn.write(cx, b"copied ");
        conn.send(cx, b"lent ");
        conn.send_static(cx, b"static");
    }

    fn on_udp(&mut self, cx: &mut Cx<Self>, datagram: Datagram) {
        cx.udp_reply(datagram);
    }
}

#[test]
fn a_warm_event_loop_allocates_nothing() {
    let mut events = EventLoop::new(boot(""));
    kernel(|k| k.patient = true);
    let handles: Vec<_> = (0..50).map(|n| kernel(|k| k.knock(n))).collect();
    let mut counted = 0;
    for round in 0..200 {
        for &handle in &handles {
            kernel(|k| {
                if k.connections.contains_key(&handle.0) && round > 1 {
                    let bytes = k.tcp(handle).unacked();
                    k.ack(handle, bytes, 65_535);
                    k.recv(handle, b"four");
                    k.udp_recv(b"ping");
                }
            });
        }
        events.enter();
        COUNT.set((round >= 20).then_some(0));
        events.turn(&mut Busy);
        counted += COUNT.take().unwrap_or(0);
    }
    // One `sendv` that also returns what was received, `udp_sendv`, `udp_recv_done`.
    assert!(kernel(|k| k.calls.len()) > 50 * 180 * 3, "it was busy");
    assert_eq!(counted, 0);
}

/// Sends back what comes.
struct Echo;

impl App for Echo {
    type Conn = ();
    type Buf = &'static [u8];

    fn on_knock(&mut self, _: &mut Cx<Self>, _: &Knock) -> Option<()> {
        Some(())
    }

    fn on_recv(&mut self, cx: &mut Cx<Self>, conn: &mut Conn<Self>) {
        conn.forward(cx, usize::MAX);
    }
}

#[test]
fn the_first_message_of_a_connection_allocates_nothing() {
    let mut events = EventLoop::new(boot(""));
    kernel(|k| k.patient = true);
    let handles: Vec<_> = (0..50).map(|n| kernel(|k| k.knock(n))).collect();
    let turn = |events: &mut EventLoop<Echo>, counts| {
        events.enter();
        COUNT.set(counts);
        events.turn(&mut Echo);
        COUNT.take().unwrap_or(0)
    };
    turn(&mut events, None);
    turn(&mut events, None);
    // So many make the event loop's own list long enough.
    let (warm, fresh) = handles.split_at(25);
    kernel(|k| warm.iter().for_each(|&handle| k.recv(handle, b"four")));
    turn(&mut events, None);
    kernel(|k| fresh.iter().for_each(|&handle| k.recv(handle, b"four")));
    let counted = turn(&mut events, Some(0));
    turn(&mut events, None);
    let echoed = |handle: &Handle| kernel(|k| k.tcp(*handle).stream.len() == 4);
    assert!(handles.iter().all(echoed));
    assert_eq!(counted, 0);
}

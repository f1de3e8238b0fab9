//! One stream of full-size segments, into the server or out of it; cost is by payload byte.
use crate::clients::Clients;
use crate::collect;
use crate::server::Server;
use crate::wire::{ACK, PSH};

/// Turns before counting, in which congestion windows grow.
const WARM_TURNS: usize = 256;
/// What a client's window is while it is sent to: 256 KiB at a shift of 7.
const CLIENT_WINDOW: u16 = 2048;
/// Turns without payload before a stream counts as stuck.
const PATIENCE: usize = 100_000;
/// Time that a segment takes on the wire.
const SEGMENT_NS: u64 = 1_000;

/// Sends at least `bytes` to the server, `batch` segments in each counted turn, of which the card makes one frame of
/// `merge` each; how many were acknowledged.
pub fn receive<S: Server>(server: &mut S, bytes: usize, batch: usize, merge: usize) -> usize {
    let mut clients = Clients::new(1);
    clients.open(server);
    let mut turns = 0;
    let mut done = 0;
    let mut counted = 0;
    let mut idle = 0;
    while counted < bytes {
        let segment = clients.segment_bytes() * merge;
        for _ in 0..batch.div_ceil(merge) {
            if clients.in_flight(0) as usize + segment <= clients.server_window as usize {
                clients.request(server, 0, segment);
            }
        }
        let before = clients.in_flight(0);
        server.pass_ns(SEGMENT_NS * batch as u64);
        turns += 1;
        if turns == WARM_TURNS {
            collect::instrument();
        }
        if turns > WARM_TURNS {
            collect::counted_region(|| server.turn());
        } else {
            server.turn();
        }
        clients.receive(server, |_, _, _, _| {});
        let acknowledged = (before - clients.in_flight(0)) as usize;
        done += acknowledged;
        counted += if turns > WARM_TURNS { acknowledged } else { 0 };
        idle = if acknowledged > 0 { 0 } else { idle + 1 };
        assert!(idle < PATIENCE, "stuck after {done} bytes: {}", server.explain());
    }
    counted
}

/// Takes at least `bytes` from the server, acknowledging every second segment, at most `batch` acknowledgements in
/// each counted turn; how many.
pub fn send<S: Server>(server: &mut S, bytes: usize, batch: usize) -> usize {
    let mut clients = Clients::new(1);
    clients.window = CLIENT_WINDOW;
    clients.open(server);
    clients.send(server, 0, ACK | PSH, 1);
    let mut turns = 0;
    let mut unacknowledged = 0;
    let mut counted = 0;
    let mut idle = 0;
    while counted < bytes {
        server.pass_ns(2 * SEGMENT_NS * batch as u64);
        turns += 1;
        if turns == WARM_TURNS {
            collect::instrument();
        }
        if turns > WARM_TURNS {
            collect::counted_region(|| server.turn());
        } else {
            server.turn();
        }
        let mut came = 0;
        let (mut acknowledgements, most) = (0, batch);
        clients.receive(server, |clients, server, _, answer| {
            came += answer.payload;
            // What the network card cuts comes as one.
            unacknowledged += answer.payload.div_ceil(clients.segment_bytes());
            if unacknowledged >= 2 && acknowledgements < most {
                unacknowledged -= 2;
                acknowledgements += 1;
                clients.send(server, 0, ACK, 0);
            }
        });
        if acknowledgements == 0 && unacknowledged > 0 {
            // The last one alone: what a delayed acknowledgement is for.
            unacknowledged = 0;
            clients.send(server, 0, ACK, 0);
        }
        counted += if turns > WARM_TURNS { came } else { 0 };
        idle = if came > 0 { 0 } else { idle + 1 };
        assert!(idle < PATIENCE, "stuck after {counted} bytes: {}", server.explain());
    }
    counted
}

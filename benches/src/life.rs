//! The whole life of a connection: handshake, accept, one 64-byte request and its answer, both FINs, the client's
//! first. Five frames come in, each kind of all connections of a batch in one counted turn.
use crate::clients::Clients;
use crate::collect;
use crate::echo::MESSAGE;
use crate::server::Server;
use crate::wire::{ACK, FIN, PSH, SYN};

/// Time between turns.
const TURN_NS: u64 = 1_000;

/// Lives before counting: every flow group has had some, and has its tables.
pub const WARM: usize = 2048;

/// Counts the lives of all clients but the first `batch` and [`WARM`]; how many.
pub fn count<S: Server>(server: &mut S, clients: &mut Clients, batch: usize) -> usize {
    // Apart: it makes the server ask for the router's Ethernet address, whose answer takes a turn.
    server.expect(0);
    clients.send(server, 0, SYN, 0);
    settle(server, clients);
    finish(server, clients, &[0], false);
    let mut lives = 0;
    let all: Vec<usize> = (batch..clients.len()).collect();
    for (round, some) in all.chunks_exact(batch).enumerate() {
        let first = WARM.div_ceil(batch);
        let counted = round >= first;
        if round == first {
            collect::instrument();
        }
        for i in some {
            server.expect(*i);
            clients.send(server, *i, SYN, 0);
        }
        assert_eq!(turn(server, clients, counted), some.len(), "SYN-ACKs: {}", server.explain());
        finish(server, clients, some, counted);
        lives += if counted { some.len() } else { 0 };
    }
    lives
}

/// From the SYN-ACK on.
fn finish<S: Server>(server: &mut S, clients: &mut Clients, some: &[usize], counted: bool) {
    for (flags, payload, answers) in
        [(ACK, 0, 0..1), (ACK | PSH, MESSAGE, 1..2), (ACK | FIN, 0, 1..3), (ACK, 0, 0..1)]
    {
        for i in some {
            clients.send(server, *i, flags, payload);
        }
        let frames = turn(server, clients, counted);
        let least = answers.start * some.len();
        let most = (answers.end - 1) * some.len();
        assert!((least..=most).contains(&frames), "{frames} frames: {}", server.explain());
    }
}

fn turn<S: Server>(server: &mut S, clients: &mut Clients, counted: bool) -> usize {
    server.pass_ns(TURN_NS);
    if counted {
        collect::counted_region(|| server.turn());
    } else {
        server.turn();
    }
    clients.receive(server, |_, _, _, _| {})
}

fn settle<S: Server>(server: &mut S, clients: &mut Clients) {
    for _ in 0..8 {
        turn(server, clients, false);
    }
}

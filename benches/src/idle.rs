//! Connections that do nothing: their memory, and what keeping them alive costs.
use crate::app::{Echo, Server as AppServer};
use crate::clients::Clients;
use crate::collect;
use crate::heap;
use crate::say;
use crate::server::Server;
use crate::server::engine::{EngineServer, Setup};
use crate::wire::ACK;
use ix_abi::stats::Counter;
use ix_dataplane::time::Instant;

/// Silence after which the server asks.
pub const KEEP_ALIVE_S: u64 = 600;
/// Handshakes come at 10,000 in a second.
const OPEN_EVERY_NS: u64 = 3_200_000;
/// The largest parts of the memory that are told.
const PARTS: usize = 10;
const SECOND_NS: u64 = 1_000_000_000;
const MIB: f64 = (1 << 20) as f64;

/// What a run found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Connections.
    pub connections: usize,
    /// Bytes that the engine had taken when all were open.
    pub bytes: i64,
    /// The process's growth meanwhile.
    pub resident: i64,
    /// Of `bytes`: receive buffers, header slots and rings, which do not grow with connections.
    pub fixed: i64,
    /// The largest parts of the rest, by size of allocation.
    pub parts: Vec<(usize, i64)>,
    /// Questions that were answered.
    pub probes: u64,
    /// Connections that were there at the end.
    pub alive: u64,
    /// Bytes that were taken after all were open.
    pub grown: i64,
    /// Real time of the virtual time.
    pub seconds: f64,
}

impl Found {
    /// Prints it.
    pub fn print(&self, hours: u64) {
        let each = |bytes: i64| bytes as f64 / self.connections as f64;
        let mib = |bytes: i64| bytes as f64 / MIB;
        let Found { connections, bytes, resident, fixed, .. } = *self;
        say!("{connections} idle connections");
        say!("  allocated: {bytes} bytes, {:.1} MiB, by connection {:.1}", mib(bytes), each(bytes));
        say!("  resident: {:.1} MiB more", mib(resident));
        say!("  of which fixed (buffers, rings, header slots): {:.1} MiB", mib(fixed));
        say!("  the rest by connection: {:.1} bytes, of which", each(bytes - fixed));
        for (size, bytes) in &self.parts {
            say!("    in allocations of {size} bytes: {:.1}", each(*bytes));
        }
        if hours > 0 {
            say!("  {hours} hours of keep-alive at {KEEP_ALIVE_S} s");
            say!("    questions answered: {}", self.probes);
            say!("    alive: {}", self.alive);
            say!("    more memory: {} bytes", self.grown);
            say!("    real time: {:.1} s", self.seconds);
        }
    }
}

/// Opens `connections`, lets `hours` pass, counted or not; with 0 hours there is no keep-alive.
pub fn run(connections: usize, hours: u64) -> Found {
    let mut clients = Clients::new(connections);
    clients.open_every_ns = OPEN_EVERY_NS;
    let keep_alive_us = if hours > 0 { KEEP_ALIVE_S * 1_000_000 } else { 0 };
    let app = Echo(AppServer { keep_alive_us, ..AppServer::default() });
    let (before, resident) = (heap::live(), heap::resident());
    let setup = Setup { connections, buffers: 4096, offload: true, tso: false, batch: 64 };
    let mut server = EngineServer::new(setup, app);
    let (fixed, sizes) = (heap::live() - before, heap::by_size());
    clients.open(&mut server);
    let mut parts: Vec<(usize, i64)> = heap::by_size()
        .iter()
        .zip(&sizes)
        .map(|((size, now), (_, then))| (*size, now - then))
        .filter(|(_, bytes)| *bytes > 0)
        .collect();
    parts.sort_by_key(|(_, bytes)| -*bytes);
    parts.truncate(PARTS);
    let bytes = heap::live() - before;
    let mut found = Found {
        connections,
        bytes,
        resident: heap::resident() - resident,
        fixed,
        parts,
        ..Found::default()
    };
    assert_eq!(server.stats().get(Counter::TcpConnections), connections as u64, "open");
    collect::instrument();
    let start = std::time::Instant::now();
    found.probes = pass(&mut server, &mut clients, hours * 3600 * SECOND_NS);
    found.seconds = start.elapsed().as_secs_f64();
    found.alive = server.stats().get(Counter::TcpConnections);
    found.grown = heap::live() - before - bytes;
    assert_eq!(server.app().0.dead, 0, "nobody has died");
    found
}

/// Lets time pass; the clients answer. How many questions there were.
fn pass(server: &mut EngineServer<Echo>, clients: &mut Clients, ns: u64) -> u64 {
    let end = server.now_ns() + ns;
    let mut probes = 0;
    while server.now_ns() < end {
        let work = server.work();
        if !work.busy {
            // It sleeps until its deadline, or the end.
            let until =
                if work.deadline == Instant::NEVER { end } else { work.deadline.0.min(end) };
            let now_ns = server.now_ns();
            server.pass_ns(until.saturating_sub(now_ns).max(1));
        }
        collect::counted_region(|| server.turn());
        clients.receive(server, |clients, server, i, answer| {
            if answer.probe {
                probes += 1;
                clients.send(server, i, ACK, 0);
            }
        });
    }
    probes
}

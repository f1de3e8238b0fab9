//! What a seed draws. Swarm testing (Groce et al. 2012): each seed switches whole kinds of trouble
//! on or off, so that many seeds have few kinds in great numbers.
use super::asks;
use super::book::{Side, Talk, Weather};
use super::net::{Faults, StationId};
use super::rush;
use super::{MS, S, Time, US};
use ix_dataplane::config::Algorithm;
use ix_dataplane::limits::CONNECTIONS_PER_GROUP_DEFAULT;
use ix_dataplane::mesh;
use ix_dataplane::rng::Rng;

/// A dataplane's make.
#[derive(Clone, Debug, Default)]
pub struct MachineDraw {
    /// Cores.
    pub cores: u16,
    /// Queue pairs, at most as many.
    pub queues: u16,
    /// Flow groups.
    pub groups: u16,
    /// Receive buffers per core.
    pub buffers: u32,
    /// Slots of a receive ring, and of a transmit ring.
    pub rx_ring: usize,
    /// See `rx_ring`.
    pub tx_ring: usize,
    /// Bound B.
    pub rx_batch: usize,
    /// The NIC sums what it sends, checks what it receives, reports hashes.
    pub tx_checksum: bool,
    /// See `tx_checksum`.
    pub rx_checksum: bool,
    /// See `tx_checksum`.
    pub hash_report: bool,
    /// How long the NIC takes to fetch and complete a frame, at most.
    pub tx_delay: Time,
    /// How often (in 1/16) the application is preempted.
    pub preempt: u64,
    /// How often (in 1/64) it rejects a connection.
    pub reject: u64,
    /// How often (in 1/64) it makes a call that is nonsense.
    pub nonsense: u64,
    /// 2 MiB pages of its heap.
    pub heap_pages: u32,
    /// Slots of the rings between its cores, for frames and for buffers going home.
    pub mesh: usize,
    /// Connections of a flow group.
    pub connections: u32,
    /// The application does everything at once, as fast as it can.
    pub eager: bool,
    /// How it controls congestion.
    pub congestion: Algorithm,
    /// How often (in 1/256 of its turns) something else has a core for a while, such as a hypervisor.
    pub stalls: u64,
    /// How often (in 1/1024 of its turns) a flow group moves to another core.
    pub moves: u64,
    /// How many do then, at most, to the same one.
    pub flock: u64,
    /// How often (in 1/1024 of its turns) a core may give half of its flow groups to another as soon as frames wait.
    pub grants: u64,
    /// How often (in 1/1024 of its turns) a core is asked to leave for a while.
    pub lends: u64,
    /// How often (in 1/1024 of its turns) a core is stopped for a while, wherever it is.
    pub takes: u64,
    /// When its application is restarted.
    pub restarts: Vec<Time>,
    /// How often (in 1/16) the application pretends to have read almost nothing of its event ring.
    pub clutter: u64,
    /// Datagrams that the application sends on each core.
    pub datagrams: u64,
}

/// A smoltcp peer's make.
#[derive(Clone, Debug)]
pub struct PeerDraw {
    /// Bytes of each socket's receive buffer, and of its send buffer.
    pub rx_buffer: usize,
    /// See `rx_buffer`.
    pub tx_buffer: usize,
    /// Delays acknowledgements.
    pub delayed_ack: bool,
    /// Waits for full segments.
    pub nagle: bool,
    /// Its link's largest frame, without Ethernet's header.
    pub mtu: usize,
    /// Has timestamps.
    pub stamps: bool,
}

/// Everything that a seed draws.
#[derive(Clone, Debug)]
pub struct Swarm {
    /// Dataplanes: stations 0 and up.
    pub machines: Vec<MachineDraw>,
    /// Peers: the stations after them.
    pub peers: Vec<PeerDraw>,
    /// The network's.
    pub faults: Faults,
    /// What they come to.
    pub weather: Weather,
    /// When each conversation begins.
    pub talks: Vec<(Time, Talk)>,
}

/// The draw of a seed. Without `machines` there are only peers, to test the simulation itself.
pub fn draw(rng: &mut Rng, machines: bool) -> Swarm {
    let machine_count = if machines { one_of(rng, &[1, 1, 1, 2, 2, 2, 2, 3]) } else { 0 };
    let peer_count = match machine_count {
        0 => 2 + rng.below(2),
        1 => 1 + rng.below(3),
        // Mostly engines among themselves, which understand more than smoltcp does.
        _ => one_of(rng, &[0, 0, 1, 2]),
    };
    let machines: Vec<_> = (0..machine_count).map(|_| machine(rng)).collect();
    // smoltcp as a sender stalls for good if a segment is lost in a tiny window (it takes the
    // window for closed while it has more than that in flight): between peers, none that small.
    let rx_buffers: &[usize] = if machines.is_empty() {
        &[65_535, 200_000]
    } else {
        &[512, 4096, 30_000, 65_535, 200_000]
    };
    let peers: Vec<_> = (0..peer_count).map(|_| peer(rng, rx_buffers)).collect();
    let stations = machine_count + peer_count;
    let (faults, weather) = faults(rng, stations, peer_count);
    let count = 1 + small(rng, 40);
    let spread = [1, 10 * MS, S, 5 * S][rng.below(4) as usize];
    let aborts = rng.chance(1, 3);
    let echoes = rng.below(3);
    let talks = (0..count)
        .map(|n| {
            let start = 10 * MS + rng.below(spread);
            let opener = rng.below(stations);
            let mut acceptor = rng.below(stations - 1);
            acceptor += u64::from(acceptor >= opener);
            // Mostly with a dataplane at one end.
            let (opener, acceptor) =
                if machine_count > 0 && opener >= machine_count && acceptor >= machine_count {
                    if rng.chance(1, 2) { (opener, 0) } else { (0, acceptor) }
                } else {
                    (opener, acceptor)
                };
            let id = rng.next_u64() | n;
            let ends = [StationId(opener as u8), StationId(acceptor as u8)];
            let peerless = opener.max(acceptor) < machine_count;
            (start, talk(rng, id, (ends, start), peerless, aborts, echoes))
        })
        .collect();
    let mut swarm = Swarm { machines, peers, faults, weather, talks };
    // Of its own numbers: other seeds are what they are without.
    let mut asking = Rng::from_seed(!rng.clone().next_u64());
    if machine_count > 0 && asking.chance(1, 4) {
        asks::draw(&mut swarm, &mut asking);
    } else if machine_count > 0 && swarm.weather == Weather::Clean && asking.chance(1, 2) {
        rush::draw(&mut swarm, &mut asking);
    }
    swarm
}

/// Below `max`, mostly small.
fn small(rng: &mut Rng, max: u64) -> u64 {
    let bits = 64 - max.leading_zeros();
    let of = rng.below(u64::from(bits) + 1);
    rng.below((1 << of).min(max).max(1))
}

/// One of `choices`.
pub fn one_of<T: Copy>(rng: &mut Rng, choices: &[T]) -> T {
    choices[rng.below(choices.len() as u64) as usize]
}

fn machine(rng: &mut Rng) -> MachineDraw {
    let cores = one_of(rng, &[1, 1, 2, 2, 3, 4, 8]);
    let rx_ring = one_of(rng, &[64, 256, 256]);
    MachineDraw {
        cores,
        queues: 1 + rng.below(u64::from(cores)) as u16,
        // At least one for each core: a context without any is not entered.
        groups: one_of(rng, &[4, 16, 128]).max(cores.next_power_of_two()),
        buffers: rx_ring as u32 + one_of(rng, &[256, 512, 1024]),
        rx_ring,
        tx_ring: one_of(rng, &[8, 64, 256, 1024]),
        rx_batch: one_of(rng, &[1, 4, 64]),
        tx_checksum: rng.chance(1, 2),
        rx_checksum: rng.chance(1, 2),
        hash_report: rng.chance(1, 2),
        tx_delay: one_of(rng, &[0, 0, 5 * US, MS]),
        preempt: one_of(rng, &[0, 0, 1, 8]),
        reject: one_of(rng, &[0, 0, 0, 8]),
        nonsense: one_of(rng, &[0, 0, 1, 16]),
        heap_pages: one_of(rng, &[1, 2, 4]),
        mesh: mesh::Sizes::default().frames,
        connections: CONNECTIONS_PER_GROUP_DEFAULT,
        eager: rng.chance(1, 8),
        congestion: one_of(rng, &[Algorithm::Cubic, Algorithm::NewReno, Algorithm::Dctcp]),
        moves: one_of(rng, &[0, 0, 1, 64]),
        flock: 1,
        restarts: if rng.chance(1, 8) {
            (0..1 + rng.below(2)).map(|_| 10 * MS + rng.below(6 * S)).collect()
        } else {
            Vec::new()
        },
        clutter: one_of(rng, &[0, 0, 0, 0, 1, 4]),
        datagrams: one_of(rng, &[0, 0, 3, 40]),
        stalls: one_of(rng, &[0, 0, 0, 1, 16]),
        grants: one_of(rng, &[0, 0, 0, 1, 64]),
        lends: one_of(rng, &[0, 0, 0, 4, 64]),
        takes: one_of(rng, &[0, 0, 0, 0, 0, 4, 32]),
    }
}

fn peer(rng: &mut Rng, rx_buffers: &[usize]) -> PeerDraw {
    PeerDraw {
        rx_buffer: one_of(rng, rx_buffers),
        tx_buffer: one_of(rng, &[512, 4096, 30_000, 65_535, 200_000]),
        delayed_ack: rng.chance(1, 2),
        nagle: rng.chance(1, 2),
        mtu: one_of(rng, &[576, 1500, 1500]),
        stamps: false,
    }
}

fn faults(rng: &mut Rng, stations: u64, peers: u64) -> (Faults, Weather) {
    let mut f = Faults {
        delay: one_of(rng, &[US, 50 * US, MS, 20 * MS]),
        // 8 Gb/s, and room for all windows at once.
        byte_time: 1,
        queue_bytes: 100_000_000,
        healed_at: 20 * S,
        ..Faults::default()
    };
    if rng.chance(1, 3) {
        // A clean network: nothing may go wrong at all, whatever is made up. (What smoltcp answers to
        // that may have consequences.)
        if peers == 0 && rng.chance(1, 2) {
            f.forge = one_of(rng, &[100, 1000, 3000]);
        }
        return (f, Weather::Clean);
    }
    let on = |rng: &mut Rng| rng.chance(1, 2);
    if on(rng) {
        f.loss = one_of(rng, &[10, 100, 500, 2000]);
    }
    if rng.chance(1, 4) {
        f.burst = one_of(rng, &[2, 10, 50]);
        f.burst_frames = one_of(rng, &[4, 16, 64]);
    }
    if on(rng) {
        f.duplicate = one_of(rng, &[10, 100, 1000]);
    }
    if on(rng) {
        f.reorder = one_of(rng, &[10, 100, 1000]);
    }
    if on(rng) {
        f.corrupt = one_of(rng, &[10, 100, 1000]);
    }
    if on(rng) {
        f.resegment = one_of(rng, &[10, 100, 3000]);
    }
    if on(rng) {
        f.jitter = one_of(rng, &[10 * US, MS, 10 * MS]);
    }
    if rng.chance(1, 3) {
        f.byte_time = one_of(rng, &[8, 80, 800]);
        f.queue_bytes = one_of(rng, &[20_000, 200_000]);
        f.mark_bytes = one_of(rng, &[0, f.queue_bytes / 8, f.queue_bytes / 2]);
    }
    if rng.chance(1, 3) {
        f.forge = one_of(rng, &[10, 100, 1000]);
    }
    if rng.chance(1, 4) {
        for _ in 0..1 + rng.below(3) {
            let start = rng.below(5 * S);
            let len = one_of(rng, &[50 * MS, S, 8 * S]);
            f.partitions.push((StationId(rng.below(stations) as u8), start, start + len));
        }
    }
    // smoltcp answers a doubled SYN from two listening sockets.
    let harsh =
        f.loss + f.corrupt > 100 || f.duplicate > 0 || !f.partitions.is_empty() || f.byte_time > 1;
    let harsh = harsh || f.burst > 0;
    (f, if harsh { Weather::Harsh } else { Weather::Rough })
}

fn talk(
    rng: &mut Rng,
    id: u64,
    (ends, start): ([StationId; 2], Time),
    peerless: bool,
    aborts: bool,
    echoes: u64,
) -> Talk {
    let echo = rng.below(2) < echoes;
    // Engines have larger windows than smoltcp, and more to do in them.
    let sizes = if peerless {
        [3_000, 100_000, 400_000, 2_000_000]
    } else {
        [100, 3_000, 100_000, 400_000]
    };
    let max = one_of(rng, &sizes);
    let up = 8 + small(rng, max);
    let down = if echo { up } else { small(rng, max) };
    let abort = (aborts && rng.chance(1, 3)).then(|| {
        let side = if rng.chance(1, 2) { Side::Opener } else { Side::Acceptor };
        let expects = if side == Side::Opener { down } else { up };
        (side, rng.below(expects + 1))
    });
    Talk {
        id,
        start,
        opener: ends[0],
        acceptor: ends[1],
        bytes: [up, down],
        echo,
        abort,
        first: match rng.below(3) {
            0 if peerless => None,
            1 => Some(Side::Acceptor),
            _ => Some(Side::Opener),
        },
        write_max: one_of(rng, &[1, 64, 1460, 20_000, 100_000]).max((up.max(down) / 300) as usize),
        read_max: one_of(rng, &[1, 100, 5_000, 1 << 20]).max((up.max(down) / 300) as usize),
        slowness: one_of(rng, &[0, 0, 4, 14]),
        asks: None,
    }
}

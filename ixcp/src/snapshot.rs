//! What the control page says at one moment, checked and named.
//!
//! Counters are read word by word while the kernel runs. A core's block counts its publications;
//! a read that spans one is repeated a bounded number of times, and marked `torn` if it never
//! succeeds. Every single counter is right even then.
use crate::measured::{self, Demand, Measured};
use crate::page::Page;
use ix_abi::control::{self, CoreState, OWNERS_BASE, State, core_block, header};
use ix_abi::limits::{CORES_MAX, GROUPS_MAX};
use ix_abi::stats::{BATCH_BUCKETS, Counter, Drop};
use ix_abi::{IpAddress, VERSION, Version};
use ix_kernel_core::vmx::exits::counter_name;
use ix_kernel_core::vmx::page::Cause;
use serde::{Serialize, Serializer};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

/// How often a block is read again when the kernel publishes in between.
const RETRIES_MAX: u32 = 16;

/// The counters that are no counts but levels (docs/control.md §3); everything else only grows.
pub const GAUGES: [Counter; 6] = [
    Counter::TcpConnections,
    Counter::BuffersFree,
    Counter::BuffersTotal,
    Counter::TcpListeners,
    Counter::UdpPorts,
    Counter::AppTimers,
];

/// Why a page cannot be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// No kernel has written it.
    #[error("the kernel has not written the control page yet: it boots, or never reached it")]
    Empty,
    /// The serial line over which it is told.
    #[error("the control page cannot be read any more: {0}")]
    Line(String),
    /// Another magic.
    #[error(
        "the control page does not start with IXCTRL01 but with {0:#018x}: not an IX control page, or corrupted"
    )]
    Magic(u64),
    /// Another major version.
    #[error("the control page has version {found_major}.{found_minor}, this ixcp speaks {}.x: use the ixcp that was built with the kernel", VERSION.major)]
    Version {
        /// Major number found.
        found_major: u16,
        /// Minor number found.
        found_minor: u16,
    },
    /// A value that cannot be.
    #[error("the control page is corrupted: {what} is {found}, at most {limit} is possible")]
    Range {
        /// Which word.
        what: &'static str,
        /// What it says.
        found: u64,
        /// Its bound.
        limit: u64,
    },
}

/// Named numbers in the order of the layout; a map in JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named(pub Vec<(&'static str, u64)>);

impl Named {
    /// The number of that name, 0 if the kernel does not have it.
    pub fn get(&self, name: &str) -> u64 {
        self.0.iter().find(|(n, _)| *n == name).map_or(0, |(_, v)| *v)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the kernel has one of that name.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(n, _)| *n == name)
    }

    fn add(&mut self, other: &Named) {
        for &(name, value) in &other.0 {
            match self.0.iter_mut().find(|(n, _)| *n == name) {
                Some((_, sum)) => *sum = sum.wrapping_add(value),
                None => self.0.push((name, value)),
            }
        }
    }
}

impl Serialize for Named {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

/// One core's block.
#[derive(Clone, Debug, Serialize)]
pub struct Core {
    /// Its number.
    pub core: usize,
    /// Its APIC id.
    pub apic_id: u64,
    /// What it does.
    pub state: &'static str,
    /// Whether it serves; one that does not is parked.
    pub serves: bool,
    /// Whether another dataplane has it.
    pub away: bool,
    /// Flow groups that it has.
    pub groups: u64,
    /// Publications so far.
    pub published: u64,
    /// The counters were read while the core published, so they are of two moments.
    pub torn: bool,
    /// By [`Counter`].
    pub counters: Named,
    /// By [`Drop`].
    pub drops: Named,
    /// Receive batches by size bucket.
    pub batches: Vec<u64>,
    /// What it measures of itself, if the kernel measures.
    pub measured: Option<Measured>,
    /// VM exits by reason, those that there were; none without a monitor.
    #[serde(skip_serializing_if = "Named::is_empty")]
    pub exits: Named,
}

impl Core {
    /// A counter.
    pub fn counter(&self, counter: Counter) -> u64 {
        self.counters.get(counter.name())
    }
}

/// The sums over the cores.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Total {
    /// By [`Counter`].
    pub counters: Named,
    /// By [`Drop`].
    pub drops: Named,
    /// Receive batches by size bucket.
    pub batches: Vec<u64>,
}

/// The header and every core.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    /// Contract version, `major.minor`.
    pub version: String,
    /// Drawn at boot, in hexadecimal (JSON numbers are not exact beyond 2^53).
    pub epoch: String,
    /// What the dataplane does.
    pub state: &'static str,
    /// Whether the heartbeat moved while it was watched.
    pub alive: bool,
    /// About milliseconds since boot, as core 0 counts them.
    pub heartbeat: u64,
    /// Nanoseconds since boot at the last heartbeat.
    pub now_ns: u64,
    /// Nanoseconds since boot when the application became ready; 0 before.
    pub ready_ns: u64,
    /// Time-stamp counter frequency.
    pub tsc_khz: u64,
    /// The application's name.
    pub app: String,
    /// How often it was started.
    pub app_starts: u64,
    /// Its last exit code, or the kernel's reason.
    pub app_exit: u64,
    /// Address, if there is one.
    pub ipv4: Option<Ipv4Addr>,
    /// Prefix length.
    pub prefix: u64,
    /// IPv6 addresses, with their prefix lengths.
    pub ipv6: Vec<(Ipv6Addr, u8)>,
    /// Hardware address.
    pub mac: String,
    /// Receive batch bound.
    pub batch: u64,
    /// Flow groups of the port.
    pub groups: u64,
    /// Flow groups that have moved since boot.
    pub moves: u64,
    /// Queue pairs in use.
    pub queues: u64,
    /// RAM that the kernel manages.
    pub memory_bytes: u64,
    /// What the monitor says, if one runs below the kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monitor: Option<Monitor>,
    /// Cores that the dataplane wants.
    pub demand: Option<Demand>,
    /// Lowest batch size of each bucket.
    pub batch_buckets: Vec<u64>,
    /// Every core.
    pub cores: Vec<Core>,
    /// Their sums.
    pub total: Total,
}

/// The monitor below the kernel (docs/vtx.md).
#[derive(Clone, Debug, Serialize)]
pub struct Monitor {
    /// How often it has started the dataplane.
    pub lives: u64,
    /// How often it has stopped it.
    pub containments: u64,
    /// Why the last time, and on which core.
    pub last: Option<(&'static str, u64)>,
}

fn monitor(page: &Page) -> Option<Monitor> {
    if page.load(header::EXIT_COUNTERS) == 0 {
        return None;
    }
    let cause = Cause::from_number(page.load(header::CONTAINMENT));
    Some(Monitor {
        lives: page.load(header::LIVES),
        containments: page.load(header::CONTAINMENTS),
        last: cause.map(|cause| (cause.name(), page.load(header::CONTAINMENT + 8))),
    })
}

/// Checks that the page is one that this program understands; gives its epoch.
pub fn check(page: &Page) -> Result<u64, PageError> {
    let magic = page.load_acquire(header::MAGIC);
    if let Some(why) = page.failure() {
        return Err(PageError::Line(why));
    }
    match magic {
        control::MAGIC => {}
        0 => return Err(PageError::Empty),
        other => return Err(PageError::Magic(other)),
    }
    let word = page.load(header::VERSION);
    let found = Version { major: word as u16, minor: (word >> 16) as u16 };
    if word >> 32 != 0 || !VERSION.accepts(found) {
        return Err(PageError::Version { found_major: found.major, found_minor: found.minor });
    }
    Ok(page.load(header::EPOCH))
}

/// Reads everything. Does not look whether the kernel lives: see [`watch_heartbeat`].
pub fn read(page: &Page) -> Result<Snapshot, PageError> {
    let epoch = check(page)?;
    let cores = bounded(page, header::CORES, "the number of cores", CORES_MAX as u64)?;
    let groups = bounded(page, header::GROUPS, "the number of flow groups", GROUPS_MAX as u64)?;
    let prefix = bounded(page, header::PREFIX, "the prefix length", 32)?;
    let space = |from: usize, to: usize| ((to - from) / 8) as u64;
    let counters = bounded(
        page,
        header::COUNTERS,
        "the number of counters",
        space(core_block::COUNTERS, core_block::DROPS),
    )?;
    let drops = bounded(
        page,
        header::DROPS,
        "the number of drop reasons",
        space(core_block::DROPS, core_block::BATCHES),
    )?;
    let buckets = bounded(
        page,
        header::BATCH_BUCKETS,
        "the number of batch buckets",
        space(core_block::BATCHES, control::CORE_STRIDE),
    )?;
    let shape = Shape {
        counters: (counters as usize).min(Counter::COUNT),
        drops: (drops as usize).min(Drop::COUNT),
        buckets: (buckets as usize).min(BATCH_BUCKETS),
        exits: page.load(header::EXIT_COUNTERS).min(core_block::EXITS_MAX as u64) as usize,
    };
    let active = page.load(header::ACTIVE);
    let owned = owned(page, groups as usize)?;
    let away = page.load(header::AWAY);
    let core = |core: usize| Core {
        away: away >> core & 1 != 0,
        serves: active & 1 << core != 0,
        groups: owned[core],
        ..read_core(page, core, shape)
    };
    let cores: Vec<Core> = (0..cores as usize).map(core).collect();
    let mac = page.load(header::MAC).to_le_bytes();
    let ipv4 = page.load(header::IPV4) as u32;
    let word = page.load(header::VERSION);
    Ok(Snapshot {
        version: format!("{}.{}", word as u16, (word >> 16) as u16),
        epoch: format!("{epoch:#018x}"),
        state: state_text(page.load(header::STATE)),
        alive: false,
        heartbeat: page.load(header::HEARTBEAT),
        now_ns: page.load(header::NOW_NS),
        ready_ns: page.load(header::READY_NS),
        tsc_khz: page.load(header::TSC_KHZ),
        app: app_name(page),
        app_starts: page.load(header::APP_STARTS),
        app_exit: page.load(header::APP_EXIT),
        ipv4: (ipv4 != 0).then(|| Ipv4Addr::from_octets(ipv4.to_le_bytes())),
        prefix,
        ipv6: ipv6(page),
        mac: mac[..6].iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":"),
        batch: page.load(header::BATCH),
        groups,
        moves: page.load(header::MOVES),
        queues: page.load(header::QUEUES),
        memory_bytes: page.load(header::MEMORY_BYTES),
        monitor: monitor(page),
        demand: measured::demand(page),
        batch_buckets: (0..shape.buckets).map(bucket_floor).collect(),
        total: total(&cores),
        cores,
    })
}

/// How many flow groups each core has.
fn owned(page: &Page, groups: usize) -> Result<[u64; CORES_MAX], PageError> {
    let mut owned = [0; CORES_MAX];
    for group in 0..groups {
        let at = OWNERS_BASE + group * 8;
        let core = bounded(page, at, "the core of a flow group", CORES_MAX as u64 - 1)?;
        owned[core as usize] += 1;
    }
    Ok(owned)
}

/// The IPv6 addresses. They may change while they are read: then the next look is right.
fn ipv6(page: &Page) -> Vec<(Ipv6Addr, u8)> {
    let prefixes = page.load_acquire(header::IPV6_PREFIXES).to_le_bytes();
    let address = |at: usize| {
        let words = [0, 8].map(|word| page.load(header::IPV6 + at * 16 + word));
        Ipv6Addr::from_octets(IpAddress::from_words(words).0)
    };
    let used = prefixes.into_iter().enumerate().filter(|(_, len)| (1..=128).contains(len));
    used.map(|(at, len)| (address(at), len)).collect()
}

/// Whether the heartbeat moves within `patience`.
pub fn watch_heartbeat(page: &Page, patience: Duration) -> bool {
    let before = page.load(header::HEARTBEAT);
    let start = Instant::now();
    while start.elapsed() < patience {
        std::thread::sleep(Duration::from_millis(2));
        if page.load(header::HEARTBEAT) != before {
            return true;
        }
    }
    false
}

/// The lowest batch size that a bucket counts.
pub fn bucket_floor(bucket: usize) -> u64 {
    if bucket == 0 { 0 } else { 1 << (bucket - 1) }
}

#[derive(Clone, Copy)]
struct Shape {
    counters: usize,
    drops: usize,
    buckets: usize,
    exits: usize,
}

fn read_core(page: &Page, core: usize, shape: Shape) -> Core {
    let base = control::core_offset(core);
    let mut attempt = 0;
    loop {
        let published = page.load_acquire(base + core_block::PUBLISHED);
        let word = |start: usize, index: usize| page.load_in_block(base + start + index * 8);
        let counters = (0..shape.counters)
            .map(|i| (Counter::ALL[i].name(), word(core_block::COUNTERS, i)))
            .collect();
        let drops =
            (0..shape.drops).map(|i| (Drop::ALL[i].name(), word(core_block::DROPS, i))).collect();
        let batches = (0..shape.buckets).map(|i| word(core_block::BATCHES, i)).collect();
        let exits = (0..shape.exits)
            .map(|i| (counter_name(i), word(core_block::EXITS, i)))
            .filter(|(_, n)| *n > 0)
            .collect();
        let torn = page.load(base + core_block::PUBLISHED) != published;
        attempt += 1;
        if torn && attempt < RETRIES_MAX && !page.is_line() {
            continue;
        }
        return Core {
            core,
            apic_id: page.load(base + core_block::APIC_ID),
            state: core_state_text(page.load(base + core_block::STATE)),
            serves: false,
            away: false,
            groups: 0,
            published,
            torn,
            counters: Named(counters),
            drops: Named(drops),
            batches,
            measured: measured::read(page, core),
            exits: Named(exits),
        };
    }
}

fn total(cores: &[Core]) -> Total {
    let mut total = Total::default();
    for core in cores {
        total.counters.add(&core.counters);
        total.drops.add(&core.drops);
        total.batches.resize(core.batches.len(), 0);
        for (sum, n) in total.batches.iter_mut().zip(&core.batches) {
            *sum = sum.wrapping_add(*n);
        }
    }
    total
}

fn bounded(page: &Page, offset: usize, what: &'static str, limit: u64) -> Result<u64, PageError> {
    let found = page.load(offset);
    if found > limit { Err(PageError::Range { what, found, limit }) } else { Ok(found) }
}

fn state_text(word: u64) -> &'static str {
    u16::try_from(word).map_or("unknown", |w| State(w).text())
}

fn core_state_text(word: u64) -> &'static str {
    u16::try_from(word).map_or("unknown", |w| CoreState(w).text())
}

/// The name, with anything that could disturb a terminal replaced.
fn app_name(page: &Page) -> String {
    let mut bytes = [0; 32];
    for (i, chunk) in bytes.chunks_exact_mut(8).enumerate() {
        chunk.copy_from_slice(&page.load(header::APP_NAME + i * 8).to_le_bytes());
    }
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    crate::serial::printable(&bytes[..end])
}

#[cfg(test)]
mod tests;

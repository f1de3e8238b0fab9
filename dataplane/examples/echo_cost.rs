//! What a 64-byte echo costs: frames in, events, the application's batch, frames out, all through
//! `run_once`, with a NIC and an application that do next to nothing.
//!
//! ```text
//! cargo build --release -p ix-dataplane --example echo_cost
//! valgrind --tool=callgrind --toggle-collect=measured --callgrind-out-file=/dev/null \
//!     target/release/examples/echo_cost CONNECTIONS RPCS BATCH [offload] [SET]
//! ```
//! Two runs that differ only in RPCS give the instructions per RPC: the difference of "Collected"
//! by the difference of RPCS. Connections are picked at random. SET is one of `support/rules.rs`, and two
//! runs that differ only in CONNECTIONS give what a new one costs: `acl_cost.sh`.
//!
//! # Safety
//! Every pointer here is to memory that `leak` gave for ever, of the size that is used.
#[path = "support/rules.rs"]
mod rules;

use ix_abi::call::{Call, SgEntry};
use ix_abi::event::{Event, Kind};
use ix_abi::layout::*;
use ix_abi::ring::slot;
use ix_abi::{Cookie, CoreId, Handle, SocketAddress};
use ix_dataplane::app::AppPort;
use ix_dataplane::checksum;
use ix_dataplane::config::{Addressing, Config, Ipv4Config};
use ix_dataplane::core_loop::run_once;
use ix_dataplane::device::*;
use ix_dataplane::engine::Engine;
use ix_dataplane::limits::{MBUF_BYTES, TX_HEADER_REGION_BYTES};
use ix_dataplane::mbuf::{Area, Mbuf, Pool, Rest};
use ix_dataplane::platform::{AppFault, AppReturn, Platform};
use ix_dataplane::rings::AppRings;
use ix_dataplane::rng::Rng;
use ix_dataplane::time::Instant;
use ix_dataplane::usermem::UserMap;
use std::alloc::{Layout, alloc_zeroed};
use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::Arc;

const US: [u8; 4] = [10, 0, 0, 1];
const MESSAGE: usize = 64;

struct Rx {
    ready: VecDeque<RxFrame>,
    posted: Vec<Mbuf>,
}

impl RxQueue for Rx {
    #[inline(never)]
    fn poll(&mut self, max: usize, batch: &mut RxBatch) -> usize {
        let mut count = 0;
        while count < max {
            let Some(frame) = self.ready.pop_front() else { break };
            batch.push(frame);
            count += 1;
        }
        count
    }
    fn waiting(&self) -> usize {
        self.ready.len()
    }
    #[inline(never)]
    fn replenish(&mut self, pool: &mut Pool) {
        while self.posted.len() < 128 {
            let Some(mbuf) = pool.alloc() else { break };
            self.posted.push(mbuf);
        }
    }
    fn arm_interrupt(&mut self) -> bool {
        false
    }
    fn disarm_interrupt(&mut self) {}
    fn device_errors(&self) -> u64 {
        0
    }
}

struct Tx {
    sent: Vec<TxFrame>,
    count: usize,
    completed: u32,
}

impl TxQueue for Tx {
    #[inline(never)]
    fn push(&mut self, frame: &TxFrame) -> Result<(), TxFull> {
        let slot = &mut self.sent[self.count % 128];
        slot.fragments.clear();
        for fragment in &frame.fragments {
            slot.fragments.push(*fragment);
        }
        self.count += 1;
        self.completed += 1;
        Ok(())
    }
    #[inline(never)]
    fn kick(&mut self) {}
    #[inline(never)]
    fn reclaim(&mut self) -> u32 {
        std::mem::take(&mut self.completed)
    }
}

struct Machine {
    now: Instant,
    rx: [Rx; 1],
    tx: Tx,
    events: *mut u8,
    calls: *mut u8,
    read: u32,
    written: u32,
}

impl Machine {
    fn write(&mut self, call: Call) {
        let at = RING_SLOTS_OFFSET + slot(self.written, CALL_SLOTS) * 64;
        // SAFETY: the page is leaked; `slot` is below the capacity, so `at` is a slot's offset.
        unsafe { self.calls.add(at).cast::<Call>().write(call) };
        self.written += 1;
    }

    /// Echoes out of the receive buffer, and returns it: the engine has a reference of its own.
    #[inline(never)]
    fn app(&mut self) {
        // SAFETY: the page is leaked; `slot` is below the capacity, so `at` is a slot's offset; the
        // engine writes a slot only after it was read.
        unsafe {
            let produced = self.events.cast::<u32>().read_volatile();
            while self.read != produced {
                let at = RING_SLOTS_OFFSET + slot(self.read, EVENT_SLOTS) * 64;
                let event: &Event = &*self.events.add(at).cast();
                self.read += 1;
                let handle = Handle(event.handle);
                match Kind(event.kind) {
                    Kind::Recv | Kind::RecvSent => {
                        let len = u64::from(event.len);
                        let entry = SgEntry { addr: event.words[0], len };
                        let call = Call::sendv(handle, 1, entry, SgEntry::default());
                        self.write(call.with_recv_done(len));
                    }
                    Kind::Knock => self.write(Call::accept(handle, Cookie(event.handle))),
                    Kind::GroupIn if self.written == 0 => {
                        let at = SocketAddress { port: 7, ..SocketAddress::default() };
                        self.write(Call::listen(at, 65_536));
                    }
                    Kind::Result => panic!("a call failed: {event:?}"),
                    _ => {}
                }
            }
            self.calls.cast::<u32>().write_volatile(self.written);
            self.calls.add(4).cast::<u32>().write_volatile(self.read);
        }
    }
}

impl Platform for Machine {
    type Rx = Rx;
    type Tx = Tx;
    fn now(&mut self) -> Instant {
        self.now
    }
    fn tsc(&mut self) -> u64 {
        0
    }
    fn rx_queues(&mut self) -> &mut [Rx] {
        &mut self.rx
    }
    fn tx_queue(&mut self) -> &mut Tx {
        &mut self.tx
    }
    fn enter_app(&mut self) -> AppReturn {
        self.app();
        AppReturn::Entered
    }
    fn control(&mut self, _engine: &mut Engine) {}
    fn app_fault(&mut self, fault: AppFault) {
        panic!("{fault:?}");
    }
    fn publish(
        &mut self,
        _stats: &ix_abi::stats::CoreStats,
        _measure: &ix_dataplane::measure::Measure,
    ) {
    }
    fn wake(&mut self, _core: CoreId) {}
}

fn leak(bytes: usize, align: usize) -> NonNull<u8> {
    // SAFETY: no caller asks for 0 bytes.
    NonNull::new(unsafe { alloc_zeroed(Layout::from_size_align(bytes, align).unwrap()) }).unwrap()
}

/// The client's end of a connection.
#[derive(Clone, Copy)]
struct Client {
    ip: [u8; 4],
    port: u16,
    seq: u32,
    ack: u32,
}

/// What callgrind collects, under a name that it finds.
#[unsafe(no_mangle)]
#[inline(never)]
fn measured(engine: &mut Engine, machine: &mut Machine) {
    run_once(engine, machine);
}

struct Bench {
    engine: Engine,
    machine: Machine,
    area: &'static Area,
    offload: bool,
}

impl Bench {
    fn frame(&mut self, client: &Client, flags: u8, payload: usize) {
        let mut mbuf = self.machine.rx[0].posted.pop().expect("a posted buffer");
        let len = 54 + payload;
        let f = &mut self.area.data_mut(&mut mbuf)[12..12 + len];
        f.fill(0x61);
        f[0..12].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
        f[12..14].copy_from_slice(&[8, 0]);
        f[14..54].fill(0);
        f[14] = 0x45;
        f[16..18].copy_from_slice(&((len - 14) as u16).to_be_bytes());
        f[22..24].copy_from_slice(&[64, 6]);
        f[26..30].copy_from_slice(&client.ip);
        f[30..34].copy_from_slice(&US);
        let sum = checksum::finish(checksum::sum(&f[14..34]));
        f[24..26].copy_from_slice(&sum);
        f[34..36].copy_from_slice(&client.port.to_be_bytes());
        f[36..38].copy_from_slice(&7u16.to_be_bytes());
        f[38..42].copy_from_slice(&client.seq.to_be_bytes());
        f[42..46].copy_from_slice(&client.ack.to_be_bytes());
        f[46..48].copy_from_slice(&[0x50, flags]);
        f[48..50].copy_from_slice(&0xffffu16.to_be_bytes());
        let pseudo = checksum::pseudo_v4(client.ip, US, 6, (20 + payload) as u16);
        let sum = checksum::finish(checksum::add(pseudo, checksum::sum(&f[34..])));
        f[50..52].copy_from_slice(&sum);
        let checksum = if self.offload { RxChecksum::Good } else { RxChecksum::Unknown };
        let frame = RxFrame {
            mbuf,
            offset: 12,
            len: len as u16,
            checksum,
            hash: None,
            rest: Rest::NONE,
            merged: 0,
        };
        self.machine.rx[0].ready.push_back(frame);
    }

    fn arp_answer(&mut self) {
        let mut mbuf = self.machine.rx[0].posted.pop().expect("a posted buffer");
        let f = &mut self.area.data_mut(&mut mbuf)[12..54];
        f[0..12].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
        f[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
        f[22..32].copy_from_slice(&[2, 0, 0, 0, 0, 2, 10, 0, 0, 254]);
        f[32..42].copy_from_slice(&[2, 0, 0, 0, 0, 1, 10, 0, 0, 1]);
        let (checksum, hash) = (RxChecksum::Unknown, None);
        let frame =
            RxFrame { mbuf, offset: 12, len: 42, checksum, hash, rest: Rest::NONE, merged: 0 };
        self.machine.rx[0].ready.push_back(frame);
    }

    fn turn(&mut self) {
        // Short, since a client acknowledges an answer only with its next request.
        self.machine.now.0 += 500;
        measured(&mut self.engine, &mut self.machine);
    }

    fn sent(&self, back: usize) -> Vec<u8> {
        let frame = &self.machine.tx.sent[(self.machine.tx.count - back) % 128];
        let mut bytes = Vec::new();
        for fragment in &frame.fragments {
            let (at, len) = (fragment.bus.0 as *const u8, fragment.len as usize);
            // SAFETY: the engine gave the fragment; its memory is leaked.
            bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(at, len) });
        }
        bytes
    }
}

fn build(connections: usize, offload: bool) -> Bench {
    let buffers = 4096 + connections as u32;
    let data = leak(buffers as usize * MBUF_BYTES, 4096);
    let bus = BusAddr(data.as_ptr() as u64);
    let area: &'static Area =
        // SAFETY: `data` is leaked, of that size, and the area's alone.
        Box::leak(Box::new(unsafe { Area::new(data, bus, RX_BASE, 1, buffers) }));
    let capabilities = Capabilities {
        tx_checksum: offload,
        rx_checksum: offload,
        rss: false,
        hash_report: false,
        queue_pairs: 1,
        groups: 128,
        mtu: 1500,
        tso: 0,
        gso_pseudo: Pseudo::WithLength,
    };
    let gateway = Some([10, 0, 0, 254]);
    let address = Ipv4Config { address: US, prefix: 24, gateway };
    let core = CoreId(0);
    let mut config =
        Config::new(core, 1, [2, 0, 0, 0, 0, 1], capabilities, Addressing::Static(address));
    config.connections_per_group = (connections as u32 / 64).max(4096);
    config.rss_key = std::array::from_fn(|i| (i as u8).wrapping_mul(37) ^ 0x5a);
    let headers = leak(TX_HEADER_REGION_BYTES, 4096);
    let bus = BusAddr(headers.as_ptr() as u64);
    let headers = DmaRegion { ptr: headers, bus, len: TX_HEADER_REGION_BYTES };
    let mesh = ix_dataplane::mesh::build(1, ix_dataplane::mesh::Sizes::default()).remove(0);
    let mut engine = Engine::new(config, Pool::new(area, core), mesh, &headers);
    let page = PAGE_BYTES as usize;
    let (events, calls) = (leak(page, page), leak(page, page));
    // SAFETY: both are leaked whole pages, aligned to their size.
    let rings = unsafe { AppRings::new(events, calls) };
    engine.attach_app(AppPort { context: 0, rings, memory: Arc::new(UserMap::new(1, 1)) });
    let machine = Machine {
        now: Instant(0),
        rx: [Rx { ready: VecDeque::with_capacity(256), posted: Vec::with_capacity(128) }],
        tx: Tx { sent: vec![TxFrame::default(); 128], count: 0, completed: 0 },
        events: events.as_ptr(),
        calls: calls.as_ptr(),
        read: 0,
        written: 0,
    };
    Bench { engine, machine, area, offload }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: usize| {
        args.get(at).map_or(default, |arg| arg.parse().expect("a number"))
    };
    let (connections, rpcs, batch) = (number(0, 1), number(1, 1000), number(2, 1));
    let offload = args.get(3).is_some_and(|arg| arg == "offload");
    let mut bench = build(connections, offload);
    bench.turn();
    if let Some(name) = args.get(3..).and_then(|rest| rest.iter().find(|arg| *arg != "offload")) {
        bench.engine.set_rules(rules::set(name, US)).expect("rules");
    }
    bench.turn();
    let mut clients: Vec<Client> = (0..connections as u32)
        .map(|i| {
            let [_, _, high, low] = (i / 20_000).to_be_bytes();
            Client { ip: [172, 16, high, low], port: 1024 + (i % 20_000) as u16, seq: i, ack: 0 }
        })
        .collect();
    for (i, client) in clients.iter_mut().enumerate() {
        bench.frame(client, 0x02, 0);
        bench.turn();
        if i == 0 {
            bench.turn();
            bench.arp_answer();
            bench.turn();
            bench.turn();
        }
        let answer = bench.sent(1);
        assert_eq!(answer[47], 0x12, "SYN-ACK");
        client.seq += 1;
        client.ack = u32::from_be_bytes(answer[38..42].try_into().unwrap()) + 1;
        bench.frame(client, 0x10, 0);
        bench.turn();
        bench.turn();
    }
    let mut rng = Rng::from_seed(1);
    let started = std::time::Instant::now();
    let mut done = 0;
    while done < rpcs {
        let mut chosen = Vec::with_capacity(batch);
        while chosen.len() < batch.min(connections) {
            let i = rng.below(connections as u64) as usize;
            if !chosen.contains(&i) {
                chosen.push(i);
            }
        }
        for i in &chosen {
            let client = clients[*i];
            bench.frame(&client, 0x18, MESSAGE);
            clients[*i].seq = client.seq.wrapping_add(MESSAGE as u32);
            clients[*i].ack = client.ack.wrapping_add(MESSAGE as u32);
        }
        let before = bench.machine.tx.count;
        bench.turn();
        let sent = bench.machine.tx.count - before;
        assert_eq!(sent, chosen.len(), "one frame for each request");
        if done == 0 {
            let answer = bench.sent(1);
            assert_eq!(answer.len(), 54 + MESSAGE);
            let pseudo = checksum::pseudo_v4(US, answer[30..34].try_into().unwrap(), 6, 84);
            let sum = checksum::add(pseudo, checksum::sum(&answer[34..]));
            assert!(offload || checksum::is_good(sum));
        }
        done += chosen.len();
    }
    let nanoseconds = started.elapsed().as_nanos() as f64 / done as f64;
    println!("{connections} connections, batch {batch}: {done} RPCs, {nanoseconds:.0} ns each");
}

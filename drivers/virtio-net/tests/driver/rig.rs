//! An open port over a fake device, with buffers and counts to check conservation by.
#![allow(dead_code, reason = "each user takes a part")]

use crate::fake::memory::{Buffers, FakeDma, Memory};
use crate::fake::{Fake, FakeMmio, Model};
use ix_abi::CoreId;
use ix_dataplane::device::{BusAddr, Fragment, NicRx, RxBatch, RxFrame, RxQueue, TxFrame};
use ix_dataplane::mbuf::Pool;
use ix_dataplane::time::Instant;
use ix_virtio_net::{Config, Features, InitError, Port, VirtioRx, VirtioTx};
use std::cell::Cell;
use std::sync::Arc;

pub const KEY: [u8; 40] = {
    let mut key = [0; 40];
    let mut i = 0;
    while i < 40 {
        key[i] = (i * 37 + 11) as u8;
        i += 1;
    }
    key
};

/// A millisecond passes with each look.
pub fn ticking() -> impl Fn() -> Instant {
    let now = Cell::new(0);
    move || {
        now.set(now.get() + 1_000_000);
        Instant(now.get())
    }
}

pub fn config<'a>(buffers: &Buffers, clock: &'a dyn Fn() -> Instant) -> Config<'a> {
    Config {
        area: buffers.area,
        queue_pairs: 4,
        rx_ring: 256,
        tx_ring: 256,
        rss_key: KEY,
        first_vector: Some(1),
        fallback_mac: [2, 0, 0, 0, 0, 1],
        mtu: None,
        decline: Features::empty(),
        clock,
    }
}

pub fn open(
    fake: &Fake,
    memory: &Arc<Memory>,
    config: &Config<'_>,
) -> Result<Port<FakeMmio>, InitError> {
    let mut dma = FakeDma { memory: memory.clone(), allocations_left: usize::MAX };
    Port::open(fake.transport(), &mut dma, config)
}

pub struct Rig {
    pub buffers: Buffers,
    pub fake: Fake,
    pub port: Port<FakeMmio>,
    pub pool: Pool,
}

impl Rig {
    pub fn new(model: Model, adjust: impl FnOnce(&mut Config<'_>)) -> Rig {
        let buffers = Buffers::new(1, 1024);
        let fake = Fake::new(buffers.memory.clone(), model);
        let clock = ticking();
        let mut config = config(&buffers, &clock);
        adjust(&mut config);
        let port = open(&fake, &buffers.memory, &config).expect("the port opens");
        let pool = Pool::new(buffers.area, CoreId(0));
        Rig { buffers, fake, port, pool }
    }

    /// With all that a device can offer but the features named.
    pub fn without(features: Features) -> Rig {
        Rig::new(Model::default(), |config| config.decline = features)
    }

    pub fn rx(&mut self) -> &mut VirtioRx<FakeMmio> {
        &mut self.port.rx[0]
    }

    pub fn tx(&mut self) -> &mut VirtioTx<FakeMmio> {
        &mut self.port.tx[0]
    }

    pub fn replenish(&mut self) {
        self.port.rx[0].replenish(&mut self.pool);
    }

    /// Polls queue 0: the frames, and their bytes.
    pub fn poll(&mut self) -> Vec<(RxFrame, Vec<u8>)> {
        let mut batch = RxBatch::new();
        let count = self.port.rx[0].poll(64, &mut batch);
        assert_eq!(count, batch.len());
        let area = self.buffers.area;
        let bytes = |f: &RxFrame| {
            let start = usize::from(f.offset);
            let mut bytes = area.data(&f.mbuf)[start..start + usize::from(f.len)].to_vec();
            f.rest.pieces(area).for_each(|piece| bytes.extend(piece));
            bytes
        };
        batch.into_iter().map(|f| (bytes(&f), f)).map(|(b, f)| (f, b)).collect()
    }

    pub fn free(&mut self, frames: Vec<(RxFrame, Vec<u8>)>) {
        for (frame, _) in frames {
            self.pool.free(frame.mbuf);
            frame.rest.free(&mut self.pool);
        }
    }

    /// Asserts that every buffer is in the pool or in a queue, `held` by the test apart.
    pub fn assert_conserved(&self, held: usize) {
        let in_queues: usize = self.port.rx.iter().map(VirtioRx::held).sum();
        assert_eq!(self.pool.available() + in_queues + held, self.pool.capacity());
    }

    /// A frame in DMA memory, in as many pieces as there are lengths.
    pub fn frame(&self, pieces: &[usize]) -> (TxFrame, Vec<u8>) {
        frame(&self.buffers.memory, pieces)
    }
}

pub fn frame(memory: &Arc<Memory>, pieces: &[usize]) -> (TxFrame, Vec<u8>) {
    use ix_dataplane::device::Dma;
    let mut dma = FakeDma { memory: memory.clone(), allocations_left: usize::MAX };
    let mut frame = TxFrame::default();
    let mut all = Vec::new();
    for (number, len) in pieces.iter().enumerate() {
        let region = dma.alloc(*len, 1).unwrap();
        let bytes: Vec<u8> = (0..*len).map(|i| (i * 7 + number * 31) as u8).collect();
        memory.write(region.bus.0, &bytes);
        frame.fragments.push(Fragment { bus: BusAddr(region.bus.0), len: *len as u32 });
        all.extend(bytes);
    }
    (frame, all)
}

/// An Ethernet frame with TCP over IPv4 and right IPv4 header checksum.
pub fn tcp_frame(source: [u8; 4], port: u16, len: usize) -> Vec<u8> {
    let mut f = vec![0; len.max(54)];
    f[..12].copy_from_slice(&[0x52, 0x54, 0, 0x12, 0x34, 0x56, 2, 2, 2, 2, 2, 2]);
    f[12..14].copy_from_slice(&[0x08, 0x00]);
    f[14] = 0x45;
    f[16..18].copy_from_slice(&((len.max(54) - 14) as u16).to_be_bytes());
    f[22] = 64;
    f[23] = 6;
    f[26..30].copy_from_slice(&source);
    f[30..34].copy_from_slice(&[10, 0, 2, 15]);
    f[34..36].copy_from_slice(&port.to_be_bytes());
    f[36..38].copy_from_slice(&11211_u16.to_be_bytes());
    let sum = f[14..34].chunks(2).fold(0, |s, w| s + u32::from(w[0]) * 256 + u32::from(w[1]));
    let sum = (sum & 0xffff) + (sum >> 16);
    f[24..26].copy_from_slice(&(!sum as u16).to_be_bytes());
    f
}

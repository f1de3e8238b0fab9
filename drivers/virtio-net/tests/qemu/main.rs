//! The driver against QEMU's own virtio-net: no guest runs, the test reaches the device's registers
//! through QEMU's qtest protocol and shares its memory through a file. So the witness was written by
//! others. Prints SKIPPED where QEMU, or for the multi-queue test root and a TAP device, is missing.
#![deny(unsafe_code)]

mod machine;
#[path = "../driver/fake/toeplitz.rs"]
mod toeplitz;

use ix_abi::CoreId;
use ix_dataplane::device::{
    BusAddr, Dma, Fragment, NicControl, RxBatch, RxChecksum, RxQueue, TxChecksum, TxFrame, TxQueue,
};
use ix_dataplane::mbuf::{Area, Pool};
use ix_virtio_net::{Config, Features, Port, Progress};
use machine::{Machine, Registers};
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const KEY: [u8; 40] = {
    let mut key = [0; 40];
    let mut i = 0;
    while i < 40 {
        key[i] = (i * 37 + 11) as u8;
        i += 1;
    }
    key
};

fn open(machine: &mut Machine, pairs: u16, decline: Features) -> (Port<Registers>, Pool) {
    let area: &'static Area = machine.area(1024);
    let start = Instant::now();
    let clock = move || ix_dataplane::time::Instant(start.elapsed().as_nanos() as u64);
    let config = Config {
        area,
        queue_pairs: pairs,
        rx_ring: 256,
        tx_ring: 256,
        rss_key: KEY,
        first_vector: Some(1),
        fallback_mac: [2, 0, 0, 0, 0, 1],
        mtu: None,
        decline,
        clock: &clock,
    };
    let transport = machine.transport();
    let port = Port::open(transport, machine, &config).unwrap_or_else(|e| panic!("{e}"));
    (port, Pool::new(area, CoreId(0)))
}

/// Polls all queues until `count` frames are there: queue, checksum, hash and bytes of each.
fn receive(
    port: &mut Port<Registers>,
    pool: &mut Pool,
    count: usize,
    mut wanted: impl FnMut(&[u8]) -> bool,
) -> Vec<(usize, RxChecksum, Option<u32>, Vec<u8>)> {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut got = Vec::new();
    while got.len() < count {
        assert!(Instant::now() < deadline, "{} of {count} frames came", got.len());
        for (number, queue) in port.rx.iter_mut().enumerate() {
            let mut batch = RxBatch::new();
            queue.poll(64, &mut batch);
            for frame in batch {
                let start = usize::from(frame.offset);
                let bytes = &pool.area().data(&frame.mbuf)[start..start + usize::from(frame.len)];
                if wanted(bytes) {
                    got.push((number, frame.checksum, frame.hash, bytes.to_vec()));
                }
                pool.free(frame.mbuf);
            }
            queue.replenish(pool);
        }
    }
    got
}

fn in_pieces(machine: &mut Machine, bytes: &[u8], pieces: usize) -> TxFrame {
    let mut frame = TxFrame::default();
    for piece in bytes.chunks(bytes.len().div_ceil(pieces)) {
        let region = machine.alloc(piece.len(), 8).unwrap();
        machine.write(region.bus.0, piece);
        frame.fragments.push(Fragment { bus: BusAddr(region.bus.0), len: piece.len() as u32 });
    }
    frame
}

fn reclaim(port: &mut Port<Registers>, count: u32) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut done = 0;
    while done < count {
        assert!(Instant::now() < deadline, "{done} of {count} frames were completed");
        done += port.tx[0].reclaim();
    }
    assert_eq!(done, count);
}

fn pattern(number: usize, len: usize) -> Vec<u8> {
    let mut frame: Vec<u8> = (0..len).map(|i| (i * 13 + number * 7) as u8).collect();
    frame[..6].copy_from_slice(&machine::MAC);
    frame
}

fn sends_and_receives(decline: Features) {
    let folder = machine::folder();
    let (here, there) = (folder.join("here"), folder.join("there"));
    let peer = UnixDatagram::bind(&here).unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let net = format!(
        "dgram,id=n0,local.type=unix,local.path={},remote.type=unix,remote.path={}",
        there.display(),
        here.display()
    );
    let Some(mut machine) = Machine::start(&folder, &net, "mq=on,rss=on,hash=on") else { return };
    let (mut port, mut pool) = open(&mut machine, 4, decline);
    assert_eq!(port.mac, machine::MAC);
    assert_eq!((port.capabilities.queue_pairs, port.rx.len()), (1, 1));
    assert!(port.control.read_link_up() && !port.control.read_needs_reset());
    port.rx[0].replenish(&mut pool);

    for round in 0..40 {
        let sent: Vec<_> = (0..16).map(|n| pattern(n, 60 + 37 * n + round * 20)).collect();
        for frame in &sent {
            peer.send_to(frame, &there).unwrap();
        }
        let got = receive(&mut port, &mut pool, 16, |_| true);
        assert_eq!(got.into_iter().map(|g| g.3).collect::<Vec<_>>(), sent);
    }

    let mut buffer = [0; 4096];
    for round in 0..40 {
        let sent: Vec<_> = (0..18).map(|n| pattern(n, 60 + 31 * n + round * 20)).collect();
        for (n, bytes) in sent.iter().enumerate() {
            let frame = in_pieces(&mut machine, bytes, n + 1);
            port.tx[0].push(&frame).expect("there is room");
        }
        port.tx[0].kick();
        for bytes in &sent {
            let len = peer.recv(&mut buffer).expect("QEMU sends it");
            assert_eq!(&buffer[..len], bytes);
        }
        reclaim(&mut port, 18);
    }
    assert_eq!(port.rx[0].device_errors() + port.tx[0].device_errors(), 0);
    end(port, pool);
}

/// Resets the device and checks that all buffers come back.
fn end(mut port: Port<Registers>, mut pool: Pool) {
    let start = Instant::now();
    let clock = move || ix_dataplane::time::Instant(start.elapsed().as_nanos() as u64);
    let stopped = port.control.reset(&clock).expect("it resets");
    for queue in port.rx {
        queue.release(&stopped, &mut pool);
    }
    assert_eq!(pool.available(), pool.capacity());
}

#[test]
fn qemus_device_sends_and_receives_with_indirect_descriptors() {
    sends_and_receives(Features::empty());
}

#[test]
fn qemus_device_sends_and_receives_with_descriptor_chains() {
    sends_and_receives(Features::INDIRECT_DESC);
}

fn ip(arguments: &[&str]) -> bool {
    Command::new("ip").args(arguments).stdout(Stdio::null()).status().is_ok_and(|s| s.success())
}

/// An Ethernet frame with UDP over IPv4, the checksum field holding the pseudo-header sum.
fn udp(from: ([u8; 4], u16), to: ([u8; 4], u16), to_mac: [u8; 6], payload: &[u8]) -> Vec<u8> {
    let sum = |bytes: &[u8]| {
        let words = bytes.chunks(2);
        let sum =
            words.fold(0, |s, w| s + u32::from(w[0]) * 256 + w.get(1).map_or(0, |b| u32::from(*b)));
        let sum = (sum & 0xffff) + (sum >> 16);
        (sum + (sum >> 16)) as u16
    };
    let len = (8 + payload.len()) as u16;
    let mut f = [&to_mac[..], &machine::MAC, &[8, 0, 0x45, 0]].concat();
    f.extend((20 + len).to_be_bytes());
    f.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    f.extend([from.0, to.0].concat());
    let header = sum(&f[14..34]);
    f[24..26].copy_from_slice(&(!header).to_be_bytes());
    f.extend([from.1.to_be_bytes(), to.1.to_be_bytes(), len.to_be_bytes()].concat());
    let pseudo = [&f[26..34], &[0, 17], &len.to_be_bytes()].concat();
    f.extend(sum(&pseudo).to_be_bytes());
    f.extend(payload);
    f
}

/// The host's own UDP over a TAP device: partial checksums, RSS, hash report, table changes.
/// Sockets whose ports differ in bits 1 to 6 only: with this key they have 64 groups, a quarter of them for each queue.
fn sockets_in_a_row(host: &str) -> Vec<UdpSocket> {
    let row = |first: u16| (0..64).map(|n| UdpSocket::bind((host, first + 2 * n)).ok()).collect();
    (10_240..31_744).step_by(128).find_map(row).expect("64 free ports in a row")
}

#[test]
fn qemus_four_queues_spread_linux_udp_by_the_table_and_report_its_hash() {
    let folder = machine::folder();
    let tap = format!("ixv{}", std::process::id() % 1_000_000);
    let net = format!("tap,id=n0,ifname={tap},script=no,downscript=no,vhost=off,queues=4");
    if !std::path::Path::new("/dev/net/tun").exists() || !ip(&["link", "show", "lo"]) {
        machine::skip("no /dev/net/tun, or no ip command");
        return;
    }
    let options = "mq=on,rss=on,hash=on,vectors=10";
    let Some(mut machine) = Machine::start(&folder, &net, options) else { return };
    if !machine.alive() {
        machine::skip("QEMU cannot open a TAP device here (needs root)");
        return;
    }
    let host = [198, 18, (std::process::id() >> 6) as u8, (std::process::id() << 2) as u8 | 1];
    let guest = [host[0], host[1], host[2], host[3] + 1];
    let text = |a: [u8; 4]| std::net::Ipv4Addr::from(a).to_string();
    let mac = "52:54:00:12:34:56";
    assert!(ip(&["addr", "add", &format!("{}/30", text(host)), "dev", &tap]));
    assert!(ip(&["link", "set", &tap, "up"]));
    assert!(ip(&["neigh", "add", &text(guest), "lladdr", mac, "dev", &tap]));

    let (mut port, mut pool) = open(&mut machine, 4, Features::empty());
    println!("{:?}, {:?}", port.capabilities, port.control.features());
    assert!(port.capabilities.rss && port.capabilities.tx_checksum);
    assert_eq!(port.capabilities.queue_pairs, 4);
    port.rx.iter_mut().for_each(|queue| queue.replenish(&mut pool));
    let is_ours = |f: &[u8]| f.len() > 42 && f[12..14] == [8, 0] && f[23] == 17 && f[42] == 0xa5;

    let sockets = sockets_in_a_row(&text(host));
    let mut queues = [0; 4];
    for (n, socket) in sockets.iter().enumerate() {
        socket.send_to(&[0xa5, n as u8, 1, 2, 3], (text(guest), 4242)).unwrap();
        let (queue, checksum, hash, bytes) =
            receive(&mut port, &mut pool, 1, is_ours).pop().unwrap();
        assert_eq!(bytes[43], n as u8);
        assert_eq!(checksum, RxChecksum::Good, "Linux leaves the checksum partial");
        let expected = toeplitz::hash(&KEY, &toeplitz::input(&bytes).unwrap().1);
        if port.capabilities.hash_report {
            assert_eq!(hash, Some(expected));
        }
        assert_eq!(usize::from(port.control.reta()[expected as usize % 128]), queue);
        queues[queue] += 1;

        // Move the flow's group and see it follow.
        let (entry, target) = ((expected % 128) as u16, (queue as u16 + 1) % 4);
        port.control.set_reta(entry, target).unwrap();
        let now = ix_dataplane::time::Instant;
        port.control.commit(now(0)).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while port.control.poll(now(1)) != Progress::Done {
            assert!(Instant::now() < deadline, "no answer to the command");
        }
        socket.send_to(&[0xa5, n as u8, 9], (text(guest), 4242)).unwrap();
        let moved = receive(&mut port, &mut pool, 1, is_ours).pop().unwrap();
        assert_eq!((moved.0, moved.3[44]), (usize::from(target), 9));
    }
    println!("frames by queue before the moves: {queues:?}");
    // Each moves its own group only, and has it alone.
    assert_eq!(queues, [16; 4]);

    // The other way, the device completing the checksum.
    let tap_mac = std::fs::read_to_string(format!("/sys/class/net/{tap}/address")).unwrap();
    let tap_mac: Vec<u8> =
        tap_mac.trim().split(':').map(|b| u8::from_str_radix(b, 16).unwrap()).collect();
    let socket = &sockets[0];
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let to = (host, socket.local_addr().unwrap().port());
    let bytes = udp((guest, 4242), to, tap_mac.try_into().unwrap(), b"from the guest");
    let mut frame = in_pieces(&mut machine, &bytes, 2);
    frame.checksum = Some(TxChecksum { start: 34, offset: 6 });
    port.tx[0].push(&frame).unwrap();
    port.tx[0].kick();
    let mut buffer = [0; 100];
    let (len, from) = socket.recv_from(&mut buffer).expect("Linux takes it");
    assert_eq!((&buffer[..len], from.port()), (&b"from the guest"[..], 4242));
    reclaim(&mut port, 1);
    let errors: u64 = port.rx.iter().map(RxQueue::device_errors).sum();
    assert_eq!(errors, 0);
    end(port, pool);
}

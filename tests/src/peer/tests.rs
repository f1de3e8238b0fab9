//! The peer against another one, over a socket pair: what it says of a guest must be worth something.
use super::*;

const PATIENCE: Duration = Duration::from_secs(20);
const OTHER: Ipv4Address = Ipv4Address::new(10, 0, 2, 15);

/// Runs `other` on a host at the far end, until the near one hangs up.
fn link(faults: Faults, other: impl FnOnce(Host) + Send + 'static) -> Host {
    let (near, far) = UnixStream::pair().unwrap();
    std::thread::spawn(move || other(Host::with_address(far, Faults::NONE, OTHER, 1)));
    Host::new(near, faults)
}

/// Accepts one connection and echoes until its end.
fn echo(mut host: Host) {
    let conn = host.accept(7, PATIENCE).unwrap();
    let mut buffer = vec![0; 65_536];
    loop {
        host.poll();
        let room = host.tcp(conn).send_capacity() - host.tcp(conn).send_queue();
        let room = room.min(buffer.len());
        match host.try_recv(conn, &mut buffer[..room]) {
            Ok(Some(n)) => assert_eq!(host.try_send(conn, &buffer[..n]), Ok(n)),
            Ok(None) => break,
            Err(_) => return,
        }
    }
    let _ = host.close(conn, PATIENCE);
    host.run(Duration::from_secs(1));
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i ^ (i >> 8) ^ (i >> 16)) as u8).collect()
}

#[test]
fn hosts_ping_each_other_and_silence_is_an_error() {
    let mut host = link(Faults::NONE, |mut other| other.run(Duration::from_secs(3)));
    host.ping(OTHER, &pattern(1000), PATIENCE).unwrap();
    let nobody = Ipv4Address::new(10, 0, 2, 99);
    let error = host.ping(nobody, b"x", Duration::from_millis(100)).unwrap_err();
    assert!(error.contains("not within"), "{error}");
}

#[test]
fn a_stream_comes_back_byte_for_byte() {
    let mut host = link(Faults::NONE, echo);
    let conn = host.connect(OTHER, 7, PATIENCE).unwrap();
    let data = pattern(2_000_000);
    assert!(host.exchange(conn, &data, PATIENCE).unwrap() == data);
    host.close(conn, PATIENCE).unwrap();
}

#[test]
fn a_stream_comes_back_through_a_bad_network_too() {
    let faults = Faults { seed: 3, loss: 10, duplication: 10, reordering: 20 };
    let mut host = link(faults, echo);
    let conn = host.connect(OTHER, 7, PATIENCE).unwrap();
    let data = pattern(200_000);
    assert!(host.exchange(conn, &data, Duration::from_secs(60)).unwrap() == data);
    let counts = host.faults();
    assert!(counts.lost > 0 && counts.doubled > 0 && counts.delayed > 0, "{counts:?}");
}

#[test]
fn a_port_where_nobody_listens_refuses() {
    let mut host = link(Faults::NONE, |mut other| other.run(Duration::from_secs(3)));
    let error = host.connect(OTHER, 9, PATIENCE).unwrap_err();
    assert!(error.contains("refused"), "{error}");
}

#[test]
fn datagrams_come_back() {
    let mut host = link(Faults::NONE, |mut other| {
        let socket = other.udp(7);
        while let Ok((data, from)) = other.udp_recv(socket, PATIENCE) {
            let IpAddress::Ipv4(ip) = from.addr else { return };
            other.udp_send(socket, ip, from.port, &data).unwrap();
        }
    });
    let socket = host.udp(5000);
    for len in [0, 1, 1472] {
        host.udp_send(socket, OTHER, 7, &pattern(len)).unwrap();
        let (data, from) = host.udp_recv(socket, PATIENCE).unwrap();
        assert_eq!((data, from.port), (pattern(len), 7));
    }
}

#[test]
fn the_other_side_hanging_up_ends_every_wait() {
    let mut host = link(Faults::NONE, drop);
    let error = host.connect(OTHER, 7, PATIENCE).unwrap_err();
    assert!(error.contains("gone"), "{error}");
}

#[test]
fn a_capture_has_the_format_that_other_tools_read() {
    let mut capture = pcap::Capture::default();
    capture.record(Duration::new(3, 5), &[0xaa; 300]);
    let bytes = capture.to_bytes();
    assert_eq!(&bytes[..4], [0x4d, 0x3c, 0xb2, 0xa1]);
    assert_eq!(bytes.len(), 24 + 16 + 256);
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!((word(24), word(28), word(32), word(36)), (3, 5, 256, 300));
}

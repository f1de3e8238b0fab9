use super::*;
use std::io::{Read, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use temp_dir::TempDir;

fn plugged(dir: &TempDir) -> (Wire, UnixStream) {
    let path = dir.child("wire");
    let wire = Wire::open(&Place::Listen(path.clone())).unwrap();
    let peer = UnixStream::connect(path).unwrap();
    (wire, peer)
}

fn framed(frame: &[u8]) -> Vec<u8> {
    [&(frame.len() as u32).to_be_bytes()[..], frame].concat()
}

#[test]
fn places_are_read_or_refused() {
    let place = |text: &str| text.parse::<Place>();
    assert_eq!(place("none"), Ok(Place::Nowhere));
    assert_eq!(place("stream=/a=b"), Ok(Place::Connect("/a=b".into())));
    assert_eq!(place("dgram=/a,/b"), Ok(Place::Datagram("/a".into(), "/b".into())));
    for wrong in ["", "stream=", "dgram=/a", "tap=", "tap=0123456789abcdef", "user"] {
        assert!(place(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn frames_come_and_go_however_the_stream_is_cut() {
    let dir = TempDir::new().unwrap();
    let (mut wire, mut peer) = plugged(&dir);
    let mut buffer = vec![0xff; BUFFER_BYTES];
    assert_eq!(wire.receive(&mut buffer), None);
    let long: Vec<u8> = (0..FRAME_BYTES_MAX).map(|i| i as u8).collect();
    let bytes = [framed(&[7; 20]), framed(&long), framed(&[]), framed(&[9; 60])].concat();
    let mut lengths = Vec::new();
    for piece in bytes.chunks(1000) {
        peer.write_all(piece).unwrap();
        while let Some(len) = wire.receive(&mut buffer) {
            if len == FRAME_BYTES_MAX {
                assert_eq!(buffer[..len], long);
            }
            lengths.push(len);
        }
    }
    // The first one was padded.
    assert_eq!(lengths, [60, FRAME_BYTES_MAX, 60]);
    assert_eq!((wire.counts.received, wire.counts.odd), (3, 1));
    wire.transmit(&[5; 64]);
    wire.flush();
    let mut out = [0; 68];
    peer.read_exact(&mut out).unwrap();
    assert_eq!(out.to_vec(), framed(&[5; 64]));
}

#[test]
fn a_peer_that_does_not_read_costs_frames_and_never_time() {
    let dir = TempDir::new().unwrap();
    let (mut wire, mut peer) = plugged(&dir);
    assert_eq!(wire.receive(&mut vec![0; BUFFER_BYTES]), None);
    let frame = [1; 1500];
    for _ in 0..10_000 {
        wire.transmit(&frame);
        wire.flush();
    }
    assert!(wire.counts.full > 0 && wire.is_behind(), "{:?}", wire.counts);
    // What was not dropped arrives whole.
    let sent = wire.counts.sent;
    let reader = std::thread::spawn(move || {
        let mut one = [0; 1504];
        for _ in 0..sent {
            peer.read_exact(&mut one).unwrap();
            assert_eq!(one.to_vec(), framed(&frame));
        }
    });
    while wire.is_behind() {
        wire.flush();
        std::thread::yield_now();
    }
    reader.join().unwrap();
}

#[test]
fn a_peer_that_announces_an_impossible_length_is_given_up_and_another_may_come() {
    let dir = TempDir::new().unwrap();
    let (mut wire, mut peer) = plugged(&dir);
    let mut buffer = vec![0; BUFFER_BYTES];
    for length in [u32::MAX, BUFFER_BYTES as u32] {
        peer.write_all(&length.to_be_bytes()).unwrap();
        peer.write_all(&[0; 100]).unwrap();
        assert_eq!(wire.receive(&mut buffer), None);
        wire.transmit(&[0; 60]);
        assert_eq!(peer.read(&mut [0; 1]).ok().filter(|n| *n > 0), None);
        peer = UnixStream::connect(dir.child("wire")).unwrap();
    }
    assert_eq!(wire.counts.nobody, 2);
    peer.write_all(&framed(&[3; 64])).unwrap();
    assert_eq!(wire.receive(&mut buffer), Some(64));
}

#[test]
fn datagrams_are_frames() {
    let dir = TempDir::new().unwrap();
    let (ours, theirs) = (dir.child("ours"), dir.child("theirs"));
    let mut wire = Wire::open(&Place::Datagram(ours.clone(), theirs.clone())).unwrap();
    wire.transmit(&[1; 60]);
    let peer = UnixDatagram::bind(theirs).unwrap();
    wire.transmit(&[2; 61]);
    let mut buffer = vec![0; BUFFER_BYTES];
    assert_eq!(peer.recv(&mut buffer).unwrap(), 61);
    peer.send_to(&vec![3; FRAME_BYTES_MAX + 1], &ours).unwrap();
    peer.send_to(&[3; 10], &ours).unwrap();
    assert_eq!(wire.receive(&mut buffer), Some(60));
    assert_eq!((wire.counts.nobody, wire.counts.sent, wire.counts.odd), (1, 1, 1));
}

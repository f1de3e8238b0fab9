//! Frames that nobody should send.
use super::*;

/// What some router, neighbour or madman may send: mostly right, then changed here and there.
fn noise(rng: &mut Rng) -> Vec<u8> {
    const FROM: [&str; 6] = [PEER, "fe80::3", "::", "2001:db8::7", OWN, GLOBAL];
    const TO: [&str; 6] = [OWN, GLOBAL, ALL_NODES, "ff02::1:ff00:1", "ff02::2", PEER];
    let any = |rng: &mut Rng, of: &[&str]| ip(of[rng.below(of.len() as u64) as usize]);
    let (from, to) = (any(rng, &FROM), any(rng, &TO));
    let target = [OWN, GLOBAL, PEER][rng.below(3) as usize];
    let lifetimes = [0, 1, 60, 7200, 100_000, u32::MAX];
    let life = |rng: &mut Rng| lifetimes[rng.below(6) as usize];
    let (protocol, mut payload) = match rng.below(8) {
        0 => (58, advert(life(rng) as u16, life(rng), life(rng))),
        1 => (58, solicitation(target, rng.chance(1, 2))),
        2 => (58, advertisement(target, rng.next_u32() as u8, rng.below(4) as u8)),
        3 => (58, echo_request(&[7; 100])),
        4 => {
            let quote = wire6::packet(MACS, (&to, &from), 64, 6, &[0, 7, 0x0f, 0xa0, 0, 0, 0, 1]);
            let kind = rng.below(6) as u8;
            (58, [&[kind, 4, 0, 0, 0, 0, rng.next_u32() as u8, 0][..], &quote[14..]].concat())
        }
        5 => (17, vec![0x30, 0, 0, 9, 0, 12, 0, 0, 1, 2, 3, 4]),
        6 => (6, tcp(OWN, 4000, rng.below(64) as u8, 1000, rng.next_u32())[54..].to_vec()),
        _ => (rng.next_u32() as u8, (0..rng.below(100)).map(|i| i as u8).collect()),
    };
    let at = match protocol {
        58 => 2,
        17 => 6,
        6 => 16,
        _ => payload.len(),
    };
    if at + 2 <= payload.len() {
        payload = summed((&from, &to), protocol, at, &payload);
    }
    let (mut first, mut body) = (protocol, payload);
    for _ in 0..rng.below(4) {
        let number = [0, 43, 44, 60][rng.below(4) as usize];
        let words = if number == 44 { 1 } else { 1 + rng.below(3) as usize };
        let mut header = vec![0; words * 8];
        if rng.chance(1, 4) {
            rng.fill(&mut header);
        }
        (header[0], header[1]) = (first, words as u8 - 1);
        body = [header, body].concat();
        first = number;
    }
    let hops = if rng.chance(7, 8) { 255 } else { 64 };
    let mut frame = wire6::packet(MACS, (&from, &to), hops, first, &body);
    if rng.chance(1, 3) {
        let at = rng.below(frame.len() as u64) as usize;
        frame[at] ^= 1 << rng.below(8);
    }
    if rng.chance(1, 20) {
        frame.truncate(rng.below(frame.len() as u64) as usize);
    }
    frame
}

#[test]
fn random_frames_neither_panic_nor_leak_nor_take_the_station_off_the_link() {
    for seed in 0..4 {
        let mut talk = routed();
        assert_eq!(listen(&mut talk, IpAddress::UNSPECIFIED), Status::Ok);
        let mut rng = Rng::from_seed(seed);
        for round in 0..10_000u32 {
            let frame = noise(&mut rng);
            talk.give(frame);
            if round % 16 == 0 {
                talk.step();
                talk.others.clear();
                talk.events();
            }
            if round % 500 == 0 {
                talk.pass(Duration::from_s(rng.below(100)));
            }
        }
        talk.step();
        talk.station.assert_buffers_conserved();
        assert_eq!(addresses(&talk)[0], ip(OWN), "seed {seed}");
        talk.others.clear();
        talk.pass(Duration::from_s(1));
        let sent = say(&mut talk, PEER, OWN, 64, &echo_request(b"still there?"));
        assert!(sent.iter().any(|f| f[20] == 58 && f[54] == 129), "seed {seed}: {sent:02x?}");
        talk.station.engines[0].detach_app();
        talk.pass(Duration::from_s(300));
        talk.station.assert_all_quiet();
    }
}

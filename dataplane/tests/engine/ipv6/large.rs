//! What is larger than a packet: segments that the device cuts, fragments, paths that take less.
use super::*;
use ix_dataplane::device::Pseudo;

#[test]
fn the_device_cuts_segments_over_ipv6() {
    cuts_segments(Pseudo::WithLength);
    cuts_segments(Pseudo::WithoutLength);
}

fn cuts_segments(pseudo: Pseudo) {
    let mut talk = Talk::new(|setup| {
        (setup.offload, setup.tso, setup.gso_pseudo) = (true, 65_535, pseudo);
        setup.configure = |config| config.ipv6 = Mode::Auto(Identifiers::Eui64);
    });
    talk.pass(Duration::from_ms(2_500));
    say(&mut talk, PEER, "ff02::1:ff00:1", 255, &solicitation(OWN, true));
    assert_eq!(listen(&mut talk, IpAddress::UNSPECIFIED), Status::Ok);
    let (handle, _) = mss_of(&mut talk, 4000);
    talk.others.clear();
    let entry = SgEntry { addr: HEAP_BASE, len: 10_000 };
    talk.call(Call::sendv(handle, 1, entry, SgEntry::default()));
    let sent: Vec<_> =
        talk.others.iter().filter(|f| f[12..14] == [0x86, 0xdd] && f[20] == 6).collect();
    let sizes: Vec<_> = sent.iter().map(|f| f.len() - 74).collect();
    assert_eq!(sizes.iter().sum::<usize>(), 10_000);
    assert!(sizes[..sizes.len() - 1].iter().all(|size| *size == 1440), "{sizes:?}");
    for f in sent {
        let (from, to) = (f[22..38].try_into().unwrap(), f[38..54].try_into().unwrap());
        let pseudo = checksum::pseudo_v6(&from, &to, 6, (f.len() - 54) as u16);
        assert!(checksum::is_good(checksum::add(pseudo, checksum::sum(&f[54..]))));
    }
}

/// The frames of a packet of `protocol` cut after each of `cuts`.
fn cut(id: u32, protocol: u8, payload: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
    let ends = (&ip(PEER), &ip(OWN));
    let bounds: Vec<usize> = [&[0], cuts, &[payload.len()]].concat();
    let pieces = bounds.windows(2);
    pieces
        .map(|range| {
            let more = u16::from(range[1] != payload.len());
            let mut f = vec![protocol, 0];
            f.extend((range[0] as u16 | more).to_be_bytes());
            f.extend(id.to_be_bytes());
            f.extend(&payload[range[0]..range[1]]);
            wire6::packet(MACS, ends, 64, 44, &f)
        })
        .collect()
}

#[test]
fn fragments_are_put_together_in_any_order_and_overlapping_ones_never() {
    let mut talk = settled();
    let ping = summed((&ip(PEER), &ip(OWN)), 58, 2, &echo_request(&[7; 1500]));
    let frames = cut(1, 58, &ping, &[504, 1000]);
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let sent: Vec<_> =
            order.iter().flat_map(|at| hear(&mut talk, frames[*at].clone())).collect();
        let [answer] = &sent[..] else { panic!("{} frames", sent.len()) };
        assert_eq!(icmp(answer).2[4..], ping[4..]);
    }
    assert_eq!(talk.station.count(Counter::DatagramsReassembled), 3);
    // RFC 5722: not even what would be complete without the one that overlaps.
    let mut overlap = cut(2, 58, &ping, &[504, 1000]);
    overlap.insert(1, cut(2, 58, &ping, &[496, 1000]).remove(1));
    assert!(overlap.into_iter().all(|f| hear(&mut talk, f).is_empty()));
    assert!(talk.station.dropped(Reason::FragmentOverlap) >= 1);
    // Longer than a buffer; in two at once; never complete.
    let long = cut(3, 58, &[0; 4000], &[1400, 2800]);
    assert!(long.into_iter().all(|f| hear(&mut talk, f).is_empty()));
    let twice: Vec<u8> = cut(4, 58, &ping, &[504])[0][54..].to_vec();
    let outer = cut(5, 44, &twice, &[256]);
    assert!(outer.into_iter().all(|f| hear(&mut talk, f).is_empty()));
    assert_eq!(talk.station.dropped(Reason::IpFragment), 1);
    talk.pass(Duration::from_s(60));
    talk.station.assert_all_quiet();
}

#[test]
fn a_router_that_takes_less_is_believed_but_not_below_what_every_link_takes() {
    for (says, size) in [(1400, 1400 - 60), (1000, 1280 - 60)] {
        let mut talk = routed();
        assert_eq!(listen(&mut talk, IpAddress::UNSPECIFIED), Status::Ok);
        let (handle, una) = mss_of(&mut talk, 4000);
        let entry = SgEntry { addr: HEAP_BASE, len: 1440 };
        talk.others.clear();
        talk.call(Call::sendv(handle, 1, entry, SgEntry::default()));
        let sent = std::mem::take(&mut talk.others);
        let first = sent.iter().find(|f| f[20] == 6).expect("a segment");
        assert_eq!(first.len(), 14 + 1500);
        let mtu = u32::to_be_bytes(says);
        let error = [&[2, 0, 0, 0][..], &mtu, &first[14..14 + 1232]].concat();
        let sent = say(&mut talk, "2001:db8::99", OWN, 64, &error);
        let again: Vec<_> = sent.iter().filter(|f| f[20] == 6).map(|f| f.len() - 74).collect();
        assert_eq!(again, [size, 1440 - size], "a router says {says}");
        assert_eq!(talk.station.count(Counter::PathMtuLowered), 1);
        // About what is not in flight nobody is believed.
        let mut forged = error.clone();
        forged[8 + 40 + 4..8 + 40 + 8].copy_from_slice(&una.wrapping_sub(70_000).to_be_bytes());
        say(&mut talk, "2001:db8::99", OWN, 64, &forged);
        assert_eq!(talk.station.dropped(Reason::IcmpUnproven), 1);
    }
}

/// A connection of a peer that takes segments of 1440 bytes.
fn mss_of(talk: &mut Talk, port: u16) -> (Handle, u32) {
    let ends = (&ip(PEER), &ip(OWN));
    let mut t = tcp(OWN, port, SYN, 999, 0)[54..].to_vec();
    t[12] = 0x60;
    t.extend([2, 4, 0x05, 0xa0]);
    let sent = hear(talk, wire6::packet(MACS, ends, 64, 6, &summed(ends, 6, 16, &t)));
    let answer = sent.iter().find(|f| f[20] == 6).expect("an answer");
    let una = u32::from_be_bytes(answer[58..62].try_into().unwrap()) + 1;
    hear(talk, tcp(OWN, port, ACK, 1000, una));
    let events = talk.events();
    let [Condition::Knock { handle, .. }] = events[..] else { panic!("{events:?}") };
    talk.call(Call::accept(handle, Cookie(1)));
    talk.events();
    (handle, una)
}

use super::*;
use crate::ipv6::{ALL_NODES, ALL_ROUTERS};
use crate::nd::Message;
use crate::rng::Rng;
use alloc::vec;
use alloc::vec::Vec;
use core::net::Ipv6Addr;
use proptest::prelude::*;

const MAC: Mac = [2, 0, 0, 0, 0, 7];
const KEY: SipKey = SipKey([1, 2]);
const AUTO: Mode = Mode::Auto(Identifiers::Stable);

fn ip(text: &str) -> Address {
    text.parse::<Ipv6Addr>().unwrap().octets()
}

fn at(seconds: u64) -> Instant {
    Instant(seconds * 1_000_000_000)
}

fn client(mode: Mode) -> Client {
    Client::new(MAC, mode, 1500, KEY, Rng::from_seed(1), at(0))
}

/// What the client did until `end`, and when.
#[derive(Debug, PartialEq)]
enum Did {
    Report(Address),
    Probe(Address),
    Announce(Address),
    Ask(Address),
    Configure(Box<Ipv6Config>),
}

fn run(c: &mut Client, from: Instant, end: Instant) -> Vec<(Instant, Did)> {
    let (mut now, mut done) = (from, Vec::new());
    loop {
        while let Some(action) = c.poll(now) {
            done.push((now, understand(action)));
            assert!(done.len() < 200, "{done:?}");
        }
        assert!(c.next_deadline() > now);
        if c.next_deadline() > end {
            return done;
        }
        now = c.next_deadline();
    }
}

fn understand(action: Action) -> Did {
    let f = match action {
        Action::Configure(config) => return Did::Configure(config),
        Action::Send(frame) => frame,
    };
    let address = |at: usize| -> Address { f[at..at + 16].try_into().unwrap() };
    let (from, to) = (address(22), address(38));
    assert_eq!((&f[..6], &f[6..12]), (&ipv6::group_mac(&to)[..], &MAC[..]));
    match (f[20], f[54], to) {
        (0, ..) => {
            assert_eq!(to, ip("ff02::16"));
            Did::Report(address(74))
        }
        (58, nd::NEIGHBOR_SOLICITATION, _) => {
            let Some(Message::Solicit { from: None, target, .. }) =
                nd::parse(&f[54..], &from, &to, 255)
            else {
                panic!("{f:?}")
            };
            Did::Probe(target)
        }
        (58, nd::NEIGHBOR_ADVERTISEMENT, ALL_ROUTERS) => Did::Announce(address(62)),
        (58, nd::ROUTER_SOLICITATION, ALL_ROUTERS) => Did::Ask(from),
        _ => panic!("{f:?}"),
    }
}

/// Lifetimes are of the router, and valid and preferred of the prefix.
fn says(
    c: &mut Client,
    now: Instant,
    router: &str,
    lifetime_s: u16,
    prefixes: &[(&str, u32, u32)],
) {
    let mut icmp = vec![134, 0, 0, 0, 0, 0];
    icmp.extend(lifetime_s.to_be_bytes());
    icmp.extend([0; 8]);
    for (prefix, valid, preferred) in prefixes {
        icmp.extend([3, 4, 64, 0xc0]);
        icmp.extend(valid.to_be_bytes());
        icmp.extend(preferred.to_be_bytes());
        icmp.extend([0; 4]);
        icmp.extend(ip(prefix));
    }
    give(c, now, router, &icmp);
}

fn give(c: &mut Client, now: Instant, router: &str, icmp: &[u8]) {
    let Some(Message::Router(advert)) = nd::parse(icmp, &ip(router), &ALL_NODES, 255) else {
        panic!("{icmp:?}")
    };
    c.advert(&advert, now);
}

fn configured(done: &[(Instant, Did)]) -> &Ipv6Config {
    let last = done.iter().rev().find_map(|(_, did)| match did {
        Did::Configure(config) => Some(config),
        _ => None,
    });
    last.unwrap_or_else(|| panic!("{done:?}"))
}

fn addresses(config: &Ipv6Config) -> Vec<Address> {
    config.addresses().map(|slot| slot.address).collect()
}

/// A client whose link-local address is in use, and that address.
fn settled(mode: Mode) -> (Client, Address) {
    let mut c = client(mode);
    let done = run(&mut c, at(0), at(3));
    let own = addresses(configured(&done))[0];
    (c, own)
}

#[test]
fn the_link_local_address_is_asked_for_then_used_then_routers_are_asked_for() {
    let mut c = client(AUTO);
    let done = run(&mut c, at(0), at(3));
    let [(t0, Did::Report(group)), (t1, Did::Probe(own)), (t2, Did::Configure(config)), rest @ ..] =
        &done[..]
    else {
        panic!("{done:?}")
    };
    assert_eq!(*group, ipv6::solicited_node(own));
    assert_eq!(own[..8], LINK_LOCAL[..8]);
    assert!(*t0 < at(1) && t0 == t1, "after a random delay of at most a second");
    assert_eq!(*t2, *t1 + Duration::from_s(1), "no address is used before a second has passed");
    assert_eq!((addresses(config), config.mtu, config.hops), (vec![*own], 1500, 64));
    assert_eq!(rest, [(*t2, Did::Announce(*own)), (*t2, Did::Ask(*own))]);
}

#[test]
fn routers_are_asked_for_ever_more_rarely_until_one_speaks() {
    let (mut c, _) = settled(AUTO);
    let asked = run(&mut c, at(3), at(3600 * 5));
    let times: Vec<u64> = asked.iter().map(|(when, _)| when.0 / 1_000_000_000).collect();
    assert!(asked.iter().all(|(_, did)| matches!(did, Did::Ask(_))), "{asked:?}");
    assert!((10..20).contains(&times.len()), "{times:?}");
    for gap in times.windows(2).map(|pair| pair[1] - pair[0]).skip(9) {
        assert!((3000..=4000).contains(&gap), "{times:?}");
    }
    says(&mut c, at(18_000), "fe80::1", 1800, &[]);
    let quiet = run(&mut c, at(18_000), at(19_700));
    assert!(matches!(quiet[..], [(_, Did::Configure(_))]), "{quiet:?}");
}

#[test]
fn a_prefix_makes_an_address_and_a_route_and_a_router_is_the_gateway() {
    let (mut c, own) = settled(AUTO);
    says(&mut c, at(10), "fe80::1", 1800, &[("2001:db8:5::", 1000, 500)]);
    let done = run(&mut c, at(10), at(13));
    let [
        (_, Did::Configure(first)),
        (_, Did::Report(_)),
        (_, Did::Probe(new)),
        (_, Did::Configure(second)),
        (_, Did::Announce(announced)),
    ] = &done[..]
    else {
        panic!("{done:?}")
    };
    assert_eq!(addresses(first), [own], "not before it was asked for");
    assert_eq!(first.routers[..], [ip("fe80::1")]);
    assert_eq!(first.on_link[..], [(ip("2001:db8:5::"), 64)]);
    assert_eq!(addresses(second), [own, *new]);
    assert_eq!((new, &new[..8]), (announced, &ip("2001:db8:5::")[..8]));
    assert_ne!(new[8..], own[8..], "each prefix has an identifier of its own (RFC 7217)");
}

#[test]
fn repeated_advertisements_change_nothing() {
    let (mut c, _) = settled(AUTO);
    for i in 0..5 {
        says(&mut c, at(10 + i), "fe80::1", 1800, &[("2001:db8:5::", 1000, 500)]);
    }
    let _ = run(&mut c, at(15), at(18));
    says(&mut c, at(20), "fe80::1", 1800, &[("2001:db8:5::", 1000, 500)]);
    assert_eq!(run(&mut c, at(20), at(100)), []);
}

#[test]
fn lifetimes_run_out_one_after_the_other() {
    let (mut c, own) = settled(AUTO);
    says(&mut c, at(10), "fe80::1", 300, &[("2001:db8:5::", 1000, 500)]);
    let _ = run(&mut c, at(10), at(13));
    let done = run(&mut c, at(13), at(2000));
    let changes: Vec<_> = done
        .iter()
        .filter_map(|(when, did)| match did {
            Did::Configure(config) => Some((*when, config)),
            _ => None,
        })
        .collect();
    let [(t0, no_router), (t1, deprecated), (t2, gone)] = changes[..] else { panic!("{done:?}") };
    assert_eq!((t0, t1, t2), (at(310), at(510), at(1010)));
    assert!(no_router.routers.is_empty() && !no_router.slots[1].deprecated);
    assert!(deprecated.slots[1].deprecated && deprecated.on_link.len() == 1);
    assert_eq!((addresses(gone), gone.on_link.len()), (vec![own], 0));
    assert_eq!((deprecated.generations[1], gone.generations[1]), (0, 1));
    assert!(done.iter().any(|(when, did)| *when == at(310) && matches!(did, Did::Ask(_))));
}

#[test]
fn a_router_cannot_shorten_a_life_below_two_hours() {
    let (mut c, _) = settled(AUTO);
    says(&mut c, at(10), "fe80::1", 1800, &[("2001:db8:5::", 86_400, 86_400)]);
    let _ = run(&mut c, at(10), at(13));
    says(&mut c, at(20), "fe80::1", 1800, &[("2001:db8:5::", 60, 60)]);
    let held = c.held[1].unwrap();
    assert_eq!((held.valid_until, held.preferred_until), (at(7220), at(80)));
    says(&mut c, at(30), "fe80::1", 1800, &[("2001:db8:5::", 60, 60)]);
    assert_eq!(c.held[1].unwrap().valid_until, at(7220), "and goes on from there");
    says(&mut c, at(40), "fe80::1", 1800, &[("2001:db8:5::", 7300, 0)]);
    assert_eq!(c.held[1].unwrap().valid_until, at(7340));
    assert!(c.held[1].unwrap().deprecated);
}

#[test]
fn what_makes_no_sense_makes_no_address() {
    let (mut c, own) = settled(AUTO);
    let bad: &[(&str, u32, u32)] =
        &[("2001:db8:1::", 10, 20), ("2001:db8:2::", 0, 0), ("fe80::", 9, 9)];
    says(&mut c, at(10), "fe80::1", 0, bad);
    let mut short = vec![134, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 4, 63, 0x40];
    short.extend([0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0]);
    short.extend(ip("2001:db8:4::"));
    give(&mut c, at(10), "fe80::1", &short);
    let done = run(&mut c, at(10), at(15));
    for (_, did) in &done {
        if let Did::Configure(config) = did {
            assert_eq!(addresses(config), [own]);
        }
        assert!(!matches!(did, Did::Probe(_)), "{done:?}");
    }
    assert!(c.routers.is_empty());
}

#[test]
fn tables_are_bounded_whatever_routers_say() {
    let (mut c, own) = settled(AUTO);
    for i in 0..100u16 {
        let prefix = alloc::format!("2001:db8:{i:x}::");
        let router = alloc::format!("fe80::{i:x}");
        says(&mut c, at(10), &router, 1800, &[(&prefix, 1000, 500)]);
    }
    let done = run(&mut c, at(10), at(20));
    let config = configured(&done);
    assert_eq!(addresses(config).len(), IPV6_ADDRESSES_MAX);
    assert_eq!(config.slots[0].address, own);
    assert_eq!(config.routers.len(), IPV6_ROUTERS_MAX);
    assert_eq!(config.on_link.len(), IPV6_PREFIXES_MAX);
}

#[test]
fn an_address_that_somebody_has_is_made_anew_three_times_then_given_up() {
    let mut c = client(AUTO);
    let (mut now, mut seen) = (at(0), Vec::new());
    for _ in 0..3 {
        let probe = loop {
            match c.poll(now).map(understand) {
                Some(Did::Probe(address)) => break address,
                Some(Did::Report(_)) => {}
                Some(other) => panic!("{other:?}"),
                None => now = c.next_deadline(),
            }
        };
        assert!(!seen.contains(&probe), "{seen:?}");
        assert!(c.is_tentative(&probe));
        c.conflict(&probe, now);
        assert!(!c.is_tentative(&probe));
        seen.push(probe);
    }
    assert_eq!(c.duplicates(), 3);
    assert_eq!(run(&mut c, now, at(1_000)), [], "no address, no word");
}

#[test]
fn a_conflict_about_an_address_in_use_is_none() {
    let (mut c, own) = settled(AUTO);
    c.conflict(&own, at(5));
    assert_eq!((c.duplicates(), c.is_tentative(&own)), (0, false));
}

#[test]
fn eui_64_identifiers_are_made_of_the_hardware_address_and_never_anew() {
    let mut c = client(Mode::Auto(Identifiers::Eui64));
    let done = run(&mut c, at(0), at(3));
    assert_eq!(addresses(configured(&done)), [ip("fe80::ff:fe00:7")]);
    says(&mut c, at(10), "fe80::1", 1800, &[("2001:db8::", 1000, 500)]);
    let wanted = ip("2001:db8::ff:fe00:7");
    assert!(c.is_tentative(&wanted));
    c.conflict(&wanted, at(11));
    let done = run(&mut c, at(11), at(20));
    assert_eq!(addresses(configured(&done)).len(), 1);
}

#[test]
fn stable_identifiers_depend_on_key_prefix_and_interface_alone() {
    let c = client(AUTO);
    let make = |mac, key| {
        let c = Client::new(mac, AUTO, 1500, key, Rng::from_seed(99), at(7));
        c.make(&ip("2001:db8::"), 0)
    };
    let first = c.make(&ip("2001:db8::"), 0);
    assert_eq!(make(MAC, KEY), first);
    assert_ne!(make(MAC, SipKey([1, 3])), first);
    assert_ne!(make([2, 0, 0, 0, 0, 8], KEY), first);
    assert!(is_reserved(&[0; 8]) && is_reserved(&[0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x80]));
    assert!(
        is_reserved(&[2, 0, 0x5e, 0xff, 0xfe, 1, 2, 3])
            && !is_reserved(&first[8..].try_into().unwrap())
    );
}

#[test]
fn a_given_address_is_asked_for_too_and_routers_are_not_listened_to() {
    let mode =
        Mode::Static { address: ip("2001:db8::5"), prefix: 48, gateway: Some(ip("fe80::1")) };
    let mut c = client(mode);
    let done = run(&mut c, at(0), at(3));
    assert!(done.iter().all(|(_, did)| !matches!(did, Did::Ask(_))), "{done:?}");
    let config = configured(&done);
    assert_eq!(addresses(config).len(), 2);
    assert_eq!(config.slots[1].address, ip("2001:db8::5"));
    assert_eq!(
        (config.on_link[..].to_vec(), config.routers[..].to_vec()),
        (vec![(ip("2001:db8::5"), 48)], vec![ip("fe80::1")])
    );
    says(&mut c, at(10), "fe80::9", 1800, &[("2001:db9::", 1000, 500)]);
    assert_eq!(run(&mut c, at(10), at(100)), []);
    let mut c = client(mode);
    c.conflict(&ip("2001:db8::5"), at(0));
    let done = run(&mut c, at(0), at(3));
    assert_eq!(addresses(configured(&done)).len(), 1, "somebody has it: not ours");
}

#[test]
fn off_is_off() {
    let mut c = client(Mode::Off);
    assert_eq!((c.poll(at(100)), c.next_deadline()), (None, Instant::NEVER));
}

#[test]
fn mtu_and_hop_limit_are_taken_within_reason() {
    let (mut c, _) = settled(AUTO);
    for (hops, mtu, wanted) in
        [(0, 1279u32, (64, 1500)), (30, 1280, (30, 1280)), (0, 9000, (30, 1280))]
    {
        let mut icmp = vec![134, 0, 0, 0, hops, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, 5, 1, 0, 0];
        icmp.extend(mtu.to_be_bytes());
        give(&mut c, at(10), "fe80::1", &icmp);
        let _ = run(&mut c, at(10), at(11));
        let config = c.config();
        assert_eq!((config.hops, config.mtu), wanted);
    }
}

proptest! {
    /// Whatever routers and neighbours say, whenever: no panic, tables in bounds, a deadline ahead.
    #[test]
    fn anything_may_be_said_at_any_time(
        seed: u64,
        events in proptest::collection::vec((0u64..4000, 0u8..4, 0u8..12, 0u32..9000, 0u32..9000), 1..60),
    ) {
        let mut c = Client::new(MAC, AUTO, 1500, KEY, Rng::from_seed(seed), at(0));
        let mut now = at(0);
        for (gap, kind, number, valid, preferred) in events {
            now = now + Duration::from_s(gap);
            let prefix = alloc::format!("2001:db8:{number:x}::");
            match kind {
                0 => c.held.iter().flatten().map(|h| h.address).nth(usize::from(number) % 8).into_iter().for_each(|a| c.conflict(&a, now)),
                1 => says(&mut c, now, "fe80::1", valid as u16, &[(&prefix, valid, preferred)]),
                _ => says(&mut c, now, &alloc::format!("fe80::{number:x}"), preferred as u16, &[(&prefix, preferred, valid.min(preferred))]),
            }
            let _ = run(&mut c, now, now);
            prop_assert!(c.next_deadline() > now);
            let config = c.config();
            for slot in config.addresses() {
                prop_assert!(!c.is_tentative(&slot.address));
            }
        }
    }
}

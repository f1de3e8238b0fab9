use crate::build::build;
use crate::compile::{AclError, Compiler, decode};
use crate::rule::{ANY_PORT, Direction, Flow, Prefix, Protocol, Rule};
use crate::set::RuleSet;
use alloc::vec;
use alloc::vec::Vec;
use ix_abi::IpAddress;
use ix_abi::acl::{Action, Header, IN, OUT, RULES_MAX, Record, checksum};
use proptest::prelude::*;
use zerocopy::{FromBytes, IntoBytes};

const US: IpAddress = IpAddress::v4([10, 0, 0, 1]);

fn v4(octets: [u8; 4], len: u8) -> Prefix {
    let len = if len == 0 { 0 } else { 96 + len };
    let bits = u128::from_be_bytes(IpAddress::v4(octets).0);
    let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
    Prefix { bits: bits & mask, len }
}

fn compiled(rules: &[Rule]) -> RuleSet {
    decode(build(rules, [Action::Deny, Action::Allow], "here"), US).expect("a good set")
}

/// Both decide the same, and every decision is of a rule that is about the flow.
#[track_caller]
fn agree(set: &RuleSet, flow: &Flow) {
    let (fast, slow) = (set.decide(flow), set.decide_by_scan(flow));
    assert_eq!(fast, slow, "{flow:?}");
}

fn prefix() -> impl Strategy<Value = Prefix> {
    let mapped = (any::<[u8; 4]>(), 0..=32u8).prop_map(|(a, len)| v4(a, len));
    // Many around few addresses, so that they nest and touch.
    let near = (0..4u8, 0..4u8, 24..=32u8).prop_map(|(c, d, len)| v4([10, 0, c, d * 85], len));
    let six = (any::<u128>(), 0..=128u8).prop_map(|(bits, len)| {
        let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
        Prefix { bits: bits & mask, len }
    });
    prop_oneof![3 => mapped, 4 => near, 1 => six, 2 => Just(Prefix::ANY)]
}

fn port() -> impl Strategy<Value = u16> {
    prop_oneof![any::<u16>(), 0..5u16, 65_530..=65_535u16, Just(11_211u16)]
}

fn ports() -> impl Strategy<Value = (u16, u16)> {
    let range = (port(), port()).prop_map(|(a, b)| (a.min(b), a.max(b)));
    prop_oneof![1 => Just(ANY_PORT), 2 => range, 1 => port().prop_map(|p| (p, p))]
}

fn icmp() -> impl Strategy<Value = Option<(u8, Option<u8>)>> {
    proptest::option::of((0..16u8, proptest::option::of(0..4u8)))
}

prop_compose! {
    fn rule()(
        remote in prefix(), local in prop_oneof![4 => Just(Prefix::ANY), 1 => prefix()],
        remote_ports in ports(), local_ports in ports(),
        which in 0..4u8, directions in IN..=(IN | OUT), action in 0..3u8, icmp in icmp(),
    ) -> Rule {
        let protocol = match which {
            0 => None,
            1 => Some(Protocol::Tcp),
            2 => Some(Protocol::Udp),
            _ => Some(Protocol::Icmp),
        };
        let ported = matches!(protocol, Some(Protocol::Tcp | Protocol::Udp));
        Rule {
            remote, local, directions, protocol,
            remote_ports: if ported { remote_ports } else { ANY_PORT },
            local_ports: if ported { local_ports } else { ANY_PORT },
            action: Action::from_u8(action).unwrap(),
            icmp: if protocol == Some(Protocol::Icmp) { icmp } else { None },
            ..Rule::ALLOW
        }
    }
}

fn address() -> impl Strategy<Value = IpAddress> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddress::v4),
        (0..4u8, any::<u8>()).prop_map(|(c, d)| IpAddress::v4([10, 0, c, d])),
        any::<[u8; 16]>().prop_map(IpAddress),
    ]
}

prop_compose! {
    fn flow()(
        out in any::<bool>(), which in 0..3usize, remote in address(),
        local in prop_oneof![9 => Just(US), 1 => address()],
        remote_port in port(), local_port in port(), kind in 0..16u8, code in 0..4u8,
    ) -> Flow {
        let direction = if out { Direction::Out } else { Direction::In };
        let protocol = Protocol::ALL[which];
        match protocol {
            Protocol::Icmp => Flow::icmp(direction, remote, local, kind, code),
            _ => Flow { direction, protocol, remote, local, remote_port, local_port },
        }
    }
}

/// Flows at the edges of a rule, where mistakes are.
fn edges(rule: &Rule) -> Vec<Flow> {
    let mut flows = Vec::new();
    let addresses = [
        rule.remote.bits,
        rule.remote.last(),
        rule.remote.bits.wrapping_sub(1),
        rule.remote.last().wrapping_add(1),
    ];
    let at =
        |range: (u16, u16)| [range.0, range.1, range.0.wrapping_sub(1), range.1.wrapping_add(1)];
    for (i, remote) in addresses.into_iter().enumerate() {
        for (j, remote_port) in at(rule.remote_ports).into_iter().enumerate() {
            let protocol = rule.protocol.unwrap_or(Protocol::ALL[(i + j) % 3]);
            let remote_port = if protocol == Protocol::Icmp { 0 } else { remote_port };
            let direction = if rule.directions & IN != 0 { Direction::In } else { Direction::Out };
            let local_port = at(rule.details())[(i + j) % 4];
            let remote = IpAddress(remote.to_be_bytes());
            flows.push(Flow { direction, protocol, remote, local: US, remote_port, local_port });
        }
    }
    flows
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_compiled_form_decides_as_a_linear_scan_does(
        rules in proptest::collection::vec(rule(), 0..60),
        flows in proptest::collection::vec(flow(), 200),
        changes in prop_oneof![Just(1024_usize), 0..12_usize],
    ) {
        let source = build(&rules, [Action::Deny, Action::Allow], "");
        let set = Compiler::new(source, US).unwrap().with_bands_of(changes).finish().unwrap();
        for flow in flows.iter().chain(&rules.iter().flat_map(edges).collect::<Vec<_>>()) {
            prop_assert_eq!(set.decide(flow), set.decide_by_scan(flow), "{:?}", flow);
        }
    }

    #[test]
    fn a_rule_survives_its_record(rule in rule(), limits in any::<(bool, bool)>()) {
        let mut rule = rule;
        if rule.action == Action::Allow {
            rule.rate = limits.0.then_some((100, 20));
            let tcp = matches!(rule.protocol, None | Some(Protocol::Tcp));
            rule.connections = (limits.1 && tcp).then_some(50);
        }
        prop_assert_eq!(Rule::from_record(&rule.to_record()), Ok(rule));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _refused = decode(bytes, US);
    }

    #[test]
    fn no_change_of_a_good_set_makes_it_panic(
        rules in proptest::collection::vec(rule(), 1..8),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        flow in flow(),
    ) {
        let mut bytes = build(&rules, [Action::Allow; 2], "x");
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        // With the checksum put right, so that what is behind it is reached.
        let sum = checksum(&bytes[64..]);
        bytes[24..32].copy_from_slice(&sum.to_le_bytes());
        if let Ok(set) = decode(bytes, US) {
            agree(&set, &flow);
        }
    }
}

/// xorshift: the same numbers in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn range(&mut self) -> (u16, u16) {
        let (a, b) = (self.next() as u16, self.next() as u16);
        (a.min(b), a.max(b))
    }
}

/// Sets of the largest size that are meant to be hard: each with what makes it so.
pub(crate) fn hard_sets() -> Vec<(&'static str, Vec<Rule>)> {
    let mut n = Numbers(7);
    let tcp = Rule { protocol: Some(Protocol::Tcp), ..Rule::ALLOW };
    let count = RULES_MAX;
    let mut sets: Vec<(&'static str, Vec<Rule>)> = Vec::new();
    let mut add = |name, make: &mut dyn FnMut(usize) -> Rule| {
        sets.push((name, (0..count).map(make).collect()));
    };
    add("random prefixes and ranges", &mut |_| Rule {
        remote: v4((n.next() as u32).to_be_bytes(), n.below(33) as u8),
        remote_ports: n.range(),
        local_ports: n.range(),
        ..tcp
    });
    add("every prefix and port its own", &mut |i| Rule {
        remote: v4((i as u32 * 0x0001_9ff1).to_be_bytes(), 32),
        remote_ports: (i as u16, i as u16),
        local_ports: (3 * i as u16, 3 * i as u16),
        ..tcp
    });
    add("dense, and no two dimensions ever agree", &mut |i| match i % 2 {
        0 => Rule { remote_ports: (0, 30_000 + (i as u16)), ..tcp },
        _ => Rule { local_ports: (0, 30_000 + (i as u16)), ..tcp },
    });
    add("prefixes nested as deep as they go", &mut |i| Rule {
        remote: v4([10, 0, 0, 0], (i % 33) as u8),
        local_ports: (i as u16, i as u16 + 1000),
        protocol: Some(if i.is_multiple_of(2) { Protocol::Tcp } else { Protocol::Udp }),
        ..tcp
    });
    add("every kind of flow, all of them", &mut |i| Rule {
        remote: v4((i as u32 * 0x0006_51f3).to_be_bytes(), 20),
        ..Rule::ALLOW
    });
    add("all ranges end at the same two ports", &mut |i| Rule {
        remote: v4((i as u32 * 0x0006_51f3).to_be_bytes(), 8 + (i % 25) as u8),
        remote_ports: (1000, 1000 + (i % 2) as u16),
        local_ports: (1000 - (i % 2) as u16, 60_000),
        ..tcp
    });
    add("a change at every sixth port", &mut |i| Rule {
        remote_ports: (6 * i as u16, 6 * i as u16 + 2 + (i as u16 & 2)),
        local_ports: (0, 3 + 6 * i as u16),
        protocol: Some(if i.is_multiple_of(3) { Protocol::Udp } else { Protocol::Tcp }),
        ..tcp
    });
    add("half with ports, half for every kind of flow", &mut |i| {
        let remote = v4((n.next() as u32).to_be_bytes(), 32 - (i % 9) as u8);
        match i % 2 {
            0 => Rule { remote, remote_ports: n.range(), local_ports: n.range(), ..tcp },
            _ => Rule { remote, ..Rule::ALLOW },
        }
    });
    add("ICMP types and codes among ports", &mut |i| match i % 2 {
        0 => Rule {
            protocol: Some(Protocol::Icmp),
            icmp: Some(((i / 2 / 256) as u8, Some((i / 2) as u8))),
            ..Rule::ALLOW
        },
        _ => Rule { local_ports: n.range(), protocol: Some(Protocol::Udp), ..tcp },
    });
    sets
}

#[test]
fn hard_sets_of_the_largest_size_are_compiled_within_their_memory_and_decide_rightly() {
    let mut n = Numbers(9);
    for (name, rules) in hard_sets() {
        let set = compiled(&rules);
        assert!(set.bytes() < crate::compile::MEMORY_MAX, "{name}: {} bytes", set.bytes());
        let mut decided = 0;
        for i in 0..400 {
            let rule = &rules[n.below(rules.len() as u64) as usize];
            let flow = edges(rule)[i % 16];
            agree(&set, &flow);
            decided += usize::from(set.decide(&flow).rule < rules.len());
            let random = Flow {
                direction: Direction::In,
                protocol: Protocol::Tcp,
                remote: IpAddress::v4((n.next() as u32).to_be_bytes()),
                local: US,
                remote_port: n.next() as u16,
                local_port: n.next() as u16,
            };
            agree(&set, &random);
        }
        assert!(decided > 50, "{name}: hardly a rule is ever met");
    }
}

#[test]
fn every_slice_of_a_compilation_is_short() {
    for (name, rules) in hard_sets() {
        let mut compiler =
            Compiler::new(build(&rules, [Action::Allow; 2], ""), US).expect("a good set");
        let mut slices = 1;
        while compiler.advance().expect("a good set").is_none() {
            slices += 1;
        }
        // 20 of records, up to 20 of prefixes, a few for the ports; the rest are cells and vectors.
        assert!((40..1000).contains(&slices), "{name}: {slices} slices");
    }
}

#[test]
fn a_set_compiled_for_another_address_still_decides_rightly() {
    let rules = [
        Rule { local: v4([10, 0, 0, 1], 32), action: Action::Deny, ..Rule::ALLOW },
        Rule { local: v4([10, 0, 0, 0], 24), ..Rule::ALLOW },
    ];
    let set = compiled(&rules);
    let flow = |last| Flow {
        direction: Direction::In,
        protocol: Protocol::Udp,
        remote: IpAddress::v4([1, 2, 3, 4]),
        local: IpAddress::v4([10, 0, 0, last]),
        remote_port: 1,
        local_port: 2,
    };
    assert_eq!((set.decide(&flow(1)).rule, set.decide(&flow(2)).rule), (0, 1));
    assert!(set.is_for(US) && !set.is_for(IpAddress::UNSPECIFIED));
}

fn header(bytes: &[u8]) -> Header {
    Header::read_from_prefix(bytes).unwrap().0
}

#[test]
fn what_is_wrong_with_a_set_is_named() {
    let good = build(&[Rule::ALLOW; 3], [Action::Allow; 2], "name");
    let with = |change: fn(&mut Header)| {
        let mut bytes = good.clone();
        let mut h = header(&bytes);
        change(&mut h);
        bytes[..64].copy_from_slice(h.as_bytes());
        decode(bytes, US).unwrap_err()
    };
    assert_eq!(with(|h| h.magic += 1), AclError::Magic);
    assert_eq!(with(|h| h.version = 2), AclError::Version(2));
    assert_eq!(with(|h| h.rules += 1), AclError::Length);
    assert_eq!(with(|h| h.rules = u32::MAX), AclError::TooLarge);
    assert_eq!(with(|h| h.text_bytes = u32::MAX), AclError::TooLarge);
    assert_eq!(with(|h| h.checksum ^= 1), AclError::Checksum);
    assert_eq!(with(|h| h.default_in = 3), AclError::Header);
    assert_eq!(with(|h| h.reserved_2[3] = 1), AclError::Header);
    assert_eq!(decode(good[..63].to_vec(), US).unwrap_err(), AclError::Length);
    assert_eq!(decode(good[..good.len() - 1].to_vec(), US).unwrap_err(), AclError::Length);
    let bad = |change: fn(&mut Record)| {
        let mut record = Rule::ALLOW.to_record();
        change(&mut record);
        Rule::from_record(&record).unwrap_err()
    };
    for (error, words) in [
        (bad(|r| r.action = 9), "action"),
        (bad(|r| r.directions = 0), "direction"),
        (bad(|r| r.directions = 4), "direction"),
        (bad(|r| r.protocol = 50), "protocol"),
        (bad(|r| r.remote_len = 129), "remote prefix"),
        (bad(|r| r.remote[3] = 1), "remote prefix"),
        (bad(|r| r.local[15] = 1), "local prefix"),
        (bad(|r| r.local_ports = [1, 2]), "neither TCP nor UDP"),
        (bad(|r| (r.protocol, r.local_ports) = (6, [2, 1])), "ends before"),
        (bad(|r| (r.protocol, r.flags) = (6, 1)), "needs protocol ICMP"),
        (bad(|r| (r.protocol, r.flags) = (1, 2)), "without a type"),
        (bad(|r| r.icmp_type = 1), "in vain"),
        (bad(|r| r.flags = 0x80), "reserved"),
        (bad(|r| r.reserved = 1), "reserved"),
        (bad(|r| r.flags = 4), "rate"),
        (bad(|r| r.rate = 4), "rate"),
        (bad(|r| r.connections = 4), "connections"),
        (bad(|r| (r.flags, r.connections, r.protocol) = (8, 4, 17)), "only TCP"),
        (bad(|r| (r.flags, r.connections, r.action) = (8, 4, 1)), "can have limits"),
    ] {
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn an_empty_set_is_its_defaults() {
    let set = compiled(&[]);
    let mut flow = Flow::icmp(Direction::In, IpAddress::v4([1, 1, 1, 1]), US, 8, 0);
    assert_eq!((set.decide(&flow).rule, set.decide(&flow).action), (0, Action::Deny));
    flow.direction = Direction::Out;
    assert_eq!((set.decide(&flow).rule, set.decide(&flow).action), (1, Action::Allow));
    assert_eq!(set.source(), build(&[], [Action::Deny, Action::Allow], "here"));
    let _ = vec![0];
}

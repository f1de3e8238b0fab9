//! Instructions of one look-up, in sets that are meant to be hard:
//! `valgrind --tool=callgrind --toggle-collect=measured target/release/examples/lookup_cost SET COUNT`;
//! the difference of two runs by the difference of COUNT.
use ix_abi::IpAddress;
use ix_acl::{Action, Compiler, Direction, Flow, Prefix, Protocol, Rule, RuleSet};
use std::time::Duration;

#[unsafe(no_mangle)]
#[inline(never)]
fn measured(set: &RuleSet, flow: &Flow) -> usize {
    set.decide(flow).rule
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let count: usize = args[1].parse().unwrap();
    let rules: Vec<Rule> = (0..10_000u32)
        .map(|i| {
            let hash = i.wrapping_mul(0x9e37_79b9);
            let tcp = Rule { protocol: Some(Protocol::Tcp), ..Rule::ALLOW };
            let host = Prefix::new(IpAddress::v4(hash.to_be_bytes()).0, 128).unwrap();
            match args[0].as_str() {
                "hosts" => Rule { remote: host, ..tcp },
                // Prefixes of all lengths, random ranges, both directions: takes the most memory.
                "random" => {
                    let len = hash >> 5 & 31;
                    let bits = hash.reverse_bits() & (u32::MAX << (31 - len));
                    let remote = IpAddress::v4(bits.to_be_bytes()).0;
                    let range = |n: u32| {
                        let (a, b) = ((n >> 16) as u16, n as u16);
                        (a.min(b), a.max(b))
                    };
                    Rule {
                        remote: Prefix::new(remote, 97 + len as u8).unwrap(),
                        remote_ports: range(hash),
                        local_ports: range(hash.wrapping_mul(0x85eb_ca6b)),
                        ..tcp
                    }
                }
                // Nothing in common anywhere.
                "dense" if i.is_multiple_of(2) => {
                    Rule { remote_ports: (0, 30_000 + i as u16), ..tcp }
                }
                "dense" => Rule { local_ports: (0, 30_000 + i as u16), ..tcp },
                // The same, and the last rule decides.
                "last" if i == 9_999 => tcp,
                "last" if i.is_multiple_of(2) => {
                    Rule { remote_ports: (0, 30_000 + i as u16), ..tcp }
                }
                "last" if i < 5000 => Rule { local_ports: (0, 30_000 + i as u16), ..tcp },
                "last" => Rule { local_ports: (0, 300), remote: host, ..tcp },
                _ => panic!("which set?"),
            }
        })
        .collect();
    let us = IpAddress::v4([10, 0, 0, 1]);
    let source = ix_acl::build::build(&rules, [Action::Deny; 2], "");
    let started = std::time::Instant::now();
    let mut compiler = Compiler::new(source, us).unwrap();
    let (mut slices, mut longest) = (0, Duration::ZERO);
    let set = loop {
        let slice = std::time::Instant::now();
        let done = compiler.advance().unwrap();
        (slices, longest) = (slices + 1, longest.max(slice.elapsed()));
        if let Some(set) = done {
            break set;
        }
    };
    let whole = started.elapsed();
    println!(
        "{slices} slices, the longest {longest:?}, {whole:?} in all; {} KiB",
        set.bytes() >> 10
    );
    let mut sum = 0;
    for i in 0..count as u32 {
        let remote = IpAddress::v4(i.wrapping_mul(0x85eb_ca6b).to_be_bytes());
        let (direction, protocol) = (Direction::In, Protocol::Tcp);
        let flow = Flow {
            direction,
            protocol,
            remote,
            local: us,
            remote_port: 65_000,
            local_port: 65_001,
        };
        assert_eq!(set.decide(&flow), set.decide_by_scan(&flow));
        sum += measured(&set, &flow);
    }
    println!("{count} look-ups, {} on average", sum / count.max(1));
}

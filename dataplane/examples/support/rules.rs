//! Sets of 10,000 rules for `echo_cost`, from what is usual to what is as bad as it gets.
use ix_abi::IpAddress;
use ix_abi::acl::IN;
use ix_acl::{Action, Prefix, Protocol, Rule, RuleSet};
use ix_dataplane::rng::Rng;

/// Rules of one set.
const COUNT: usize = 10_000;

fn host(rng: &mut Rng) -> Prefix {
    Prefix::new(IpAddress::v4(rng.next_u32().to_be_bytes()).0, 128).expect("a prefix")
}

/// A set that lets the benchmark's clients in, whatever it takes to find out.
pub fn set(name: &str, us: [u8; 4]) -> RuleSet {
    let mut rng = Rng::from_seed(1);
    let tcp = Rule { protocol: Some(Protocol::Tcp), directions: IN, ..Rule::ALLOW };
    let deny = Rule { action: Action::Deny, ..tcp };
    let rule = |i: usize| match name {
        // A list of those who are not wanted.
        "hosts" => Rule { remote: host(&mut rng), ..deny },
        // Prefixes of all lengths, ranges of ports; most have nothing to do with the clients.
        "random" => {
            let len = 96 + rng.below(33) as u8;
            let bits = u128::from_be_bytes(host(&mut rng).bits.to_be_bytes());
            let mask = u128::MAX << (128 - u32::from(len));
            let mut range = || {
                let (a, b) = (rng.next_u32() as u16, rng.next_u32() as u16);
                (a.min(b), a.max(b))
            };
            let (remote_ports, local_ports) = (range(), range());
            Rule { remote: Prefix { bits: bits & mask, len }, remote_ports, local_ports, ..tcp }
        }
        // Each dimension by itself admits half of the rules, no two the same, and all three none.
        "dense" if i % 10 == 9 => Rule { remote: host(&mut rng), ..deny },
        "dense" if i.is_multiple_of(2) => {
            Rule { remote_ports: (40_000 + i as u16, u16::MAX), ..deny }
        }
        "dense" => Rule { local_ports: (8, 30_000 + i as u16), ..deny },
        // The same, and the last rule decides.
        "last" if i == COUNT - 1 => tcp,
        "last" if i % 10 == 9 => Rule { remote: host(&mut rng), ..deny },
        "last" if i.is_multiple_of(2) => {
            Rule { remote_ports: (1, 65_535 - i as u16), local_ports: (9, 9), ..deny }
        }
        "last" => {
            Rule { local_ports: (0, 30_000 + i as u16), remote_ports: (60_000, 60_001), ..deny }
        }
        // Every branch of a look-up taken: four nodes of the search for an address, both bands' vectors
        // not empty and full, a rule found in both.
        "worst" | "limits" if i % 5 < 2 => Rule { remote: host(&mut rng), ..deny },
        "worst" | "limits" => Rule {
            remote_ports: (0, 30_000 + i as u16),
            local_ports: (0, 8 + i as u16),
            // And then both limits, the way for which a rule of its own would be enough.
            rate: (name == "limits").then_some((1_000_000, 1_000_000)),
            connections: (name == "limits").then_some(1_000_000),
            ..tcp
        },
        _ => panic!("no such set: {name}"),
    };
    let rules: Vec<Rule> = (0..COUNT).map(rule).collect();
    let source = ix_acl::build::build(&rules, [Action::Allow; 2], "");
    ix_acl::decode(source, IpAddress::v4(us)).expect("a good set")
}

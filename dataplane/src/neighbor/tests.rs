use super::*;
use proptest::prelude::*;
extern crate std;
use std::collections::{BTreeMap, VecDeque};

const A: IpAddress = IpAddress::v4([10, 0, 0, 1]);
const B: IpAddress = IpAddress::v4([10, 0, 0, 2]);
const MAC_A: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 1]);
const MAC_B: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 2]);

fn at(seconds: f64) -> Instant {
    Instant((seconds * 1e9) as u64)
}

fn table(entries: usize, pending: usize, pending_per_entry: usize) -> Table<u32> {
    Table::new(Limits { entries, pending, pending_per_entry }, SipKey([1, 2]))
}

fn requests(table: &mut Table<u32>, now: Instant) -> Vec<Request> {
    core::iter::from_fn(|| table.poll(now)).collect()
}

const ASK_A: Request = Request { ip: A, to: None };

#[test]
fn the_first_packet_asks_and_leaves_with_the_answer_in_order() {
    let mut t = table(8, 8, 8);
    assert_eq!(t.lookup(A, at(0.0)), Lookup::Unknown);
    t.pend(A, 1, at(0.0)).unwrap();
    t.pend(A, 2, at(0.1)).unwrap();
    assert_eq!(requests(&mut t, at(0.1)), [ASK_A]);
    assert_eq!(t.pop_ready(), None);
    assert!(t.confirm(A, MAC_A, at(0.2)));
    assert_eq!(t.pop_ready(), Some((MAC_A, 1)));
    assert_eq!(t.pop_ready(), Some((MAC_A, 2)));
    assert_eq!((t.pop_ready(), t.pop_failed(), t.pending()), (None, None, 0));
    assert_eq!(t.lookup(A, at(0.3)), Lookup::Found(MAC_A));
    assert_eq!(requests(&mut t, at(9.0)), []);
    assert_eq!(t.next_deadline(), Instant::NEVER);
}

#[test]
fn nobody_answers_three_requests_a_second_apart_and_the_packets_fail() {
    let mut t = table(8, 8, 8);
    t.pend(A, 1, at(0.0)).unwrap();
    for second in [0.0, 1.0, 2.0] {
        assert!(t.next_deadline() <= at(second));
        assert_eq!(requests(&mut t, at(second)), [ASK_A]);
        assert_eq!(requests(&mut t, at(second + 0.99)), []);
        assert_eq!(t.next_deadline(), at(second + 1.0));
    }
    assert_eq!(t.pop_failed(), None);
    assert_eq!(requests(&mut t, at(3.0)), []);
    assert_eq!((t.pop_failed(), t.pop_failed()), (Some((A, 1)), None));
    assert_eq!(t.next_deadline(), Instant::NEVER);
    t.pend(A, 2, at(3.0)).unwrap();
    assert_eq!(requests(&mut t, at(3.0)), [ASK_A]);
}

#[test]
fn an_old_address_is_used_on_while_it_is_confirmed() {
    let mut t = table(8, 8, 8);
    t.confirm(A, MAC_A, at(0.0));
    assert_eq!(t.lookup(A, at(60.0)), Lookup::Found(MAC_A));
    assert_eq!(requests(&mut t, at(60.0)), []);
    assert_eq!(t.lookup(A, at(60.5)), Lookup::Found(MAC_A));
    assert_eq!(requests(&mut t, at(60.5)), [Request { ip: A, to: Some(MAC_A) }]);
    assert_eq!(t.lookup(A, at(61.0)), Lookup::Found(MAC_A));
    assert!(!t.confirm(A, MAC_A, at(61.0)));
    assert_eq!(requests(&mut t, at(100.0)), []);
    assert_eq!(t.lookup(A, at(121.0)), Lookup::Found(MAC_A));
    assert_eq!(requests(&mut t, at(121.0)), []);
}

#[test]
fn an_old_address_that_nobody_confirms_is_forgotten() {
    let mut t = table(8, 8, 8);
    t.confirm(A, MAC_A, at(0.0));
    t.lookup(A, at(100.0));
    for second in [100.0, 101.0, 102.0] {
        assert_eq!(requests(&mut t, at(second)).len(), 1);
        assert_eq!(t.lookup(A, at(second)), Lookup::Found(MAC_A));
    }
    assert_eq!(requests(&mut t, at(103.0)), []);
    assert_eq!(t.lookup(A, at(103.0)), Lookup::Unknown);
}

#[test]
fn noise_on_the_link_is_not_remembered_but_corrects_what_is() {
    let mut t = table(8, 8, 8);
    assert!(!t.overhear(A, MAC_A, at(0.0)));
    assert_eq!(t.lookup(A, at(0.0)), Lookup::Unknown);
    t.confirm(A, MAC_A, at(0.0));
    assert!(t.overhear(A, MAC_B, at(1.0)));
    assert!(!t.overhear(A, MAC_B, at(2.0)));
    assert_eq!(t.lookup(A, at(2.0)), Lookup::Found(MAC_B));
    t.pend(B, 7, at(2.0)).unwrap();
    assert!(t.overhear(B, MAC_A, at(2.0)));
    assert_eq!(t.pop_ready(), Some((MAC_A, 7)));
}

#[test]
fn a_group_address_is_nobodys() {
    let mut t = table(8, 8, 8);
    t.pend(A, 1, at(0.0)).unwrap();
    for mac in [EthernetAddress::BROADCAST, EthernetAddress([1, 0, 94, 0, 0, 1])] {
        assert!(!t.confirm(A, mac, at(0.0)));
    }
    assert_eq!((t.pop_ready(), t.lookup(A, at(0.0))), (None, Lookup::Unknown));
}

#[test]
fn what_waits_is_bounded_per_address_and_in_all() {
    let mut t = table(8, 3, 2);
    t.pend(A, 1, at(0.0)).unwrap();
    t.pend(A, 2, at(0.0)).unwrap();
    assert_eq!(t.pend(A, 3, at(0.0)), Err(3));
    t.pend(B, 4, at(0.0)).unwrap();
    assert_eq!(t.pend(B, 5, at(0.0)), Err(5));
    assert_eq!(t.pend(IpAddress::v4([10, 0, 0, 3]), 6, at(0.0)), Err(6));
    // Nor is anybody asked for a packet that was not kept.
    assert_eq!(requests(&mut t, at(0.0)).len(), 2);
    t.confirm(A, MAC_A, at(0.0));
    assert_eq!(t.pend(B, 5, at(0.0)), Err(5));
    assert_eq!(t.pop_ready(), Some((MAC_A, 1)));
    t.pend(B, 5, at(0.0)).unwrap();
}

#[test]
fn a_full_set_forgets_who_was_used_longest_ago_and_never_one_that_is_waited_for() {
    let mut t = table(8, 8, 8);
    let ip = |i: u8| IpAddress::v4([10, 0, 1, i]);
    t.pend(ip(0), 1, at(0.0)).unwrap();
    for i in 1..8 {
        t.confirm(ip(i), MAC_A, at(f64::from(i)));
    }
    t.lookup(ip(1), at(10.0));
    assert!(t.confirm(ip(8), MAC_B, at(11.0)));
    assert_eq!(t.lookup(ip(2), at(11.0)), Lookup::Unknown);
    assert_eq!(t.lookup(ip(1), at(11.0)), Lookup::Found(MAC_A));
    assert_eq!(t.lookup(ip(8), at(11.0)), Lookup::Found(MAC_B));
    t.confirm(ip(0), MAC_B, at(12.0));
    assert_eq!(t.pop_ready(), Some((MAC_B, 1)));
    // All eight are waited for: there is no place, and nobody is pushed out.
    let mut t = table(8, 16, 8);
    for i in 0..8 {
        t.pend(ip(i), u32::from(i), at(0.0)).unwrap();
    }
    assert_eq!(t.pend(ip(8), 8, at(0.0)), Err(8));
    assert!(!t.confirm(ip(8), MAC_A, at(0.0)));
}

#[test]
fn clearing_fails_what_waits() {
    let mut t = table(8, 8, 8);
    t.confirm(A, MAC_A, at(0.0));
    t.pend(B, 1, at(0.0)).unwrap();
    t.clear();
    assert_eq!(t.lookup(A, at(0.0)), Lookup::Unknown);
    assert_eq!(requests(&mut t, at(5.0)), []);
    assert_eq!((t.pop_failed(), t.pending()), (Some((B, 1)), 0));
}

proptest! {
    /// Whatever happens, a packet that was kept comes back once, by one of the two ways, in order
    /// for its address, and requests for one address are a second apart.
    #[test]
    fn packets_are_conserved(steps in proptest::collection::vec((0_u8..12, 0_u8..6, 0_u64..1500), 0..300)) {
        let mut t = table(16, 20, 4);
        let mut now = at(0.0);
        let mut waiting = BTreeMap::<u8, VecDeque<u32>>::new();
        let mut asked = BTreeMap::<[u8; 16], Instant>::new();
        let mut number = 0;
        for (host, what, ms) in steps {
            let ip = IpAddress::v4([10, 0, 0, host]);
            match what {
                0 | 1 => {
                    // The payload names its host, to check where it comes out.
                    let packet = u32::from(host) << 24 | number;
                    number += 1;
                    if t.pend(ip, packet, now).is_ok() {
                        waiting.entry(host).or_default().push_back(packet);
                    }
                }
                2 => {
                    t.confirm(ip, EthernetAddress([2, 0, 0, 0, 0, host]), now);
                }
                3 => {
                    t.lookup(ip, now);
                }
                4 => {
                    t.overhear(ip, EthernetAddress([2, 0, 0, 0, 0, host]), now);
                }
                _ => now = now + Duration::from_ms(ms),
            }
            while let Some(request) = t.poll(now) {
                if let Some(last) = asked.insert(request.ip.0, now) {
                    // A confirmed address may be asked for anew at any time after FRESH; an
                    // unconfirmed one at most once a second, unless it was evicted meanwhile.
                    prop_assert!(now.since(last) >= RETRY || request.to.is_none());
                }
            }
            prop_assert!(t.next_deadline() > now);
            while let Some((mac, packet)) = t.pop_ready() {
                let host = (packet >> 24) as u8;
                prop_assert_eq!(mac.0[5], host);
                prop_assert_eq!(waiting.get_mut(&host).unwrap().pop_front(), Some(packet));
            }
            while let Some((ip, packet)) = t.pop_failed() {
                let host = (packet >> 24) as u8;
                prop_assert_eq!(ip, IpAddress::v4([10, 0, 0, host]));
                prop_assert_eq!(waiting.get_mut(&host).unwrap().pop_front(), Some(packet));
            }
            prop_assert_eq!(t.pending(), waiting.values().map(VecDeque::len).sum::<usize>());
        }
        t.clear();
        while t.pop_failed().is_some() {}
        prop_assert_eq!(t.pending(), 0);
        // Every cell is free again.
        for i in 0..20 {
            prop_assert!(t.pend(IpAddress::v4([10, 0, 1, (i / 4) as u8]), i, now).is_ok());
        }
    }
}

use super::*;
use core::net::Ipv6Addr;

fn ip(text: &str) -> Address {
    text.parse::<Ipv6Addr>().unwrap().octets()
}

fn station(addresses: &[(&str, bool)]) -> Ipv6 {
    let mut v6 = Ipv6::new(true, 1500);
    for (slot, (address, deprecated)) in v6.config.slots.iter_mut().zip(addresses) {
        *slot = Slot { address: ip(address), prefix: 64, deprecated: *deprecated };
    }
    v6
}

#[test]
fn the_source_is_the_address_itself_then_by_scope_then_preferred_then_by_prefix() {
    let v6 = station(&[
        ("fe80::5", false),
        ("2001:db8:1::5", false),
        ("fec0::5", false),
        ("2001:db8:2::5", false),
        ("2001:db8:2::6", true),
    ]);
    for (to, slot) in [
        ("fe80::99", 1),
        ("ff02::1", 1),
        ("fec0::2", 3),
        ("ff05::1", 3),
        ("2001:db8:1::9", 2),
        ("2001:db8:2::9", 4),
        ("2001:db8:2::6", 5),
        ("2600::1", 2),
        ("fd00::1", 2),
    ] {
        assert_eq!(v6.source_for(&ip(to)), Some(slot), "to {to}");
    }
    let narrow = station(&[("fe80::5", false), ("fec0::5", false)]);
    assert_eq!(narrow.source_for(&ip("2600::1")), Some(2), "too narrow, but the widest");
    assert_eq!(station(&[]).source_for(&ip("2600::1")), None);
    let old = station(&[("fe80::5", false), ("2001:db8::5", true)]);
    assert_eq!(old.source_for(&ip("2600::1")), Some(2), "scope goes before preference");
}

#[test]
fn addresses_and_groups_of_ours_are_known_and_free_slots_are_nobody() {
    let v6 = station(&[("fe80::5", false), ("2001:db8::12:3456", false)]);
    assert_eq!((v6.slot_of(&ip("fe80::5")), v6.slot_of(&ip("2001:db8::12:3456"))), (1, 2));
    assert_eq!((v6.slot_of(&ip("fe80::6")), v6.slot_of(&ip("::"))), (0, 0));
    assert_eq!(
        (v6.address(2), v6.address(3), v6.address(0)),
        (ip("2001:db8::12:3456"), [0; 16], [0; 16])
    );
    let groups = ["ff02::1", "ff02::1:ff12:3456", "ff02::1:ff00:5"];
    assert!(groups.iter().all(|group| v6.is_in_group(&ip(group))));
    let others = ["ff02::2", "ff02::1:ff12:3457", "ff02::1:ff00:0", "ff05::1"];
    assert!(others.iter().all(|group| !v6.is_in_group(&ip(group))));
}

#[test]
fn the_next_hop_is_the_host_itself_on_the_link_else_the_router_that_answers() {
    let mut v6 = station(&[("fe80::5", false), ("2001:db8::5", false)]);
    assert_eq!(v6.next_hop(&ip("fe80::9")), Some(ip("fe80::9")));
    assert_eq!(v6.next_hop(&ip("2001:db8::9")), None, "an address makes no prefix on-link");
    v6.config.on_link.push((ip("2001:db8::"), 64));
    assert_eq!(v6.next_hop(&ip("2001:db8::9")), Some(ip("2001:db8::9")));
    assert_eq!(v6.next_hop(&ip("2600::1")), None);
    v6.config.routers.extend([ip("fe80::1"), ip("fe80::2")]);
    assert_eq!(v6.next_hop(&ip("2600::1")), Some(ip("fe80::1")));
    assert!(!v6.unreachable(IpAddress(ip("fe80::2"))), "not the one in use");
    assert!(v6.unreachable(IpAddress(ip("fe80::1"))));
    assert_eq!(v6.next_hop(&ip("2600::1")), Some(ip("fe80::2")));
    assert!(v6.unreachable(IpAddress(ip("fe80::2"))));
    assert_eq!(v6.next_hop(&ip("2600::1")), Some(ip("fe80::1")), "and the first again");
}

#[test]
fn errors_come_in_a_burst_and_then_slowly() {
    let mut v6 = Ipv6::new(true, 1500);
    let now = Instant(5_000_000_000);
    let burst = (0..100).filter(|_| v6.may_tell(now)).count();
    assert_eq!(burst, 20);
    assert!(!v6.may_tell(now));
    let later = now + crate::time::Duration::from_s(1);
    assert_eq!((0..100).filter(|_| v6.may_tell(later)).count(), 20);
}

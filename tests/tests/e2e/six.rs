//! The booted kernel over IPv6: against smoltcp with a fixed address, and with one that QEMU's user network has
//! announced the prefix of.
use crate::bytes;
use ix_tests::need;
use ix_tests::peer::faults::Faults;
use ix_tests::peer::{Host, Listener};
use ix_tests::vm::{Config, Vm};
use smoltcp::wire::Ipv6Address;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

const GUEST: Ipv6Address = Ipv6Address::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x15);
const ECHO: u16 = 7;
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until the machine has an address of this prefix; all of its addresses.
#[track_caller]
fn addresses(vm: &Vm, prefix: u16) -> Vec<Ipv6Addr> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let ipv6: Vec<_> = vm.snapshot().ipv6.into_iter().map(|(ip, _)| ip).collect();
        if ipv6.iter().any(|ip| ip.segments()[0] == prefix) {
            return ipv6;
        }
        assert!(Instant::now() < deadline, "{ipv6:?}\n{}", vm.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn tcp_over_ipv6_comes_back_whole_whatever_the_network_does() {
    let Some(built) = need::built() else { return };
    let _machine = need::machine();
    let listener = Listener::bind();
    let config = Config::new(&built, "echo").cores(2).stream(listener.path());
    let vm = config.with("--ip6", format!("{GUEST}/64")).boot();
    let mut host = Host::new(listener.accept(), Faults { seed: 6, ..Faults::NONE });
    addresses(&vm, 0xfd00);
    for len in [1, 1439, 1440, 1441, 1_000_000] {
        let conn = host.connect(GUEST, ECHO, PATIENCE).unwrap();
        let data = bytes(len as u64, len);
        assert!(host.exchange(conn, &data, PATIENCE).unwrap() == data, "{len} bytes");
        host.close(conn, PATIENCE).unwrap();
    }
    let error = host.connect(GUEST, 9, PATIENCE).unwrap_err();
    assert!(error.contains("refused"), "{error}");
    let total = vm.snapshot().total.counters;
    assert_eq!((total.get("tcp_accepted"), total.get("payload_copied")), (5, 0));
}

#[test]
fn an_address_is_made_of_the_prefix_that_the_user_network_announces() {
    let Some(built) = need::built() else { return };
    let _machine = need::machine();
    let vm = Config::new(&built, "echo").with("--ip6", "eui64").boot();
    let mac = vm.snapshot().mac;
    let found = addresses(&vm, 0xfec0);
    assert_eq!(found.len(), 2, "{found:?}");
    let octets: Vec<u8> = mac.split(':').map(|b| u8::from_str_radix(b, 16).unwrap()).collect();
    let [a, b, c, d, e, f] = octets[..] else { panic!("{mac}") };
    for (ip, first) in found.iter().zip([0xfe80, 0xfec0]) {
        assert_eq!(ip.octets()[8..], [a ^ 2, b, c, 0xff, 0xfe, d, e, f], "{ip}");
        assert_eq!(ip.segments()[..4], [first, 0, 0, 0]);
    }
    let status = vm.ixcp_ok(&["status"]);
    assert!(status.contains(&format!("{}/64", found[1])), "{status}");
}

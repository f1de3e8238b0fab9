//! Command lines as people write them.

use super::*;

#[test]
fn an_empty_line_gives_the_defaults() {
    assert_eq!(parse("").unwrap(), Config::default());
    assert_eq!(parse("  ").unwrap(), Config::default());
}

#[test]
fn every_key_is_read() {
    let line = "app=kv cores=4 ip=10.0.2.15/24 gw=10.0.2.2 batch=32 idle=poll log=debug \
                bound=5 limit=0 onexit=stop heap=64 report=1 tcp=datacentre -- -m 64  --port=11211";
    let c = parse(line).unwrap();
    assert_eq!(c.app, Some("kv"));
    assert_eq!(c.cores, Some(4));
    assert_eq!(c.address, Address::Static { addr: [10, 0, 2, 15], prefix: 24 });
    assert_eq!(c.gateway, Some([10, 0, 2, 2]));
    assert_eq!(c.batch, Some(32));
    assert_eq!(c.idle, Idle::Poll);
    assert_eq!(c.log, log_level::Level::Debug);
    assert_eq!((c.bound_ms, c.limit_ms, c.exit_with_app), (5, 0, true));
    assert_eq!(c.heap_mib, Some(64));
    assert_eq!(c.tcp, Tcp::Datacentre);
    assert!(c.report);
    assert_eq!(c.args, "-m 64  --port=11211");
}

#[test]
fn what_tcp_and_ip_do_is_read() {
    let c = parse("congestion=dctcp ecn=on fragments=drop").unwrap();
    assert_eq!((c.congestion, c.ecn, c.reassemble), (Congestion::Dctcp, Ecn::On, false));
    let c = parse("congestion=newreno ecn=off fragments=reassemble").unwrap();
    assert_eq!((c.congestion, c.ecn, c.reassemble), (Congestion::NewReno, Ecn::Off, true));
    let c = parse("congestion=cubic ecn=accept").unwrap();
    assert_eq!(c, Config::default());
}

#[test]
fn the_mtu_is_in_bytes_of_ip() {
    assert_eq!(parse("mtu=9000").unwrap().mtu, Some(9000));
    assert_eq!(parse("mtu=1280").unwrap().mtu, Some(1280));
    assert_eq!(parse("").unwrap().mtu, None);
}

#[test]
fn pause_frames_are_off_unless_asked_for() {
    assert!(!parse("").unwrap().pause && !parse("pause=off").unwrap().pause);
    assert!(parse("pause=on").unwrap().pause);
}

#[test]
fn a_vlan_has_12_bits_two_values_of_which_are_none() {
    assert_eq!(parse("vlan=1").unwrap().vlan, Some(1));
    assert_eq!(parse("vlan=4094").unwrap().vlan, Some(4094));
    assert_eq!(parse("").unwrap().vlan, None);
}

#[test]
fn arguments_belong_to_the_application_even_if_they_look_like_keys() {
    let c = parse("app=kv -- cores=99 -- x").unwrap();
    assert_eq!((c.cores, c.args), (None, "cores=99 -- x"));
    assert_eq!(parse("-- a=b").unwrap().args, "a=b");
}

#[test]
fn a_loader_may_put_the_kernels_path_first() {
    assert_eq!(parse("/boot/kernel app=kv").unwrap().app, Some("kv"));
}

#[test]
fn the_loopback_card_wants_an_address_and_has_no_ipv6() {
    assert_eq!(parse("nic=auto").unwrap(), Config::default());
    let c = parse("nic=loopback ip=10.0.0.1/24").unwrap();
    assert_eq!((c.nic, c.address6), (Nic::Loopback, Address6::Auto));
    for (line, words) in [
        ("nic=loopback", "ip=A.B.C.D/LEN"),
        ("ip=dhcp nic=loopback", "ip=A.B.C.D/LEN"),
        ("ip6=fd00::1/64 ip=10.0.0.1/24 nic=loopback", "no IPv6"),
    ] {
        let bad = parse(line).unwrap_err();
        assert!(bad.word == "nic=loopback" && bad.why.contains(words), "{line}: {bad}");
    }
}

#[test]
fn the_control_channels_port_is_the_second_unless_another_is_named() {
    for (line, port, name) in [
        ("", 0x2F8, "COM2"),
        ("line=com2", 0x2F8, "COM2"),
        ("line=com3", 0x3E8, "COM3"),
        ("line=com4", 0x2E8, "COM4"),
    ] {
        let found = parse(line).unwrap().line;
        assert_eq!((found.port(), found.name()), (port, name), "{line}");
    }
}

#[test]
fn mistakes_name_the_word() {
    for bad in [
        "aap=kv",
        "congestion=reno",
        "ecn=yes",
        "fragments=1",
        "mtu=1279",
        "mtu=65536",
        "vlan=0",
        "pause=yes",
        "vlan=4095",
        "kv",
        "cores=0",
        "cores=65",
        "cores=two",
        "ip=10.0.2.15",
        "ip=10.0.2.15/33",
        "ip=10.0.2/24",
        "gw=1.2.3",
        "ip6=yes",
        "ip6=2001:db8::1",
        "ip6=2001:db8::1/129",
        "ip6=ff02::1/64",
        "ip6=::1/64",
        "ip6=::ffff:10.0.0.1/96",
        "gw6=10.0.2.2",
        "gw6=::",
        "batch=0",
        "batch=1025",
        "idle=sleep",
        "log=loud",
        "onexit=",
        "bound=0",
        "heap=1",
        "nic=eth0",
        "line=com1",
        "line=COM2",
        "line=0x2f8",
        "tcp=moon",
    ] {
        let line = std::format!("cores=1 {bad} idle=poll");
        assert_eq!(parse(&line).unwrap_err().word, bad);
    }
}

#[test]
fn ipv6_is_automatic_unless_it_is_said_otherwise() {
    assert_eq!(parse("app=kv").unwrap().address6, Address6::Auto);
    assert_eq!(parse("ip6=off").unwrap().address6, Address6::Off);
    assert_eq!(parse("ip6=eui64").unwrap().address6, Address6::Eui64);
    let c = parse("ip6=2001:db8::15/64 gw6=fe80::2").unwrap();
    let addr = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x15];
    assert_eq!(c.address6, Address6::Static { addr, prefix: 64 });
    assert_eq!(c.gateway6.map(|gw| (gw[0], gw[15])), Some((0xfe, 2)));
}

#[test]
fn verbose_stands_alone() {
    assert!(parse("app=kv verbose -- -m 64").is_ok_and(|c| c.verbose && c.args == "-m 64"));
    assert!(parse("app=kv -- verbose").is_ok_and(|c| !c.verbose));
    assert!(parse("verbose=yes").is_err());
}

#[test]
fn the_cards_self_test_is_started_as_an_application_is() {
    let config = parse("app=nictest cores=2").unwrap();
    assert_eq!((config.app, config.selftest), (None, Some(NICTEST)));
}

#[test]
fn the_monitor_is_used_if_it_can_be_unless_told() {
    let none = parse("").unwrap();
    assert_eq!((none.vmx, none.dataplanes), (Vmx::Auto, None));
    let told = parse("vmx=on dataplanes=two").unwrap();
    assert_eq!((told.vmx, told.dataplanes), (Vmx::On, Some("two")));
    assert_eq!(parse("vmx=off").unwrap().vmx, Vmx::Off);
    assert_eq!(parse("vmx=1").unwrap_err().why, "auto, on or off is wanted");
}

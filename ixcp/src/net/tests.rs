//! What is accepted as a network, a forward, an address, and what the errors say.
use super::*;

#[test]
fn back_ends_are_written_as_the_help_says() {
    assert_eq!("user".parse(), Ok(Backend::User));
    assert_eq!("stream=/run/p".parse(), Ok(Backend::Stream("/run/p".into())));
    assert_eq!("tap=ix0".parse(), Ok(Backend::Tap("ix0".to_owned())));
    for bad in ["", "usr", "tap", "tap=", "stream=", "tap=a/b", "tap=a,b", "tap=sixteen-letters-"] {
        assert!(bad.parse::<Backend>().is_err(), "{bad}");
    }
}

#[test]
fn forwards_listen_on_loopback_unless_an_address_is_given() {
    let text = |s: &str| s.parse::<Forward>().map(|f| f.to_string());
    assert_eq!(text("11211:11211").unwrap(), "127.0.0.1:11211:11211/tcp");
    assert_eq!(text("0.0.0.0:80:8080/tcp").unwrap(), "0.0.0.0:80:8080/tcp");
    assert_eq!(text("53:5353/udp").unwrap(), "127.0.0.1:53:5353/udp");
    for bad in ["", "1", "1:", ":1", "1:0", "1:65536", "1:2/sctp", "x:1:2", "1:2:3:4", "1:2/"] {
        assert!(text(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_port_that_is_taken_is_an_error_that_names_a_way_out() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = format!("{port}:7").parse::<Forward>().unwrap().claim().unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains(&format!("127.0.0.1:{port}")) && text.contains("--forward"), "{text}");
}

#[test]
fn host_port_0_becomes_a_free_port() {
    for spec in ["0:7", "0:7/udp"] {
        assert_ne!(spec.parse::<Forward>().unwrap().claim().unwrap().forward.host.port(), 0);
    }
}

#[test]
fn a_free_port_is_held_for_who_asks_for_it_as_qemu_does() {
    let claimed = "0:7".parse::<Forward>().unwrap().claim().unwrap();
    let host = claimed.forward.host;
    let other = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).unwrap();
    let taken = bind(other.as_raw_fd(), &SockaddrIn::from(host));
    assert_eq!(taken, Err(nix::errno::Errno::EADDRINUSE));
    // The standard library says SO_REUSEADDR, as QEMU does.
    let listener = TcpListener::bind(host).unwrap();
    assert!(std::net::TcpStream::connect(host).is_ok() && listener.accept().is_ok());
}

#[test]
fn addresses_are_dhcp_or_carry_a_prefix() {
    assert_eq!("dhcp".parse(), Ok(Address::Dhcp));
    assert_eq!("10.0.2.15/24".parse::<Address>().unwrap().to_string(), "10.0.2.15/24");
    for bad in ["10.0.2.15", "10.0.2.15/33", "10.0.2.15/0", "10.0.2/24", "fe80::1/64"] {
        assert!(bad.parse::<Address>().is_err(), "{bad}");
    }
}

#[test]
fn tap_interfaces_are_told_apart_from_others() {
    let sys = temp_dir::TempDir::new().unwrap();
    let make = |name: &str, flags: Option<&str>| {
        let dir = sys.path().join("class/net").join(name);
        std::fs::create_dir_all(&dir).unwrap();
        flags.inspect(|f| std::fs::write(dir.join("tun_flags"), f).unwrap());
    };
    make("tap0", Some("0x1002\n"));
    make("tap1", Some("0x1102\n"));
    make("tun0", Some("0x1001\n"));
    make("eth0", None);
    assert!(!find_tap(sys.path(), "tap0").unwrap().multi_queue);
    assert!(find_tap(sys.path(), "tap1").unwrap().multi_queue);
    let text = |name| format!("{:#}", find_tap(sys.path(), name).unwrap_err());
    assert!(text("tun0").contains("TUN"));
    assert!(text("eth0").contains("not a TAP"));
    assert!(text("tap9").contains("ip tuntap add dev tap9 mode tap multi_queue"));
}

#[test]
fn a_stream_needs_a_listening_peer() {
    let dir = temp_dir::TempDir::new().unwrap();
    let path = dir.path().join("peer");
    assert!(check_stream(&path).unwrap_err().to_string().contains("start it first"));
    std::fs::write(&path, "").unwrap();
    assert!(check_stream(&path).unwrap_err().to_string().contains("not a Unix socket"));
    std::fs::remove_file(&path).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    check_stream(&path).unwrap();
}

//! The command line and the meaning of exit statuses.
use super::*;
use std::os::unix::process::ExitStatusExt;

fn machine(net: Backend) -> Machine {
    Machine {
        qemu: "qemu-system-x86_64".into(),
        kernel: "images/kernel".into(),
        archive: "images/initrd".into(),
        cores: 2,
        memory_mib: 512,
        accel: Accelerator::Tcg,
        net,
        card: Card::Virtio,
        queues: 1,
        rss: true,
        iommu: false,
        forwards: vec!["11211:11211".parse().unwrap(), "0.0.0.0:7:9/udp".parse().unwrap()],
        address: "10.0.2.15/24".parse().unwrap(),
        address6: Address6::Auto,
        append: "app=kv cores=2".to_owned(),
        control: "/run/a,b/control".into(),
        control_by: Control::Shared,
        serial: "/run/a,b/serial.log".into(),
        extra: vec!["-icount".into(), "shift=0".into()],
    }
}

fn value_of(args: &[OsString], flag: &str, start: &str) -> String {
    let mut found = args.windows(2).filter(|w| w[0] == flag);
    let found = found.find(|w| w[1].to_string_lossy().starts_with(start));
    found.unwrap_or_else(|| panic!("no {flag} {start}… in {args:?}"))[1].to_string_lossy().into()
}

#[test]
fn the_user_network_forwards_every_port_to_the_guests_address() {
    let args = machine(Backend::User).args();
    assert_eq!(
        value_of(&args, "-netdev", "user"),
        "user,id=net,hostfwd=tcp:127.0.0.1:11211-10.0.2.15:11211,\
         hostfwd=udp:0.0.0.0:7-10.0.2.15:9"
    );
    assert_eq!(
        value_of(&args, "-device", "virtio"),
        "virtio-net-pci,netdev=net,disable-legacy=on,romfile="
    );
}

#[test]
fn a_card_of_another_program_sees_the_memory_and_is_cabled_to_the_network() {
    let card = Card::VfioUser { socket: "/run/a,b/nic".into(), wire: "/run/a,b/wire".into() };
    let user = Machine { card, ..machine(Backend::User) };
    let args = user.args();
    assert_eq!(value_of(&args, "-machine", "q35"), "q35,memory-backend=ram");
    assert_eq!(
        value_of(&args, "-object", "memory-backend-memfd"),
        "memory-backend-memfd,id=ram,size=512M,share=on"
    );
    assert!(value_of(&args, "-netdev", "user").contains("hostfwd=tcp:127.0.0.1:11211"));
    assert_eq!(
        value_of(&args, "-netdev", "stream"),
        "stream,id=wire,server=off,addr.type=unix,addr.path=/run/a,,b/wire"
    );
    value_of(&args, "-netdev", "hubport,id=hub-net,hubid=0,netdev=net");
    value_of(&args, "-netdev", "hubport,id=hub-wire,hubid=0,netdev=wire");
    assert_eq!(
        value_of(&args, "-device", "{"),
        r#"{"driver":"vfio-user-pci","socket":{"path":"/run/a,b/nic","type":"unix"}}"#
    );
    // Its own program reaches other networks.
    let tap = Machine { net: Backend::Tap("ix0".into()), ..user };
    assert!(!tap.args().contains(&"-netdev".into()));
}

#[test]
fn a_card_of_this_machine_is_all_the_network_there_is() {
    let card = Card::Vfio("0002:41:00.1".parse().unwrap());
    let args = Machine { card, accel: Accelerator::Kvm, ..machine(Backend::User) }.args();
    assert_eq!(value_of(&args, "-device", "vfio"), "vfio-pci,host=0002:41:00.1,rombar=0");
    assert_eq!(value_of(&args, "-cpu", ""), "host");
    assert!(!args.contains(&"-netdev".into()));
    assert_eq!(value_of(&machine(Backend::User).args(), "-cpu", ""), "max");
}

#[test]
fn the_kernels_own_card_is_nothing_to_qemu() {
    let args = Machine { card: Card::Loopback, ..machine(Backend::User) }.args();
    assert!(!args.contains(&"-netdev".into()), "{args:?}");
    let devices = args.windows(2).filter(|w| w[0] == "-device").map(|w| w[1].to_string_lossy());
    assert!(devices.into_iter().all(|d| !d.contains("net") && !d.contains("vfio")), "{args:?}");
}

#[test]
fn without_ipv6_the_user_network_has_none_either() {
    let args = Machine { address6: Address6::Off, ..machine(Backend::User) }.args();
    assert!(args.iter().any(|a| a.to_str().is_some_and(|a| a.starts_with("user,id=net,ipv6=off"))));
}

#[test]
fn with_dhcp_the_forward_names_no_address() {
    let args = Machine { address: Address::Dhcp, ..machine(Backend::User) }.args();
    assert!(value_of(&args, "-netdev", "user").contains("hostfwd=tcp:127.0.0.1:11211-:11211"));
}

#[test]
fn a_multi_queue_tap_gets_queues_vectors_and_rss() {
    let args = Machine { queues: 2, ..machine(Backend::Tap("ix0".into())) }.args();
    assert!(
        value_of(&args, "-netdev", "tap")
            .ends_with("ifname=ix0,script=no,downscript=no,vhost=off,queues=2")
    );
    assert!(value_of(&args, "-device", "virtio").ends_with(",mq=on,rss=on,vectors=6"));
    let tap = machine(Backend::Tap("ix0".into()));
    let args = Machine { queues: 2, rss: false, ..tap }.args();
    assert!(value_of(&args, "-device", "virtio").ends_with(",mq=on,rss=off,vectors=6"));
}

#[test]
fn an_iommu_comes_before_the_card_which_goes_through_it() {
    let args = Machine { iommu: true, ..machine(Backend::User) }.args();
    let at = |start: &str| args.iter().position(|arg| arg.to_string_lossy().starts_with(start));
    assert!(at("intel-iommu,caching-mode=on").expect("an IOMMU") < at("virtio").expect("a card"));
    assert!(value_of(&args, "-device", "virtio").contains(",iommu_platform=on"));
    let args = machine(Backend::User).args();
    assert!(!args.iter().any(|arg| arg.to_string_lossy().contains("iommu")));
}

#[test]
fn versions_are_read_from_what_qemu_says_of_itself() {
    assert_eq!(major_version("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg)\n"), Some(7));
    assert_eq!(major_version("QEMU emulator version 10.0.2\n"), Some(10));
    assert_eq!(major_version("something else"), None);
    assert!(!has_good_rss(Path::new("/nonexistent")));
}

#[test]
fn commas_in_paths_are_doubled() {
    let args = machine(Backend::Stream("/p,q".into())).args();
    assert!(value_of(&args, "-netdev", "stream").ends_with("addr.path=/p,,q"));
    assert!(value_of(&args, "-object", "memory").ends_with("mem-path=/run/a,,b/control"));
    assert!(value_of(&args, "-chardev", "file").ends_with("path=/run/a,,b/serial.log"));
}

#[test]
fn extra_arguments_come_last_and_the_shell_form_is_quoted() {
    let shell = machine(Backend::User).shell();
    assert!(shell.ends_with("-append 'app=kv cores=2' -icount shift=0"), "{shell}");
    assert_eq!(quote("it's"), r"'it'\''s'");
    assert_eq!(quote(""), "''");
}

#[test]
fn the_kernels_command_line_says_what_was_asked_for() {
    let args = ["-m".to_owned(), "64".to_owned()];
    let boot = Boot {
        app: "kv",
        cores: 4,
        address: "10.0.2.15/24".parse().unwrap(),
        gateway: Some(Ipv4Addr::new(10, 0, 2, 2)),
        address6: Address6::Auto,
        gateway6: None,
        idle: Some("poll"),
        acl: None,
        batch: Some(16),
        extra: Some("log=debug"),
        args: &args,
    };
    assert_eq!(
        boot.line().unwrap(),
        "app=kv cores=4 ip=10.0.2.15/24 gw=10.0.2.2 batch=16 idle=poll log=debug -- -m 64"
    );
    let fixed = "2001:db8::15/64".parse().unwrap();
    let gateway6 = Some("fe80::2".parse().unwrap());
    let line = Boot { address6: fixed, gateway6, ..boot.clone() }.line().unwrap();
    assert!(line.contains(" gw=10.0.2.2 ip6=2001:db8::15/64 gw6=fe80::2 batch"), "{line}");
    let line = Boot { address6: Address6::Off, ..boot.clone() }.line().unwrap();
    assert!(line.contains(" ip6=off "), "{line}");
    let odd = ["two words".to_owned()];
    assert!(Boot { args: &odd, ..boot.clone() }.line().is_err());
    assert!(Boot { extra: Some("a\nb"), ..boot }.line().is_err());
}

#[test]
fn exit_statuses_have_meanings() {
    let ending = |code: i32| Ending::of(ExitStatus::from_raw(code << 8), false);
    assert_eq!(ending(33), Ending::Ok);
    assert_eq!((ending(35).exit_code(), ending(37).exit_code()), (3, 4));
    assert_eq!(ending(1).exit_code(), 5);
    assert!(ending(0).text().contains("triple fault"));
    let term = ExitStatus::from_raw(15);
    assert_eq!(Ending::of(term, true), Ending::Killed);
    assert_eq!(Ending::of(term, false).exit_code(), 5);
    assert_eq!(Ending::of(ExitStatus::from_raw(35 << 8), true), Ending::Panic);
}

#[test]
fn a_missing_qemu_is_an_error_that_says_how_to_get_it() {
    let error = find(None, Some("/nonexistent".into())).unwrap_err().to_string();
    assert!(error.contains("apt-get install") && error.contains("--qemu"), "{error}");
    assert!(find(Some(Path::new("/nonexistent/q")), None).is_err());
    assert_eq!(find(Some(Path::new("sh")), Some("/bin".into())).unwrap(), Path::new("/bin/sh"));
}

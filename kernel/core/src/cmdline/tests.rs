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
fn mistakes_name_the_word() {
    for bad in [
        "aap=kv",
        "kv",
        "cores=0",
        "cores=65",
        "cores=two",
        "ip=10.0.2.15",
        "ip=10.0.2.15/33",
        "ip=10.0.2/24",
        "gw=1.2.3",
        "batch=0",
        "batch=1025",
        "idle=sleep",
        "log=loud",
        "onexit=",
        "bound=0",
        "heap=1",
        "tcp=moon",
    ] {
        let line = std::format!("cores=1 {bad} idle=poll");
        assert_eq!(parse(&line).unwrap_err().word, bad);
    }
}

#[test]
fn verbose_stands_alone() {
    assert!(parse("app=kv verbose -- -m 64").is_ok_and(|c| c.verbose && c.args == "-m 64"));
    assert!(parse("app=kv -- verbose").is_ok_and(|c| !c.verbose));
    assert!(parse("verbose=yes").is_err());
}

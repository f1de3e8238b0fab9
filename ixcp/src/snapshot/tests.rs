//! Reading a page: what is right, what is corrupted, what changes meanwhile.
use super::*;
use crate::fake::{Kernel, scene};
use ix_abi::Status;

#[test]
fn every_word_comes_out_under_its_name() {
    let scene = scene(2);
    let snapshot = read(&scene.page).unwrap();
    assert_eq!((snapshot.state, snapshot.app.as_str()), ("ready", "kv"));
    assert_eq!(snapshot.ipv4, Some(Ipv4Addr::new(10, 0, 2, 15)));
    let v6 = |text: &str| (text.parse::<Ipv6Addr>().unwrap(), 64);
    assert_eq!(snapshot.ipv6, [v6("fe80::2"), v6("2001:db8::5")]);
    assert_eq!(snapshot.mac, "52:54:00:12:34:56");
    assert_eq!(snapshot.version, "4.1");
    assert_eq!(snapshot.cores.len(), 2);
    for (i, counter) in Counter::ALL.iter().enumerate() {
        assert_eq!(snapshot.cores[1].counter(*counter), 1000 + i as u64);
        assert_eq!(snapshot.total.counters.get(counter.name()), 1000 + 2 * i as u64);
    }
    assert_eq!(snapshot.total.drops.get("tcp_no_port"), 7);
    assert_eq!(
        snapshot.cores.iter().map(|c| (c.serves, c.groups)).collect::<Vec<_>>(),
        [(true, 64); 2]
    );
    assert_eq!(snapshot.moves, 5);
    assert_eq!(snapshot.total.batches[1], 20);
}

#[test]
fn json_has_the_same_names_and_no_number_that_loses_digits() {
    let scene = scene(1);
    let json = serde_json::to_value(read(&scene.page).unwrap()).unwrap();
    assert_eq!(json["cores"][0]["counters"]["tx_packets"], 2);
    assert_eq!(json["cores"][0]["drops"]["tcp_no_port"], 3);
    assert_eq!(json["epoch"], "0x000000000000feed");
    assert_eq!(json["ipv4"], "10.0.2.15");
    assert_eq!(json["batch_buckets"][4], 8);
}

#[test]
fn a_page_that_no_kernel_has_written_is_told_apart_from_a_corrupted_one() {
    let scene = scene(1);
    scene.page.store(header::MAGIC, 0);
    assert_eq!(read(&scene.page).unwrap_err(), PageError::Empty);
    scene.page.store(header::MAGIC, 1);
    assert_eq!(read(&scene.page).unwrap_err(), PageError::Magic(1));
}

#[test]
fn another_major_version_is_refused_and_a_newer_minor_one_is_not() {
    let scene = scene(1);
    scene.page.store(header::VERSION, 5);
    let message = read(&scene.page).unwrap_err().to_string();
    assert!(message.contains("version 5.0, this ixcp speaks 4.x"), "{message}");
    scene.page.store(header::VERSION, 4 | 7 << 16);
    assert_eq!(read(&scene.page).unwrap().version, "4.7");
}

#[test]
fn counts_that_cannot_be_are_corruption_not_a_crash() {
    for (offset, what) in [
        (header::CORES, "cores"),
        (header::GROUPS, "flow groups"),
        (header::PREFIX, "prefix"),
        (header::COUNTERS, "counters"),
        (header::DROPS, "drop reasons"),
        (header::BATCH_BUCKETS, "batch buckets"),
        (OWNERS_BASE + 8, "core of a flow group"),
    ] {
        let scene = scene(1);
        scene.page.store(offset, u64::MAX);
        let message = read(&scene.page).unwrap_err().to_string();
        assert!(message.contains("corrupted") && message.contains(what), "{message}");
    }
}

#[test]
fn any_single_corrupted_header_word_is_an_error_or_a_readable_page() {
    for offset in (0..0x300).step_by(8) {
        for garbage in [u64::MAX, 1 << 63, 0x1b5b_324a_0000_0000, 0] {
            let scene = scene(2);
            scene.page.store(offset, garbage);
            if let Ok(snapshot) = read(&scene.page) {
                let text = crate::render::status("x", &snapshot);
                assert!(!text.contains('\x1b'), "word {offset:#x} reached the terminal: {text}");
            }
        }
    }
}

#[test]
fn counters_of_a_newer_kernel_are_ignored_and_missing_ones_read_as_zero() {
    let scene = scene(1);
    scene.page.store(header::COUNTERS, Counter::COUNT as u64 + 5);
    assert_eq!(read(&scene.page).unwrap().cores[0].counters.0.len(), Counter::COUNT);
    scene.page.store(header::COUNTERS, 2);
    let snapshot = read(&scene.page).unwrap();
    assert_eq!(snapshot.cores[0].counters.0.len(), 2);
    assert_eq!(snapshot.cores[0].counter(Counter::TxPackets), 0);
}

#[test]
fn a_read_that_never_finds_a_quiet_moment_ends_and_says_so() {
    let scene = scene(1);
    let noisy = Page::open(&scene.file).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            let published = control::core_offset(0) + core_block::PUBLISHED;
            let mut n = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                n += 1;
                noisy.store(published, n);
            }
        });
        // Whether a given read is torn is up to the scheduler; that every read ends is not.
        for _ in 0..1000 {
            read(&scene.page).unwrap();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert!(!read(&scene.page).unwrap().cores[0].torn);
}

#[test]
fn a_heartbeat_that_moves_is_life_and_one_that_stands_is_not() {
    let scene = scene(1);
    assert!(!watch_heartbeat(&scene.page, Duration::from_millis(20)));
    let _kernel = Kernel::start(&scene, |_, _| (Status::Ok, 0));
    assert!(watch_heartbeat(&scene.page, Duration::from_secs(5)));
}

#[test]
fn buckets_begin_where_the_contract_says() {
    for bucket in 1..BATCH_BUCKETS {
        let floor = bucket_floor(bucket) as usize;
        assert_eq!(ix_abi::stats::batch_bucket(floor), bucket);
        assert_eq!(ix_abi::stats::batch_bucket(floor - 1), bucket - 1);
    }
}

#[test]
fn the_gauges_are_those_that_the_contract_names() {
    let contract = include_str!("../../../docs/control.md");
    let (_, list) = contract.split_once("except the gauges:").expect("the sentence about gauges");
    let list = list.split_once('.').expect("its end").0;
    let named: Vec<&str> = list.split('`').skip(1).step_by(2).collect();
    assert_eq!(named, GAUGES.map(Counter::name));
}

use super::*;
use crate::fake::scene;
use ix_abi::histogram::{bucket, floor_ns};

#[test]
fn a_block_is_read_as_the_kernel_has_written_it() {
    let scene = scene(2);
    assert_eq!(read(&scene.page, 0), None, "an older kernel does not measure");
    scene.page.store(header::HISTOGRAM_BUCKETS, BUCKETS as u64);
    let base = measure_offset(1);
    for (offset, value) in [
        (word::DELAY + bucket(1_000) * 8, 98),
        (word::DELAY + bucket(50_000) * 8, 2),
        (word::LOOP + bucket(9_000) * 8, 7),
        (word::LOOP_SUM_NS, 63_000),
        (word::WAKES, 3),
        (window::NUMBER, 5),
        (window::DELAY_P99_NS, 77),
    ] {
        scene.page.store(base + offset, value);
    }
    let read = read(&scene.page, 1).unwrap();
    let delay = &read.queueing_delay;
    let end = |ns: u64| floor_ns(bucket(ns) + 1);
    assert_eq!((delay.count, delay.p50_ns, delay.p99_ns), (100, end(1_000), end(50_000)));
    assert_eq!(delay.max_ns, end(50_000));
    assert!((190_000..210_000).contains(&delay.sum_ns), "{}", delay.sum_ns);
    assert_eq!((read.loop_time.count, read.loop_time.sum_ns), (7, 63_000));
    assert_eq!((read.user_time.count, read.user_time.p99_ns), (0, 0));
    assert_eq!((read.wakes, read.window.number, read.window.delay_p99_ns), (3, 5, 77));
}

#[test]
fn nonsense_is_shown_and_breaks_nothing() {
    let scene = scene(1);
    scene.page.store(header::HISTOGRAM_BUCKETS, BUCKETS as u64);
    for at in (8..ix_abi::control::MEASURE_STRIDE).step_by(8) {
        scene.page.store(measure_offset(0) + at, u64::MAX - at as u64);
    }
    let read = read(&scene.page, 0).unwrap();
    assert!(read.queueing_delay.max_ns > 0);
    let _any = load(&scene.page, 1, 511);
    // As many buckets as this program does not know are none.
    scene.page.store(header::HISTOGRAM_BUCKETS, 177);
    assert_eq!(super::read(&scene.page, 0), None);
}

#[test]
fn the_load_of_a_group_is_of_all_cores() {
    let scene = scene(3);
    for core in 0..3 {
        let base = measure_offset(core) + 17 * 8;
        scene.page.store(base + word::GROUP_FRAMES, 10 << core);
        scene.page.store(base + word::GROUP_BUSY_NS, 100 << core);
    }
    assert_eq!(load(&scene.page, 3, 17), Load { frames: 70, busy_ns: 700 });
    assert_eq!(load(&scene.page, 3, 18), Load::default());
}

#[test]
fn times_are_short() {
    let texts = [0, 999, 1_000, 12_345, 999_499, 4_560_000, 1_200_000_000].map(short);
    assert_eq!(texts, ["0 ns", "999 ns", "1.00 us", "12.3 us", "999 us", "4.56 ms", "1.20 s"]);
}

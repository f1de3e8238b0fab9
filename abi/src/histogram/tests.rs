use super::*;

#[test]
fn buckets_are_where_their_floors_say_and_leave_no_gap() {
    for at in 0..BUCKETS {
        let (floor, next) = (floor_ns(at), floor_ns(at + 1));
        assert!(floor < next, "bucket {at}");
        assert_eq!(bucket(floor), at);
        assert_eq!(bucket(next - 1), at, "bucket {at} ends at {next}");
    }
    assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    assert_eq!(floor_ns(BUCKETS - 1), 15 << 26);
}

#[test]
fn a_value_is_known_to_an_eighth_of_itself() {
    for ns in (1024..10_000_000).step_by(997) {
        let width = floor_ns(bucket(ns) + 1) - floor_ns(bucket(ns));
        assert!(width * 8 <= ns, "{ns} ns in a bucket of {width} ns");
    }
}

#[test]
fn quantiles_are_ends_of_buckets() {
    let mut counts = [0; BUCKETS];
    assert_eq!((quantile_ns(&counts, 990), max_ns(&counts)), (0, 0));
    counts[bucket(100)] = 98;
    counts[bucket(10_000)] = 1;
    counts[bucket(1_000_000)] = 1;
    assert_eq!(quantile_ns(&counts, 500), 128);
    assert_eq!(quantile_ns(&counts, 980), 128);
    assert_eq!(quantile_ns(&counts, 990), floor_ns(bucket(10_000) + 1));
    assert_eq!(quantile_ns(&counts, 1000), floor_ns(bucket(1_000_000) + 1));
    assert_eq!(max_ns(&counts), floor_ns(bucket(1_000_000) + 1));
    // Counts that nobody can have counted.
    assert!(quantile_ns(&[u64::MAX; BUCKETS], 990) > 0);
    assert_eq!(quantile_ns(&[], 990), 0);
}

use super::*;

#[test]
fn what_is_put_off_is_never_late_and_hardly_early() {
    for now in [0, 1, 12_345_678, u64::from(u32::MAX) * 77].map(Instant) {
        for after in [1, 16_384, 1_000_000, 40_000_000, 67_108_864, 200_000_000, 60_000_000_000] {
            let at = now + Duration(after);
            let early = rather_early(at, now);
            assert!(early <= at && early > now, "{after} after {}: {}", now.0, early.0);
            assert!(at.since(early).0 <= after / 15, "{after} after {}: {}", now.0, early.0);
        }
    }
}

#[test]
fn many_are_looked_at_together() {
    let now = Instant(987_654_321);
    let ends = (0..1_000).map(|us| rather_early(now + Duration::from_us(200_000 + 4 * us), now));
    let mut ends: alloc::vec::Vec<Instant> = ends.collect();
    ends.dedup();
    assert!(ends.len() <= 2, "{ends:?}");
}

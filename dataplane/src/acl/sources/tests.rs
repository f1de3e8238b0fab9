use super::*;
use alloc::collections::BTreeMap;

fn source(n: u32) -> IpAddress {
    IpAddress::v4(n.to_be_bytes())
}

#[test]
fn a_source_gets_its_burst_at_once_and_then_its_rate() {
    let rates = Rates::new(SipKey([1, 2])).unwrap();
    let mut now = Instant(5_000_000_000);
    let at_once = (0..100).filter(|_| rates.admit(3, source(1), 100, 20, now)).count();
    assert_eq!(at_once, 20);
    let mut later = 0;
    for _ in 0..10_000 {
        now.0 += 1_000_000;
        later += u32::from(rates.admit(3, source(1), 100, 20, now));
    }
    assert!((990..=1000).contains(&later), "{later} in ten seconds at 100 a second");
    // Others, and the same by another rule, have buckets of their own.
    assert!(rates.admit(3, source(2), 100, 20, now) && rates.admit(4, source(1), 100, 20, now));
    // After a silence of two weeks the bucket is full, and no fuller.
    now.0 += 1 << 50;
    let again = (0..100).filter(|_| rates.admit(3, source(1), 100, 20, now)).count();
    assert_eq!(again, 20);
}

#[test]
fn rates_of_any_size_are_kept() {
    for (rate, burst) in [(1, 1), (1, 1000), (999_999, 1), (1_000_000, 1_000_000), (7, 3)] {
        let rates = Rates::new(SipKey([9, rate.into()])).unwrap();
        let now = Instant(77);
        let tries = 2 * burst.min(50_000);
        let admitted = (0..tries).filter(|_| rates.admit(0, source(1), rate, burst, now)).count();
        assert_eq!(admitted as u32, burst.min(tries), "{rate}/s burst {burst}");
    }
}

#[test]
fn a_flood_of_sources_cannot_fill_the_table_of_rates() {
    let rates = Rates::new(SipKey([1, 2])).unwrap();
    let now = Instant(1_000_000_000);
    for n in 0..200_000 {
        rates.admit(0, source(n), 1, 1, now);
    }
    // Some that came before are forgotten, never is a new one refused.
    assert!((0..1000).all(|n| rates.admit(0, source(1 << 24 | n), 1, 1, now)));
}

#[test]
fn connections_are_counted_as_a_map_would_and_summed_over_cores() {
    let mut views = Connections::new(SipKey([3, 4]), 3).unwrap();
    let mut model: BTreeMap<(usize, u32), u32> = BTreeMap::new();
    let mut rng = crate::rng::Rng::from_seed(1);
    for _ in 0..50_000 {
        let (core, n) = (rng.below(3) as usize, rng.below(500) as u32);
        let count = model.entry((core, n)).or_default();
        if rng.chance(1, 2) {
            assert!(views[core].enter(7, source(n)));
            *count += 1;
        } else if *count > 0 {
            views[core].leave(7, source(n));
            *count -= 1;
        }
        let sum: u32 = (0..3).filter_map(|core| model.get(&(core, n))).sum();
        assert_eq!(views[rng.below(3) as usize].sum(7, source(n)), sum);
    }
    for ((core, n), count) in model {
        (0..count).for_each(|_| views[core].leave(7, source(n)));
    }
    assert!(views[0].all.iter().flatten().all(|entry| entry.load(Ordering::Relaxed) == 0));
}

#[test]
fn what_cannot_be_counted_is_refused() {
    let mut view = Connections::new(SipKey([3, 4]), 1).unwrap().remove(0);
    let admitted = (0..100_000).filter(|n| view.enter(0, source(*n))).count();
    assert!(admitted <= ENTRIES && admitted > ENTRIES * 9 / 10, "{admitted}");
}

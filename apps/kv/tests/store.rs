//! The store by itself: against a simple model, under memory pressure, from many threads.
mod common;

use common::rng::Rng;
use kv::limits::PAGE_BYTES;
use kv::store::{Arithmetic, Delta, ItemRef, Store, Stored, Update};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const MIB: usize = 1 << 20;

fn put(store: &Store, key: &[u8], value: &[u8], update: Update, expires: u32, now: u32) -> Stored {
    let item = store.allocate(store.hash(key), key, 0, expires, value.len(), now);
    let mut item = item.expect("memory for an item");
    store.fill(&mut item, 0, value);
    store.fill(&mut item, value.len(), b"\r\n");
    store.store(item, update, now)
}

fn arithmetic(store: &Store, key: &[u8], incr: bool, by: u64, now: u32) -> Arithmetic {
    let delta = Delta { incr, by, expected: 0 };
    store.arithmetic(store.hash(key), key, delta, now, &mut |_, _| {})
}

fn get(store: &Store, key: &[u8], now: u32) -> Option<Vec<u8>> {
    store.get(store.hash(key), key, now, |item| item.value().to_vec()).ok()
}

fn share(store: &Store, key: &[u8], now: u32) -> Option<(ItemRef, Vec<u8>)> {
    store.get(store.hash(key), key, now, |item| (item.share(), item.reply().to_vec())).ok()
}

#[test]
fn the_store_behaves_as_a_map_with_expiry() {
    for seed in 1..=20 {
        let mut rng = Rng::new(seed);
        let store = Store::with_capacity(100 * MIB, seed);
        let mut model: HashMap<Vec<u8>, (Vec<u8>, u32)> = HashMap::new();
        let mut now = 2;
        // References that are out, with what they must show.
        let mut out: Vec<(ItemRef, Vec<u8>)> = Vec::new();
        for _ in 0..20_000 {
            now += u32::from(rng.one_in(50));
            let key = format!("key{}", rng.below(200)).into_bytes();
            let live = model.get(&key).filter(|(_, expires)| *expires == 0 || *expires > now);
            let live = live.cloned();
            match rng.below(12) {
                0..=3 => {
                    let len = if rng.one_in(50) { rng.below(20_000) } else { rng.below(300) };
                    let value = rng.bytes(len);
                    let expires = if rng.one_in(3) { now + rng.below(20) as u32 } else { 0 };
                    let expires = if expires == now { 1 } else { expires };
                    let update = [Update::Set, Update::Add, Update::Replace][rng.below(3)];
                    let stored = match update {
                        Update::Add => live.is_none(),
                        Update::Replace => live.is_some(),
                        _ => true,
                    };
                    let expected = if stored { Stored::Stored } else { Stored::NotStored };
                    assert_eq!(put(&store, &key, &value, update, expires, now), expected);
                    if stored {
                        model.insert(key, (value, expires));
                    }
                }
                4 | 5 => {
                    let (value, after) = (rng.bytes(20), rng.one_in(2));
                    let update = if after { Update::Append } else { Update::Prepend };
                    let stored = put(&store, &key, &value, update, 0, now);
                    assert_eq!(stored == Stored::Stored, live.is_some());
                    if let Some((old, expires)) = live {
                        let both = if after { [old, value] } else { [value, old] };
                        model.insert(key, (both.concat(), expires));
                    }
                }
                6 => {
                    assert_eq!(store.delete(store.hash(&key), &key, now), live.is_some());
                    model.remove(&key);
                }
                7 => {
                    let number = rng.next() >> rng.below(64);
                    let text = number.to_string().into_bytes();
                    put(&store, &key, &text, Update::Set, 0, now);
                    let result = arithmetic(&store, &key, false, 77, now);
                    let less = number.saturating_sub(77);
                    assert_eq!(result, Arithmetic::Value(less));
                    let padded = format!("{less:<width$}", width = text.len());
                    model.insert(key, (padded.into_bytes(), 0));
                }
                8 => out.extend(share(&store, &key, now)),
                9 if !out.is_empty() => {
                    let (item, expected) = out.swap_remove(rng.below(out.len()));
                    assert_eq!(store.copy(&item, 0, expected.len()), expected);
                    store.release(item);
                }
                10 if rng.one_in(400) => {
                    store.flush(now);
                    model.clear();
                }
                _ => assert_eq!(get(&store, &key, now), live.map(|(value, _)| value)),
            }
        }
        for (item, expected) in out {
            assert_eq!(store.copy(&item, 0, expected.len()), expected);
            store.release(item);
        }
        // What was flushed or has expired is still there until someone looks.
        for n in 0..200 {
            let key = format!("key{n}").into_bytes();
            store.delete(store.hash(&key), &key, now);
        }
        let figures = store.figures();
        assert_eq!(figures.evictions, 0);
        assert_eq!((figures.used_chunks, figures.curr_items, figures.bytes), (0, 0, 0));
    }
}

#[test]
fn the_coldest_items_go_first() {
    let store = Store::with_capacity(8 * MIB, 1);
    let value = vec![b'v'; 1000];
    let key = |n: usize| format!("key{n}").into_bytes();
    let mut stored = 0;
    while store.figures().evictions == 0 {
        put(&store, &key(stored), &value, Update::Set, 0, 2);
        stored += 1;
    }
    let fits = stored - 1;
    assert!(fits > 5700, "only {fits} items of 1,000 bytes in 8 MiB");
    for n in stored..stored + 1000 {
        // What is in use survives, old as it is.
        assert!(get(&store, &key(100), 2).is_some(), "evicted when {n} came");
        put(&store, &key(n), &value, Update::Set, 0, 2);
    }
    let gone = (0..stored + 1000).filter(|&n| get(&store, &key(n), 2).is_none()).count();
    assert_eq!(gone as u64, store.figures().evictions);
    assert!((0..500).filter(|&n| n != 100).all(|n| get(&store, &key(n), 2).is_none()));
    assert!((stored..stored + 1000).all(|n| get(&store, &key(n), 2).is_some()));
}

#[test]
fn memory_moves_to_the_sizes_that_are_in_use() {
    let store = Store::with_capacity(8 * PAGE_BYTES + 64, 1);
    // All memory goes to small items first.
    for n in 0..100_000 {
        put(&store, format!("s{n}").as_bytes(), b"small", Update::Set, 0, 2);
    }
    assert_eq!(store.figures().slab_global_page_pool, 0);
    // Then the largest ones come: each needs a page.
    let large = vec![b'L'; MIB - 100];
    for n in 0..20 {
        put(&store, format!("l{n}").as_bytes(), &large, Update::Set, 0, 3);
        assert_eq!(get(&store, format!("l{n}").as_bytes(), 3).as_deref(), Some(&large[..]));
    }
    // And small ones again.
    for n in 0..200_000 {
        put(&store, format!("t{n}").as_bytes(), b"small", Update::Set, 0, 100_000);
    }
    let kept = (0..200_000).filter(|n| get(&store, format!("t{n}").as_bytes(), 100_000).is_some());
    assert!(kept.count() > 50_000, "{:?}", store.figures());
    assert!(store.figures().slabs_moved >= 2);
}

#[test]
fn a_store_of_one_page_serves_all_sizes() {
    let store = Store::with_capacity(Store::smallest_memory(), 1);
    let mut rng = Rng::new(5);
    for n in 0..2000 {
        let bits = rng.below(20);
        let len = rng.below(1 << bits);
        let key = format!("key{n}");
        let value = rng.bytes(len);
        assert_eq!(put(&store, key.as_bytes(), &value, Update::Set, 0, 2), Stored::Stored);
        assert_eq!(get(&store, key.as_bytes(), 2), Some(value));
    }
}

#[test]
fn items_that_are_all_referenced_are_an_error_and_no_more() {
    let store = Store::with_capacity(3 * PAGE_BYTES + 64, 1);
    let value = vec![b'v'; MIB - 200];
    let mut out = Vec::new();
    for n in 0..3 {
        let key = format!("key{n}").into_bytes();
        put(&store, &key, &value, Update::Set, 0, 2);
        out.extend(share(&store, &key, 2));
    }
    let key = b"one more";
    assert!(store.allocate(store.hash(key), key, 0, 0, 10, 2).is_none());
    for (item, expected) in out {
        assert_eq!(store.copy(&item, 0, expected.len()), expected);
        store.release(item);
    }
    assert_eq!(put(&store, key, b"x", Update::Set, 0, 2), Stored::Stored);
}

#[test]
fn expired_items_are_reclaimed_before_live_ones_are_evicted() {
    let store = Store::with_capacity(2 * PAGE_BYTES + 64, 1);
    let mut n = 0;
    while store.figures().evictions == 0 {
        put(&store, format!("key{n}").as_bytes(), &[b'v'; 500], Update::Set, 10, 2);
        n += 1;
    }
    for n in 0..500 {
        put(&store, format!("new{n}").as_bytes(), &[b'v'; 500], Update::Set, 0, 20);
    }
    let figures = store.figures();
    assert_eq!((figures.evictions, figures.reclaimed), (1, 500));
}

/// Values are a pattern of their key and a number: a torn or foreign one is seen.
fn pattern(key: usize, number: u64, len: usize) -> Vec<u8> {
    let text = format!("{key}:{number};");
    text.as_bytes().iter().copied().cycle().take(len.max(text.len())).collect()
}

fn check(key: usize, value: &[u8]) {
    let text = String::from_utf8_lossy(value);
    let first = text.split(';').next().expect("a pattern");
    let (owner, number) = first.split_once(':').expect("a pattern");
    assert_eq!(owner, key.to_string());
    assert_eq!(value, pattern(key, number.parse().expect("a number"), value.len()));
}

#[test]
fn threads_hammer_one_small_store() {
    const KEYS: usize = 300;
    let store = Store::with_capacity(6 * PAGE_BYTES, 1);
    let stop = AtomicBool::new(false);
    let rounds = 60_000;
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (store, stop) = (&store, &stop);
            scope.spawn(move || {
                let mut rng = Rng::new(100 + thread);
                let mut out: Vec<(usize, ItemRef, usize)> = Vec::new();
                for round in 0..rounds {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let n = rng.below(KEYS);
                    let key = format!("key{n}").into_bytes();
                    match rng.below(10) {
                        0..=2 => {
                            let bits = if rng.one_in(100) { 19 } else { 12 };
                            let len = 1 << rng.below(bits);
                            let value = pattern(n, round, len);
                            let hash = store.hash(&key);
                            // All memory may be referenced for a moment.
                            if let Some(mut item) = store.allocate(hash, &key, 0, 0, value.len(), 2)
                            {
                                store.fill(&mut item, 0, &value);
                                store.fill(&mut item, value.len(), b"\r\n");
                                store.store(item, Update::Set, 2);
                            }
                        }
                        3 => {
                            store.delete(store.hash(&key), &key, 2);
                        }
                        4..=6 if out.len() < 50 => {
                            let found = store.get(store.hash(&key), &key, 2, |item| {
                                (n, item.share(), item.value_at())
                            });
                            out.extend(found);
                        }
                        7 if !out.is_empty() => {
                            let (n, item, value_at) = out.swap_remove(rng.below(out.len()));
                            let head = store.bytes(&item, 0, value_at);
                            let head = String::from_utf8_lossy(head).into_owned();
                            let len: usize =
                                head.trim_end().rsplit(' ').next().unwrap().parse().unwrap();
                            check(n, &store.copy(&item, value_at, len));
                            store.release(item);
                        }
                        _ => {
                            if let Some(value) = get(store, &key, 2) {
                                check(n, &value);
                            }
                        }
                    }
                }
                for (_, item, _) in out {
                    store.release(item);
                }
            });
        }
    });
    for n in 0..KEYS {
        let key = format!("key{n}").into_bytes();
        store.delete(store.hash(&key), &key, 2);
    }
    let figures = store.figures();
    assert_eq!((figures.used_chunks, figures.curr_items, figures.bytes), (0, 0, 0), "{figures:?}");
}

#[test]
fn concurrent_increments_all_count() {
    let store = Store::with_capacity(4 * MIB, 1);
    // A long value: the time between looking at the old item and linking the new one is long, too.
    put(&store, b"n", format!("{:<3000}", 0).as_bytes(), Update::Set, 0, 2);
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (store, done) = (&store, &done);
            scope.spawn(move || {
                let mut out = Vec::new();
                for round in 0..4_000 {
                    // References make it replace the item instead of writing in place.
                    if round % 7 == thread {
                        out.extend(share(store, b"n", 2));
                    }
                    match arithmetic(store, b"n", true, 1, 2) {
                        Arithmetic::Value(_) => done.fetch_add(1, Ordering::Relaxed),
                        Arithmetic::NoMemory => 0,
                        other => panic!("{other:?}"),
                    };
                    if out.len() > 20 {
                        for (item, expected) in out.drain(..) {
                            assert_eq!(store.copy(&item, 0, expected.len()), expected);
                            store.release(item);
                        }
                    }
                }
                for (item, _) in out {
                    store.release(item);
                }
            });
        }
    });
    let value = get(&store, b"n", 2).expect("still there");
    let number: u64 = String::from_utf8(value).unwrap().trim().parse().unwrap();
    assert_eq!(number, done.load(Ordering::Relaxed));
    assert!(number > 15_000, "{number} of 16,000 went through");
}

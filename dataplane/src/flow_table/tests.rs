use super::*;
use crate::conn::Unfolding;
use crate::mbuf::Area;
use crate::profile::Profile;
use alloc::collections::BTreeMap;

fn conns(limit: u32) -> Conns {
    let delayed_ack = Profile::INTERNET.delayed_ack;
    Conns::new(limit, Unfolding { area: Area::empty(), delayed_ack, rto_min_us: 0 })
}

fn key(n: u32) -> FlowKey {
    let remote = IpAddress::v4((n / 7).to_be_bytes());
    FlowKey { remote, remote_port: (n % 7) as u16, local_port: 80 }
}

#[test]
fn the_table_agrees_with_a_map_over_random_inserts_and_removals() {
    let mut conns = conns(1024);
    let mut table = FlowTable::new(1024, 8);
    let mut model: BTreeMap<u32, u32> = BTreeMap::new();
    let mut x: u64 = 42;
    for round in 0..60_000 {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let n = (x >> 40) as u32 % (round / 40 + 10);
        let hash = (n / 3).wrapping_mul(0x9e37_79b1) & !7 | 5;
        match model.get(&n) {
            Some(index) => {
                assert_eq!(table.find(&conns, hash, &key(n)), Some(*index));
                table.remove(&mut conns, *index);
                conns.release(*index);
                model.remove(&n);
            }
            None => {
                assert_eq!(table.find(&conns, hash, &key(n)), None);
                let Some(index) = conns.alloc() else { continue };
                conns[index].hash = hash;
                conns[index].set_key(&key(n));
                assert!(enter(&mut table, &mut conns, index));
                model.insert(n, index);
            }
        }
    }
}

#[test]
fn a_chain_has_a_limit() {
    let mut conns = conns(256);
    let mut table = FlowTable::new(256, 8);
    for n in 0..=FLOW_CHAIN_MAX {
        let index = conns.alloc().unwrap();
        conns[index].hash = 8;
        conns[index].set_key(&key(n));
        assert_eq!(enter(&mut table, &mut conns, index), n < FLOW_CHAIN_MAX);
    }
}

/// Every connection is found, whatever number of buckets is in use on the way up, and those in use are at the front.
#[test]
fn it_grows_and_finds_everything_at_every_size() {
    const COUNT: u32 = 600;
    let mut conns = conns(COUNT);
    let mut table = FlowTable::new(COUNT, 8);
    let hash = |n: u32| n.wrapping_mul(0x9e37_79b1).rotate_left(13) & !7 | 5;
    let mut longest = 0;
    for n in 0..COUNT {
        let index = conns.alloc().unwrap();
        conns[index].hash = hash(n);
        conns[index].set_key(&key(n));
        assert!(enter(&mut table, &mut conns, index));
        let found = (0..=n).filter(|n| table.find(&conns, hash(*n), &key(*n)) == Some(*n));
        assert_eq!(found.count() as u32, n + 1);
        assert_eq!(table.len(), n + 1);
        let in_use = table.buckets.iter().rposition(|head| *head != END).unwrap() as u32;
        assert!(in_use < (2 * BUCKETS_PER_CONNECTION * (n + 1)).max(FIRST), "{in_use} of {n}");
        let sharing = (0..table.half()).filter(|at| {
            let head = table.buckets[*at as usize];
            head != END && head == table.buckets[(*at + table.half()) as usize]
        });
        assert!(table.odd_from == 0 || sharing.count() == 0, "buckets share a chain for ever");
        let few = table.len > (table.mask + 1) / BUCKETS_PER_CONNECTION;
        assert!(!few || table.mask as usize + 1 == table.buckets.len(), "{} of {n}", table.mask);
        for bucket in &table.buckets {
            let chain = core::iter::successors(Some(*bucket), |at| {
                (*at != END).then(|| conns[u32::from(*at)].hash_next)
            });
            longest = longest.max(chain.count() - 1);
        }
    }
    assert!(longest < 6, "a chain of {longest}");
    for n in 0..COUNT {
        table.remove(&mut conns, n);
        table.remove(&mut conns, n);
        assert_eq!((table.len(), table.find(&conns, hash(n), &key(n))), (COUNT - n - 1, None));
    }
}

/// Enters a connection under the hash that it has.
fn enter(table: &mut FlowTable, conns: &mut Conns, index: u32) -> bool {
    let hash = conns[index].hash;
    table.insert(conns, index, hash)
}

/// Else a chain would not end: a slot that is not used says that the end is next.
#[test]
fn no_slot_has_the_number_of_a_chains_end() {
    let mut conns = conns(CAPACITY_MAX);
    while conns.alloc().is_some() {}
    assert_eq!(conns.len(), CAPACITY_MAX);
    assert!(conns.get(END.into()).is_none());
}

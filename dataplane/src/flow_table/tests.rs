use super::*;
use alloc::collections::BTreeMap;

fn key(n: u32) -> FlowKey {
    let remote = IpAddress::v4((n / 7).to_be_bytes());
    FlowKey { remote, remote_port: (n % 7) as u16, local_port: 80 }
}

#[test]
fn the_table_agrees_with_a_map_over_random_inserts_and_removals() {
    let mut conns: Slab<Conn> = Slab::new(256);
    let mut table = FlowTable::new(256, 8);
    let mut model: BTreeMap<u32, u32> = BTreeMap::new();
    let mut x: u64 = 42;
    for _ in 0..20_000 {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let n = (x >> 40) as u32 % 300;
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
                assert!(table.insert(&mut conns, index));
                model.insert(n, index);
            }
        }
    }
}

#[test]
fn a_chain_has_a_limit() {
    let mut conns: Slab<Conn> = Slab::new(256);
    let mut table = FlowTable::new(256, 8);
    for n in 0..=FLOW_CHAIN_MAX {
        let index = conns.alloc().unwrap();
        conns[index].hash = 8;
        conns[index].set_key(&key(n));
        assert_eq!(table.insert(&mut conns, index), n < FLOW_CHAIN_MAX);
    }
}

use crate::model::{CAP, FOUR_LEVELS, model, ram};
use ix_vtd::{MapError, Rights, Unit};
use proptest::prelude::*;
use std::collections::BTreeMap;

#[test]
fn nothing_is_given_twice_nor_taken_twice_nor_beyond_what_is_addressed() {
    let mut ram = ram();
    let mut domain = Unit::open(model(CAP)).expect("a unit").domain(&mut ram).expect("a domain");
    domain.give(&mut ram, 0x20_0000, 0x20_0000, Rights::Write).expect("given");
    let occupied = Err(MapError::Occupied { page: 0x20_0000 });
    assert_eq!(domain.give(&mut ram, 0x1f_f000, 0x2000, Rights::Read), occupied);
    assert_eq!(domain.take(&mut ram, 0x1f_f000, 0x1000), Ok(()), "what was before it");
    let missing = |page| Err(MapError::Missing { page });
    assert_eq!(domain.take(&mut ram, 0x20_1000, 0x1000), missing(0x20_1000), "within a large page");
    assert_eq!(domain.take(&mut ram, 0x20_0000, 0x1000), missing(0x20_0000), "a part of one");
    assert_eq!(domain.take(&mut ram, 0x20_0000, 0x20_0000), Ok(()));
    assert_eq!(domain.take(&mut ram, 0x20_0000, 0x20_0000), missing(0x20_0000));
    for (start, len) in
        [(1, 4096), (0, 100), (1 << 39, 4096), ((1 << 39) - 4096, 8192), (u64::MAX - 4095, 4096)]
    {
        assert_eq!(domain.give(&mut ram, start, len, Rights::Read), Err(MapError::BadRange));
        assert_eq!(domain.take(&mut ram, start, len), Err(MapError::BadRange));
        assert_eq!(domain.rights(&ram, start), None);
    }
    assert_eq!(domain.bytes(), 0);
}

proptest! {
    #[test]
    fn rights_are_those_of_what_was_given_and_not_taken(
        moves in proptest::collection::vec((0u64..1100, 1u64..600, any::<bool>(), any::<bool>()), 1..24),
        four in any::<bool>(),
        large in any::<bool>(),
    ) {
        let cap = if four { FOUR_LEVELS } else { CAP };
        let cap = if large { cap } else { cap & !(1 << 34) };
        let mut ram = ram();
        let mut domain = Unit::open(model(cap)).expect("a unit").domain(&mut ram).expect("a domain");
        let mut pages = BTreeMap::new();
        let mut given = Vec::new();
        for (first, count, write, give) in moves {
            let rights = if write { Rights::Write } else { Rights::Read };
            if give {
                let free = (first..first + count).take_while(|page| !pages.contains_key(page)).count() as u64;
                // Whole large pages at a time: a fault within one leaves none of it.
                let told = domain.give(&mut ram, first << 12, free << 12, rights);
                prop_assert_eq!(told, Ok(()));
                pages.extend((first..first + free).map(|page| (page, rights)));
                if free > 0 {
                    given.push((first, free));
                }
            } else if let Some((first, count)) = given.pop() {
                prop_assert_eq!(domain.take(&mut ram, first << 12, count << 12), Ok(()));
                pages.retain(|page, _| !(first..first + count).contains(page));
            }
        }
        for page in 0..1800 {
            prop_assert_eq!(domain.rights(&ram, page << 12 | 0x123), pages.get(&page).copied());
        }
        prop_assert_eq!(domain.bytes(), pages.len() as u64 * 4096);
    }
}

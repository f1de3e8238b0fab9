use super::*;
use std::vec::Vec;

fn settle(owners: &mut [u16], serving: usize) -> usize {
    settle_at(owners, u64::MAX >> (64 - serving))
}

fn settle_at(owners: &mut [u16], set: u64) -> usize {
    let before = owners.to_vec();
    let mut count = 0;
    let mut seen = Vec::new();
    moves(&before, set, |group, core| {
        assert_ne!(owners[usize::from(group)], core, "a move to where it is");
        assert!(!seen.contains(&group), "{group} moves twice");
        seen.push(group);
        owners[usize::from(group)] = core;
        count += 1;
    });
    let of = |core: usize| owners.iter().filter(|owner| usize::from(**owner) == core).count();
    let counts: Vec<_> = (0..64).filter(|core| set & 1 << core != 0).map(of).collect();
    assert_eq!(
        counts.iter().sum::<usize>(),
        owners.len(),
        "a group is at a core that does not serve"
    );
    assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
    count
}

#[test]
fn as_few_groups_move_as_must() {
    let mut owners: Vec<u16> = (0..128).map(|group| group % 4).collect();
    assert_eq!(settle(&mut owners, 4), 0);
    assert_eq!(settle(&mut owners, 1), 96);
    assert_eq!(settle(&mut owners, 4), 96);
    assert_eq!(settle(&mut owners, 2), 64);
    assert_eq!(settle(&mut owners, 3), 42);
    assert_eq!(settle(&mut owners, 3), 0);
}

#[test]
fn any_start_comes_to_equal_shares() {
    let mut owners: Vec<u16> = (0..100).map(|group| group * 7 % 13).collect();
    for serving in [5, 13, 1, 64, 2, 100, 3] {
        settle(&mut owners, serving.min(64));
    }
    moves(&[], 7, |_, _| panic!("there are no groups"));
    moves(&[0, 1], 0, |_, _| panic!("there are no cores"));
}

#[test]
fn a_set_of_cores_may_have_gaps() {
    let mut owners: Vec<u16> = (0..128).map(|group| group % 4).collect();
    assert_eq!(settle_at(&mut owners, 0b1001), 64);
    assert_eq!(settle_at(&mut owners, 0b1000_0000_0001), 64);
    assert_eq!(settle_at(&mut owners, 1 << 63 | 1), 64);
    assert_eq!(settle_at(&mut owners, u64::MAX), 124);
}

/// With the key that the dataplane draws a client's ports in a row differ in the lowest bits of the group's number, all of them.
#[test]
fn what_the_lowest_bits_tell_apart_comes_to_all_cores() {
    let in_turn = |cores: u16| -> Vec<u16> { (0..128).map(|group| group % cores).collect() };
    let mut owners = in_turn(4);
    for serving in [1, 4, 2, 1, 2, 4, 1, 8, 16, 1, 16] {
        settle(&mut owners, serving);
        assert_eq!(owners, in_turn(serving as u16), "{serving} cores");
    }
    // With gaps their turn is theirs all the same.
    settle_at(&mut owners, 0b1001);
    assert!(owners.iter().enumerate().all(|(group, core)| *core == [0, 3][group % 2]));
}

//! Which flow groups have to move so that so many cores have equally many.

use ix_abi::limits::GROUPS_MAX;

#[cfg(test)]
mod tests;

/// Most cores that there can be.
const CORES: usize = ix_abi::limits::CORES_MAX;

/// Calls `go(group, core)` for as few moves as bring the groups, each now at its core in `owners`, to the cores of the set
/// `serving` (a bit each), none of which then has more than one group more than another. Nothing if the set is empty.
///
/// Of those that have to move, as many as can go where the cores' turn would have them, as at the start: what the lowest bits of
/// the hash tell apart, connections of one client mostly, comes to all of the cores and not to one that got a row of groups.
pub fn moves(owners: &[u16], serving: u64, mut go: impl FnMut(u16, u16)) {
    let serves = |core: usize| serving & 1 << core != 0;
    let count = serving.count_ones() as usize;
    if count == 0 {
        return;
    }
    let mut turn = [0; CORES];
    (0..CORES).filter(|core| serves(*core)).zip(&mut turn).for_each(|(core, at)| *at = core);
    // The first of them have one more, if it does not come out even.
    let before = |core: usize| (serving & ((1 << core) - 1)).count_ones() as usize;
    let share =
        |core: usize| owners.len() / count + usize::from(before(core) < owners.len() % count);
    let mut has = [0; CORES];
    for owner in owners {
        has[usize::from(*owner) % CORES] += 1;
    }
    let mut gone = [false; GROUPS_MAX];
    for in_turn in [true, false] {
        let mut next = 0;
        for (group, (owner, gone)) in owners.iter().zip(&mut gone).enumerate() {
            let from = usize::from(*owner) % CORES;
            if *gone || serves(from) && has[from] <= share(from) {
                continue;
            }
            let has_room = |core: usize| serves(core) && has[core] < share(core);
            while !in_turn && next < CORES && !has_room(next) {
                next += 1;
            }
            let to = if in_turn { turn[group % count] } else { next };
            if to == CORES {
                return;
            }
            if has_room(to) {
                has[from] -= 1;
                has[to] += 1;
                *gone = true;
                go(group as u16, to as u16);
            }
        }
    }
}

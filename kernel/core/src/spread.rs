//! Which flow groups have to move so that so many cores have equally many.

#[cfg(test)]
mod tests;

/// Most cores that there can be.
const CORES: usize = ix_abi::limits::CORES_MAX;

/// Calls `go(group, core)` for as few moves as bring the groups, each now at its core in `owners`, to the cores of the set
/// `serving` (a bit each), none of which then has more than one group more than another. Nothing if the set is empty.
pub fn moves(owners: &[u16], serving: u64, mut go: impl FnMut(u16, u16)) {
    let serves = |core: usize| serving & 1 << core != 0;
    let count = serving.count_ones() as usize;
    if count == 0 {
        return;
    }
    // The first of them have one more, if it does not come out even.
    let before = |core: usize| (serving & ((1 << core) - 1)).count_ones() as usize;
    let share =
        |core: usize| owners.len() / count + usize::from(before(core) < owners.len() % count);
    let mut has = [0; CORES];
    for owner in owners {
        has[usize::from(*owner) % CORES] += 1;
    }
    let mut to = 0;
    for (group, owner) in owners.iter().enumerate() {
        let from = usize::from(*owner) % CORES;
        if serves(from) && has[from] <= share(from) {
            continue;
        }
        while to < CORES && !(serves(to) && has[to] < share(to)) {
            to += 1;
        }
        if to == CORES {
            return;
        }
        has[from] -= 1;
        has[to] += 1;
        go(group as u16, to as u16);
    }
}

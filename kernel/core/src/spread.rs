//! Which flow groups have to move so that so many cores have equally many.

#[cfg(test)]
mod tests;

/// Most cores that there can be.
const CORES: usize = ix_abi::limits::CORES_MAX;

/// Calls `go(group, core)` for as few moves as bring the groups, each now at its core in `owners`, to the first
/// `serving` cores (at least 1), none of which then has more than one group more than another.
pub fn moves(owners: &[u16], serving: usize, mut go: impl FnMut(u16, u16)) {
    let serving = serving.clamp(1, CORES);
    let share = |core: usize| owners.len() / serving + usize::from(core < owners.len() % serving);
    let mut has = [0; CORES];
    for owner in owners {
        has[usize::from(*owner) % CORES] += 1;
    }
    let mut to = 0;
    for (group, owner) in owners.iter().enumerate() {
        let from = usize::from(*owner) % CORES;
        if from < serving && has[from] <= share(from) {
            continue;
        }
        while to < serving && has[to] >= share(to) {
            to += 1;
        }
        if to == serving {
            return;
        }
        has[from] -= 1;
        has[to] += 1;
        go(group as u16, to as u16);
    }
}

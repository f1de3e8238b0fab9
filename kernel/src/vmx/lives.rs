//! How often a dataplane may be started again: one that fails at once must not keep the machine busy for ever.

use spin::Mutex;

use super::dataplane::Dataplane;

/// Lives in one minute.
const LIVES_MAX: usize = 8;
const MINUTE_NS: u64 = 60_000_000_000;
const DATAPLANES_MAX: usize = ix_kernel_core::vmx::partition::DATAPLANES_MAX;

/// When each was started again last.
static STARTS: Mutex<[[Option<u64>; LIVES_MAX]; DATAPLANES_MAX]> =
    Mutex::new([[None; LIVES_MAX]; DATAPLANES_MAX]);

/// Whether it may have another life now; counts it if so.
pub fn another(d: &Dataplane, now_ns: u64) -> bool {
    let place = d.page.place().0 as usize;
    let mut all = STARTS.lock();
    let Some(starts) = all.get_mut(place) else { return false };
    let is_over = |at: &Option<u64>| at.is_none_or(|at| now_ns.saturating_sub(at) > MINUTE_NS);
    match starts.iter_mut().find(|at| is_over(at)) {
        Some(slot) => {
            *slot = Some(now_ns);
            true
        }
        None => false,
    }
}

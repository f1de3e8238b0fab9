//! The dataplane's own wish for cores, as `docs/control.md` §10 has it: from the last window of each core that serves.
use crate::policy::{CoreLoad, Rules};

/// What the dataplane remembers between two windows.
#[derive(Clone, Debug, Default)]
pub struct Demand {
    serving: u32,
    /// Since when so many serve, ms.
    since_ms: u64,
    /// Since when fewer would have done, ms.
    idle_since_ms: Option<u64>,
}

impl Demand {
    /// How many cores are wanted. `depth_max`: most frames that a poll has found in the window.
    pub fn look(&mut self, now_ms: u64, cores: &[CoreLoad], depth_max: u64, rules: &Rules) -> u32 {
        let serving = cores.iter().filter(|c| c.serves).count() as u32;
        if serving != self.serving {
            *self = Demand { serving, since_ms: now_ms, idle_since_ms: None };
        }
        let busy: f64 = cores.iter().filter(|c| c.serves).map(|c| c.busy).sum();
        let delay = cores.iter().filter(|c| c.serves).map(|c| c.delay_p99_us).fold(0.0, f64::max);
        let congested = delay > rules.up_delay_us
            || depth_max > rules.ask_queue
            || busy > rules.up_busy * f64::from(serving);
        let enough = (busy / rules.down_busy.min(rules.up_busy - 0.001)).ceil().max(1.0) as u32;
        if congested || enough >= serving {
            self.idle_since_ms = None;
        }
        if congested && now_ms - self.since_ms >= rules.up_after_up_ms {
            return serving + 1;
        }
        if enough < serving && !congested {
            let since = *self.idle_since_ms.get_or_insert(now_ms);
            if now_ms - since >= rules.smooth_ms {
                return enough;
            }
        }
        serving
    }
}

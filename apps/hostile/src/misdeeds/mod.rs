//! The misdeeds, a file for each kind and a small function for each of them.

mod background;
mod calls;
mod exhaust;
mod gather;
mod handles;
mod memory;
mod privileged;
mod rings;
mod state;

use crate::app::{App, Verdict};

/// Does it. Returns only if the kernel let the application live.
pub fn commit(app: &mut App, name: &str, number: u64) -> Verdict {
    if name == hostile::LOOK {
        return check(memory::marks() == 0, "a mark is in the receive area");
    }
    if name == hostile::FLOOD {
        return exhaust::flood(app);
    }
    let lived = |()| Err("it was let live");
    if let Some(verdict) = handles::commit(app, name)
        .or_else(|| gather::commit(app, name))
        .or_else(|| calls::commit(app, name))
        .or_else(|| rings::commit(app, name))
        .or_else(|| state::commit(name))
        .or_else(|| exhaust::commit(app, name))
        .or_else(|| background::commit(app, name))
    {
        return verdict;
    }
    if let Some(done) = memory::commit(name).or_else(|| privileged::commit(name, number)) {
        return lived(done);
    }
    Err("no such misdeed")
}

/// `Err` with what was broken, unless `ok`.
pub fn check(ok: bool, what: &'static str) -> Verdict {
    if ok { Ok(()) } else { Err(what) }
}

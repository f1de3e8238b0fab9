//! A look at every dataplane that runs, for what watches them: `top`, `metrics`.
use crate::instance::{Base, Instance};
use crate::page::Page;
use crate::snapshot::{self, Snapshot};
use anyhow::Result;
use ix_abi::control::header;
use std::time::{Duration, Instant};

/// Time between two looks at a heartbeat.
const BEAT: Duration = Duration::from_millis(2);

/// One dataplane at one moment.
#[derive(Clone, Debug)]
pub struct Observed {
    /// Its name.
    pub name: String,
    /// What its page says, or why it cannot be read. `alive` is only right after [`alive`].
    pub snapshot: Result<Snapshot, String>,
}

/// Looks at the named one, or at all; does not wait for anything.
pub fn look(base: &Base, name: Option<&str>) -> Result<Vec<Observed>> {
    Ok(open(base, name)?.into_iter().map(|(instance, page)| read(instance, &page)).collect())
}

/// The same, and watches the hearts, all at once, for at most `patience`.
pub fn alive(base: &Base, name: Option<&str>, patience: Duration) -> Result<Vec<Observed>> {
    let opened = open(base, name)?;
    let beat = |page: &Result<Page, String>| page.as_ref().ok().map(|p| p.load(header::HEARTBEAT));
    let before: Vec<_> = opened.iter().map(|(_, page)| beat(page)).collect();
    let mut lives = vec![false; opened.len()];
    let start = Instant::now();
    loop {
        for (at, (_, page)) in opened.iter().enumerate() {
            lives[at] |= beat(page) != before[at];
        }
        let waits = lives.iter().zip(&before).any(|(lives, before)| !lives && before.is_some());
        if !waits || start.elapsed() >= patience {
            break;
        }
        std::thread::sleep(BEAT);
    }
    let observed = opened.into_iter().zip(lives).map(|((instance, page), alive)| {
        let observed = read(instance, &page);
        Observed { snapshot: observed.snapshot.map(|s| Snapshot { alive, ..s }), ..observed }
    });
    Ok(observed.collect())
}

/// The pages are opened at each look: a dataplane of the same name may have another file by then.
fn open(base: &Base, name: Option<&str>) -> Result<Vec<(Instance, Result<Page, String>)>> {
    let instances = base.all(name)?;
    Ok(instances
        .into_iter()
        .map(|i| {
            let page = Page::open(&i.control()).map_err(|e| e.to_string());
            (i, page)
        })
        .collect())
}

fn read(instance: Instance, page: &Result<Page, String>) -> Observed {
    let snapshot = match page {
        Ok(page) => snapshot::read(page).map_err(|e| e.to_string()),
        Err(e) => Err(e.clone()),
    };
    Observed { name: instance.name, snapshot }
}

#[cfg(test)]
mod tests;

//! `ixcp top`: rates by core, on a terminal again and again, elsewhere once.
use crate::cli::Top;
use crate::control::print;
use crate::instance::Base;
use crate::observe::{self, Observed};
use crate::snapshot::Snapshot;
use crate::svg;
use anyhow::{Result, bail};
use rates::Frame;
use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

pub mod rates;
pub mod screen;
pub mod text;
pub mod window;

/// `ixcp top`.
pub fn run(options: &Top) -> Result<u8> {
    let base = Base::from_env()?;
    let name = options.target.which();
    if base.list()?.is_empty() || name.is_some() {
        // It says what runs instead, and how to start one.
        base.find(name)?;
    }
    if !options.once && !options.json && options.svg.is_none() && std::io::stdout().is_terminal() {
        screen::run(&base, name, options.interval)?;
        return Ok(0);
    }
    let frames = once(&base, name, options.interval)?;
    let text = || frames.iter().map(text::frame).collect::<Vec<_>>().join("\n");
    if let Some(file) = &options.svg {
        svg::write(file, &svg::terminal("ixcp top", &text()))?;
    } else if options.json {
        print(&(serde_json::to_string_pretty(&frames)? + "\n"));
    } else {
        print(&text());
    }
    Ok(0)
}

/// A frame of each dataplane, from two looks.
fn once(base: &Base, name: Option<&str>, interval: Duration) -> Result<Vec<Frame>> {
    let mut watch = Watch::default();
    watch.look(observe::look(base, name)?, Instant::now());
    std::thread::sleep(interval);
    let (mut frames, mut errors) = (Vec::new(), Vec::new());
    for seen in watch.look(observe::look(base, name)?, Instant::now()) {
        match seen.frame {
            Ok(frame) => frames.push(frame),
            Err(e) => errors.push(format!("{}: {e}", seen.name)),
        }
    }
    match (frames.is_empty(), errors.is_empty()) {
        (true, true) => bail!("the dataplane has ended within the {interval:?} it was watched for"),
        (true, false) => bail!("{}", errors.join("; ")),
        _ => errors.iter().for_each(|e| eprintln!("ixcp: {e}")),
    }
    Ok(frames)
}

/// What is known of a dataplane at one moment.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its name.
    pub name: String,
    /// What it does, or why that cannot be said.
    pub frame: Result<Frame, String>,
}

/// The last look at each dataplane: rates are between that and the next.
#[derive(Debug, Default)]
pub struct Watch {
    last: HashMap<String, (Instant, Snapshot)>,
}

impl Watch {
    /// Makes frames of what was seen at `now`, and keeps it. Forgets those that have ended.
    pub fn look(&mut self, observed: Vec<Observed>, now: Instant) -> Vec<Seen> {
        let mut last = HashMap::new();
        let seen = observed.into_iter().map(|Observed { name, snapshot }| {
            let frame = snapshot.map(|snapshot| {
                let before = self.last.get(&name).map(|(at, s)| (s, now.duration_since(*at)));
                let frame = rates::frame(&name, before, &snapshot);
                last.insert(name.clone(), (now, snapshot));
                frame
            });
            Seen { name, frame }
        });
        let seen = seen.collect();
        self.last = last;
        seen
    }
}

#[cfg(test)]
mod tests;

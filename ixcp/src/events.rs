//! `ixcp events`: the last events of each core, of a dataplane that runs or of one that has crashed and
//! left its control page behind.
use crate::cli::Events;
use crate::control::print;
use crate::instance::{Base, Instance};
use crate::page::Page;
use crate::render::count;
use crate::serial;
use crate::snapshot::{self, PageError};
use anyhow::{Result, bail, ensure};
use ix_abi::control::{header, log_offset};
use ix_abi::event_log::{CAPACITY, EventKind, NEWEST, Record, record_offset, text_bytes};
use ix_abi::limits::CORES_MAX;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// An event with the text that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The core.
    pub core: usize,
    /// What the kernel has written.
    pub record: Record,
    /// Text of the records that follow it.
    pub text: String,
}

#[derive(Serialize)]
struct Json<'a> {
    core: usize,
    number: u64,
    time_ns: u64,
    kind: &'a str,
    small: u16,
    a: u64,
    b: u64,
    text: String,
}

impl Entry {
    /// In one line.
    fn line(&self) -> String {
        let Record { time_ns, .. } = self.record;
        let (seconds, micros) = (time_ns / 1_000_000_000, time_ns / 1000 % 1_000_000);
        let text = if self.text.is_empty() { String::new() } else { format!(": {}", self.text) };
        format!("{seconds:>6}.{micros:06}  c{:<3} {}{text}", self.core, self.record)
    }

    fn json(&self) -> Result<String> {
        let Record { number, kind, small, time_ns, a, b } = self.record;
        let text =
            format!("{}{}{}", self.record, if self.text.is_empty() { "" } else { ": " }, self.text);
        let json = Json { core: self.core, number, time_ns, kind: kind.text(), small, a, b, text };
        Ok(serde_json::to_string(&json)?)
    }
}

/// What is new in a page since the last look.
#[derive(Debug)]
pub struct Log {
    /// By core: the newest record that was read.
    seen: Vec<u64>,
}

impl Log {
    /// Of a page that a kernel has written.
    pub fn open(page: &Page) -> Result<Log> {
        snapshot::check(page)?;
        let cores = usize::try_from(page.load(header::CORES)).unwrap_or(usize::MAX);
        if cores > CORES_MAX {
            bail!("the control page is corrupted: it tells of {cores} cores");
        }
        Ok(Log { seen: vec![0; cores] })
    }

    /// Complains if there is no such core.
    fn ensure_core(&self, core: usize) -> Result<()> {
        let cores = self.seen.len();
        ensure!(core < cores, "there is no core {core}: it has {}", count(cores as u64, "core"));
        Ok(())
    }

    /// What has come since, in the order of time.
    pub fn read(&mut self, page: &Page) -> Vec<Entry> {
        let mut all = Vec::new();
        for (core, seen) in self.seen.iter_mut().enumerate() {
            let base = log_offset(core);
            let newest = page.load_acquire(base + NEWEST);
            let first =
                newest.saturating_sub(CAPACITY as u64 - 1).max(seen.saturating_add(1)).max(1);
            let start = all.len();
            for number in first..=newest {
                let Some(record) = read_record(page, base, number) else { continue };
                let follows = all.len() > start;
                match all.last_mut().filter(|_| follows && record.kind == EventKind::Text) {
                    Some(Entry { text, .. }) => {
                        let bytes = text_bytes([record.a, record.b]);
                        let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
                        text.push_str(&serial::printable(&bytes[..end]));
                    }
                    None => all.push(Entry { core, record, text: String::new() }),
                }
            }
            // A count that went back is of another boot, or nonsense: it is not followed.
            *seen = newest.max(*seen);
        }
        all.sort_by_key(|e| (e.record.time_ns, e.core, e.record.number));
        all
    }
}

/// A record, if it was not overwritten meanwhile.
fn read_record(page: &Page, base: usize, number: u64) -> Option<Record> {
    let at = base + record_offset(number);
    let words = [0, 8, 16, 24].map(|i| page.load_in_block(at + i));
    let again = page.load_in_block(at);
    Record::decode(words, number).filter(|_| again == words[0])
}

/// `ixcp events`.
pub fn events(options: &Events) -> Result<u8> {
    let Source { page, instance, left } = find(options)?;
    let page = Page::open(&page)?;
    let mut log = match (Log::open(&page), left) {
        (Err(e), Some(log)) if e.downcast_ref() == Some(&PageError::Empty) => bail!(
            "it ended before its kernel wrote the control page, so there are no events: see {}",
            log.display()
        ),
        (opened, _) => opened?,
    };
    if let Some(core) = options.core {
        log.ensure_core(core)?;
    }
    let wanted = |e: &Entry| options.core.is_none_or(|core| core == e.core);
    let first: Vec<Entry> = log.read(&page).into_iter().filter(wanted).collect();
    if options.json && !options.follow {
        let all: Result<Vec<String>> = first.iter().map(Entry::json).collect();
        print(&format!("[\n  {}\n]\n", all?.join(",\n  ")));
        return Ok(0);
    }
    // Whether there may be more: if nobody reads, or the disk is full, it is the end.
    let show = |entries: &[Entry]| -> Result<bool> {
        let mut lines = String::new();
        for e in entries {
            lines += &if options.json { e.json()? } else { e.line() };
            lines.push('\n');
        }
        Ok(print(&lines))
    };
    let mut go_on = show(&first)?;
    while options.follow && go_on {
        std::thread::sleep(LOOK);
        let lives = instance.as_ref().is_none_or(Instance::lives);
        let news: Vec<Entry> = log.read(&page).into_iter().filter(wanted).collect();
        go_on = show(&news)? && lives;
    }
    Ok(0)
}

/// What is read.
struct Source {
    page: PathBuf,
    /// Whose it is, if that runs.
    instance: Option<Instance>,
    /// The serial log of one that has ended.
    left: Option<PathBuf>,
}

/// The page to read: a file, a dataplane that runs, or what one of that name has left behind.
fn find(options: &Events) -> Result<Source> {
    if let Some(file) = &options.file {
        return Ok(Source { page: file.clone(), instance: None, left: None });
    }
    let base = Base::from_env()?;
    let name = options.target.which();
    match (base.find(name), name) {
        (Ok(instance), _) => {
            Ok(Source { page: instance.control(), instance: Some(instance), left: None })
        }
        (Err(e), Some(name)) => {
            crate::instance::check_name(name)?;
            let left = base.directory(name);
            let (page, log) = (left.join("control"), left.join("serial.log"));
            match options.follow {
                false if page.is_file() => Ok(Source { page, instance: None, left: Some(log) }),
                // A line keeps nothing, and its socket has gone with the machine or leads nowhere.
                false if log.is_file() => bail!(
                    "{e:#}; it was reached over a line (--control serial), which keeps no events: if its kernel has crashed, the \
                     last ones are in the crash report at the end of {}",
                    log.display()
                ),
                _ => Err(e),
            }
        }
        (Err(e), None) => {
            bail!("{e:#}; for one that has ended: --name NAME or --file FILE")
        }
    }
}

#[cfg(test)]
mod tests;

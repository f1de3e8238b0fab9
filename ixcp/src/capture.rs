//! `ixcp pcap` and `ixcp trace`: captures packets of a running dataplane into a file that Wireshark
//! reads, and switches the packet trace on its console.
use crate::cli::{Format, Pcap, Switch, Trace};
use crate::command::{CommandError, Writer};
use crate::control::print;
use crate::instance::{Base, Instance};
use crate::page::Page;
use crate::snapshot;
use anyhow::{Context, Result, bail, ensure};
use ix_abi::Status;
use ix_abi::capture::{FILTER_WORDS, Filter, ring, ring_bytes, ring_offset};
use ix_abi::control::{BULK_BASE, CommandCode, header};
use ix_abi::limits::CORES_MAX;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufWriter, ErrorKind, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

mod filter;
mod format;
mod merge;
mod reader;

use format::{Classic, Interface, PacketWriter, Pcapng};
use merge::Merger;
use reader::{Reader, RingError};

/// Time between two looks at the rings.
const LOOK: Duration = Duration::from_millis(2);
/// How long a command may go unanswered.
const ANSWER: Duration = Duration::from_secs(5);
/// How long cores may take to begin or to end: one that runs its application comes round late.
const CORES_SLOW: Duration = Duration::from_secs(2);
/// Time between two looks whether the dataplane lives.
const ALIVE: Duration = Duration::from_millis(200);

/// `ixcp pcap`.
pub fn pcap(options: &Pcap) -> Result<u8> {
    let instance = Base::from_env()?.find(options.target.which())?;
    let page = Page::open(&instance.control())?;
    if page.is_line() {
        bail!(
            "captures need memory that {} shares with this machine, and it has a serial line only; `ixcp trace on` prints packets on its console",
            instance.name
        );
    }
    let _only_one = lock(&instance)?;
    let filter = filter::of(&options.filter)?;
    let filter = Filter { snaplen: options.snaplen, ..known(&page, filter)? };
    let (out, to) = output(options)?;
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, ended.clone()).context("cannot handle signals")?;
    }
    let mut session = Session::start(&instance, &page, &filter)?;
    eprintln!(
        "ixcp: capturing {} on {} ({} cores); Ctrl-C ends it",
        filter::text(&filter),
        instance.name,
        session.readers.len()
    );
    let interfaces: Vec<Interface> = (0..session.readers.len())
        .map(|core| Interface {
            name: format!("{} core {core}", instance.name),
            filter: filter::text(&filter),
            snaplen: filter.snaplen,
        })
        .collect();
    let writer: Box<dyn PacketWriter> = match options.format {
        Format::Pcapng => Box::new(Pcapng::begin(out, &interfaces).context(to.clone())?),
        Format::Pcap => Box::new(Classic::begin(out, filter.snaplen).context(to.clone())?),
    };
    let until = options.seconds.map(|seconds| Instant::now() + seconds);
    let why = session.run(writer, options.count, until, &ended, &to);
    session.end();
    let (totals, why) = (session.totals(), why?);
    eprintln!(
        "ixcp: {} packets captured, {} missed, {} looked at{}",
        session.merger.written,
        totals.missed,
        totals.seen,
        why.text()
    );
    Ok(u8::from(why == Why::Silent || why == Why::Gone))
}

/// `ixcp trace`.
pub fn trace(options: &Trace) -> Result<u8> {
    let instance = Base::from_env()?.find(options.target.which())?;
    let page = Page::open(&instance.control())?;
    let filter = known(&page, filter::of(&options.filter)?)?;
    let writer = Writer::lock(&instance.writer_lock(), ANSWER)?;
    match options.switch {
        Switch::On => {
            send_filter(&writer, &page, CommandCode::Trace, 1, &filter)?;
            print(&format!(
                "{}: packets are printed on its console: {}\n",
                instance.name,
                filter::text(&filter)
            ));
        }
        Switch::Off => {
            writer.send(&page, CommandCode::Trace, [0; 4], ANSWER)?;
            print(&format!("{}: packets are no longer printed\n", instance.name));
        }
    }
    Ok(0)
}

/// A filter of what there is: no packet is of a flow group that does not exist.
fn known(page: &Page, filter: Filter) -> Result<Filter> {
    let Some(group) = filter.group else { return Ok(filter) };
    snapshot::check(page)?;
    let groups = page.load(header::GROUPS);
    ensure!(
        u64::from(group.0) < groups,
        "--group {}: there is no such flow group, so nothing would be seen; `ixcp flows` lists the {groups} that there are, from 0 on",
        group.0
    );
    Ok(filter)
}

/// One capture at a time; the lock goes with the process, however that ends.
fn lock(instance: &Instance) -> Result<File> {
    let path = instance.dir().join("capture.lock");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits())
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "another `ixcp pcap` captures from {} already: there is one capture at a time; end that one first",
            instance.name
        ),
        Err(TryLockError::Error(e)) => {
            Err(e).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

/// Where the packets go, and what is said if that does not take them. Binary data is not for terminals.
fn output(options: &Pcap) -> Result<(BufWriter<Box<dyn Write>>, String)> {
    let (file, to): (Box<dyn Write>, _) = match &options.write {
        Some(path) if path.as_os_str() != "-" => {
            let file = File::create(path);
            let file = file.with_context(|| format!("cannot create {}", path.display()))?;
            (Box::new(file), format!("cannot write {}", path.display()))
        }
        _ if std::io::stdout().is_terminal() => bail!(
            "standard output is a terminal: name a file (-w FILE), or pipe it: \
             `ixcp pcap | tshark -i -`, `ixcp pcap | wireshark -k -i -`"
        ),
        _ => (Box::new(std::io::stdout()), "cannot write to standard output".to_owned()),
    };
    Ok((BufWriter::with_capacity(1 << 16, file), to))
}

/// Lays the filter into the bulk area and sends the command that reads it.
fn send_filter(
    writer: &Writer,
    page: &Page,
    code: CommandCode,
    argument: u64,
    filter: &Filter,
) -> Result<u64, CommandError> {
    // The area belongs to an unanswered command, if there is one: after this there is none.
    writer.send(page, CommandCode::Nop, [0; 4], ANSWER)?;
    let words: [u64; FILTER_WORDS] = filter.encode();
    for (i, word) in words.into_iter().enumerate() {
        page.store(BULK_BASE + i * 8, word);
    }
    writer.send(page, code, [argument, 0, 0, 0], ANSWER)
}

/// Why a capture ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// It was asked to: signal, count, time, nobody reads any more.
    Done,
    /// The kernel ended it: this program was too slow to say that it lives.
    Silent,
    /// The dataplane has ended.
    Gone,
}

impl Why {
    fn text(self) -> &'static str {
        match self {
            Why::Done => "",
            Why::Silent => "; the kernel ended it, since this program was silent for too long",
            Why::Gone => "; the dataplane has ended",
        }
    }
}

/// What all rings say of themselves.
struct Totals {
    missed: u64,
    seen: u64,
}

/// A capture under way.
struct Session<'a> {
    instance: &'a Instance,
    page: &'a Page,
    generation: u64,
    epoch: u64,
    lease: u64,
    readers: Vec<Reader>,
    merger: Merger,
    ended: bool,
}

impl<'a> Session<'a> {
    fn start(instance: &'a Instance, page: &'a Page, filter: &Filter) -> Result<Session<'a>> {
        let epoch = snapshot::check(page)?;
        let cores = usize::try_from(page.load(header::CORES)).unwrap_or(usize::MAX);
        if cores == 0 || cores > CORES_MAX {
            bail!("the control page is corrupted: it tells of {cores} cores");
        }
        let bytes = ring_bytes(cores);
        let readers: Vec<Reader> =
            (0..cores).map(|core| Reader::new(core, ring_offset(core, cores), bytes)).collect();
        for reader in &readers {
            reader.reset(page);
        }
        let writer = Writer::lock(&instance.writer_lock(), ANSWER)?;
        // We hold the lock of captures: one that still runs is of a client that died.
        match writer.send(page, CommandCode::CaptureStop, [0; 4], ANSWER) {
            Ok(_) | Err(CommandError::Refused(Status::State)) => {}
            Err(e) => return Err(e.into()),
        }
        let generation = match send_filter(&writer, page, CommandCode::CaptureStart, 0, filter) {
            Ok(generation) => generation,
            Err(CommandError::Refused(Status::InUse)) => {
                bail!(
                    "another program captures from this dataplane: there is one capture at a time"
                )
            }
            Err(e) => return Err(e.into()),
        };
        drop(writer);
        let lease = page.load(ring_offset(0, cores) + ring::LEASE);
        let merger = Merger::new(cores, unix_base(page, &readers[0]));
        let mut session =
            Session { instance, page, generation, epoch, lease, readers, merger, ended: false };
        if !session.wait(|s| s.readers.iter().all(|r| r.generation(s.page) == s.generation)) {
            session.end();
            bail!(
                "not all cores have begun to capture within {CORES_SLOW:?}: is the dataplane alive? (`ixcp status`)"
            );
        }
        session.merger.base = unix_base(page, &session.readers[0]);
        Ok(session)
    }

    fn wait(&mut self, done: impl Fn(&Session<'_>) -> bool) -> bool {
        let deadline = Instant::now() + CORES_SLOW;
        while !done(self) {
            if Instant::now() > deadline {
                return false;
            }
            self.renew();
            std::thread::sleep(LOOK);
        }
        true
    }

    /// Tells the kernel that somebody reads.
    fn renew(&mut self) {
        self.lease = self.lease.wrapping_add(1);
        self.readers[0].renew(self.page, self.lease);
    }

    fn run(
        &mut self,
        mut writer: Box<dyn PacketWriter>,
        count: Option<u64>,
        until: Option<Instant>,
        ended: &AtomicBool,
        to: &str,
    ) -> Result<Why> {
        let mut looked = Instant::now();
        let limit = count.unwrap_or(u64::MAX);
        let why = loop {
            self.renew();
            let now_ns = self.page.load_acquire(header::NOW_NS);
            let running = self.readers.iter().all(|r| r.is_running(self.page));
            let taken = self.take()?;
            let goes_on = self.write(&mut *writer, limit, Some(now_ns));
            if !goes_on.with_context(|| to.to_owned())? || self.merger.written >= limit {
                break Why::Done;
            }
            if ended.load(Ordering::Relaxed) || until.is_some_and(|until| Instant::now() >= until) {
                break Why::Done;
            }
            if !running {
                break Why::Silent;
            }
            if looked.elapsed() > ALIVE {
                looked = Instant::now();
                if !self.instance.lives() || self.page.load(header::EPOCH) != self.epoch {
                    break Why::Gone;
                }
            }
            if !taken {
                std::thread::sleep(LOOK);
            }
        };
        if why == Why::Done {
            self.end();
        }
        self.take()?;
        let rest = self.write(&mut *writer, limit, None).and_then(|_| {
            self.merger.finish(&mut *writer, self.page, &self.readers).or_else(closed)
        });
        rest.with_context(|| to.to_owned())?;
        Ok(why)
    }

    /// Takes what is in the rings; whether there was anything.
    fn take(&mut self) -> Result<bool, RingError> {
        let mut any = false;
        for reader in &mut self.readers {
            any |= reader.take(self.page, &mut self.merger)?;
        }
        Ok(any)
    }

    /// Writes what is old enough to be in order. `false`: nobody reads any more.
    fn write(
        &mut self,
        writer: &mut dyn PacketWriter,
        limit: u64,
        now: Option<u64>,
    ) -> std::io::Result<bool> {
        let done = self.merger.write(writer, limit, now).map(|()| true);
        done.or_else(|e| closed(e).map(|()| false))
    }

    /// Ends the capture in the kernel, if it is there, and waits for the last packets.
    fn end(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let stopped = Writer::lock(&self.instance.writer_lock(), ANSWER).and_then(|writer| {
            let arguments = [self.generation, 0, 0, 0];
            writer.send(self.page, CommandCode::CaptureStop, arguments, Duration::from_secs(1))
        });
        if stopped.is_ok() {
            self.wait(|s| !s.readers.iter().any(|r| r.is_running(s.page)));
        }
    }

    fn totals(&self) -> Totals {
        let sum = |at| self.readers.iter().fold(0u64, |n, r| n.wrapping_add(r.word(self.page, at)));
        Totals { missed: sum(ring::MISSED), seen: sum(ring::SEEN) }
    }
}

/// A reader that has gone away (`| head`, a closed Wireshark) is the end, and no error.
fn closed(e: std::io::Error) -> std::io::Result<()> {
    if e.kind() == ErrorKind::BrokenPipe { Ok(()) } else { Err(e) }
}

/// Unix time of the boot: the kernel's, or else reckoned from this machine's clock.
fn unix_base(page: &Page, reader: &Reader) -> u64 {
    match reader.word(page, ring::BOOT_UNIX_NS) {
        0 => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            let now = now.map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(0));
            now.saturating_sub(page.load(header::NOW_NS))
        }
        kernel => kernel,
    }
}

#[cfg(test)]
mod tests;

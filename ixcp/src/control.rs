//! The commands that speak to a running dataplane: `status`, `stop`, `restart-app`, `ls`.
use crate::cli::{Ls, RestartApp, Status, Stop};
use crate::command::{CommandError, Writer};
use crate::instance::{Base, Instance};
use crate::page::Page;
use crate::snapshot::{self, PageError, Snapshot};
use crate::{render, serial};
use anyhow::{Context, Result, bail};
use ix_abi::control::{CommandCode, header};
use nix::sys::signal::{Signal, kill};
use serde::Serialize;
use std::io::{self, ErrorKind, Write};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long the heartbeat is watched before it counts as still.
const HEART: Duration = Duration::from_millis(500);
/// How long a booting kernel is waited for.
const BOOT: Duration = Duration::from_secs(5);
/// How long a kernel may take to end when its answer was not seen.
const SOON: Duration = Duration::from_secs(1);
/// How long a command may go unanswered.
const ANSWER: Duration = Duration::from_secs(5);

/// `ixcp status`.
pub fn status(options: &Status) -> Result<u8> {
    let instance = Base::from_env()?.find(options.target.which())?;
    let page = Page::open(&instance.control())?;
    let snapshot = take(&page, BOOT)?;
    if options.json {
        #[derive(Serialize)]
        struct Named<'a> {
            name: &'a str,
            #[serde(flatten)]
            snapshot: &'a Snapshot,
        }
        let named = Named { name: &instance.name, snapshot: &snapshot };
        print(&(serde_json::to_string_pretty(&named)? + "\n"));
    } else {
        print(&render::status(&instance.name, &snapshot));
    }
    Ok(0)
}

/// A snapshot; waits a bounded time for a kernel that is still booting.
pub fn take(page: &Page, patience: Duration) -> Result<Snapshot, PageError> {
    let start = Instant::now();
    loop {
        match snapshot::read(page) {
            Err(PageError::Empty) if start.elapsed() < patience => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(e) => return Err(e),
            Ok(_) => {
                let alive = snapshot::watch_heartbeat(page, HEART);
                return Ok(Snapshot { alive, ..snapshot::read(page)? });
            }
        }
    }
}

/// `ixcp stop`.
pub fn stop(options: &Stop) -> Result<u8> {
    let instance = Base::from_env()?.find(options.target.which())?;
    let deadline = Instant::now() + options.timeout;
    let asked = match Page::open(&instance.control()) {
        Ok(page) => Ok(send(&instance, &page, CommandCode::Stop, ANSWER.min(options.timeout))),
        Err(e) => Err(e),
    };
    // A kernel that obeys may end before its answer is seen: what counts is that it is gone.
    let soon = Instant::now() + SOON;
    if gone(&instance, if matches!(asked, Ok(Ok(_))) { deadline } else { soon.min(deadline) }) {
        print(&format!("{} has stopped\n", instance.name));
        return Ok(0);
    }
    if !options.force {
        let hint =
            format!("{} still runs; `ixcp stop --force --name {0}` ends its QEMU", instance.name);
        return match asked {
            Ok(Ok(_)) => bail!("{hint}"),
            Ok(Err(e)) => Err(e).context(hint),
            Err(e) => Err(e).context(hint),
        };
    }
    let Some(pid) = instance.qemu_pid() else {
        bail!("{} does not answer, and its QEMU is not known", instance.name);
    };
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        kill(pid, signal).context("cannot end QEMU")?;
        if gone(&instance, Instant::now() + Duration::from_secs(3)) {
            print(&format!("{} did not answer; its QEMU was ended\n", instance.name));
            return Ok(0);
        }
    }
    bail!("QEMU (process {}) does not end", pid)
}

fn gone(instance: &Instance, deadline: Instant) -> bool {
    while instance.lives() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

/// `ixcp restart-app`.
pub fn restart_app(options: &RestartApp) -> Result<u8> {
    let instance = Base::from_env()?.find(options.target.which())?;
    let page = Page::open(&instance.control())?;
    let deadline = Instant::now() + options.timeout;
    let starts = page.load(header::APP_STARTS);
    send(&instance, &page, CommandCode::RestartApp, ANSWER.min(options.timeout))?;
    while page.load_acquire(header::APP_STARTS) == starts
        || page.load_acquire(header::READY_NS) == 0
    {
        if Instant::now() > deadline {
            bail!(
                "the kernel has accepted the command, but the application is not ready after {:?}: \
                 look at `ixcp status` and the serial log {}",
                options.timeout,
                instance.serial().display()
            );
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    print(&format!("{}: the application serves again\n", instance.name));
    Ok(0)
}

fn send(
    instance: &Instance,
    page: &Page,
    code: CommandCode,
    patience: Duration,
) -> Result<u64, CommandError> {
    Writer::lock(&instance.writer_lock(), patience)?.send(page, code, [0; 4], patience)
}

/// A line of `ixcp ls`.
#[derive(Serialize)]
struct Row {
    name: String,
    state: String,
    app: String,
    cores: u64,
    address: String,
    forwards: Vec<String>,
    qemu_pid: Option<u64>,
}

/// `ixcp ls`.
pub fn ls(options: &Ls) -> Result<u8> {
    let base = Base::from_env()?;
    let rows: Vec<Row> = base.list()?.iter().map(row).collect();
    if options.json {
        print(&(serde_json::to_string_pretty(&rows)? + "\n"));
        return Ok(0);
    }
    if rows.is_empty() {
        print(&format!("no dataplane runs (looked in {})\n", base.path().display()));
        return Ok(0);
    }
    print(&table(&rows));
    Ok(0)
}

/// Each column is as wide as its longest entry.
fn table(rows: &[Row]) -> String {
    let width = |least: usize, cell: fn(&Row) -> &str| {
        rows.iter().map(|row| cell(row).chars().count()).max().unwrap_or(0).max(least)
    };
    let (name, state) = (width(16, |r| &r.name), width(12, |r| &r.state));
    let (app, address) = (width(8, |r| &r.app), width(18, |r| &r.address));
    let line = |cells: [&str; 6]| {
        let [n, s, a, c, ip, f] = cells;
        format!("{n:<name$} {s:<state$} {a:<app$} {c:>5} {ip:<address$} {f}\n")
    };
    let mut text = line(["NAME", "STATE", "APP", "CORES", "ADDRESS", "FORWARDS"]);
    for r in rows {
        let (cores, forwards) = (r.cores.to_string(), r.forwards.join(" "));
        text += &line([&r.name, &r.state, &r.app, &cores, &r.address, &forwards]);
    }
    text
}

fn row(instance: &Instance) -> Row {
    let description = instance.describe().unwrap_or_default();
    let text = |key: &str| serial::printable(description[key].as_str().unwrap_or("?").as_bytes());
    let page = Page::open(&instance.control());
    let state = match page.as_ref().map_err(ToString::to_string).map(snapshot::read) {
        Ok(Ok(snapshot)) => snapshot.state.to_owned(),
        Ok(Err(PageError::Empty)) => "booting".to_owned(),
        Ok(Err(_)) | Err(_) => "unreadable".to_owned(),
    };
    let forward = |f: &serde_json::Value| {
        let part = |key: &str| f[key].as_str().map_or_else(|| f[key].to_string(), str::to_owned);
        format!("{}:{}/{}", part("host"), part("guest"), part("protocol"))
    };
    Row {
        name: instance.name.clone(),
        state,
        app: text("app"),
        cores: description["cores"].as_u64().unwrap_or(0),
        address: text("ip"),
        forwards: description["forwards"].as_array().into_iter().flatten().map(forward).collect(),
        qemu_pid: description["qemu_pid"].as_u64(),
    }
}

/// Why standard output has not taken everything, other than that nobody reads it any more.
static NOT_PRINTED: OnceLock<io::Error> = OnceLock::new();

/// Prints a text at once; whether it was taken. Standard output may be closed (`| head`), which is nobody's failure; any other one is
/// remembered for the end of the program: what goes on, goes on, and what was taken from the system is given back.
pub fn print(text: &str) -> bool {
    print_to(&mut io::stdout().lock(), text, &NOT_PRINTED)
}

/// The reason why something was not printed, if that is a failure.
pub fn not_printed() -> Option<&'static io::Error> {
    NOT_PRINTED.get()
}

fn print_to(out: &mut dyn Write, text: &str, failure: &OnceLock<io::Error>) -> bool {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => true,
        Err(e) => {
            if e.kind() != ErrorKind::BrokenPipe {
                // The first one counts.
                let _ = failure.set(e);
            }
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes nothing, for this reason.
    struct Full(ErrorKind);

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_nobody_reads_any_more_is_no_failure_and_a_full_disk_is_one() {
        let failure = OnceLock::new();
        assert!(print_to(&mut Vec::new(), "text", &failure));
        assert!(!print_to(&mut Full(ErrorKind::BrokenPipe), "text", &failure));
        assert!(failure.get().is_none());
        assert!(!print_to(&mut Full(ErrorKind::StorageFull), "text", &failure));
        assert!(!print_to(&mut Full(ErrorKind::Other), "text", &failure));
        assert_eq!(failure.get().map(io::Error::kind), Some(ErrorKind::StorageFull));
    }

    #[test]
    fn columns_stand_below_their_heads_whatever_the_state() {
        let row = |state: &str| Row {
            name: "kv".to_owned(),
            state: state.to_owned(),
            app: "kv".to_owned(),
            cores: 2,
            address: "10.0.2.15/24".to_owned(),
            forwards: vec!["127.0.0.1:1:1/tcp".to_owned()],
            qemu_pid: None,
        };
        let text = table(&[row("ready"), row("application ended")]);
        let at = |line: &str, word: &str| line.find(word).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for line in &lines[1..] {
            assert_eq!(at(line, "10.0.2.15"), at(lines[0], "ADDRESS"), "{text}");
            assert_eq!(at(line, "127.0.0.1"), at(lines[0], "FORWARDS"), "{text}");
        }
    }
}

//! A QEMU that runs: its serial line is shown, what becomes of it is told, and it is ended in order.
use super::ports;
use crate::app_end;
use crate::cli::{Control, Run};
use crate::command::Writer;
use crate::control::print;
use crate::instance::Claim;
use crate::net::Forward;
use crate::nic::{Played, Player};
use crate::page::Page;
use crate::qemu::{Ending, Machine};
use crate::serial::Follower;
use anyhow::{Context, Result};
use ix_abi::control::{CommandCode, header};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Time between two looks at the serial log and at the signals.
const LOOK: Duration = Duration::from_millis(5);
/// After this time without `ix: ready` the user is told.
const SLOW: Duration = Duration::from_secs(30);
/// How long after the control page the serial line may say that the application serves.
const LINE_LAG: Duration = Duration::from_millis(300);
/// How long an orderly stop, and then SIGTERM, may take.
const GRACE: Duration = Duration::from_secs(2);
/// The exit code when the machine has lost its network card: as if QEMU had failed.
const CARD_LOST: u8 = 5;
/// What the kernel prints when the application serves.
const READY: &str = "ix: ready";
/// What each line of the report of a card's self-test begins with.
const REPORT: &str = "ix: nictest: ";

/// QEMU's user network holds a file for each forwarded connection, and the usual limit of 1024 is
/// only the soft one. Not being allowed to is no reason to stop.
fn raise_file_limit() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

/// This program, as it was called.
fn me() -> String {
    let me = std::env::args().next().filter(|arg| arg.contains('/'));
    me.unwrap_or_else(|| "ixcp".to_owned())
}

/// A running QEMU and everything that belongs to it.
pub(super) struct Session {
    claim: Claim,
    child: Child,
    /// The network card, if another program plays it.
    nic: Option<Played>,
    /// That program has ended while QEMU ran.
    card_lost: bool,
    /// Where it is shared. A line is for who wants something of it.
    page: Option<Page>,
    serial: Follower,
    signals: Signals,
    started: Instant,
    forwards: Vec<Forward>,
    /// What was tried to end the machine, and when.
    ending: Option<(Attempt, Instant)>,
    ready: bool,
    /// When the control page first said so.
    ready_since: Option<Instant>,
    told_slow: bool,
    /// It was looked whether the forwarded ports lead to anybody.
    looked_at_ports: bool,
    /// Since when the control page says that the application has ended.
    app_ended_since: Option<Instant>,
    /// That this was told.
    told_ended: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Attempt {
    Command,
    Terminate,
    Kill,
}

impl Session {
    pub(super) fn start(
        claim: Claim,
        machine: &Machine,
        player: Option<&Player>,
        options: &Run,
    ) -> Result<Session> {
        let instance = &claim.instance;
        let page = match machine.control_by {
            Control::Shared => Some(Page::create(&instance.control())?),
            Control::Serial => None,
        };
        // Signals from here on are ours: QEMU must not outlive an early Ctrl-C.
        let signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot handle signals")?;
        let log = std::fs::File::create(instance.qemu_log())?;
        std::fs::File::create(instance.serial())?;
        claim.share_lock()?;
        raise_file_limit();
        let started = Instant::now();
        let nic = player.map(|player| player.start(instance)).transpose()?;
        let child = Command::new(&machine.qemu)
            .args(machine.args())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C in the terminal is for this program, which then ends QEMU in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", machine.qemu.display()))?;
        let session = Session {
            serial: Follower::open(&instance.serial())?,
            claim,
            child,
            nic,
            card_lost: false,
            page,
            signals,
            started,
            forwards: machine.forwards.clone(),
            ending: None,
            ready: false,
            ready_since: None,
            told_slow: false,
            looked_at_ports: false,
            app_ended_since: None,
            told_ended: false,
        };
        session.describe(machine, options)?;
        Ok(session)
    }

    fn describe(&self, machine: &Machine, options: &Run) -> Result<()> {
        let instance = &self.claim.instance;
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        self.claim.write_description(&serde_json::json!({
            "name": instance.name,
            "app": options.app,
            "launcher_pid": std::process::id(),
            "qemu_pid": self.child.id(),
            "nic_pid": self.nic.as_ref().map(Played::pid),
            "qemu": machine.qemu,
            "started_unix": since_epoch.map_or(0, |d| d.as_secs()),
            "cores": options.cores,
            "memory_mib": options.memory,
            "net": options.vfio.map_or_else(|| options.net.to_string(), |bdf| format!("vfio={bdf}")),
            "ip": options.address().to_string(),
            "forwards": machine.forwards,
            "control": instance.control(),
            "serial": instance.serial(),
            "command": machine.shell(),
        }))
    }

    /// Until it has ended; the exit code.
    pub(super) fn stay(mut self) -> Result<u8> {
        loop {
            self.show_serial()?;
            if let Some(status) = self.child.try_wait().context("cannot wait for QEMU")? {
                self.show_serial()?;
                return Ok(self.ended(status));
            }
            self.look_at_page();
            self.look_at_ports();
            self.look_at_nic()?;
            self.look_at_app();
            if self.signals.pending().next().is_some() {
                self.end_harder();
            }
            if self.ending.is_some_and(|(_, since)| since.elapsed() > GRACE) {
                self.end_harder();
            }
            let waits = !self.ready && self.app_ended_since.is_none();
            if waits && !self.told_slow && self.started.elapsed() > SLOW {
                self.told_slow = true;
                eprintln!(
                    "ixcp: not ready after {} s; it goes on waiting (Ctrl-C ends it)",
                    SLOW.as_secs()
                );
            }
            std::thread::sleep(LOOK);
        }
    }

    fn show_serial(&mut self) -> Result<()> {
        for line in self.serial.poll().context("cannot read the serial log")? {
            if line.starts_with(READY) && !self.ready {
                self.ready = true;
                self.tell_ready(&line);
            } else if line.starts_with(REPORT) {
                // It was asked for, perhaps for a file.
                print(&format!("{line}\n"));
            } else {
                eprintln!("{line}");
            }
        }
        Ok(())
    }

    /// The kernel's line may be below its log level: the control page says it too.
    fn look_at_page(&mut self) {
        let Some(page) = &self.page else { return };
        if self.ready || page.load(header::READY_NS) == 0 {
            return;
        }
        let since = *self.ready_since.get_or_insert_with(Instant::now);
        if since.elapsed() > LINE_LAG {
            self.ready = true;
            self.tell_ready(&format!("{READY}: {}", self.claim.instance.name));
        }
    }

    /// Who leads a port to an application that listens on another one sees connections reset, and nothing else.
    fn look_at_ports(&mut self) {
        let Some(page) = &self.page else { return };
        if self.looked_at_ports || !self.ready || !ports::are_settled(page) {
            return;
        }
        self.looked_at_ports = true;
        ports::warnings(page, &self.forwards).iter().for_each(|line| eprintln!("ixcp: {line}"));
    }

    /// A machine whose card is gone is of no use.
    fn look_at_nic(&mut self) -> Result<()> {
        let Some(nic) = &mut self.nic else { return Ok(()) };
        if let Some(status) = nic.ended()?
            && self.ending.is_none()
        {
            // They end together: QEMU may be about to.
            std::thread::sleep(GRACE / 4);
            if self.child.try_wait()?.is_none() {
                eprintln!(
                    "ixcp: the network card's program has ended ({status}), so QEMU is ended"
                );
                self.card_lost = true;
                self.end_harder();
            }
        }
        Ok(())
    }

    /// An application that has ended by itself is not waited for: says what can be done. One that serves again may end again.
    fn look_at_app(&mut self) {
        let Some(exit) = self.page.as_ref().and_then(app_end::of) else {
            (self.app_ended_since, self.told_ended) = (None, false);
            return;
        };
        let since = *self.app_ended_since.get_or_insert_with(Instant::now);
        if self.told_ended || self.ending.is_some() || since.elapsed() <= LINE_LAG {
            return;
        }
        self.told_ended = true;
        let (name, me) = (&self.claim.instance.name, me());
        let before = if self.ready { "" } else { " before it was ready" };
        eprintln!(
            "ixcp: the application has ended{before} ({}); the machine goes on\n  \
             start it afresh   {me} restart-app --name {name}\n  \
             end it            Ctrl-C, or {me} stop --name {name}",
            app_end::text(exit)
        );
    }

    fn tell_ready(&self, line: &str) {
        let name = &self.claim.instance.name;
        let me = me();
        let mut text = format!("{line}\n");
        for f in &self.forwards {
            text += &format!(
                "  talk to it   {} (leads to its port {}/{})\n",
                f.host, f.guest, f.protocol
            );
        }
        text += &format!("  watch it     {me} status --name {name}\n");
        text += &format!("  end it       Ctrl-C, or {me} stop --name {name}\n");
        // Nobody may be listening on standard output: that does not concern the dataplane.
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    /// First by command, then by SIGTERM, then by SIGKILL.
    fn end_harder(&mut self) {
        let next = match self.ending {
            None => Attempt::Command,
            Some((Attempt::Command, _)) => Attempt::Terminate,
            Some(_) => Attempt::Kill,
        };
        let next =
            if next == Attempt::Command && !self.ask_to_stop() { Attempt::Terminate } else { next };
        match next {
            Attempt::Command => {}
            Attempt::Terminate => {
                // The child has not been waited for, so the number still is its own.
                let _ = kill(crate::pid_of(&self.child), Signal::SIGTERM);
            }
            Attempt::Kill => {
                let _ = self.child.kill();
            }
        }
        self.ending = Some((next, Instant::now()));
    }

    fn ask_to_stop(&self) -> bool {
        if !self.ready {
            return false;
        }
        let half = GRACE / 4;
        let instance = &self.claim.instance;
        let Ok(writer) = Writer::lock(&instance.writer_lock(), half) else { return false };
        let stop = |page: &Page| writer.send(page, CommandCode::Stop, [0; 4], half);
        match &self.page {
            Some(page) => stop(page).is_ok(),
            // That the line is dead then is no surprise.
            None => Page::open(&instance.control()).map(|page| stop(&page)).is_ok(),
        }
    }

    fn ended(mut self, status: ExitStatus) -> u8 {
        if let Some(rest) = self.serial.rest() {
            eprintln!("{rest}");
        }
        let killed = matches!(self.ending, Some((Attempt::Terminate | Attempt::Kill, _)));
        let ending = Ending::of(status, killed);
        if let Ok(said) = std::fs::read(self.claim.instance.qemu_log()) {
            for line in said.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
                let line = crate::serial::printable(line);
                // QEMU announces the signal that we sent it, and wonders about the card's cable.
                let known = killed && line.contains("terminating on signal")
                    || self.nic.is_some() && line.contains("hub 0 with no nics");
                if !known {
                    eprintln!("qemu: {line}");
                }
            }
        }
        if let Some(nic) = &mut self.nic {
            let status = nic.end();
            for line in nic.said().lines() {
                eprintln!("{line}");
            }
            // QEMU does not always outlive its card long enough for `look_at_nic` to see that it was the first.
            if let Some(status) = status.filter(|status| !status.success() && !self.card_lost) {
                eprintln!("ixcp: the network card's program has ended ({status})");
            }
        }
        eprintln!("ixcp: {}", ending.text());
        let code = match ending.exit_code() {
            0 if self.card_lost => CARD_LOST,
            code => code,
        };
        if code == 0 {
            self.claim.remove();
        } else {
            eprintln!("ixcp: its files are kept in {}", self.claim.instance.dir().display());
        }
        code
    }
}

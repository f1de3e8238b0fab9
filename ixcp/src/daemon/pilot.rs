//! One dataplane: looks at its page, asks its policy, and carries out what that says.
use super::limits::{self, RENEW};
use super::log::Log;
use super::reader::{self, View};
use super::store;
use crate::command::{CommandError, Writer};
use crate::host::cpus::{self, Cpus};
use crate::host::frequency::{Frequency, SYSFS};
use crate::host::job::Job;
use crate::instance::Instance;
use crate::page::Page;
use crate::policy::{Change, Config, Governor, Kind, Step};
use ix_abi::control::{BULK_BASE, CommandCode};
use ix_abi::demand::{LIMIT_WORDS, Limits};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};
use toml::Table;

/// How long a command that moves groups may go unanswered: the kernel gives moves three seconds.
const ANSWER: Duration = Duration::from_secs(8);
/// After something failed, nothing is tried for so long.
const BACK_OFF: Duration = Duration::from_secs(1);
/// Time between two looks whether the policy was changed.
const RELOAD: Duration = Duration::from_millis(200);
/// Time between two looks at a page that cannot be read.
const UNREADABLE: Duration = Duration::from_millis(100);
/// Time between two looks at a page over a serial line, at least: the line is slow, and others want it, too.
const OVER_A_LINE: Duration = Duration::from_millis(500);

/// What decides and acts.
#[derive(Debug)]
pub struct Pilot {
    instance: Instance,
    changes: Table,
    page: Option<Page>,
    /// The page is told over a serial line.
    line: bool,
    config: Config,
    written: Option<SystemTime>,
    reload_at: Option<Instant>,
    /// Of this boot, with so many cores.
    governor: Option<((u64, usize), Governor)>,
    /// Limits that were accepted last, in which boot, and when.
    limits: Option<(u64, Limits, Instant)>,
    not_before: Option<Instant>,
    start: Instant,
    host: Option<Host>,
    log: Log,
    wakes: Option<u64>,
}

/// What of the host is at the policy's disposal.
#[derive(Debug)]
struct Host {
    /// Where the virtual cores run, in their order.
    cpus: Vec<usize>,
    frequency: Option<Frequency>,
    job: Option<Job>,
}

impl Pilot {
    /// For a dataplane; nothing is touched yet.
    pub fn new(instance: Instance, changes: Table) -> Pilot {
        Pilot {
            log: Log::new(&instance),
            instance,
            changes,
            page: None,
            line: false,
            config: Config::default(),
            written: None,
            reload_at: None,
            governor: None,
            limits: None,
            not_before: None,
            start: Instant::now(),
            host: None,
            wakes: None,
        }
    }

    /// Whose.
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// Time to the next look.
    pub fn interval(&self) -> Duration {
        if self.line {
            return OVER_A_LINE.max(Duration::from_millis(self.config.interval_ms));
        }
        if self.page.is_none() {
            UNREADABLE
        } else {
            Duration::from_millis(self.config.interval_ms)
        }
    }

    /// One look, and what follows from it.
    pub fn look(&mut self, now: Instant) {
        self.reload(now);
        if self.not_before.is_some_and(|at| now < at) {
            return;
        }
        let outcome = self.view().map_or(Ok(()), |view| self.decide(view, now));
        if let Err(e) = outcome {
            self.tell(&e);
            self.not_before = Some(now + BACK_OFF);
        }
        self.line = self.page.as_ref().map_or(self.line, |page| !page.is_mapped());
        if self.line {
            self.page = None;
        }
    }

    /// Gives back what was borrowed: nobody will decide from now on.
    pub fn end(mut self) {
        if let Some(page) = &self.page
            && self.limits.as_ref().is_some_and(|(_, limits, _)| limits.grant != 0)
            && let Ok(view) = reader::read(page)
        {
            let limits = limits::limits(&self.config, view.cores, view.active, 0);
            let _ = self.send_limits(&limits);
        }
        self.leave_host();
    }

    fn tell(&mut self, text: &str) {
        self.log.tell(self.config.policy.name(), text);
    }

    /// The policy may have been set anew.
    fn reload(&mut self, now: Instant) {
        if self.reload_at.is_some_and(|at| now < at) {
            return;
        }
        let first = self.reload_at.is_none();
        self.reload_at = Some(now + RELOAD);
        let written = store::written(&self.instance);
        if !first && written == self.written {
            return;
        }
        self.written = written;
        match store::load(&self.instance, &self.changes) {
            Ok(config) if config == self.config && !first => {}
            Ok(config) => {
                self.leave_host();
                self.config = config;
                self.governor = None;
                self.tell(&format!("policy {}", self.config.policy));
            }
            Err(e) => self.tell(&format!("{e}; policy {} goes on", self.config.policy)),
        }
    }

    fn view(&mut self) -> Option<View> {
        if self.page.is_none() {
            self.page = Page::open(&self.instance.control()).ok();
        }
        match reader::read(self.page.as_ref()?) {
            // A kernel that boots has nothing to decide about.
            Err(crate::snapshot::PageError::Empty) => None,
            Ok(view) if view.cores > 0 => Some(view),
            Ok(_) => None,
            Err(e) => {
                self.tell(&e.to_string());
                None
            }
        }
    }

    fn decide(&mut self, mut view: View, now: Instant) -> Result<(), String> {
        if !view.ready {
            return Ok(());
        }
        if !view.measures && self.config.policy != Kind::Static {
            self.tell("this kernel does not measure its load: only the policy static can be had");
            return Ok(());
        }
        self.note_wakes(&view);
        let fresh = self.governor.as_ref().is_none_or(|(of, _)| *of != (view.epoch, view.cores));
        if fresh {
            self.enter_host(view.cores);
            let frequencies = self.host.as_ref().and_then(|h| h.frequency.as_ref());
            let shares = frequencies.map_or(&[][..], Frequency::shares);
            let governor = Governor::new(&self.config, view.cores as u32, shares);
            self.governor = Some(((view.epoch, view.cores), governor));
        }
        view.sample.now_ms = now.duration_since(self.start).as_millis() as u64;
        let Some((_, governor)) = &mut self.governor else { return Ok(()) };
        let change = governor.decide(&view.sample);
        let (step, authorised) = (governor.step(), governor.authorised());
        let outcome = match &change {
            Some(change) => self.carry_out(change, &mut view),
            None => self.settle(step, &view),
        };
        self.grant(&view, authorised, now)?;
        outcome
    }

    fn note_wakes(&mut self, view: &View) {
        let before = self.wakes.replace(view.wakes);
        if before.is_some_and(|before| before < view.wakes) {
            let serving = view.active.count_ones();
            self.tell(&format!("the dataplane has woken a core by itself: {serving} serve"));
        }
    }

    /// Takes CPUs back before cores are to run on them, and lends them after they are parked.
    fn carry_out(&mut self, change: &Change, view: &mut View) -> Result<(), String> {
        let start = Instant::now();
        let to = change.to;
        let outcome = self.change(to, view);
        let took = outcome.map(|()| start.elapsed().as_secs_f64() * 1e3);
        let failed = took.is_err();
        let now_ms = self.start.elapsed().as_millis() as u64;
        if let (false, Some((_, governor))) = (failed, &mut self.governor) {
            governor.carried_out(now_ms);
        }
        self.log.decided(self.config.policy.name(), change, took);
        if failed {
            // It was told with the figures.
            self.not_before = Some(Instant::now() + BACK_OFF);
        }
        Ok(())
    }

    fn change(&mut self, to: Step, view: &mut View) -> Result<(), String> {
        let wanted = reader::all(to.cores as usize);
        self.lend(view.active | wanted, view.cores);
        if let Some(frequency) = self.host.as_mut().and_then(|h| h.frequency.as_mut()) {
            frequency.set(to.frequency).map_err(|e| format!("{e:#}"))?;
        }
        self.send(CommandCode::SetCores, to.cores.into(), |_| {}).map_err(|e| e.to_string())?;
        view.active = wanted;
        self.lend(wanted, view.cores);
        Ok(())
    }

    /// What holds without any change: the host as the policy wants it.
    fn settle(&mut self, step: Step, view: &View) -> Result<(), String> {
        if let Some(frequency) = self.host.as_mut().and_then(|h| h.frequency.as_mut()) {
            frequency.set(step.frequency).map_err(|e| format!("{e:#}"))?;
        }
        self.lend(view.active, view.cores);
        Ok(())
    }

    /// The job has the CPUs on which no core of `busy` runs. Trouble with it does not keep the dataplane from its cores.
    fn lend(&mut self, busy: u64, cores: usize) {
        let Some(Host { cpus, job: Some(job), .. }) = &mut self.host else { return };
        let of = |core: usize| cpus[core % cpus.len()];
        let taken: Cpus = (0..cores).filter(|c| busy & 1 << c != 0).map(of).collect();
        let free: Cpus = (0..cores).map(of).filter(|cpu| !taken.contains(cpu)).collect();
        if let Err(e) = job.give(&free) {
            self.tell(&format!("{e:#}"));
        }
    }

    /// Tells the kernel its limits when they have changed, and renews a grant.
    fn grant(&mut self, view: &View, authorised: u32, now: Instant) -> Result<(), String> {
        let limits = limits::limits(&self.config, view.cores, view.active, authorised);
        let known = self.limits.as_ref().filter(|(epoch, ..)| *epoch == view.epoch);
        let due = match known {
            Some((_, last, at)) => {
                *last != limits || limits.grant != 0 && now.duration_since(*at) >= RENEW
            }
            // As another daemon, or the kernel itself, has them already.
            None => view.limits != limits.encode() || limits.grant != 0,
        };
        if due && view.measures {
            self.send_limits(&limits).map_err(|e| format!("the limits were not taken: {e}"))?;
        }
        if due || known.is_none() {
            self.limits = Some((view.epoch, limits, now));
        }
        Ok(())
    }

    fn send_limits(&self, limits: &Limits) -> Result<(), CommandError> {
        let words = limits.encode();
        let lay = |page: &Page| {
            words.iter().enumerate().for_each(|(i, word)| page.store(BULK_BASE + i * 8, *word));
        };
        self.send(CommandCode::SetLimits, LIMIT_WORDS as u64, lay)
    }

    fn send(
        &self,
        code: CommandCode,
        arg: u64,
        lay: impl FnOnce(&Page),
    ) -> Result<(), CommandError> {
        let Some(page) = &self.page else { return Ok(()) };
        let writer = Writer::lock(&self.instance.writer_lock(), ANSWER)?;
        writer.send_with(page, code, [arg, 0, 0, 0], ANSWER, lay).map(|_| ())
    }

    /// Holds the virtual cores on their CPUs, and looks for the job and for cpufreq, where the policy needs it.
    fn enter_host(&mut self, cores: usize) {
        self.leave_host();
        let kind = self.config.policy;
        if !matches!(kind, Kind::Efficient | Kind::Background) {
            return;
        }
        let own = cpus::allowed(0).unwrap_or_default();
        let cpus: Vec<usize> = match self.config.host.cpus.is_empty() {
            true => own.iter().copied().collect(),
            false => self.config.host.cpus.clone(),
        };
        if cpus.is_empty() {
            return self
                .tell("it is not known on which CPUs the cores run: name them as host.cpus");
        }
        let used: Cpus = (0..cores).map(|core| cpus[core % cpus.len()]).collect();
        let frequency = match (kind, Frequency::open(Path::new(SYSFS), &used)) {
            (Kind::Efficient, Ok(frequency)) => Some(frequency),
            (Kind::Efficient, Err(e)) => {
                self.tell(&format!("frequencies are left alone, only cores are saved: {e:#}"));
                None
            }
            _ => None,
        };
        let job = match (kind, Job::open(&self.config.job)) {
            (Kind::Background, Ok(Some(job))) => Some(job),
            (Kind::Background, Ok(None)) => {
                self.tell("no job is named (job.cgroup or job.pid): parked cores' CPUs are lent to nobody");
                None
            }
            (Kind::Background, Err(e)) => {
                self.tell(&format!("CPUs are lent to nobody: {e:#}"));
                None
            }
            _ => None,
        };
        if frequency.is_some() || job.is_some() {
            self.hold(cores, &cpus);
        }
        self.host = Some(Host { cpus, frequency, job });
    }

    fn hold(&mut self, cores: usize, cpus: &[usize]) {
        let threads = self.instance.qemu_pid().map(|pid| cpus::virtual_cores(pid.as_raw()));
        let threads = threads.unwrap_or_default();
        if threads.len() < cores {
            return self.tell(
                "the threads of the virtual cores are not known: they run where Linux puts them",
            );
        }
        if cpus.len() < cores {
            self.tell(&format!(
                "{cores} cores share {} CPUs: one of them is free when all of its cores are parked",
                cpus.len()
            ));
        }
        for (core, thread) in threads {
            if let Err(e) = cpus::hold(thread, &[cpus[core % cpus.len()]].into()) {
                return self.tell(&format!("{e:#}"));
            }
        }
    }

    fn leave_host(&mut self) {
        let Some(host) = self.host.take() else { return };
        if let Some(mut frequency) = host.frequency
            && let Err(e) = frequency.set(1.0)
        {
            self.tell(&format!("{e:#}"));
        }
        if let Some(Err(e)) = host.job.map(Job::release) {
            self.tell(&format!("the job was not released: {e:#}"));
        }
    }
}

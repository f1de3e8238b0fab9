//! `ixcp policy`: `show`, `set`, `log`, `init`, `simulate`.
use super::config::{self, Config};
use crate::cli::{Policy, PolicyAction, PolicyLog, PolicySet, PolicyShow, Simulate};
use crate::control::print;
use crate::daemon::{lock, log, reader, store};
use crate::host::job::Job;
use crate::instance::{Base, Instance};
use crate::page::Page;
use crate::sim::{self, Curve, Setup};
use crate::svg;
use anyhow::{Context, Result, bail};
use ix_abi::control::header;
use ix_abi::demand::{Want, word};
use serde::Serialize;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Seek};
use std::time::{Duration, Instant};
use toml::Table;

/// Time between two looks at a log.
const LOOK: Duration = Duration::from_millis(50);
/// Time between two words about a simulation that takes long.
const PROGRESS: Duration = Duration::from_secs(3);

/// `ixcp policy`.
pub fn run(options: &Policy) -> Result<u8> {
    let name = options.name.as_deref();
    match &options.action {
        PolicyAction::Show(options) => show(name, options),
        PolicyAction::Set(options) => set(name, options),
        PolicyAction::Log(options) => log(name, options),
        PolicyAction::Simulate(_) | PolicyAction::Init if name.is_some() => {
            bail!("nothing was done: this is about no dataplane, so leave --name away")
        }
        PolicyAction::Simulate(options) => simulate(options),
        PolicyAction::Init => {
            print(config::DEFAULT);
            Ok(0)
        }
    }
}

#[derive(Serialize)]
struct Shown<'a> {
    name: &'a str,
    /// The daemon that decides about this dataplane.
    daemon_pid: Option<u32>,
    /// A daemon that runs and watches others only.
    daemon_elsewhere_pid: Option<u32>,
    settings: Table,
    config: Config,
    serving: Option<u32>,
    wants: Option<u32>,
    reason: Option<&'static str>,
    granted: Option<u64>,
}

fn show(name: Option<&str>, options: &PolicyShow) -> Result<u8> {
    let base = Base::from_env()?;
    let instance = base.find(name)?;
    let (daemon, elsewhere) = match lock::holder(&base) {
        Some(holder) if holder.watches(&instance) => (Some(holder), None),
        other => (None, other),
    };
    let page = Page::open(&instance.control())?;
    let view = reader::read(&page).ok();
    let want = view.as_ref().map(|_| Want::decode(page.load(word::WANT)));
    let shown = Shown {
        name: &instance.name,
        daemon_pid: daemon.as_ref().map(|d| d.pid),
        daemon_elsewhere_pid: elsewhere.as_ref().map(|d| d.pid),
        settings: store::read(&instance)?,
        config: match &daemon {
            Some(daemon) => daemon.config(&instance)?,
            None => store::load(&instance, &Table::new())?,
        },
        serving: view.as_ref().map(|v| v.active.count_ones()),
        wants: view.as_ref().and_then(|v| v.sample.wants),
        reason: want.map(|want| want.reason.text()),
        granted: view.as_ref().map(|_| granted(&page)),
    };
    if options.json {
        print(&(serde_json::to_string_pretty(&shown)? + "\n"));
        return Ok(0);
    }
    let mut out = format!("{}: policy {}", instance.name, shown.config.policy);
    out += &match (&daemon, &elsewhere) {
        (Some(daemon), _) => format!(", daemon {} decides\n", daemon.pid),
        (None, Some(other)) => format!(", but NO DAEMON DECIDES: {}\n", ignores(other)),
        (None, None) => ", but NO DAEMON RUNS: start one with `ixcp daemon`\n".to_owned(),
    };
    if shown.settings.get("policy").is_none() {
        out += match daemon {
            Some(_) => "nothing was set here: it is as the daemon was told, or the default\n",
            None => {
                "nothing was set here: a daemon started with --policy or --config goes by that\n"
            }
        };
    } else {
        let text = toml::to_string(&shown.settings)?;
        let _ = writeln!(out, "set here: {}", text.lines().collect::<Vec<_>>().join(" ").trim());
    }
    if let (Some(serving), Some(granted)) = (shown.serving, shown.granted) {
        let _ = match serving {
            1 => write!(out, "1 core serves"),
            n => write!(out, "{n} cores serve"),
        };
        if let (Some(wants), Some(reason)) = (shown.wants, shown.reason) {
            let _ = write!(out, ", the dataplane wants {wants} ({reason})");
        }
        let _ = writeln!(out, ", it may wake {} more by itself", granted.count_ones());
    }
    print(&out);
    Ok(0)
}

/// A daemon that does not decide about the dataplane in question.
fn ignores(daemon: &lock::Holder) -> String {
    match daemon.task.names.as_slice() {
        [] => format!("daemon {} does not watch what is behind a serial line", daemon.pid),
        names => format!(
            "daemon {} watches only {}; end it and start one without --name",
            daemon.pid,
            names.join(", ")
        ),
    }
}

/// Parked cores that the kernel may wake now.
fn granted(page: &Page) -> u64 {
    let grant = page.load(word::LIMITS + 8);
    let (ends, now) = (page.load(word::GRANT_ENDS_NS), page.load(header::NOW_NS));
    if ends != 0 && ends < now {
        0
    } else {
        grant & !page.load(header::ACTIVE) & !page.load(header::AWAY)
    }
}

fn set(name: Option<&str>, options: &PolicySet) -> Result<u8> {
    let base = Base::from_env()?;
    let instance = base.find(name)?;
    let mut changes = if options.reset { Table::new() } else { store::read(&instance)? };
    config::overlay(&mut changes, config::setting(&format!("policy={}", options.policy))?);
    let mut names_job = false;
    for text in &options.settings {
        let setting = config::setting(text)?;
        names_job |= setting.contains_key("job");
        config::overlay(&mut changes, setting);
    }
    const UNCHANGED: &str = "nothing was changed";
    let config = Config::from_table(changes.clone(), "these settings").context(UNCHANGED)?;
    // One that was named earlier may have ended since: that is the daemon's to tell.
    if names_job {
        Job::open(&config.job).context(UNCHANGED)?;
    }
    store::write(&instance, &changes)?;
    let then = match lock::holder(&base) {
        Some(daemon) if daemon.watches(&instance) => format!("daemon {} takes it over", daemon.pid),
        Some(other) => format!("NO DAEMON TAKES IT OVER: {}", ignores(&other)),
        None => "it holds as soon as a daemon runs: `ixcp daemon`".to_owned(),
    };
    print(&format!("{}: policy {}; {then}\n", instance.name, options.policy));
    Ok(0)
}

fn log(name: Option<&str>, options: &PolicyLog) -> Result<u8> {
    let instance = Base::from_env()?.find(name)?;
    let path = log::path(&instance);
    if options.json && !options.follow {
        print(&array(&std::fs::read_to_string(&path).unwrap_or_default()));
        return Ok(0);
    }
    let mut reader = match std::fs::File::open(&path) {
        Ok(file) => Some(BufReader::new(file)),
        Err(_) if options.follow => None,
        Err(_) => {
            print(&format!("{}: no daemon has decided anything yet\n", instance.name));
            return Ok(0);
        }
    };
    loop {
        let mut line = String::new();
        let got = reader.as_mut().map_or(Ok(0), |r| r.read_line(&mut line))?;
        if got > 0 && line.ends_with('\n') {
            let text = match serde_json::from_str::<log::Line>(&line) {
                Ok(_) if options.json => line,
                Ok(parsed) => parsed.show() + "\n",
                Err(_) => continue,
            };
            if !print(&text) {
                return Ok(0);
            }
            continue;
        }
        if !options.follow || !instance.lives() {
            return Ok(0);
        }
        wait(&mut reader, &instance, got)?;
    }
}

/// The lines of a log as an array, without those that are only half written.
fn array(log: &str) -> String {
    let good = |line: &&str| serde_json::from_str::<log::Line>(line).is_ok();
    let lines: Vec<&str> = log.lines().filter(good).collect();
    match lines.is_empty() {
        true => "[]\n".to_owned(),
        false => format!("[\n  {}\n]\n", lines.join(",\n  ")),
    }
}

/// Waits for more; begins anew with a file that has come in the place of a full one.
fn wait(
    reader: &mut Option<BufReader<std::fs::File>>,
    instance: &Instance,
    partial: usize,
) -> Result<()> {
    std::thread::sleep(LOOK);
    if let Some(reader) = reader.as_mut() {
        // A line that was half written is read again.
        reader.seek_relative(-(partial as i64))?;
        let len = std::fs::metadata(log::path(instance)).map_or(u64::MAX, |m| m.len());
        if len >= reader.stream_position()? {
            return Ok(());
        }
    }
    *reader = std::fs::File::open(log::path(instance)).ok().map(BufReader::new);
    Ok(())
}

fn simulate(options: &Simulate) -> Result<u8> {
    let mut changes = match &options.config {
        Some(file) => config::read(file)?,
        None => Table::new(),
    };
    changes.remove("instances");
    for text in &options.set {
        config::overlay(&mut changes, config::setting(text)?);
    }
    config::overlay(&mut changes, config::setting(&format!("policy={}", options.policy))?);
    let config = Config::from_table(changes, "the configuration")?;
    let mut setup = Setup::new(config, Curve::find(&options.load)?);
    setup.cores = options.cores;
    setup.connections = options.connections;
    setup.seed = options.seed;
    setup.peak_rps = options.peak.or(setup.peak_rps);
    let report = sim::run_with(&setup, &mut progress());
    if let Some(file) = &options.svg {
        svg::write(file, &crate::plot::of_report(&report))?;
    }
    if let Some(file) = &options.csv {
        std::fs::write(file, report.csv())
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    if options.json {
        print(&(serde_json::to_string_pretty(&report)? + "\n"));
    } else {
        print(&report.text());
        if options.decisions {
            print(&format!("\n{}", report.decisions()));
        }
    }
    Ok(0)
}

/// Tells on standard error how far a simulation is, if it takes longer than one would wait in silence.
fn progress() -> impl FnMut(f64) {
    let (start, mut told) = (Instant::now(), Duration::ZERO);
    move |share| {
        let elapsed = start.elapsed();
        if elapsed - told >= PROGRESS {
            told = elapsed;
            eprintln!(
                "ixcp: {:.0} % simulated after {:.0} s",
                share * 100.0,
                elapsed.as_secs_f64()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_without_decisions_is_an_empty_array() {
        assert_eq!(array(""), "[]\n");
        assert_eq!(array("{\"half"), "[]\n");
    }
}

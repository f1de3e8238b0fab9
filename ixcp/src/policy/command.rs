//! `ixcp policy`: `show`, `set`, `log`, `init`, `simulate`.
use super::config::{self, Config};
use crate::cli::{Policy, PolicyLog, PolicySet, PolicyShow, Simulate};
use crate::control::print;
use crate::daemon::{lock, log, reader, store};
use crate::instance::{Base, Instance};
use crate::page::Page;
use crate::sim::{self, Curve, Setup};
use crate::svg;
use anyhow::{Context, Result};
use ix_abi::control::header;
use ix_abi::demand::{Want, word};
use serde::Serialize;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Seek, Write};
use std::time::Duration;
use toml::Table;

/// Time between two looks at a log.
const LOOK: Duration = Duration::from_millis(50);

/// `ixcp policy`.
pub fn run(options: &Policy) -> Result<u8> {
    match options {
        Policy::Show(options) => show(options),
        Policy::Set(options) => set(options),
        Policy::Log(options) => log(options),
        Policy::Simulate(options) => simulate(options),
        Policy::Init => {
            print(config::DEFAULT);
            Ok(0)
        }
    }
}

#[derive(Serialize)]
struct Shown<'a> {
    name: &'a str,
    daemon_pid: Option<u32>,
    settings: Table,
    config: Config,
    serving: Option<u32>,
    wants: Option<u32>,
    reason: Option<&'static str>,
    granted: Option<u64>,
}

fn show(options: &PolicyShow) -> Result<u8> {
    let base = Base::from_env()?;
    let instance = base.find(options.target.name.as_deref())?;
    let daemon_pid = lock::holder(&base);
    let page = Page::open(&instance.control())?;
    let view = reader::read(&page).ok();
    let want = view.as_ref().map(|_| Want::decode(page.load(word::WANT)));
    let shown = Shown {
        name: &instance.name,
        daemon_pid,
        settings: store::read(&instance)?,
        config: store::load(&instance, &Table::new())?,
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
    out += &match daemon_pid {
        Some(pid) => format!(", daemon {pid} decides\n"),
        None => ", but NO DAEMON RUNS: start one with `ixcp daemon`\n".to_owned(),
    };
    if shown.settings.get("policy").is_none() {
        out += "nothing was set here: a daemon started with --policy or --config goes by that\n";
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

/// Parked cores that the kernel may wake now.
fn granted(page: &Page) -> u64 {
    let grant = page.load(word::LIMITS + 8);
    let (ends, now) = (page.load(word::GRANT_ENDS_NS), page.load(header::NOW_NS));
    if ends != 0 && ends < now { 0 } else { grant & !page.load(header::ACTIVE) }
}

fn set(options: &PolicySet) -> Result<u8> {
    let base = Base::from_env()?;
    let instance = base.find(options.target.name.as_deref())?;
    let mut changes = if options.reset { Table::new() } else { store::read(&instance)? };
    config::overlay(&mut changes, config::setting(&format!("policy={}", options.policy))?);
    for text in &options.settings {
        config::overlay(&mut changes, config::setting(text)?);
    }
    Config::from_table(changes.clone(), "these settings").context("nothing was changed")?;
    store::write(&instance, &changes)?;
    let then = match lock::holder(&base) {
        Some(pid) => format!("daemon {pid} takes it over"),
        None => "it holds as soon as a daemon runs: `ixcp daemon`".to_owned(),
    };
    print(&format!("{}: policy {}; {then}\n", instance.name, options.policy));
    Ok(0)
}

fn log(options: &PolicyLog) -> Result<u8> {
    let instance = Base::from_env()?.find(options.target.name.as_deref())?;
    let path = log::path(&instance);
    let mut reader = match std::fs::File::open(&path) {
        Ok(file) => Some(BufReader::new(file)),
        Err(_) if options.follow => None,
        Err(_) => {
            print(&format!("{}: no daemon has decided anything yet\n", instance.name));
            return Ok(0);
        }
    };
    let mut out = std::io::stdout().lock();
    loop {
        let mut line = String::new();
        let got = reader.as_mut().map_or(Ok(0), |r| r.read_line(&mut line))?;
        if got > 0 && line.ends_with('\n') {
            let text = match serde_json::from_str::<log::Line>(&line) {
                Ok(_) if options.json => line,
                Ok(parsed) => parsed.show() + "\n",
                Err(_) => continue,
            };
            // Nobody reads any more: the end, and no error.
            if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
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
    let report = sim::run(&setup);
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

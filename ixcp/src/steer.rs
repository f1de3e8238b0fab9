//! The commands that steer a running dataplane: `cores`, `flows`, `batch`.
use crate::cli::{Batch, Cores, CoresAction, Flows, FlowsAction};
use crate::command::{CommandError, Writer};
use crate::control::{print, take};
use crate::daemon::lock;
use crate::instance::{Base, Instance};
use crate::measured::{self, Load};
use crate::page::Page;
use crate::policy::Kind;
use crate::snapshot;
use anyhow::{Result, anyhow, bail};
use give::Gift;
use ix_abi::Status;
use ix_abi::control::{CommandCode, OWNERS_BASE, header};
use ix_abi::limits::CORES_MAX;
use serde::Serialize;
use serde_json::json;
use shape::Shape;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

mod give;
mod shape;

/// How long a booting kernel is waited for.
const BOOT: Duration = Duration::from_secs(5);
/// How long a command may go unanswered: the kernel gives moves three seconds.
const ANSWER: Duration = Duration::from_secs(8);
/// How long `ixcp flows` looks at what the groups bring.
const LOOK: Duration = Duration::from_millis(300);
/// Groups that it lists.
const BUSIEST: usize = 8;

/// Where the flow groups are.
#[derive(Debug, Serialize)]
struct Placement {
    /// By core.
    cores: Vec<Core>,
    /// By group: the core that has it.
    groups: Vec<u64>,
    /// Moves since boot.
    moves: u64,
    /// By group: what it brings; empty if the kernel does not measure, or was not asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    loads: Vec<GroupLoad>,
}

/// What a flow group has brought since boot, and lately.
#[derive(Debug, Serialize)]
struct GroupLoad {
    group: usize,
    core: u64,
    /// Frames since boot.
    frames: u64,
    /// Time that cores have spent on it since boot.
    busy_ns: u64,
    /// Frames per second while this command looked.
    frames_ps: f64,
    /// Share of a core's time, 0 to 1, likewise.
    busy: f64,
}

#[derive(Debug, Serialize)]
struct Core {
    core: usize,
    state: &'static str,
    serves: bool,
    groups: u64,
    connections: u64,
}

fn placement(page: &Page) -> Result<Placement> {
    let snapshot = take(page, BOOT)?;
    let owner = |group: u64| page.load(OWNERS_BASE + group as usize * 8);
    let cores = snapshot.cores.iter().enumerate().map(|(core, block)| Core {
        core,
        state: match (block.serves, page.load(header::BACKGROUND) >> core & 1) {
            _ if page.load(header::AWAY) >> core & 1 != 0 => "away",
            (true, _) => block.state,
            (false, 0) => "parked",
            (false, _) => "background",
        },
        serves: block.serves,
        groups: block.groups,
        connections: block.counters.get("tcp_connections"),
    });
    Ok(Placement {
        cores: cores.collect(),
        groups: (0..snapshot.groups).map(owner).collect(),
        moves: snapshot.moves,
        loads: Vec::new(),
    })
}

fn open(name: Option<&str>) -> Result<(Instance, Page)> {
    let instance = Base::from_env()?.find(name)?;
    let page = Page::open(&instance.control())?;
    Ok((instance, page))
}

fn send(
    instance: &Instance,
    page: &Page,
    code: CommandCode,
    args: [u64; 4],
) -> Result<u64, CommandError> {
    Writer::lock(&instance.writer_lock(), ANSWER)?.send(page, code, args, ANSWER)
}

/// `ixcp cores`.
pub fn cores(options: &Cores) -> Result<u8> {
    let (instance, page) = open(options.target.which())?;
    let all = page.load(header::CORES);
    let Some(action) = &options.action else {
        return show(&page, options.json, |placement| {
            let mut text =
                format!("{:>4}  {:<10} {:>6} {:>11}\n", "CORE", "STATE", "GROUPS", "CONNECTIONS");
            for c in &placement.cores {
                let _ = writeln!(
                    text,
                    "{:>4}  {:<10} {:>6} {:>11}",
                    c.core, c.state, c.groups, c.connections
                );
            }
            text
        });
    };
    snapshot::check(&page)?;
    let shape = Shape::of(&page);
    shape.check_cores(action).map_err(|why| anyhow!("{} {why}", instance.name))?;
    let active = page.load(header::ACTIVE);
    let bit = |core: u16| 1u64 << core;
    let (code, arg) = match *action {
        CoresAction::Set { count } => (CommandCode::SetCores, count.into()),
        CoresAction::Park { core } => (CommandCode::SetCoreSet, active & !bit(core)),
        CoresAction::Unpark { core } => (CommandCode::SetCoreSet, active | bit(core)),
        CoresAction::Reserve { count } => return reserve(&instance, &page, count, options.json),
        CoresAction::Give { core, ref to, timeout } => {
            let gift = Gift { core, to: to.as_deref(), patience: timeout };
            return give::give(&instance, &page, &gift, options.json);
        }
    };
    match send(&instance, &page, code, [arg, 0, 0, 0]) {
        Err(CommandError::Refused(Status::Invalid)) => {
            bail!("{} has {all} cores: so many or such cannot serve", instance.name)
        }
        Err(CommandError::Refused(Status::InUse)) => bail!(
            "{} of the {all} cores are reserved for background threads and cannot serve; `ixcp cores reserve` changes that",
            page.load(header::BACKGROUND).count_ones()
        ),
        Err(CommandError::Refused(Status::Away)) => {
            bail!(
                "{}: such a core is away, another dataplane has it, and can give it back by `ixcp cores give`: see `ixcp cores`",
                instance.name
            )
        }
        Err(CommandError::Refused(Status::TimedOut)) => bail!(
            "some flow groups did not move in time, since the application did not let go of them: \
             `ixcp cores` shows where they are; try again"
        ),
        outcome => outcome.map_err(|e| e.told("the cores are as they were"))?,
    };
    let count = match code {
        CommandCode::SetCores => arg,
        _ => arg.count_ones().into(),
    };
    let name = &instance.name;
    say(
        options.json,
        &json!({ "name": name, "serving": count, "cores": all }),
        &format!("{name}: {count} of {all} cores serve"),
    );
    let chosen = matches!(action, CoresAction::Set { .. }).then_some(count);
    if let Some(text) = overruled(&Base::from_env()?, &instance, chosen) {
        eprintln!("ixcp: {text}");
    }
    Ok(0)
}

/// What was done, in one of both ways.
fn say(as_json: bool, json: &serde_json::Value, text: &str) {
    let text = if as_json { format!("{json:#}\n") } else { format!("{text}\n") };
    print(&text);
}

/// Whether a daemon may undo what was said of cores: so many of them, or, if `None`, which ones.
fn overruled(base: &Base, instance: &Instance, chosen: Option<u64>) -> Option<String> {
    let daemon = lock::decides(base, instance)?;
    let config = daemon.config(instance).ok()?;
    let by = match (config.policy, config.fixed.cores) {
        (Kind::Static, 0) => return None,
        (Kind::Static, fixed) if chosen == Some(fixed.into()) => return None,
        (Kind::Static, fixed) => format!("static with static.cores={fixed}"),
        (policy, _) => policy.to_string(),
    };
    let name = &instance.name;
    let (cores, means) = match (chosen, config.fixed.cores) {
        (Some(cores), _) => (format!(" static.cores={cores}"), ""),
        // As it is already.
        (None, 0) => (String::new(), ""),
        (None, _) => (" static.cores=0".to_owned(), " (0: that policy leaves the cores alone)"),
    };
    Some(format!(
        "warning: daemon {} decides by policy {by} and may change this at once; \
         `ixcp policy set static{cores} --name {name}` keeps it{means}",
        daemon.pid
    ))
}

/// `ixcp cores reserve`.
fn reserve(instance: &Instance, page: &Page, count: u16, json: bool) -> Result<u8> {
    let all = page.load(header::CORES);
    match send(instance, page, CommandCode::Reserve, [count.into(), 0, 0, 0]) {
        Err(CommandError::Refused(Status::Invalid)) => bail!(
            "{count} of the {all} cores cannot be reserved, since only those that do not serve can be: `ixcp cores set {}` first",
            all.saturating_sub(count.into()).max(1)
        ),
        outcome => outcome.map_err(|e| e.told("the cores are as they were"))?,
    };
    let name = &instance.name;
    say(
        json,
        &json!({ "name": name, "reserved": count, "cores": all }),
        &format!("{name}: {count} of {all} cores are reserved for background threads"),
    );
    Ok(0)
}

/// Looks twice at what each flow group brings.
fn loads(page: &Page, owners: &[u64]) -> Vec<GroupLoad> {
    if !measured::is_there(page) {
        return Vec::new();
    }
    let cores = (page.load(header::CORES) as usize).min(CORES_MAX);
    let look = || (0..owners.len()).map(|group| measured::load(page, cores, group)).collect();
    let (start, before): (_, Vec<Load>) = (Instant::now(), look());
    std::thread::sleep(LOOK);
    let (elapsed, now) = (start.elapsed().as_secs_f64(), look());
    let pairs = now.iter().zip(&before).zip(owners).enumerate();
    let load = |(group, ((now, before), core)): (usize, ((&Load, &Load), &u64))| GroupLoad {
        group,
        core: *core,
        frames: now.frames,
        busy_ns: now.busy_ns,
        frames_ps: now.frames.wrapping_sub(before.frames) as f64 / elapsed,
        busy: now.busy_ns.wrapping_sub(before.busy_ns) as f64 / 1e9 / elapsed,
    };
    pairs.map(load).collect()
}

/// The groups that bring most, if any bring anything.
fn busiest(loads: &[GroupLoad]) -> String {
    let mut some: Vec<_> = loads.iter().filter(|load| load.frames_ps > 0.0).collect();
    some.sort_by(|a, b| b.frames_ps.total_cmp(&a.frames_ps).then(a.group.cmp(&b.group)));
    if some.is_empty() {
        return String::new();
    }
    let mut text = format!("\n{:>5}  {:>4}  {:>9}  {:>6}\n", "GROUP", "CORE", "FRAMES/s", "BUSY");
    for load in some.iter().take(BUSIEST) {
        let GroupLoad { group, core, frames_ps, busy, .. } = load;
        let _ = writeln!(text, "{group:>5}  {core:>4}  {frames_ps:>9.0}  {:>5.1}%", busy * 100.0);
    }
    if some.len() > BUSIEST {
        let _ = writeln!(text, "and {} more groups", some.len() - BUSIEST);
    }
    text
}

/// `ixcp flows`.
pub fn flows(options: &Flows) -> Result<u8> {
    let (instance, page) = open(options.target.which())?;
    let Some(FlowsAction::Move { group, core }) = options.action else {
        let mut placement = placement(&page)?;
        placement.loads = loads(&page, &placement.groups);
        return show_it(&placement, options.json, |placement| {
            let mut text = format!("{:>4}  {}\n", "CORE", "FLOW GROUPS");
            for core in 0..placement.cores.len() {
                let _ = writeln!(text, "{core:>4}  {}", ranges(&placement.groups, core as u64));
            }
            let _ = writeln!(text, "{} moves since boot", placement.moves);
            text += &busiest(&placement.loads);
            text
        });
    };
    snapshot::check(&page)?;
    Shape::of(&page).check_move(group, core).map_err(|why| anyhow!("{} {why}", instance.name))?;
    match send(&instance, &page, CommandCode::MoveGroup, [group.into(), core.into(), 0, 0]) {
        Err(CommandError::Refused(Status::Invalid)) => {
            bail!(
                "core {core} does not serve any more, or flow group {group} has gone: see `ixcp cores` and `ixcp flows`"
            )
        }
        Err(CommandError::Refused(Status::Again)) => {
            bail!("flow group {group} is moving already: try again")
        }
        Err(CommandError::Refused(Status::TimedOut)) => {
            bail!(
                "flow group {group} stays: the application, or the device, did not let go of it in time"
            )
        }
        outcome => outcome.map_err(|e| e.told("the group is where it was"))?,
    };
    let name = &instance.name;
    say(
        options.json,
        &json!({ "name": name, "group": group, "core": core }),
        &format!("{name}: flow group {group} is at core {core}"),
    );
    Ok(0)
}

/// `ixcp batch`.
pub fn batch(options: &Batch) -> Result<u8> {
    let (instance, page) = open(options.target.which())?;
    let frames = send(&instance, &page, CommandCode::SetBatch, [options.frames.into(), 0, 0, 0])?;
    print(&format!("{}: at most {frames} frames at once\n", instance.name));
    Ok(0)
}

fn show(page: &Page, json: bool, text: impl FnOnce(&Placement) -> String) -> Result<u8> {
    show_it(&placement(page)?, json, text)
}

fn show_it(
    placement: &Placement,
    json: bool,
    text: impl FnOnce(&Placement) -> String,
) -> Result<u8> {
    let text = if json { serde_json::to_string_pretty(placement)? + "\n" } else { text(placement) };
    print(&text);
    Ok(0)
}

/// The numbers of a core's groups: `0-3 7 9-11`, or `none`.
fn ranges(owners: &[u64], core: u64) -> String {
    let mut text = String::new();
    let mut from = None;
    for group in 0..=owners.len() {
        let ours = owners.get(group) == Some(&core);
        match (from, ours) {
            (None, true) => from = Some(group),
            (Some(first), false) => {
                let space = if text.is_empty() { "" } else { " " };
                let _ = match group - 1 {
                    last if last == first => write!(text, "{space}{first}"),
                    last => write!(text, "{space}{first}-{last}"),
                };
                from = None;
            }
            _ => {}
        }
    }
    if text.is_empty() { "none".to_owned() } else { text }
}

#[cfg(test)]
mod tests;

//! `ixcp cores give`: a core goes to another dataplane, under the monitor (`docs/vtx.md`). The kernel answers whether it was asked
//! for; that it has gone is told by the control page, and waited for with a bound.
use super::ANSWER;
use super::shape::Shape;
use crate::command::{CommandError, Writer};
use crate::instance::Instance;
use crate::page::Page;
use crate::snapshot;
use anyhow::{Context, Result, anyhow, bail};
use ix_abi::Status;
use ix_abi::control::{
    CommandCode, DATAPLANE_NAME_BYTES, GiveRefusal, header, leaves_offset, outcome,
};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

/// Time between two looks at what becomes of it.
const LOOK: Duration = Duration::from_millis(5);

/// What is asked for.
pub struct Gift<'a> {
    /// The dataplane's own number of it.
    pub core: u16,
    /// Who gets it; `None`: the next that lists it.
    pub to: Option<&'a str>,
    /// How long until it is away.
    pub patience: Duration,
}

/// What has become of a core that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It has left with nothing on it.
    Asked,
    /// Its time was over.
    Forced,
    /// The monitor has taken its wish back.
    Withdrawn,
    /// The kernel was started anew.
    Restarted,
    /// It is still here.
    Late,
}

/// Asks, waits, says.
pub fn give(instance: &Instance, page: &Page, gift: &Gift<'_>, as_json: bool) -> Result<u8> {
    let name = &instance.name;
    // Not that it stays: a command without an answer may still be carried out.
    let (to, end) = carry_out(&instance.writer_lock(), page, gift)
        .with_context(|| format!("{name}: giving core {}", gift.core))?;
    let text = told(gift, &to, end).map_err(|why| anyhow!("{name}: {why}"))?;
    let left = if end == End::Forced { "forced" } else { "asked" };
    let json = json!({ "name": name, "core": gift.core, "to": to, "left": left });
    super::say(as_json, &json, &format!("{name}: {text}"));
    Ok(0)
}

/// What is to be read after the dataplane's name; `Err`: it was not given.
fn told(gift: &Gift<'_>, to: &str, end: End) -> Result<String, String> {
    let core = gift.core;
    match end {
        End::Asked => Ok(format!("core {core} is given to {to}")),
        End::Forced => Ok(format!(
            "core {core} is given to {to}, but by force, since it did not leave in time: connections that were on it are reset when it is back \
             (tcp_reset_by_force)"
        )),
        End::Withdrawn => Err(format!(
            "core {core} stays: the monitor has taken its wish back, since {to} has ended or stays down; see the machine's log"
        )),
        End::Restarted => Err(format!(
            "the dataplane was started anew while core {core} was to leave, and that was forgotten with it: look at `ixcp cores`, then give it again"
        )),
        End::Late => Err(format!(
            "core {core} is asked for, and is still here after {:?}: the application does not let go of it, or the machine is slow. Nothing more \
             is to be done: a second of the machine's time after it was asked the monitor takes the core for {to} by force, and connections \
             that are on it are reset. `ixcp cores` shows when it is away",
            gift.patience
        )),
    }
}

/// Who gets it, and what has become of it.
fn carry_out(lock: &Path, page: &Page, gift: &Gift<'_>) -> Result<(String, End)> {
    let start = Instant::now();
    let epoch = snapshot::check(page)?;
    let refused = |refusal| anyhow!(why(refusal, gift));
    Shape::of(page).check_give(gift.core).map_err(refused)?;
    let core = usize::from(gift.core);
    let before = page.load_acquire(leaves_offset(core));
    let writer = Writer::lock(lock, ANSWER)?;
    let name = gift.to.unwrap_or_default().as_bytes();
    let args = [gift.core.into(), name.len() as u64, 0, 0];
    match writer.send_with(page, CommandCode::GiveCore, args, ANSWER, |page| page.lay_bulk(name)) {
        Ok(_) => {}
        // It is of this command as long as nobody else may write one.
        Err(CommandError::Refused(status)) => {
            let value = page.load(outcome::VALUE);
            bail!(refusal(status, value, gift))
        }
        Err(e) => return Err(e.into()),
    }
    let to = page.reply_text(DATAPLANE_NAME_BYTES);
    drop(writer);
    let end = wait(page, core, (epoch, before), start + gift.patience)?;
    Ok((to, end))
}

/// Looks until the core has left, or it is sure that it does not.
fn wait(page: &Page, core: usize, before: (u64, u64), deadline: Instant) -> Result<End> {
    let (epoch, before) = before;
    let mut was_leaving = false;
    loop {
        let its = page.load_acquire(header::EPOCH);
        // In this order: one that has come back in between has been counted before.
        let leaves = page.load_in_block(header::AWAY) >> core & 1 != 0;
        let now = page.load_acquire(leaves_offset(core));
        if let Some(why) = page.failure() {
            bail!("the core was asked for, and nothing more is known: {why}");
        }
        match () {
            () if its != epoch => return Ok(End::Restarted),
            () if now as u32 != before as u32 => return Ok(End::Asked),
            () if now != before => return Ok(End::Forced),
            () if was_leaving && !leaves => return Ok(End::Withdrawn),
            () if Instant::now() >= deadline => return Ok(End::Late),
            () => was_leaving |= leaves,
        }
        std::thread::sleep(LOOK);
    }
}

/// What the kernel says, in words.
fn refusal(status: Status, value: u64, gift: &Gift<'_>) -> String {
    let why_not = GiveRefusal(u16::try_from(value).unwrap_or(u16::MAX));
    match status {
        Status::Unsupported if value == 0 => {
            "the kernel is older than this command (control page before 3.5): \
                                              boot one that was built with this ixcp"
                .to_owned()
        }
        status if why_not.status() == status && why_not.text() != "unknown" => why(why_not, gift),
        status => format!("the kernel refuses: {status} ({value})"),
    }
}

/// Why it is not given, and what to do.
fn why(refusal: GiveRefusal, gift: &Gift<'_>) -> String {
    let core = gift.core;
    let to = gift.to.map_or_else(|| "each other that lists it".to_owned(), str::to_owned);
    let again = "see `ixcp cores`, and try again";
    match refusal {
        GiveRefusal::NoMonitor => "no monitor runs below its kernel, and only that can give a core to another dataplane: \
             boot on a machine with VT-x with `vmx=on` and `dataplanes=` (docs/vtx.md)"
            .to_owned(),
        GiveRefusal::NoSuchCore => {
            "there is no such core; its numbers are the dataplane's own: see `ixcp cores`".to_owned()
        }
        GiveRefusal::Core0 => "core 0 manages the others and never leaves".to_owned(),
        GiveRefusal::SharesQueue => {
            "other cores send through its queue of the network card: give one of the last cores".to_owned()
        }
        GiveRefusal::Reserved => {
            "it is reserved for background threads: `ixcp cores reserve` with fewer first".to_owned()
        }
        GiveRefusal::NotShared => "no other dataplane lists it: the lines of both in the boot configuration (`dataplanes=`) must, as no \
             first core (docs/vtx.md)"
            .to_owned(),
        GiveRefusal::NoSuchDataplane => {
            format!("no other dataplane named {to} shares a core with it: names are those of the boot configuration (`dataplanes=`)")
        }
        GiveRefusal::NotListed => format!(
            "{to} does not list core {core}: its line in the boot configuration (`dataplanes=`) must (docs/vtx.md)"
        ),
        GiveRefusal::Down => format!("{to} has ended or stays down: see the machine's log"),
        GiveRefusal::Away => "another dataplane has it already, and gives it back by its own `ixcp cores give`".to_owned(),
        GiveRefusal::UnderWay => format!("another move of it is under way, or it has just come back: {again}"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;

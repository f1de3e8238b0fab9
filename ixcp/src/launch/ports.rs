//! Whether anything listens where forwarded ports lead: the kernel's log of events tells which ports the application opens.
use crate::events::{Entry, Log};
use crate::net::{Forward, Protocol};
use crate::page::Page;
use ix_abi::control::header;
use ix_abi::event_log::EventKind;
use std::collections::BTreeSet;

/// So long after the application was ready, by the machine's own clock, its ports are in the log, which is written each millisecond.
const SETTLED_NS: u64 = 300_000_000;
/// The IP protocol UDP; the other one is TCP.
const UDP: u64 = 17;

/// Whether the application has been ready for long enough.
pub(super) fn are_settled(page: &Page) -> bool {
    let ready = page.load_acquire(header::READY_NS);
    ready != 0 && page.load(header::NOW_NS).saturating_sub(ready) >= SETTLED_NS
}

/// What is to be said of ports that lead to nobody; a line each.
pub(super) fn warnings(page: &Page, forwards: &[Forward]) -> Vec<String> {
    let Some(open) = Log::open(page).ok().and_then(|mut log| open(&log.read(page))) else {
        return Vec::new();
    };
    let is_open = |f: &Forward| open.contains(&(f.guest, f.protocol == Protocol::Udp));
    let name = |(port, udp): &(u16, bool)| format!("{port}/{}", if *udp { "udp" } else { "tcp" });
    let ports = match open.iter().map(name).collect::<Vec<_>>() {
        none if none.is_empty() => "the application listens on no port".to_owned(),
        some => format!("it listens on {}", some.join(", ")),
    };
    let forward = open.iter().next().map_or(String::new(), |(port, udp)| {
        let protocol = if *udp { "/udp" } else { "" };
        format!(" (another one is reached by --forward HOST:GUEST, like {port}:{port}{protocol})")
    });
    let say = |f: &Forward| {
        format!(
            "warning: nothing listens on the application's port {}/{}, where {} leads: {ports}{forward}",
            f.guest, f.protocol, f.host
        )
    };
    forwards.iter().filter(|f| !is_open(f)).map(say).collect()
}

/// The ports that are open now (UDP: `true`); `None` if the log has begun to forget.
fn open(events: &[Entry]) -> Option<BTreeSet<(u16, bool)>> {
    let mut open = BTreeSet::new();
    // Core 0 tells of them.
    let records = events.iter().filter(|e| e.core == 0).map(|e| e.record);
    for (at, record) in records.enumerate() {
        if at == 0 && record.number != 1 {
            return None;
        }
        let port = (record.small, record.a == UDP);
        match record.kind {
            EventKind::Listen => drop(open.insert(port)),
            EventKind::Unlisten => drop(open.remove(&port)),
            _ => {}
        }
    }
    Some(open)
}

#[cfg(test)]
mod tests;

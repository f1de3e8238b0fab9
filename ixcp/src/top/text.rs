//! A frame as words and numbers: for the table on the terminal, and whole for files and pipes.
use super::rates::{Frame, Rates};
use crate::measured::short;
use std::fmt::Write;

/// Columns of the table, and their widths; the first two are aligned to the left. Together they are as wide as a terminal is at least.
pub const COLUMNS: [(&str, usize); 11] = [
    ("CORE", 4),
    ("STATE", 7),
    ("GROUPS", 6),
    ("CONNS", 6),
    ("RX/s", 6),
    ("TX/s", 6),
    ("EVENTS/s", 8),
    ("BUSY", 6),
    ("USER", 6),
    ("DELAY99", 7),
    ("DROPS/s", 7),
];

/// Everything in plain text.
pub fn frame(f: &Frame) -> String {
    let mut out = head(f).join("\n");
    out.push_str("\n\n");
    line(&mut out, COLUMNS.map(|(name, _)| name.to_owned()));
    for cells in rows(f) {
        line(&mut out, cells);
    }
    out
}

/// The lines above the table; the IPv6 addresses, which are long, have their own.
pub fn head(f: &Frame) -> Vec<String> {
    let heart = match f.alive {
        Some(true) => ", heart beats",
        Some(false) => ", HEART STANDS STILL",
        None => "",
    };
    let (first, more) = f.address.split_once(", ").unwrap_or((&f.address, ""));
    let mut lines =
        vec![format!("{}: {}{heart}, up {}, {first}", f.name, f.state, uptime(f.uptime_s))];
    if !more.is_empty() {
        lines.push(more.to_owned());
    }
    lines.push(format!(
        "application {:?}, batch bound {}, {} of {} cores serve, {} moves of flow groups",
        f.app,
        f.batch,
        f.serving,
        f.cores.len(),
        f.moves
    ));
    lines
}

/// The table: a row for each core, and one for all if there are several.
pub fn rows(f: &Frame) -> Vec<[String; COLUMNS.len()]> {
    let mut rows: Vec<_> =
        f.cores.iter().map(|r| cells(&r.core.to_string(), r.state, &r.rates)).collect();
    if f.cores.len() > 1 {
        rows.push(cells("all", "", &f.total));
    }
    rows
}

fn cells(core: &str, state: &str, r: &Rates) -> [String; COLUMNS.len()] {
    [
        core.to_owned(),
        state.to_owned(),
        r.groups.to_string(),
        r.connections.to_string(),
        rate(r.rx_pps),
        rate(r.tx_pps),
        rate(r.events_ps),
        percent(r.busy),
        percent(r.user),
        r.delay_p99_ns.map_or_else(|| "-".to_owned(), short),
        rate(r.drops_ps),
    ]
}

fn line(out: &mut String, cells: [String; COLUMNS.len()]) {
    let mut text = String::new();
    for (i, (cell, (_, width))) in cells.iter().zip(COLUMNS).enumerate() {
        let _ = match i {
            0 | 1 => write!(text, "{cell:<width$} "),
            _ => write!(text, " {cell:>width$}"),
        };
    }
    let _ = writeln!(out, "{}", text.trim_end());
}

/// At most six characters, whatever the number: 0, 0.5, 999, 12.3k, 4.56M.
fn rate(value: Option<f64>) -> String {
    let Some(mut value) = value else { return "-".to_owned() };
    if value < 10.0 && value.fract() >= 0.05 {
        return format!("{value:.1}");
    }
    let mut unit = 0;
    const UNITS: [&str; 9] = ["", "k", "M", "G", "T", "P", "E", "Z", "Y"];
    // What would be rounded up to four digits is of the next unit.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    match unit {
        0 => format!("{value:.0}"),
        _ if value < 9.995 => format!("{value:.2}{}", UNITS[unit]),
        _ if value < 99.95 => format!("{value:.1}{}", UNITS[unit]),
        _ => format!("{value:.0}{}", UNITS[unit]),
    }
}

fn percent(share: Option<f64>) -> String {
    // A torn read may show a little more than all of the time.
    share.map_or_else(|| "-".to_owned(), |s| format!("{:.1}%", s.min(1.0) * 100.0))
}

fn uptime(seconds: f64) -> String {
    let s = seconds as u64;
    match s {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{}:{:02}", s / 60, s % 60),
        3600..86_400 => format!("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60),
        _ => format!("{} d {:02}:{:02}", s / 86_400, s / 3600 % 24, s / 60 % 60),
    }
}

#[cfg(test)]
mod tests;

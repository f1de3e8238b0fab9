//! A status drawn for people.
use crate::app_end;
use crate::measured::short;
use crate::snapshot::{Core, Snapshot};
use ix_abi::control::State;
use ix_abi::stats::Counter;
use std::fmt::Write;

/// Width of the longest bar.
const BAR_CELLS: usize = 24;

/// Columns of the first line; if it would be longer, its IPv6 addresses get a line of their own.
const FIRST_MAX: usize = 100;
/// An application that has not said that it is ready so long after the boot may never do so.
const SLOW_NS: u64 = 5_000_000_000;

/// The whole picture.
pub fn status(name: &str, s: &Snapshot) -> String {
    let mut out = String::new();
    head(&mut out, name, s);
    cores(&mut out, s);
    times(&mut out, s);
    batches(&mut out, s);
    tcp(&mut out, s);
    drops(&mut out, s);
    out
}

fn head(out: &mut String, name: &str, s: &Snapshot) {
    let heart = if s.alive { "heart beats" } else { "HEART STANDS STILL" };
    let seconds = s.now_ns as f64 / 1e9;
    let first = |address: &str| {
        format!("{name}: {}, {heart}, up {seconds:.1} s, {address} ({})", s.state, s.mac)
    };
    let all = addresses(s);
    let line = first(&all);
    let _ = match all.split_once(", ") {
        // The IPv6 addresses are long.
        Some((v4, v6)) if line.chars().count() > FIRST_MAX => writeln!(out, "{}\n{v6}", first(v4)),
        _ => writeln!(out, "{line}"),
    };
    let starts = match s.app_starts {
        1 => "started once".to_owned(),
        n => format!("started {n} times"),
    };
    let ready = match s.ready_ns {
        _ if s.state == State::AppEnded.text() => format!(
            "it has ended ({}); `ixcp restart-app` starts it afresh, `ixcp stop` ends the machine",
            app_end::text(s.app_exit)
        ),
        0 if s.state == State::Starting.text() && s.now_ns > SLOW_NS => {
            "not ready yet (it runs, and has not called ready)".to_owned()
        }
        0 => "not ready yet".to_owned(),
        ns => format!("ready after {:.2} s", ns as f64 / 1e9),
    };
    let _ = writeln!(out, "application {:?}: {starts}, {ready}", s.app);
    if let Some(d) = &s.demand {
        let busy = d.busy_permille as f64 / 10.0;
        let p99 = short(d.delay_p99_ns);
        let _ = writeln!(
            out,
            "wants {}: {} (queueing delay p99 {p99}, {busy:.1}% busy); has woken {} by itself",
            count(d.cores.into(), "core"),
            d.reason,
            d.wakes
        );
    }
    let _ = writeln!(
        out,
        "{}, {}, {}, batch bound {}, {} MiB, TSC {:.0} MHz",
        count(s.cores.len() as u64, "core"),
        count(s.queues, "queue pair"),
        count(s.groups, "flow group"),
        s.batch,
        s.memory_bytes >> 20,
        s.tsc_khz as f64 / 1e3
    );
    if let Some(m) = &s.monitor {
        let exits: u64 = s.cores.iter().flat_map(|c| &c.exits.0).map(|(_, n)| n).sum();
        let last = m.last.map_or(String::new(), |(cause, core)| {
            format!(", stopped {}, last on core {core} for {cause}", count(m.containments, "time"))
        });
        let _ =
            writeln!(out, "under IX's monitor: life {}, {}{last}", m.lives, count(exits, "exit"));
    }
}

/// So many of something, in words.
pub fn count(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// All its addresses.
pub fn addresses(s: &Snapshot) -> String {
    let first = match s.ipv4 {
        Some(ip) => format!("{ip}/{}", s.prefix),
        None => "no address".to_owned(),
    };
    let more = s.ipv6.iter().map(|(ip, prefix)| format!(", {ip}/{prefix}"));
    std::iter::once(first).chain(more).collect()
}

fn cores(out: &mut String, s: &Snapshot) {
    let _ = writeln!(
        out,
        "\n{:<5} {:<8} {:>10} {:>10} {:>9} {:>6} {:>10} {:>10} {:>7} {:>6} {:>6}",
        "core",
        "state",
        "rx pkts",
        "tx pkts",
        "batches",
        "avg",
        "events",
        "syscalls",
        "conns",
        "busy",
        "user"
    );
    for core in &s.cores {
        let torn = if core.torn { " (counters of two moments)" } else { "" };
        // One that was stopped has not said that it is away.
        let state = if core.away { "away" } else { core.state };
        let _ = writeln!(out, "{:<5} {state:<8} {}{torn}", core.core, row(|c| core.counter(c)));
    }
    if s.cores.len() > 1 {
        let total = row(|c| s.total.counters.get(c.name()));
        let _ = writeln!(out, "{:<5} {:<8} {total}", "all", "");
    }
}

fn row(get: impl Fn(Counter) -> u64) -> String {
    let (packets, batches) = (get(Counter::RxPackets), get(Counter::RxBatches));
    let average = if batches == 0 { 0.0 } else { packets as f64 / batches as f64 };
    let busy = get(Counter::BusyTsc);
    let all = busy.saturating_add(get(Counter::IdleTsc));
    format!(
        "{:>10} {:>10} {:>9} {:>6.1} {:>10} {:>10} {:>7} {:>6} {:>6}",
        packets,
        get(Counter::TxPackets),
        batches,
        average,
        get(Counter::Events),
        get(Counter::Syscalls),
        get(Counter::TcpConnections),
        percent(busy, all),
        percent(get(Counter::UserTsc), all),
    )
}

fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.1}%", part as f64 * 100.0 / whole as f64) }
}

/// What the cores measure of themselves.
fn times(out: &mut String, s: &Snapshot) {
    let measured: Vec<_> = s.cores.iter().filter_map(|c| Some((c, c.measured.as_ref()?))).collect();
    if measured.is_empty() {
        return;
    }
    let _ = writeln!(
        out,
        "\n{:<5} {:>9} {:>9} {:>9}   {:>9} {:>9} {:>9}   {:>9} {:>9} {:>9}",
        "", "delay p50", "p99", "max", "loop p50", "p99", "max", "user p50", "p99", "max"
    );
    for (core, m) in measured {
        let [delay, turn, user] = [&m.queueing_delay, &m.loop_time, &m.user_time].map(|t| {
            let [p50, p99, max] = [t.p50_ns, t.p99_ns, t.max_ns].map(short);
            if t.count == 0 {
                format!("{:>9} {:>9} {:>9}", "-", "-", "-")
            } else {
                format!("{p50:>9} {p99:>9} {max:>9}")
            }
        });
        let _ = writeln!(out, "{:<5} {delay}   {turn}   {user}", core.core);
    }
}

fn batches(out: &mut String, s: &Snapshot) {
    let largest = s.total.batches.iter().copied().max().unwrap_or(0);
    if largest == 0 {
        return;
    }
    let _ = writeln!(out, "\nreceive batches by size");
    for (i, &count) in s.total.batches.iter().enumerate().filter(|(_, n)| **n > 0) {
        let _ = writeln!(
            out,
            "{:>12}  {:<BAR_CELLS$} {count}{}",
            bucket_name(s, i),
            bar(count, largest),
            per_core(&s.cores, |c| c.batches.get(i).copied().unwrap_or(0))
        );
    }
}

fn bucket_name(s: &Snapshot, bucket: usize) -> String {
    let low = s.batch_buckets.get(bucket).copied().unwrap_or(0);
    match s.batch_buckets.get(bucket + 1) {
        None => format!("{low} and more"),
        Some(next) if *next == low + 1 => low.to_string(),
        Some(next) => format!("{low}–{}", next - 1),
    }
}

/// A bar of eighths of a cell; anything above 0 is visible.
fn bar(value: u64, largest: u64) -> String {
    const EIGHTHS: [char; 8] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉', '█'];
    let share = value as f64 / largest.max(1) as f64;
    let eighths = ((share * (BAR_CELLS * 8) as f64).round() as usize).clamp(1, BAR_CELLS * 8);
    let mut text = "█".repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        text.push(EIGHTHS[eighths % 8 - 1]);
    }
    text
}

fn per_core(cores: &[Core], get: impl Fn(&Core) -> u64) -> String {
    if cores.len() < 2 {
        return String::new();
    }
    let parts: Vec<String> = cores.iter().map(|c| get(c).to_string()).collect();
    format!("  ({})", parts.join(" + "))
}

fn tcp(out: &mut String, s: &Snapshot) {
    let get = |c: Counter| s.total.counters.get(c.name());
    let _ = writeln!(
        out,
        "\ntcp: {} accepted, {} connected, {} closed, {} retransmits, {} timeouts; \
         payload {} in, {} out, {} copied",
        get(Counter::TcpAccepted),
        get(Counter::TcpConnected),
        get(Counter::TcpClosed),
        get(Counter::TcpRetransmits),
        get(Counter::TcpTimeouts),
        bytes(get(Counter::PayloadIn)),
        bytes(get(Counter::PayloadOut)),
        bytes(get(Counter::PayloadCopied)),
    );
    let (free, all) = (get(Counter::BuffersFree), get(Counter::BuffersTotal));
    if all > 0 {
        let _ = writeln!(out, "receive buffers: {free} of {all} free");
    }
}

fn bytes(n: u64) -> String {
    match n {
        0..10_000 => format!("{n} B"),
        10_000..10_000_000 => format!("{:.1} kB", n as f64 / 1e3),
        _ => format!("{:.1} MB", n as f64 / 1e6),
    }
}

fn drops(out: &mut String, s: &Snapshot) {
    let dropped: Vec<_> = s.total.drops.0.iter().filter(|(_, n)| *n > 0).collect();
    if dropped.is_empty() {
        let _ = writeln!(out, "drops: none");
        return;
    }
    let _ = writeln!(out, "drops");
    for (name, count) in dropped {
        let _ = writeln!(out, "  {name:<22} {count}{}", per_core(&s.cores, |c| c.drops.get(name)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::scene;
    use ix_abi::control::header;
    use ix_abi::stats::Drop;

    #[test]
    fn the_picture_shows_cores_batches_and_only_drops_that_happened() {
        let snapshot = crate::snapshot::read(&scene(2).page).unwrap();
        let text = status("kv", &snapshot);
        assert!(
            text.starts_with("kv: ready, HEART STANDS STILL, up 2.5 s, 10.0.2.15/24"),
            "{text}"
        );
        assert!(text.contains("application \"kv\": started once, ready after 0.60 s"), "{text}");
        assert!(text.contains("tcp_no_port            7  (3 + 4)"), "{text}");
        assert!(!text.contains(Drop::NoBuffer.name()), "{text}");
        assert!(text.contains("           1  ████████████████████████ 20  (10 + 10)"), "{text}");
        assert!(text.contains("        8–15  ████▊                    4  (2 + 2)"), "{text}");
    }

    #[test]
    fn a_core_that_was_taken_away_is_shown_as_such_though_it_has_not_said_so() {
        let scene = scene(2);
        scene.page.store(header::AWAY, 0b10);
        let text = status("kv", &crate::snapshot::read(&scene.page).unwrap());
        assert!(text.contains("\n0     running ") && text.contains("\n1     away "), "{text}");
    }

    #[test]
    fn an_application_that_has_ended_is_not_waited_for() {
        let scene = scene(1);
        scene.page.store(header::STATE, State::AppEnded.0.into());
        scene.page.store(header::READY_NS, 0);
        scene.page.store(header::APP_EXIT, 3);
        let text = status("kv", &crate::snapshot::read(&scene.page).unwrap());
        assert!(text.contains("started once, it has ended (exit code 3)"), "{text}");
        assert!(text.contains("restart-app") && !text.contains("not ready yet"), "{text}");
        assert!(text.contains("\n1 core, 1 queue pair, 128 flow groups"), "{text}");
    }

    #[test]
    fn an_application_that_does_not_become_ready_is_told_as_such_after_a_while() {
        let scene = scene(1);
        scene.page.store(header::READY_NS, 0);
        let text = |state: State, now_ns| {
            scene.page.store(header::STATE, state.0.into());
            scene.page.store(header::NOW_NS, now_ns);
            status("kv", &crate::snapshot::read(&scene.page).unwrap())
        };
        let slow = text(State::Starting, 6_000_000_000);
        assert!(slow.contains("not ready yet (it runs, and has not called ready)\n"), "{slow}");
        assert!(text(State::Starting, 4_000_000_000).contains("not ready yet\n"));
        assert!(text(State::Booting, 6_000_000_000).contains("not ready yet\n"));
    }

    #[test]
    fn long_addresses_have_their_own_line() {
        let scene = scene(1);
        let text = || status("kv", &crate::snapshot::read(&scene.page).unwrap());
        scene.page.store(header::IPV6_PREFIXES, 0x40);
        let (short, rest) =
            text().split_once('\n').map(|(l, r)| (l.to_owned(), r.to_owned())).unwrap();
        assert!(
            short.contains("10.0.2.15/24, fe80::2/64 (") && rest.starts_with("application"),
            "{short}"
        );
        scene.page.store(header::IPV6_PREFIXES, 0x40_0040);
        scene.page.store(
            header::IPV6 + 8,
            u64::from_le_bytes([0x98, 0xed, 0x56, 0xed, 0x36, 0x68, 0xc1, 0xdd]),
        );
        let text = text();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].ends_with("10.0.2.15/24 (52:54:00:12:34:56)"), "{text}");
        assert_eq!(lines[1], "fe80::98ed:56ed:3668:c1dd/64, 2001:db8::5/64");
        assert!(lines[2].starts_with("application"), "{text}");
    }

    #[test]
    fn a_bar_is_never_empty_and_never_too_long() {
        assert_eq!(bar(1, u64::MAX), "▏");
        assert_eq!(bar(5, 5).chars().count(), BAR_CELLS);
        assert_eq!(bar(0, 0), "▏");
    }

    #[test]
    fn nothing_is_divided_by_zero() {
        let scene = scene(1);
        for i in 0..Counter::COUNT {
            let base = ix_abi::control::core_offset(0) + ix_abi::control::core_block::COUNTERS;
            scene.page.store(base + i * 8, 0);
        }
        let text = status("kv", &crate::snapshot::read(&scene.page).unwrap());
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    }
}

//! The list of scripts is the list of what is implemented: `docs/tcp.md` has it, and each behaviour
//! that is asked for has a script.
use ix_conformance::{case, table};
use std::path::PathBuf;

const BEGIN: &str = "<!-- scripts: begin -->\n";
const END: &str = "<!-- scripts: end -->";

/// What is asked for, and a script that shows it.
const REQUIRED: &[(&str, &str)] = &[
    ("three-way handshake", "rfc9293/handshake_passive"),
    ("three-way handshake, by the application", "rfc9293/handshake_active"),
    ("simultaneous open", "rfc9293/simultaneous_open"),
    ("simultaneous close", "rfc9293/close_simultaneous"),
    ("urgent pointer", "rfc9293/urgent"),
    ("half-close", "rfc9293/half_close"),
    ("zero-window probes", "rfc9293/zero_window_probe"),
    ("silly windows, receiver", "rfc9293/sws_receiver"),
    ("silly windows, sender", "rfc9293/sws_sender"),
    ("keep-alive", "rfc9293/keep_alive"),
    ("user timeout", "rfc5482/user_timeout"),
    ("window scaling", "rfc7323/scaling"),
    ("timestamps", "rfc7323/timestamps"),
    ("PAWS", "rfc7323/paws"),
    ("SACK, receiver", "rfc2018/blocks"),
    ("SACK, sender", "rfc6675/holes"),
    ("D-SACK, receiver", "rfc2883/duplicates"),
    ("D-SACK, sender", "rfc2883/told"),
    ("fast retransmit", "rfc5681/fast_retransmit"),
    ("limited transmit", "rfc3042/limited_transmit"),
    ("NewReno", "rfc6582/partial_ack"),
    ("CUBIC", "rfc9438/reduction"),
    ("ECN", "rfc3168/reaction"),
    ("ECN, receiver", "rfc3168/echo"),
    ("DCTCP", "rfc8257/exact_echo"),
    ("retransmission timeout", "rfc6298/measured_timeout"),
    ("its floor", "rfc6298/floor"),
    ("its floor in a datacentre", "rfc6298/floor_configured"),
    ("RACK", "rfc8985/loss"),
    ("RACK, reordering", "rfc8985/reordering_window"),
    ("TLP", "rfc8985/probe"),
    ("proportional rate reduction", "rfc6937/proportional"),
    ("challenge ACKs", "rfc5961/reset_in_window"),
    ("their rate", "rfc5961/rate"),
    ("initial sequence numbers", "rfc6528/sequence_numbers"),
    ("SYN cookies", "rfc4987/cookies"),
    ("what cookies keep", "rfc4987/cookie_keeps_options"),
    ("backlog", "rfc9293/backlog"),
    ("path MTU by ICMP", "rfc1191/lowered"),
    ("path MTU by ICMPv6", "rfc8201/lowered"),
    ("path MTU without ICMP", "rfc4821/black_hole"),
    ("larger path MTU", "rfc4821/probe_up"),
    ("TIME-WAIT", "rfc9293/time_wait_fin"),
    ("reuse of TIME-WAIT", "rfc6191/new_syn_in_time_wait"),
    ("reuse of TIME-WAIT by timestamp", "rfc6191/timestamp_in_time_wait"),
    ("delayed ACKs", "rfc9293/delayed_ack"),
    ("the window follows the application", "rfc9293/window_follows_application"),
    ("fragments", "rfc791/fragments"),
    ("ICMPv6 echo", "rfc4443/echo"),
];

fn page() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/tcp.md")
}

#[test]
fn the_page_lists_what_the_scripts_show() {
    let text = std::fs::read_to_string(page()).expect("docs/tcp.md");
    let (before, rest) = text.split_once(BEGIN).expect("the table begins");
    let (listed, after) = rest.split_once(END).expect("the table ends");
    let table = table::table();
    if std::env::var_os("IX_WRITE_TABLE").is_some() {
        std::fs::write(page(), format!("{before}{BEGIN}{table}{END}{after}")).expect("written");
        return;
    }
    let missing = table.lines().filter(|line| !listed.lines().any(|l| l == *line));
    let stale = listed.lines().filter(|line| !table.lines().any(|l| l == *line));
    let difference: Vec<String> =
        missing.map(|l| format!("+ {l}")).chain(stale.map(|l| format!("- {l}"))).collect();
    assert!(
        listed == table,
        "docs/tcp.md is not what the scripts say; IX_WRITE_TABLE=1 writes it anew\n{}",
        difference.join("\n")
    );
}

#[test]
fn every_script_says_what_it_shows_and_by_whom_it_is_asked_for() {
    for path in table::scripts() {
        let script = case::load(&path);
        assert!(!script.claims.is_empty(), "{path} has no `# RFC N §S: behaviour` on top");
        let folder = path.split('/').next().unwrap_or_default();
        let number = folder.trim_start_matches("rfc");
        let cited = script.claims.iter().any(|c| c.source.contains(&format!("RFC {number} ")));
        assert!(cited, "{path} cites nothing of its folder's RFC");
    }
}

#[test]
fn every_behaviour_that_is_asked_for_has_a_script() {
    let scripts = table::scripts();
    for (behaviour, script) in REQUIRED {
        let there = scripts.iter().any(|path| path == &format!("{script}.pkt"));
        assert!(there, "{behaviour}: no {script}");
    }
}

#[test]
fn what_is_known_to_fail_exists_and_has_a_reason() {
    for (path, reason) in case::known_failures() {
        assert!(
            case::folder().join(path.trim_end_matches(":v6")).is_file(),
            "{path} does not exist"
        );
        assert!(!reason.is_empty(), "{path} has no reason");
    }
}

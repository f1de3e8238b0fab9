//! The list of scripts is the list of what is implemented: `docs/tcp.md` has it, and each behaviour
//! that is asked for has a script.
use ix_conformance::{case, table};
use std::path::PathBuf;

const BEGIN: &str = "<!-- scripts: begin -->\n";
const END: &str = "<!-- scripts: end -->";

/// What is asked for, and a script that shows it.
const REQUIRED: &[(&str, &str)] = &[
    ("three-way handshake", "rfc9293/handshake_passive"),
    ("simultaneous open", "rfc9293/simultaneous_open"),
    ("simultaneous close", "rfc9293/close_simultaneous"),
    ("urgent pointer", "rfc9293/urgent"),
    ("half-close", "rfc9293/half_close"),
    ("zero-window probes", "rfc9293/zero_window_probe"),
    ("silly windows, receiver", "rfc9293/sws_receiver"),
    ("silly windows, sender", "rfc9293/sws_sender"),
    ("window scaling", "rfc7323/scaling"),
    ("timestamps", "rfc7323/timestamps"),
    ("PAWS", "rfc7323/paws"),
    ("fast retransmit", "rfc5681/fast_retransmit"),
    ("NewReno", "rfc6582/partial_ack"),
    ("retransmission timeout", "rfc6298/measured_timeout"),
    ("challenge ACKs", "rfc5961/reset_in_window"),
    ("TIME-WAIT", "rfc9293/time_wait_fin"),
    ("reuse of TIME-WAIT", "rfc6191/new_syn_in_time_wait"),
    ("delayed ACKs", "rfc9293/delayed_ack"),
    ("backlog", "rfc9293/backlog"),
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

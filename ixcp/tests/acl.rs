//! `ixcp acl test` as a program: what it prints where, and how it ends.
use std::process::{Command, Output};

const RULES: &str = r#"
[default]
in = "deny"

[[rule]]
name = "rack"
action = "allow"
protocol = "tcp"
remote = "10.0.2.0/24"
local-ports = 11211

[[rule]]
action = "reject"
protocol = "icmp"
icmp = "echo-request"

[[rule]]
action = "allow"
protocol = "udp"
local = "10.0.2.15"
direction = "both"
remote-ports = "50-60"
"#;

struct Rules(temp_dir::TempDir);

impl Rules {
    fn new(text: &str) -> Rules {
        let dir = temp_dir::TempDir::new().expect("a directory");
        std::fs::write(dir.child("rules.toml"), text).expect("a file");
        Rules(dir)
    }

    fn test(&self, args: &[&str]) -> Output {
        // Needs no dataplane, and looks for none.
        Command::new(env!("CARGO_BIN_EXE_ixcp"))
            .current_dir(self.0.path())
            .env("IX_RUNTIME_DIR", self.0.child("nothing"))
            .args(["acl", "test", "rules.toml"])
            .args(args)
            .output()
            .expect("ixcp runs")
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

#[track_caller]
fn fails(output: &Output, words: &[&str]) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(output.stdout.is_empty(), "{output:?}");
    assert!(words.iter().all(|word| said.contains(word)), "{said}");
}

#[test]
fn each_packet_is_told_what_decides_about_it() {
    let output = Rules::new(RULES).test(&[
        "--local",
        "10.0.2.15",
        "--packet",
        "tcp 10.0.2.7:4000 -> :11211",
        "--packet",
        "tcp 10.0.3.7:4000 -> :11211",
        "--packet",
        "icmp 1.2.3.4 -> echo-request",
        "--packet",
        "out udp :9 -> 1.2.3.4:53",
        "--packet",
        "tcp :9 -> 1.2.3.4:53",
    ]);
    assert!(output.status.success(), "{output:?}");
    let lines: Vec<&str> = text(&output.stdout).lines().collect();
    let wanted = [
        "tcp 10.0.2.7:4000 -> :11211: allow by rule 1, rules.toml:5 (rack): in tcp",
        "tcp 10.0.3.7:4000 -> :11211: deny by default: no rule is about it",
        "icmp 1.2.3.4 -> echo-request: reject by rule 2, rules.toml:12: in icmp",
        "out udp :9 -> 1.2.3.4:53: allow by rule 3, rules.toml:17: both udp",
        "tcp :9 -> 1.2.3.4:53: allow by default: no rule is about it",
    ];
    assert_eq!(lines.len(), wanted.len(), "{lines:#?}");
    for (line, wanted) in lines.iter().zip(wanted) {
        assert!(line.starts_with(wanted), "{line}");
    }
}

#[test]
fn without_packets_the_file_is_checked() {
    let output = Rules::new(RULES).test(&[]);
    assert!(output.status.success(), "{output:?}");
    assert!(text(&output.stdout).starts_with("rules.toml: 3 rules, "), "{output:?}");
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let broken = RULES.replace("echo-request", "echo-requests");
    fails(&Rules::new(&broken).test(&[]), &["rules.toml:15:"]);
    fails(&Rules::new("[[rule]]\n").test(&[]), &["rules.toml:1:", "action"]);
    let rules = Rules::new(RULES);
    fails(&rules.test(&["--packet", "tcp 1.2.3.4:5"]), &["not two ends", "wanted is"]);
    // One rule asks for our own address.
    fails(&rules.test(&["--packet", "tcp 1.2.3.4:5 -> :6"]), &["--local"]);
}

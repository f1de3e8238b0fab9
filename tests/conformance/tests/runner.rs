//! The runner itself: what is wrong in a script, or in a conversation, is found and said.
use ix_conformance::settings::Version::V4;
use ix_conformance::{Failure, parse, run, run::play as conversation};

const OPEN: &str = "established win 60000 <mss 1000>\n";

#[track_caller]
fn play(text: &str) -> Result<(), Failure> {
    run(&parse::parse("test.pkt", text).unwrap_or_else(|failure| panic!("{failure}")), V4)
}

/// The script fails at `line`, and says all of `words`.
#[track_caller]
fn fails(text: &str, line: usize, words: &[&str]) {
    let failure = play(text).expect_err("it fails");
    let said = failure.to_string();
    assert_eq!(failure.line, line, "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in:\n{said}");
    }
}

/// The script does not parse: its first bad line, and why.
#[track_caller]
fn refused(text: &str, line: usize, word: &str) {
    let failure = parse::parse("test.pkt", text).expect_err("it is refused");
    assert_eq!(failure.line, line, "{failure}");
    let said = failure.to_string();
    assert!(said.contains(&format!("test.pkt:{line}: ")) && said.contains(word), "{said}");
}

#[test]
fn a_good_conversation_passes() {
    play(&format!(
        "{OPEN}sendv 1500\n> . 1:1501(1500) ack 1 in 2\n< . 1:1(0) ack 1501\nsent 1500\n"
    ))
    .unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn each_field_of_a_segment_is_compared() {
    let lines = [
        ("> R 1:1001(1000) ack 1", "expected flags R"),
        ("> F. 1:1001(1000) ack 1", "expected flags F."),
        ("> . 2:1002(1000) ack 1", "expected seq 2"),
        ("> . 1:1000(999) ack 1", "expected bytes Some(999)"),
        ("> . 1:1001(1000) ack 2", "expected ack 2"),
        ("> . 1:1001(1000) ack 1 win 7", "expected win Some(7)"),
        ("> . 1:1001(1000) ack 1 <mss 1000>", "expected options"),
        ("> . 1:1001(1000) ack 1 ect0", "expected ECN Some(2)"),
        ("> . 1:1001(1000) ack 1 nodf", "expected DF Some(false)"),
        ("> . 1:1001(1000) ack 1 ttl 1", "expected TTL Some(1)"),
    ];
    for (line, words) in lines {
        let came = "came: P. 1:1001(1000) ack 1 win 65535";
        fails(&format!("{OPEN}sendv 1000\n{line}\n"), 3, &[words, came, line]);
    }
}

#[test]
fn segments_in_a_row_must_add_up() {
    let sends = format!("{OPEN}sendv 2500\n");
    let after = "< . 1:1(0) ack 2501\n";
    for good in ["in 3", "in *"] {
        let text = format!("{sends}> P. 1:2501(2500) ack 1 {good}\n{after}");
        play(&text).unwrap_or_else(|failure| panic!("{failure}"));
    }
    fails(
        &format!("{sends}> . 1:2501(2500) ack 1 in 2\n{after}"),
        3,
        &["expected bytes Some(1500)"],
    );
    fails(&format!("{sends}> . 1:2001(2000) ack 1 in 3\n{after}"), 3, &["expected bytes Some(0)"]);
    fails(&format!("{sends}> . 1:1501(1500) ack 1 in *\n{after}"), 3, &["more bytes came"]);
    fails(&format!("{sends}> . 1:2502(2501) ack 1 in *\n{after}"), 3, &["nothing came"]);
}

#[test]
fn a_failure_shows_the_conversation() {
    let text = format!("{OPEN}+1s sendv 10\n> . 1:1(0) ack 1\n");
    fails(&text, 3, &["until then", "0.000000 [a] < S 0:0(0)", "1.000000 [a] > P. 1:11(10) ack 1"]);
}

#[test]
fn what_no_line_asks_for_is_an_error() {
    fails(&format!("{OPEN}sendv 10\n< . 1:1(0) ack 11\n"), 3, &["no line asks for", "P. 1:11(10)"]);
    fails(&format!("{OPEN}sendv 10\n"), 0, &["no line asks for", "P. 1:11(10)"]);
    fails(&format!("{OPEN}< P. 1:11(10) ack 1\n+40ms > . 1:1(0) ack 11\n"), 0, &["Recv"]);
    fails(&format!("{OPEN}< P. 1:11(10) ack 1\nrecv 10\nquiet 50ms\n"), 4, &["ack 11"]);
}

#[test]
fn what_does_not_come_is_an_error() {
    fails(&format!("{OPEN}> . 1:1(0) ack 1\n"), 2, &["nothing came until 0.001000 s"]);
    fails(&format!("{OPEN}recv 1\n"), 2, &["told nothing"]);
    fails(&format!("{OPEN}< P. 1:11(10) ack 1\nrecv 11\n"), 3, &["told nothing"]);
    fails(&format!("{OPEN}< P. 1:11(10) ack 1\nrecv 9\n"), 3, &["expected Recv(9)", "len: 10"]);
    fails(&format!("{OPEN}< R 1:1(0)\ndead closed\n"), 3, &["Dead(Closed)", "reason: Reset"]);
}

#[test]
fn time_counts() {
    let late = format!("{OPEN}< P. 1:11(10) ack 1\nrecv 10\n+30ms > . 1:1(0) ack 11\n");
    fails(&late, 4, &["nothing came"]);
    let early = format!("{OPEN}< P. 1:11(10) ack 1\nrecv 10\n+50ms > . 1:1(0) ack 11\n");
    fails(&early, 4, &["it came at 0.04", "expected from 0.050000 s"]);
    let range = format!("{OPEN}< P. 1:11(10) ack 1\nrecv 10\n+10ms~50ms > . 1:1(0) ack 11\n");
    play(&range).unwrap_or_else(|failure| panic!("{failure}"));
    let wide = format!("--tolerance 20ms\n{early}");
    play(&wide).unwrap_or_else(|failure| panic!("{failure}"));
    fails(&format!("{OPEN}+1s close\n> F. 1:1(0) ack 1\n0.5s abort\n"), 4, &["time has passed"]);
}

#[test]
fn calls_must_end_as_the_script_says() {
    fails(&format!("{OPEN}close = state\n"), 2, &["expected Status(State)", "came Ok"]);
    fails(&format!("{OPEN}sendv 50000\n"), 2, &["expected Ok", "came Again with 10000"]);
    fails(&format!("{OPEN}sendv 50000 = 9\n"), 2, &["expected Took(9)"]);
    fails("accept\n", 1, &["came BadHandle"]);
}

#[test]
fn counters_must_be_right() {
    fails(&format!("{OPEN}counter tcp_accepted 2\n"), 2, &["Equal 2", "counted 1"]);
    fails(&format!("{OPEN}counter tcp_accepted >= 2\n"), 2, &["AtLeast 2", "counted 1"]);
    fails(&format!("{OPEN}drop tcp_checksum 1\n"), 2, &["counted 0"]);
}

#[test]
fn the_peer_can_be_misquoted_only_on_purpose() {
    refused("< . 1:1(0)\n", 1, "needs its `ack`");
    refused("< . * ack 1\n", 1, "needs its sequence number");
    refused("< . 1:5(5) ack 1\n", 1, "does not add up");
    refused("< . 1:1(0) ack 1 <mss *>\n", 1, "cannot leave anything open");
    refused("> . 1:1(0) ack 1 badsum\n", 1, "only a segment to send");
    refused("+* < . 1:1(0) ack 1\n", 1, "only what is expected");
}

#[test]
fn what_is_not_in_the_language_is_named_with_its_line() {
    refused("--mtu 1500\n--colour blue\n", 2, "unknown setting --colour");
    refused("--mtu many\n", 1, "\"many\" is no value");
    refused("--mtu\n", 1, "has no value");
    refused("listen\n--mtu 1500\n", 2, "settings come before everything else");
    refused("listen\n\ndance\n", 3, "neither a segment nor a call nor an event");
    refused("< Q 1:1(0)\n", 1, "no control bit");
    refused("< S 1:1(0) <mass 5>\n", 1, "no option");
    refused("< S 1:1(0) <mss 5\n", 1, "no `>`");
    refused("< S 1:1(0) tall\n", 1, "nothing that a segment has");
    refused("+5 listen\n", 1, "no time");
    refused("counter tcp_miracles 1\n", 1, "nothing is counted as");
    refused("dead bored\n", 1, "no reason");
    refused("sendv 5 = bored\n", 1, "no status");
    refused("set_option colour 1\n", 1, "no option");
    refused("< icmp gossip\n", 1, "no message");
}

#[test]
fn engines_repeat() {
    let text = "connect\n> S 0:0(0)\n+1s > S 0:0(0)\n< R. 0:0(0) ack 1\nconnected refused\n";
    let script = parse::parse("test.pkt", text).expect("a script");
    let logs = [conversation(&script, V4).0, conversation(&script, V4).0];
    assert_eq!(logs[0], logs[1]);
}

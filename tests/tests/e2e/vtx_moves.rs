//! A physical core that several dataplanes list goes from one to another, in Bochs: with its owner's cooperation nothing is lost; by
//! force exactly its connections are; and a dataplane may be started again in the middle (`docs/vtx.md`, "Cores that move").
use ix_tests::{monitor, need};
use std::time::Duration;

const OPTIONS: &str = "--cores 4 --memory 384";

/// Two dataplanes that serve and verify for ever, and core 3 moves; `a`, `b`: more words of each.
fn dataplanes(a: &str, b: &str, args: &str, schedule: &str) -> String {
    let serve = "app=kvcheck nic=loopback";
    let args = format!("-- requests=1000 rounds=0 {args}");
    format!(
        "kvA cores=0,1,3 memory=160M : {a} {serve} ip=10.0.0.1/24 {args}\n\
         kvB cores=2,3 memory=128M : {b} {serve} ip=10.0.0.2/24 {args}\n\
         move core=3 {schedule}\n"
    )
}

/// The last line of a dataplane about a round of its workload.
fn last_round<'a>(log: &'a str, name: &str) -> &'a str {
    let head = format!("{name}: ix: kvcheck: round ");
    log.lines().rfind(|line| line.starts_with(&head) && line.ends_with("connects")).unwrap_or("")
}

/// Requests and errors of such a line; none before there is one.
fn numbers(line: &str) -> (u64, u64) {
    if line.is_empty() {
        return (0, 0);
    }
    let before = |word: &str| -> Option<u64> {
        let (head, _) = line.split_once(word)?;
        head.rsplit(' ').next()?.parse().ok()
    };
    let both = before(" requests,").zip(before(" errors,"));
    both.unwrap_or_else(|| panic!("{line:?} tells of no requests and errors"))
}

/// Both have gone on since `before`, and found nothing wrong.
#[track_caller]
fn still_serve(run: &mut monitor::Live, names: &[&str]) {
    let before: Vec<u64> =
        names.iter().map(|name| numbers(last_round(&run.log(), name)).0).collect();
    for (name, before) in names.iter().zip(before) {
        for patience in 0.. {
            let log = run.log();
            let (requests, errors) = numbers(last_round(&log, name));
            assert_eq!(errors, 0, "{name}:\n{log}");
            if requests > before {
                break;
            }
            assert!(patience < 600, "{name} does not go on:\n{log}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

#[test]
fn a_core_goes_from_one_dataplane_to_another_and_nothing_is_lost() {
    let (times, patience_s) = if need::prove() { (1000, 3000) } else { (12, 400) };
    let schedule = format!("every_us=60000 times={times} patience_us=5000000");
    let configuration = dataplanes("", "", "connections=6", &schedule);
    let options = format!("{OPTIONS} --time {patience_s}");
    let Some(mut run) = monitor::Live::start(&options, Some(&configuration), "vmx=on") else {
        return;
    };
    let all =
        format!("core 3: {times} moves: {times} left as asked, 0 forced, 0 with nothing on it");
    run.wait_for(&all, Duration::from_secs(patience_s));
    still_serve(&mut run, &["kvA", "kvB"]);
    let log = run.log();
    println!("{all}\n{}\n{}", last_round(&log, "kvA"), last_round(&log, "kvB"));
    for wrong in ["contained", "kvcheck: client", "core 2 was stopped"] {
        assert!(!log.contains(wrong), "{wrong:?}:\n{log}");
    }
    // The core was another's when kvB booted; that is all that it has ever missed.
    assert_eq!(log.matches("kvB: ix: warning: core 1 was stopped").count(), 1, "{log}");
}

/// Whether all of kvcheck's line about resets has come: the log may end in the middle of one.
fn is_told(line: &str) -> bool {
    line.contains("on cores [") && line.ends_with(']')
}

#[test]
fn a_core_that_is_not_given_is_taken_and_exactly_its_connections_are_reset() {
    // Its kernel hands it over at the last moment, where it holds nothing.
    take_by_force("deaf");
}

#[test]
fn a_core_that_does_not_leave_is_stopped_wherever_it_is_and_exactly_its_connections_are_reset() {
    take_by_force("stubborn");
}

fn take_by_force(owner: &str) {
    let schedule = "every_us=300000 times=2 patience_us=2000000";
    // kvA hears no wish; kvB does. Connections stay: one that opens or ends just then has no end, or one, to be reset.
    let owner = format!("selftest=vmx-{owner}");
    let configuration = dataplanes(&owner, "", "connections=12 stay=1 resets=1", schedule);
    let options = format!("{OPTIONS} --time 400");
    let Some(mut run) = monitor::Live::start(&options, Some(&configuration), "vmx=on") else {
        return;
    };
    run.wait_for("core 3: 2 moves: 1 left as asked, 1 forced", Duration::from_secs(300));
    run.wait_for("kvA: ix: core 2 is back: ", Duration::from_secs(100));
    still_serve(&mut run, &["kvA", "kvB"]);
    // What clients wait for, TCP finds out in its own time.
    still_serve(&mut run, &["kvA", "kvB"]);
    let log = run.log();
    let (_, told) = log.split_once("kvA: ix: core 2 is back: ").expect("was waited for");
    let over: u64 = told.split(' ').next().and_then(|n| n.parse().ok()).expect("a number");
    assert!(over > 0, "{log}");
    let told = log.lines().rfind(|line| line.starts_with("kvA:") && is_told(line));
    let told = told.unwrap_or_else(|| panic!("no resets are told:\n{log}"));
    // Each connection has two ends here: those on the core that was taken, and their peers.
    let words: Vec<u64> =
        told.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
    let [lost, ends, _, _, on_it] = words[..] else { panic!("{told:?}") };
    println!("kernel: {over} ends over; kvcheck: {told}");
    assert_eq!(on_it, over, "what kernel and application have counted\n{log}");
    assert_eq!(ends, 2 * lost, "both ends of each connection, and none else\n{log}");
    // The neighbour has not noticed.
    assert!(!log.contains("kvB: ix: core 1 is back: 1"), "{log}");
    let told = log.lines().rfind(|line| line.starts_with("kvB:") && is_told(line));
    assert!(
        told.is_some_and(
            |t| t.ends_with("0 clients lost their connection, 0 ends were reset, on cores [0, 0]")
        ),
        "{log}"
    );
    assert!(!log.contains("contained"), "{log}");
}

#[test]
fn dataplanes_are_started_again_while_a_core_is_lent() {
    // kvB fails before its core was ever its own, and with the core that kvA has lent; kvA while the core is away, and when
    // it is back.
    let (a, b) = ("selftest=vmx-lent,vmx-borrowed", "selftest=vmx-msr,vmx-borrowed");
    let schedule = "every_us=40000 times=10 patience_us=5000000";
    let configuration = dataplanes(a, b, "connections=4", schedule);
    let options = format!("{OPTIONS} --time 500");
    let Some(mut run) = monitor::Live::start(&options, Some(&configuration), "vmx=on") else {
        return;
    };
    run.wait_for("core 3: 10 moves: 10 left as asked, 0 forced", Duration::from_secs(500));
    still_serve(&mut run, &["kvA", "kvB"]);
    let log = run.log();
    for name in ["kvA", "kvB"] {
        for life in [1, 2] {
            assert!(
                log.contains(&format!("{name}: contained in life {life} ")),
                "{name} {life}:\n{log}"
            );
        }
        assert!(log.contains(&format!(
            "{name}: ix: VT-x: this is a dataplane under IX's monitor, life 3"
        )));
        assert!(!log.contains(&format!("{name}: contained in life 3")), "{log}");
    }
}

/// What `ixcp` says of a command that fails.
#[track_caller]
fn refused(run: &monitor::Live, args: &[&str], words: &str) {
    let said = run.ixcp_at("com2", args).expect_err("it cannot be done");
    assert!(said.contains(words), "{args:?}: {said}");
}

/// Each dataplane has a line of its own.
#[test]
fn the_operator_gives_a_core_and_its_neighbour_gives_it_back() {
    let serve = "log=debug app=kvcheck nic=loopback";
    let args = "-- requests=1000 rounds=0 connections=2";
    let configuration = format!(
        "kvA cores=0,1,3 memory=160M control=com2 : {serve} line=com2 ip=10.0.0.1/24 {args}\n\
         kvB cores=2,3 memory=128M control=com3 : {serve} line=com3 ip=10.0.0.2/24 {args}\n"
    );
    let options = format!("{OPTIONS} --time 300");
    let Some(mut run) = monitor::Live::start(&options, Some(&configuration), "vmx=on") else {
        return;
    };
    for name in ["kvA", "kvB"] {
        run.wait_for(&format!("{name}: ix: kvcheck: round "), Duration::from_secs(150));
    }
    // What only the monitor knows.
    refused(&run, &["cores", "give", "1"], "no other dataplane lists it");
    let said = run.ixcp(&["cores", "give", "2", "--to", "kvB", "--timeout", "60"]);
    assert!(said.ends_with(": core 2 is given to kvB\n"), "{said}");
    refused(&run, &["cores", "give", "2"], "another dataplane has it already");
    run.wait_for("] core 1 is back\n", Duration::from_secs(90));
    still_serve(&mut run, &["kvA", "kvB"]);
    let said = run.ixcp_at("com3", &["cores", "give", "1", "--timeout", "60", "--json"]);
    let said: serde_json::Value = serde_json::from_str(&said.expect("given")).expect("JSON");
    assert_eq!((&said["to"], &said["left"]), (&"kvA".into(), &"asked".into()), "{said}");
    run.wait_for("] core 2 is back\n", Duration::from_secs(90));
    still_serve(&mut run, &["kvA", "kvB"]);
    let log = run.log();
    // The core was another's when kvB booted; nothing else was by force, and nobody was contained.
    assert_eq!(log.matches(" was stopped: ").count(), 1, "{log}");
    assert!(!log.contains("contained") && !log.contains("kvcheck: client"), "{log}");
}

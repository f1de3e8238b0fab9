//! What people look with: `ixcp pcap` as judged by Wireshark's own tools, the packet trace, the log of
//! last events of machines that live and of some that have crashed.
use crate::{Kv, serves};
use ix_abi::capture::{ring, ring_bytes, ring_offset};
use ix_abi::control::{CAPTURE_BASE, CAPTURE_BYTES, header};
use ix_tests::need;
use ix_tests::tap::Tap;
use ix_tests::tools::run;
use ix_tests::vm::{Config, Vm};
use nix::sys::signal::{Signal, kill};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(30);

fn kv() -> Option<(MutexGuard<'static, ()>, Vm)> {
    let built = need::built()?;
    let machine = need::machine();
    Some((machine, Config::new(&built, "kv").cores(2).forward("11211").boot()))
}

/// `ixcp pcap` at work.
struct Capture {
    child: Child,
    file: PathBuf,
    err: BufReader<std::process::ChildStderr>,
}

impl Capture {
    /// Starts it and waits until it captures.
    #[track_caller]
    fn start(vm: &Vm, name: &str, args: &[&str]) -> Capture {
        let file = vm.dir().join(name);
        let path = file.to_str().expect("text");
        let mut command = vm.ixcp_command(&[&["pcap", "-w", path], args].concat());
        let mut child = command.stderr(Stdio::piped()).spawn().expect("ixcp starts");
        let mut err = BufReader::new(child.stderr.take().expect("piped"));
        let mut line = String::new();
        err.read_line(&mut line).expect("a line");
        assert!(line.contains("ixcp: capturing"), "{line}\n{}", vm.log());
        Capture { child, file, err }
    }

    /// Waits for its end; its exit code and what it said.
    fn end(mut self) -> (i32, String) {
        let deadline = Instant::now() + LIMIT;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("waited for") {
                break status;
            }
            assert!(Instant::now() < deadline, "ixcp pcap does not end");
            std::thread::sleep(Duration::from_millis(5));
        };
        let mut said = String::new();
        self.err.read_to_string(&mut said).expect("text");
        (status.code().unwrap_or(-1), said)
    }

    /// Ends it as Ctrl-C does; its file, and how many packets it says are in it.
    #[track_caller]
    fn interrupt(self) -> (PathBuf, usize) {
        let file = self.file.clone();
        kill(ixcp::pid_of(&self.child), Signal::SIGINT).expect("it runs");
        let (code, said) = self.end();
        assert!(code == 0 && said.contains(" 0 missed"), "exit code {code}: {said}");
        (file, captured(&said))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn captured(said: &str) -> usize {
    let words: Vec<&str> = said.split_whitespace().collect();
    let at = words.windows(3).position(|w| w[1..] == ["packets", "captured,"]);
    at.and_then(|at| words[at].parse().ok()).unwrap_or_else(|| panic!("no number in {said:?}"))
}

/// Wireshark's tools; says SKIPPED without them.
fn wireshark() -> Option<(PathBuf, PathBuf)> {
    Some((need::tool(&["tshark"], "tshark")?, need::tool(&["capinfos"], "tshark")?))
}

/// Fields of each packet, with every checksum verified.
#[track_caller]
fn fields(tshark: &Path, file: &Path, filter: &str, names: &[&str]) -> Vec<Vec<String>> {
    let mut command = Command::new(tshark);
    command.arg("-r").arg(file).args(["-Y", filter, "-T", "fields"]);
    for check in ["ip.check_checksum:TRUE", "tcp.check_checksum:TRUE", "udp.check_checksum:TRUE"] {
        command.args(["-o", check]);
    }
    for name in names {
        command.args(["-e", name]);
    }
    let done = run(&mut command, LIMIT);
    assert!(done.ok(), "tshark: {}", done.err);
    done.out.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

/// No packet has a wrong checksum, and no dissector warns of anything but that a peer on a slow machine probed
/// for a loss that was none (RFC 8985 §7), which a D-SACK answers.
#[track_caller]
fn without_a_warning(tshark: &Path, file: &Path) {
    // Severities as `epan/expert.h` numbers them: note 0x400000, warning 0x600000, error 0x800000.
    let warned = fields(
        tshark,
        file,
        "(_ws.expert.severity >= 0x600000 && !tcp.options.sack.dsack) || _ws.malformed",
        &["frame.number", "_ws.expert.message"],
    );
    assert!(warned.is_empty(), "{warned:#?}");
    let bad = "tcp.checksum.status == 0 || udp.checksum.status == 0 || ip.checksum.status == 0";
    let bad = fields(tshark, file, bad, &["frame.number"]);
    assert!(bad.is_empty(), "wrong checksums: {bad:?}");
}

#[test]
fn wiresharks_tools_read_a_capture_and_the_handshake_decodes_without_a_warning() {
    let Some((tshark, capinfos)) = wireshark() else { return };
    let Some((_machine, vm)) = kv() else { return };
    let capture = Capture::start(&vm, "kv.pcapng", &[]);
    let mut clients: Vec<Kv> = (0..8).map(|_| Kv::connect(&vm)).collect();
    for (i, client) in clients.iter_mut().enumerate() {
        client.set(&format!("key{i}"), b"a value of some length");
        assert!(client.get(&format!("key{i}")).is_some());
    }
    clients.iter().for_each(|c| c.0.get_ref().shutdown(std::net::Shutdown::Write).unwrap());
    std::thread::sleep(Duration::from_millis(300));
    let (file, packets) = capture.interrupt();
    without_a_warning(&tshark, &file);

    let info =
        run(Command::new(capinfos).args(["-M", "-T", "-m", "-c", "-I", "-t"]).arg(&file), LIMIT);
    assert!(info.ok() && info.out.contains("pcapng"), "{}{}", info.out, info.err);
    let all = fields(&tshark, &file, "frame", &["frame.number"]);
    assert!(all.len() == packets && packets >= 8 * 7, "{} of {packets} packets", all.len());

    // The handshakes, whole, and told as what they are.
    for (filter, count) in [
        ("tcp.flags == 0x002 && frame.packet_flags_direction == 1", 8),
        ("tcp.flags == 0x012 && frame.packet_flags_direction == 2", 8),
        ("tcp.flags == 0x012 && tcp.analysis.acks_frame && tcp.options.mss_val == 1460", 8),
        ("tcp.checksum.status == 1 && tcp.len > 0 && frame.packet_flags_direction == 2", 16),
        (
            "tcp.analysis.retransmission || tcp.analysis.lost_segment || tcp.analysis.out_of_order",
            0,
        ),
        ("memcache.command == \"set\" && memcache.key == \"key3\"", 1),
        ("memcache.response == \"STORED\"", 8),
        ("memcache.command == \"get\"", 8),
        ("memcache.value == \"a value of some length\" && tcp.srcport == 11211", 8),
        ("tcp && frame.comment contains \"group \"", packets),
    ] {
        let found = fields(&tshark, &file, filter, &["frame.number"]);
        let tcp_only = fields(&tshark, &file, "!tcp", &["frame.number"]).len();
        let count = if count == packets { packets - tcp_only } else { count };
        assert_eq!(found.len(), count, "{filter}");
    }
    // Both cores had connections, and the times are in order.
    let cores = fields(&tshark, &file, "frame", &["frame.interface_name", "frame.time_epoch"]);
    assert!(cores.iter().any(|f| f[0] == "test core 0"));
    assert!(cores.iter().any(|f| f[0] == "test core 1"), "the other core sent nothing");
    let times: Vec<f64> = cores.iter().map(|f| f[1].parse().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!((now.as_secs_f64() - times[0]).abs() < 60.0, "a time of {}", times[0]);
}

#[test]
fn filters_filter_and_a_pipe_carries_a_capture_too() {
    let Some((tshark, _)) = wireshark() else { return };
    let Some((_machine, vm)) = kv() else { return };
    let mut group = String::new();
    for (args, filter) in [
        (&["--port", "11211"][..], "tcp.port == 11211"),
        (&["--direction", "in"], "frame.packet_flags_direction == 1"),
        (&["--direction", "out", "--protocol", "tcp"], "frame.packet_flags_direction == 2 && tcp"),
        (&["--address", "10.0.2.0/24"], "ip.addr == 10.0.2.0/24 || arp"),
        (&["--address", "192.0.2.1"], "ip.addr == 192.0.2.1"),
        (&["--protocol", "udp"], "udp"),
        (&["--snaplen", "60", "--port", "11211"], "frame.cap_len <= 60 && frame.len > 60"),
        (&["--group", "GROUP"], "frame.comment"),
    ] {
        let args: Vec<&str> =
            args.iter().map(|a| if *a == "GROUP" { group.as_str() } else { a }).collect();
        let capture = Capture::start(&vm, "filtered.pcapng", &args);
        let mut client = Kv::connect(&vm);
        client.set("a-key-of-some-length", b"a value of some length");
        // Another connection is in another group, mostly.
        serves(&vm);
        std::thread::sleep(Duration::from_millis(50));
        let (file, packets) = capture.interrupt();
        let found = fields(&tshark, &file, filter, &["frame.comment"]);
        let all = fields(&tshark, &file, "frame", &["frame.number"]);
        assert_eq!(all.len(), packets, "{args:?}");
        match args[..] {
            ["--address", "192.0.2.1"] | ["--protocol", "udp"] => assert_eq!(packets, 0),
            ["--snaplen", ..] => assert!(found.len() >= 4 && found.len() < packets),
            ["--group", ..] => {
                let text = format!("group {group}");
                assert!(found.iter().all(|f| f[0] == text), "{found:?}");
            }
            _ => assert!(packets >= 4 && found.len() == packets, "{args:?}: {packets} packets"),
        }
        if let Some(comment) = found.iter().find_map(|f| f[0].strip_prefix("group ")) {
            group = comment.to_owned();
        }
    }
    pipe(&vm, &tshark);
}

/// `ixcp pcap --format pcap --count 4 | tshark -r -`.
fn pipe(vm: &Vm, tshark: &Path) {
    let mut command = vm.ixcp_command(&["pcap", "--format", "pcap", "--count", "4"]);
    let mut source =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("ixcp starts");
    let mut err = BufReader::new(source.stderr.take().expect("piped"));
    let mut line = String::new();
    err.read_line(&mut line).expect("a line");
    let reader = Command::new(tshark)
        .args(["-r", "-", "-T", "fields", "-e", "tcp.flags.str"])
        .stdin(source.stdout.take().expect("piped"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("tshark starts");
    serves(vm);
    let read = reader.wait_with_output().expect("tshark ends");
    assert!(source.wait().expect("it ends").success());
    let out = String::from_utf8_lossy(&read.stdout);
    assert!(read.status.success() && out.lines().count() == 4, "{out}");
    assert!(out.lines().next().is_some_and(|flags| flags.contains('S')), "{out}");
}

#[test]
fn a_capture_over_a_tap_has_whole_checksums_though_the_device_completes_them() {
    let Some((tshark, _)) = wireshark() else { return };
    let _machine = need::machine();
    let Some(tap) = Tap::make(false) else { return };
    let Some(built) = need::built() else { return };
    let net = format!("tap={}", tap.name);
    let config = Config::new(&built, "echo").with("--net", net);
    let vm = config.with("--ip", tap.guest.as_str()).boot();
    let capture = Capture::start(&vm, "tap.pcapng", &[]);
    let address = SocketAddr::from((tap.guest_ip(), 7));
    let mut stream = TcpStream::connect_timeout(&address, LIMIT).expect("connects");
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    for len in [1, 2, 63, 1000, 1460, 5000] {
        let data = crate::bytes(len as u64, len);
        stream.write_all(&data).unwrap();
        let mut back = vec![0; len];
        stream.read_exact(&mut back).expect("the echo");
        assert!(back == data);
    }
    let datagrams = UdpSocket::bind("0.0.0.0:0").unwrap();
    datagrams.set_read_timeout(Some(LIMIT)).unwrap();
    for len in [1, 40, 1001] {
        datagrams.send_to(&crate::bytes(9, len), address).unwrap();
        assert_eq!(datagrams.recv(&mut [0; 2000]).expect("the echo"), len);
    }
    drop(stream);
    std::thread::sleep(Duration::from_millis(300));
    let (file, _) = capture.interrupt();
    without_a_warning(&tshark, &file);
    for filter in ["tcp.len > 0 && tcp.checksum.status == 1", "udp.checksum.status == 1"] {
        for direction in [1, 2] {
            let filter = format!("{filter} && frame.packet_flags_direction == {direction}");
            assert!(fields(&tshark, &file, &filter, &["frame.number"]).len() >= 3, "{filter}");
        }
    }
}

#[test]
fn there_is_one_capture_at_a_time_and_one_whose_client_was_killed_ends() {
    let Some((_machine, vm)) = kv() else { return };
    let mut first = Capture::start(&vm, "first.pcapng", &[]);
    let refused = vm.ixcp(&["pcap", "-w", "/dev/null"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && said.contains("one capture at a time"), "{said}");
    first.child.kill().expect("killed");
    first.child.wait().expect("waited for");
    // The next one need not wait for the lease.
    let next = Capture::start(&vm, "next.pcapng", &["--count", "5"]);
    serves(&vm);
    let (code, said) = next.end();
    assert!(code == 0 && said.contains("5 packets captured"), "{code}: {said}");
    let mut last = Capture::start(&vm, "last.pcapng", &[]);
    let killed = Instant::now();
    last.child.kill().expect("killed");
    last.child.wait().expect("waited for");
    vm.wait_for("its client was silent", Duration::from_secs(20));
    assert!(killed.elapsed() > Duration::from_secs(4), "{:?}", killed.elapsed());
    assert_eq!(vm.page().load(ring_offset(0, 2) + ring::RUNNING), 0);
    assert!(vm.ixcp_ok(&["events"]).contains("capture ends: number 3, its client was silent"));
}

#[test]
fn nonsense_in_the_capture_area_harms_nobody_and_stops_only_the_capture() {
    let Some((_machine, vm)) = kv() else { return };
    let page = vm.page();
    let capture = Capture::start(&vm, "nonsense.pcapng", &[]);
    for round in 0..40_u64 {
        for core in 0..2 {
            let at = ring_offset(core, 2);
            let values = [u64::MAX, 0, 1 << 63, 7, ring_bytes(2) as u64 * round];
            page.store(at + ring::CONSUMED, values[round as usize % 5]);
            page.store(at + ring::PRODUCED, values[(round as usize + 1) % 5]);
        }
        serves(&vm);
    }
    for offset in (CAPTURE_BASE..CAPTURE_BASE + CAPTURE_BYTES).step_by(8) {
        page.store(offset, 0x5a5a_5a5a_5a5a_5a5a);
    }
    serves(&vm);
    let (code, said) = capture.end();
    assert!(code == 1 && said.contains("capture ring") && said.contains("corrupted"), "{said}");
    let again = Capture::start(&vm, "again.pcapng", &["--count", "5"]);
    serves(&vm);
    let (code, said) = again.end();
    assert!(code == 0 && said.contains("5 packets captured"), "{said}");
    assert_eq!(page.load(header::CORES), 2);
}

/// What is found when it is right, or at the end of patience.
fn until<T>(mut look: impl FnMut() -> (bool, T)) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        let (right, found) = look();
        if right || Instant::now() > deadline {
            return found;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Lines of the packet trace on the console so far, and packets that it says it has left out.
fn traced(vm: &Vm) -> (Vec<String>, u64) {
    let lines = vm.stderr();
    let more = |line: &String| {
        let count = line.strip_suffix(" more packets")?.rsplit(' ').next()?;
        count.parse::<u64>().ok()
    };
    let left_out = lines.iter().filter_map(more).sum();
    let is_packet = |line: &String| line.contains(" us] rx c") || line.contains(" us] tx c");
    (lines.into_iter().filter(is_packet).collect(), left_out)
}

#[test]
fn the_trace_prints_every_packet_while_it_is_on_and_none_otherwise() {
    let Some(built) = need::built() else { return };
    let _machine = need::machine();
    let vm = Config::new(&built, "kv").cores(2).forward("11211").flag("--verbose").boot();
    // Enough connections that both cores get some.
    (0..16).for_each(|_| serves(&vm));
    vm.wait_for(" > 10.0.2.15.11211 S ", LIMIT);
    // A megabyte: more than a console prints in time.
    Kv::connect(&vm).set("large", &crate::bytes(1, 1_000_000));
    // What a console that is slow has left out it tells when it has come to that.
    let mut packets = 0;
    let (lines, left_out) = until(|| {
        let total = vm.snapshot_at_rest().total.counters;
        packets = total.get("rx_packets") + total.get("tx_packets");
        let (lines, left_out) = traced(&vm);
        (lines.len() as u64 + left_out == packets, (lines, left_out))
    });
    println!("{packets} packets, {} lines, {left_out} left out", lines.len());
    assert_eq!(lines.len() as u64 + left_out, packets, "{}", vm.log());
    assert!(
        lines.iter().any(|l| l.contains("tx c1 g")) && lines.iter().any(|l| l.contains(" S. "))
    );

    vm.ixcp_ok(&["trace", "off"]);
    let mut before = traced(&vm).0.len();
    until(|| {
        vm.snapshot_at_rest();
        let last = std::mem::replace(&mut before, traced(&vm).0.len());
        (last == before, ())
    });
    serves(&vm);
    vm.snapshot_at_rest();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(traced(&vm).0.len(), before, "{}", vm.log());

    vm.ixcp_ok(&["trace", "on", "--direction", "out", "--port", "11211"]);
    serves(&vm);
    let lines = until(|| {
        let lines = traced(&vm).0.split_off(before);
        (lines.len() >= 3, lines)
    });
    assert!(lines.len() >= 3 && lines.iter().all(|l| l.contains("] tx c")), "{lines:#?}");
    drop(vm);

    let vm = Config::new(&built, "kv").cores(2).forward("11211").boot();
    serves(&vm);
    assert_eq!(traced(&vm), (Vec::new(), 0));
}

#[test]
fn a_panic_is_the_last_event_in_the_page_that_is_left_and_in_the_report() {
    crashes("panic-late", 3, |line| {
        line.contains("panic at …t/faults:") && line.ends_with("asked for by selftest=panic-late")
    });
}

#[test]
fn an_exception_is_the_last_event_in_the_page_that_is_left_and_in_the_report() {
    crashes("fault-late", 4, |line| line.contains("exception: vector 14, rip 0xffff"));
}

/// Boots a kernel that crashes while it serves.
fn crashes(selftest: &str, code: i32, is_it: impl Fn(&str) -> bool) {
    let Some(built) = need::built() else { return };
    let _machine = need::machine();
    let append = format!("selftest={selftest}");
    let config = Config::new(&built, "kv").cores(2).forward("11211").with("--append", append);
    let mut vm = config.boot();
    serves(&vm);
    assert_eq!(vm.wait_end(LIMIT), code, "{}", vm.log());
    let report = vm.log();
    let own = report.split("last events of core 0:").nth(1).expect("a report of events");
    assert!(own.contains("app ready: start 1") && own.contains("last events of core 1:"), "{own}");
    let events = vm.ixcp_ok(&["events", "--name", "test"]);
    assert!(events.lines().last().is_some_and(&is_it), "{events}");
    // QEMU's user network has one pair, an 82599 one for each core.
    let pairs = if vm.card_pid().is_some() { 2 } else { 1 };
    let opened = format!("port open: {pairs} queue pairs");
    assert!(events.contains(&opened) && events.contains("address: 10.0.2.15"), "{events}");
    let file = vm.dir().join("control");
    let json = vm.ixcp_ok(&["events", "--json", "--core", "0", "--file", file.to_str().unwrap()]);
    let json: Vec<serde_json::Value> = serde_json::from_str(&json).expect("JSON");
    assert!(json.iter().all(|e| e["core"] == 0) && json.len() >= 4, "{json:#?}");
    let last = json.last().unwrap();
    let kind = selftest.split('-').next().unwrap().replace("fault", "exception");
    assert_eq!(last["kind"], kind.as_str());
    assert!(is_it(last["text"].as_str().unwrap()), "{last:#}");
}

#[test]
fn events_follow_what_happens() {
    let Some((_machine, vm)) = kv() else { return };
    let mut command = vm.ixcp_command(&["events", "--follow", "--json"]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("ixcp starts");
    let out = BufReader::new(child.stdout.take().expect("piped"));
    let (sender, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    vm.ixcp_ok(&["restart-app"]);
    let mut wanted = [
        "core starts",
        "listen: port 11211/tcp",
        "app ready: start 1",
        "app ends: by command",
        "app starts: start 2",
        "app ready: start 2",
    ]
    .iter()
    .peekable();
    while wanted.peek().is_some() {
        let Ok(line) = lines.recv_timeout(LIMIT) else { break };
        let event: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        wanted.next_if(|wanted| event["text"] == **wanted);
    }
    let _ = child.kill();
    let _ = child.wait();
    assert_eq!(wanted.next(), None, "not seen\n{}", vm.ixcp_ok(&["events"]));
}

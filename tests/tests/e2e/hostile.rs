//! Hostile applications (`apps/hostile`): each misdeed with connections open, the kernel's answer, and
//! then the books: everything freed, ping and `ixcp` answered, the application started afresh.
//!
//! Many misdeeds share a machine, an application each. What fails is noted and the machine replaced, so
//! that one failure hides no other.
use crate::bytes;
use hostile::{
    Answer, BEGUN, BROKEN, ECHO_PORT, FLOOD, KINDS, Kind, LOOK, MARK, Misdeed, ORDER_PORT, REFUSED,
};
use ix_abi::control::{State, header};
use ix_tests::need;
use ix_tests::peer::faults::Faults;
use ix_tests::peer::{Conn, GUEST_IP, Host, Listener, Udp};
use ix_tests::vm::{Config, Vm};
use ixcp::page::Page;
use nix::sys::signal::{Signal, kill};
use smoltcp::socket::tcp;
use std::io::Write;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);
/// Connections that are open when it happens.
const CONNS: usize = 12;
/// Connections that meet every one of the 128 flow groups, all but surely.
const WARM_ROUNDS: usize = 20;
const WARM_CONNS: usize = 100;

/// What is said of an application that should have been ended.
const LIVES: &str = "it lives";
/// The misdeed that takes two cores at the same time.
const RACE: &str = "ring-header-rewritten";

/// What must be the same after every end of an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Figures {
    /// Of the moment after its end.
    memory_free: u64,
    heap_used: u64,
    /// Of the next application, when it is ready.
    buffers_free: u64,
    connections: u64,
    listeners: u64,
    udp_ports: u64,
    timers: u64,
}

/// A machine with the hostile application, and its peer.
struct Lab {
    vm: Vm,
    host: Host,
    page: Page,
    order: Udp,
    /// Figures after a decent end.
    clean: Option<Figures>,
    starts: u64,
    /// Lines of the log that belong to earlier misdeeds.
    read: usize,
    cores: u32,
    /// A misdeed has been committed on it.
    seasoned: bool,
}

impl Lab {
    /// INVD and WBINVD are for ring 0 (Intel SDM vol. 2). QEMU 7.2 keeps to it; 10.0 and 11.1 translate them for every ring.
    fn emulator_lets(&self, misdeed: &str) -> bool {
        let text = std::fs::read_to_string(self.vm.dir().join("instance.json")).expect("described");
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let qemu = std::path::Path::new(json["qemu"].as_str().expect("a path"));
        ["invd", "wbinvd"].contains(&misdeed) && ixcp::qemu::ask_major_version(qemu) != Some(7)
    }

    fn boot() -> Option<Lab> {
        Lab::boot_with(2, "limit=1000 heap=64")
    }

    /// Two cores serve, the third is for background threads.
    fn boot_for(kind: &str) -> Option<Lab> {
        match kind {
            "background" => Lab::boot_with(3, "limit=1000 heap=64 background=1"),
            _ => Lab::boot(),
        }
    }

    fn boot_with(cores: u32, words: &str) -> Option<Lab> {
        let built = need::built()?;
        let listener = Listener::bind();
        let config = Config::new(&built, "hostile").cores(cores).stream(listener.path());
        let vm = config.with("--append", words).boot();
        let mut host = Host::new(listener.accept(), Faults::NONE);
        let page = vm.page();
        let order = host.udp(6000);
        let mut lab =
            Lab { vm, host, page, order, clean: None, seasoned: false, starts: 1, read: 0, cores };
        // Everything that grows once has grown: the slabs of every flow group, neighbours, lists.
        for _ in 0..WARM_ROUNDS {
            let conns = lab.open(WARM_CONNS).expect("a decent application serves");
            lab.forget(conns);
        }
        for port in 5000..5016 {
            let socket = lab.host.udp(port);
            lab.host.udp_send(socket, GUEST_IP, ECHO_PORT, b"begin").expect("sent");
            lab.host.udp_recv(socket, PATIENCE).expect("a decent application serves");
        }
        lab.pings().expect("pings are answered");
        lab.restart().expect("a decent application is restarted");
        let conns = lab.connections().expect("a decent application serves");
        lab.forget(conns);
        lab.clean = Some(lab.restart().expect("a decent application is restarted"));
        Some(lab)
    }

    fn word(&self, at: usize) -> u64 {
        self.page.load(at)
    }

    fn ended(&self) -> bool {
        self.word(header::STATE) == u64::from(State::AppEnded.0)
    }

    /// At least `CONNS`, of which each core has one: the key that spreads them is another in each boot, and now and then all
    /// come to one core.
    fn connections(&mut self) -> Result<Vec<Conn>, String> {
        let mut conns = self.open(CONNS)?;
        for _ in 0..8 {
            if self.is_served_by_all() {
                break;
            }
            note("a core has no connection: more are opened");
            conns.extend(self.open(CONNS)?);
        }
        Ok(conns)
    }

    /// Whether each core counts a connection, as it does soon if it has one.
    fn is_served_by_all(&mut self) -> bool {
        let until = Instant::now() + Duration::from_millis(300);
        loop {
            let cores = ixcp::snapshot::read(&self.page).expect("a readable control page").cores;
            let mut serving = cores.iter().filter(|core| core.serves);
            let all = serving.all(|core| core.counters.get("tcp_connections") > 0);
            if all || Instant::now() > until {
                return all;
            }
            self.host.run(Duration::from_millis(1));
        }
    }

    fn open(&mut self, count: usize) -> Result<Vec<Conn>, String> {
        let mut start = || {
            self.host.skip_ports(4972);
            self.host.start_connect(GUEST_IP, ECHO_PORT)
        };
        let conns: Vec<Conn> = (0..count).map(|_| start()).collect();
        for &conn in &conns {
            self.host.established(conn, PATIENCE)?;
            self.host.send(conn, b"begin", PATIENCE)?;
        }
        for &conn in &conns {
            let begun = self.host.recv(conn, 5, PATIENCE)?;
            if begun != b"begin" {
                return Err("the echo is not what was sent".to_owned());
            }
        }
        Ok(conns)
    }

    fn echoes(&mut self, conn: Conn, seed: u64) -> Result<(), String> {
        let data = bytes(seed, 100);
        let got = self.host.exchange(conn, &data, PATIENCE)?;
        if got == data { Ok(()) } else { Err("the echo is not what was sent".to_owned()) }
    }

    fn pings(&mut self) -> Result<(), String> {
        for len in [0, 1000] {
            self.host.ping(GUEST_IP, &bytes(7, len), Duration::from_secs(5))?;
        }
        Ok(())
    }

    fn forget(&mut self, conns: Vec<Conn>) {
        for conn in conns {
            self.host.abort(conn);
            self.host.forget(conn);
        }
    }

    /// `ixcp restart-app`, while the host reads what it is sent: else what waits for it keeps the resets back, and a device that
    /// sends nothing for `DRAIN_TIMEOUT` is begun anew without them.
    fn restarts(&mut self) -> std::io::Result<Output> {
        let mut command = self.vm.ixcp_command(&["restart-app"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        while child.try_wait()?.is_none() {
            self.host.run(Duration::from_millis(2));
        }
        child.wait_with_output()
    }

    /// `ixcp restart-app`, and the figures once the new application serves.
    fn restart(&mut self) -> Result<Figures, String> {
        let said = self.restarts().map_err(|e| format!("restart-app: {e}"))?;
        if !said.status.success() {
            return Err(format!("restart-app: {}", String::from_utf8_lossy(&said.stderr)));
        }
        self.starts += 1;
        let starts = self.starts;
        let deadline = Instant::now() + PATIENCE;
        while self.word(header::APP_STARTS) != starts || self.word(header::READY_NS) == 0 {
            self.host.run(Duration::from_millis(2));
            if Instant::now() > deadline {
                return Err("the application does not become ready again".to_owned());
            }
        }
        // Gauges are published every millisecond; contexts set their timers at their start. (A core that halts
        // publishes when it wakes up because its timer has fired: that is none then.)
        let clean = self.clean;
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            self.host.run(Duration::from_millis(5));
            let now = self.figures();
            let memory = |f: Figures| Figures { memory_free: 0, heap_used: 0, ..f };
            let same = clean.is_none_or(|c| memory(c) == memory(now));
            let cores = u64::from(self.cores);
            let published = (now.timers, now.listeners, now.udp_ports) == (2, cores, 2 * cores);
            if same && published || Instant::now() > deadline {
                return Ok(now);
            }
        }
    }

    fn figures(&self) -> Figures {
        let total = ixcp::snapshot::read(&self.page).expect("a readable control page").total;
        let count = |name: &str| total.counters.get(name);
        let (buffers, slack) = (count("buffers_free"), self.vm.buffers_slack(self.cores));
        let as_before = self.clean.map(|c| c.buffers_free).filter(|c| c.abs_diff(buffers) <= slack);
        Figures {
            memory_free: self.word(header::MEMORY_FREE),
            heap_used: self.word(header::HEAP_USED),
            buffers_free: as_before.unwrap_or(buffers),
            connections: count("tcp_connections"),
            listeners: count("tcp_listeners"),
            udp_ports: count("udp_ports"),
            timers: count("app_timers"),
        }
    }

    /// Lines of the serial log since the last misdeed.
    fn new_lines(&self) -> Vec<String> {
        self.vm.stderr().split_off(self.read)
    }

    /// The order, and again while nothing came of one that takes two cores at the same time: this machine may have had just one to
    /// spare for the fifth of a second.
    fn insist(&mut self, order: &str, misdeed: &Misdeed) -> Result<(), String> {
        let tries = if misdeed.name == RACE { 10 } else { 1 };
        for _ in 1..tries {
            match self.order(order, misdeed.answer) {
                Err(why) if why.starts_with(LIVES) => note(&format!("{order}: once more, {why}")),
                come_of_it => return come_of_it,
            }
        }
        self.order(order, misdeed.answer)
    }

    /// Gives the order and waits for what comes of it.
    fn order(&mut self, order: &str, answer: Answer) -> Result<(), String> {
        self.host.udp_send(self.order, GUEST_IP, ORDER_PORT, order.as_bytes())?;
        let (begun, _) = self.host.udp_recv(self.order, PATIENCE)?;
        if begun != BEGUN.as_bytes() {
            return Err(format!("not {BEGUN} but {}", String::from_utf8_lossy(&begun)));
        }
        let deadline = Instant::now() + PATIENCE;
        let said = loop {
            if let Ok((said, _)) = self.host.udp_recv(self.order, Duration::from_millis(2)) {
                break Some(String::from_utf8_lossy(&said).into_owned());
            }
            if self.ended() {
                break None;
            }
            if Instant::now() > deadline {
                return Err("neither ended nor answered".to_owned());
            }
        };
        match (answer, said.as_deref()) {
            (Answer::Refused, Some(REFUSED)) => Ok(()),
            (Answer::Ended(text) | Answer::EndedByCpu(text), None) => self.said(text),
            (Answer::EndedByCpu(_), Some(said)) if said.starts_with(BROKEN) => Ok(()),
            (Answer::Refused, None) => Err(format!("it was ended: {:#?}", self.new_lines())),
            (_, Some(said)) => Err(format!("{LIVES} and says {said:?}")),
        }
    }

    /// Gives an order that ends nothing; its answer.
    fn answer(&mut self, order: &str) -> Result<String, String> {
        self.host.udp_send(self.order, GUEST_IP, ORDER_PORT, order.as_bytes())?;
        let (begun, _) = self.host.udp_recv(self.order, PATIENCE)?;
        if begun != BEGUN.as_bytes() {
            return Err(format!("not {BEGUN} but {}", String::from_utf8_lossy(&begun)));
        }
        let (said, _) = self.host.udp_recv(self.order, PATIENCE)?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    }

    /// Forgets datagrams that came back.
    fn drain_orders(&mut self) {
        while self.host.udp_recv(self.order, Duration::from_millis(20)).is_ok() {}
    }

    /// The kernel has named it.
    fn said(&self, text: &str) -> Result<(), String> {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let lines = self.new_lines();
            let named = |line: &String| line.contains("app hostile: ") && line.contains(text);
            if lines.iter().any(named) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("`{text}` was not said: {lines:#?}"));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// All of it, for one misdeed.
    fn commit(&mut self, misdeed: &Misdeed, order: &str) -> Result<(), String> {
        self.read = self.vm.stderr().len();
        let conns = self.connections()?;
        self.insist(order, misdeed)?;
        self.pings()?;
        let status = self.vm.ixcp(&["status"]);
        if !status.status.success() {
            return Err("ixcp status fails".to_owned());
        }
        let ended = self.ended();
        if ended {
            self.all_reset(&conns)?;
        } else {
            self.others_are_served(misdeed, &conns)?;
        }
        let figures = self.restart()?;
        self.all_reset(&conns)?;
        self.forget(conns);
        if let Some(line) = self.new_lines().iter().find(|l| l.contains("in flight")) {
            return Err(format!("it was not freed: {line}"));
        }
        if !std::mem::replace(&mut self.seasoned, true) && self.has_grown(figures) {
            note(&format!("{order}: the first on this machine, and a table has grown: once more"));
            return self.commit(misdeed, order);
        }
        self.books(misdeed, figures)
    }

    /// Whether nothing but the kernel's heap is other than it was; it is to be as it is now from now on.
    fn has_grown(&mut self, figures: Figures) -> bool {
        let clean = self.clean.replace(figures).expect("known since the boot");
        let grown = figures.heap_used > clean.heap_used;
        let only = Figures { heap_used: clean.heap_used, ..figures } == clean;
        if !(grown && only) {
            self.clean = Some(clean);
        }
        grown && only
    }

    /// The books balance. Tables that have grown stay grown: the next application's use of them
    /// changes nothing any more.
    fn books(&mut self, misdeed: &Misdeed, mut figures: Figures) -> Result<(), String> {
        let clean = self.clean.expect("known since the boot");
        // A misdeed that is let live may have used more of the kernel's tables than any before it.
        let much = misdeed.answer == Answer::Refused || misdeed.name == RACE;
        if much && figures.heap_used > clean.heap_used {
            let grown = figures.heap_used - clean.heap_used;
            note(&format!("{}: tables have grown by {} KiB, for good", misdeed.name, grown >> 10));
            self.clean = Some(Figures { heap_used: figures.heap_used, ..clean });
            figures.heap_used = clean.heap_used;
        }
        if figures != clean {
            return Err(format!("not all was freed: {clean:?} before, {figures:?} now"));
        }
        Ok(())
    }

    fn all_reset(&mut self, conns: &[Conn]) -> Result<(), String> {
        self.host.until(PATIENCE, "resets", |host| {
            let open = conns.iter().filter(|&&c| host.state(c) != tcp::State::Closed).count();
            (open == 0).then_some(Ok(()))
        })
    }

    /// One connection may have been the misdeed's own on each core; the others are as before.
    fn others_are_served(&mut self, misdeed: &Misdeed, conns: &[Conn]) -> Result<(), String> {
        if misdeed.name == "rx-hoard" {
            return self.hoarded(conns);
        }
        let served = conns.iter().filter(|&&c| {
            self.host.state(c) == tcp::State::Established && self.echoes(c, 99).is_ok()
        });
        let served = served.count();
        if served + 2 < conns.len() {
            return Err(format!("only {served} of {} connections are served", conns.len()));
        }
        let fresh = self.host.connect(GUEST_IP, ECHO_PORT, PATIENCE)?;
        self.echoes(fresh, 100)?;
        self.forget(vec![fresh]);
        Ok(())
    }

    /// Nothing is returned: windows close, and new connections and pings go on.
    fn hoarded(&mut self, conns: &[Conn]) -> Result<(), String> {
        let mut conns = conns.to_vec();
        let data = bytes(1, 4096);
        for round in 0..100 {
            for &conn in &conns {
                let _ = self.host.try_send(conn, &data);
            }
            if round % 10 == 0 {
                conns.push(self.host.connect(GUEST_IP, ECHO_PORT, PATIENCE)?);
            }
            self.host.udp_send(self.order, GUEST_IP, ECHO_PORT, &data[..1400])?;
            self.host.run(Duration::from_millis(1));
        }
        self.pings()?;
        let more = conns.split_off(CONNS);
        self.forget(more);
        Ok(())
    }
}

/// The receive area is scrubbed between applications, posted buffers too.
#[test]
fn a_new_application_sees_no_byte_that_its_predecessor_received() {
    let _machine = need::machine();
    let Some(mut lab) = Lab::boot() else { return };
    let marks = MARK.repeat(150);
    for round in 0..5 {
        let conns = lab.connections().unwrap();
        // Enough to go round the receive ring, to ports with and without somebody.
        for i in 0..2500u16 {
            let port = if i % 3 == 0 { 9 } else { ECHO_PORT };
            let data = &marks[usize::from(i % 8)..];
            while lab.host.udp_send(lab.order, GUEST_IP, port, data).is_err() {
                lab.host.run(Duration::from_millis(1));
            }
            let conn = conns[usize::from(i) % conns.len()];
            let _ = lab.host.try_send(conn, &marks);
            lab.host.poll();
        }
        lab.host.run(Duration::from_millis(50));
        lab.drain_orders();
        let here = lab.answer(LOOK).unwrap();
        assert!(here.starts_with(BROKEN), "round {round}: the marks are not even there: {here}");
        lab.forget(conns);
        lab.host.run(Duration::from_millis(50));
        lab.restart().unwrap();
        lab.drain_orders();
        assert_eq!(lab.answer(LOOK).unwrap(), REFUSED, "round {round}: marks of the predecessor");
    }
}

/// A peer that reads nothing stops QEMU's transmit queue; the 82599, whose cable drops what nobody reads, is told to hang. The ended
/// application's memory is not lost to it. (What QEMU does with the half-sent frame is its own business: the link is not used again.
/// The 82599 serves again.)
#[test]
fn frames_that_do_not_leave_are_taken_back_by_a_reset_of_the_network_card() {
    let _machine = need::machine();
    let Some(mut lab) = Lab::boot() else { return };
    let clean = lab.clean.expect("known since the boot");
    let before = lab.vm.snapshot().total.counters.get("tx_packets");
    lab.host.udp_send(lab.order, GUEST_IP, ORDER_PORT, FLOOD.as_bytes()).unwrap();
    let (begun, _) = lab.host.udp_recv(lab.order, PATIENCE).unwrap();
    assert_eq!(begun, BEGUN.as_bytes());
    let card = lab.vm.card_pid();
    if let Some(card) = card {
        std::thread::sleep(Duration::from_millis(300));
        kill(card, Signal::SIGUSR1).expect("the card's program is there");
    }
    // From now on the peer reads nothing: the guest sends until nothing goes any more.
    let sent = || lab.vm.snapshot().total.counters.get("tx_packets");
    let deadline = Instant::now() + PATIENCE;
    let mut last = before;
    loop {
        std::thread::sleep(Duration::from_millis(300));
        let now = sent();
        if now == last && now > before + 200 {
            break;
        }
        last = now;
        assert!(Instant::now() < deadline, "the guest does not send enough: {before} then {now}");
    }
    lab.vm.ixcp_ok(&["restart-app"]);
    lab.vm.wait_for("frames of the ended app do not leave", PATIENCE);
    assert_eq!(lab.word(header::APP_STARTS), lab.starts + 1);
    assert_eq!(lab.word(header::MEMORY_FREE), clean.memory_free);
    let log = lab.vm.log();
    assert!(!log.contains("is not reused") && !log.contains("do not come home"), "{log}");
    if card.is_some() {
        // What lies in between was lost to the flood.
        lab.host.run(Duration::from_millis(500));
        lab.pings().expect("the reset has cured it");
        let conns = lab.connections().expect("the next application serves");
        lab.forget(conns);
    }
}

fn note(line: &str) {
    // Past the harness's capture: each misdeed is to be seen in the log of a run.
    let _ = std::io::stderr().write_all(format!("hostile {line}\n").as_bytes());
}

/// Every misdeed of a kind, on as many machines as it takes.
fn kind(name: &str) {
    let kind: &Kind = KINDS.iter().find(|k| k.name == name).expect("a kind");
    let _machine = need::machine();
    let mut lab = None;
    let mut failures = Vec::new();
    let only = std::env::var("IX_MISDEED").ok();
    for misdeed in kind.misdeeds {
        if only.as_ref().is_some_and(|only| only != misdeed.name) {
            continue;
        }
        let orders: Vec<String> = if misdeed.name == "int" {
            // Exceptions, what the kernel uses, the old system calls; all of them in the long variant.
            let some = [0, 1, 2, 3, 4, 8, 13, 14, 18, 31, 32, 64, 128, 240, 241, 242, 255];
            let all = 0..256;
            let chosen = all.filter(|vector| need::prove() || some.contains(vector));
            chosen.map(|vector| format!("int {vector}")).collect()
        } else {
            vec![misdeed.name.to_owned()]
        };
        for order in orders {
            if lab.is_none() {
                lab = Lab::boot_for(kind.name);
            }
            let Some(at) = &mut lab else { return };
            let began = Instant::now();
            match at.commit(misdeed, &order) {
                Ok(()) => {
                    note(&format!(
                        "{order}: {:?} ({} ms)",
                        misdeed.answer,
                        began.elapsed().as_millis()
                    ));
                }
                Err(why) if why.contains("let live") && at.emulator_lets(misdeed.name) => {
                    need::skip(&format!("{order}: this QEMU executes it in ring 3"));
                    lab = None;
                }
                Err(why) => {
                    note(&format!("{order}: FAILED: {why}"));
                    let lines = at.new_lines().join("\n");
                    failures.push(format!("{order}: {why}\n{lines}"));
                    // Books that do not balance need no new machine.
                    if why.contains("not all was freed") {
                        at.clean = Some(at.figures());
                    } else {
                        lab = None;
                    }
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} misdeeds:\n{}", failures.len(), failures.join("\n\n"));
}

#[test]
fn handles_that_are_not_the_applications_are_refused() {
    kind("handles");
}

#[test]
fn gather_entries_beyond_its_memory_are_refused() {
    kind("gather");
}

#[test]
fn calls_that_make_no_sense_are_refused() {
    kind("calls");
}

#[test]
fn rings_that_lie_or_change_meanwhile_hurt_only_their_application() {
    kind("rings");
}

#[test]
fn memory_that_is_not_its_own_ends_the_application() {
    kind("memory");
}

#[test]
fn forbidden_instructions_end_the_application() {
    kind("privileged");
}

#[test]
fn no_register_at_any_entry_hurts_the_kernel() {
    kind("state");
}

#[test]
fn what_can_be_asked_for_has_a_limit_and_is_given_back() {
    kind("exhaust");
}

#[test]
fn background_threads_have_limits_and_end_with_their_application() {
    kind("background");
}

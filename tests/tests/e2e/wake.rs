//! The dataplane measures itself, asks for cores, wakes one that it was granted, and offers it back.
use crate::Kv;
use ix_abi::control::{CommandCode, header, measure_offset};
use ix_abi::demand::{LIMIT_WORDS, Limits, Reason, Want, word};
use ix_abi::measure::{
    WAKE_BEGAN_NS, WAKE_GIVEN_NS, WAKE_WAITED_NS, WOKEN_FOUND_NS, WOKEN_SERVED_NS, WOKEN_TAKEN_NS,
    WOKEN_TOOK_NS, window,
};
use ix_abi::{Status, control};
use ix_tests::need;
use ix_tests::vm::{Config, Vm};
use ixcp::command::{CommandError, Writer};
use ixcp::page::Page;
use std::io::Write;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// Lays words into the bulk area and takes them into force as limits.
fn limit(vm: &Vm, words: [u64; LIMIT_WORDS]) -> Result<u64, CommandError> {
    let page = vm.page();
    let writer = Writer::lock(&vm.dir().join("control.lock"), PATIENCE).expect("the lock");
    for (i, value) in words.into_iter().enumerate() {
        page.store(control::BULK_BASE + i * 8, value);
    }
    writer.send(&page, CommandCode::SetLimits, [LIMIT_WORDS as u64, 0, 0, 0], PATIENCE)
}

fn want(page: &Page) -> Want {
    Want::decode(page.load(word::WANT))
}

/// Waits until `done`, while `meanwhile` goes on.
#[track_caller]
fn until(vm: &Vm, what: &str, mut meanwhile: impl FnMut(), done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        let page = vm.page();
        let words: Vec<_> = (0..16).map(|i| page.load(0x300 + i * 8)).collect();
        assert!(start.elapsed() < PATIENCE, "{what}: {words:?}\n{}", vm.log());
        meanwhile();
    }
}

/// Connections that all ask at once.
struct Crowd(Vec<Kv>);

impl Crowd {
    fn of(vm: &Vm, connections: usize) -> Crowd {
        let mut all: Vec<Kv> = (0..connections).map(|_| Kv::connect(vm)).collect();
        for client in &mut all {
            client.set("key", &[b'v'; 64]);
        }
        Crowd(all)
    }

    /// So many requests of each in one write, and the answers.
    fn ask(&mut self, each: usize) {
        for client in &mut self.0 {
            client.0.get_mut().write_all(&b"get key\r\n".repeat(each)).expect("written");
        }
        for client in &mut self.0 {
            for _ in 0..each {
                assert!(client.line().starts_with("VALUE key 0 64"));
                assert_eq!((client.line().len(), client.line().as_str()), (64, "END"));
            }
        }
    }
}

/// Flow groups of a core.
fn groups(page: &Page, core: u64) -> usize {
    let owner = |group: u64| page.load(control::OWNERS_BASE + group as usize * 8);
    (0..page.load(header::GROUPS)).filter(|group| owner(*group) == core).count()
}

#[test]
fn a_dataplane_asks_for_cores_wakes_one_and_offers_it_back() {
    let _machine = need::machine();
    let Some(built) = need::built() else { return };
    let vm = Config::new(&built, "kv").cores(4).forward("11211").boot();
    let page = vm.page();
    let mut crowd = Crowd::of(&vm, 32);
    vm.ixcp_ok(&["cores", "set", "1"]);
    assert_eq!(page.load(header::ACTIVE), 1);
    let soon = Limits { down_hold_ns: 200_000_000, delay_target_ns: 20_000, ..Limits::DEFAULT };
    assert_eq!(limit(&vm, soon.encode()).expect("limits"), 1);
    assert_eq!((page.load(word::LIMITS_NUMBER), page.load(word::LIMITS + 40)), (1, 20_000));

    // It asks, and wakes nobody without a grant.
    let more =
        |want: Want| want.cores > 1 && ![Reason::Idle, Reason::Enough].contains(&want.reason);
    until(&vm, "no wish for more", || crowd.ask(4), || more(want(&page)));
    assert_eq!((page.load(header::ACTIVE), page.load(word::WAKES)), (1, 0));

    // With a grant it does not wait for anybody; of what is granted, only parked cores count.
    let granted = Limits { grant: 0b0111 | 1 << 63, wake_delay_ns: 20_000, ..soon };
    limit(&vm, granted.encode()).expect("limits");
    until(&vm, "nobody woken", || crowd.ask(4), || page.load(word::WAKES) > 0);
    until(&vm, "no groups", || crowd.ask(4), || groups(&page, 1) > 0);
    until(&vm, "no load", || crowd.ask(4), || page.load(measure_offset(1) + window::FRAMES) > 0);
    assert_eq!(page.load(header::ACTIVE) & 0b1011, 0b0011, "core 3 was not granted");
    let events = vm.ixcp_ok(&["events"]);
    // The first parked one; if the load lasts, another behind it.
    let woken = events.lines().find_map(|line| line.split_once("core woken: "));
    assert!(woken.is_some_and(|(_, text)| text.starts_with("1, queueing delay")), "{events}");
    assert!([1, 2, 2 | 1 << 16].contains(&page.load(word::LAST_WAKE)), "who was woken, by whom");
    assert!(events.contains("core serves") && events.contains("cores wanted"), "{events}");

    // The grant has a lease, and limits that are none change nothing.
    limit(&vm, Limits { lease_ns: 50_000_000, ..granted }.encode()).expect("limits");
    assert_ne!(page.load(word::GRANT_ENDS_NS), 0);
    until(&vm, "no end", || crowd.ask(1), || page.load(word::LIMITS + 8) == 0);
    let refused = limit(&vm, [u64::MAX; LIMIT_WORDS]);
    assert_eq!(refused, Err(CommandError::Refused(Status::Invalid)));
    assert_eq!((page.load(word::LIMITS_NUMBER), page.load(word::LIMITS + 40)), (3, 20_000));

    // At rest it offers back what it has.
    until(
        &vm,
        "no offer",
        || std::thread::sleep(Duration::from_millis(10)),
        || {
            let want = want(&page);
            (want.cores, want.reason) == (1, Reason::Idle)
        },
    );
    vm.ixcp_ok(&["cores", "set", "1"]);
    until(
        &vm,
        "not content",
        || std::thread::sleep(Duration::from_millis(10)),
        || (want(&page).cores, want(&page).reason) == (1, Reason::Enough),
    );
    assert_eq!((page.load(header::ACTIVE), groups(&page, 0)), (1, 128));
    let events = vm.ixcp_ok(&["events"]);
    assert!(events.contains("core parked") && events.contains("grant ends"), "{events}");
    crowd.ask(1);
}

#[test]
fn a_set_of_cores_serves_and_nonsense_is_refused() {
    let _machine = need::machine();
    let Some(built) = need::built() else { return };
    let vm = Config::new(&built, "kv").cores(4).forward("11211").boot();
    let page = vm.page();
    let mut crowd = Crowd::of(&vm, 8);
    let send = |set: u64| {
        let writer = Writer::lock(&vm.dir().join("control.lock"), PATIENCE).expect("the lock");
        writer.send(&page, CommandCode::SetCoreSet, [set, 0, 0, 0], PATIENCE)
    };
    for set in [0b1001, 0b0101, 0b1111, 0b0001, 0b1101] {
        assert_eq!(send(set), Ok(set));
        assert_eq!(page.load(header::ACTIVE), set);
        for core in 0..4 {
            let share = 128.0 / f64::from(set.count_ones());
            let share = if set & 1 << core != 0 { share } else { 0.0 };
            let has = groups(&page, core) as f64;
            assert!((has - share).abs() < 1.0, "{set:#b}: core {core} has {has}");
        }
        crowd.ask(2);
    }
    for set in [0, 0b0110, 0b1_0001, u64::MAX] {
        assert_eq!(send(set), Err(CommandError::Refused(Status::Invalid)), "{set:#b}");
    }
    assert_eq!(page.load(header::ACTIVE), 0b1101);
}

/// Rounds of the count.
const ROUNDS: usize = 15;
const TRIES: u64 = 40;

#[test]
fn instructions_from_the_first_late_frame_to_the_first_served_on_the_woken_core() {
    let _machine = need::machine();
    let (Some(()), Some(built)) = (need::countable(), need::built()) else { return };
    // Beside others who take this machine's time, more rounds have a turn of the other core in them: what it can do, it does in
    // one of three.
    let mut medians = Vec::new();
    while medians.len() < 3 && medians.last().is_none_or(|median| *median > 20_000) {
        medians.push(median_of_rounds(&built));
    }
    assert!(medians.last().is_some_and(|median| *median <= 20_000), "{medians:?}");
}

/// On a machine of its own: instructions on both sides together.
#[track_caller]
fn median_of_rounds(built: &need::Built) -> u64 {
    // A nanosecond of the guest is an instruction, of whichever core; one core runs at a time.
    let vm = Config::new(built, "kv").cores(2).counted().forward("11211").boot();
    let page = vm.page();
    let mut crowd = Crowd::of(&vm, 8);
    let granted =
        Limits { grant: 0b10, wake_delay_ns: 10_000, wake_after_ns: 0, ..Limits::DEFAULT };
    let at = |core: usize, offset: usize| page.load(measure_offset(core) + offset);
    let mut figures = Vec::new();
    for round in 0..TRIES {
        limit(&vm, Limits::DEFAULT.encode()).expect("limits");
        vm.ixcp_ok(&["cores", "set", "1"]);
        // The loads of flow groups are known from the last window.
        crowd.ask(1);
        limit(&vm, granted.encode()).expect("limits");
        until(&vm, "nobody woken", || crowd.ask(1), || page.load(word::WAKES) > round);
        for _ in 0..10 {
            crowd.ask(1);
        }
        let (began, given) = (at(0, WAKE_BEGAN_NS), at(0, WAKE_GIVEN_NS));
        let (taken, served) = (at(1, WOKEN_TAKEN_NS), at(1, WOKEN_SERVED_NS));
        if given < began || taken < began || served < taken {
            println!("round {round}: no frame waited for the groups that went first");
            continue;
        }
        let (waited, took, found) =
            (at(0, WAKE_WAITED_NS), at(1, WOKEN_TOOK_NS), at(1, WOKEN_FOUND_NS));
        // What the woken core does between taking the group and finding the frame is waiting, while the other works.
        let apart = found > taken;
        assert!(!apart || (taken..=found).contains(&took), "{taken}, {took}, {found}, {served}");
        let waiting = if apart { found - took } else { 0 };
        let (giving, serving) = (given - began - waited, served - taken - waiting);
        println!(
            "round {round}: {giving} on the congested core, {serving} on the woken one; {waited} in between until \
             the network card had sent, {waiting} until there was a frame; {} from end to end",
            served - began
        );
        figures.push(giving + serving);
        if figures.len() == ROUNDS {
            break;
        }
    }
    assert_eq!(figures.len(), ROUNDS);
    figures.sort_unstable();
    println!("in order: {figures:?}");
    // The emulator runs one core at a time, up to 65,535 instructions of each: some rounds have a turn of the other core in them.
    let median = figures[ROUNDS / 2];
    println!("instructions on both sides together, median of {ROUNDS}: {median}");
    median
}

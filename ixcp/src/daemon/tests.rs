//! The daemon's parts against a kernel played by a thread.
use super::*;
use crate::fake::{self, Kernel};
use crate::instance::Claim;
use crate::page::Page;
use crate::policy::Kind;
use ix_abi::Status;
use ix_abi::control::{BULK_BASE, CommandCode, MAGIC, command, header, outcome};
use ix_abi::demand::{LIMIT_WORDS, Limits, Want, word};
use std::sync::Mutex;

struct Scene {
    _dir: temp_dir::TempDir,
    base: Base,
    claim: Claim,
    page: Page,
    /// Codes and first arguments of the commands that were carried out.
    done: Arc<Mutex<Vec<(u64, u64)>>>,
}

impl Scene {
    /// A dataplane of four cores, of which the first serves.
    fn new() -> Scene {
        let dir = temp_dir::TempDir::new().unwrap();
        let base = Base::at(dir.path().join("ix")).unwrap();
        let claim = base.claim("kv").unwrap();
        let page = Page::create(&claim.instance.control()).unwrap();
        fake::fill(&page, 4);
        page.store(header::ACTIVE, 1);
        let limits = Limits::DEFAULT.encode();
        limits.iter().enumerate().for_each(|(i, w)| page.store(word::LIMITS + i * 8, *w));
        (0..4).for_each(|core| fake::measure(&page, core, 100, 1_000, 1));
        Scene { _dir: dir, base, claim, page, done: Arc::default() }
    }

    /// A kernel that does what it is told.
    fn kernel(&self) -> Kernel {
        let page = Page::open(&self.claim.instance.control()).unwrap();
        let done = self.done.clone();
        Kernel::at(&self.claim.instance.control(), move |code, arg| {
            done.lock().unwrap().push((code, arg));
            match CommandCode(code as u16) {
                CommandCode::SetCores => page.store(header::ACTIVE, reader::all(arg as usize)),
                CommandCode::SetLimits => (0..LIMIT_WORDS)
                    .for_each(|i| page.store(word::LIMITS + i * 8, page.load(BULK_BASE + i * 8))),
                _ => return (Status::Unsupported, 0),
            }
            (Status::Ok, arg)
        })
    }

    fn pilot(&self, settings: &[&str]) -> Pilot {
        let mut changes = Table::new();
        settings.iter().for_each(|s| config::overlay(&mut changes, config::setting(s).unwrap()));
        Pilot::new(self.claim.instance.clone(), changes)
    }

    /// How many cores it was told to have, in order.
    fn cores(&self) -> Vec<u64> {
        let wanted = u64::from(CommandCode::SetCores.0);
        self.done.lock().unwrap().iter().filter(|d| d.0 == wanted).map(|d| d.1).collect()
    }

    fn log(&self) -> String {
        let text = std::fs::read_to_string(log::path(&self.claim.instance)).unwrap_or_default();
        let show = |line| serde_json::from_str::<log::Line>(line).unwrap().show() + "\n";
        text.lines().map(show).collect()
    }

    fn limits(&self) -> Limits {
        let words = std::array::from_fn(|i| self.page.load(word::LIMITS + i * 8));
        Limits::decode(&words).unwrap()
    }
}

/// Looks at 10 ms each, on a clock of the test's own.
fn look(pilot: &mut Pilot, start: Instant, looks: std::ops::Range<u64>) {
    looks.for_each(|i| pilot.look(start + Duration::from_millis(10 * i)));
}

#[test]
fn a_core_is_given_when_requests_wait_and_the_log_has_the_figures() {
    let scene = Scene::new();
    let _kernel = scene.kernel();
    let mut pilot = scene.pilot(&["policy=latency"]);
    let start = Instant::now();
    look(&mut pilot, start, 0..1);
    assert!(scene.cores().is_empty());
    fake::measure(&scene.page, 0, 930, 70_000, 9);
    look(&mut pilot, start, 1..2);
    assert_eq!(scene.cores(), [2]);
    let log = scene.log();
    for words in ["policy latency", "1 core → 2 cores", "wait too long", "70 µs", "93 %", "done in"]
    {
        assert!(log.contains(words), "{words}: {log}");
    }
    // The next parked core may be woken, for as long as the daemon lives.
    let limits = scene.limits();
    assert_eq!(
        (limits.grant, limits.lease_ns, limits.delay_target_ns),
        (0b100, 3_000_000_000, 60_000)
    );
    pilot.end();
    assert_eq!((scene.limits().grant, scene.page.load(header::ACTIVE)), (0, 0b11));
}

#[test]
fn the_dataplanes_own_request_is_what_is_acted_on() {
    let scene = Scene::new();
    let _kernel = scene.kernel();
    let mut pilot = scene.pilot(&["policy=latency"]);
    let want = Want { cores: 3, reason: ix_abi::demand::Reason::Depth, number: 1 };
    scene.page.store(word::WANT, want.encode());
    look(&mut pilot, Instant::now(), 0..2);
    assert_eq!(scene.cores(), [3]);
    assert!(scene.log().contains("the dataplane asks for 3"), "{}", scene.log());
    // A wish for more than there is.
    scene.page.store(word::WANT, Want { cores: u16::MAX, ..want }.encode());
    look(&mut pilot, Instant::now(), 100..102);
    assert_eq!(scene.cores(), [3, 4]);
}

#[test]
fn idle_cores_are_taken_and_a_halted_core_counts_as_idle() {
    let scene = Scene::new();
    let _kernel = scene.kernel();
    scene.page.store(header::ACTIVE, 0b1111);
    // Windows of long ago, of full cores: they have halted since.
    (0..4).for_each(|core| fake::measure(&scene.page, core, 1_000, 500_000, 64));
    scene.page.store(header::NOW_NS, scene.page.load(header::NOW_NS) + 1_000_000_000);
    let mut pilot = scene.pilot(&["policy=latency", "cores.min=2"]);
    look(&mut pilot, Instant::now(), 0..200);
    assert_eq!(scene.cores(), [2]);
}

#[test]
fn static_does_nothing_unless_it_has_a_number_and_set_is_taken_over() {
    let scene = Scene::new();
    let _kernel = scene.kernel();
    fake::measure(&scene.page, 0, 1_000, 9_000_000, 64);
    let mut pilot = scene.pilot(&[]);
    let start = Instant::now();
    look(&mut pilot, start, 0..100);
    assert!(scene.done.lock().unwrap().is_empty());
    let set = config::setting("static.cores=3").unwrap();
    store::write(&scene.claim.instance, &set).unwrap();
    look(&mut pilot, start, 100..150);
    assert_eq!(scene.cores(), [3]);
    std::fs::write(store::path(&scene.claim.instance), "policy = \"fast\"").unwrap();
    look(&mut pilot, start, 200..250);
    assert!(scene.log().contains("policy static goes on"), "{}", scene.log());
    assert_eq!(scene.cores(), [3]);
}

#[test]
fn what_the_kernel_refuses_is_told_and_not_tried_again_at_once() {
    let scene = Scene::new();
    let kernel = Kernel::at(&scene.claim.instance.control(), |_, _| (Status::TimedOut, 0));
    let mut pilot = scene.pilot(&["static.cores=2"]);
    let start = Instant::now();
    look(&mut pilot, start, 0..50);
    assert_eq!(kernel.end(), [u64::from(CommandCode::SetCores.0)]);
    assert!(scene.log().contains("NOT done: the kernel refuses: timed out"), "{}", scene.log());
}

#[test]
fn a_corrupted_page_is_told_once_and_left_alone_until_it_is_right() {
    let scene = Scene::new();
    let _kernel = scene.kernel();
    fake::measure(&scene.page, 0, 930, 70_000, 9);
    scene.page.store(header::CORES, u64::MAX);
    let mut pilot = scene.pilot(&["policy=latency"]);
    let start = Instant::now();
    look(&mut pilot, start, 0..50);
    scene.page.store(header::MAGIC, 0x5a5a_5a5a_5a5a_5a5a);
    look(&mut pilot, start, 50..100);
    assert!(scene.done.lock().unwrap().is_empty());
    let log = scene.log();
    assert_eq!(
        (log.matches("corrupted: the number of cores").count(), log.lines().count()),
        (1, 3),
        "{log}"
    );
    assert!(log.contains("not an IX control page"), "{log}");
    scene.page.store(header::CORES, 4);
    scene.page.store(header::MAGIC, MAGIC);
    look(&mut pilot, start, 100..101);
    assert_eq!(scene.cores(), [2]);
}

#[test]
fn words_of_nonsense_in_the_measurements_harm_nobody() {
    let scene = Scene::new();
    let _kernel = scene.kernel();
    // Everything behind the header's words that were checked: windows, wish, limits.
    for offset in (0x300..0x400).chain(0x30_0000..0x31_0000).step_by(8) {
        scene.page.store(offset, u64::MAX);
    }
    let mut pilot = scene.pilot(&["policy=latency"]);
    look(&mut pilot, Instant::now(), 0..300);
    assert!(scene.cores().iter().all(|cores| (1..=4).contains(cores)), "{:?}", scene.cores());
}

#[test]
fn the_next_daemon_takes_over_from_one_that_was_killed_while_it_waited() {
    let scene = Scene::new();
    // It had sent `cores 4` and died; nobody has answered yet.
    scene.page.store(command::EPOCH, scene.page.load(header::EPOCH));
    scene.page.store(command::CODE, u64::from(CommandCode::SetCores.0));
    scene.page.store(command::ARGS, 4);
    scene.page.store_release(command::SEQUENCE, 1);
    let mut pilot = scene.pilot(&["static.cores=2"]);
    std::thread::scope(|s| {
        s.spawn(|| look(&mut pilot, Instant::now(), 0..1));
        std::thread::sleep(Duration::from_millis(50));
        // The words of the pending command are as they were.
        assert_eq!(scene.page.load(command::ARGS), 4);
        let _kernel = scene.kernel();
        let start = Instant::now();
        while scene.cores() != [4, 2] {
            assert!(start.elapsed() < Duration::from_secs(5), "{:?}", scene.cores());
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}

#[test]
fn a_command_from_the_future_is_waited_out_and_then_things_go_on() {
    let scene = Scene::new();
    let _kernel = scene.kernel();
    scene.page.store(command::EPOCH, u64::MAX);
    scene.page.store(command::CODE, u64::MAX);
    scene.page.store_release(command::SEQUENCE, u64::MAX - 1);
    let mut pilot = scene.pilot(&["static.cores=3"]);
    look(&mut pilot, Instant::now(), 0..1);
    assert_eq!(scene.cores(), [3]);
    assert_eq!(scene.page.load(outcome::SEQUENCE), u64::MAX);
}

#[test]
fn reserved_cores_are_not_given() {
    let scene = Scene::new();
    let _kernel = scene.kernel();
    scene.page.store(header::BACKGROUND, 0b1000);
    let want = Want { cores: 4, reason: ix_abi::demand::Reason::Delay, number: 1 };
    scene.page.store(word::WANT, want.encode());
    let mut pilot = scene.pilot(&["policy=latency"]);
    let start = Instant::now();
    look(&mut pilot, start, 0..1);
    assert_eq!((scene.cores(), scene.limits().cores_max), (vec![3], 3));
    // The application has given it back.
    scene.page.store(header::BACKGROUND, 0);
    look(&mut pilot, start, 100..110);
    assert_eq!(scene.cores(), [3, 4]);
}

#[test]
fn a_kernel_that_does_not_measure_gets_no_policy_and_no_limits() {
    let scene = Scene::new();
    let _kernel = scene.kernel();
    scene.page.store(header::HISTOGRAM_BUCKETS, 0);
    let mut pilot = scene.pilot(&["policy=efficient"]);
    look(&mut pilot, Instant::now(), 0..10);
    assert!(scene.done.lock().unwrap().is_empty());
    assert!(scene.log().contains("does not measure"), "{}", scene.log());
}

#[test]
fn a_job_gets_the_cpus_of_parked_cores_and_loses_them_before_the_cores_run() {
    let scene = Scene::new();
    let cgroup = scene.base.directory("cgroup");
    std::fs::create_dir(&cgroup).unwrap();
    std::fs::write(cgroup.join("cpuset.cpus"), "0-15\n").unwrap();
    let cpus = {
        let cgroup = cgroup.clone();
        move || std::fs::read_to_string(cgroup.join("cpuset.cpus")).unwrap().trim().to_owned()
    };
    let page = Page::open(&scene.claim.instance.control()).unwrap();
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let (at_command, had) = (seen.clone(), cpus.clone());
    let _kernel = Kernel::at(&scene.claim.instance.control(), move |code, arg| {
        if code == u64::from(CommandCode::SetCores.0) {
            at_command.lock().unwrap().push(had());
            page.store(header::ACTIVE, reader::all(arg as usize));
        }
        (Status::Ok, arg)
    });
    let job = format!("job.cgroup={}", cgroup.display());
    let mut pilot = scene.pilot(&["policy=background", "host.cpus=[4, 5, 6, 7]", &job]);
    let start = Instant::now();
    look(&mut pilot, start, 0..1);
    assert_eq!(cpus(), "5-7");
    // IX's threshold, on average of looks.
    for i in 1..8 {
        fake::measure(&scene.page, 0, 1_000, 90_000, 300);
        look(&mut pilot, start, i..i + 1);
    }
    assert_eq!((cpus(), seen.lock().unwrap().clone()), ("6-7".to_owned(), vec!["6-7".to_owned()]));
    (0..2).for_each(|core| fake::measure(&scene.page, core, 10, 1_000, 0));
    look(&mut pilot, start, 8..1_000);
    assert_eq!(cpus(), "5-7");
    assert_eq!(seen.lock().unwrap()[1], "6-7", "the core is parked before its CPU is lent");
    assert!(scene.log().contains("threads of the virtual cores are not known"), "{}", scene.log());
    pilot.end();
    assert_eq!(cpus(), "0-15");
}

#[test]
fn only_one_daemon_decides_and_the_second_says_who_does() {
    let dir = temp_dir::TempDir::new().unwrap();
    let base = Base::at(dir.path().join("ix")).unwrap();
    assert_eq!(lock::holder(&base), None);
    let none = lock::Task::default();
    let first = lock::take(&base, &none).unwrap();
    let said = lock::take(&base, &none).unwrap_err().to_string();
    assert!(said.contains(&format!("process {}", std::process::id())), "{said}");
    let us = lock::Holder { pid: std::process::id(), task: none.clone() };
    assert_eq!(lock::holder(&base), Some(us));
    drop(first);
    assert_eq!(lock::holder(&base), None);
    lock::take(&base, &none).unwrap();
    // It is no dataplane.
    assert!(base.list().unwrap().is_empty());
}

#[test]
fn a_daemon_tells_whom_it_watches_and_by_what_it_decides() {
    let scene = Scene::new();
    let (base, kv) = (&scene.base, &scene.claim.instance);
    let settings = config::setting("policy=latency").unwrap();
    let task = lock::Task { names: vec!["nope".to_owned()], settings };
    let lock = lock::take(base, &task).unwrap();
    assert_eq!(lock::holder(base).unwrap().task, task);
    assert_eq!(lock::decides(base, kv), None);
    drop(lock);
    let task = lock::Task { names: vec!["kv".to_owned()], ..task };
    let _lock = lock::take(base, &task).unwrap();
    let daemon = lock::decides(base, kv).unwrap();
    assert_eq!(daemon.config(kv).unwrap().policy, Kind::Latency);
}

#[test]
fn a_daemon_warns_of_names_that_nothing_has() {
    let scene = Scene::new();
    let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    assert_eq!(missing(&scene.base, &names(&["kv"])).unwrap(), None);
    assert_eq!(missing(&scene.base, &[]).unwrap(), None);
    let text = missing(&scene.base, &names(&["kv", "nope"])).unwrap().unwrap();
    assert!(text.contains("named nope runs (these do: kv)"), "{text}");
}

#[test]
fn a_daemons_file_has_settings_for_all_and_for_single_dataplanes() {
    let scene = Scene::new();
    let file: Table =
        "policy = \"latency\"\n[latency]\ntarget_us = 80\n[instances.kv.latency]\ntarget_us = 50\n\
        [instances.web]\npolicy = \"background\"\n"
            .parse()
            .unwrap();
    store::check(&file).unwrap();
    let config = configure(&scene.claim.instance, &file).unwrap();
    assert_eq!((config.policy.name(), config.latency.target_us), ("latency", 50.0));
    let own = config::setting("latency.target_us=20").unwrap();
    store::write(&scene.claim.instance, &own).unwrap();
    assert_eq!(configure(&scene.claim.instance, &file).unwrap().latency.target_us, 20.0);
    for (text, words) in [
        ("instances = 1", "a table"),
        ("[instances]\nkv = 1", "[instances.kv]"),
        ("[instances.\"../x\"]", "not a good name"),
        ("[instances.kv]\npolicy = \"fast\"", "fast"),
    ] {
        let said = store::check(&text.parse().unwrap()).unwrap_err().to_string();
        assert!(said.contains(words), "{text}: {said}");
    }
}

#[test]
fn every_dataplane_has_a_thread_and_one_that_ends_is_left() {
    let scene = Scene::new();
    let _kernel = scene.kernel();
    let other = scene.base.claim("other").unwrap();
    let page = Page::create(&other.instance.control()).unwrap();
    fake::fill(&page, 2);
    let _other_kernel = Kernel::at(&other.instance.control(), {
        let page = Page::open(&other.instance.control()).unwrap();
        move |_, arg| {
            page.store(header::ACTIVE, reader::all(arg as usize));
            (Status::Ok, arg)
        }
    });
    let changes: Table =
        "[instances.kv.static]\ncores = 2\n[instances.other.static]\ncores = 1\n".parse().unwrap();
    let ended = Arc::new(AtomicBool::new(false));
    std::thread::scope(|s| {
        let daemon = s.spawn(|| watch(&scene.base, &[], &changes, &ended));
        let start = Instant::now();
        while scene.page.load(header::ACTIVE) != 0b11 || page.load(header::ACTIVE) != 0b1 {
            assert!(start.elapsed() < Duration::from_secs(10), "both are brought to their numbers");
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(other);
        std::thread::sleep(Duration::from_millis(300));
        scene.page.store(header::ACTIVE, 0b1111);
        while scene.page.load(header::ACTIVE) != 0b11 {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "it goes on with the one that is left"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        ended.store(true, Ordering::Relaxed);
        daemon.join().unwrap().unwrap();
    });
}

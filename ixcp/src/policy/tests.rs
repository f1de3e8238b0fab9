use super::*;
use proptest::prelude::*;

fn config(settings: &[&str]) -> Config {
    let mut changes = toml::Table::new();
    for text in settings {
        config::overlay(&mut changes, config::setting(text).unwrap());
    }
    Config::from_table(changes, "test").unwrap()
}

fn core(busy: f64, delay_p99_us: f64, queue: f64) -> CoreLoad {
    CoreLoad { serves: true, busy, delay_p99_us, queue }
}

/// `serving` cores of `total` with the same load.
fn sample(now_ms: u64, total: usize, serving: u32, load: CoreLoad) -> Sample {
    let of = |i: usize| if i < serving as usize { load } else { CoreLoad::default() };
    Sample { now_ms, cores: (0..total).map(of).collect(), wants: None }
}

/// Looks every 10 ms at a steady load, does what is said, and tells the changes.
fn drive(
    g: &mut Governor,
    from_ms: u64,
    looks: u64,
    total: usize,
    load: impl Fn(u32) -> CoreLoad,
) -> Vec<(u64, Change)> {
    let mut serving = g.step().cores;
    let mut changes = Vec::new();
    for at in (0..looks).map(|i| from_ms + i * 10) {
        if let Some(change) = g.decide(&sample(at, total, serving, load(serving))) {
            serving = change.to.cores;
            changes.push((at, change));
        }
    }
    changes
}

fn cores(changes: &[(u64, Change)]) -> Vec<u32> {
    changes.iter().map(|(_, c)| c.to.cores).collect()
}

#[test]
fn the_documented_file_is_the_default_and_every_key_in_it_has_a_comment() {
    let config = Config::default();
    assert_eq!((config.policy, config.latency.target_us), (Kind::Static, 100.0));
    assert_eq!(config.efficient.down_margin, 1.2, "IX's");
    assert_eq!(config.efficient.down_after_down_ms, 4000, "IX's");
    let keys = |t: &toml::Value| t.as_table().unwrap().keys().cloned().collect::<Vec<_>>();
    let all: toml::Table = config::DEFAULT.parse().unwrap();
    assert_eq!(keys(&all["latency"]), keys(&all["efficient"]));
    assert_eq!(keys(&all["latency"]), keys(&all["background"]));
    // The explanations are in the first section: a comment at most four lines above each key of it.
    let lines: Vec<&str> = config::DEFAULT.lines().collect();
    let section = lines.iter().position(|l| *l == "[latency]").unwrap();
    for key in keys(&all["latency"]) {
        let at =
            lines.iter().skip(section).position(|l| l.starts_with(&format!("{key} ="))).unwrap();
        let above = &lines[section + at - 4..section + at];
        assert!(above.iter().any(|l| l.starts_with('#')), "{key} has no comment");
    }
}

#[test]
fn settings_that_cannot_be_are_refused_with_the_key_and_what_is_wanted() {
    let said = |texts: &[&str]| {
        let mut changes = toml::Table::new();
        let laid = texts.iter().try_for_each(|t| {
            config::overlay(&mut changes, config::setting(t)?);
            Ok(())
        });
        laid.and_then(|()| Config::from_table(changes, "there")).unwrap_err().to_string()
    };
    for (texts, words) in [
        (&["latency.target_us=nan"][..], "latency.target_us is NaN"),
        (&["latency.target_us=0"], "above 0"),
        (&["efficient.down_margin=0.5"], "efficient.down_margin"),
        (&["background.busy_floor=2"], "a share"),
        (&["latency.down_delay_us=60"], "below up_delay_us"),
        (&["latency.down_queue=199"], "below up_queue"),
        (&["cores.min=4", "cores.max=2"], "cores.min"),
        (&["interval_ms=0"], "1 to 10000"),
        (&["policy=fast"], "fast"),
        (&["latency.tarket_us=1"], "tarket_us"),
        (&["cores.min=-1"], "-1"),
        (&["cores.min=-1"], "expected a whole number that is not negative in `cores.min`"),
        (&["latency.target_us=abc"], "\"abc\", expected a number in `latency.target_us`"),
        (&["cores=3"], "there"),
        (&["job.pid=1", "job.cgroup=/x"], "not both"),
        (&["job.pid=-2"], "process"),
        (&["target"], "KEY=VALUE"),
        (&["=1"], "KEY=VALUE"),
        (&["a..b=1"], "KEY=VALUE"),
    ] {
        let said = said(texts);
        assert!(said.contains(words), "{texts:?}: {said}");
    }
    let good = config(&["policy=background", "job.cgroup=/x/y z", "host.cpus=[1, 2]"]);
    assert_eq!((good.job.cgroup.to_str(), good.host.cpus), (Some("/x/y z"), vec![1, 2]));
}

#[test]
fn efficient_takes_cores_at_the_lowest_frequency_first_then_frequency() {
    let steps = ladder::steps(Kind::Efficient, 1, 3, &[1.0, 0.5, f64::NAN, 0.75, -1.0, 7.0, 0.5]);
    let seen: Vec<_> = steps.iter().map(|s| (s.cores, s.frequency)).collect();
    assert_eq!(seen, [(1, 0.5), (2, 0.5), (3, 0.5), (3, 0.75), (3, 1.0)]);
    let steps = ladder::steps(Kind::Latency, 2, 4, &[0.5, 1.0]);
    assert!(steps.iter().all(|s| s.frequency == 1.0));
    assert_eq!(steps.iter().map(|s| s.cores).collect::<Vec<_>>(), [2, 3, 4]);
    assert_eq!(ladder::steps(Kind::Efficient, 0, 0, &[]).len(), 1);
}

#[test]
fn static_leaves_cores_alone_or_insists_on_a_number() {
    let mut free = Governor::new(&config(&[]), 4, &[]);
    assert_eq!(free.decide(&sample(0, 4, 2, core(1.0, 1e9, 1e9))), None);
    let mut two = Governor::new(&config(&["static.cores=2"]), 4, &[]);
    let change = two.decide(&sample(0, 4, 4, core(1.0, 1e9, 1e9))).unwrap();
    assert_eq!((change.from.cores, change.to.cores, change.why), (4, 2, Why::Bounds));
    assert_eq!(two.decide(&sample(10_000, 4, 2, core(1.0, 1e9, 1e9))), None);
    let mut many = Governor::new(&config(&["static.cores=99"]), 4, &[]);
    assert_eq!(many.decide(&sample(0, 4, 1, CoreLoad::default())).unwrap().to.cores, 4);
}

#[test]
fn latency_goes_up_by_delay_jumps_when_late_and_gives_back_what_idles() {
    let latency = config(&["policy=latency"]);
    let mut g = Governor::new(&latency, 8, &[]);
    g.begin(g.lowest());
    let slow = core(0.9, 70.0, 3.0);
    let up = drive(&mut g, 0, 6, 8, |_| slow);
    assert_eq!((cores(&up), up[0].1.why), (vec![2, 3], Why::Delay));
    let late = drive(&mut g, 100, 1, 8, |_| core(1.0, 500.0, 90.0));
    assert_eq!((cores(&late), late[0].1.why), (vec![6], Why::Late));
    // Delay without load is not cured by cores.
    assert!(drive(&mut g, 200, 10, 8, |_| core(0.1, 70.0, 1.0)).is_empty());
    let down = drive(&mut g, 300, 200, 8, |_| core(0.0, 0.0, 0.0));
    assert_eq!((cores(&down), down[0].1.why), (vec![3, 2, 1], Why::Idle));
    assert!(down[0].0 >= 600, "half a second after the last step up: {}", down[0].0);
}

#[test]
fn what_the_dataplane_asks_for_is_granted_in_full_and_what_it_needs_is_not_taken() {
    let latency = config(&["policy=latency", "cores.max=6"]);
    let mut g = Governor::new(&latency, 8, &[]);
    g.begin(g.lowest());
    let asking = |now_ms, serving, wants| Sample {
        wants: Some(wants),
        ..sample(now_ms, 8, serving, core(0.3, 1.0, 0.0))
    };
    let change = g.decide(&asking(0, 1, 3)).unwrap();
    assert_eq!((change.to.cores, change.why), (3, Why::Asked));
    assert_eq!(g.decide(&asking(100, 3, 200)).unwrap().to.cores, 6, "not beyond the bound");
    for i in 0..300 {
        assert_eq!(g.decide(&asking(200 + i * 10, 6, 6)), None, "it says that it needs them");
    }
    assert!(g.decide(&asking(9_000, 6, 2)).is_some());
}

#[test]
fn a_core_that_the_dataplane_woke_is_a_step_up_and_the_load_is_evened_out() {
    let mut g = Governor::new(&config(&["policy=latency"]), 8, &[]);
    g.begin(g.lowest());
    assert_eq!(g.authorised(), 2);
    let idle = core(0.0, 0.0, 0.0);
    assert_eq!(g.decide(&sample(0, 8, 1, idle)), None);
    assert_eq!(g.decide(&sample(10, 8, 2, idle)), None);
    assert_eq!((g.step().cores, g.authorised()), (2, 3));
    let even = g.decide(&sample(60, 8, 2, idle)).unwrap();
    assert_eq!((even.to.cores, even.why), (2, Why::Uneven));
    let said = even.to_string();
    assert!(said.starts_with("2 cores, load spread anew: the dataplane has woken"), "{said}");
    let down = drive(&mut g, 70, 100, 8, |_| idle);
    assert!(down[0].0 >= 510, "the hold counts from the wake: {}", down[0].0);
}

#[test]
fn a_step_down_that_is_regretted_makes_the_next_one_later() {
    let mut g = Governor::new(&config(&["policy=latency"]), 2, &[]);
    let mut serving = 2;
    // One core is too few, two look like too many.
    let load =
        |serving: u32| if serving == 2 { core(0.38, 1.0, 0.0) } else { core(1.0, 80.0, 20.0) };
    let mut downs = Vec::new();
    for now in (0..40_000).step_by(10) {
        if let Some(change) = g.decide(&sample(now, 2, serving, load(serving))) {
            if change.to.cores < serving {
                downs.push(now);
            }
            serving = change.to.cores;
        }
    }
    let gaps: Vec<u64> = downs.windows(2).map(|w| w[1] - w[0]).collect();
    assert!(gaps.len() >= 5 && gaps[0] < 1_200 && gaps[4] >= 8 * 500, "{gaps:?}");
}

#[test]
fn one_look_at_nonsense_does_not_spoil_the_averages() {
    for strange in [f64::NAN, f64::INFINITY, -1e300] {
        let mut g = Governor::new(&config(&["policy=latency"]), 2, &[]);
        g.begin(Step { cores: 2, frequency: 1.0 });
        let odd = CoreLoad { serves: true, busy: strange, delay_p99_us: -strange, queue: -strange };
        g.decide(&sample(0, 2, 2, odd));
        let down = drive(&mut g, 10, 300, 2, |_| core(0.0, 0.0, 0.0));
        assert_eq!(cores(&down), [1], "after {strange}");
    }
}

#[test]
fn ix_step_times_hold_for_its_policies() {
    let mut g = Governor::new(&config(&["policy=efficient"]), 2, &[0.5, 1.0]);
    g.begin(g.lowest());
    let full = core(1.0, 10.0, 300.0);
    let ups = drive(&mut g, 0, 100, 2, |_| full);
    let steps: Vec<_> = ups.iter().map(|(_, c)| (c.to.cores, c.to.frequency)).collect();
    assert_eq!(steps, [(2, 0.5), (2, 1.0)]);
    assert!(ups[1].0 - ups[0].0 >= 200);
    let downs = drive(&mut g, 1_000, 2_000, 2, |_| core(0.0, 0.0, 0.0));
    assert_eq!(downs.len(), 2);
    assert!(downs[0].0 >= ups[1].0 + 4_000 && downs[1].0 - downs[0].0 >= 4_000);
}

/// Any number, the strange ones often.
fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => 0.0..1.5f64,
        2 => 0.0..2_000.0f64,
        1 => prop::sample::select(vec![
            f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 0.0, -0.0, f64::MAX, f64::MIN_POSITIVE, 1e300,
        ]),
    ]
}

fn load() -> impl Strategy<Value = CoreLoad> {
    (any::<bool>(), number(), number(), number()).prop_map(|(serves, busy, delay_p99_us, queue)| {
        CoreLoad { serves, busy, delay_p99_us, queue }
    })
}

/// Time since the last look, the cores, the dataplane's wish, and whether the last change was carried out.
type Look = (u64, Vec<CoreLoad>, Option<u32>, bool);

fn looks() -> impl Strategy<Value = Vec<Look>> {
    let gap = prop_oneof![8 => 0u64..50, 2 => 0u64..5_000, 1 => any::<u64>()];
    let cores = prop::collection::vec(load(), 0..9);
    let wants = prop::option::of(prop_oneof![4 => 0u32..10, 1 => any::<u32>()]);
    prop::collection::vec((gap, cores, wants, any::<bool>()), 1..200)
}

/// The time that has to be between two steps, by their directions.
fn hold(rules: &Rules, before: (bool, u64), up: bool) -> u64 {
    match (before.0, up) {
        (true, true) => rules.up_after_up_ms,
        (false, true) => rules.up_after_down_ms,
        (true, false) => rules.down_after_up_ms,
        (false, false) => rules.down_after_down_ms,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever a kernel says, and whatever becomes of the commands: within the bounds, and never faster than the
    /// hysteresis allows.
    #[test]
    fn no_policy_leaves_its_bounds_or_flaps(
        kind in prop::sample::select(Kind::ALL.to_vec()),
        (min, max, total) in (0u32..6, 0u32..9, 0u32..9),
        frequencies in prop::collection::vec(number(), 0..5),
        looks in looks(),
    ) {
        prop_assume!(max == 0 || min <= max);
        let settings =
            [format!("policy={kind}"), format!("cores.min={min}"), format!("cores.max={max}"), "static.cores=3".to_owned()];
        let config = config(&settings.each_ref().map(String::as_str));
        let most = if max == 0 { total.max(1) } else { max.min(total.max(1)) };
        let least = min.clamp(1, most);
        let mut governor = Governor::new(&config, total, &frequencies);
        let (mut now, mut serving, mut before) = (0u64, None::<u32>, None::<(bool, u64)>);
        let mut seen = false;
        for (gap, mut cores, wants, obeys) in looks {
            now = now.saturating_add(gap);
            cores.truncate(total as usize);
            // A kernel that obeys serves what it was told.
            if let Some(serving) = serving.filter(|_| obeys) {
                cores.iter_mut().enumerate().for_each(|(i, c)| c.serves = (i as u32) < serving);
            }
            let sample = Sample { now_ms: now, cores, wants };
            // A step that somebody else has made is one, too.
            let was = governor.step().cores;
            let top = if kind == Kind::Static { was } else { most };
            let is = sample.serving().clamp(governor.lowest().cores, top);
            if seen && !sample.cores.is_empty() && is != was {
                before = Some((is > was, now));
            }
            seen |= !sample.cores.is_empty();
            let change = governor.decide(&sample);
            prop_assert!(governor.authorised() <= most.max(governor.step().cores));
            let Some(change) = change else { continue };
            prop_assert_eq!(change.from.cores, sample.serving());
            prop_assert!((least..=most).contains(&change.to.cores), "{:?}", change);
            prop_assert!(change.to.frequency > 0.0 && change.to.frequency <= 1.0);
            let f = change.figures;
            let sane = [f.busy, f.busiest].iter().all(|share| (0.0..=1.0).contains(share))
                && [f.delay_p99_us, f.queue].iter().all(|x| x.is_finite() && *x >= 0.0);
            prop_assert!(sane, "{:?}", f);
            serving = Some(change.to.cores);
            if change.why == Why::Uneven {
                prop_assert_eq!(change.from.cores, change.to.cores);
                continue;
            }
            let up = change.to.capacity() > change.from.capacity();
            if let Some(before) = before {
                prop_assert!(now - before.1 >= hold(config.rules(), before, up), "{:?} after {:?}", change, before);
            }
            before = Some((up, now));
        }
    }

    /// Under a load that stays as it is, a policy comes to rest, or tries a step down ever more rarely.
    #[test]
    fn a_steady_load_leaves_every_policy_at_rest(
        kind in prop::sample::select(vec![Kind::Latency, Kind::Efficient, Kind::Background]),
        work in 0.0f64..7.5,
    ) {
        let config = config(&[&format!("policy={kind}")]);
        let mut governor = Governor::new(&config, 8, &[0.5, 1.0]);
        governor.begin(governor.lowest());
        let mut step = governor.step();
        let mut changes = 0;
        for now in (0..200_000).step_by(10) {
            let busy = (work / step.capacity()).min(1.0);
            // A queue as of M/M/1 with a service time of 2 µs.
            let delay = if busy < 0.999 { 10.0 * busy / (1.0 - busy) } else { 1e4 };
            let load = core(busy, delay, delay * 2.0);
            if let Some(change) = governor.decide(&sample(now, 8, step.cores, load)) {
                step = change.to;
                changes += u32::from(now >= 100_000);
            }
        }
        // A step down and the one back, each time.
        let most = 2 * (100_000 / (16 * config.rules().down_after_up_ms) + 1);
        prop_assert!(u64::from(changes) <= most, "{} changes in 100 s, {}", changes, step);
        prop_assert!(step.capacity() >= work, "{} for {}", step, work);
    }
}

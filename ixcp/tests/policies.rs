//! What the policies come to under the load curve of `docs/policies.md`: up to 90 % of the peak in 10 s, there for 10 s, a burst to
//! 100 % for 1 s, back down. Everything follows from the seeds.
use ixcp::policy::{Config, config};
use ixcp::sim::report::What;
use ixcp::sim::{Curve, Report, Setup, run};

fn simulate(policy: &str, curve: &str, seed: u64, cores: u32) -> Report {
    let changes = config::setting(&format!("policy={policy}")).unwrap();
    let config = Config::from_table(changes, "test").unwrap();
    let mut setup = Setup::new(config, Curve::named(curve).unwrap());
    (setup.seed, setup.cores) = (seed, cores);
    let report = run(&setup);
    println!("{}", report.text());
    report
}

#[test]
fn latency_holds_its_target_with_two_fifths_fewer_core_seconds() {
    let all = simulate("static", "ramp", 1, 8);
    // The peak is one that all cores carry.
    assert!(all.delay_us.1 < 100.0 && all.dropped == 0);
    let r = simulate("latency", "ramp", 1, 8);
    assert!(r.delay_us.1 < 100.0, "p99 {} µs", r.delay_us.1);
    assert!(r.saved >= 0.40, "{:.1} % fewer core-seconds", r.saved * 100.0);
    assert!(r.late <= 0.01, "{:.1} % of the tenths of a second are late", r.late * 100.0);
    assert_eq!(r.dropped, 0);
    // No more than the load asks for: one climb, one descent, a few that were mistaken.
    let (ups, downs, wakes) = r.steps;
    assert!(ups + wakes <= 14 && downs <= 14, "{:?}", r.steps);
    let asked = |e: &ixcp::sim::report::Event| match e.what {
        What::Change(c) => c.to.cores > c.from.cores && c.figures.wants > Some(c.from.cores),
        What::Woken(_) => false,
    };
    assert!(r.events.iter().any(asked), "the dataplane's own request is among the figures");
}

#[test]
fn efficient_saves_energy_and_holds_its_target() {
    let r = simulate("efficient", "ramp", 1, 8);
    assert!(r.delay_us.1 < r.target_us, "p99 {} µs", r.delay_us.1);
    assert!(r.energy_saved > 0.15, "{:.1} % less energy", r.energy_saved * 100.0);
    assert!(r.late <= 0.02 && r.dropped == 0);
    assert!(r.points.iter().any(|p| p.frequency < 0.6), "the lowest frequency is used");
}

#[test]
fn background_leaves_a_job_what_is_free_and_holds_its_target() {
    let r = simulate("background", "ramp", 1, 8);
    assert!(r.delay_us.1 < r.target_us, "p99 {} µs", r.delay_us.1);
    let job = r.job.unwrap();
    assert!(job > 0.15 && job <= r.saved + 1e-9, "the job does {:.1} %", job * 100.0);
    assert!(r.late <= 0.02 && r.dropped == 0);
}

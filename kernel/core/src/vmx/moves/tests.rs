//! Conversations, and random events against a model of which vCPU is in non-root mode.

use super::*;

const A: Dataplane = Dataplane(0);
const B: Dataplane = Dataplane(1);
const C: Dataplane = Dataplane(2);

fn shared() -> Shared {
    Shared::new(A, [B, C].into_iter())
}

const fn switch(from: Dataplane, to: Dataplane, is_forced: bool) -> Step {
    Step::Switch { from, to, is_forced }
}

#[test]
fn asked_and_left() {
    let mut s = shared();
    assert_eq!(s.want(B, 100, 50), Ok(Step::Ask { owner: A, deadline_ns: 150 }));
    assert_eq!((s.running(), s.due_ns()), (Some(A), Some(150)));
    assert_eq!(s.look(149), Step::Stay);
    assert_eq!(s.yielded(), switch(A, B, false));
    assert_eq!((s.running(), s.due_ns()), (None, None));
    assert_eq!((s.look(1000), s.yielded()), (Step::Stay, Step::Stay), "said once");
    assert_eq!(s.switched(1000, true), Step::Stay);
    assert_eq!(s.running(), Some(B));
}

#[test]
fn asked_and_taken() {
    let mut s = shared();
    s.want(B, 100, 50).unwrap();
    assert_eq!(s.look(150), switch(A, B, true));
    s.switched(151, true);
    assert_eq!(s.want(A, 200, 0), Ok(Step::Ask { owner: B, deadline_ns: 200 }));
    assert_eq!(s.look(200), switch(B, A, true));
    assert_eq!(s.switched(201, false), Step::Stay);
    assert_eq!(s.running(), Some(B), "A's VMCS could not be loaded");
}

#[test]
fn wishes_change() {
    let mut s = shared();
    assert_eq!(s.want(A, 0, 1), Ok(Step::Stay), "it has it");
    assert_eq!(s.yielded(), Step::Stay, "nobody has asked");
    s.want(B, 100, 50).unwrap();
    assert_eq!(s.want(C, 120, 1000), Ok(Step::Ask { owner: A, deadline_ns: 150 }));
    assert_eq!(s.want(C, 120, 10), Ok(Step::Ask { owner: A, deadline_ns: 130 }));
    assert_eq!(s.want(A, 125, 0), Ok(Step::Withdraw { owner: A }));
    assert_eq!(s.look(1000), Step::Stay);
    s.want(B, 200, 5).unwrap();
    assert_eq!(s.yielded(), switch(A, B, false));
    assert_eq!(s.want(C, 201, 7), Ok(Step::Stay), "after the switch");
    assert_eq!(s.switched(300, true), Step::Ask { owner: B, deadline_ns: 307 });
    s.yielded();
    s.want(A, 310, 1).unwrap();
    assert_eq!(s.want(C, 311, 1), Ok(Step::Stay), "where it goes anyway");
    assert_eq!(s.switched(312, true), Step::Stay);
}

#[test]
fn given_by_its_owner_once_and_to_somebody_else() {
    let mut s = shared();
    assert_eq!(s.give((B, A), 0, 50), Err(Refusal::Away));
    assert_eq!(s.give((A, A), 0, 50), Err(Refusal::NotListed(A)));
    assert_eq!(s.give((A, Dataplane(3)), 0, 50), Err(Refusal::NotListed(Dataplane(3))));
    assert_eq!(s.give((A, B), 100, 50), Ok(Step::Ask { owner: A, deadline_ns: 150 }));
    assert_eq!((s.give((A, C), 110, 5), s.due_ns()), (Err(Refusal::UnderWay), Some(150)));
    assert_eq!(s.give((B, C), 110, 5), Err(Refusal::Away));
    s.yielded();
    assert_eq!(s.give((A, C), 111, 5), Err(Refusal::UnderWay), "in the middle of it");
    s.switched(112, true);
    assert_eq!(s.give((A, C), 113, 5), Err(Refusal::Away));
    s.goes_down(A);
    assert_eq!(s.give((B, A), 113, 5), Err(Refusal::Down(A)));
    assert!(matches!(s.give((B, C), 113, 5), Ok(Step::Ask { .. })));
}

#[test]
fn dataplanes_that_are_down() {
    let mut s = shared();
    s.want(B, 0, 50).unwrap();
    assert_eq!(s.goes_down(B), Step::Withdraw { owner: A });
    assert_eq!(s.want(B, 1, 1), Err(Refusal::Down(B)));
    assert_eq!(s.goes_down(A), Step::Stay);
    assert!(matches!(s.want(C, 10, PATIENCE_MAX_NS), Ok(Step::Ask { .. })));
    assert_eq!(s.look(11), switch(A, C, false), "at once");
    s.comes_up(B);
    s.want(B, 12, 0).unwrap();
    s.goes_down(B);
    assert_eq!(s.switched(13, true), Step::Stay, "who wanted it is down");
    assert_eq!(s.running(), Some(C));
    assert_eq!(s.want(Dataplane(3), 0, 0), Err(Refusal::NotListed(Dataplane(3))));
    assert_eq!(s.want(Dataplane(40), 0, 0), Err(Refusal::NotListed(Dataplane(40))));
}

#[test]
fn a_deadline_is_never_far_away() {
    let mut s = shared();
    let asked = s.want(B, 5, u64::MAX).unwrap();
    assert_eq!(asked, Step::Ask { owner: A, deadline_ns: 5 + PATIENCE_MAX_NS });
    let mut s = shared();
    let asked = s.want(B, u64::MAX - 1, u64::MAX).unwrap();
    assert_eq!(asked, Step::Ask { owner: A, deadline_ns: u64::MAX });
    assert_eq!(s.look(u64::MAX), switch(A, B, true));
}

/// The model knows which vCPU is in non-root mode, and what the owner was last told.
#[test]
fn never_two_at_once_and_every_deadline_ends() {
    let (mut forced, mut by_consent, mut withdrawn) = (0, 0, 0);
    for seed in 1..3000u64 {
        let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut rnd = |n: u64| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x % n
        };
        let mut s = shared();
        let mut running = [true, false, false];
        let mut switching: Option<(Dataplane, Dataplane)> = None;
        let mut told: Option<u64> = None;
        let (mut now, mut down) = (0u64, [false; 3]);
        for _ in 0..200 {
            now += rnd(20);
            let who = Dataplane(rnd(3) as u8);
            let step = match rnd(9) {
                0 | 1 => s.want(who, now, rnd(60)).unwrap_or(Step::Stay),
                2 if switching.is_none() => s.yielded(),
                3 | 4 if switching.is_none() => s.look(now),
                5 | 6 if switching.is_some() => {
                    let (from, to) = switching.take().unwrap();
                    let is_done = rnd(8) != 0;
                    running[usize::from(if is_done { to.0 } else { from.0 })] = true;
                    s.switched(now, is_done)
                }
                7 => {
                    down[usize::from(who.0)] = true;
                    s.goes_down(who)
                }
                8 => {
                    down[usize::from(who.0)] = false;
                    s.comes_up(who);
                    Step::Stay
                }
                _ => Step::Stay,
            };
            match step {
                Step::Stay => {}
                Step::Ask { owner, deadline_ns } => {
                    assert!(running[usize::from(owner.0)] && switching.is_none(), "seed {seed}");
                    told = Some(told.map_or(deadline_ns, |t| t.min(deadline_ns)));
                    assert_eq!(told, Some(deadline_ns), "seed {seed}: a deadline was made longer");
                }
                Step::Withdraw { owner } => {
                    assert!(running[usize::from(owner.0)] && told.take().is_some(), "seed {seed}");
                    withdrawn += 1;
                }
                Step::Switch { from, to, is_forced } => {
                    assert!(switching.is_none() && from != to, "seed {seed}");
                    assert!(core::mem::take(&mut running[usize::from(from.0)]), "seed {seed}");
                    let deadline = told.take().expect("nobody was asked");
                    assert!(!is_forced || now >= deadline, "seed {seed}: taken too early");
                    switching = Some((from, to));
                    forced += usize::from(is_forced);
                    by_consent += usize::from(!is_forced);
                }
            }
            let n = running.iter().filter(|r| **r).count();
            assert_eq!(n, usize::from(switching.is_none()), "seed {seed}");
            assert!(s.running().is_none_or(|d| running[usize::from(d.0)]));
            assert_eq!(s.running().is_none(), switching.is_some(), "seed {seed}");
            assert_eq!(s.due_ns(), told, "seed {seed}");
            // Whatever has happened: at the deadline a look takes the core.
            if let Some(due) = told {
                let mut later = s;
                assert!(matches!(later.look(now.max(due)), Step::Switch { .. }), "seed {seed}");
            }
        }
    }
    assert!(forced > 1000 && by_consent > 1000 && withdrawn > 1000, "{forced} {by_consent}");
}

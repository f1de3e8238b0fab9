use super::*;
use std::vec::Vec;

#[derive(Default)]
struct Monitor {
    away: u64,
    taken: [u32; 4],
}

impl Source for Monitor {
    fn wants_away(&self, core: usize) -> bool {
        self.away >> core & 1 != 0
    }
    fn times_taken(&self, core: usize) -> u32 {
        self.taken.get(core).copied().unwrap_or(0)
    }
}

fn lending() -> Lending {
    Lending::new(Shape { cores: 4, sharing: 0b0010, reserved: 0b1000 })
}

fn seen(parked: bool, presence: Presence) -> Seen {
    Seen { parked, presence }
}

const HERE: Seen = Seen { parked: false, presence: Presence::Here };
const PARKED: Seen = Seen { parked: true, presence: Presence::Here };

#[test]
fn only_a_core_that_is_here_and_may_leave_is_given() {
    let (mut l, mut m) = (lending(), Monitor::default());
    let told = |l: &Lending| [0, 1, 2, 3, 4, 63, 64, usize::MAX].map(|core| l.may_be_given(core));
    let (no, core0) = (Err(GiveRefusal::NoSuchCore), Err(GiveRefusal::Core0));
    let (shares, reserved) = (Err(GiveRefusal::SharesQueue), Err(GiveRefusal::Reserved));
    assert_eq!(told(&l), [core0, shares, Ok(()), reserved, no, no, no, no]);
    let under_way = Err(GiveRefusal::UnderWay);
    m.away = 0b100;
    for (seen, wanted) in [
        (HERE, under_way),
        (PARKED, under_way),
        (seen(true, Presence::Away), Err(GiveRefusal::Away)),
        (seen(true, Presence::Returning), under_way),
        (PARKED, Ok(())),
    ] {
        l.step(2, seen, &m);
        assert_eq!(l.may_be_given(2), wanted, "{seen:?}");
    }
    m.taken[2] = 1;
    l.step(2, HERE, &m);
    assert_eq!(l.may_be_given(2), Err(GiveRefusal::Away), "stopped");
    l.set_reserved(0);
    assert_eq!(l.may_be_given(3), Ok(()));
}

#[test]
fn a_core_that_is_asked_clears_leaves_and_returns() {
    let (mut l, mut m) = (lending(), Monitor::default());
    assert_eq!(l.step(2, HERE, &m), Action::Nothing);
    m.away = 0b100;
    let mut told = Vec::new();
    for now in [
        HERE,
        HERE,
        PARKED,
        seen(true, Presence::Leaving),
        seen(true, Presence::Leaving),
        seen(true, Presence::Away),
        seen(true, Presence::Away),
    ] {
        told.push((l.step(2, now, &m), l.state(2)));
    }
    assert_eq!(
        told,
        [
            (Action::Clear, State::Clearing),
            (Action::Clear, State::Clearing),
            (Action::SendAway, State::Leaving),
            (Action::Nothing, State::Leaving),
            (Action::Nothing, State::Leaving),
            (Action::Nothing, State::Away),
            (Action::Nothing, State::Away),
        ]
    );
    assert_eq!((l.away(), l.gone()), (0b100, 0b100));
    m.away = 0;
    assert_eq!(l.step(2, seen(true, Presence::Away), &m), Action::Nothing, "the monitor's turn");
    assert_eq!(l.step(2, seen(true, Presence::Returning), &m), Action::Nothing);
    assert_eq!((l.state(2), l.away(), l.gone()), (State::Returning, 0b100, 0));
    assert_eq!(l.step(2, PARKED, &m), Action::Welcome);
    assert_eq!((l.state(2), l.away()), (State::Present, 0));
}

#[test]
fn a_wish_that_is_withdrawn_in_time_changes_nothing() {
    let (mut l, mut m) = (lending(), Monitor::default());
    m.away = 0b100;
    assert_eq!(l.step(2, HERE, &m), Action::Clear);
    m.away = 0;
    assert_eq!(l.step(2, HERE, &m), Action::Nothing);
    assert_eq!(l.step(2, HERE, &m), Action::Welcome);
    m.away = 0b100;
    l.step(2, PARKED, &m);
    assert_eq!(l.step(2, PARKED, &m), Action::SendAway);
    m.away = 0;
    assert_eq!(l.step(2, seen(true, Presence::Leaving), &m), Action::Recall);
    assert_eq!(l.step(2, seen(true, Presence::Returning), &m), Action::Nothing);
    assert_eq!(l.step(2, PARKED, &m), Action::Welcome);
}

#[test]
fn a_core_that_gets_a_group_while_it_leaves_is_cleared_again() {
    let (mut l, m) = (lending(), Monitor { away: 0b100, ..Monitor::default() });
    l.step(2, PARKED, &m);
    assert_eq!(l.step(2, PARKED, &m), Action::SendAway);
    assert_eq!(l.step(2, HERE, &m), Action::Clear);
    assert_eq!(l.step(2, PARKED, &m), Action::SendAway);
}

#[test]
fn a_core_is_taken_from_every_state_but_when_it_has_left() {
    for steps in 0..3 {
        let (mut l, mut m) = (lending(), Monitor { away: 0b100, ..Monitor::default() });
        for _ in 0..steps {
            l.step(2, PARKED, &m);
        }
        m.taken[2] += 1;
        assert_eq!(l.step(2, PARKED, &m), Action::Take, "after {steps} steps");
        assert_eq!(l.state(2), State::Taken);
        assert_eq!(l.step(2, seen(false, Presence::Taken), &m), Action::Nothing, "once");
        // While it returns it can be stopped again.
        l.step(2, seen(false, Presence::Returning), &m);
        m.taken[2] += 1;
        assert_eq!(l.step(2, seen(false, Presence::Returning), &m), Action::Take);
        l.step(2, seen(false, Presence::Returning), &m);
        m.away = 0;
        assert_eq!(l.step(2, PARKED, &m), Action::Welcome);
    }
    let (mut l, mut m) = (lending(), Monitor { away: 0b100, ..Monitor::default() });
    l.step(2, PARKED, &m);
    l.step(2, PARKED, &m);
    l.step(2, seen(true, Presence::Away), &m);
    m.taken[2] += 1;
    assert_eq!(l.step(2, seen(true, Presence::Away), &m), Action::Nothing);
    assert_eq!(l.state(2), State::Away);
}

#[test]
fn who_cannot_be_lent_is_refused_by_name_once() {
    let (mut l, mut m) = (lending(), Monitor { away: !0, taken: [1; 4] });
    let cores = [0, 1, 3, 4, CORES_MAX];
    for core in cores {
        assert_eq!(l.step(core, PARKED, &m), Action::Nothing, "core {core}");
        assert_eq!(l.state(core), State::Present);
    }
    let told: Vec<_> = cores.iter().map(|core| l.refusal(*core, &m)).collect();
    use Refusal::{Core0, NoSuchCore, Reserved, SharesQueue};
    let (none, some) = (None, Some(NoSuchCore));
    assert_eq!(told, [Some(Core0), Some(SharesQueue), Some(Reserved), some, none]);
    assert_eq!(l.refusal(1, &m), None, "it was said");
    m.away = 0;
    assert_eq!(l.refusal(1, &m), None);
    m.away = !0;
    assert_eq!(l.refusal(1, &m), Some(SharesQueue), "another wish");
    l.set_reserved(0);
    assert_eq!(l.step(3, HERE, &m), Action::Take);
}

use crate::model::{CAP, FOUR_LEVELS, Model, Ram, clock, model, ram};
use ix_vtd::{Fault, Memory, Rights, SourceId, Unit, VtdError};

const CARD: SourceId = SourceId::new(0, 2, 0);
const OTHER: SourceId = SourceId::new(3, 31, 7);

fn on(cap: u64) -> (Model, Ram, Unit<Model>, ix_vtd::Domain) {
    let (model, mut ram) = (model(cap), ram());
    let mut unit = Unit::open(model.clone()).expect("a unit");
    let domain = unit.domain(&mut ram).expect("a domain");
    let root = ram.new_table().expect("a table");
    domain.attach(&mut ram, root, CARD).expect("attached");
    unit.enable(root, &clock).expect("on");
    (model, ram, unit, domain)
}

#[test]
fn a_device_reaches_what_it_was_given_and_nothing_else() {
    for cap in [CAP, FOUR_LEVELS] {
        let (model, mut ram, mut unit, mut domain) = on(cap);
        domain.give(&mut ram, 0x5000, 0x2000, Rights::Write).expect("given");
        domain.give(&mut ram, 0x7000, 0x1000, Rights::Read).expect("given");
        for (at, write, may) in [
            (0x4fff, false, false),
            (0x5000, true, true),
            (0x6fff, true, true),
            (0x7000, false, true),
            (0x7000, true, false),
            (0x8000, false, false),
            (1 << 50, false, false),
        ] {
            assert_eq!(model.request(&ram, CARD, at, write), may, "{at:#x} {write}");
        }
        assert!(!model.request(&ram, OTHER, 0x5000, false));
        let faults: Vec<_> = std::iter::from_fn(|| unit.next_fault()).collect();
        let of = |page, write, reason| (Fault { source: CARD, page, write, reason }, false);
        let lost = |(fault, _): (Fault, bool)| (fault, true);
        let all = [
            of(0x4000, false, 6),
            of(0x7000, true, 5),
            of(0x8000, false, 6),
            of(1 << 50, false, 4),
        ];
        assert_eq!(faults, all.map(lost), "one more than there are records");
        assert!(!model.0.borrow().overflow);
        assert_eq!(unit.next_fault(), None);
        assert!(!model.request(&ram, OTHER, 0x5000, false));
        let (fault, _) = unit.next_fault().expect("a fault");
        let text = "03:1f.7 tried to read from page 0x5000: it has no tables (reason 0x1)";
        assert_eq!(fault.to_string(), text);
    }
}

#[test]
fn what_was_taken_back_is_out_of_reach_once_the_caches_are_flushed() {
    let (model, mut ram, unit, mut domain) = on(CAP);
    domain.give(&mut ram, 0x20_0000, 0x20_0000, Rights::Write).expect("given");
    assert!(model.request(&ram, CARD, 0x2f_f000, true));
    domain.take(&mut ram, 0x20_0000, 0x20_0000).expect("taken");
    assert!(model.request(&ram, CARD, 0x2f_f000, true), "the unit knows it still");
    unit.flush(&clock).expect("flushed");
    assert!(!model.request(&ram, CARD, 0x2f_f000, true));
    assert_eq!(domain.bytes(), 0);
}

#[test]
fn what_the_firmware_left_on_is_ended_in_order() {
    let (model, mut ram) = (model(CAP | 1 << 4), ram());
    {
        let mut state = model.0.borrow_mut();
        // Translation, a queue, interrupts; protected memory.
        state.status = 1 << 31 | 1 << 30 | 1 << 26 | 1 << 25;
        state.protected = 1 << 31 | 1;
        state.cache.insert((CARD.0, 0x9), true);
    }
    let mut unit = Unit::open(model.clone()).expect("a unit");
    let root = ram.new_table().expect("a table");
    unit.enable(root, &clock).expect("on");
    let state = model.0.borrow();
    assert_eq!(state.told, ["root", "forget functions", "forget translations"]);
    assert_eq!((state.status >> 24, state.taken, state.protected), (0xc0, root, 0));
    drop(state);
    assert!(!model.request(&ram, CARD, 0x9000, true));
}

#[test]
fn a_unit_that_does_not_answer_costs_a_deadline_and_an_error() {
    let (model, mut ram) = (model(CAP), ram());
    let mut unit = Unit::open(model.clone()).expect("a unit");
    let root = ram.new_table().expect("a table");
    model.0.borrow_mut().stuck = true;
    let stuck = |doing| Err(VtdError::Stuck { doing });
    assert_eq!(unit.enable(root, &clock), stuck("it takes its root table"));
    assert_eq!(unit.flush(&clock), stuck("it forgets translations"));
    assert_eq!(unit.flush_everything(&clock), stuck("it forgets its functions"));
}

#[test]
fn what_is_no_unit_or_has_other_tables_is_told() {
    let (model, mut ram) = (model(1 << 8), ram());
    let unit = Unit::open(model.clone()).expect("a unit");
    assert_eq!(unit.domain(&mut ram).err(), Some(VtdError::Tables { sagaw: 1 }));
    for version in [0, u32::MAX] {
        model.0.borrow_mut().version = version;
        assert_eq!(Unit::open(model.clone()).err(), Some(VtdError::Absent));
    }
}

#[test]
fn no_memory_for_tables_is_an_error() {
    for left in 0..3 {
        let (model, mut ram) = (model(FOUR_LEVELS), ram());
        ram.left = left;
        let unit = Unit::open(model).expect("a unit");
        let Ok(mut domain) = unit.domain(&mut ram) else {
            assert_eq!(left, 0);
            continue;
        };
        let given = domain.give(&mut ram, 0, 4096, Rights::Read);
        assert_eq!(given, Err(ix_vtd::MapError::NoMemory));
        assert_eq!(domain.bytes(), 0);
    }
}

#[test]
fn registers_that_are_needed_are_counted() {
    let unit = Unit::open(model(CAP)).expect("a unit");
    assert_eq!(unit.register_bytes(), 0x260);
    assert!(!unit.is_coherent() && !unit.must_flush_what_is_given());
    assert!(Unit::open(model(CAP | 1 << 7)).expect("a unit").must_flush_what_is_given());
}

//! The driver's registers against the datasheet's table.
use ix_ixgbe::regs::ALL;
use ix_model_ixgbe::table::{Belief, CSV, check, parse};

fn beliefs() -> impl Iterator<Item = Belief<'static>> {
    ALL.iter().map(|(name, array)| Belief {
        name,
        first: 0,
        count: array.count,
        address: array.address,
        stride: array.stride,
    })
}

#[test]
fn every_register_of_the_driver_is_where_the_datasheet_has_it() {
    let complaints = check(&parse(CSV).expect("the table reads"), beliefs());
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn a_wrong_stride_of_any_array_turns_the_check_red() {
    let rows = parse(CSV).expect("the table reads");
    for array in beliefs().filter(|belief| belief.count > 1) {
        let spoiled = Belief { stride: array.stride + 4, ..array };
        assert_eq!(check(&rows, [spoiled]).len(), 1, "{}", array.name);
    }
}

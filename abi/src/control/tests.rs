//! The numbers of the contract as they stand in `docs/control.md`: another build must find the same.
use super::{CommandCode, GiveRefusal, PAGE_BYTES, leaves_offset};
use crate::limits::CORES_MAX;
use crate::status::Status;

#[test]
fn a_refusal_to_give_a_core_has_a_number_a_text_and_a_status() {
    let told: [(u16, Status); 11] = [
        (1, Status::Unsupported),
        (2, Status::Invalid),
        (3, Status::Denied),
        (4, Status::Denied),
        (5, Status::Denied),
        (6, Status::Denied),
        (7, Status::Invalid),
        (8, Status::Denied),
        (9, Status::Denied),
        (10, Status::Away),
        (11, Status::Again),
    ];
    assert_eq!(GiveRefusal::ALL.len(), told.len());
    for (number, status) in told {
        let refusal = GiveRefusal(number);
        assert_eq!(refusal.status(), status, "{refusal:?}");
        assert_ne!(refusal.text(), "unknown");
    }
    // Of a newer kernel.
    assert_eq!((GiveRefusal(12).text(), GiveRefusal(12).status()), ("unknown", Status::Denied));
    assert_eq!((CommandCode::GiveCore.0, CommandCode::GiveCore.text()), (17, "give-core"));
}

#[test]
fn departures_lie_between_the_table_of_groups_and_the_cores_blocks() {
    assert_eq!((leaves_offset(0), leaves_offset(63)), (0x5000, 0x51f8));
    assert!(leaves_offset(CORES_MAX) <= super::CORE_BASE && super::CORE_BASE < PAGE_BYTES);
}

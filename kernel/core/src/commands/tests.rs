use super::{Command, Pending, poll};
use ix_abi::control::{CommandCode, command, outcome};
use ix_abi::status::Status;
use std::collections::BTreeMap;
use std::vec::Vec;

const EPOCH: u64 = 77;

fn page(code: u64, args: [u64; 4]) -> BTreeMap<usize, u64> {
    let mut words = Vec::from([
        (command::SEQUENCE, 5),
        (outcome::SEQUENCE, 4),
        (command::EPOCH, EPOCH),
        (command::CODE, code),
    ]);
    words.extend(args.iter().enumerate().map(|(i, arg)| (command::ARGS + i * 8, *arg)));
    words.into_iter().collect()
}

fn asked(page: &BTreeMap<usize, u64>) -> Option<(Pending, Result<Command, Status>)> {
    poll(|at| page[&at], EPOCH)
}

#[test]
fn every_code_is_understood_and_its_arguments_are_checked() {
    let huge = usize::try_from(u64::MAX).unwrap_or(usize::MAX);
    for (code, first, wanted) in [
        (0, 9, Ok(Command::Nop)),
        (1, 0, Ok(Command::Stop)),
        (2, 0, Ok(Command::RestartApp)),
        (3, 1, Ok(Command::SetBatch(1))),
        (3, 1024, Ok(Command::SetBatch(1024))),
        (3, 0, Err(Status::Invalid)),
        (3, 1025, Err(Status::Invalid)),
        (3, u64::MAX, Err(Status::Invalid)),
        (4, u64::MAX, Ok(Command::AclSet(huge))),
        (5, 0, Ok(Command::AclRead)),
        (6, 0, Ok(Command::CaptureStart)),
        (7, 3, Ok(Command::CaptureStop(3))),
        (8, 0, Ok(Command::Trace(false))),
        (8, 1, Ok(Command::Trace(true))),
        (8, 2, Err(Status::Invalid)),
        (9, 127, Ok(Command::MoveGroup(127, 1))),
        (9, 1 << 16, Err(Status::Invalid)),
        (10, 4, Ok(Command::SetCores(4))),
        (10, u64::MAX, Err(Status::Invalid)),
        (11, 12, Ok(Command::SetLimits)),
        (11, 0, Err(Status::Invalid)),
        (11, 13, Err(Status::Invalid)),
        (11, u64::MAX, Err(Status::Invalid)),
        (12, 5, Ok(Command::SetCoreSet(5))),
        (12, u64::MAX, Ok(Command::SetCoreSet(u64::MAX))),
        (13, 0, Err(Status::Unsupported)),
        (16, 0, Ok(Command::Reserve(0))),
        (16, 1 << 16, Err(Status::Invalid)),
        (17, 63, Ok(Command::Give { core: 63, name_bytes: 1 })),
        (17, 1 << 16, Err(Status::Invalid)),
        (17, u64::MAX, Err(Status::Invalid)),
        (0x1_0001, 0, Err(Status::Unsupported)),
        (u64::MAX, 0, Err(Status::Unsupported)),
    ] {
        let (pending, found) = asked(&page(code, [first, 1, 2, 3])).expect("a command");
        assert_eq!(found, wanted, "{code} {first}");
        assert_eq!((pending.sequence, pending.args), (5, [first, 1, 2, 3]));
    }
}

#[test]
fn a_command_is_taken_once_and_only_of_this_boot() {
    let mut page = page(1, [0; 4]);
    page.insert(command::EPOCH, EPOCH + 1);
    let (pending, found) = asked(&page).expect("a command");
    assert_eq!((found, pending.code), (Err(Status::Stale), CommandCode::Stop));
    page.insert(outcome::SEQUENCE, pending.sequence);
    assert_eq!(asked(&page), None);
}

#[test]
fn a_core_is_given_to_a_name_that_fits_or_to_the_next() {
    for (bytes, wanted) in [
        (0, Ok(Command::Give { core: 2, name_bytes: 0 })),
        (32, Ok(Command::Give { core: 2, name_bytes: 32 })),
        (33, Err(Status::Invalid)),
        (u64::MAX, Err(Status::Invalid)),
        (1 << 32, Err(Status::Invalid)),
    ] {
        let (_, found) = asked(&page(17, [2, bytes, 7, 7])).expect("a command");
        assert_eq!(found, wanted, "{bytes:#x}");
    }
}

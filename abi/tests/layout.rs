//! The ABI as it stands: sizes, offsets and numbers that programs already built rely on.
//! `docs/abi.md` is the text of this; `records.rs` holds the records to their encodings.

use core::mem::{align_of, offset_of, size_of};
use ix_abi::call::{Call, Direct, Op, SgEntry, SgSlot, slots};
use ix_abi::event::{Event, Kind};
use ix_abi::layout::{self, CallHeader, EventHeader, InfoPage};
use ix_abi::{Congestion, DeadReason, IpAddress, Status, TcpOption, VERSION, Version};

#[test]
fn records_are_one_cache_line() {
    assert_eq!((size_of::<Call>(), align_of::<Call>()), (64, 64));
    assert_eq!((size_of::<Event>(), align_of::<Event>()), (64, 64));
    assert_eq!((size_of::<SgSlot>(), align_of::<SgSlot>()), (64, 64));
    assert_eq!((size_of::<SgEntry>(), align_of::<SgEntry>()), (16, 8));
    assert_eq!((size_of::<EventHeader>(), size_of::<CallHeader>()), (64, 64));
}

#[test]
fn fields_are_where_the_document_says() {
    let call = [
        offset_of!(Call, op),
        offset_of!(Call, flags),
        offset_of!(Call, sg_count),
        offset_of!(Call, reserved),
        offset_of!(Call, handle),
        offset_of!(Call, tag),
        offset_of!(Call, words),
    ];
    assert_eq!(call, [0, 2, 4, 6, 8, 16, 24]);
    let event = [
        offset_of!(Event, kind),
        offset_of!(Event, aux),
        offset_of!(Event, len),
        offset_of!(Event, handle),
        offset_of!(Event, cookie),
        offset_of!(Event, words),
    ];
    assert_eq!(event, [0, 2, 4, 8, 16, 24]);
    let headers = [
        offset_of!(EventHeader, produced),
        offset_of!(EventHeader, calls_consumed),
        offset_of!(EventHeader, now_ns),
        offset_of!(EventHeader, boot_unix_ns),
        offset_of!(CallHeader, produced),
        offset_of!(CallHeader, events_consumed),
    ];
    assert_eq!(headers, [0, 4, 8, 16, 0, 4]);
    let info = [
        offset_of!(InfoPage, version),
        offset_of!(InfoPage, cores),
        offset_of!(InfoPage, groups),
        offset_of!(InfoPage, tsc_khz),
        offset_of!(InfoPage, heap_bytes),
        offset_of!(InfoPage, heap_max_bytes),
        offset_of!(InfoPage, rx_bytes),
        offset_of!(InfoPage, address),
        offset_of!(InfoPage, mss),
        offset_of!(InfoPage, args_len),
        offset_of!(InfoPage, seed),
        offset_of!(InfoPage, args),
    ];
    assert_eq!(info, [0, 4, 8, 12, 16, 24, 32, 40, 56, 60, 64, 96]);
    assert_eq!(size_of::<InfoPage>(), 96 + 1024);
}

#[test]
fn the_address_space_is_where_the_document_says() {
    let areas = [
        (layout::IMAGE_BASE, 0x4000_0000),
        (layout::IMAGE_END, 0x8000_0000),
        (layout::HEAP_BASE, 0x10_0000_0000),
        (layout::HEAP_END, 0x20_0000_0000),
        (layout::RX_BASE, 0x20_0000_0000),
        (layout::RX_END, 0x28_0000_0000),
        (layout::INFO_BASE, 0x2f_0000_0000),
        (layout::CONTEXT_BASE, 0x30_0000_0000),
    ];
    assert!(areas.iter().all(|(is, documented)| is == documented));
    assert!(areas.iter().all(|(is, _)| is % layout::PAGE_BYTES == 0));
    const { assert!(layout::USER_END < 1 << 47, "user addresses are in the lower half") }
    const MIB: u64 = 1 << 20;
    assert_eq!(layout::context_base(3), 0x30_0000_0000 + 3 * 16 * MIB);
    let context = [layout::EVENT_PAGE, layout::CALL_PAGE, layout::STACK_PAGE, layout::STACK_TOP];
    assert_eq!(context, [0, 2 * MIB, 6 * MIB, 8 * MIB]);
    let ring = (layout::RING_SLOTS_OFFSET, layout::EVENT_SLOTS, layout::CALL_SLOTS);
    assert_eq!(ring, (4096, 512, 512));
}

#[test]
fn numbers_never_change() {
    let ops = [
        (Op::Nop, 0),
        (Op::Listen, 1),
        (Op::Accept, 2),
        (Op::Reject, 3),
        (Op::Connect, 4),
        (Op::Sendv, 5),
        (Op::RecvDone, 6),
        (Op::Close, 7),
        (Op::Abort, 8),
        (Op::Shutdown, 9),
        (Op::UdpBind, 10),
        (Op::UdpSendv, 11),
        (Op::UdpRecvDone, 12),
        (Op::UdpClose, 13),
        (Op::TimerSet, 14),
        (Op::TimerCancel, 15),
        (Op::Unlisten, 16),
        (Op::SetOption, 17),
    ];
    assert!(ops.iter().all(|(op, number)| op.0 == *number) && ops.len() == Op::ALL.len());
    let options = [
        (TcpOption::KeepAlive, 1),
        (TcpOption::KeepAliveInterval, 2),
        (TcpOption::KeepAliveProbes, 3),
        (TcpOption::UserTimeout, 4),
        (TcpOption::Congestion, 5),
    ];
    assert!(options.iter().all(|(option, number)| option.0 == *number));
    assert_eq!(options.len(), TcpOption::ALL.len());
    let congestion = [
        (Congestion::Default, 0),
        (Congestion::NewReno, 1),
        (Congestion::Cubic, 2),
        (Congestion::Dctcp, 3),
    ];
    assert!(congestion.iter().all(|(way, number)| way.0 == *number));
    assert_eq!(congestion.len(), Congestion::ALL.len());
    let kinds = [
        (Kind::Nop, 0),
        (Kind::Knock, 1),
        (Kind::Connected, 2),
        (Kind::Recv, 3),
        (Kind::Sent, 4),
        (Kind::Dead, 5),
        (Kind::Eof, 6),
        (Kind::UdpRecv, 7),
        (Kind::UdpSent, 8),
        (Kind::Timer, 9),
        (Kind::GroupIn, 10),
        (Kind::GroupOut, 11),
        (Kind::Parking, 12),
        (Kind::Shutdown, 13),
        (Kind::Result, 14),
        (Kind::RecvSent, 15),
    ];
    assert!(kinds.iter().all(|(kind, number)| kind.0 == *number) && kinds.len() == Kind::ALL.len());
    let direct = [
        (Direct::Enter, 0),
        (Direct::Exit, 1),
        (Direct::Log, 2),
        (Direct::Clock, 3),
        (Direct::Map, 4),
        (Direct::Unmap, 5),
        (Direct::Thread, 6),
        (Direct::Wait, 7),
        (Direct::Wake, 8),
        (Direct::Ready, 9),
        (Direct::Leave, 10),
    ];
    assert!(direct.iter().all(|(call, number)| call.0 == *number));
    assert_eq!(direct.len(), Direct::ALL.len());
}

#[test]
fn outcomes_never_change() {
    let statuses = [
        (Status::Ok, 0),
        (Status::Invalid, 1),
        (Status::BadHandle, 2),
        (Status::Moved, 3),
        (Status::Fault, 4),
        (Status::Again, 5),
        (Status::Limit, 6),
        (Status::NoMemory, 7),
        (Status::InUse, 8),
        (Status::State, 9),
        (Status::Unreachable, 10),
        (Status::Refused, 11),
        (Status::TimedOut, 12),
        (Status::Unsupported, 13),
        (Status::Stale, 14),
        (Status::Denied, 15),
        (Status::Away, 16),
    ];
    assert!(statuses.iter().all(|(status, number)| status.0 == *number));
    assert_eq!(statuses.len(), Status::ALL.len());
    let reasons = [
        (DeadReason::Closed, 0),
        (DeadReason::Reset, 1),
        (DeadReason::Aborted, 2),
        (DeadReason::TimedOut, 3),
        (DeadReason::Unreachable, 4),
        (DeadReason::Evicted, 5),
        (DeadReason::Rejected, 6),
    ];
    assert!(reasons.iter().all(|(reason, number)| reason.0 == *number));
    assert_eq!(reasons.len(), DeadReason::ALL.len());
}

#[test]
fn outcomes_of_a_newer_version_have_a_text_too() {
    assert_eq!((Status(999).text(), DeadReason(999).text()), ("unknown", "unknown"));
    assert_eq!(format!("{:?} {}", Status(999), Status::Again), "Status(999) try again");
}

#[test]
fn a_version_accepts_newer_minors_of_its_major_only() {
    assert_eq!(VERSION, Version { major: 4, minor: 1 });
    assert!(VERSION.accepts(Version { major: 4, minor: 9 }));
    assert!(!VERSION.accepts(Version { major: 3, minor: 5 }));
    assert!(!VERSION.accepts(Version { major: 5, minor: 0 }));
}

#[test]
fn entries_beyond_the_inline_ones_take_slots_of_four() {
    let slots_of = |counts: [usize; 6], inline| counts.map(|count| slots(count, inline));
    assert_eq!(slots_of([1, 2, 3, 6, 7, 64], 2), [1, 1, 2, 2, 3, 17]);
    assert_eq!(slots_of([0, 1, 2, 5, 6, 64], 1), [1, 1, 2, 2, 3, 17]);
}

#[test]
fn mapped_addresses_are_told_from_others() {
    let mapped = IpAddress::v4([10, 0, 2, 15]);
    assert_eq!(mapped.to_v4(), Some([10, 0, 2, 15]));
    assert_eq!(mapped.to_string(), "10.0.2.15");
    assert_eq!(IpAddress::UNSPECIFIED.to_v4(), None);
    assert_eq!(IpAddress::UNSPECIFIED.to_string(), "::");
}

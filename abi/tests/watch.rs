//! Captures and event logs as they lie in the control page, and what a reader makes of nonsense.
use ix_abi::capture::*;
use ix_abi::control::{CAPTURE_BASE, LOG_STRIDE, PAGE_BYTES};
use ix_abi::event_log::{self, EventKind, Record};
use ix_abi::limits::CORES_MAX;
use ix_abi::stats::{Counter, Drop};
use ix_abi::{GroupId, IpAddress, Status};

#[test]
fn rings_lie_side_by_side_within_the_page_for_every_number_of_cores() {
    assert_eq!(ring_bytes(0), 0);
    for cores in 1..=CORES_MAX {
        let bytes = ring_bytes(cores);
        assert!(bytes >= 64 << 10 && bytes.is_multiple_of(64 << 10), "{cores} cores: {bytes}");
        assert_eq!(ring_offset(0, cores), CAPTURE_BASE);
        assert!(ring_offset(cores - 1, cores) + bytes <= PAGE_BYTES, "{cores} cores");
    }
}

#[test]
fn words_of_rings_never_move() {
    let words = [
        ring::GENERATION,
        ring::PRODUCED,
        ring::MISSED,
        ring::SEEN,
        ring::CAPTURED,
        ring::BOOT_UNIX_NS,
        ring::RUNNING,
        ring::CONSUMED,
        ring::LEASE,
        ring::DATA,
    ];
    assert_eq!(words, [0x00, 0x08, 0x10, 0x18, 0x20, 0x28, 0x30, 0x80, 0x88, 0x100]);
    assert_eq!((HEAD_BYTES, SNAP_MAX, flag::OUT, flag::COMPLETED), (32, 2048, 1, 2));
    assert_eq!((event_log::NEWEST, event_log::RECORDS, event_log::CAPACITY), (0, 0x40, 254));
    let end = event_log::RECORDS + event_log::CAPACITY * event_log::RECORD_BYTES;
    assert!(end <= LOG_STRIDE);
    assert_eq!(event_log::record_offset(1), 0x60);
    assert_eq!(event_log::record_offset(254), 0x40);
}

#[test]
fn a_records_head_is_read_as_it_was_written() {
    let head = Head {
        bytes: Head::bytes_for(61),
        captured: 61,
        original: 1514,
        time_ns: 0x0123_4567_89ab_cdef,
        group: 17,
        core: 63,
        flags: flag::OUT | flag::COMPLETED,
        number: 1 << 40,
    };
    assert_eq!(head.bytes, 96);
    let words = head.encode();
    assert_eq!(words[0], 96 | 61 << 32 | 1514 << 48);
    assert_eq!(words[2], 17 | 63 << 16 | 3 << 32);
    assert_eq!(Head::decode(words, 96), Some(head));
    assert_eq!(Head::decode(words, 88), None, "beyond the end");
    let filling = Head { bytes: 40, ..Head::default() };
    assert_eq!(Head::decode(filling.encode(), 40), Some(filling));
    assert_eq!(Head::decode(filling.encode(), 48), None, "filling ends at the end");
    for (which, bad) in [
        Head { bytes: 0, ..head },
        Head { bytes: 97, ..head },
        Head { bytes: 104, ..head },
        Head { captured: 62, original: 61, ..head },
        Head { captured: 2049, original: 3000, bytes: Head::bytes_for(2049), ..head },
    ]
    .iter()
    .enumerate()
    {
        assert_eq!(Head::decode(bad.encode(), 4096), None, "number {which}");
    }
}

#[test]
fn a_filter_is_read_as_it_was_written_and_nonsense_is_refused() {
    let filter = Filter {
        address: Some((IpAddress::v4([10, 0, 2, 0]), 120)),
        port: Some(11211),
        protocol: Some(0x806),
        group: Some(GroupId(127)),
        direction: Direction::Out,
        snaplen: 96,
    };
    assert_eq!(Filter::decode(&filter.encode()), Ok(filter));
    assert_eq!(Filter::decode(&Filter::default().encode()), Ok(Filter::default()));
    let changes: [(usize, u64); 9] = [
        (0, 16),
        (0, u64::MAX),
        (3, 129),
        (4, 1 << 16),
        (5, 1 << 16),
        (6, u64::MAX),
        (7, 3),
        (8, 0),
        (8, 2049),
    ];
    for (word, value) in changes {
        let mut words = filter.encode();
        words[word] = value;
        assert_eq!(Filter::decode(&words), Err(Status::Invalid), "word {word} = {value:#x}");
    }
    assert_eq!(Filter::decode(&[0; FILTER_WORDS]), Err(Status::Invalid), "no snaplen");
}

#[test]
fn a_record_of_the_log_is_known_by_its_number() {
    let number = 0x1_0000_0007;
    let kind = EventKind::Drops;
    let record = Record { number, kind, small: 3, time_ns: 99, a: 5, b: 17 };
    let words = record.encode();
    assert_eq!(words, [7 << 32 | 3 << 16 | 8, 99, 5, 17]);
    assert_eq!(Record::decode(words, number), Some(record));
    assert_eq!(Record::decode(words, number + 254), None, "another took its slot");
    assert_eq!(Record::decode([0; 4], number), None, "being written");
    assert_eq!(Record::decode(words, 0), None);
}

#[test]
fn every_event_has_a_line_whatever_its_arguments_are() {
    for kind in EventKind::ALL.iter().copied().chain([EventKind(0), EventKind(u16::MAX)]) {
        for word in [0, 1, u64::MAX, 1 << 32 | 1, 0x1b5b_1b5b_1b5b_1b5b] {
            let record =
                Record { number: 1, kind, small: word as u16, time_ns: word, a: word, b: word };
            let line = record.to_string();
            assert!(line.chars().all(|c| !c.is_control()) && line.len() < 120, "{line:?}");
        }
    }
    let line = |kind, small, a, b| Record { number: 1, kind, small, time_ns: 0, a, b }.to_string();
    assert_eq!(line(EventKind::Address, 0, 0x0f02_000a, 24), "address: 10.0.2.15/24");
    assert_eq!(line(EventKind::Command, 2, 0, 0), "command restart-app (0): ok");
    assert_eq!(line(EventKind::GroupOut, 0, 7, 1), "group out: 7 to core 1");
    assert_eq!(line(EventKind::GroupOut, 31, 7, 1), "group out: 7 and 31 others, to core 1");
    let refused = "dma refused: 00:02.0 tried to write to 0x5000, reason 5";
    assert_eq!(line(EventKind::DmaRefused, 0x10, 0x5000, 0x105), refused);
    assert_eq!(line(EventKind::Drops, 18, 5, 17), "drops: tcp_no_port 5, 17 in all");
    assert_eq!(
        line(EventKind::AppEnds, 0, 1 << 32 | 14 << 40 | 1, 0),
        "app ends: fault, vector 14"
    );
}

#[test]
fn numbers_of_events_never_change() {
    let numbers: Vec<u16> = EventKind::ALL.iter().map(|kind| kind.0).collect();
    assert_eq!(numbers, (1..=30).collect::<Vec<u16>>());
}

/// What a counter says of itself stands alone in the metrics: it refers to no neighbour, and is said once.
#[test]
fn what_counters_and_drops_are_is_said_of_each_by_itself() {
    let mut said = std::collections::HashSet::new();
    let counters = Counter::ALL.iter().map(|c| (c.name(), c.help()));
    for (name, help) in counters.chain(Drop::ALL.iter().map(|d| (d.name(), d.help()))) {
        assert!(help.len() > 8 && help.ends_with('.') && !help.contains('\n'), "{name}: {help}");
        assert!(!help.contains("of them.") && !help.contains("for that"), "{name}: {help}");
        assert!(said.insert(help), "{name}: {help}");
    }
    assert_eq!(Counter::RxPackets.help(), "Frames taken from receive queues.");
}

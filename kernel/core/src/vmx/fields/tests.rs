//! Every constant against the table, both ways.

use super::*;
use std::collections::BTreeMap;
use std::vec::Vec;

fn table() -> BTreeMap<&'static str, (Width, Kind, u32)> {
    let mut rows = BTreeMap::new();
    for line in include_str!("../fields.csv").lines().filter(|l| !l.starts_with('#')) {
        let cells: Vec<&str> = line.split(',').collect();
        let [name, width, kind, index] = cells[..] else { panic!("{line}") };
        let width = match width {
            "16" => Width::Bits16,
            "32" => Width::Bits32,
            "64" => Width::Bits64,
            "n" => Width::Natural,
            _ => panic!("{line}"),
        };
        let kind = match kind {
            "control" => Kind::Control,
            "exit" => Kind::ExitInformation,
            "guest" => Kind::Guest,
            "host" => Kind::Host,
            _ => panic!("{line}"),
        };
        let row = (width, kind, index.parse().unwrap());
        assert!(rows.insert(name, row).is_none(), "{name} twice");
    }
    rows
}

/// SDM 25.11.2, figure 25-1, built from the table's words.
fn encode(width: Width, kind: Kind, index: u32) -> u32 {
    let width = match width {
        Width::Bits16 => 0x0000,
        Width::Bits64 => 0x2000,
        Width::Bits32 => 0x4000,
        Width::Natural => 0x6000,
    };
    let kind = match kind {
        Kind::Control => 0x000,
        Kind::ExitInformation => 0x400,
        Kind::Guest => 0x800,
        Kind::Host => 0xC00,
    };
    width | kind | index << 1
}

#[test]
fn every_encoding_is_the_tables() {
    let rows = table();
    for (name, field) in ALL {
        let (width, kind, index) = rows[name];
        assert_eq!(field.encoding(), encode(width, kind, index), "{name}");
        assert_eq!((field.width(), field.kind(), field.index()), (width, kind, index), "{name}");
        assert_eq!(field.name(), *name);
    }
    assert_eq!(rows.len(), ALL.len(), "the table has what no constant has");
}

#[test]
fn no_two_fields_are_the_same_and_none_is_a_half() {
    let mut all: Vec<u32> = ALL.iter().map(|(_, f)| f.encoding()).collect();
    assert!(all.iter().all(|e| e & 1 == 0));
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), ALL.len());
}

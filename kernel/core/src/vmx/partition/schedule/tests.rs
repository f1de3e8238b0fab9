//! What a line says, and mistakes by line and word.

use super::super::{Machine, parse as partitions};
use super::*;
use std::format;

const TWO: &str = "a cores=0,1,3 memory=64M : app=kv\nb cores=2,3 memory=64M : app=kv\n";

#[track_caller]
fn read(line: &str, check: impl FnOnce(Result<&[Schedule], Mistake<'_>>)) {
    let text = format!("{TWO}{line}\n");
    let machine = Machine { cores: 4, functions: &[] };
    let all = partitions(text.as_bytes(), &machine).expect("moves are no dataplanes");
    assert_eq!(all.len(), 2);
    match parse(text.as_bytes(), &all) {
        Ok(found) => check(Ok(&found)),
        Err(mistake) => check(Err(mistake)),
    }
}

#[test]
fn a_line_of_the_documentation() {
    read("move core=3 every_us=5000 times=1000 patience_us=20", |found| {
        let one = Schedule { core: 3, every_us: 5000, times: 1000, patience_us: 20 };
        assert_eq!(found, Ok(&[one][..]));
    });
    read("  move times=1 core=3   every_us=100", |found| {
        assert_eq!(found.unwrap()[0].patience_us, PATIENCE_DEFAULT_US);
    });
    read("# move core=3", |found| assert_eq!(found, Ok(&[][..])));
}

#[test]
fn mistakes_name_line_and_word() {
    for (line, word, why) in [
        ("move", "move", "core=, every_us= and times= are wanted"),
        ("move core=3 times=1", "move core=3 times=1", "core=, every_us= and times= are wanted"),
        ("move core=3 every_us=99 times=1", "every_us=99", "not a number, or out of range"),
        ("move core=3 every_us=+200 times=1", "every_us=+200", "not a number, or out of range"),
        ("move core=3 every_us=200 times=0", "times=0", "not a number, or out of range"),
        ("move core=3 core=3", "core=3", "given twice"),
        ("move core=3 to=b", "to=b", "unknown key"),
        ("move core=3 now", "now", "not of the form key=value"),
    ] {
        read(line, |found| assert_eq!(found, Err(Mistake { line: 3, word, why }), "{line}"));
    }
    let own = "move core=1 every_us=500 times=1";
    read(own, |found| {
        assert_eq!(found.unwrap_err().why, "a core that two dataplanes list is wanted");
    });
    let twice = "move core=3 every_us=500 times=1\nmove core=3 every_us=500 times=1";
    read(twice, |found| {
        let mistake = found.unwrap_err();
        assert_eq!((mistake.line, mistake.why), (4, "a core twice"));
    });
}

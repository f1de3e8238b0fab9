//! The format of the documentation, every mistake by line and word, and nonsense.

use super::*;
use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

const NIC_A: Bdf = Bdf(0x18);
const NIC_B: Bdf = Bdf(0x20);
const IVSHMEM: Bdf = Bdf(0x28);

fn machine() -> Machine<'static> {
    Machine { cores: 4, functions: &[Bdf(0), NIC_A, NIC_B, IVSHMEM] }
}

fn read(text: &str) -> Result<Partitions<'_>, Mistake<'_>> {
    parse(text.as_bytes(), &machine())
}

#[test]
fn two_dataplanes_that_share_a_core() {
    let text = "# two of them\n\
        kvA cores=0,1,3 memory=96M functions=00:03.0 control=com2 : app=kv ip=10.0.0.1/24 -- -p : x\n\
        \n\
        kvB  cores=2-3  memory=rest control=00:05.0 :  app=kv\n";
    let all = read(text).unwrap();
    let (a, b) = (&all[0], &all[1]);
    assert_eq!((a.name, a.line, &a.cores[..]), ("kvA", 2, &[0, 1, 3][..]));
    assert_eq!((a.memory, &a.functions[..]), (Memory::Bytes(96 << 20), &[NIC_A][..]));
    assert_eq!(a.control, Control::Serial(0x2F8));
    assert_eq!(a.command_line, "app=kv ip=10.0.0.1/24 -- -p : x");
    assert_eq!((b.name, b.line, &b.cores[..]), ("kvB", 4, &[2, 3][..]));
    assert_eq!((b.memory, b.functions.len()), (Memory::Rest, 0));
    assert_eq!((b.control, b.command_line), (Control::Function(IVSHMEM), "app=kv"));
    let one = read("x cores=0 memory=1G functions=none control=none").unwrap();
    assert_eq!((one[0].memory, one[0].control), (Memory::Bytes(1 << 30), Control::None));
    assert_eq!(read("x cores=0 memory=32M :").unwrap()[0].command_line, "");
}

#[test]
fn mistakes_name_line_and_word() {
    for (words, word, why) in [
        ("", "kv", "cores= is missing"),
        ("cores=0", "kv", "memory= is missing"),
        ("cores=4", "cores=4", "a core that the machine does not have"),
        ("cores=0,0", "cores=0,0", "a core twice in one dataplane"),
        ("cores=0-2,1", "cores=0-2,1", "a core twice in one dataplane"),
        ("cores=2-1", "cores=2-1", "a range of cores that ends before it begins"),
        ("cores=", "cores=", "numbers of cores are wanted: 0,1 or 0-3"),
        ("cores=+1", "cores=+1", "numbers of cores are wanted: 0,1 or 0-3"),
        ("cores=0,", "cores=0,", "numbers of cores are wanted: 0,1 or 0-3"),
        ("cores=99999999", "cores=99999999", "numbers of cores are wanted: 0,1 or 0-3"),
        ("cores=0 cores=1", "cores=1", "given twice"),
        ("cores=0 memory=95", "memory=95", "a size like 96M or 2G, or rest, is wanted"),
        ("cores=0 memory=M", "memory=M", "a size like 96M or 2G, or rest, is wanted"),
        ("cores=0 memory=33M", "memory=33M", "a multiple of 2M is wanted"),
        ("cores=0 memory=30M", "memory=30M", "32M to 16384G"),
        (
            "cores=0 memory=99999999999999999999G",
            "memory=99999999999999999999G",
            "a size like 96M or 2G, or rest, is wanted",
        ),
        (
            "cores=0 memory=18014398509481985M",
            "memory=18014398509481985M",
            "a size like 96M or 2G, or rest, is wanted",
        ),
        (
            "cores=0 functions=00:09.0",
            "functions=00:09.0",
            "a function that the machine does not have",
        ),
        ("cores=0 functions=3", "functions=3", "a function like 00:03.0 is wanted"),
        ("cores=0 functions=00:03.0,00:03.0", "functions=00:03.0,00:03.0", "a function twice"),
        ("cores=0 control=com1", "control=com1", "a function like 00:03.0 is wanted"),
        (
            "cores=0 memory=32M functions=00:05.0 control=00:05.0",
            "kv",
            "the control channel is no other function of it",
        ),
        ("core=0", "core=0", "unknown key"),
        ("fast", "fast", "not of the form key=value"),
        (
            "cores=0 memory=32M : app=kv vmx=on",
            "vmx=on",
            "the monitor's own word, not a dataplane's",
        ),
        ("cores=0 memory=32M : aap=kv", "aap=kv", "unknown key"),
    ] {
        let text = format!("# first line\nkv {words}\n");
        let mistake = read(&text).unwrap_err();
        assert_eq!(mistake, Mistake { line: 2, word, why }, "{words}");
    }
    for name in ["a b", "é cores=0", "x/y cores=0", "n12345678901234567890123456789012 cores=0"] {
        assert!(read(name).is_err(), "{name}");
    }
    let said = read("x cores=9").unwrap_err().to_string();
    assert_eq!(said, "dataplanes: line 1: `cores=9`: a core that the machine does not have");
    assert_eq!(read("# none\n").unwrap_err().to_string(), "dataplanes: no dataplane is named");
    assert_eq!(parse(&[0xFF], &machine()).unwrap_err().why, "not UTF-8");
    assert_eq!(parse(&[b'#'; TEXT_MAX + 1], &machine()).unwrap_err().why, "longer than 64 KiB");
}

#[test]
fn nothing_belongs_to_two() {
    let first = "a cores=0,1 memory=rest functions=00:03.0 control=com2";
    for (second, word, why) in [
        ("a cores=2 memory=32M", "a", "a name twice"),
        ("b cores=1,2 memory=32M", "cores=1,2", "the first core must be in no other dataplane"),
        ("b cores=2,0 memory=32M", "cores=2,0", "the first core of another dataplane"),
        (
            "b cores=2 memory=rest",
            "memory=rest",
            "the rest of the memory goes to one dataplane only",
        ),
        (
            "b cores=2 memory=32M functions=00:04.0,00:03.0",
            "functions=00:04.0,00:03.0",
            "a function of another dataplane",
        ),
        (
            "b cores=2 memory=32M control=com2",
            "control=com2",
            "the control channel of another dataplane",
        ),
        (
            "b cores=2 memory=32M control=00:03.0",
            "control=00:03.0",
            "the control channel of another dataplane",
        ),
    ] {
        let text = format!("{first}\n{second}");
        assert_eq!(read(&text).unwrap_err(), Mistake { line: 2, word, why });
    }
    assert!(read(&format!("{first}\nb cores=2,1 memory=32M control=com3")).is_ok());
}

#[test]
fn there_are_limits() {
    let functions: Vec<Bdf> = (0..9).map(|i| Bdf::new(1, i, 0)).collect();
    let machine = Machine { cores: 200, functions: &functions };
    let names: Vec<String> = functions.iter().map(ToString::to_string).collect();
    let text = format!("x cores=0 memory=32M functions={}", names.join(","));
    assert_eq!(parse(text.as_bytes(), &machine).unwrap_err().why, "at most 8 functions");
    let many =
        |n: usize| -> String { (0..n).map(|i| format!("d{i} cores={i} memory=32M\n")).collect() };
    assert_eq!(parse(many(16).as_bytes(), &machine).unwrap().len(), 16);
    assert_eq!(parse(many(17).as_bytes(), &machine).unwrap_err().why, "at most 16 dataplanes");
    assert_eq!(parse(b"x cores=0-63 memory=32M", &machine).unwrap()[0].cores.len(), 64);
    assert!(parse(b"x cores=0-64 memory=32M", &machine).is_err());
    let long = format!("x cores=0 memory=32M : app={}", "a".repeat(2048));
    let mistake = parse(long.as_bytes(), &machine).unwrap_err();
    assert_eq!(mistake.why, "a command line of at most 2048 bytes is wanted");
}

#[test]
fn alone_a_dataplane_has_the_monitors_command_line() {
    let alone = |s| command_line_alone(s).as_str().to_string();
    assert_eq!(alone("vmx=on app=kv  dataplanes=two ip=dhcp"), "app=kv ip=dhcp");
    assert_eq!(alone("app=kv vmx=auto -- vmx=on -p"), "app=kv -- vmx=on -p");
    assert_eq!(
        (alone("-- vmx=1"), alone("vmx=on"), alone("")),
        ("-- vmx=1".into(), String::new(), String::new())
    );
    assert_eq!(alone("vmx=on -- a"), " -- a", "which the parser takes for arguments");
    assert_eq!(cmdline::parse(&alone("vmx=on -- a")).unwrap().args, "a");
    assert_eq!(alone(&"x".repeat(5000)), "");
}

/// Nonsense made of the words of the format: read or refused, never more.
#[test]
fn nonsense_is_refused_or_makes_sense() {
    let pieces = [
        " ",
        "\n",
        "cores=",
        "memory=",
        "functions=",
        "control=",
        "0",
        "1",
        ",",
        "-",
        "32M",
        "rest",
        "00:03.0",
        "com2",
        " : ",
        "app=kv",
        "#",
        "=",
        "none",
        "\u{e9}",
    ];
    let words = [
        " cores=0",
        " cores=1",
        " cores=2,3",
        " cores=1,3",
        " cores=0,3",
        " memory=64M",
        " memory=rest",
        " control=com3",
        " control=00:05.0",
        " functions=00:03.0",
        " functions=00:04.0,00:03.0",
        "\na",
        "\nb",
        "\nc",
    ];
    let mut x = 0x9E37_79B9_7F4A_7C15u64;
    let mut rnd = |n: usize| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x % n as u64) as usize
    };
    let (mut good, mut several) = (0, 0);
    for _ in 0..200_000 {
        let mut text = String::new();
        for name in 0..1 + rnd(3) {
            text.push_str(&format!("\nd{name}"));
            text.push_str(words[rnd(5)]);
            text.push_str(words[5 + rnd(2)]);
            if rnd(2) == 0 {
                text.push_str(words[rnd(words.len())]);
            }
            if rnd(4) == 0 {
                text.push_str(pieces[rnd(pieces.len())]);
            }
        }
        let Ok(all) = read(&text) else { continue };
        good += 1;
        several += usize::from(all.len() > 1);
        for (i, p) in all.iter().enumerate() {
            let mut cores: Vec<u8> = p.cores.to_vec();
            cores.sort_unstable();
            cores.dedup();
            assert!(cores.len() == p.cores.len() && cores.iter().all(|c| *c < 4), "{text}");
            for other in all.iter().filter(|o| o.line != p.line) {
                assert!(!other.cores.contains(&p.cores[0]), "{text}");
                assert!(p.functions.iter().all(|f| !other.functions.contains(f)), "{text}");
                assert!(p.control == Control::None || p.control != other.control, "{text}");
            }
            assert!(all[..i].iter().all(|o| o.name != p.name), "{text}");
        }
    }
    assert!(good > 1000 && several > 100, "{good} {several}");
}

//! The corpora again, and some seeded mutations of them, for every target.
//!
//! `IX_FUZZ_INPUT=FILE IX_FUZZ_TARGET=NAME cargo test -p ix-fuzz --test replay one_file` runs one
//! input (add `IX_FUZZ_TRACE=1` to hear its story); `IX_PROVE=1` mutates much more.
use ix_dataplane::rng::Rng;
use ix_fuzz::{TARGETS, Target, corpus, mutate::mutate};
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Mutations of a normal run for each unit of a target's share.
const MUTATIONS: u64 = 400;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Runs an input, and says which one it was if it fails.
fn run(target: &Target, input: &[u8], whence: &str) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.run)(input))) {
        eprintln!(
            "target {}: {whence} fails; as a file: xxd -r -p <<< {}",
            target.name,
            hex(input)
        );
        resume_unwind(panic);
    }
}

fn replay(name: &str) {
    let target = ix_fuzz::target(name).expect("a target");
    let corpus = corpus::of(name).expect("a corpus that can be read");
    for (number, input) in corpus.iter().enumerate() {
        run(target, input, &format!("input {number} of its corpus"));
    }
    let more = if std::env::var_os("IX_PROVE").is_some() { 100 } else { 1 };
    let mut rng = Rng::from_seed(u64::from(target.share));
    for number in 0..MUTATIONS * u64::from(target.share) * more {
        let input = mutate(&corpus, &mut rng, target.bytes_max);
        run(target, &input, &format!("mutation {number}"));
    }
}

macro_rules! replays {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name));
        })*

        #[test]
        fn every_target_is_replayed_and_has_a_corpus() {
            let replayed = [$(stringify!($name)),*];
            let targets: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(replayed, targets[..]);
            for name in targets {
                let corpus = corpus::of(name).expect("a corpus that can be read");
                assert!(!corpus.is_empty(), "{name} has no corpus: cargo xtask fuzz {name} --keep");
            }
        }
    };
}

replays! {
    engine driver lying_device libix kv kv_datagrams dhcp neighbors calls events pci cmdline archive symbols elf memory_map clock frames
    page_tables multiboot firmware_tables acl_sets acl_files control_page serial commands
    capture_filters
}

#[test]
fn one_file() {
    let Some(path) = std::env::var_os("IX_FUZZ_INPUT") else { return };
    let name = std::env::var("IX_FUZZ_TARGET").expect("IX_FUZZ_TARGET names the target");
    let target = ix_fuzz::target(&name).expect("a target of that name");
    (target.run)(&std::fs::read(path).expect("the file of IX_FUZZ_INPUT"));
}

#[test]
fn a_packed_corpus_is_unpacked_as_it_was() {
    let inputs = vec![vec![], vec![1], vec![2; 300]];
    assert_eq!(corpus::unpack(&corpus::pack(inputs.clone())).unwrap(), inputs);
    for cut in [1, 3, 50] {
        assert!(corpus::unpack(&corpus::pack(inputs.clone())[..cut]).is_err());
    }
}

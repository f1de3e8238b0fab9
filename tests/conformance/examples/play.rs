//! Plays scripts and prints their conversations: `cargo run -p ix-conformance --example play FILE…`.
use ix_conformance::{parse, run};

fn main() {
    for path in std::env::args().skip(1) {
        let text = std::fs::read_to_string(&path).expect("a script");
        let script = match parse::parse(&path, &text) {
            Ok(script) => script,
            Err(failure) => {
                println!("{failure}");
                continue;
            }
        };
        for version in script.settings.versions {
            let (log, result) = run::play(&script, *version);
            println!("{path} {version:?}:\n{}", log.join("\n"));
            match result {
                Ok(()) => println!("passes"),
                Err(failure) => println!("{}:{}: {}", path, failure.line, failure.reason),
            }
        }
    }
}

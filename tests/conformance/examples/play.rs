//! Plays scripts and prints their conversations: `cargo run -p ix-conformance --example play FILE…`.
use ix_conformance::{parse, run};

fn main() {
    for path in std::env::args().skip(1) {
        let text = std::fs::read_to_string(&path).expect("a script");
        match parse::parse(&path, &text).map(|script| run::play(&script)) {
            Err(failure) => println!("{failure}"),
            Ok((log, result)) => {
                println!("{path}:\n{}", log.join("\n"));
                match result {
                    Ok(()) => println!("passes"),
                    Err(failure) => println!("{}:{}: {}", path, failure.line, failure.reason),
                }
            }
        }
    }
}

//! `/init` of a Linux guest, and all there is beside its kernel: loads the network card's modules, takes
//! the address that the kernel's command line names, serves checked streams (`apps/stream`'s protocol), and
//! does what the lines on the console say:
//!
//! ```text
//! send IP PORT SEED BYTES      a stream to a sink, until its verdict
//! receive IP PORT SEED BYTES   a stream from a source, until its end
//! run PROGRAM ARGUMENT…        a program of the archive, with what it says
//! ```
//! The answer is one line, `peer: result …` or `peer: failed …`; before that of `run` come the program's lines, each as `out: …`.
#![deny(unsafe_code)]

mod boot;
mod netlink;
mod program;
mod transfer;

use std::io::{BufRead, Write};
use std::net::{IpAddr, SocketAddr};
use stream::{Request, Role};

fn main() {
    let outcome = boot::boot().and_then(|()| transfer::serve());
    match outcome {
        Ok(()) => say("peer: ready"),
        Err(e) => say(&format!("peer: failed: {e}")),
    }
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        if let Some(words) = line.strip_prefix("run ") {
            match program::run(words, |line| say(&format!("out: {line}"))) {
                Ok(code) => say(&format!("peer: result exit={code}")),
                Err(e) => say(&format!("peer: failed: {e}")),
            }
            continue;
        }
        match command(&line) {
            Some((to, request)) => match transfer::run(to, &request) {
                Ok(outcome) => say(&format!("peer: result {outcome}")),
                Err(e) => say(&format!("peer: failed: {e}")),
            },
            None if line.trim().is_empty() => {}
            None => say("peer: failed: no such command"),
        }
    }
    boot::power_off();
}

/// A line in one piece. Without a console nobody is there to tell.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush());
}

fn command(line: &str) -> Option<(SocketAddr, Request)> {
    let mut words = line.split_whitespace();
    let role = match words.next()? {
        "send" => Role::Sink,
        "receive" => Role::Source,
        _ => return None,
    };
    let ip: IpAddr = words.next()?.parse().ok()?;
    let port = words.next()?.parse().ok()?;
    let seed = words.next()?.parse().ok()?;
    let bytes = words.next()?.parse().ok()?;
    Some((SocketAddr::new(ip, port), Request { role, seed, bytes }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_understood_or_refused() {
        let (to, request) = command("send 10.0.2.15 5001 7 1000").unwrap();
        assert_eq!(to, "10.0.2.15:5001".parse().unwrap());
        assert_eq!(request, Request { role: Role::Sink, seed: 7, bytes: 1000 });
        assert_eq!(command("receive ::1 1 2 3").unwrap().1.role, Role::Source);
        assert!(command("send 10.0.2.15 5001 7").is_none());
        assert!(command("fetch 10.0.2.15 5001 7 1").is_none());
    }
}

//! Commands for operators, and their answers by a stock server that was started with its defaults: those
//! that depend on how a server was started, which the script leaves out.
mod common;

use common::client::{Client, shared};
use common::memcached::Memcached;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

/// Commands, and where our answer differs on purpose.
const COMMANDS: [(&str, Option<&str>); 20] = [
    ("lru mode flat", None),
    ("lru mode segmented", None),
    ("lru mode segmented noreply", None),
    ("lru temp_ttl 60", None),
    ("lru temp_ttl -1", None),
    ("lru_crawler enable", None),
    ("lru_crawler crawl 99", None),
    ("lru_crawler crawl x", None),
    ("lru_crawler crawl 1,2,x", None),
    ("slabs reassign 1 1", None),
    ("slabs reassign x 1", None),
    ("slabs reassign 100 1", None),
    ("slabs reassign 1 2", None),
    ("slabs automove 0", None),
    ("slabs automove 1", None),
    ("lru_crawler crawl 1", None),
    ("lru_crawler disable", None),
    ("lru_crawler crawl 1", None),
    // Memory is taken once; keys are not dumped; there is nothing to watch.
    ("cache_memlimit 100", Some("MEMLIMIT_ADJUST_FAILED out of bounds or unable to adjust")),
    ("stats cachedump 1 5", Some("CLIENT_ERROR stats cachedump not allowed")),
];

#[test]
fn commands_for_operators_are_answered_as_by_a_stock_server_with_defaults() {
    let memcached = match Memcached::start_with(64, &[]) {
        Ok(memcached) => memcached,
        Err(why) => return common::skip(&why),
    };
    let shared = shared(64 << 20);
    let mut ours = Client::new(&shared, 0);
    let mut theirs = BufReader::new(TcpStream::connect(memcached.address).expect("it listens"));
    for (command, different) in COMMANDS {
        let mut ask = || {
            let both = format!("{command}\r\nmn\r\n");
            theirs.get_mut().write_all(both.as_bytes()).expect("written");
            let mut answer = String::new();
            while !answer.ends_with("MN\r\n") {
                assert!(theirs.read_line(&mut answer).expect("an answer") > 0, "{command}");
            }
            answer
        };
        let mut expected = ask();
        // Its crawler's thread is between two states: it has no better answer then.
        for _ in 0..100 {
            if !expected.starts_with("ERROR an unknown error") {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
            expected = ask();
        }
        if let Some(different) = different {
            expected = format!("{different}\r\nMN\r\n");
        }
        assert_eq!(ours.say(&format!("{command}\r\nmn\r\n")), expected, "{command}");
    }
    assert_eq!(ours.say("watch\r\n"), "WATCHER_FAILED failed to add log watcher\r\n");
}

//! The command line: `key=value`.
use crate::client::KEYS;
use core::fmt;
use core::ops::RangeInclusive;
use libix::abi::layout::InfoPage;

/// How to start it.
pub const USAGE: &str = "usage: kvcheck [connections=N] [requests=N] [rounds=N] [value=BYTES] [seed=N] [port=N] [stay=0|1] [resets=0|1]: so many \
                         connections, requests of all of them in a round, rounds (0: for ever), bytes of a value at most, whether connections stay from \
                         round to round, and whether they may be reset";

/// What the operator chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Connections at a time.
    pub connections: u32,
    /// Requests of all connections together, in a round.
    pub requests: u64,
    /// Rounds; 0: for ever.
    pub rounds: u64,
    /// Connections go on from round to round; else each round begins with new ones.
    pub stay: bool,
    /// Longest value in bytes.
    pub value: usize,
    /// What keys, values and the order of requests follow from.
    pub seed: u64,
    /// The TCP port that kv serves.
    pub port: u16,
    /// Connections may be reset: that is counted apart, and not as an error.
    pub resets: bool,
}

impl Default for Options {
    fn default() -> Options {
        let port = kv::app::PORT;
        Options {
            connections: 64,
            requests: 100_000,
            rounds: 1,
            stay: false,
            value: 1000,
            seed: 1,
            port,
            resets: false,
        }
    }
}

/// A word that could not be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadWord<'a>(&'a str);

impl fmt::Display for BadWord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: not understood, or out of range", self.0)
    }
}

fn number(text: &str, range: RangeInclusive<u64>) -> Option<u64> {
    text.parse().ok().filter(|n| range.contains(n))
}

impl Options {
    /// Those of a program that was started so.
    pub fn of(info: &InfoPage) -> Result<Options, BadWord<'_>> {
        let bytes = info.args.get(..info.args_len as usize).unwrap_or(&info.args);
        Options::parse(core::str::from_utf8(bytes).unwrap_or_default())
    }

    /// Understands [`USAGE`].
    pub fn parse(line: &str) -> Result<Options, BadWord<'_>> {
        let mut options = Options::default();
        for word in line.split_ascii_whitespace() {
            options.apply(word).ok_or(BadWord(word))?;
        }
        Ok(options)
    }

    fn apply(&mut self, word: &str) -> Option<()> {
        let (key, value) = word.split_once('=')?;
        match key {
            "connections" => self.connections = number(value, 1..=10_000)? as u32,
            "requests" => self.requests = number(value, 1..=u64::MAX)?,
            "rounds" => self.rounds = number(value, 0..=u64::MAX)?,
            "value" => self.value = number(value, 1..=500_000)? as usize,
            "seed" => self.seed = number(value, 0..=u64::MAX)?,
            "stay" => self.stay = number(value, 0..=1)? != 0,
            "resets" => self.resets = number(value, 0..=1)? != 0,
            "port" => self.port = number(value, 1..=32_767)? as u16,
            _ => return None,
        }
        Some(())
    }

    /// How the store is made: all values fit four times, so that none is ever evicted.
    pub fn store(&self) -> kv::app::Options {
        let all = self.connections as usize * KEYS * (self.value + 512);
        kv::app::Options {
            port: self.port,
            udp_port: 0,
            memory_mib: 32 + ((4 * all) >> 20),
            max_conns: 2 * self.connections + 64,
            item_max: kv::limits::ITEM_BYTES_DEFAULT,
            idle_timeout: 0,
        }
    }

    /// Requests of client `id` in a round.
    pub fn share(&self, id: u32) -> u64 {
        let clients = u64::from(self.connections);
        self.requests / clients + u64::from(u64::from(id) < self.requests % clients)
    }
}

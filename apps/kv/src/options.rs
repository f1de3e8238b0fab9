//! The command line: memcached's options, as far as they mean something here.
use crate::app::PORT;
use crate::limits::{
    CONNECTIONS_DEFAULT, ITEM_BYTES_DEFAULT, ITEM_BYTES_RANGE, MEMORY_MIB_DEFAULT, PAGE_BYTES,
};
use crate::store::Store;
use crate::time::Clock;
use crate::worker::{Settings, Shared};
use core::str::FromStr;
use libix::Args;
use libix::abi::layout::{self, InfoPage};
use libix::args::ArgError;

/// How to start it.
pub const USAGE: &str = "usage: kv [-p PORT] [-U UDP_PORT] [-m MEGABYTES] [-c CONNECTIONS] \
                         [-I ITEM_BYTES] [-o idle_timeout=SECONDS]";

/// What the operator chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// TCP port.
    pub port: u16,
    /// UDP port; 0 = none.
    pub udp_port: u16,
    /// Memory for items, in MiB.
    pub memory_mib: usize,
    /// Connections at most.
    pub max_conns: u32,
    /// Largest item.
    pub item_max: usize,
    /// Seconds after which a connection that says nothing is closed; 0 = never.
    pub idle_timeout: u32,
}

/// A number of bytes: `100000`, `512k`, `4m`.
struct ItemBytes(usize);

impl FromStr for ItemBytes {
    type Err = ();

    fn from_str(text: &str) -> Result<ItemBytes, ()> {
        let (digits, unit) = match text.as_bytes().last() {
            Some(b'k' | b'K') => (&text[..text.len() - 1], 1 << 10),
            Some(b'm' | b'M') => (&text[..text.len() - 1], 1 << 20),
            _ => (text, 1),
        };
        let bytes = digits.parse::<usize>().map_err(|_| ())?.checked_mul(unit).ok_or(())?;
        ITEM_BYTES_RANGE.contains(&bytes).then_some(ItemBytes(bytes)).ok_or(())
    }
}

/// What may follow `-o`.
struct Extended {
    idle_timeout: u32,
}

impl FromStr for Extended {
    type Err = ();

    fn from_str(text: &str) -> Result<Extended, ()> {
        let mut extended = Extended { idle_timeout: 0 };
        for word in text.split(',') {
            let seconds = word.strip_prefix("idle_timeout=").ok_or(())?;
            extended.idle_timeout = seconds.parse().map_err(|_| ())?;
        }
        Ok(extended)
    }
}

impl Options {
    /// Understands [`USAGE`]. Without `-m`, at most half of what the machine has for us is taken.
    pub fn parse(mut args: Args<'_>, info: &InfoPage) -> Result<Options, ArgError> {
        let half = (info.heap_max_bytes >> 21) as usize;
        let item_max = args.option("-I")?.map_or(ITEM_BYTES_DEFAULT, |ItemBytes(bytes)| bytes);
        let extended: Option<Extended> = args.option("-o")?;
        let options = Options {
            port: args.option("-p")?.unwrap_or(PORT),
            udp_port: args.option("-U")?.unwrap_or(0),
            memory_mib: args.option("-m")?.unwrap_or(MEMORY_MIB_DEFAULT.min(half)),
            max_conns: args.option("-c")?.unwrap_or(CONNECTIONS_DEFAULT),
            item_max,
            idle_timeout: extended.map_or(0, |extended| extended.idle_timeout),
        };
        args.finish()?;
        Ok(options)
    }

    fn memory_bytes(&self) -> usize {
        self.memory_mib.max(1).saturating_mul(PAGE_BYTES).saturating_add(64)
    }

    /// Pages of user memory that hold the items.
    pub fn memory_pages(&self) -> usize {
        self.memory_bytes().div_ceil(layout::PAGE_BYTES as usize)
    }

    /// What all cores share. `boot_unix` is 0 where the machine has no clock.
    pub fn share(&self, memory: &'static mut [u8], info: &InfoPage, boot_unix: i64) -> Shared {
        let bytes = self.memory_bytes().min(memory.len());
        let store = Store::new(&mut memory[..bytes], info.seed).with_item_max(self.item_max);
        let settings = Settings {
            port: self.port,
            udp_port: self.udp_port,
            max_conns: self.max_conns,
            threads: info.cores,
            idle_timeout: self.idle_timeout,
            clock: Clock::new(boot_unix),
        };
        Shared::new(store, settings)
    }
}

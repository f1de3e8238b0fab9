//! Commands on the control page: whether there is one, and what it asks for. The page is anybody's to write
//! who shares it with us: each word is read once, and what is made of it is checked here.
use core::sync::atomic::{Ordering, fence};
use ix_abi::control::{CommandCode, DATAPLANE_NAME_BYTES, command, outcome};
use ix_abi::demand::LIMIT_WORDS;
use ix_abi::status::Status;

#[cfg(test)]
mod tests;

/// The largest receive batch bound.
pub const BATCH_MAX: usize = 1024;

/// A command that was not executed yet, as its words say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Its number.
    pub sequence: u64,
    /// What it is; one that is too large to be a code is [`u16::MAX`].
    pub code: CommandCode,
    /// By command.
    pub args: [u64; 4],
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Nothing.
    Nop,
    /// End the machine.
    Stop,
    /// End the application and start it afresh.
    RestartApp,
    /// The receive batch bound, 1 to [`BATCH_MAX`].
    SetBatch(usize),
    /// Take so many bytes of the bulk area as rules. May be more than it has: refused with words.
    AclSet(usize),
    /// Lay the rules and their counters into the reply area.
    AclRead,
    /// Start a capture; the filter is in the bulk area.
    CaptureStart,
    /// End the capture of this number; 0: whichever runs.
    CaptureStop(u64),
    /// A flow group is to go to a core.
    MoveGroup(u16, u16),
    /// How many cores are to serve.
    SetCores(u16),
    /// Which ones are.
    SetCoreSet(u64),
    /// Limits are in the bulk area.
    SetLimits,
    /// How many of the last cores are for background threads.
    Reserve(u16),
    /// A core is to go to the dataplane whose name is in the bulk area, of so many bytes; 0: to the next that lists it.
    Give { core: u16, name_bytes: usize },
    /// Packet trace on (the filter is in the bulk area) or off.
    Trace(bool),
}

impl Command {
    /// What a code and its arguments say; what they do not use may be anything.
    pub fn decode(code: CommandCode, args: [u64; 4]) -> Result<Command, Status> {
        let number = usize::try_from(args[0]).unwrap_or(usize::MAX);
        Ok(match code {
            CommandCode::Nop => Command::Nop,
            CommandCode::Stop => Command::Stop,
            CommandCode::RestartApp => Command::RestartApp,
            CommandCode::SetBatch if (1..=BATCH_MAX).contains(&number) => Command::SetBatch(number),
            CommandCode::AclSet => Command::AclSet(number),
            CommandCode::AclRead => Command::AclRead,
            CommandCode::CaptureStart => Command::CaptureStart,
            CommandCode::CaptureStop => Command::CaptureStop(args[0]),
            CommandCode::Trace if number <= 1 => Command::Trace(number == 1),
            CommandCode::MoveGroup => Command::MoveGroup(small(args[0])?, small(args[1])?),
            CommandCode::SetCores => Command::SetCores(small(args[0])?),
            CommandCode::SetCoreSet => Command::SetCoreSet(args[0]),
            CommandCode::SetLimits if number == LIMIT_WORDS => Command::SetLimits,
            CommandCode::Reserve => Command::Reserve(small(args[0])?),
            CommandCode::GiveCore if args[1] <= DATAPLANE_NAME_BYTES as u64 => {
                Command::Give { core: small(args[0])?, name_bytes: args[1] as usize }
            }
            CommandCode::SetBatch
            | CommandCode::Trace
            | CommandCode::SetLimits
            | CommandCode::GiveCore => {
                return Err(Status::Invalid);
            }
            _ => return Err(Status::Unsupported),
        })
    }
}

fn small(arg: u64) -> Result<u16, Status> {
    u16::try_from(arg).map_err(|_| Status::Invalid)
}

/// Looks for a command in the page whose words `get` reads; the status with which it is to be refused if
/// it is of another boot, or makes no sense.
pub fn poll(get: impl Fn(usize) -> u64, epoch: u64) -> Option<(Pending, Result<Command, Status>)> {
    let sequence = get(command::SEQUENCE);
    if sequence == get(outcome::SEQUENCE) {
        return None;
    }
    // The number is stored last, so the rest is what belongs to it, if the client keeps to the protocol.
    fence(Ordering::Acquire);
    let its_epoch = get(command::EPOCH);
    let code = CommandCode(u16::try_from(get(command::CODE)).unwrap_or(u16::MAX));
    let args = core::array::from_fn(|i| get(command::ARGS + i * 8));
    let asked = if its_epoch == epoch { Command::decode(code, args) } else { Err(Status::Stale) };
    Some((Pending { sequence, code, args }, asked))
}

//! Cores that the monitor lends to other dataplanes: what each is asked for, what it does, what becomes of it. Pure: the
//! kernel's core 0 carries out what this says, and tells it what it sees.
//!
//! A core that is wished away stops serving first, so that its flow groups go elsewhere; then it is sent away. It comes back when the monitor
//! lets it run again. One that the monitor has stopped in the meantime, wherever it was, is taken: its groups begin afresh on others.
//! Nothing here has a deadline of its own: the monitor has, and stops whoever is late.
use ix_abi::control::GiveRefusal;
use ix_abi::limits::CORES_MAX;

#[cfg(test)]
mod tests;

/// Where a core's wishes come from: the monitor's page, or memory in tests.
pub trait Source {
    /// Whether the core is wished elsewhere.
    fn wants_away(&self, core: usize) -> bool;
    /// How often the core was stopped before it had left; grows only.
    fn times_taken(&self, core: usize) -> u32;
}

/// What the kernel sees of a core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// It does not serve, and has no flow groups.
    pub parked: bool,
    /// Whether the engines count on it.
    pub presence: Presence,
}

/// Whether the engines count on a core: `ix_dataplane::lend::Presence`, which this crate does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Presence {
    /// They do.
    #[default]
    Here,
    /// Not much longer.
    Leaving,
    /// It has left.
    Away,
    /// It was stopped.
    Taken,
    /// It is back and is told what it has missed.
    Returning,
}

/// What a core does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// It is the dataplane's.
    #[default]
    Present,
    /// It is to be away, and its flow groups still have to go.
    Clearing,
    /// They have gone; it is about to leave.
    Leaving,
    /// It has left.
    Away,
    /// It was stopped where it was.
    Taken,
    /// It is back, and does not serve yet.
    Returning,
}

impl State {
    /// Whether nobody can count on the core, for whatever it may be commanded.
    pub const fn is_away(self) -> bool {
        !matches!(self, State::Present)
    }

    /// For logs and pages.
    pub const fn name(self) -> &'static str {
        match self {
            State::Present => "present",
            State::Clearing | State::Leaving => "leaving",
            State::Away => "away",
            State::Taken => "taken",
            State::Returning => "returning",
        }
    }
}

/// What the kernel is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Nothing,
    /// The core is not to serve: its groups go to others.
    Clear,
    /// It has none: the engines are to let it go.
    SendAway,
    /// It is to stay after all.
    Recall,
    /// It was stopped: its groups begin afresh on others.
    Take,
    /// It is back for good: it may serve as before.
    Welcome,
}

/// Why a core cannot be lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The dataplane has no such core.
    NoSuchCore,
    /// Core 0 manages the others.
    Core0,
    /// Cores without a queue of the network card send through this one's.
    SharesQueue,
    /// It is reserved for background threads of the application.
    Reserved,
}

impl core::fmt::Display for Refusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Refusal::NoSuchCore => "there is no such core",
            Refusal::Core0 => "core 0 manages the others and never leaves",
            Refusal::SharesQueue => "other cores send through its queue of the network card",
            Refusal::Reserved => "it is reserved for background threads",
        })
    }
}

/// What can be lent, as it was at boot and is commanded.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shape {
    /// Cores of the dataplane.
    pub cores: usize,
    /// Those whose queue others send through, a bit each.
    pub sharing: u64,
    /// Those reserved for background threads, a bit each.
    pub reserved: u64,
}

impl Shape {
    /// Whether a core can be lent.
    pub const fn check(&self, core: usize) -> Result<(), Refusal> {
        if core >= self.cores || core >= CORES_MAX {
            Err(Refusal::NoSuchCore)
        } else if core == 0 {
            Err(Refusal::Core0)
        } else if self.sharing >> core & 1 != 0 {
            Err(Refusal::SharesQueue)
        } else if self.reserved >> core & 1 != 0 {
            Err(Refusal::Reserved)
        } else {
            Ok(())
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Core {
    state: State,
    /// Takes that were carried out.
    taken: u32,
    /// A wish was refused, and that was said.
    refused: bool,
}

/// All cores of a dataplane.
#[derive(Debug)]
pub struct Lending {
    shape: Shape,
    cores: [Core; CORES_MAX],
}

impl Lending {
    /// Every core is present.
    pub fn new(shape: Shape) -> Lending {
        Lending { shape, cores: [Core::default(); CORES_MAX] }
    }

    /// Others are reserved from now on.
    pub fn set_reserved(&mut self, reserved: u64) {
        self.shape.reserved = reserved;
    }

    /// What a core does.
    pub fn state(&self, core: usize) -> State {
        self.cores.get(core).map_or(State::Present, |core| core.state)
    }

    /// Cores that nobody can count on, a bit each.
    pub fn away(&self) -> u64 {
        let away = self.cores.iter().enumerate().filter(|(_, core)| core.state.is_away());
        away.fold(0, |all, (core, _)| all | 1 << core)
    }

    /// Of them, those that do not run here: the others are still leaving, or back already.
    pub fn gone(&self) -> u64 {
        let gone = |core: &Core| matches!(core.state, State::Away | State::Taken);
        let all = self.cores.iter().enumerate().filter(|(_, core)| gone(core));
        all.fold(0, |all, (core, _)| all | 1 << core)
    }

    /// Whether the operator may have the core given to another dataplane: only what would not be refused when the monitor
    /// wishes it, or the core would be stopped where it is.
    pub fn may_be_given(&self, core: usize) -> Result<(), GiveRefusal> {
        self.shape.check(core).map_err(|why| match why {
            Refusal::NoSuchCore => GiveRefusal::NoSuchCore,
            Refusal::Core0 => GiveRefusal::Core0,
            Refusal::SharesQueue => GiveRefusal::SharesQueue,
            Refusal::Reserved => GiveRefusal::Reserved,
        })?;
        match self.state(core) {
            State::Present => Ok(()),
            State::Away | State::Taken => Err(GiveRefusal::Away),
            State::Clearing | State::Leaving | State::Returning => Err(GiveRefusal::UnderWay),
        }
    }

    /// A wish that cannot be carried out; said once until it is withdrawn.
    pub fn refusal(&mut self, core: usize, source: &impl Source) -> Option<Refusal> {
        let refused = &mut self.cores.get_mut(core)?.refused;
        let refusal = self.shape.check(core).err().filter(|_| source.wants_away(core));
        let before = core::mem::replace(refused, refusal.is_some());
        refusal.filter(|_| !before)
    }

    /// What is to be done about a core. One call of each core, over and over; what it says is done before the next.
    pub fn step(&mut self, core: usize, seen: Seen, source: &impl Source) -> Action {
        let lendable = self.shape.check(core).is_ok();
        let Some(this) = self.cores.get_mut(core).filter(|_| lendable) else {
            return Action::Nothing;
        };
        let taken = source.times_taken(core);
        if taken != this.taken {
            this.taken = taken;
            // One that has left already has nothing that could be taken.
            if this.state != State::Away {
                this.state = State::Taken;
                return Action::Take;
            }
        }
        let away = source.wants_away(core);
        let (state, action) = match (this.state, seen.presence) {
            (State::Present, _) if away => (State::Clearing, Action::Clear),
            (State::Clearing, _) if !away => (State::Returning, Action::Nothing),
            (State::Clearing, _) if seen.parked => (State::Leaving, Action::SendAway),
            // Groups may have come to it, or have stayed for a while.
            (State::Clearing, _) => (State::Clearing, Action::Clear),
            (State::Leaving, Presence::Away) => (State::Away, Action::Nothing),
            (State::Leaving, Presence::Leaving) if !away => (State::Returning, Action::Recall),
            // It has got a group in between and stays.
            (State::Leaving, Presence::Here) => (State::Clearing, Action::Clear),
            (State::Away | State::Taken, Presence::Returning) => {
                (State::Returning, Action::Nothing)
            }
            (State::Away | State::Taken | State::Returning, Presence::Here) => {
                (State::Present, Action::Welcome)
            }
            (state, _) => (state, Action::Nothing),
        };
        this.state = state;
        action
    }
}

//! What a dataplane has, so that a command that cannot be carried out is refused with the exact reason. The kernel checks
//! again.
use crate::cli::CoresAction;
use crate::page::Page;
use crate::render::count;
use ix_abi::control::{GiveRefusal, header};
use ix_abi::limits::CORES_MAX;

/// Cores and flow groups of a dataplane, as its page tells.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    cores: u64,
    groups: u64,
    /// Cores that serve, a bit each.
    active: u64,
    /// Cores that are reserved for background threads, a bit each.
    background: u64,
    /// Cores that another dataplane has, a bit each.
    away: u64,
    /// Whether a monitor runs below the kernel.
    monitored: bool,
}

impl Shape {
    /// Of a page that a kernel has written.
    pub fn of(page: &Page) -> Shape {
        Shape {
            cores: page.load(header::CORES).min(CORES_MAX as u64),
            groups: page.load(header::GROUPS),
            active: page.load(header::ACTIVE),
            background: page.load(header::BACKGROUND),
            away: page.load(header::AWAY),
            monitored: page.load(header::EXIT_COUNTERS) != 0,
        }
    }

    /// Why this cannot be done, to be read after the dataplane's name.
    pub fn check_cores(&self, action: &CoresAction) -> Result<(), String> {
        let all = self.cores;
        match *action {
            CoresAction::Set { count: wanted } if u64::from(wanted) > all => {
                Err(format!("has {}: {wanted} cannot serve, at most {all} can", count(all, "core")))
            }
            CoresAction::Park { core } | CoresAction::Unpark { core } if u64::from(core) >= all => {
                Err(format!(
                    "has {}, there is no core {core}: see `ixcp cores`",
                    count(all, "core")
                ))
            }
            CoresAction::Reserve { count: wanted } if u64::from(wanted) >= all => Err(format!(
                "has {}: at most {} of {all} can be reserved, and only those that do not serve",
                count(all, "core"),
                all.saturating_sub(1)
            )),
            _ => Ok(()),
        }
    }

    /// Why a core cannot be given to another dataplane.
    pub fn check_give(&self, core: u16) -> Result<(), GiveRefusal> {
        let is_in = |set: u64| set.checked_shr(core.into()).unwrap_or(0) & 1 != 0;
        if !self.monitored {
            Err(GiveRefusal::NoMonitor)
        } else if u64::from(core) >= self.cores {
            Err(GiveRefusal::NoSuchCore)
        } else if core == 0 {
            Err(GiveRefusal::Core0)
        } else if is_in(self.background) {
            Err(GiveRefusal::Reserved)
        } else {
            Ok(())
        }
    }

    /// Why a flow group cannot move to a core, likewise.
    pub fn check_move(&self, group: u16, core: u16) -> Result<(), String> {
        let (groups, all) = (self.groups, self.cores);
        if u64::from(group) >= groups {
            let last = groups.saturating_sub(1);
            return Err(format!(
                "has {groups} flow groups, 0 to {last}: there is no flow group {group}"
            ));
        }
        if u64::from(core) >= all {
            return Err(format!(
                "has {}: core {core} does not serve, it does not exist",
                count(all, "core")
            ));
        }
        if self.away >> core & 1 != 0 {
            return Err(format!(
                "keeps flow group {group} where it is: core {core} is away, another dataplane has it"
            ));
        }
        if self.background >> core & 1 != 0 {
            return Err(format!(
                "keeps flow group {group} where it is: core {core} does not serve, it is reserved for background threads"
            ));
        }
        if self.active >> core & 1 == 0 {
            return Err(format!(
                "keeps flow group {group} where it is: core {core} does not serve, it is parked; `ixcp cores unpark {core}` first"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four cores: 0 and 1 serve, 2 is parked, 3 reserved.
    const SHAPE: Shape = Shape {
        cores: 4,
        groups: 128,
        active: 0b11,
        background: 0b1000,
        away: 0,
        monitored: false,
    };

    #[test]
    fn a_move_that_cannot_be_is_refused_with_the_half_that_is_wrong() {
        let why = |group, core| SHAPE.check_move(group, core).unwrap_err();
        SHAPE.check_move(127, 1).unwrap();
        assert!(why(128, 1).contains("there is no flow group 128"), "{}", why(128, 1));
        assert!(!why(128, 1).contains("core"), "{}", why(128, 1));
        assert!(why(0, 4).contains("core 4 does not serve, it does not exist"), "{}", why(0, 4));
        // Beyond the bits of the word, too.
        assert!(why(0, 64).contains("it does not exist") && why(0, u16::MAX).contains("exist"));
        assert!(why(5, 2).contains("core 2 does not serve, it is parked"), "{}", why(5, 2));
        assert!(why(5, 3).contains("core 3 does not serve, it is reserved"), "{}", why(5, 3));
    }

    #[test]
    fn a_core_is_given_where_there_is_a_monitor_and_it_may_leave() {
        let told = |shape: Shape| [0, 1, 2, 3, 4, 64, u16::MAX].map(|core| shape.check_give(core));
        assert_eq!(told(SHAPE), [Err(GiveRefusal::NoMonitor); 7]);
        let no = Err(GiveRefusal::NoSuchCore);
        let (core0, reserved) = (Err(GiveRefusal::Core0), Err(GiveRefusal::Reserved));
        let shape = Shape { monitored: true, ..SHAPE };
        assert_eq!(told(shape), [core0, Ok(()), Ok(()), reserved, no, no, no]);
        // Whether it has gone already is for the kernel to say: the bit is set before, and after.
        assert_eq!(Shape { away: 0b110, ..shape }.check_give(1), Ok(()));
    }

    #[test]
    fn numbers_of_cores_that_cannot_be_are_refused_with_those_that_can() {
        let why = |action| SHAPE.check_cores(&action).unwrap_err();
        let set = why(CoresAction::Set { count: 5 });
        assert!(set.contains("has 4 cores: 5 cannot serve"), "{set}");
        let reserve = why(CoresAction::Reserve { count: 4 });
        assert!(reserve.contains("at most 3 of 4 can be reserved"), "{reserve}");
        assert!(why(CoresAction::Park { core: 4 }).contains("there is no core 4"));
        SHAPE.check_cores(&CoresAction::Set { count: 4 }).unwrap();
        SHAPE.check_cores(&CoresAction::Reserve { count: 3 }).unwrap();
    }
}

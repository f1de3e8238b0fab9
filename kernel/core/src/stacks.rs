//! Where kernel stacks lie. The layout is what makes the core number a function of the stack pointer:
//! no register has to be swapped on entry, and an NMI at any instruction finds its core.
//!
//! Each core has [`CORE_STRIDE`] bytes at `STACKS_BASE + core * CORE_STRIDE`: from below a guard page,
//! the main stack, and for each [`Ist`] a guard page and its stack. Guard pages are never mapped.

use crate::addr::PAGE;

/// Start of the stack area, kernel half.
pub const STACKS_BASE: u64 = 0xFFFF_D000_0000_0000;
/// Address space of one core's stacks.
pub const CORE_STRIDE: u64 = 1 << 20;
/// Usable bytes of the main stack.
pub const MAIN_BYTES: u64 = 512 << 10;
/// Usable bytes of each interrupt stack.
pub const IST_BYTES: u64 = 32 << 10;

/// The interrupt stacks; the number is the IST index of the TSS, less one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ist {
    /// Exceptions.
    Exception = 0,
    /// Devices, timer, IPIs: apart, so that an exception in a handler keeps its frame.
    Interrupt = 1,
    Nmi = 2,
    DoubleFault = 3,
    MachineCheck = 4,
}

impl Ist {
    pub const ALL: [Ist; 5] =
        [Ist::Exception, Ist::Interrupt, Ist::Nmi, Ist::DoubleFault, Ist::MachineCheck];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Exception => "exception stack",
            Self::Interrupt => "interrupt stack",
            Self::Nmi => "NMI stack",
            Self::DoubleFault => "double fault stack",
            Self::MachineCheck => "machine check stack",
        }
    }
}

const _: () = assert!(
    PAGE + MAIN_BYTES + Ist::ALL.len() as u64 * (PAGE + IST_BYTES) <= CORE_STRIDE,
    "the stacks fit"
);

/// Bottom (lowest usable byte) and top of a core's main stack.
#[must_use]
pub const fn main_stack(core: usize) -> (u64, u64) {
    let bottom = STACKS_BASE + core as u64 * CORE_STRIDE + PAGE;
    (bottom, bottom + MAIN_BYTES)
}

/// Bottom and top of one of a core's interrupt stacks.
#[must_use]
pub const fn ist_stack(core: usize, ist: Ist) -> (u64, u64) {
    let (_, main_top) = main_stack(core);
    let bottom = main_top + ist as u64 * (PAGE + IST_BYTES) + PAGE;
    (bottom, bottom + IST_BYTES)
}

/// Which core's area an address is in; `None` outside the area.
#[must_use]
pub const fn core_of(addr: u64, cores: usize) -> Option<usize> {
    if addr < STACKS_BASE {
        return None;
    }
    let core = ((addr - STACKS_BASE) / CORE_STRIDE) as usize;
    if core < cores { Some(core) } else { None }
}

/// What an address in the stack area is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    Main {
        core: usize,
    },
    Ist {
        core: usize,
        ist: Ist,
    },
    /// The guard page below a stack.
    Guard {
        core: usize,
        below: &'static str,
    },
    /// Past a core's last stack.
    Unused {
        core: usize,
    },
}

#[must_use]
pub fn place_of(addr: u64, cores: usize) -> Option<Place> {
    let core = core_of(addr, cores)?;
    let (bottom, top) = main_stack(core);
    if addr < bottom {
        return Some(Place::Guard { core, below: "kernel stack" });
    }
    if addr < top {
        return Some(Place::Main { core });
    }
    for ist in Ist::ALL {
        let (bottom, top) = ist_stack(core, ist);
        if addr < bottom {
            return Some(Place::Guard { core, below: ist.name() });
        }
        if addr < top {
            return Some(Place::Ist { core, ist });
        }
    }
    Some(Place::Unused { core })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stack_has_an_unmapped_page_right_below_it() {
        for core in [0, 1, 63] {
            let mut all = std::vec![main_stack(core)];
            all.extend(Ist::ALL.map(|i| ist_stack(core, i)));
            for (n, &(bottom, top)) in all.iter().enumerate() {
                assert_eq!(bottom % PAGE, 0);
                assert_eq!(top % 16, 0);
                assert!(matches!(place_of(bottom - 1, 64), Some(Place::Guard { .. })), "{n}");
                assert!(matches!(place_of(bottom - PAGE, 64), Some(Place::Guard { .. })), "{n}");
                assert!(!matches!(place_of(bottom, 64), Some(Place::Guard { .. })), "{n}");
                assert_eq!(place_of(bottom, 64), place_of(top - 1, 64));
            }
            assert!(all.windows(2).all(|w| w[1].0 - w[0].1 == PAGE));
        }
    }

    #[test]
    fn any_stack_pointer_names_its_core() {
        for core in 0..64 {
            let (bottom, top) = main_stack(core);
            assert_eq!(core_of(bottom, 64), Some(core));
            // An empty stack's pointer is its top: still within the same core's area.
            assert_eq!(core_of(top, 64), Some(core));
            for ist in Ist::ALL {
                assert_eq!(core_of(ist_stack(core, ist).1, 64), Some(core));
            }
        }
        assert_eq!(core_of(STACKS_BASE - 1, 64), None);
        assert_eq!(core_of(main_stack(64).0, 64), None);
        assert_eq!(core_of(0x7FFF_FFFF_F000, 64), None);
    }
}

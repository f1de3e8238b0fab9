//! For `selftest=vmx-…` alone: tells a dataplane that is to misbehave where things are that are not its own. Whoever has no
//! such word on the command line gets nothing of this.

use ix_kernel_core::vmx::cpuid::Leaf;

use super::dataplane::Dataplane;

/// CPUID leaves: EAX and EBX are the halves of an address; 0: there is none.
pub const LEAF_MONITOR: u32 = 0x4000_0100;
pub const LEAF_NEIGHBOUR: u32 = 0x4000_0101;
pub const LEAF_BAR: u32 = 0x4000_0102;

/// Whether the dataplane is one for a self-test of the monitor.
pub fn are_given(d: &Dataplane) -> bool {
    d.command_line.split_ascii_whitespace().any(|word| word.starts_with("selftest=vmx-"))
}

pub fn answer(d: &Dataplane, leaf: u32) -> Option<Leaf> {
    if !are_given(d) {
        return None;
    }
    let address = match leaf {
        LEAF_MONITOR => d.ept.root().0,
        LEAF_NEIGHBOUR => {
            let other = super::dataplanes().iter().find(|other| other.name != d.name);
            other.map_or(0, |other| other.memory.somewhere())
        }
        LEAF_BAR => super::a_bar_of_nobody().unwrap_or(0),
        _ => return None,
    };
    Some(Leaf { eax: address as u32, ebx: (address >> 32) as u32, ..Leaf::default() })
}

//! What a dataplane's kernel can ask of the monitor, by VMCALL: the number in RAX, an argument in RBX.

use alloc::format;
use core::sync::atomic::Ordering;

use ix_kernel_core::addr::Phys;
use ix_kernel_core::vmx::ept::{ADDRESS, Ept, Tables};
use ix_kernel_core::vmx::fields as f;
use ix_kernel_core::vmx::give;
use ix_kernel_core::vmx::page::Cause;

use super::hints;
use super::instructions::{RAX, RBX, write};
use super::memory::{HostTables, word};
use super::moves;
use super::serve::Core;
use super::stop::Stop;

/// RBX: guest-physical address of a 64-bit word in its memory that this core counts up while it is alive.
pub const HEARTBEAT: u64 = 1;
/// For `selftest=vmx-entry` and `vmx-misconfiguration` only: spoils what RBX says.
pub const SPOIL: u64 = 2;
/// A field of the VMCS, so that the next entry fails.
pub const SPOIL_ENTRY: u64 = 0;
/// EPT: [`MISCONFIGURED`] is writable and not readable.
pub const SPOIL_EPT: u64 = 1;
/// A guest-physical address that is nobody's: the last GiB below 512 GiB.
pub const MISCONFIGURED: u64 = 511 << 30;

/// This core is handed over, as the monitor page wishes; returns when it is the dataplane's again, at once if there is no wish. RBX: 0,
/// it has nothing left here; else its time is over, and it counts as stopped by force.
pub const LEAVE: u64 = 3;
/// RBX: bits 0 to 7 a core of the dataplane, bits 8 to 15 the dataplane that is to have it, 255: the next that lists it. It is asked
/// for then, through the monitor page, as if somebody else had wanted it. RAX: who gets it, or why it is not given (`ix_kernel_core::vmx::give`).
pub const GIVE: u64 = 4;

pub fn call(c: &mut Core<'_>) -> Result<(), Stop> {
    let (number, argument) = (c.registers.general[RAX], c.registers.general[RBX]);
    match number {
        HEARTBEAT if word(&c.d.ept, argument).is_some() => {
            c.d.virtual_cores[c.me].heartbeat.store(argument, Ordering::Relaxed);
            c.watchdog.restart();
        }
        // Bit 1 of the flags is always 1 (SDM 27.3.1.4).
        SPOIL if hints::are_given(c.d) && argument == SPOIL_ENTRY => {
            c.skip();
            write(f::GUEST_RFLAGS, 0);
            return Ok(());
        }
        SPOIL if hints::are_given(c.d) && argument == SPOIL_EPT => misconfigure(&c.d.ept),
        LEAVE => c.leave(argument != 0),
        GIVE => {
            let (core, to) = ((argument & 0xFF) as usize, (argument >> 8) as u8);
            let to = (to != u8::MAX).then_some(to);
            c.registers.general[RAX] = give::to_word(moves::give(c.d, core, to));
        }
        _ => {
            let text = format!("VMCALL {number:#x} with {argument:#x}");
            return Err(Stop::Misdeed { cause: Cause::Hypercall, detail: number, text });
        }
    }
    c.skip();
    Ok(())
}

/// What `Ept` cannot say: a leaf that may be written and not read (SDM 29.3.3.1).
fn misconfigure(ept: &Ept) {
    const WRITE_ONLY: u64 = 0b010;
    let table = Phys(HostTables.read(ept.root(), 0) & ADDRESS);
    HostTables.write(table, (MISCONFIGURED >> 30) as usize, WRITE_ONLY);
}

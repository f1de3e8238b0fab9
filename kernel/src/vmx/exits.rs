//! What brings a dataplane's core out, and what becomes of it: carried out, refused as on a CPU, or the end of this life.

use alloc::format;
use alloc::string::String;
use core::sync::atomic::Ordering;

use ix_kernel_core::vmx::bitmaps::{X2APIC_LINT, X2APIC_VECTORS, lint_allowed, vector_allowed};
use ix_kernel_core::vmx::cores::Cores;
use ix_kernel_core::vmx::cpuid::{self, Asker, Leaf};
use ix_kernel_core::vmx::exits::{CrAccess, EptViolation, Exit, Interruption, Io, Reason};
use ix_kernel_core::vmx::fields as f;
use ix_kernel_core::vmx::icr::{self, Action};
use ix_kernel_core::vmx::page::Cause;
use ix_kernel_core::vmx::watchdog::{Look, Verdict};

use super::calls;
use super::instructions::{self, RAX, RBX, RCX, RDX, rdmsr, read, wrmsr};
use super::memory::word;
use super::serve::Core;
use super::stop::Stop;
use super::{moves, ports, vmcs};
use crate::{crash, time};

const APIC_BASE: u32 = 0x1B;
const X2APIC_ICR: u32 = 0x830;
const INVALID_OPCODE: u8 = 6;
const HALTED: u64 = 1;
const INTERRUPTS_ON: u64 = 1 << 9;

pub fn handle(c: &mut Core<'_>, exit: Exit) -> Result<(), Stop> {
    let Some(reason) = exit.reason() else { return Err(unknown(exit)) };
    match reason {
        Reason::ExceptionOrNmi => nmi(exit),
        Reason::NmiWindow => {
            vmcs::watch_nmi_window(c.s, false);
            Ok(())
        }
        Reason::PreemptionTimer => look(c),
        Reason::Cpuid => {
            answer_cpuid(c);
            c.skip();
            Ok(())
        }
        Reason::Io => {
            let io = Io(read(f::EXIT_QUALIFICATION));
            c.registers.general[RAX] = ports::access(c.d, io, c.registers.general[RAX])?;
            c.skip();
            Ok(())
        }
        Reason::Rdmsr => read_msr(c),
        Reason::Wrmsr => write_msr(c),
        Reason::Vmcall if privilege() == 0 => calls::call(c),
        // In ring 3 they are what they are on a CPU: the application's mistake, not the kernel's.
        _ if reason.is_instruction_of_root() && privilege() != 0 => {
            vmcs::inject(Interruption::exception(INVALID_OPCODE, false), 0, 0);
            Ok(())
        }
        Reason::Xsetbv => set_xcr0(c),
        _ => Err(misdeed(exit, reason)),
    }
}

/// The guest's privilege level (SDM 26.4.1: SS's).
fn privilege() -> u64 {
    read(f::GUEST_SS_ACCESS) >> 5 & 3
}

/// What ends this life, whatever the guest meant by it.
fn misdeed(exit: Exit, reason: Reason) -> Stop {
    let qualification = read(f::EXIT_QUALIFICATION);
    let address = read(f::GUEST_PHYSICAL_ADDRESS);
    let instruction = || (Cause::Instruction, exit.number().into(), reason.name().into());
    let (cause, detail, text): (_, _, String) = match reason {
        Reason::EptViolation => {
            let violation = EptViolation(qualification);
            let mapped = if violation.is_mapped() { ", which it may not change" } else { "" };
            let text = format!("{} {address:#x}{mapped}", violation.verb());
            (Cause::EptViolation, address, text)
        }
        Reason::EptMisconfiguration => {
            (Cause::EptMisconfiguration, address, format!("at {address:#x}"))
        }
        Reason::TripleFault => (Cause::TripleFault, 0, "no handler could be started".into()),
        Reason::ControlRegister => {
            let access = CrAccess::decode(qualification);
            (Cause::ControlRegister, qualification, format!("{access:?}"))
        }
        Reason::Invd
        | Reason::Wbinvd
        | Reason::Rdpmc
        | Reason::DebugRegister
        | Reason::Mwait
        | Reason::Monitor => instruction(),
        _ if reason.is_instruction_of_root() => instruction(),
        _ => return unknown(exit),
    };
    Stop::Misdeed { cause, detail, text }
}

fn unknown(exit: Exit) -> Stop {
    let text = format!("{} ({:#x})", exit.name(), exit.0);
    Stop::Misdeed { cause: Cause::UnknownExit, detail: u64::from(exit.0), text }
}

/// The monitor calls a core out so; why, it sees before it enters again.
fn nmi(exit: Exit) -> Result<(), Stop> {
    if Interruption(read(f::EXIT_INTERRUPTION_INFO) as u32).is_nmi() {
        instructions::unblock_nmi();
        if crash::under_way() {
            // The monitor itself has crashed, on another core.
            crash::park();
        }
        return Ok(());
    }
    Err(unknown(exit))
}

/// The preemption timer: is the core alive?
fn look(c: &mut Core<'_>) -> Result<(), Stop> {
    // It may have fired for a move's sake.
    if !c.begin_look() {
        return Ok(());
    }
    let at = c.d.virtual_cores[c.me].heartbeat.load(Ordering::Relaxed);
    let beat = (at != 0).then(|| word(&c.d.ept, at)).flatten();
    let is_idle = read(f::GUEST_ACTIVITY) == HALTED && read(f::GUEST_RFLAGS) & INTERRUPTS_ON != 0;
    match c.watchdog.look(Look { beat, is_idle }) {
        Verdict::Alive => Ok(()),
        Verdict::Hung { looks } => {
            let text = format!("its heartbeat has stood still for {looks} looks, 100 ms apart");
            Err(Stop::Misdeed { cause: Cause::Hang, detail: u64::from(looks), text })
        }
    }
}

fn answer_cpuid(c: &mut Core<'_>) {
    let g = &mut c.registers.general;
    let (leaf, subleaf) = (g[RAX] as u32, g[RCX] as u32);
    let host = raw_cpuid::cpuid!(leaf, subleaf);
    let host = Leaf { eax: host.eax, ebx: host.ebx, ecx: host.ecx, edx: host.edx };
    let who = Asker {
        apic_id: c.d.apic_ids[c.me],
        cr4: read(f::GUEST_CR4),
        page: c.d.page_at.0,
        tsc_khz: time::tsc_khz() as u32,
        instructions: c.s.instructions,
    };
    let told =
        super::hints::answer(c.d, leaf).unwrap_or_else(|| cpuid::answer(leaf, subleaf, host, &who));
    for (register, value) in [(RAX, told.eax), (RBX, told.ebx), (RCX, told.ecx), (RDX, told.edx)] {
        g[register] = u64::from(value);
    }
}

fn read_msr(c: &mut Core<'_>) -> Result<(), Stop> {
    let msr = c.registers.general[RCX] as u32;
    if msr != APIC_BASE {
        return Err(msr_misdeed(msr, format!("RDMSR of {msr:#x}")));
    }
    let value = rdmsr(APIC_BASE);
    c.registers.general[RAX] = value & 0xFFFF_FFFF;
    c.registers.general[RDX] = value >> 32;
    c.skip();
    Ok(())
}

fn msr_misdeed(msr: u32, text: String) -> Stop {
    Stop::Misdeed { cause: Cause::Msr, detail: u64::from(msr), text }
}

fn write_msr(c: &mut Core<'_>) -> Result<(), Stop> {
    let g = &c.registers.general;
    let msr = g[RCX] as u32;
    let value = g[RDX] << 32 | g[RAX] & 0xFFFF_FFFF;
    match msr {
        X2APIC_ICR => interrupt_command(c, value)?,
        // It is on, in x2APIC mode, and stays so.
        APIC_BASE if value == rdmsr(APIC_BASE) => {}
        _ if X2APIC_LINT.contains(&msr) && lint_allowed(value) => wrmsr(msr, value),
        _ if X2APIC_VECTORS.contains(&msr) && vector_allowed(msr, value) => wrmsr(msr, value),
        _ => return Err(msr_misdeed(msr, format!("WRMSR of {value:#x} to {msr:#x}"))),
    }
    c.skip();
    Ok(())
}

/// The guest interrupts or starts cores of its own.
fn interrupt_command(c: &Core<'_>, value: u64) -> Result<(), Stop> {
    let each = |to: Cores, f: &dyn Fn(usize)| to.iter().for_each(f);
    let core = |i: usize| &c.d.virtual_cores[i];
    match icr::judge(value, &c.d.apic_ids, c.me) {
        Action::Deliver { to, vector } => {
            each(to, &|i| moves::interrupt(c.d, i, vector));
        }
        Action::Init(to) => each(to, &|i| {
            core(i).got_init();
            c.d.kick(i);
        }),
        Action::Startup { to, page } => each(to, &|i| {
            moves::while_there(c.d, i, |is_there| {
                if is_there {
                    core(i).startup(page);
                }
            });
        }),
        Action::Nmi(to) => each(to, &|i| {
            core(i).nmi.store(true, Ordering::Release);
            if i != c.me {
                c.d.kick(i);
            }
        }),
        Action::Nothing => {}
        Action::Refuse(refusal) => {
            let text = format!("{}: {value:#x}", refusal.name());
            return Err(Stop::Misdeed { cause: Cause::Icr, detail: value, text });
        }
    }
    Ok(())
}

fn set_xcr0(c: &Core<'_>) -> Result<(), Stop> {
    let g = &c.registers.general;
    let value = g[RDX] << 32 | g[RAX] & 0xFFFF_FFFF;
    let index = g[RCX] as u32;
    if index != 0 || c.s.xcr0 == 0 || !cpuid::xcr0_allowed(value, c.s.xcr0) {
        let text = format!("XSETBV of {value:#x} to XCR{index}");
        return Err(Stop::Misdeed { cause: Cause::Xsetbv, detail: value, text });
    }
    instructions::set_xcr0(value);
    c.skip();
    Ok(())
}

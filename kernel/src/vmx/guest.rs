//! The kernel's side when it is a dataplane under the monitor: how it knows, what it tells, what it is told.
#![allow(unsafe_code, reason = "VMCALL, and the monitor page by its address")]

use core::arch::asm;
use core::sync::atomic::AtomicU64;

use ix_abi::control::{DATAPLANE_NAME_BYTES, GiveRefusal, core_block, core_offset, header};
use ix_kernel_core::addr::{PAGE, Phys, Virt};
use ix_kernel_core::paging;
use ix_kernel_core::vmx::cpuid::{LEAF_PAGE, LEAF_SIGNATURE, LEAF_TSC, SIGNATURE};
use ix_kernel_core::vmx::exits::COUNTERS;
use ix_kernel_core::vmx::give;
use ix_kernel_core::vmx::page::{CONTAINMENT_WORDS, Containment, NAME_BYTES, Page, Wish};
use spin::Once;

use super::calls;
use crate::control;
use crate::mem::{self, DirectTables};
use crate::time;

const _: () =
    assert!(COUNTERS <= core_block::EXITS_MAX && CONTAINMENT_WORDS == header::CONTAINMENT_WORDS);
const _: () = assert!(NAME_BYTES == DATAPLANE_NAME_BYTES);

static PAGE_SEEN: Once<Option<Page<'static>>> = Once::new();

/// Whether the hypervisor's name is that of IX's monitor.
pub fn is_guest() -> bool {
    let features = raw_cpuid::CpuId::new().get_feature_info();
    if !features.is_some_and(|f| f.has_hypervisor()) {
        return false;
    }
    let leaf = raw_cpuid::cpuid!(LEAF_SIGNATURE);
    let mut name = [0; 12];
    for (part, word) in name.as_chunks_mut::<4>().0.iter_mut().zip([leaf.ebx, leaf.ecx, leaf.edx]) {
        *part = word.to_le_bytes();
    }
    &name == SIGNATURE
}

/// The TSC's frequency as the monitor has found it; `None`: there is no monitor.
pub fn tsc_khz() -> Option<u64> {
    is_guest().then(|| u64::from(raw_cpuid::cpuid!(LEAF_TSC).eax))
}

/// Looks for the monitor page; at boot. Whether there is a monitor.
pub fn find() -> bool {
    PAGE_SEEN.call_once(open);
    is_guest()
}

/// The monitor page, if there is one.
pub fn page() -> Option<&'static Page<'static>> {
    PAGE_SEEN.get().and_then(Option::as_ref)
}

fn open() -> Option<Page<'static>> {
    if !is_guest() {
        return None;
    }
    let leaf = raw_cpuid::cpuid!(LEAF_PAGE);
    let at = Phys(u64::from(leaf.ebx) << 32 | u64::from(leaf.eax));
    let head = words(at, PAGE)?;
    let bytes = Page::len_of(&head[..4])? as u64 * 8;
    Page::open(words(at, bytes)?)
}

fn words(at: Phys, bytes: u64) -> Option<&'static [AtomicU64]> {
    let va = mem::map_firmware(at, bytes).ok()?;
    // SAFETY: mapped for good, read-only, and only loads are done: the monitor's side alone stores.
    Some(unsafe { core::slice::from_raw_parts(va.0 as *const AtomicU64, bytes as usize / 8) })
}

/// How often the dataplane was started; 0: there is no monitor.
pub fn life() -> u64 {
    page().map_or(0, Page::lives)
}

/// Asks the monitor for something (`calls`); what it answers. Only a guest of it may.
pub fn call(number: u64, argument: u64) -> u64 {
    let answer;
    // SAFETY: no call changes memory, or another register than RAX. RBX is the compiler's own, so it is exchanged around the call.
    unsafe {
        asm!(
            "xchg rbx, {argument}",
            "vmcall",
            "xchg rbx, {argument}",
            argument = inout(reg) argument => _,
            inout("rax") number => answer,
        );
    }
    answer
}

/// Whether another dataplane has the core now.
pub fn is_away(core: usize) -> bool {
    page().is_some_and(|page| page.is_away(core))
}

/// Whether the monitor wishes that the core leaves.
pub fn is_wished_away(core: usize) -> bool {
    page().is_some_and(|page| page.wish(core) != Wish::Keep)
}

/// Whether it has wished that for too long: the core is about to be stopped wherever it is.
pub fn is_overdue(core: usize) -> bool {
    match page().map(|page| page.wish(core)) {
        Some(Wish::Leave { deadline }) => time::tsc() >= deadline,
        _ => false,
    }
}

/// How often the core was stopped before it had left, since the machine has started.
pub fn times_taken(core: usize) -> u32 {
    page().map_or(0, |page| page.leaves(core).1 as u32)
}

/// How often the core has gone to another dataplane since the machine has started, as the control page has it.
pub fn leaves(core: usize) -> u64 {
    let (asked, forced) = page().map_or((0, 0), |page| page.leaves(core));
    asked & 0xFFFF_FFFF | forced << 32
}

/// Gives a core to the next dataplane that lists it, or to the one of that name, which may be any bytes. It is asked for from now
/// on, as by anybody else; who gets it.
pub fn give(core: usize, name: Option<&[u8]>) -> Result<u8, GiveRefusal> {
    // Without a monitor, its call is an undefined instruction.
    let page = page().ok_or(GiveRefusal::NoMonitor)?;
    let to = match name {
        Some(name) => page.find_neighbour(name).ok_or(GiveRefusal::NoSuchDataplane)?,
        None => u8::MAX,
    };
    give::from_word(call(calls::GIVE, core as u64 & 0xFF | u64::from(to) << 8))
}

/// Hands this core over, `ready` for it or not; returns when it is the dataplane's again.
pub fn leave(ready: bool) {
    call(calls::LEAVE, u64::from(!ready));
}

/// Tells the monitor the word that this core counts up while it is alive.
pub fn announce_heartbeat(word: &'static AtomicU64) {
    if !is_guest() {
        return;
    }
    let at = Virt(word as *const AtomicU64 as u64);
    if let Some(page) = paging::lookup(&DirectTables, mem::root(), at) {
        call(calls::HEARTBEAT, page.pa.0 + (at.0 - page.va.0));
    }
}

/// What the control page's head says of the monitor: how often the dataplane was started and stopped, and why the last time.
pub fn publish_facts() {
    let Some(page) = page() else { return };
    control::set(header::EXIT_COUNTERS, COUNTERS as u64);
    control::set(header::LIVES, page.lives());
    control::set(header::CONTAINMENTS, page.containments());
    let words = page.containment().map_or([0; CONTAINMENT_WORDS], Containment::to_words);
    for (i, word) in words.into_iter().enumerate() {
        control::set(header::CONTAINMENT + i * 8, word);
    }
}

/// Copies a core's exits to its block of the control page.
pub fn publish_exits(core: usize) {
    let Some(page) = page() else { return };
    let block = core_offset(core) + core_block::EXITS;
    for i in 0..COUNTERS {
        control::set(block + i * 8, page.exits(core, i));
    }
}

//! Properties of the kernel's memory, read out of the tables that the CPU uses.
#![allow(unsafe_code, reason = "touches allocated frames")]

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use ix_kernel_core::addr::{LARGE_PAGE, PAGE, Phys, Virt};
use ix_kernel_core::paging::{self, Access, MaxPage, Range, Space};
use x86_64::registers::control::Cr3;

use crate::mem::{self, DirectTables, layout};

type Outcome = Result<(), String>;

/// No page is writable and executable, none of the kernel's is open to ring 3, the lower half is
/// empty, and no writable page is an alias of text or constants.
pub fn wx_check() -> Outcome {
    let root = Phys(Cr3::read().0.start_address().as_u64());
    let [text, rodata, _] = layout::sections();
    let code = layout::image_phys(Virt(text.start)).0..layout::image_phys(Virt(rodata.end)).0;
    let mut wrong: Vec<String> = Vec::new();
    let (mut leaves, mut executable) = (0u64, 0u64);
    paging::for_each_leaf(&DirectTables, root, 0..512, &mut |m| {
        leaves += 1;
        let e = m.entry;
        executable += if e.is_executable() { m.size } else { 0 };
        let aliases = m.pa.0 < code.end && code.start < m.pa.0 + m.size;
        for (bad, what) in [
            (e.is_writable() && e.is_executable(), "writable and executable"),
            (e.is_user(), "open to ring 3"),
            (m.va.0 >> 47 == 0, "in the lower half"),
            (e.is_writable() && aliases, "a writable alias of text or constants"),
        ] {
            if bad {
                wrong.push(format!("{:?} ({} bytes) is {what}", m.va, m.size));
            }
        }
    });
    if executable != text.end - text.start {
        wrong.push(format!("{executable} executable bytes, text has {}", text.end - text.start));
    }
    match wrong.first() {
        None => {
            log::info!("{leaves} leaves checked, {executable} bytes executable");
            Ok(())
        }
        Some(first) => Err(format!("{} violations, first: {first}", wrong.len())),
    }
}

/// Takes every 2 MiB frame there is, writes and reads each through the direct map (also above 4 GiB),
/// and gives all back.
pub fn use_memory() -> Outcome {
    let before = mem::free_bytes();
    let mut frames = Vec::with_capacity((before / LARGE_PAGE) as usize + 1);
    let mut high = 0u64;
    while let Some(f) = mem::alloc_large() {
        let at = layout::direct(f) as *mut u64;
        // SAFETY: the frame is ours.
        unsafe { at.write_volatile(f.0 ^ 0x5A5A) };
        high += u64::from(f.0 >= 4 << 30);
        frames.push(f);
    }
    for &f in &frames {
        // SAFETY: as above.
        let got = unsafe { (layout::direct(f) as *const u64).read_volatile() };
        if got != f.0 ^ 0x5A5A {
            return Err(format!("frame {f:?} reads back {got:#x}"));
        }
    }
    log::info!("{} frames of 2 MiB used, {high} above 4 GiB", frames.len());
    let n = frames.len();
    frames.drain(..).for_each(|f| mem::free(f, LARGE_PAGE));
    let after = mem::free_bytes();
    if after > before || before - after > 64 << 20 || n == 0 {
        return Err(format!("{before} bytes were free, {after} are"));
    }
    Ok(())
}

/// The archive and everything else that the loader left stays as it was while all free memory is
/// written to.
pub fn placement() -> Outcome {
    let before = archive_hash()?;
    let mut frames: Vec<(Phys, u64)> = Vec::with_capacity(1 << 16);
    let sizes = [LARGE_PAGE, PAGE];
    for size in sizes {
        let take = || if size == PAGE { mem::alloc_page() } else { mem::alloc_large() };
        while frames.len() < frames.capacity() {
            let Some(frame) = take() else { break };
            let words = layout::direct(frame) as *mut u64;
            for i in 0..size as usize / 8 {
                // SAFETY: the frame is ours.
                unsafe { words.add(i).write_volatile(!0) };
            }
            frames.push((frame, size));
        }
    }
    let kept = crate::boot::facts().areas.iter();
    for a in kept.filter(|a| a.name != "framebuffer") {
        let overlaps = |(f, size): &&(Phys, u64)| f.0 < a.start + a.len && a.start < f.0 + size;
        if let Some((f, _)) = frames.iter().find(overlaps) {
            return Err(format!("frame {f:?} was handed out, the {} is at {:#x}", a.name, a.start));
        }
    }
    let after = archive_hash()?;
    let count = frames.len();
    frames.drain(..).for_each(|(f, size)| mem::free(f, size));
    if before != after {
        return Err(format!("the archive's hash was {before:#x}, is {after:#x}"));
    }
    log::info!("archive hash {after:#018x} before and after {count} frames were written");
    Ok(())
}

/// FNV-1a over the archive's bytes.
fn archive_hash() -> Result<u64, String> {
    let archive = crate::start::machine().archive.as_ref().ok_or("no archive")?;
    let fnv = |h: u64, b: &u8| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01B3);
    Ok(archive.bytes().iter().fold(0xCBF2_9CE4_8422_2325, fnv))
}

/// Some frames above 4 GiB, where the machine has such memory.
pub fn use_high_memory() -> Outcome {
    for _ in 0..16 {
        let f = mem::alloc_large().ok_or("no memory")?;
        if f.0 < 4 << 30 {
            return Err(format!("the highest free frame is {f:?}"));
        }
        let at = layout::direct(f) as *mut u64;
        // SAFETY: the frame is ours.
        let back = unsafe {
            at.write_volatile(f.0);
            at.read_volatile()
        };
        if back != f.0 {
            return Err(format!("frame {f:?} reads back {back:#x}"));
        }
    }
    Ok(())
}

const USER_PAGE: u64 = 0x4000_0000;

fn map_user(access: Access) -> Result<(), String> {
    let frame = mem::alloc_large().ok_or("no memory")?;
    let r = Range { va: Virt(USER_PAGE), pa: frame, len: LARGE_PAGE };
    paging::map(&mut DirectTables, mem::root(), r, access, Space::User, MaxPage::Large)
        .map_err(|e| format!("{e:?}"))
}

/// With SMAP on, ring 0 cannot read user memory.
pub fn read_user() -> Outcome {
    map_user(Access::Write)?;
    // SAFETY: none: the test is that this faults.
    let _ = unsafe { (USER_PAGE as *const u64).read_volatile() };
    Err("the kernel read user memory".into())
}

/// With SMEP on, ring 0 cannot run user code.
pub fn execute_user() -> Outcome {
    map_user(Access::Execute)?;
    // SAFETY: none: the test is that this faults.
    unsafe { core::arch::asm!("call {}", in(reg) USER_PAGE, clobber_abi("C")) };
    Err("the kernel ran user code".into())
}

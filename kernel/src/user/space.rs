//! An address space: the kernel half of every other, and a lower half of 2 MiB pages of its own.
#![allow(unsafe_code, reason = "edits page tables, reaches user frames through the direct map")]

use alloc::collections::BTreeMap;
use core::sync::atomic::AtomicU32;

use ix_kernel_core::addr::{LARGE_PAGE, PAGE, Phys, Virt};
use ix_kernel_core::paging::{self, Access, MapError, MaxPage, Range, Space, Tables};

use crate::iommu;
use crate::mem::{self, DirectTables, layout};

/// Top-level entries of the lower half.
const LOWER: core::ops::Range<usize> = 0..256;

pub struct AddressSpace {
    root: Phys,
    /// Frames that live and die with the space, by address.
    owned: BTreeMap<u64, Phys>,
}

impl AddressSpace {
    pub fn new() -> Option<Self> {
        let root = mem::alloc_page()?;
        let mut tables = DirectTables;
        for i in LOWER.end..512 {
            let e = tables.read(mem::root(), i);
            tables.write(root, i, e);
        }
        Some(Self { root, owned: BTreeMap::new() })
    }

    pub fn root(&self) -> Phys {
        self.root
    }

    /// Maps a fresh zeroed frame at `va`.
    pub fn map_fresh(&mut self, va: u64, access: Access) -> Result<Phys, MapError> {
        let frame = mem::alloc_large().ok_or(MapError::NoMemory)?;
        match self.map_shared(va, frame, LARGE_PAGE, access) {
            Ok(()) => {
                self.owned.insert(va, frame);
                Ok(frame)
            }
            Err(e) => {
                mem::free(frame, LARGE_PAGE);
                Err(e)
            }
        }
    }

    /// Maps memory that belongs to somebody else.
    pub fn map_shared(&self, va: u64, pa: Phys, len: u64, a: Access) -> Result<(), MapError> {
        let r = Range { va: Virt(va), pa, len };
        paging::map(&mut DirectTables, self.root, r, a, Space::User, MaxPage::Large)
    }

    /// Takes a fresh page out again and hands its frame over. The caller flushes TLBs before the
    /// frame is used again.
    pub fn unmap(&mut self, va: u64) -> Option<Phys> {
        let frame = self.owned.remove(&va)?;
        paging::unmap(&mut DirectTables, self.root, Virt(va))?;
        Some(frame)
    }

    /// Frees a frame that [`AddressSpace::unmap`] had handed over.
    pub fn free(frame: Phys) {
        // What the card may still reach is nobody's.
        if iommu::take(frame, LARGE_PAGE) {
            mem::free(frame, LARGE_PAGE);
        }
    }

    /// The 2 MiB frame under `va` and the offset in it.
    pub fn frame_of(&self, va: u64) -> Option<(Phys, u64)> {
        let m = paging::lookup(&DirectTables, self.root, Virt(va))?;
        (m.size == LARGE_PAGE).then_some((m.pa, va - m.va.0))
    }

    pub fn is_mapped(&self, va: u64) -> bool {
        paging::lookup(&DirectTables, self.root, Virt(va)).is_some()
    }

    /// A word of user memory, whole, through the kernel's alias. It may change at any time. `None`: no address of four
    /// bytes that may be used so.
    pub fn word(&self, va: u64, write: bool) -> Option<&AtomicU32> {
        if !va.is_multiple_of(4) || !ix_kernel_core::addr::is_user(va) {
            return None;
        }
        let m = paging::lookup(&DirectTables, self.root, Virt(va))?;
        let allowed = m.entry.is_user() && (m.entry.is_writable() || !write);
        let at = layout::direct(Phys(m.pa.0 + (va - m.va.0))) as *mut u32;
        // SAFETY: RAM of the application in the direct map, aligned; the page is not freed before its address has been
        // taken out of the space, which the borrow excludes. The application's accesses are like a device's to us.
        allowed.then(|| unsafe { AtomicU32::from_ptr(at) })
    }

    /// Copies from user memory; returns how many bytes could be read. For control paths: walks the
    /// tables. The bytes may change while they are copied.
    pub fn read(&self, va: u64, to: &mut [u8]) -> usize {
        let mut done = 0;
        while done < to.len() {
            let Some(at) = va.checked_add(done as u64) else { break };
            if !ix_kernel_core::addr::is_user(at) {
                break;
            }
            let Some(m) = paging::lookup(&DirectTables, self.root, Virt(at)) else { break };
            if !m.entry.is_user() {
                break;
            }
            let within = at - m.va.0;
            let n = ((m.size - within) as usize).min(to.len() - done);
            let from = layout::direct(Phys(m.pa.0 + within)) as *const u8;
            for (i, byte) in to[done..done + n].iter_mut().enumerate() {
                // SAFETY: RAM of the application, in the direct map; volatile, since the
                // application may write it meanwhile.
                *byte = unsafe { from.add(i).read_volatile() };
            }
            done += n;
        }
        done
    }
}

impl Drop for AddressSpace {
    /// The space is loaded on no core and no device refers to its frames: `lifecycle` sees to both.
    fn drop(&mut self) {
        paging::for_each_table(&mut DirectTables, self.root, LOWER, &mut |_, t| mem::free(t, PAGE));
        mem::free(self.root, PAGE);
        core::mem::take(&mut self.owned).into_values().for_each(Self::free);
    }
}

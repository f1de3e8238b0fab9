//! The network card that is not there (`nic=loopback`): opens it, and is the machine that it is in.
#![allow(unsafe_code, reason = "plays the device: reads frames by bus address")]

use alloc::string::{String, ToString};

use ix_dataplane::device::BusAddr;
use ix_dataplane::mbuf::Area;
use ix_kernel_core::addr::Phys;
use ix_loopback::{Config, Host, Port};

use crate::mem::layout;
use crate::net::{self, Wishes};
use crate::time;

/// Receive buffers of a core; its lanes share them.
const RX_RING: u16 = 2048;
const TX_RING: u16 = 1024;

/// Stores are seen by all cores after this.
const STORE_VISIBLE_NS: u64 = 1_000;

/// This machine. Queue pair `i` is core `i`'s.
#[derive(Clone, Copy, Debug)]
pub struct Machine;

impl Host for Machine {
    #[inline]
    fn read(&self, from: BusAddr, to: &mut [u8]) -> bool {
        let len = to.len() as u64;
        if from.0.checked_add(len).is_none_or(|end| end > layout::DIRECT_BYTES) {
            return false;
        }
        // SAFETY: bus addresses are physical ones of RAM, which the direct map has: they come from the `Dma` service, the receive
        // area or the application's frames, and stay what they are until the frame is complete, which this call comes before.
        // The application may write to it meanwhile: so it is read by an instruction that the compiler knows nothing of.
        unsafe {
            core::arch::asm!(
                "rep movsb",
                inout("rcx") to.len() => _,
                inout("rsi") layout::direct(Phys(from.0)) => _,
                inout("rdi") to.as_mut_ptr() => _,
                options(nostack, preserves_flags)
            );
        }
        true
    }

    /// By IPI, as a device's interrupt would be: its core halts, or is about to.
    #[inline]
    fn interrupt(&self, queue: u16) {
        net::wake_core(usize::from(queue));
    }

    /// The time-stamp counter, as all of the kernel has it.
    #[inline]
    fn now(&self) -> u64 {
        time::tsc()
    }

    fn settle(&self) {
        time::wait_ns(STORE_VISIBLE_NS);
    }
}

/// A port with a queue pair for each core. Errors say what to do.
pub fn open(
    cores: usize,
    area: &'static Area,
    rss_key: [u8; 40],
    wishes: Wishes,
) -> Result<Port<Machine>, String> {
    if let Some(vlan) = wishes.vlan {
        return Err(alloc::format!("cannot tag frames (vlan={vlan}): leave the option out"));
    }
    if wishes.pause {
        return Err("sends no pause frames (pause=on): leave the option out".to_string());
    }
    Ok(ix_loopback::open(&Config {
        host: Machine,
        area,
        queue_pairs: cores as u16,
        rx_ring: RX_RING,
        tx_ring: TX_RING,
        rss_key,
        mtu: wishes.mtu,
    }))
}

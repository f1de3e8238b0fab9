//! What is on the other side of the cable: whether the gateway of the command line answers, and wakes a core.

use alloc::format;
use alloc::string::String;
use ix_dataplane::device::{RxQueue, TxQueue};
use ix_kernel_core::cmdline::Address;
use ix_kernel_core::nictest::{LEN_MIN, arp_request, is_arp_answer};

use super::Report;
use super::bench::Bench;
use super::loopback::{halt, settle};
use crate::cpu::trap::VECTOR_DEVICE_FIRST;
use crate::pci::Function;
use crate::pci::msix::Msix;
use crate::start::machine;
use crate::time;

/// Times that it is asked, and how long each time is waited.
const TIMES: usize = 5;
const WAIT_NS: u64 = 500_000_000;

/// What was heard.
struct Answer {
    took_ns: u64,
    woken: bool,
}

/// Asks the gateway, if there is one.
pub fn items(report: &mut Report, f: &Function, bench: &mut Bench) {
    let config = &machine().config;
    let (Address::Static { addr, .. }, Some(gateway)) = (config.address, config.gateway) else {
        return report
            .not_offered("wire", format_args!("no ip= and gw= on the command line to ask by"));
    };
    let vectors = Msix::enable(f).filter(|m| usize::from(m.entries()) >= bench.rx.len());
    if let Some(msix) = &vectors {
        for queue in 0..bench.rx.len() {
            msix.set(queue as u16, 0, VECTOR_DEVICE_FIRST);
        }
    }
    let [a, b, c, d] = gateway;
    let answer = (0..TIMES).find_map(|_| ask(bench, addr, gateway));
    let found = match &answer {
        Some(answer) => Ok(format!("{a}.{b}.{c}.{d} answers within {} us", answer.took_ns / 1000)),
        None => Err(format!("{a}.{b}.{c}.{d} does not answer")),
    };
    report.outcome("wire", &found);
    let woken: Result<String, String> = match answer {
        Some(Answer { woken: true, .. }) => Ok("its answer wakes a core that halts".into()),
        Some(_) => Err("its answer came without an interrupt".into()),
        None => return,
    };
    match vectors {
        Some(_) => report.outcome("wake", &woken),
        None => {
            report.not_offered("wake", format_args!("the card has no MSI-X vector for each queue"));
        }
    }
}

/// Asks once, and halts until something comes.
fn ask(bench: &mut Bench, sender: [u8; 4], target: [u8; 4]) -> Option<Answer> {
    bench.poll(|_, _, _| {});
    let request = arp_request(bench.mac, sender, target);
    bench.slot(0)[..LEN_MIN].copy_from_slice(&request);
    for queue in 0..bench.rx.len() {
        // On a wire others may talk at any time.
        settle(bench, queue);
    }
    let mut waiting = false;
    let begin = time::now_ns();
    bench.push(0, 0, LEN_MIN, None);
    bench.tx[0].kick();
    let mut took_ns = None;
    let mut woken = false;
    while took_ns.is_none() && time::now_ns() - begin < WAIT_NS {
        if !waiting {
            woken |= halt(WAIT_NS / 4);
        }
        bench.poll(|_, _, bytes| {
            if is_arp_answer(bytes, sender, target) {
                took_ns = Some(time::now_ns() - begin);
            }
        });
        waiting = false;
        for rx in &mut bench.rx {
            waiting |= rx.arm_interrupt();
        }
    }
    bench.rx.iter_mut().for_each(RxQueue::disarm_interrupt);
    bench.tx[0].reclaim();
    took_ns.map(|took_ns| Answer { took_ns, woken })
}

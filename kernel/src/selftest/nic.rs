//! `app=nictest`: a self-test of the network card, whose report a person with a card can send (`docs/hardware.md`). It runs in place of
//! an application and in the kernel, since applications see sockets only; core 0 has all queues, the others wait.
//!
//! Each line of the report is one item with PASS, FAIL or NOT OFFERED; what is tested where the card is another is NOT OFFERED, and
//! one that fails does not keep the others from being tried.

mod bench;
mod loopback;
mod wire;

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt::Arguments;

use ix_dataplane::device::NicControl;
use ix_dataplane::time::Instant;
use ix_ixgbe::pci::Media;
use ix_ixgbe::sfp::{Medium, ModuleError};
use ix_kernel_core::nictest::{Anonymous, Line, Padded, Tally, Verdict};

use crate::nic::Control;
use crate::pci::Function;
use crate::pci::registers::Registers;
use crate::report::has_hypervisor;
use crate::{console, net, time};
use bench::Bench;

/// The form of the report: readers may be programs.
const FORM: u32 = 1;

/// The driver of the card that most items are about.
type Ixgbe = ix_ixgbe::Control<Registers>;

fn clock() -> Instant {
    Instant(time::now_ns())
}

/// What is written and counted.
struct Report(Tally);

impl Report {
    fn line(&mut self, verdict: Verdict, item: &str, found: Arguments<'_>) {
        self.0.add(verdict);
        // Whatever the log's level: this is what was asked for.
        console::line(format_args!("nictest: {}", Line { verdict, item, found }));
    }

    fn pass(&mut self, item: &str, found: Arguments<'_>) {
        self.line(Verdict::Pass, item, found);
    }

    fn fail(&mut self, item: &str, found: Arguments<'_>) {
        self.line(Verdict::Fail, item, found);
    }

    fn not_offered(&mut self, item: &str, why: Arguments<'_>) {
        self.line(Verdict::NotOffered, item, why);
    }

    fn outcome(&mut self, item: &str, outcome: &Result<String, String>) {
        match outcome {
            Ok(found) => self.pass(item, format_args!("{found}")),
            Err(why) => self.fail(item, format_args!("{why}")),
        }
    }
}

/// All of it.
pub fn run(cores: usize, functions: &[Function]) -> Result<(), String> {
    console::line(format_args!(
        "nictest: report {FORM} of IX {}, {cores} cores, {}",
        env!("CARGO_PKG_VERSION"),
        if has_hypervisor() { "in a virtual machine" } else { "on bare metal" }
    ));
    let mut report = Report(Tally::default());
    match functions.iter().find(|f| net::driver(f).is_some()) {
        Some(f) => card(&mut report, f, functions, cores),
        None => report.fail(
            "pci",
            format_args!("no card that the kernel has a driver for; report=1 lists what there is"),
        ),
    }
    let tally = report.0;
    console::line(format_args!("nictest: {tally}"));
    console::line(format_args!(
        "nictest: please send all lines of nictest, with the machine's and the card's names, to the project's list of issues"
    ));
    if tally.all_passed() { Ok(()) } else { Err(tally.to_string()) }
}

fn card(report: &mut Report, f: &Function, functions: &[Function], cores: usize) {
    let revision = f.read32(8) as u8;
    let subsystem = f.read32(0x2c);
    report.pass(
        "pci",
        format_args!(
            "{f} revision {revision:02x}, subsystem {:04x}:{:04x}, driver {}",
            subsystem as u16,
            subsystem >> 16,
            net::driver(f).unwrap_or("none")
        ),
    );
    let mut bench = match net::open(functions, cores, net::Wishes::default()).and_then(Bench::new) {
        Ok(bench) => bench,
        Err(why) => return report.fail("open", format_args!("{why}")),
    };
    let c = bench.capabilities;
    report.pass("open", format_args!("{} queue pairs, {} flow groups", c.queue_pairs, c.groups));
    report.pass("mac", format_args!("{}", Anonymous(bench.mac)));
    match ixgbe(&mut bench.control) {
        Some(_) => ixgbe_items(report, f, &mut bench),
        None => virtio_items(report, f, &mut bench),
    }
}

/// The control part, if the card is an 82599 or its like.
fn ixgbe(control: &mut Control) -> Option<&mut Ixgbe> {
    match control {
        Control::Ixgbe(c) => Some(c),
        Control::Virtio(_) | Control::Loopback(_) => None,
    }
}

/// What virtio-net has: no registers to try, no way round, no counters.
fn virtio_items(report: &mut Report, f: &Function, bench: &mut Bench) {
    match &bench.control {
        Control::Virtio(c) if c.read_link_up() => report.pass("link", format_args!("up")),
        _ => report.fail("link", format_args!("down: is the other end of the cable there?")),
    }
    report.outcome("transmit", &loopback::transmit(bench));
    wire::items(report, f, bench);
    for item in [
        "eeprom",
        "module",
        "registers",
        "loopback",
        "rss",
        "checksum",
        "speed",
        "statistics",
        "events",
    ] {
        report.not_offered(item, format_args!("virtio-net has none that could be tried"));
    }
}

fn ixgbe_items(report: &mut Report, f: &Function, bench: &mut Bench) {
    let Some(control) = ixgbe(&mut bench.control) else { return };
    let media = control.media();
    match media {
        Media::BaseT => report.not_offered("eeprom", format_args!("firmware checks an X540's")),
        // The port would not be open otherwise.
        _ => report.pass("eeprom", format_args!("its checksum is 0xbaba")),
    }
    module(report, control);
    registers(report, bench);
    link(report, bench, "link");
    if loopback::begin(bench) {
        loopback::items(report, f, bench);
        let ended = loopback::end(bench);
        report.outcome("restart", &ended);
    } else {
        for item in ["loopback", "rss", "checksum", "interrupts", "speed", "statistics"] {
            report
                .not_offered(item, format_args!("how an X540 leads frames back is not known here"));
        }
    }
    wire::items(report, f, bench);
    events(report, bench);
}

fn module(report: &mut Report, control: &Ixgbe) {
    if control.media() != Media::SfpPlus {
        return report.not_offered("module", format_args!("the card has no cage for one"));
    }
    match control.read_module(&clock) {
        Ok(m) => {
            let medium = match m.medium {
                Medium::ShortRange => "10GBASE-SR",
                Medium::LongRange => "10GBASE-LR",
                Medium::DirectAttach { active: false } => "passive copper",
                Medium::DirectAttach { active: true } => "active copper",
                Medium::Other => "none that this card is for",
            };
            let warmth = m.celsius.map_or(String::new(), |c| format!(", {c} degrees Celsius"));
            let (vendor, part) = (Padded(&m.vendor), Padded(&m.part));
            report.pass("module", format_args!("{vendor} {part}, {medium}{warmth}"));
        }
        Err(error @ (ModuleError::Absent | ModuleError::Busy | ModuleError::NoAnswer)) => {
            report.fail("module", format_args!("{error}"));
        }
    }
}

/// Needs the port stopped: it is started again, whatever was found.
fn registers(report: &mut Report, bench: &mut Bench) {
    let tried = bench.restart(|control, stopped| match (control, stopped) {
        (Control::Ixgbe(c), crate::nic::Stopped::Ixgbe(stopped)) => c
            .try_registers(stopped)
            .map(|count| format!("{count} keep what is written"))
            .map_err(|fault| fault.to_string()),
        _ => Err("another card's".to_string()),
    });
    report.outcome("registers", &tried);
}

fn link(report: &mut Report, bench: &mut Bench, item: &str) {
    let Some(control) = ixgbe(&mut bench.control) else { return };
    match control.wait_for_link(&clock) {
        Ok(mbps) => report.pass(item, format_args!("up at {mbps} Mb/s")),
        Err(error) => report.fail(item, format_args!("{error}")),
    }
}

/// What the chip has noted meanwhile.
fn events(report: &mut Report, bench: &mut Bench) {
    let Some(control) = ixgbe(&mut bench.control) else { return };
    let events = control.read_events();
    if events.overheated {
        report.fail("events", format_args!("the chip or its board is too hot: is there air?"));
    } else if events.memory_error {
        report.fail("events", format_args!("an access to memory was refused (an IOMMU?)"));
    } else if events.corrupted {
        report.fail("events", format_args!("memory of the chip was corrupted (ECC)"));
    } else {
        report
            .pass("events", format_args!("not too hot, no error of its memory or this machine's"));
    }
}

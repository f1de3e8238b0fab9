//! The ports that a dataplane may use: those of devices that the monitor plays, or passes on after a look. Any other port is
//! a misdeed.
#![allow(unsafe_code, reason = "reads the CMOS clock for a dataplane")]

use alloc::format;

use ix_kernel_core::vmx::exits::Io;
use ix_kernel_core::vmx::page::Cause;
use ix_kernel_core::vmx::pci::{self as filter, Action, Bdf};
use ix_kernel_core::vmx::uart;
use x86_64::instructions::port::Port;

use super::dataplane::Dataplane;
use super::stop::Stop;
use crate::pci;

/// Masks of the legacy interrupt controllers: there are none.
const PIC_MASKS: [u16; 2] = [0x21, 0xA1];
const CMOS_INDEX: u16 = 0x70;
const CMOS_DATA: u16 = 0x71;
const POST: u16 = 0x80;
const DEBUG_EXIT: u16 = 0xF4;
/// The other serial ports, where the dataplane has none: they do not answer.
const SERIAL_PORTS: [u16; 3] = [0x2F8, 0x3E8, 0x2E8];

/// Carries an access out; what RAX is afterwards.
pub fn access(d: &Dataplane, io: Io, rax: u64) -> Result<u64, Stop> {
    if io.is_string() {
        return Err(misdeed(io, rax));
    }
    if io.is_in() {
        input(d, io, rax).map(|value| io.merge(rax, value))
    } else {
        output(d, io, rax).map(|()| rax)
    }
}

fn misdeed(io: Io, rax: u64) -> Stop {
    let (port, width) = (io.port(), io.width());
    let text = match (io.is_string(), io.is_in()) {
        (true, _) => format!("string I/O at port {port:#x}"),
        (_, true) => format!("IN of {width} bytes from port {port:#x}"),
        _ => format!("OUT of {:#x} ({width} bytes) to port {port:#x}", io.outgoing(rax)),
    };
    Stop::Misdeed { cause: Cause::Port, detail: u64::from(port), text }
}

fn is_serial(port: u16) -> bool {
    SERIAL_PORTS.iter().any(|first| (*first..first + 8).contains(&port))
}

fn input(d: &Dataplane, io: Io, rax: u64) -> Result<u32, Stop> {
    let port = io.port();
    let mut devices = d.devices.lock();
    match port {
        uart::FIRST_PORT..0x400 if io.width() == 1 => {
            Ok(u32::from(devices.uart.read((port - uart::FIRST_PORT) as u8)))
        }
        filter::FIRST_PORT..0xD00 => {
            let action = devices.pci.input(port, io.width());
            drop(devices);
            configuration(io, action)
        }
        CMOS_DATA if io.width() == 1 => Ok(u32::from(cmos(devices.cmos))),
        _ if is_serial(port) => Ok(u32::MAX),
        _ => Err(misdeed(io, rax)),
    }
}

fn output(d: &Dataplane, io: Io, rax: u64) -> Result<(), Stop> {
    let (port, value) = (io.port(), io.outgoing(rax));
    let mut devices = d.devices.lock();
    match port {
        uart::FIRST_PORT..0x400 if io.width() == 1 => {
            let register = (port - uart::FIRST_PORT) as u8;
            devices.uart.write(register, value as u8, &mut |line| d.line(line));
            Ok(())
        }
        filter::FIRST_PORT..0xD00 => {
            let action = devices.pci.output(port, io.width(), value);
            drop(devices);
            configuration(io, action).map(|_| ())
        }
        CMOS_INDEX if io.width() == 1 => {
            devices.cmos = value as u8 & 0x7F;
            Ok(())
        }
        DEBUG_EXIT => Err(Stop::Ends { status: value << 1 | 1 }),
        _ if PIC_MASKS.contains(&port) || port == POST || is_serial(port) => Ok(()),
        _ => Err(misdeed(io, rax)),
    }
}

fn configuration(io: Io, action: Action) -> Result<u32, Stop> {
    let address = |f: Bdf| pci::address_of(f.0);
    match action {
        Action::Answer(value) => Ok(value),
        Action::Read { function, offset } => {
            Ok(pci::read_part(address(function), offset, io.width()))
        }
        Action::Write { function, offset, value } => {
            pci::write_part(address(function), offset, io.width(), value);
            Ok(0)
        }
        Action::Dropped => Ok(0),
        Action::Refuse(refusal) => {
            let text = format!("configuration space: {refusal:?}");
            Err(Stop::Misdeed { cause: Cause::Pci, detail: u64::from(io.port()), text })
        }
    }
}

/// A register of the clock; one core at a time, since index and data belong together.
fn cmos(index: u8) -> u8 {
    static CLOCK: spin::Mutex<()> = spin::Mutex::new(());
    let _clock = CLOCK.lock();
    // SAFETY: as in `time::unix_ns_at_boot`; reads change nothing but the interrupt flags, which nobody uses.
    unsafe {
        Port::<u8>::new(CMOS_INDEX).write(index);
        Port::<u8>::new(CMOS_DATA).read()
    }
}

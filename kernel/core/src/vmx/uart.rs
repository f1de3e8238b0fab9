//! COM1 as a dataplane sees it: a 16550 that is always ready to send and never receives. What is sent
//! comes out as whole lines, which the monitor prints with the dataplane's name before them.

use arrayvec::ArrayVec;

#[cfg(test)]
mod tests;

/// A longer line is broken.
pub const LINE_BYTES_MAX: usize = 512;

/// COM1's ports.
pub const FIRST_PORT: u16 = 0x3F8;
pub const PORTS: u16 = 8;

const DATA: u8 = 0;
const INTERRUPTS: u8 = 1;
/// Read: interrupt identification; written: FIFO control.
const FIFO: u8 = 2;
const LINE_CONTROL: u8 = 3;
const MODEM_CONTROL: u8 = 4;
const LINE_STATUS: u8 = 5;
const MODEM_STATUS: u8 = 6;
const SCRATCH: u8 = 7;

const DIVISOR_ACCESS: u8 = 1 << 7;
const LOOPBACK: u8 = 1 << 4;
const FIFO_ENABLED: u8 = 0xC0;
const NO_INTERRUPT: u8 = 1;
const TRANSMITTER_EMPTY: u8 = 0x60;
const DATA_READY: u8 = 1;
/// Clear to send, data set ready, carrier.
const PEER_READY: u8 = 0xB0;

/// The registers and the line that is being written.
#[derive(Clone, Debug, Default)]
pub struct Uart {
    interrupts: u8,
    line_control: u8,
    modem_control: u8,
    scratch: u8,
    divisor: [u8; 2],
    has_fifo: bool,
    /// What came back by loopback.
    received: Option<u8>,
    line: ArrayVec<u8, LINE_BYTES_MAX>,
}

impl Uart {
    #[must_use]
    pub const fn new() -> Self {
        Self {
            interrupts: 0,
            line_control: 0,
            modem_control: 0,
            scratch: 0,
            divisor: [0; 2],
            has_fifo: false,
            received: None,
            line: ArrayVec::new_const(),
        }
    }

    const fn has_divisor_access(&self) -> bool {
        self.line_control & DIVISOR_ACCESS != 0
    }

    /// What register `register` (port less [`FIRST_PORT`]) reads as.
    pub fn read(&mut self, register: u8) -> u8 {
        match register {
            DATA | INTERRUPTS if self.has_divisor_access() => self.divisor[usize::from(register)],
            DATA => self.received.take().unwrap_or(0),
            INTERRUPTS => self.interrupts,
            FIFO => NO_INTERRUPT | if self.has_fifo { FIFO_ENABLED } else { 0 },
            LINE_CONTROL => self.line_control,
            MODEM_CONTROL => self.modem_control,
            LINE_STATUS => TRANSMITTER_EMPTY | if self.received.is_some() { DATA_READY } else { 0 },
            MODEM_STATUS => PEER_READY,
            SCRATCH => self.scratch,
            _ => 0xFF,
        }
    }

    /// Writes a register; `emit` gets a line when one is complete, without its end. Bytes that a terminal
    /// would obey come out as `?`: a dataplane must not forge another's lines.
    pub fn write(&mut self, register: u8, value: u8, emit: &mut dyn FnMut(&[u8])) {
        match register {
            DATA | INTERRUPTS if self.has_divisor_access() => {
                self.divisor[usize::from(register)] = value;
            }
            DATA if self.modem_control & LOOPBACK != 0 => self.received = Some(value),
            DATA => self.send(value, emit),
            // The four that there are.
            INTERRUPTS => self.interrupts = value & 0xF,
            FIFO => {
                self.has_fifo = value & 1 != 0;
                self.received = None;
            }
            LINE_CONTROL => self.line_control = value,
            MODEM_CONTROL => self.modem_control = value & 0x1F,
            SCRATCH => self.scratch = value,
            _ => {}
        }
    }

    fn send(&mut self, byte: u8, emit: &mut dyn FnMut(&[u8])) {
        match byte {
            b'\n' => {
                emit(&self.line);
                self.line.clear();
            }
            b'\r' => {}
            _ => {
                if self.line.is_full() {
                    emit(&self.line);
                    self.line.clear();
                }
                let obeyed = (byte < b' ' && byte != b'\t') || byte == 0x7F;
                self.line.push(if obeyed { b'?' } else { byte });
            }
        }
    }

    /// Puts out a line that was begun, when the dataplane ends.
    pub fn flush(&mut self, emit: &mut dyn FnMut(&[u8])) {
        if !self.line.is_empty() {
            emit(&self.line);
            self.line.clear();
        }
    }
}

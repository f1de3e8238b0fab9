//! COM1. A machine without it goes on without; one whose transmitter is stuck (a console server that
//! holds the line) loses text, not time.
#![allow(unsafe_code, reason = "owns the UART's I/O ports")]

use uart_16550::backend::PioBackend;
use uart_16550::spec::registers::LSR;
use uart_16550::{BaudRate, Config, Uart16550};
use x86_64::instructions::port::PortReadOnly;

const COM1: u16 = 0x3F8;
/// How often a full transmitter is asked before the text is dropped: no log may hang the kernel. A port
/// read takes about a microsecond on a real machine, sixteen bytes at 115200 baud take 1.4 ms.
const PATIENCE: u32 = 100_000;

pub struct Serial {
    uart: Uart16550<PioBackend>,
    /// Patience ran out: until it takes bytes again it is asked only once.
    stuck: bool,
}

impl Serial {
    /// `None`: there is no port, or it does not answer.
    pub fn open() -> Option<Self> {
        // SAFETY: these are COM1's ports by the PC's convention, and nobody else uses them.
        let mut uart = unsafe { Uart16550::new_port(COM1) }.ok()?;
        let config = Config { baud_rate: BaudRate::Baud115200, ..Config::default() };
        uart.init(config).ok()?;
        Some(Self { uart, stuck: false })
    }

    pub fn write(&mut self, s: &str) {
        for part in s.split_inclusive('\n') {
            match part.strip_suffix('\n') {
                Some(text) => {
                    self.bytes(text.as_bytes());
                    self.bytes(b"\r\n");
                }
                None => self.bytes(part.as_bytes()),
            }
        }
    }

    /// Waits until the last bit is on the line, with patience.
    pub fn drain(&self) {
        for _ in 0..PATIENCE {
            // SAFETY: COM1's line status register; reading it clears nothing that is used.
            let status = unsafe { PortReadOnly::<u8>::new(COM1 + 5).read() };
            if status & LSR::TRANSMITTER_EMPTY.bits() != 0 {
                return;
            }
        }
    }

    fn bytes(&mut self, mut bytes: &[u8]) {
        let mut patience = if self.stuck { 1 } else { PATIENCE };
        while !bytes.is_empty() {
            let n = self.uart.send_bytes(bytes);
            bytes = &bytes[n..];
            if n > 0 {
                patience = PATIENCE;
                self.stuck = false;
            } else if patience == 0 {
                self.stuck = true;
                return;
            } else {
                patience -= 1;
            }
        }
    }
}

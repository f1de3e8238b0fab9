//! What the kernel's drivers do, register by register, and what comes out.

use super::*;
use std::string::{String, ToString};
use std::vec::Vec;

#[derive(Default)]
struct Device {
    uart: Uart,
    lines: Vec<String>,
}

impl Device {
    fn write(&mut self, register: u8, value: u8) {
        let Self { uart, lines } = self;
        uart.write(register, value, &mut |line| {
            lines.push(core::str::from_utf8(line).unwrap().to_string());
        });
    }

    fn text(&mut self, text: &str) {
        text.bytes().for_each(|b| self.write(DATA, b));
    }
}

/// The initialisation of the driver that serial.rs uses: every read that it decides by.
#[test]
fn the_kernels_driver_finds_a_device_that_is_ready() {
    let mut d = Device::default();
    for pattern in [0x42, 0x73] {
        d.write(SCRATCH, pattern);
        assert_eq!(d.uart.read(SCRATCH), pattern, "a device is present");
    }
    d.write(LINE_CONTROL, 0);
    d.write(INTERRUPTS, 0);
    d.write(LINE_CONTROL, 0x80);
    d.write(DATA, 1);
    d.write(INTERRUPTS, 0);
    assert_eq!((d.uart.read(DATA), d.uart.read(INTERRUPTS)), (1, 0), "the divisor");
    d.write(LINE_CONTROL, 0);
    d.write(LINE_CONTROL, 3);
    d.write(FIFO, 0xC7);
    assert_eq!(d.uart.read(FIFO), 0xC1, "FIFOs on, no interrupt");
    assert_eq!(d.uart.read(LINE_STATUS) & 1, 0, "nothing to drain");
    d.write(MODEM_CONTROL, 0x0B);
    assert_eq!(d.uart.read(LINE_STATUS) & 0x60, 0x60, "transmitter empty: the wait ends");
    d.write(INTERRUPTS, 1);
    assert_eq!(d.uart.read(INTERRUPTS), 1);
    assert_eq!(d.uart.read(MODEM_STATUS) & 0x10, 0x10, "clear to send");
    assert_eq!(d.uart.read(LINE_CONTROL), 3);
    assert!(d.lines.is_empty(), "nothing of this is text");
    d.text("IX 0.1\r\nsecond\r\n");
    assert_eq!(d.lines, ["IX 0.1", "second"]);
}

#[test]
fn the_divisor_is_no_text() {
    let mut d = Device::default();
    d.write(LINE_CONTROL, 0x83);
    d.text("AB\n");
    d.write(LINE_CONTROL, 3);
    d.text("x\n");
    assert_eq!(d.lines, ["x"]);
}

#[test]
fn long_lines_are_broken_and_the_rest_is_flushed() {
    let mut d = Device::default();
    d.text(&"a".repeat(LINE_BYTES_MAX + 3));
    assert_eq!(d.lines, ["a".repeat(LINE_BYTES_MAX)]);
    let mut rest = Vec::new();
    d.uart.flush(&mut |line| rest.extend_from_slice(line));
    assert_eq!(rest, b"aaa");
    d.uart.flush(&mut |_| panic!("nothing is left"));
    d.text("\n");
    assert_eq!(d.lines.last().unwrap(), "");
}

#[test]
fn nothing_that_a_terminal_obeys_gets_out() {
    let mut d = Device::default();
    d.text("a\u{1b}[2Jb\u{8}\u{7f}\tc\0\n");
    assert_eq!(d.lines, ["a?[2Jb??\tc?"]);
}

#[test]
fn loopback_comes_back_and_not_out() {
    let mut d = Device::default();
    d.write(MODEM_CONTROL, 0x1E);
    d.write(DATA, b'Z');
    assert_eq!(d.uart.read(LINE_STATUS) & 1, 1);
    assert_eq!((d.uart.read(DATA), d.uart.read(DATA)), (b'Z', 0));
    assert_eq!(d.uart.read(LINE_STATUS) & 1, 0);
    d.write(MODEM_CONTROL, 0);
    d.text("out\n");
    assert_eq!(d.lines, ["out"]);
}

#[test]
fn registers_that_are_not_there_do_no_harm() {
    let mut d = Device::default();
    for register in 8..=255 {
        d.write(register, 0xFF);
        assert_eq!(d.uart.read(register), 0xFF);
    }
    assert_eq!(d.uart.read(MODEM_CONTROL), 0);
}

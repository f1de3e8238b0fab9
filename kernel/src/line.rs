//! The control page over a serial line (COM2, or what `line=` names), for machines that share no memory with `ixcp`: frames (`ix_abi::frame`) that ask for words of the
//! page, or bring some. Core 0 looks every millisecond, and in each iteration while something comes or goes: the port keeps no more
//! than 16 bytes, of 87 us each. It takes and sends no more than a bounded number of bytes, and waits for nothing: who gets no
//! answer asks again.
#![allow(unsafe_code, reason = "owns the UART's I/O ports")]

use ix_abi::control::header;
use ix_abi::frame::{
    self, Decoder, Frame, Kind, RANGE_BYTES, READ_WORDS_MAX, REPLY_BYTES_MAX, REQUEST_BYTES_MAX,
    Request,
};
use ix_kernel_core::cmdline;
use uart_16550::backend::PioBackend;
use uart_16550::spec::registers::FifoTriggerLevel;
use uart_16550::{BaudRate, Config, Uart16550};

use crate::control;

/// Bytes taken in one go, and times that the transmitter's FIFO is filled. A real line brings 12 bytes a millisecond.
const TAKE_MAX: usize = 64;
const FILLS_MAX: usize = 8;
/// How long after a byte more are looked for in each iteration.
const ATTENTION_NS: u64 = 2_000_000;
/// Silence after which what has come of a frame is not going to be one.
const SILENCE_NS: u64 = 50_000_000;

pub struct Line {
    uart: Uart16550<PioBackend>,
    decoder: Decoder<REQUEST_BYTES_MAX>,
    reply: [u8; REPLY_BYTES_MAX],
    /// Bytes of the reply, and those of them that are sent.
    reply_len: usize,
    sent: usize,
    heard_ns: u64,
    moved_ns: u64,
    /// Bytes come or go.
    attentive: bool,
}

impl Line {
    /// `None`: there is no port, or it does not answer.
    pub fn open(at: cmdline::Line) -> Option<Self> {
        // SAFETY: these are the ports of COM2 to COM4 by the PC's convention, and nobody else uses them.
        let mut uart = unsafe { Uart16550::new_port(at.port()) }.ok()?;
        // Bochs says that there are bytes when as many have come as are to make an interrupt: at 14 it would be late.
        let config = Config {
            baud_rate: BaudRate::Baud115200,
            fifo_trigger_level: Some(FifoTriggerLevel::One),
            ..Config::default()
        };
        uart.init(config).ok()?;
        Some(Self {
            uart,
            decoder: Decoder::new(),
            reply: [0; REPLY_BYTES_MAX],
            reply_len: 0,
            sent: 0,
            heard_ns: 0,
            moved_ns: 0,
            attentive: false,
        })
    }

    /// Whether it is to be polled in each iteration.
    pub fn is_attentive(&self) -> bool {
        self.attentive
    }

    /// At core 0's quiescent point, every millisecond at least.
    pub fn poll(&mut self, now_ns: u64) {
        let before = (self.sent, self.reply_len);
        self.exchange(now_ns);
        if (self.sent, self.reply_len) != before {
            self.moved_ns = now_ns;
        }
        // A port that takes nothing is not waited for.
        let last_ns = self.moved_ns.max(self.heard_ns);
        self.attentive = now_ns.saturating_sub(last_ns) < ATTENTION_NS;
    }

    fn exchange(&mut self, now_ns: u64) {
        if !self.send() {
            return;
        }
        if now_ns.saturating_sub(self.heard_ns) > SILENCE_NS {
            self.decoder.reset();
        }
        for _ in 0..TAKE_MAX {
            let Ok(byte) = self.uart.try_receive_byte() else { return };
            self.heard_ns = now_ns;
            if let Some(frame) = self.decoder.push(byte) {
                self.sent = 0;
                self.reply_len = answer(&frame, &mut self.reply).unwrap_or(0);
                self.send();
                return;
            }
        }
    }

    /// Whether everything has been sent.
    fn send(&mut self) -> bool {
        for _ in 0..FILLS_MAX {
            if self.sent == self.reply_len {
                return true;
            }
            let sent = self.uart.send_bytes(&self.reply[self.sent..self.reply_len]);
            self.sent += sent;
            if sent == 0 {
                return false;
            }
        }
        self.sent == self.reply_len
    }
}

/// Carries a request out and lays its answer into `out`; how long that is.
fn answer(asked: &Frame<'_>, out: &mut [u8]) -> Option<usize> {
    let sequence = asked.sequence;
    match Request::decode(asked) {
        Some(Request::Ping) => {
            let there = [header::MAGIC, header::VERSION, header::EPOCH].map(control::get);
            let [magic, version, epoch] = there.map(u64::to_le_bytes);
            let bytes = (frame::PAGE_BYTES as u64).to_le_bytes();
            frame::encode(out, Kind::Pong, sequence, &[&magic, &version, &epoch, &bytes])
        }
        Some(Request::Read(range)) => {
            let mut words = [0; READ_WORDS_MAX * 8];
            for (i, word) in words.as_chunks_mut().0.iter_mut().take(range.words).enumerate() {
                *word = control::get(range.offset + i * 8).to_le_bytes();
            }
            let words = &words[..range.words * 8];
            frame::encode(out, Kind::Words, sequence, &[&range.to_bytes(), words])
        }
        Some(Request::Write(range, bytes)) => {
            for (i, word) in frame::words(bytes).enumerate() {
                control::set(range.offset + i * 8, word);
            }
            let range: [u8; RANGE_BYTES] = range.to_bytes();
            frame::encode(out, Kind::Written, sequence, &[&range])
        }
        None => frame::encode(out, Kind::Refused, sequence, &[]),
    }
}

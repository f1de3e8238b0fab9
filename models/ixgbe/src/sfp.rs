//! The SFP+ module behind I2CCTL: an I²C target that the driver reaches by setting two lines bit by bit
//! (§8.2.3.1.5; SFF-8472 says what is in it).

/// I2CCTL.I2C_CLK_IN: the clock line as it is.
const CLOCK_IN: u32 = 1;
/// I2CCTL.I2C_CLK_OUT: the chip lets it go.
const CLOCK_OUT: u32 = 1 << 1;
/// I2CCTL.I2C_DATA_IN: the data line as it is.
const DATA_IN: u32 = 1 << 2;
/// I2CCTL.I2C_DATA_OUT: the chip lets it go.
const DATA_OUT: u32 = 1 << 3;

/// Address bytes of the two areas without the direction bit: identification, diagnostics.
const TARGETS: [u8; 2] = [0xa0, 0xa2];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not addressed.
    Idle,
    /// Bits of a byte from the master come in.
    Listen,
    /// The bit in which the target acknowledges, and what comes then.
    Acknowledge { read: bool },
    /// Bits of a byte go out.
    Talk,
    /// The bit in which the master acknowledges.
    Acknowledged,
}

/// The module.
#[derive(Debug)]
pub(crate) struct Sfp {
    areas: [[u8; 256]; 2],
    present: bool,
    clock: bool,
    data: bool,
    /// The target holds the data line down.
    pulls: bool,
    state: State,
    bits: u32,
    byte: u8,
    /// Which byte of the transfer it is: the address, the offset, data.
    position: u32,
    area: usize,
    offset: u8,
}

impl Sfp {
    pub fn new(present: bool) -> Sfp {
        Sfp {
            areas: [identification(), diagnostics()],
            present,
            clock: true,
            data: true,
            pulls: false,
            state: State::Idle,
            bits: 0,
            byte: 0,
            position: 0,
            area: 0,
            offset: 0,
        }
    }

    pub fn set_present(&mut self, present: bool) {
        self.present = present;
        self.pulls = false;
        self.state = State::Idle;
    }

    /// What I2CCTL reads, of what was written.
    pub fn read(&self, written: u32) -> u32 {
        let data = self.data && !self.pulls;
        let lines = if self.clock { CLOCK_IN } else { 0 } | if data { DATA_IN } else { 0 };
        written & (CLOCK_OUT | DATA_OUT) | lines
    }

    /// The chip sets its lines.
    pub fn write(&mut self, value: u32) {
        let (clock, data) = (value & CLOCK_OUT != 0, value & DATA_OUT != 0);
        let before = (self.clock, self.data);
        (self.clock, self.data) = (clock, data);
        if !self.present {
            return;
        }
        match (before, (clock, data)) {
            ((true, true), (true, false)) => self.start(),
            ((true, false), (true, true)) if !self.pulls => self.stop(),
            ((false, _), (true, _)) => self.rise(data),
            ((true, _), (false, _)) => self.fall(),
            _ => {}
        }
    }

    fn start(&mut self) {
        self.state = State::Listen;
        (self.bits, self.byte, self.position) = (0, 0, 0);
        self.pulls = false;
    }

    fn stop(&mut self) {
        self.state = State::Idle;
        self.pulls = false;
    }

    /// The clock rises: the data line is valid.
    fn rise(&mut self, data: bool) {
        match self.state {
            State::Listen => {
                self.byte = self.byte << 1 | u8::from(data);
                self.bits += 1;
            }
            State::Acknowledged if data => self.state = State::Idle,
            State::Acknowledged => {
                self.offset = self.offset.wrapping_add(1);
                self.load();
            }
            _ => {}
        }
    }

    /// The clock falls: the next bit is put on the line.
    fn fall(&mut self) {
        match self.state {
            State::Listen if self.bits == 8 => self.heard(),
            State::Acknowledge { read } => {
                self.pulls = false;
                (self.bits, self.byte) = (0, 0);
                if read {
                    self.load();
                    self.talk();
                } else {
                    self.state = State::Listen;
                }
            }
            State::Talk => self.talk(),
            _ => {}
        }
    }

    /// A byte from the master is complete.
    fn heard(&mut self) {
        let mut read = false;
        match self.position {
            0 => {
                let Some(area) = TARGETS.iter().position(|t| *t == self.byte & 0xfe) else {
                    self.state = State::Idle;
                    return;
                };
                self.area = area;
                read = self.byte & 1 != 0;
            }
            1 => self.offset = self.byte,
            _ => {
                self.areas[self.area][usize::from(self.offset)] = self.byte;
                self.offset = self.offset.wrapping_add(1);
            }
        }
        self.position += 1;
        self.pulls = true;
        self.state = State::Acknowledge { read };
    }

    fn load(&mut self) {
        self.byte = self.areas[self.area][usize::from(self.offset)];
        self.bits = 0;
        self.state = State::Talk;
    }

    fn talk(&mut self) {
        if self.bits == 8 {
            self.pulls = false;
            self.state = State::Acknowledged;
            return;
        }
        self.pulls = self.byte & 0x80 == 0;
        self.byte <<= 1;
        self.bits += 1;
    }
}

/// SFF-8472 table 4-1: a short-range optical module of Intel's, which Linux's driver takes without being told to.
fn identification() -> [u8; 256] {
    let mut bytes = [0; 256];
    bytes[0] = 3; // SFP
    bytes[1] = 4;
    bytes[2] = 7; // LC
    bytes[3] = 0x10; // 10GBASE-SR
    bytes[11] = 6; // 64B/66B
    bytes[12] = 103;
    bytes[20..36].copy_from_slice(b"Intel Corp      ");
    bytes[37..40].copy_from_slice(&[0x00, 0x1b, 0x21]);
    bytes[40..56].copy_from_slice(b"FTLX8571D3BCV-IT");
    bytes[56..60].copy_from_slice(b"A   ");
    bytes[60..62].copy_from_slice(&850_u16.to_be_bytes());
    bytes[63] = bytes[..63].iter().fold(0, |sum: u8, b| sum.wrapping_add(*b));
    bytes[68..84].copy_from_slice(b"IX0000000000001 ");
    bytes[92] = 0x68; // diagnostics, internally calibrated
    bytes[94] = 5;
    bytes[95] = bytes[64..95].iter().fold(0, |sum: u8, b| sum.wrapping_add(*b));
    bytes
}

/// SFF-8472 table 4-2: 35 °C, 3.3 V.
fn diagnostics() -> [u8; 256] {
    let mut bytes = [0; 256];
    bytes[96] = 35;
    bytes[98..100].copy_from_slice(&33_000_u16.to_be_bytes());
    bytes
}

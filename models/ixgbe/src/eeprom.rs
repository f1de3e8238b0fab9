//! The EEPROM: 16-bit words that EERD reads (§6, §8.2.3.2.2), whose checksum the driver verifies.

/// Words of it.
pub(crate) const WORDS: usize = 1024;
/// EEC.EE_Size for that many: 2^(n + 6) words.
pub(crate) const SIZE_CODE: u32 = 4;

/// Word 0x3f is such that the sum of words 0 to 0x3f, and of what the pointers lead to, is this.
const SUM: u16 = 0xbaba;
const CHECKSUM_WORD: usize = 0x3f;
/// Pointers to sections that the checksum covers.
const POINTERS: core::ops::Range<usize> = 3..0xf;
/// Pointer to the firmware's section, which it does not cover.
const FIRMWARE_POINTER: usize = 0xf;
/// Pointer to the list of initialisation sequences for SFP+ modules.
const SFP_LIST_POINTER: usize = 0x2b;
/// Capabilities of the device.
const CAPABILITIES: usize = 0x2c;

/// An EEPROM as Intel's cards have it, in what drivers look at.
#[derive(Debug)]
pub(crate) struct Eeprom {
    words: Box<[u16]>,
}

impl Eeprom {
    pub fn new(mac: [u8; 6], device_id: u16) -> Eeprom {
        let mut words = vec![0xffff_u16; WORDS];
        words[0] = 0x0100;
        words[1] = 0;
        words[2] = 0;
        // The MAC address, in the section that pointer 9 (LAN core 0) leads to.
        let core = 0x60;
        words[9] = core;
        words[usize::from(core)] = 4;
        for i in 0..3 {
            words[usize::from(core) + 1 + i] = u16::from_le_bytes([mac[2 * i], mac[2 * i + 1]]);
        }
        words[usize::from(core) + 4] = device_id;
        // No alternate or storage addresses, no serial number.
        (words[0x15], words[0x16]) = (0xfafa, 0x00a0);
        (words[0xa0], words[0xa1], words[0xa2], words[0xa3]) = (6, 0x4958, 0x3832, 0x3539);
        words[0xa4] = 0x3900;
        words[0xa5] = 0;
        (words[0x29], words[0x2d], words[0x2e]) = (0x4d80, 0x8000, 0x0001);
        words[CAPABILITIES] = 0;
        words[FIRMWARE_POINTER] = 0x140;
        // Pass-through patch configuration, whose word 7 is a version above 5.
        words[0x140 + 4] = 0x160;
        words[0x140 + 2] = 0xffff;
        words[0x160 + 7] = 6;
        // For the kinds of modules 3 to 6 (copper and optics on both ports) the same sequence.
        words[SFP_LIST_POINTER] = 0x100;
        words[0x100] = 0;
        for (i, kind) in (3..=6).enumerate() {
            words[0x101 + 2 * i] = kind;
            words[0x102 + 2 * i] = 0x120;
        }
        (words[0x120], words[0x121], words[0x122], words[0x123]) = (2, 0x1f00, 0x1f01, 0xffff);
        let mut eeprom = Eeprom { words: words.into() };
        eeprom.words[CHECKSUM_WORD] = SUM.wrapping_sub(eeprom.sum());
        eeprom
    }

    /// The sum of all that the checksum covers but itself.
    fn sum(&self) -> u16 {
        let add = |sum: u16, word: &u16| sum.wrapping_add(*word);
        let mut sum = self.words[..CHECKSUM_WORD].iter().fold(0, add);
        for pointer in POINTERS {
            let at = usize::from(self.words[pointer]);
            let Some(&len) = self.words.get(at).filter(|_| at != 0) else { continue };
            if len != 0 && len != 0xffff {
                let section = self.words.get(at + 1..at + 1 + usize::from(len));
                sum = section.unwrap_or(&[]).iter().fold(sum, add);
            }
        }
        sum
    }

    /// A word; behind the end all ones.
    pub fn word(&self, at: usize) -> u16 {
        self.words.get(at).copied().unwrap_or(0xffff)
    }

    /// A bit has flipped.
    pub fn spoil(&mut self) {
        self.words[0x20] ^= 4;
    }
}

//! Which PCI functions are chips that this driver knows (§9.3.3.2; X540 datasheet §9.3.3.2).

/// Vendor of all of them.
pub const VENDOR: u16 = 0x8086;

/// How the chip's port is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// 82599 with a cage for SFP+ modules: the driver sets the link up.
    SfpPlus,
    /// 82599 on a backplane or with another chip as PHY: the EEPROM sets the link up.
    Backplane,
    /// X540, 10GBASE-T with its own PHY and firmware: they set the link up.
    BaseT,
}

/// The media of a function, or that it is not this driver's.
pub const fn media(vendor: u16, device: u16) -> Option<Media> {
    if vendor != VENDOR {
        return None;
    }
    match device {
        // 82599ES (and X520-DA2, -SR2, -LR2), FCoE, mezzanine, X520-4, 82599EN (X520-DA1), quad.
        0x10fb | 0x1529 | 0x1507 | 0x154d | 0x1557 | 0x154a => Some(Media::SfpPlus),
        // KX4, combined, CX4, XAUI, KX4 mezzanine, KR.
        0x10f7 | 0x10f8 | 0x10f9 | 0x10fc | 0x1514 | 0x1517 => Some(Media::Backplane),
        // X540-T2, X540-T1.
        0x1528 | 0x1560 => Some(Media::BaseT),
        _ => None,
    }
}

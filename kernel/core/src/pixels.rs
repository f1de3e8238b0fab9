//! Characters as pixels: the console's font, and how a framebuffer wants its pixels.

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

use crate::multiboot2::{Framebuffer, FramebufferKind};

/// Size of a character cell, in font pixels: the glyph and a blank column.
pub const CELL_WIDTH: usize = get_raster_width(FontWeight::Regular, RasterHeight::Size16) + 1;
pub const CELL_HEIGHT: usize = 16;
/// From this width on every font pixel is two by two.
const WIDE: u32 = 2560;

/// Intensity of a character's pixel; 0 outside of it.
#[must_use]
pub fn intensity(character: u8, x: usize, y: usize) -> u8 {
    let c = if character.is_ascii_graphic() || character == b' ' { character } else { b'?' };
    let raster = get_raster(c as char, FontWeight::Regular, RasterHeight::Size16);
    raster.and_then(|r| r.pixel(x, y)).unwrap_or(0)
}

/// A framebuffer whose format is understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pixels {
    pub addr: u64,
    pub pitch: usize,
    pub width: usize,
    pub height: usize,
    pub bytes_per_pixel: usize,
    colours: [(u8, u8); 3],
    pub scale: usize,
}

impl Pixels {
    /// Checks a framebuffer; the error says what is not understood.
    pub fn new(f: &Framebuffer) -> Result<Self, &'static str> {
        let FramebufferKind::Rgb(colours) = f.kind else {
            return Err("not of the direct RGB kind");
        };
        let bytes_per_pixel = match f.bits {
            15 | 16 => 2usize,
            24 => 3,
            32 => 4,
            _ => return Err("its pixels have another size than 15, 16, 24 or 32 bits"),
        };
        let bits = bytes_per_pixel as u32 * 8;
        if colours.iter().any(|(at, n)| *n == 0 || *n > 16 || u32::from(*at) + u32::from(*n) > bits)
        {
            return Err("its colours lie outside of its pixels");
        }
        let (width, height, pitch) = (f.width as usize, f.height as usize, f.pitch as usize);
        let sizes = 64..=16_384;
        if !sizes.contains(&width)
            || !sizes.contains(&height)
            || width * bytes_per_pixel > pitch
            || pitch > 1 << 20
        {
            return Err("its size makes no sense");
        }
        let bytes = (pitch * height) as u64;
        if f.addr == 0 || f.addr.checked_add(bytes).is_none_or(|end| end > 1 << 46) {
            return Err("its address makes no sense");
        }
        let scale = if f.width >= WIDE { 2 } else { 1 };
        Ok(Self { addr: f.addr, pitch, width, height, bytes_per_pixel, colours, scale })
    }

    /// Bytes of all lines.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pitch * self.height
    }

    /// Never: a size of nothing is refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Columns and rows of text that fit.
    #[must_use]
    pub fn grid(&self) -> (usize, usize) {
        (self.width / (CELL_WIDTH * self.scale), self.height / (CELL_HEIGHT * self.scale))
    }

    /// A shade of grey as a pixel, in its low bytes.
    #[must_use]
    pub fn grey(&self, level: u8) -> u32 {
        self.colours.iter().fold(0, |pixel, (at, bits)| {
            // Eight bits spread over as many as there are.
            let full = (1u32 << bits) - 1;
            pixel | (u32::from(level) * full / 255) << at
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framebuffer(bits: u8, kind: FramebufferKind) -> Framebuffer {
        Framebuffer { addr: 0xC000_0000, pitch: 4096, width: 1024, height: 768, bits, kind }
    }

    const XRGB: FramebufferKind = FramebufferKind::Rgb([(16, 8), (8, 8), (0, 8)]);

    #[test]
    fn the_usual_formats_are_understood() {
        let p = Pixels::new(&framebuffer(32, XRGB)).unwrap();
        assert_eq!((p.grey(255), p.grey(0), p.grey(0x80)), (0xFF_FFFF, 0, 0x80_8080));
        assert_eq!(p.grid(), (128, 48));
        let p =
            Pixels::new(&framebuffer(16, FramebufferKind::Rgb([(11, 5), (5, 6), (0, 5)]))).unwrap();
        assert_eq!((p.grey(255), p.grey(0)), (0xFFFF, 0));
        let p = Pixels::new(&framebuffer(24, XRGB)).unwrap();
        assert_eq!(p.bytes_per_pixel, 3);
        let wide =
            Framebuffer { width: 3840, height: 2160, pitch: 15_360, ..framebuffer(32, XRGB) };
        assert_eq!(Pixels::new(&wide).unwrap().grid(), (240, 67));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let ok = framebuffer(32, XRGB);
        for (f, says) in [
            (framebuffer(32, FramebufferKind::Other(0)), "RGB"),
            (framebuffer(8, XRGB), "bits"),
            (framebuffer(16, XRGB), "colours"),
            (framebuffer(32, FramebufferKind::Rgb([(0, 0), (8, 8), (16, 8)])), "colours"),
            (framebuffer(32, FramebufferKind::Rgb([(255, 255), (8, 8), (16, 8)])), "colours"),
            (Framebuffer { pitch: 4095, ..ok }, "size"),
            (Framebuffer { width: u32::MAX, pitch: u32::MAX, ..ok }, "size"),
            (Framebuffer { addr: u64::MAX - 5, ..ok }, "address"),
            (Framebuffer { addr: 0, ..ok }, "address"),
        ] {
            assert!(Pixels::new(&f).unwrap_err().contains(says), "{f:?}");
        }
    }

    #[test]
    fn every_character_that_can_be_shown_looks_different() {
        let image = |c: u8| -> std::vec::Vec<u8> {
            (0..CELL_WIDTH * CELL_HEIGHT)
                .map(|i| intensity(c, i % CELL_WIDTH, i / CELL_WIDTH))
                .collect()
        };
        for a in b' '..=b'~' {
            assert_eq!(image(a).iter().all(|p| *p == 0), a == b' ');
            assert!((b' '..a).all(|b| image(a) != image(b)), "{}", a as char);
        }
        assert_eq!(image(7), image(b'?'));
    }
}

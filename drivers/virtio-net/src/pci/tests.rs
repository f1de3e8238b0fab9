//! Capability lists as QEMU writes them, and as nobody should.
use super::*;

type Space = [u32; 64];

fn header() -> Space {
    let mut space = [0; 64];
    space[0] = u32::from(DEVICE_MODERN) << 16 | u32::from(VENDOR);
    space[1] = STATUS_CAPABILITIES;
    space
}

struct Cap {
    at: u8,
    next: u8,
    kind: u8,
    window: Window,
    multiplier: Option<u32>,
}

fn put(space: &mut Space, cap: &Cap) {
    let length = if cap.multiplier.is_some() { 20 } else { 16 };
    let i = usize::from(cap.at) / 4;
    space[i] = u32::from_le_bytes([CAPABILITY_VENDOR, cap.next, length, cap.kind]);
    space[i + 1] = u32::from(cap.window.bar);
    space[i + 2] = cap.window.offset;
    space[i + 3] = cap.window.length;
    if let Some(multiplier) = cap.multiplier {
        space[i + 4] = multiplier;
    }
}

fn window(offset: u32) -> Window {
    Window { bar: 4, offset, length: 0x1000 }
}

/// As QEMU 7.2 lays it out, an MSI-X capability in front.
fn qemu() -> Space {
    let mut space = header();
    space[0x34 / 4] = 0x98;
    space[0x98 / 4] = u32::from_le_bytes([0x11, 0x84, 0x03, 0]);
    let all = [
        Cap { at: 0x84, next: 0x70, kind: 5, window: window(0), multiplier: Some(0) },
        Cap { at: 0x70, next: 0x60, kind: 2, window: window(0x3000), multiplier: Some(4) },
        Cap { at: 0x60, next: 0x50, kind: 4, window: window(0x2000), multiplier: None },
        Cap { at: 0x50, next: 0x40, kind: 3, window: window(0x1000), multiplier: None },
        Cap { at: 0x40, next: 0, kind: 1, window: window(0), multiplier: None },
    ];
    for cap in &all {
        put(&mut space, cap);
    }
    space
}

fn read(space: &Space) -> Result<Layout, PciError> {
    parse(|offset| space[usize::from(offset) / 4])
}

#[test]
fn qemus_capabilities_are_found() {
    let layout = Layout {
        common: window(0),
        notify: window(0x3000),
        notify_multiplier: 4,
        isr: window(0x1000),
        device: window(0x2000),
    };
    assert_eq!(read(&qemu()), Ok(layout));
}

#[test]
fn a_capability_in_a_reserved_bar_is_skipped_for_a_later_one() {
    let mut space = qemu();
    let bad = Window { bar: 6, offset: 0, length: 0x1000 };
    put(&mut space, &Cap { at: 0xc0, next: 0x98, kind: 1, window: bad, multiplier: None });
    space[0x34 / 4] = 0xc0;
    assert_eq!(read(&space).unwrap().common, window(0));
}

#[test]
fn a_loop_in_the_list_ends() {
    let mut space = qemu();
    space[0x40 / 4] = u32::from_le_bytes([CAPABILITY_VENDOR, 0x98, 16, 1]);
    assert_eq!(read(&space), Err(PciError::EndlessList));
}

#[test]
fn a_device_that_is_gone_has_no_capabilities() {
    assert_eq!(parse(|_| u32::MAX), Err(PciError::NoCapabilities));
    assert_eq!(read(&header()), Err(PciError::Missing("notification")));
}

#[test]
fn windows_that_wrap_are_unaligned_or_too_small_do_not_count() {
    for window in [
        Window { bar: 4, offset: 0xffff_f000, length: 0x2000 },
        Window { bar: 4, offset: 2, length: 0x1000 },
        Window { bar: 4, offset: 0, length: 55 },
    ] {
        let mut space = qemu();
        put(&mut space, &Cap { at: 0x40, next: 0, kind: 1, window, multiplier: None });
        assert_eq!(read(&space), Err(PciError::Missing("common configuration")), "{window:?}");
    }
}

#[test]
fn an_odd_multiplier_is_refused() {
    let mut space = qemu();
    space[0x80 / 4] = 6;
    assert_eq!(read(&space), Err(PciError::Multiplier(6)));
    space[0x80 / 4] = 0;
    assert_eq!(read(&space).unwrap().notify_multiplier, 0);
}

#[test]
fn no_configuration_space_makes_it_panic_or_spin() {
    let mut state = 0x1d_u64;
    for _ in 0..50_000 {
        let mut space = qemu();
        for _ in 0..8 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            space[(state >> 40) as usize % 64] = (state >> 20) as u32;
        }
        if let Ok(layout) = read(&space) {
            assert!(layout.common.length >= 56 && layout.common.bar <= 5);
            assert!(layout.notify.offset.checked_add(layout.notify.length).is_some());
        }
    }
}

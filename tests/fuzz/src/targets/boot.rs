//! What the kernel reads at boot: command line, archive, symbols, memory map, clock, and the
//! application's ELF file.
use crate::input::Input;
use ix_abi::layout::{IMAGE_BASE, IMAGE_END, PAGE_BYTES};
use ix_kernel_core::addr::PAGE;
use ix_kernel_core::archive::Archive;
use ix_kernel_core::cmdline;
use ix_kernel_core::elf_image::Image;
use ix_kernel_core::memory_map::{Kind, MAX_ENTRIES, MemoryMap};
use ix_kernel_core::paging::Access;
use ix_kernel_core::rtc;
use ix_kernel_core::symbols::{self, Symbols};

/// The kernel's command line: what is accepted is within its limits, a complaint can be shown.
pub fn command_line(bytes: &[u8]) {
    let line = String::from_utf8_lossy(bytes);
    match cmdline::parse(&line) {
        Ok(config) => {
            assert!(config.cores.is_none_or(|n| (1..=64).contains(&n)));
            assert!(config.batch.is_none_or(|n| (1..=1024).contains(&n)));
            if let cmdline::Address::Static { prefix, .. } = config.address {
                assert!((1..=32).contains(&prefix));
            }
        }
        Err(bad) => assert!(!bad.to_string().is_empty()),
    }
}

/// The boot archive: members lie within it, and a member that was listed is found.
pub fn archive(bytes: &[u8]) {
    let archive = match Archive::parse(bytes) {
        Ok(archive) => archive,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let range = bytes.as_ptr_range();
    for (name, contents) in archive.members() {
        assert!(!name.is_empty() && archive.find(name).is_some());
        let of = contents.as_ptr_range();
        assert!(range.start <= of.start && of.end <= range.end);
    }
    assert!(archive.find("").is_none());
}

/// The symbols of backtraces: read after a crash, so they may not make it worse.
pub fn symbols(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let addresses: [u64; 4] = std::array::from_fn(|_| input.u64());
    let rest = input.rest();
    if let Some(symbols) = Symbols::parse(rest) {
        for address in addresses.into_iter().chain([0, 1, u64::MAX]) {
            if let Some((_, offset)) = symbols.find(address) {
                assert!(offset <= address);
            }
        }
    }
    let _none = symbols::build(rest);
}

/// The application's file: what is accepted lies in the image area, nothing twice, nothing writable
/// and executable at once.
pub fn elf(bytes: &[u8]) {
    let image = match Image::parse(bytes) {
        Ok(image) => image,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let segments: Vec<_> = image.segments().collect();
    assert!(!segments.is_empty());
    for (at, s) in segments.iter().enumerate() {
        let end = s.addr.checked_add(s.bytes).expect("a segment that does not wrap");
        assert!(s.bytes > 0 && IMAGE_BASE <= s.addr && end <= IMAGE_END);
        assert!(s.contents.len() as u64 <= s.bytes);
        for other in &segments[..at] {
            assert!(end <= other.addr || other.addr + other.bytes <= s.addr, "two in one place");
        }
    }
    let code = segments.iter().filter(|s| s.access == Access::Execute);
    assert!(code.into_iter().any(|s| (s.addr..s.addr + s.bytes).contains(&image.entry)));
    let mut last = None;
    for (page, access) in image.pages() {
        assert!(page.is_multiple_of(PAGE_BYTES) && last.is_none_or(|last| last < page));
        last = Some(page);
        let here =
            segments.iter().filter(|s| s.addr < page + PAGE_BYTES && page < s.addr + s.bytes);
        for s in here {
            assert_eq!(s.access == Access::Write, access == Access::Write, "shared with data");
        }
    }
}

/// The firmware's memory map: in order, without overlap, and nothing is usable that anything says is
/// not.
pub fn memory_map(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut map = MemoryMap::new();
    let mut worse = Vec::new();
    while !input.is_empty() {
        let scale = input.below(53);
        let start = u64::from(input.u16()).rotate_right(scale as u32);
        let len = u64::from(input.u16()) << input.below(50);
        let kind = Kind::from_e820(u32::from(input.u8() % 8));
        map.add(start, len, kind);
        if kind != Kind::Usable {
            worse.push((start, start.saturating_add(len)));
        }
    }
    let entries = map.entries();
    assert!(entries.len() <= MAX_ENTRIES);
    for e in entries {
        assert!(e.start < e.end && e.start.is_multiple_of(PAGE));
    }
    for pair in entries.windows(2) {
        assert!(pair[0].end <= pair[1].start, "{pair:x?}");
    }
    if map.dropped() == 0 {
        for e in entries.iter().filter(|e| e.kind == Kind::Usable) {
            let clear =
                |(start, end): &(u64, u64)| start == end || *end <= e.start || e.end <= *start;
            assert!(worse.iter().all(clear), "{e:x?} is not usable");
        }
    }
    let _sum = map.usable();
}

/// The battery clock's registers.
pub fn clock(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let raw = std::array::from_fn(|_| u64::from(input.u16()));
    if let Some(seconds) = rtc::unix_seconds(raw, input.flag(), input.flag()) {
        assert!(seconds < 1 << 40);
    }
}

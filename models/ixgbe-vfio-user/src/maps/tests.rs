use super::*;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::ftruncate;

const BOTH: Access = Access { read: true, write: true };

fn memory(pages: u64) -> OwnedFd {
    let fd = memfd_create(c"maps", MFdFlags::MFD_CLOEXEC).unwrap();
    ftruncate(&fd, (pages * PAGE_BYTES) as i64).unwrap();
    fd
}

fn range(page: u64, pages: u64) -> Range {
    Range { at: page * PAGE_BYTES, bytes: pages * PAGE_BYTES }
}

fn add(maps: &mut Maps, page: u64, pages: u64) -> Result<(), Errno> {
    maps.add(range(page, pages), BOTH, Some((memory(pages), 0)))
}

#[test]
fn a_transfer_goes_on_in_the_next_map_and_ends_at_a_gap() {
    let mut maps = Maps::default();
    add(&mut maps, 4, 1).unwrap();
    add(&mut maps, 2, 2).unwrap();
    let at = 4 * PAGE_BYTES - 5;
    assert!(maps.write(at, b"0123456789"));
    let mut read = [0; 10];
    assert!(maps.read(at, &mut read));
    assert_eq!(&read, b"0123456789");
    // Its last byte is beyond the second map: nothing of it is written.
    let at = 5 * PAGE_BYTES - 9;
    assert!(!maps.write(at, b"0123456789"));
    assert!(maps.read(at, &mut read[..9]));
    assert_eq!(&read[..9], &[0; 9]);
    assert!(!maps.read(at, &mut read));
    assert!(!maps.read(2 * PAGE_BYTES - 1, &mut read));
    assert!(!maps.read(u64::MAX - 3, &mut read));
}

#[test]
fn maps_come_and_go_and_never_overlap() {
    let mut maps = Maps::default();
    add(&mut maps, 2, 4).unwrap();
    for (page, pages) in [(2, 4), (1, 2), (3, 1), (5, 9), (0, 100)] {
        assert_eq!(add(&mut maps, page, pages), Err(Errno::EINVAL), "{page}+{pages}");
    }
    add(&mut maps, 6, 1).unwrap();
    add(&mut maps, 1, 1).unwrap();
    assert_eq!(maps.remove(range(3, 1)), Err(Errno::EINVAL));
    assert_eq!(maps.remove(range(40, 1)), Err(Errno::ENOENT));
    maps.remove(range(2, 4)).unwrap();
    assert_eq!(maps.len(), 2);
    assert!(!maps.write(2 * PAGE_BYTES, &[1]));
    maps.remove(range(0, 50)).unwrap();
    assert!(maps.is_empty());
}

#[test]
fn what_is_no_range_of_pages_is_refused() {
    let mut maps = Maps::default();
    let mut refused = |at, bytes, offset| {
        let file = Some((memory(1), offset));
        assert_eq!(maps.add(Range { at, bytes }, BOTH, file), Err(Errno::EINVAL));
    };
    refused(0, 0, 0);
    refused(1, 4096, 0);
    refused(0, 4095, 0);
    refused(0, 4096, 1);
    refused(0, 4096, 4096);
    refused(0, 8192, 0);
    refused(u64::MAX - 4095, 8192, 0);
    refused(u64::MAX - 4095, 4096, 0);
    assert!(maps.is_empty());
}

#[test]
fn the_device_does_with_a_map_what_it_may() {
    let mut maps = Maps::default();
    let only = |read, write| Access { read, write };
    maps.add(range(1, 1), only(true, false), Some((memory(1), 0))).unwrap();
    maps.add(range(2, 1), only(false, true), Some((memory(1), 0))).unwrap();
    maps.add(range(3, 1), BOTH, None).unwrap();
    let mut byte = [0];
    let mut may = |page: u64| {
        let at = page * PAGE_BYTES;
        (maps.read(at, &mut byte), maps.write(at, &[1]))
    };
    assert_eq!(may(1), (true, false));
    assert_eq!(may(2), (false, true));
    assert_eq!(may(3), (false, false));
}

#[test]
fn there_is_a_most() {
    let mut maps = Maps::default();
    for page in 0..MAPS_MAX as u64 {
        maps.add(range(page, 1), BOTH, None).unwrap();
    }
    assert_eq!(maps.add(range(MAPS_MAX as u64, 1), BOTH, None), Err(Errno::ENOSPC));
}

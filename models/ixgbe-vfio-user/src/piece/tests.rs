use super::*;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{ftruncate, pipe};

fn memory(bytes: i64) -> OwnedFd {
    let fd = memfd_create(c"piece", MFdFlags::MFD_CLOEXEC).unwrap();
    ftruncate(&fd, bytes).unwrap();
    fd
}

#[test]
fn what_is_written_at_any_place_is_read_by_another_mapping() {
    let fd = memory(8192);
    let ours = Piece::map(&fd, 0, 8192, true).unwrap();
    let theirs = Piece::map(&fd, 4096, 4096, false).unwrap();
    for at in 4096..4096 + 20 {
        for len in 0..40 {
            let wrote: Vec<u8> = (0..len).map(|i| (i + at) as u8).collect();
            ours.write(at, &[0xee; 64]);
            ours.write(at, &wrote);
            let mut read = vec![0; len + 1];
            theirs.read(at - 4096, &mut read);
            assert_eq!((&read[..len], read[len]), (&wrote[..], 0xee), "at {at}");
        }
    }
}

#[test]
fn a_file_that_does_not_reach_so_far_is_not_mapped() {
    let fd = memory(8192);
    assert_eq!(Piece::map(&fd, 4096, 8192, true).unwrap_err(), Errno::EINVAL);
    assert_eq!(Piece::map(&fd, 0, 8193, true).unwrap_err(), Errno::EINVAL);
    assert_eq!(Piece::map(&fd, u64::MAX, 4096, true).unwrap_err(), Errno::EINVAL);
    assert_eq!(Piece::map(&fd, 0, 0, true).unwrap_err(), Errno::EINVAL);
}

#[test]
fn a_file_that_is_no_memory_is_not_mapped() {
    let (end, _other) = pipe().unwrap();
    assert_eq!(Piece::map(&end, 0, 4096, true).unwrap_err(), Errno::EINVAL);
}

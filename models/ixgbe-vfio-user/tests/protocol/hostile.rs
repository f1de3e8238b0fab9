//! What a client gets that lies: an error, or the end of the connection, never more.
use crate::client::{
    BAR0, CONFIG, Client, DEVICE_INFO, DMA_MAP, DMA_UNMAP, MSIX, REGION_READ, REGION_WRITE,
    SET_IRQS, dma_map, event, header, memory, place,
};
use nix::errno::Errno;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, RawFd};

const ASSIGN: u32 = 1 << 2 | 1 << 5;

/// The connection ends, with these words in the reason.
#[track_caller]
fn is_given_up(mut client: Client, why: &str) {
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    // A reset, if something of the client was not read.
    let _ = client.stream.read_to_end(&mut rest);
    let (outcome, _) = client.leave();
    let said = outcome.unwrap_err();
    assert!(said.contains(why), "{said}");
}

#[test]
fn what_is_no_message_ends_the_connection() {
    let begun = |bytes: &[u8]| {
        let mut client = Client::new();
        client.raw(bytes, &[]);
        client
    };
    is_given_up(begun(&header(7, DEVICE_INFO, 15, 0)), "size of 15");
    is_given_up(begun(&header(7, DEVICE_INFO, u32::MAX, 0)), "size of 4294967295");
    is_given_up(begun(&header(7, DEVICE_INFO, 0, 0)), "size of 0");
    is_given_up(begun(&header(7, DEVICE_INFO, 16, 1)), "is no request");
    is_given_up(begun(&header(7, DEVICE_INFO, 32, 0)), "in the middle");
    is_given_up(begun(&[1; 5]), "in the middle");
}

#[test]
fn bodies_that_are_too_short_are_refused() {
    let mut client = Client::new();
    let commands = [DMA_MAP, DMA_UNMAP, 5, 7, SET_IRQS, REGION_READ, REGION_WRITE];
    for command in commands {
        for len in [0, 3, 8, 11] {
            assert_eq!(client.ask(command, &vec![0; len], &[]), Err(Errno::EINVAL), "{command}");
        }
    }
    for command in [0, 6, 11, 12, 14, 15, 99, u16::MAX] {
        assert_eq!(client.ask(command, &[0; 64], &[]), Err(Errno::ENOTSUP), "{command}");
    }
    assert_eq!(client.leave(), (Ok(()), 4 * commands.len() as u64 + 8));
}

#[test]
fn places_outside_a_region_are_refused() {
    let mut client = Client::new();
    let mut refused = |region, offset, count| {
        assert_eq!(client.read(region, offset, count), Err(Errno::EINVAL), "{region} {offset:#x}");
        let body = [&place(region, offset, count)[..], &vec![0; count.min(64) as usize]].concat();
        assert_eq!(client.ask(REGION_WRITE, &body, &[]), Err(Errno::EINVAL));
    };
    refused(BAR0, 512 * 1024, 4);
    refused(BAR0, 512 * 1024 - 2, 4);
    refused(BAR0, u64::MAX, 4);
    refused(BAR0, 0, u32::MAX);
    refused(BAR0, 0, 512 * 1024);
    refused(CONFIG, 4095, 2);
    refused(CONFIG, 1 << 63, 2);
    for region in [1, 2, 3, 5, 6, 8, 9, u32::MAX] {
        refused(region, 0, 1);
    }
    // A count that is not what follows, and parts of registers.
    for len in [0, 3, 5, 400] {
        let body = [&place(BAR0, 0, 4)[..], &vec![0; len]].concat();
        assert_eq!(client.ask(REGION_WRITE, &body, &[]), Err(Errno::EINVAL), "{len}");
    }
    assert_eq!(client.try_write(BAR0, 2, &[0; 4]), Err(Errno::EINVAL));
    assert_eq!(client.try_write(BAR0, 0, &[0; 2]), Err(Errno::EINVAL));
}

#[test]
fn memory_that_is_not_there_is_not_mapped() {
    let mut client = Client::new();
    let file = memory(0x2000);
    assert_eq!(client.map(0, 0x4000, &file, 0), Err(Errno::EINVAL));
    assert_eq!(client.map(0, 0x1000, &file, 0x2000), Err(Errno::EINVAL));
    assert_eq!(client.map(0, 0x1000, &file, u64::MAX - 0xfff), Err(Errno::EINVAL));
    assert_eq!(client.map(u64::MAX - 0xfff, 0x1000, &file, 0), Err(Errno::EINVAL));
    assert_eq!(client.map(0, 0, &file, 0), Err(Errno::EINVAL));
    assert_eq!(client.map(0x800, 0x1000, &file, 0), Err(Errno::EINVAL));
    let socket = client.stream.try_clone().unwrap();
    assert_eq!(client.map(0, 0x1000, &socket, 0), Err(Errno::EINVAL));
    client.map(0, 0x2000, &file, 0).unwrap();
    assert_eq!(client.map(0x1000, 0x1000, &file, 0), Err(Errno::EINVAL));
    let two = [file.as_raw_fd(), file.as_raw_fd()];
    assert_eq!(client.ask(DMA_MAP, &dma_map(0x10_0000, 0x1000, 0), &two), Err(Errno::EINVAL));
    assert_eq!(client.unmap(0x1000, 0x1000), Err(Errno::EINVAL));
    assert_eq!(client.unmap(0x10_0000, 0x1000), Err(Errno::ENOENT));
    client.unmap(0, 0x2000).unwrap();
}

#[test]
fn interrupts_that_are_not_there_and_files_that_are_none_are_refused() {
    let mut client = Client::new();
    let event = event();
    let good = event.as_fd().as_raw_fd();
    let file = memory(0x1000);
    let mut refused = |words: [u32; 4], fds: &[RawFd]| {
        let answer = client.set_irqs(words, fds);
        assert!(matches!(answer, Err(Errno::EINVAL | Errno::ENOTSUP)), "{words:?} {answer:?}");
    };
    refused([ASSIGN, MSIX, 64, 1], &[good]);
    refused([ASSIGN, MSIX, 63, 2], &[good, good]);
    refused([ASSIGN, MSIX, 0, 2], &[good]);
    refused([ASSIGN, MSIX, 0, 1], &[good, good]);
    refused([ASSIGN, MSIX, 0, 1], &[file.as_raw_fd()]);
    refused([ASSIGN, 4, 0, 1], &[good]);
    refused([ASSIGN, MSIX, 1, u32::MAX], &[]);
    refused([1 | 1 << 5, MSIX, 0, 1], &[good]);
    for flags in [0, 1, 1 << 5, 3 | 1 << 5, 1 | 3 << 4, 1 << 2 | 1 << 3, 1 | 1 << 5 | 1 << 9] {
        refused([flags, MSIX, 0, 1], &[]);
    }
}

#[test]
fn more_files_than_agreed_end_the_connection() {
    let mut client = Client::new();
    let event = event();
    let fds = [event.as_fd().as_raw_fd(); 17];
    let body = [20, ASSIGN, MSIX, 0, 17].map(u32::to_le_bytes).concat();
    client.say(SET_IRQS, 0, &body, &fds);
    is_given_up(client, "more files");
}

/// Any bytes at all, and whatever they start in the middle of: an error or the end, never a panic or a hang.
#[test]
fn noise_does_no_harm() {
    let mut random = 0x1234_5678_9abc_def1u64;
    let mut next = move |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    for _ in 0..60 {
        let mut client = Client::new();
        let file = memory(0x8000);
        for _ in 0..100 {
            let command = next(17) as u16;
            let len = [0, 4, 12, 16, 20, 24, 32, 40][next(8) as usize];
            let small = |v: u64| if v & 3 == 0 { v as u8 & 31 } else { 0 };
            let body: Vec<u8> = (0..len).map(|_| small(next(256))).collect();
            let fds = [file.as_raw_fd(), client.stream.as_raw_fd()];
            let fds = &fds[..next(3) as usize];
            let id = client.say(command, 0, &body, fds);
            let _ = client.answer(id, command);
        }
        client.raw(&(0..40).map(|_| next(256) as u8).collect::<Vec<_>>(), &[]);
        let _ = client.leave();
    }
}

//! What a client gets that asks as QEMU does.
use crate::client::{
    BAR0, CONFIG, Client, DEVICE_INFO, IRQ_INFO, MSIX, REGION_INFO, REGION_WRITE, RESET, VERSION,
    event, interrupts, memory, place,
};
use nix::errno::Errno;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;

const ASSIGN: u32 = 1 << 2 | 1 << 5;
const TRIGGER: u32 = 1 | 1 << 5;

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks::<4>().0.iter().map(|w| u32::from_le_bytes(*w)).collect()
}

#[test]
fn a_version_and_limits_are_agreed_on_first() {
    let mut client = Client::connect();
    assert_eq!(client.ask(DEVICE_INFO, &[0; 16], &[]), Err(Errno::EINVAL));
    assert_eq!(client.ask(VERSION, &[1, 0, 0, 0], &[]), Err(Errno::EINVAL));
    assert_eq!(client.ask(VERSION, b"\0\0\x01\0{no", &[]), Err(Errno::EINVAL));
    let caps = br#"....{"capabilities":{"max_msg_fds":8,"migration":{"pgsize":4096}}}"#;
    let mut caps = [&caps[..], b"\0"].concat();
    caps[..4].copy_from_slice(&[0, 0, 0, 0]);
    let answer = client.ask(VERSION, &caps, &[]).unwrap();
    assert_eq!(answer[..4], [0; 4]);
    assert_eq!(answer.last(), Some(&0));
    let text = std::str::from_utf8(&answer[4..answer.len() - 1]).unwrap();
    assert!(text.contains(r#""max_msg_fds":16"#), "{text}");
    assert!(client.ask(DEVICE_INFO, &[0; 16], &[]).is_ok());
    assert_eq!(client.leave(), (Ok(()), 3));
}

#[test]
fn the_device_tells_what_it_has() {
    let mut client = Client::new();
    assert_eq!(words(&client.ask(DEVICE_INFO, &[0; 16], &[]).unwrap()), [16, 3, 9, 5]);
    let mut region = |index: u32| {
        let question = [32, 0, index, 0, 0, 0, 0, 0].map(u32::to_le_bytes).concat();
        client.ask(REGION_INFO, &question, &[]).map(|answer| words(&answer))
    };
    assert_eq!(region(0).unwrap(), [32, 3, 0, 0, 512 * 1024, 0, 0, 0]);
    assert_eq!(region(1).unwrap(), [32, 0, 1, 0, 0, 0, 0, 0]);
    assert_eq!(region(4).unwrap(), [32, 3, 4, 0, 16 * 1024, 0, 0, 0]);
    assert_eq!(region(7).unwrap(), [32, 3, 7, 0, 4096, 0, 0, 0]);
    assert_eq!(region(9), Err(Errno::EINVAL));
    let mut irqs = |kind: u32| {
        let question = [16, 0, kind, 0].map(u32::to_le_bytes).concat();
        client.ask(IRQ_INFO, &question, &[]).map(|answer| words(&answer)[3])
    };
    assert_eq!([0, 1, 2, 3, 4].map(|kind| irqs(kind).unwrap()), [1, 1, 64, 1, 0]);
    assert_eq!(irqs(5), Err(Errno::EINVAL));
    assert_eq!(words(&client.read(CONFIG, 0, 4).unwrap()), [0x10fb_8086]);
    assert_eq!(client.read(CONFIG, 0, 4096).unwrap().len(), 4096);
}

#[test]
fn registers_are_read_and_written_posted_or_not() {
    let mut client = Client::new();
    client.set(0x30, 0x1234_5678);
    assert_eq!(client.register(0x30), 0x1234_5678);
    assert_eq!(client.read(BAR0, 0x31, 2).unwrap(), [0x56, 0x34]);
    // A write of eight bytes is two registers, lower first.
    client.write(BAR0, 0x38, &[1, 0, 0, 0, 2, 0, 0, 0]);
    assert_eq!(client.read(BAR0, 0x38, 8).unwrap(), [1, 0, 0, 0, 2, 0, 0, 0]);
    assert_eq!(client.register(512 * 1024 - 4), 512 * 1024 - 4);
    // Posted: nothing is answered, and what follows finds it done.
    const NO_REPLY: u32 = 1 << 4;
    let body = [&place(BAR0, 0x30, 4)[..], &[9, 0, 0, 0]].concat();
    client.say(REGION_WRITE, NO_REPLY, &body, &[]);
    assert_eq!(client.register(0x30), 9);
}

#[test]
fn the_chip_reaches_memory_as_long_as_it_is_mapped_and_the_function_may() {
    let mut client = Client::new();
    let file = memory(0x10_0000);
    file.write_all_at(&[0x0f; 0x3000], 0x4_0000).unwrap();
    client.map(0x10_0000, 0x8000, &file, 0x4_0000).unwrap();
    let invert = |client: &mut Client, at: u32, len: u32| {
        client.set(0x10, at);
        client.set(0x14, len);
        client.set(0x18, 0);
        client.register(0x18) == 1
    };
    assert!(invert(&mut client, 0x10_0003, 0x2001));
    let mut bytes = [0; 0x3000];
    file.read_exact_at(&mut bytes, 0x4_0000).unwrap();
    assert_eq!((bytes[2], bytes[3], bytes[0x2003], bytes[0x2004]), (0x0f, 0xf0, 0xf0, 0x0f));
    // Half of it beyond the map.
    assert!(!invert(&mut client, 0x10_7ffe, 4));
    client.unmap(0x10_0000, 0x8000).unwrap();
    assert!(!invert(&mut client, 0x10_0000, 4));
    client.map(0x10_0000, 0x8000, &file, 0x4_0000).unwrap();
    assert!(invert(&mut client, 0x10_0000, 4));
    client.write(CONFIG, 4, &[2, 0]);
    assert!(!invert(&mut client, 0x10_0000, 4));
}

#[test]
fn interrupts_come_by_eventfd() {
    let mut client = Client::new();
    let events = [event(), event(), event()];
    let fds = events.each_ref().map(|e| e.as_fd().as_raw_fd());
    client.set_irqs([ASSIGN, MSIX, 1, 3], &fds).unwrap();
    client.set(0x1c, 2);
    assert_eq!(interrupts(&events[1]), 1);
    client.set_irqs([TRIGGER, MSIX, 3, 1], &[]).unwrap();
    assert_eq!(interrupts(&events[2]), 1);
    // In a while, by the chip's own clock: the loop wakes for it.
    client.set(0x24, 30_000_000);
    assert_eq!(interrupts(&events[1]), 1);
    // Taken away one by one, and all.
    client.set_irqs([ASSIGN, MSIX, 2, 1], &[]).unwrap();
    client.set_irqs([TRIGGER, MSIX, 0, 0], &[]).unwrap();
    client.set(0x1c, 1);
    client.set(0x1c, 2);
    client.set_irqs([ASSIGN, MSIX, 1, 1], &fds[..1]).unwrap();
    client.set(0x1c, 1);
    // The one from before the end of all is known, as pending bits are.
    assert_eq!(interrupts(&events[0]), 2);
    assert_eq!(client.leave(), (Ok(()), 0));
}

#[test]
fn frames_go_both_ways() {
    let mut client = Client::new();
    let file = memory(0x4000);
    client.map(0, 0x4000, &file, 0).unwrap();
    let events = [event()];
    client.set_irqs([ASSIGN, MSIX, 1, 1], &[events[0].as_fd().as_raw_fd()]).unwrap();
    file.write_all_at(&[0xab; 1514], 0x1000).unwrap();
    client.set(0x10, 0x1000);
    client.set(0x14, 1514);
    // The wire's loop has to have met its peer, which only a look at it does.
    client.peer.write_all(&[&64u32.to_be_bytes()[..], &[0xcd; 64]].concat()).unwrap();
    assert_eq!(interrupts(&events[0]), 1);
    let mut frame = [0; 64];
    file.read_exact_at(&mut frame, 0x1000).unwrap();
    assert_eq!(frame, [0xcd; 64]);
    client.set(0x20, 1);
    let mut bytes = [0; 1518];
    client.peer.read_exact(&mut bytes).unwrap();
    assert_eq!(
        (&bytes[..4], &bytes[4..68], bytes[68]),
        (&1514u32.to_be_bytes()[..], &frame[..], 0xab)
    );
}

#[test]
fn a_function_that_is_no_bus_master_writes_nothing_and_sends_no_message() {
    let mut client = Client::new();
    let file = memory(0x4000);
    client.map(0, 0x4000, &file, 0).unwrap();
    let events = [event()];
    client.set_irqs([ASSIGN, MSIX, 1, 1], &[events[0].as_fd().as_raw_fd()]).unwrap();
    client.write(CONFIG, 4, &[2, 0]);
    client.peer.write_all(&[&64u32.to_be_bytes()[..], &[0xcd; 64]].concat()).unwrap();
    while client.register(0x2c) == 0 {}
    assert_eq!(client.register(0x2c), 1);
    let mut byte = [0];
    file.read_exact_at(&mut byte, 0).unwrap();
    assert_eq!(byte, [0]);
    // The next one is told of, and the last one was not kept for it.
    client.write(CONFIG, 4, &[6, 0]);
    client.set(0x1c, 1);
    assert_eq!(interrupts(&events[0]), 1);
}

/// More than the loop takes at once, and all of them in one read: the rest must not wait for the next event.
#[test]
fn many_frames_at_once_all_arrive() {
    const FRAMES: u64 = 300;
    let mut client = Client::new();
    let events = [event()];
    client.set_irqs([ASSIGN, MSIX, 1, 1], &[events[0].as_fd().as_raw_fd()]).unwrap();
    let frame = [&64u32.to_be_bytes()[..], &[0xcd; 64]].concat();
    client.peer.write_all(&frame.repeat(FRAMES as usize)).unwrap();
    let mut count = 0;
    while count < FRAMES {
        count += interrupts(&events[0]);
    }
}

#[test]
fn a_reset_is_one_of_function_and_configuration() {
    let mut client = Client::new();
    client.ask(RESET, &[], &[]).unwrap();
    assert_eq!(client.register(0x28), 1);
    assert_eq!(client.read(CONFIG, 4, 2).unwrap(), [0, 0]);
    // By the guest: initiate function level reset.
    client.write(CONFIG, 0xa9, &[0x80]);
    assert_eq!(client.register(0x28), 2);
    assert_eq!(client.leave(), (Ok(()), 0));
}

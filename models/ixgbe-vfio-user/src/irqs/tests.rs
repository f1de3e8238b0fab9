use super::*;
use nix::sys::eventfd::{EfdFlags, EventFd as Counter};
use nix::unistd::read;
use std::os::fd::{AsFd, OwnedFd};

/// An eventfd of which the client keeps one end.
fn event() -> (Counter, EventFd) {
    let counter = Counter::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK).unwrap();
    let other: OwnedFd = counter.as_fd().try_clone_to_owned().unwrap();
    (counter, EventFd::take(other).unwrap())
}

fn count(counter: &Counter) -> u64 {
    let mut bytes = [0; 8];
    match read(counter, &mut bytes) {
        Ok(_) => u64::from_ne_bytes(bytes),
        Err(Errno::EAGAIN) => 0,
        Err(e) => panic!("{e}"),
    }
}

#[test]
fn each_vector_has_its_own_eventfd() {
    let mut irqs = Irqs::default();
    let (a, to_a) = event();
    let (b, to_b) = event();
    irqs.act(MSIX, 7, Action::Assign(vec![to_a, to_b])).unwrap();
    irqs.interrupt(7);
    irqs.interrupt(7);
    irqs.interrupt(8);
    assert_eq!((count(&a), count(&b)), (2, 1));
    irqs.act(MSIX, 7, Action::Remove(1)).unwrap();
    irqs.interrupt(7);
    irqs.interrupt(u16::MAX);
    assert_eq!((count(&a), count(&b)), (0, 0));
}

#[test]
fn what_happens_while_nobody_is_told_is_told_later_unless_the_kind_is_ended() {
    let mut irqs = Irqs::default();
    irqs.interrupt(3);
    let (a, to_a) = event();
    irqs.act(MSIX, 3, Action::Assign(vec![to_a])).unwrap();
    assert_eq!(count(&a), 1);
    irqs.act(MSIX, 3, Action::Mask(1)).unwrap();
    irqs.interrupt(3);
    assert_eq!(count(&a), 0);
    irqs.act(MSIX, 3, Action::Unmask(1)).unwrap();
    assert_eq!(count(&a), 1);
    irqs.act(MSIX, 0, Action::Remove(0)).unwrap();
    irqs.interrupt(3);
    irqs.act(MSIX, 0, Action::Remove(0)).unwrap();
    let (b, to_b) = event();
    irqs.act(MSIX, 3, Action::Assign(vec![to_b])).unwrap();
    assert_eq!(count(&b), 0);
}

#[test]
fn entry_0_is_also_the_line_or_the_only_message() {
    let mut irqs = Irqs::default();
    let (line, to_line) = event();
    irqs.act(INTX, 0, Action::Assign(vec![to_line])).unwrap();
    irqs.interrupt(0);
    assert_eq!(count(&line), 1);
    let (message, to_message) = event();
    irqs.act(MSI, 0, Action::Assign(vec![to_message])).unwrap();
    irqs.interrupt(0);
    assert_eq!((count(&line), count(&message)), (0, 1));
    let (entry, to_entry) = event();
    irqs.act(MSIX, 0, Action::Assign(vec![to_entry])).unwrap();
    irqs.interrupt(0);
    assert_eq!((count(&line), count(&message), count(&entry)), (0, 0, 1));
}

#[test]
fn interrupts_that_are_not_there_are_refused() {
    let mut irqs = Irqs::default();
    let mut refused = |kind, start, action| {
        assert_eq!(irqs.act(kind, start, action), Err(Errno::EINVAL), "{kind} {start}");
    };
    refused(INTX, 0, Action::Trigger(2));
    refused(MSIX, 64, Action::Trigger(1));
    refused(MSIX, 1, Action::Trigger(u32::MAX));
    refused(MSIX, u32::MAX, Action::Trigger(1));
    refused(ERROR, 0, Action::Trigger(2));
    refused(4, 0, Action::Trigger(1));
    refused(u32::MAX, 0, Action::Remove(0));
    let (_end, pipe) = nix::unistd::pipe().unwrap();
    assert_eq!(EventFd::take(pipe).unwrap_err(), Errno::EINVAL);
}

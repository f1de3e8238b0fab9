//! Records survive the way there and back, and any bytes at all decode to an answer.

use ix_abi::call::{Call, Op, Request, SgEntry};
use ix_abi::event::{Condition, Event};
use ix_abi::limits::{
    BACKLOG_MAX, KEEP_ALIVE_PROBES_MAX, OPTION_TIME_MAX_US, SG_MAX, TIMER_MAX_US,
};
use ix_abi::{
    Congestion, Cookie, DeadReason, GroupId, Handle, IpAddress, SocketAddress, Status, TcpOption,
};
use proptest::prelude::*;
use zerocopy::{FromBytes, IntoBytes};

fn address() -> impl Strategy<Value = SocketAddress> {
    (any::<[u8; 16]>(), any::<u16>(), any::<u32>()).prop_map(|(ip, port, scope)| SocketAddress {
        ip: IpAddress(ip),
        port,
        scope,
    })
}

fn handle() -> impl Strategy<Value = Handle> {
    any::<u64>().prop_map(Handle)
}

fn cookie() -> impl Strategy<Value = Cookie> {
    any::<u64>().prop_map(Cookie)
}

fn entry() -> impl Strategy<Value = SgEntry> {
    (any::<u64>(), any::<u64>()).prop_map(|(addr, len)| SgEntry { addr, len })
}

/// Calls beside the requests that they are to be decoded to: those with arguments of their own.
fn call_with_arguments() -> impl Strategy<Value = (Call, Request)> {
    let sg_count = 1..=SG_MAX as u16;
    prop_oneof![
        (address(), 1..=BACKLOG_MAX).prop_map(|(local, backlog)| {
            (Call::listen(local, backlog), Request::Listen { local, backlog })
        }),
        (handle(), cookie()).prop_map(|(handle, cookie)| {
            (Call::accept(handle, cookie), Request::Accept { handle, cookie })
        }),
        (cookie(), address()).prop_map(|(cookie, remote)| {
            (Call::connect(cookie, remote), Request::Connect { cookie, remote })
        }),
        (handle(), sg_count.clone(), entry(), entry()).prop_map(|(handle, count, a, b)| {
            let sg_count = usize::from(count);
            (Call::sendv(handle, count, a, b), Request::Sendv { handle, sg_count, done: 0 })
        }),
        (handle(), any::<u64>()).prop_map(|(handle, bytes)| {
            (Call::recv_done(handle, bytes), Request::RecvDone { handle, bytes })
        }),
        (address(), cookie()).prop_map(|(local, cookie)| {
            (Call::udp_bind(local, cookie), Request::UdpBind { local, cookie })
        }),
        (handle(), address(), sg_count, entry()).prop_map(|(handle, remote, count, a)| {
            let sg_count = usize::from(count);
            let request = Request::UdpSendv { handle, remote, sg_count };
            (Call::udp_sendv(handle, remote, count, a), request)
        }),
        (handle(), any::<u64>()).prop_map(|(handle, addr)| {
            (Call::udp_recv_done(handle, addr), Request::UdpRecvDone { handle, addr })
        }),
        (cookie(), 0..=TIMER_MAX_US).prop_map(|(cookie, delay_us)| {
            (Call::timer_set(cookie, delay_us), Request::TimerSet { cookie, delay_us })
        }),
        (handle(), 0..TcpOption::ALL.len(), any::<u64>()).prop_filter_map(
            "a value that the option can have",
            |(handle, option, value)| {
                let option = TcpOption::ALL[option];
                let value = value >> (value & 63);
                option.check(value).ok()?;
                let request = Request::SetOption { handle, option, value };
                Some((Call::set_option(handle, option, value), request))
            }
        ),
    ]
}

fn call() -> impl Strategy<Value = (Call, Request)> {
    let with_handle = (handle(), 0..7usize).prop_map(|(handle, which)| {
        let (op, request) = [
            (Op::Reject, Request::Reject { handle }),
            (Op::Close, Request::Close { handle }),
            (Op::Abort, Request::Abort { handle }),
            (Op::Shutdown, Request::Shutdown { handle }),
            (Op::UdpClose, Request::UdpClose { handle }),
            (Op::TimerCancel, Request::TimerCancel { handle }),
            (Op::Unlisten, Request::Unlisten { handle }),
        ][which];
        (Call::new(op, handle), request)
    });
    prop_oneof![call_with_arguments(), with_handle]
}

fn condition() -> impl Strategy<Value = Condition> {
    let numbers = (any::<u64>(), any::<u64>(), any::<u32>(), any::<u32>(), any::<u16>());
    (0..16usize, handle(), cookie(), address(), numbers).prop_map(
        |(which, handle, cookie, remote, (addr, value, len, window, small))| {
            let listener = Handle(addr);
            [
                Condition::Nop,
                Condition::Knock { handle, listener, remote, local_port: small },
                Condition::Connected { handle, cookie, outcome: Status(small), window },
                Condition::Recv { handle, cookie, addr, len },
                Condition::Sent { handle, cookie, bytes: len, window },
                Condition::Dead { handle, cookie, reason: DeadReason(small) },
                Condition::Eof { handle, cookie },
                Condition::UdpRecv { handle, cookie, addr, len, remote },
                Condition::UdpSent { handle, cookie, tag: value, bytes: len },
                Condition::Timer { handle, cookie },
                Condition::GroupIn { group: GroupId(small), life: small >> 1 },
                Condition::GroupOut { group: GroupId(small), life: !small },
                Condition::Parking,
                Condition::Shutdown,
                Condition::Result {
                    op: small,
                    status: Status(len as u16),
                    handle,
                    tag: addr,
                    value,
                },
                Condition::RecvSent { handle, cookie, addr, len, sent: !len, window },
            ][which]
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_call_arrives_as_it_was_meant((call, request) in call(), tag: u64) {
        prop_assert_eq!(call.decode(), Ok(request));
        let copy = Call::read_from_bytes(call.as_bytes()).expect("as long as a record");
        prop_assert_eq!(copy.decode(), Ok(request));
        let wanted = call.with_result(tag);
        prop_assert_eq!((wanted.decode(), wanted.tag), (Ok(request), tag));
        prop_assert!(wanted.wants_result() && !call.with_tag(tag).wants_result());
    }

    #[test]
    fn an_event_arrives_as_it_was_meant(condition in condition()) {
        let event = condition.encode();
        let copy = Event::read_from_bytes(event.as_bytes()).expect("as long as a record");
        prop_assert_eq!(Condition::decode(&copy), condition);
    }

    #[test]
    fn the_inline_entries_are_those_given(a in entry(), b in entry(), to in address()) {
        prop_assert_eq!(Call::sendv(Handle(1), 2, a, b).inline_sg(), [a, b]);
        prop_assert_eq!(Call::udp_sendv(Handle(1), to, 1, a).inline_sg()[0], a);
    }

    /// What an application can write into a slot: any bytes at all.
    #[test]
    fn decoding_any_bytes_is_an_answer_within_bounds(bytes: [u8; 64]) {
        let call = Call::read_from_bytes(&bytes).expect("as long as a record");
        prop_assert!((1..=17).contains(&call.slots()));
        for entry in call.inline_sg() {
            if let Ok(entry) = entry.checked() {
                prop_assert!(entry.addr.checked_add(entry.len).is_some());
            }
        }
        prop_assert!(matches!(call.decode(), Ok(_) | Err(Status::Invalid)));
        let event = Event::read_from_bytes(&bytes).expect("as long as a record");
        let _ = Condition::decode(&event);
    }

    /// The same with operation and flags that are mostly right, so that arguments are reached.
    #[test]
    fn arguments_of_decoded_calls_are_within_their_limits(
        op in 0..20u16, flags in 0..3u16, sg_count in 0..200u16, reserved in 0..2u16,
        words in prop::array::uniform5(prop_oneof![any::<u64>(), 0..100_000u64]),
    ) {
        let call = Call { op, flags, sg_count, reserved, handle: 1, tag: 2, words };
        prop_assert!((1..=17).contains(&call.slots()));
        let Ok(request) = call.decode() else { return Ok(()) };
        prop_assert!(flags < 2 && reserved == 0 && op <= 16);
        match request {
            Request::Sendv { sg_count, .. } | Request::UdpSendv { sg_count, .. } => {
                prop_assert!((1..=SG_MAX).contains(&sg_count));
            }
            Request::Listen { backlog, .. } => prop_assert!((1..=BACKLOG_MAX).contains(&backlog)),
            Request::TimerSet { delay_us, .. } => prop_assert!(delay_us <= TIMER_MAX_US),
            _ => {}
        }
    }

    #[test]
    fn a_handle_keeps_its_parts(group: u16, generation in 0..1u32 << 24, index in 0..1u32 << 24) {
        let handle = Handle::new(GroupId(group), generation, index);
        let parts = (handle.group().0, handle.generation(), handle.index());
        prop_assert_eq!(parts, (group, generation, index));
        let next = Handle::next_generation(generation);
        prop_assert!(next != 0 && next != generation && next <= Handle::FIELD_MAX);
    }

    #[test]
    fn addresses_survive_their_words(address in address()) {
        prop_assert_eq!(SocketAddress::from_words(address.to_words()), address);
    }
}

#[test]
fn limits_of_arguments_are_inclusive() {
    let any = SocketAddress::default();
    let backlog = |backlog| Call::listen(any, backlog).decode().is_ok();
    assert_eq!([0, 1, BACKLOG_MAX, BACKLOG_MAX + 1].map(backlog), [false, true, true, false]);
    let delay = |delay| Call::timer_set(Cookie(0), delay).decode().is_ok();
    assert_eq!([0, TIMER_MAX_US, TIMER_MAX_US + 1].map(delay), [true, true, false]);
    let entry = SgEntry::default();
    let count = |count| Call::sendv(Handle(1), count, entry, entry).decode().is_ok();
    assert_eq!([0, 1, 64, 65, u16::MAX].map(count), [false, true, true, false, false]);
}

#[test]
fn an_entry_that_wraps_around_or_is_too_long_is_refused() {
    let checked = |addr, len| SgEntry { addr, len }.checked().is_ok();
    assert!(checked(u64::MAX - 8, 8) && !checked(u64::MAX - 8, 9));
    assert!(checked(0, 1 << 30) && !checked(0, (1 << 30) + 1));
}

#[test]
fn options_and_their_values_are_checked() {
    let decode = |option: u64, value: u64| {
        let mut call = Call::new(Op::SetOption, Handle(7));
        call.words[..2].copy_from_slice(&[option, value]);
        call.decode().map(|_| ())
    };
    for option in [TcpOption::KeepAlive, TcpOption::KeepAliveInterval, TcpOption::UserTimeout] {
        let option = u64::from(option.0);
        assert_eq!(decode(option, OPTION_TIME_MAX_US), Ok(()));
        assert_eq!(decode(option, OPTION_TIME_MAX_US + 1), Err(Status::Invalid));
    }
    assert_eq!(decode(u64::from(TcpOption::KeepAliveProbes.0), KEEP_ALIVE_PROBES_MAX), Ok(()));
    assert_eq!(
        decode(u64::from(TcpOption::KeepAliveProbes.0), KEEP_ALIVE_PROBES_MAX + 1),
        Err(Status::Invalid)
    );
    let congestion = u64::from(TcpOption::Congestion.0);
    assert_eq!(decode(congestion, u64::from(Congestion::Dctcp.0)), Ok(()));
    assert_eq!(decode(congestion, 4), Err(Status::Invalid));
    for unknown in [0, 6, 0x1_0001, u64::MAX] {
        assert_eq!(decode(unknown, 0), Err(Status::Unsupported), "{unknown}");
    }
}

//! Options of connections and listeners.

use super::*;
use ix_abi::{Congestion, TcpOption};

/// The options that the kernel was asked to set, in order.
fn asked(of: Handle) -> Vec<(TcpOption, u64)> {
    kernel(|k| {
        let options = k.calls.iter().filter_map(|(request, _)| match *request {
            Request::SetOption { handle, option, value } if handle == of => Some((option, value)),
            _ => None,
        });
        options.collect()
    })
}

#[test]
fn options_of_a_connection_reach_the_kernel_in_its_units() {
    let (mut rig, handle) = Rig::with_conn(Does::Consume);
    rig.act(OPTIONS);
    rig.turn();
    let expected = [
        (TcpOption::KeepAlive, 600_000_000),
        (TcpOption::KeepAliveInterval, 1_500_000),
        (TcpOption::KeepAliveProbes, 4),
        (TcpOption::UserTimeout, 1),
        (TcpOption::Congestion, u64::from(Congestion::NewReno.0)),
        (TcpOption::KeepAlive, 0),
        (TcpOption::UserTimeout, 0),
    ];
    assert_eq!(asked(handle), expected);
    assert_eq!(rig.app.seen, [""; 0], "success is silent");
}

#[test]
fn an_option_that_the_kernel_does_not_have_is_told_and_the_connection_lives() {
    let (mut rig, handle) = Rig::with_conn(Does::Consume);
    rig.act(DCTCP);
    rig.turn();
    rig.turn();
    assert_eq!(rig.app.seen, ["set_option not supported"]);
    kernel(|k| k.recv(handle, b"hi"));
    rig.turn();
    rig.turn();
    assert_eq!(tcp(handle, |t| t.outstanding), 0);
}

#[test]
fn a_connection_that_was_given_back_has_no_options() {
    let (mut rig, handle) = Rig::with_conn(Does::Consume);
    rig.act(CLOSE);
    rig.turn();
    rig.act(OPTIONS);
    rig.turn();
    assert_eq!(asked(handle), []);
}

#[test]
fn a_listener_gives_its_connections_what_they_begin_with() {
    let mut rig = Rig::new(Does::Consume);
    rig.act(LISTENER_OPTION);
    rig.turn();
    let listener = Handle::new(GroupId::DATAPLANE, 1, 1);
    assert_eq!(asked(listener), [(TcpOption::KeepAlive, 600_000_000)]);
}

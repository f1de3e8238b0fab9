//! The times of TCP that depend on where a dataplane is: one set for the internet, one for a datacentre.
use crate::limits::{
    CONNECT_TIMEOUT, DELAYED_ACK, FIN_WAIT_2, HANDSHAKE_TIMEOUT, PROBE_MIN, PROBE_MIN_DATACENTER,
    RTO_MIN, RTO_MIN_DATACENTER, TIME_WAIT, USER_TIMEOUT,
};
use crate::time::Duration;

/// A set of times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Longest that an acknowledgement waits for data to ride on.
    pub delayed_ack: Duration,
    /// Floor of the retransmission timeout.
    pub rto_min: Duration,
    /// Floor of the timeout of loss probes.
    pub probe_min: Duration,
    /// 2 MSL.
    pub time_wait: Duration,
    /// How long a connection that the application has closed waits for the peer's FIN.
    pub fin_wait_2: Duration,
    /// How long `connect` tries.
    pub connect_timeout: Duration,
    /// How long a peer's handshake may take.
    pub handshake_timeout: Duration,
    /// How long data is retransmitted in vain, unless the application says otherwise.
    pub user_timeout: Duration,
}

impl Profile {
    /// What the RFCs say, or the large systems do.
    pub const INTERNET: Profile = Profile {
        delayed_ack: DELAYED_ACK,
        rto_min: RTO_MIN,
        probe_min: PROBE_MIN,
        time_wait: TIME_WAIT,
        fin_wait_2: FIN_WAIT_2,
        connect_timeout: CONNECT_TIMEOUT,
        handshake_timeout: HANDSHAKE_TIMEOUT,
        user_timeout: USER_TIMEOUT,
    };

    /// Round trips below a millisecond, segments that live for less than half a second, peers that
    /// are replaced when they are silent for seconds.
    pub const DATACENTRE: Profile = Profile {
        delayed_ack: Duration::from_us(500),
        rto_min: RTO_MIN_DATACENTER,
        probe_min: PROBE_MIN_DATACENTER,
        time_wait: Duration::from_s(1),
        fin_wait_2: Duration::from_s(10),
        connect_timeout: Duration::from_s(5),
        handshake_timeout: Duration::from_s(5),
        user_timeout: Duration::from_s(20),
    };
}

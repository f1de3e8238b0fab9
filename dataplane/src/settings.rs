//! What an application sets of a connection, or of a listener for those that it gets (`docs/abi.md` 8.17).
use crate::limits::{KEEP_ALIVE_INTERVAL, KEEP_ALIVE_PROBES};
use crate::tcp::congestion::Algorithm;
use crate::time::Duration;
use ix_abi::{Congestion, Status, TcpOption};

/// The options as they stand: 14 bytes of each connection. 0 is the default of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, packed(2))]
pub struct Settings {
    keep_alive_ms: u32,
    keep_alive_interval_ms: u32,
    user_timeout_ms: u32,
    keep_alive_probes: u8,
    /// A `Congestion`.
    congestion: u8,
}

const _: () = assert!(size_of::<Settings>() == 14);

impl Settings {
    /// Sets an option that `TcpOption::check` has passed.
    pub fn set(&mut self, option: TcpOption, value: u64) -> Result<(), Status> {
        option.check(value)?;
        // A week of milliseconds fits.
        let time = value.div_ceil(1000) as u32;
        match option {
            TcpOption::KeepAlive => self.keep_alive_ms = time,
            TcpOption::KeepAliveInterval => self.keep_alive_interval_ms = time,
            TcpOption::KeepAliveProbes => self.keep_alive_probes = value as u8,
            TcpOption::UserTimeout => self.user_timeout_ms = time,
            TcpOption::Congestion => self.congestion = value as u8,
            _ => return Err(Status::Unsupported),
        }
        Ok(())
    }

    /// Silence after which the peer is asked whether it lives.
    pub fn keep_alive(&self) -> Option<Duration> {
        (self.keep_alive_ms > 0).then(|| Duration::from_ms(u64::from(self.keep_alive_ms)))
    }

    /// From one unanswered question to the next.
    pub fn keep_alive_interval(&self) -> Duration {
        match self.keep_alive_interval_ms {
            0 => {
                self.keep_alive().map_or(KEEP_ALIVE_INTERVAL, |idle| idle.min(KEEP_ALIVE_INTERVAL))
            }
            ms => Duration::from_ms(u64::from(ms)),
        }
    }

    /// Questions without answer that end a connection.
    pub fn keep_alive_probes(&self) -> u8 {
        if self.keep_alive_probes == 0 { KEEP_ALIVE_PROBES } else { self.keep_alive_probes }
    }

    /// How long it is tried in vain, if the application has said.
    pub fn user_timeout(&self) -> Option<Duration> {
        (self.user_timeout_ms > 0).then(|| Duration::from_ms(u64::from(self.user_timeout_ms)))
    }

    /// What congestion is controlled by; `default` if the application leaves that to us.
    pub fn algorithm(&self, default: Algorithm) -> Algorithm {
        match Congestion(u16::from(self.congestion)) {
            Congestion::NewReno => Algorithm::NewReno,
            Congestion::Cubic => Algorithm::Cubic,
            Congestion::Dctcp => Algorithm::Dctcp,
            _ => default,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ix_abi::limits::OPTION_TIME_MAX_US;

    #[test]
    fn times_are_rounded_up_to_milliseconds_and_zero_is_the_default() {
        let mut s = Settings::default();
        assert_eq!((s.keep_alive(), s.user_timeout()), (None, None));
        assert_eq!(s.keep_alive_interval(), KEEP_ALIVE_INTERVAL);
        s.set(TcpOption::KeepAlive, 1).unwrap();
        assert_eq!(s.keep_alive(), Some(Duration::from_ms(1)));
        assert_eq!(s.keep_alive_interval(), Duration::from_ms(1), "no more than the silence");
        s.set(TcpOption::KeepAlive, OPTION_TIME_MAX_US).unwrap();
        assert_eq!(s.keep_alive(), Some(Duration::from_us(OPTION_TIME_MAX_US)));
        assert_eq!(s.keep_alive_interval(), KEEP_ALIVE_INTERVAL);
        s.set(TcpOption::KeepAliveInterval, 2_000_001).unwrap();
        assert_eq!(s.keep_alive_interval(), Duration::from_ms(2001));
        s.set(TcpOption::KeepAliveProbes, 0).unwrap();
        assert_eq!(s.keep_alive_probes(), KEEP_ALIVE_PROBES);
        s.set(TcpOption::KeepAlive, 0).unwrap();
        assert_eq!(s.keep_alive(), None);
    }

    #[test]
    fn a_value_or_option_that_is_none_changes_nothing() {
        let mut s = Settings::default();
        s.set(TcpOption::UserTimeout, 5_000_000).unwrap();
        let before = s;
        assert_eq!(s.set(TcpOption::UserTimeout, OPTION_TIME_MAX_US + 1), Err(Status::Invalid));
        assert_eq!(s.set(TcpOption::KeepAliveProbes, 128), Err(Status::Invalid));
        assert_eq!(s.set(TcpOption::Congestion, 17), Err(Status::Invalid));
        assert_eq!(s.set(TcpOption(6), 0), Err(Status::Unsupported));
        assert_eq!(s, before);
    }
}

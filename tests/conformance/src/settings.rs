//! The `--key value` lines at a script's head.
use crate::parse::duration;
use ix_dataplane::config::{Algorithm, EcnMode};
use ix_dataplane::profile::Profile;
use ix_dataplane::time::Duration;

/// What the engine, the peer and the application are like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Of the link.
    pub mtu: u16,
    /// How far an expected time may be missed, in nanoseconds.
    pub tolerance_ns: u64,
    /// Of what is random in the engine.
    pub seed: u64,
    /// The peer's first sequence number.
    pub peer_isn: u32,
    /// The NIC sums and verifies.
    pub offload: bool,
    /// The NIC cuts packets of up to so many bytes into segments; 0: it does not.
    pub tso: u16,
    /// The application returns received bytes at once.
    pub returns: bool,
    /// Receive buffers.
    pub buffers: u32,
    /// Most connections of a flow group.
    pub connections: u32,
    /// Flow groups.
    pub groups: u16,
    /// Congestion control.
    pub congestion: Algorithm,
    /// Times of TCP.
    pub profile: Profile,
    /// Explicit congestion notification.
    pub ecn: EcnMode,
    /// Fragments are put together.
    pub fragments: bool,
    /// Versions of IP that the script is for; both unless it says otherwise.
    pub versions: &'static [Version],
}

/// A version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            mtu: 1500,
            tolerance_ns: 1_000_000,
            seed: 1,
            peer_isn: 100_000,
            offload: false,
            tso: 0,
            returns: false,
            buffers: 1024,
            connections: 1024,
            groups: 8,
            congestion: Algorithm::default(),
            profile: Profile::INTERNET,
            ecn: EcnMode::default(),
            fragments: true,
            versions: &[Version::V4, Version::V6],
        }
    }
}

impl Settings {
    /// Takes one key. `Err`: what is wrong with it.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "mtu" => self.mtu = number(value)?,
            "tolerance" => self.tolerance_ns = duration(value).ok_or_else(|| bad(value))?,
            "seed" => self.seed = number(value)?,
            "peer_isn" => self.peer_isn = number(value)?,
            "offload" => self.offload = switch(value)?,
            "tso" => {
                self.tso = number(value)?;
                self.offload |= self.tso > 0;
            }
            "reader" => self.returns = choice(value, "hold", "return")?,
            "buffers" => self.buffers = number(value)?,
            "connections" => self.connections = number(value)?,
            "groups" => self.groups = number(value)?,
            "congestion" => self.congestion = algorithm(value)?,
            "profile" if choice(value, "internet", "datacentre")? => {
                self.profile = Profile::DATACENTRE;
            }
            "fragments" => self.fragments = switch(value)?,
            "rto_min" => {
                let floor = duration(value).ok_or_else(|| bad(value))?;
                self.profile.rto_min = Duration(floor);
            }
            "ecn" => {
                self.ecn = match value {
                    "off" => EcnMode::Off,
                    "accept" => EcnMode::Accept,
                    "on" => EcnMode::On,
                    _ => return Err(bad(value)),
                }
            }
            "ip" => {
                self.versions =
                    if choice(value, "4", "6")? { &[Version::V6] } else { &[Version::V4] };
            }
            "profile" => self.profile = Profile::INTERNET,
            _ => return Err(format!("unknown setting --{key}")),
        }
        Ok(())
    }
}

fn algorithm(value: &str) -> Result<Algorithm, String> {
    match value {
        "cubic" => Ok(Algorithm::Cubic),
        "newreno" => Ok(Algorithm::NewReno),
        "dctcp" => Ok(Algorithm::Dctcp),
        _ => Err(bad(value)),
    }
}

fn bad(value: &str) -> String {
    format!("{value:?} is no value for this")
}

fn number<T: std::str::FromStr>(value: &str) -> Result<T, String> {
    value.parse().map_err(|_| bad(value))
}

fn switch(value: &str) -> Result<bool, String> {
    choice(value, "off", "on")
}

fn choice(value: &str, no: &str, yes: &str) -> Result<bool, String> {
    if value == yes {
        Ok(true)
    } else if value == no {
        Ok(false)
    } else {
        Err(format!("{value:?} is neither {no} nor {yes}"))
    }
}

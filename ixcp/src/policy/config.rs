//! The configuration: `default.toml`, and what files and commands change of it.
use super::Kind;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// The documented file, which is also the defaults.
pub const DEFAULT: &str = include_str!("default.toml");

/// A configuration, all of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Which policy.
    pub policy: Kind,
    /// Time between two looks, ms.
    pub interval_ms: u64,
    /// Bounds.
    pub cores: Bounds,
    /// The static policy.
    #[serde(rename = "static")]
    pub fixed: Fixed,
    /// Rules of the latency policy.
    pub latency: Rules,
    /// Rules of the energy policy.
    pub efficient: Rules,
    /// Rules of the background policy.
    pub background: Rules,
    /// The host's CPUs.
    pub host: Host,
    /// The background policy's job.
    pub job: Job,
}

/// How many cores there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    /// At least.
    pub min: u32,
    /// At most; 0: all.
    pub max: u32,
}

/// The static policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fixed {
    /// So many; 0: as they are.
    pub cores: u32,
}

/// When a policy takes a step; `default.toml` says what each number means.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "default.toml documents them, for users as well")]
pub struct Rules {
    pub target_us: f64,
    pub up_delay_us: f64,
    pub busy_floor: f64,
    pub up_queue: f64,
    pub up_busy: f64,
    pub late_factor: f64,
    pub smooth_ms: u64,
    pub down_queue: f64,
    pub down_delay_us: f64,
    pub down_margin: f64,
    pub down_busy: f64,
    pub down_factor: f64,
    pub up_after_up_ms: u64,
    pub up_after_down_ms: u64,
    pub down_after_up_ms: u64,
    pub down_after_down_ms: u64,
    pub reserve: u32,
    pub wake_delay_us: f64,
    pub wake_after_us: f64,
}

/// The host's CPUs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Where the virtual cores run, in their order; empty: where the daemon may.
    pub cpus: Vec<usize>,
}

/// Whom CPUs are lent to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// A cgroup's directory; empty: none.
    pub cgroup: PathBuf,
    /// A process; 0: none.
    pub pid: i32,
    /// CPUs that are its own.
    pub always: Vec<usize>,
}

/// What is wrong with a configuration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read {0}: {1}")]
    Read(String, String),
    /// It is no TOML, or has keys that nobody knows.
    #[error("{0}: {1}")]
    Syntax(String, String),
    /// A value that cannot be.
    #[error("{key} is {found}: {wanted}")]
    Value {
        /// Which.
        key: String,
        /// What it says.
        found: String,
        /// What would do.
        wanted: &'static str,
    },
    /// Not `KEY=VALUE`.
    #[error(
        "{0:?} is no setting: KEY=VALUE is wanted, like latency.target_us=50 (`ixcp policy init` prints all keys)"
    )]
    Setting(String),
}

impl Default for Config {
    fn default() -> Config {
        Config::from_table(Table::new(), "default").expect("the default is right: a test reads it")
    }
}

impl Config {
    /// The defaults with `changes` laid over them. `origin` is for complaints.
    pub fn from_table(changes: Table, origin: &str) -> Result<Config, ConfigError> {
        let syntax = |e: toml::de::Error| ConfigError::Syntax(origin.to_owned(), one_line(&e));
        let mut all: Table = DEFAULT.parse().map_err(syntax)?;
        overlay(&mut all, changes);
        let config: Config = Value::Table(all).try_into().map_err(syntax)?;
        config.check()?;
        Ok(config)
    }

    /// The rules of the policy that decides; the static one has none.
    pub fn rules(&self) -> &Rules {
        match self.policy {
            Kind::Static | Kind::Latency => &self.latency,
            Kind::Efficient => &self.efficient,
            Kind::Background => &self.background,
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let complain =
            |key: String, found: String, wanted| Err(ConfigError::Value { key, found, wanted });
        if !(1..=10_000).contains(&self.interval_ms) {
            let found = self.interval_ms.to_string();
            return complain("interval_ms".into(), found, "1 to 10000 is wanted");
        }
        if self.cores.max != 0 && self.cores.min > self.cores.max {
            let found = self.cores.min.to_string();
            return complain("cores.min".into(), found, "it must not be above cores.max");
        }
        let sections = [
            ("latency", &self.latency),
            ("efficient", &self.efficient),
            ("background", &self.background),
        ];
        for (section, rules) in sections {
            rules.check().or_else(|(key, found, wanted)| {
                complain(format!("{section}.{key}"), found.to_string(), wanted)
            })?;
        }
        if !self.job.cgroup.as_os_str().is_empty() && self.job.pid != 0 {
            return complain(
                "job.pid".into(),
                self.job.pid.to_string(),
                "a job is a cgroup or a process, not both",
            );
        }
        if self.job.pid < 0 {
            return complain("job.pid".into(), self.job.pid.to_string(), "a process is wanted");
        }
        Ok(())
    }
}

impl Rules {
    fn check(&self) -> Result<(), (&'static str, f64, &'static str)> {
        let shares = [
            ("busy_floor", self.busy_floor),
            ("up_busy", self.up_busy),
            ("down_busy", self.down_busy),
        ];
        for (key, value) in shares {
            if !(0.0..=1.0).contains(&value) {
                return Err((key, value, "a share from 0 to 1 is wanted"));
            }
        }
        let positive = [
            ("target_us", self.target_us),
            ("up_delay_us", self.up_delay_us),
            ("up_queue", self.up_queue),
            ("down_queue", self.down_queue),
            ("down_delay_us", self.down_delay_us),
            ("wake_delay_us", self.wake_delay_us),
            ("wake_after_us", self.wake_after_us),
        ];
        for (key, value) in positive {
            if !(value > 0.0 && value <= 1e9) {
                return Err((key, value, "a number above 0, at most 1e9, is wanted"));
            }
        }
        let factors = [
            ("late_factor", self.late_factor),
            ("down_margin", self.down_margin),
            ("down_factor", self.down_factor),
        ];
        for (key, value) in factors {
            if !(1.0..=64.0).contains(&value) {
                return Err((key, value, "a factor from 1 to 64 is wanted"));
            }
        }
        if self.down_delay_us >= self.up_delay_us {
            return Err(("down_delay_us", self.down_delay_us, "it must be below up_delay_us"));
        }
        if self.down_queue >= self.up_queue {
            return Err(("down_queue", self.down_queue, "it must be below up_queue"));
        }
        Ok(())
    }
}

/// The changes that a file makes.
pub fn read(path: &Path) -> Result<Table, ConfigError> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|e| ConfigError::Read(name.clone(), e.to_string()))?;
    text.parse().map_err(|e: toml::de::Error| ConfigError::Syntax(name, e.to_string()))
}

/// Lays `changes` over `table`; tables are merged, everything else is replaced.
pub fn overlay(table: &mut Table, changes: Table) {
    for (key, value) in changes {
        match (table.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => overlay(below, above),
            (_, value) => {
                table.insert(key, value);
            }
        }
    }
}

/// `latency.target_us=50` as a change. What is no TOML value is a text.
pub fn setting(text: &str) -> Result<Table, ConfigError> {
    let wrong = || ConfigError::Setting(text.to_owned());
    let (path, value) = text.split_once('=').ok_or_else(wrong)?;
    if path.is_empty() || path.split('.').any(str::is_empty) {
        return Err(wrong());
    }
    let parsed = format!("v = {value}").parse::<Table>().ok().and_then(|mut t| t.remove("v"));
    let mut value = parsed.unwrap_or_else(|| Value::String(value.to_owned()));
    for key in path.rsplit('.') {
        value = Value::Table(Table::from_iter([(key.trim().to_owned(), value)]));
    }
    match value {
        Value::Table(table) => Ok(table),
        _ => Err(wrong()),
    }
}

/// In one line, with words for the types.
fn one_line(error: &toml::de::Error) -> String {
    let text = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    // What was found stands before it, and may be anything.
    let Some((found, wanted)) = text.rsplit_once(", expected ") else { return text };
    let (word, rest) = wanted.split_once(' ').unwrap_or((wanted, ""));
    let word = match word {
        "f64" => "a number",
        "u32" | "u64" | "usize" => "a whole number that is not negative",
        "i32" => "a whole number",
        other => other,
    };
    format!("{found}, expected {word} {rest}").trim_end().to_owned()
}

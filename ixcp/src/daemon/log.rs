//! What was decided: on standard output, and as lines of JSON in the dataplane's directory.
use crate::control::print;
use crate::instance::Instance;
use crate::policy::Change;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// A file longer than this is put aside, in place of the one before.
const BYTES_MAX: u64 = 1 << 20;

/// The file.
pub fn path(instance: &Instance) -> PathBuf {
    instance.dir().join("policy.log")
}

/// A line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    /// Unix time, ms.
    pub unix_ms: u64,
    /// The policy's name.
    pub policy: String,
    /// In words.
    pub text: String,
    /// For programs: the steps, the reason, the figures; null if nothing was decided.
    #[serde(default)]
    pub change: Value,
    /// How long it took to carry out, ms; null if it was not.
    #[serde(default)]
    pub took_ms: Option<f64>,
}

impl Line {
    /// For people.
    pub fn show(&self) -> String {
        format!("{}  {}", utc(self.unix_ms), self.text)
    }
}

/// A dataplane's log.
#[derive(Debug)]
pub struct Log {
    instance: Instance,
    /// What was said last, so that it is not said again and again.
    last: String,
}

impl Log {
    /// Of this one.
    pub fn new(instance: &Instance) -> Log {
        Log { instance: instance.clone(), last: String::new() }
    }

    /// A decision, and what came of it.
    pub fn decided(&mut self, policy: &str, change: &Change, outcome: Result<f64, String>) {
        let (done, took_ms) = match outcome {
            Ok(ms) => (format!("done in {ms:.1} ms"), Some(ms)),
            Err(e) => (format!("NOT done: {e}"), None),
        };
        let text = format!("{change}; {done}");
        let change = serde_json::to_value(change).unwrap_or(Value::Null);
        self.last.clear();
        self.write(Line { unix_ms: now(), policy: policy.to_owned(), text, change, took_ms });
    }

    /// Something worth telling, once as long as nothing else is.
    pub fn tell(&mut self, policy: &str, text: &str) {
        if self.last != text {
            self.last = text.to_owned();
            let line = Line {
                unix_ms: now(),
                policy: policy.to_owned(),
                text: text.to_owned(),
                change: Value::Null,
                took_ms: None,
            };
            self.write(line);
        }
    }

    /// A log that cannot be written is no reason to stop: standard output has it.
    fn write(&self, line: Line) {
        print(&format!("{}  {}: {}\n", utc(line.unix_ms), self.instance.name, line.text));
        let path = path(&self.instance);
        if std::fs::metadata(&path).is_ok_and(|m| m.len() > BYTES_MAX) {
            let _ = std::fs::rename(&path, path.with_extension("log.1"));
        }
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
        let text = serde_json::to_string(&line).unwrap_or_default() + "\n";
        let _ = file.and_then(|mut file| file.write_all(text.as_bytes()));
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// A Unix time in ms as date and time, UTC (days to a date: Howard Hinnant's `civil_from_days`).
pub fn utc(unix_ms: u64) -> String {
    let (days, ms) = ((unix_ms / 86_400_000).min(3_000_000) as i64, unix_ms % 86_400_000);
    let z = days + 719_468;
    let era = z / 146_097;
    let doe = z % 146_097;
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    let (h, m, s) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02} {h:02}:{m:02}:{s:02}.{:03}", ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates() {
        assert_eq!(utc(0), "1970-01-01 00:00:00.000");
        assert_eq!(utc(951_782_399_999), "2000-02-28 23:59:59.999");
        assert_eq!(utc(951_868_800_000), "2000-03-01 00:00:00.000");
        assert_eq!(utc(1_767_225_600_123), "2026-01-01 00:00:00.123");
        assert!(!utc(u64::MAX).is_empty());
    }
}

//! Which tests took the time of a run, for programs that run one test after the other.
use std::fmt;
use std::time::{Duration, Instant};

/// How many are told.
const TOLD: usize = 25;
const VERDICTS: [&str; 3] = ["ok", "FAILED", "ignored"];

/// Tests and what each took, from result line to result line.
#[derive(Debug, Default)]
pub struct Slowest {
    last: Option<Instant>,
    running: String,
    took: Vec<(Duration, String)>,
}

impl Slowest {
    /// Reads one line of a test program that has just come.
    pub fn line(&mut self, line: &str, now: Instant) {
        if line.starts_with("running ") {
            self.last = Some(now);
        }
        // What the test printed may stand between its name and the verdict.
        let named = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... "));
        if let Some((name, _)) = named {
            self.running = name.to_owned();
        }
        let Some(last) = self.last.filter(|_| VERDICTS.iter().any(|v| line.ends_with(v))) else {
            return;
        };
        if !self.running.is_empty() {
            self.took.push((now - last, std::mem::take(&mut self.running)));
            self.last = Some(now);
        }
    }
}

impl fmt::Display for Slowest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut took: Vec<_> = self.took.iter().collect();
        took.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
        for (time, name) in took.into_iter().take(TOLD) {
            writeln!(f, "{:6.1} s {name}", time.as_secs_f64())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_took_the_time_from_the_line_before_to_its_own() {
        let (mut slow, start) = (Slowest::default(), Instant::now());
        let mut at = |ms, line| slow.line(line, start + Duration::from_millis(ms));
        at(0, "running 2 tests");
        at(1_000, "test a ... ok");
        at(1_500, "words of the next one");
        at(2_000, "test b ... more of them");
        at(4_000, "FAILED");
        assert_eq!(slow.to_string(), "   3.0 s b\n   1.0 s a\n");
    }
}

//! What test programs say: counts from their result lines, and what they skipped.
use std::collections::BTreeSet;

/// Counted results.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Tests and steps that passed, the skipped ones among them.
    ended_well: usize,
    /// Those that failed.
    pub failed: usize,
    /// What was skipped, and why; a line that is printed twice counts once.
    pub skipped: BTreeSet<String>,
    /// Names of what failed.
    pub failures: Vec<String>,
}

impl Outcome {
    /// Notes a step that is no test program.
    pub fn step(&mut self, name: &str, ok: bool) {
        if ok {
            self.ended_well += 1;
        } else {
            self.failed += 1;
            self.failures.push(name.to_owned());
        }
    }

    /// What somebody else has noted.
    pub fn add(&mut self, other: Outcome) {
        self.ended_well += other.ended_well;
        self.failed += other.failed;
        self.skipped.extend(other.skipped);
        self.failures.extend(other.failures);
    }

    /// Reads one line of a test program.
    pub fn line(&mut self, line: &str) {
        // A test's name stands before what it prints: `test name ... SKIPPED name: reason`.
        if let Some(at) = line.find("SKIPPED") {
            self.skipped.insert(line[at..].trim().to_owned());
        }
        if let Some(rest) = line.strip_prefix("test result: ") {
            for part in rest.split([';', '.']) {
                let mut words = part.split_whitespace();
                let (number, what) = (words.next(), words.next());
                let number = number.and_then(|n| n.parse::<usize>().ok()).unwrap_or(0);
                match what {
                    Some("passed") => self.ended_well += number,
                    Some("failed") => self.failed += number,
                    _ => {}
                }
            }
        } else if let Some(name) =
            line.strip_prefix("test ").and_then(|l| l.strip_suffix(" ... FAILED"))
        {
            self.failures.push(name.to_owned());
        }
    }

    /// The tests that really ran.
    pub fn passed(&self) -> usize {
        self.ended_well.saturating_sub(self.skipped.len())
    }

    /// The line that ends it all.
    pub fn summary(&self) -> String {
        format!("{} passed, {} failed, {} skipped", self.passed(), self.failed, self.skipped.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_added_up() {
        let mut o = Outcome::default();
        o.line("test result: ok. 55 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.04s");
        o.line("test result: FAILED. 3 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s");
        o.line("test a::b ... FAILED");
        o.step("rustfmt", true);
        o.step("clippy", false);
        assert_eq!(o.summary(), "59 passed, 3 failed, 0 skipped");
        assert_eq!(o.failures, ["a::b", "clippy"]);
        let mut all = Outcome::default();
        all.step("iso", true);
        all.add(o);
        assert_eq!(all.summary(), "60 passed, 3 failed, 0 skipped");
        assert_eq!(all.failures, ["a::b", "clippy"]);
    }

    #[test]
    fn a_skipped_test_is_not_a_passed_one_and_counts_once() {
        let mut o = Outcome::default();
        o.line("test tap ... SKIPPED tap: needs root");
        o.line("SKIPPED tap: needs root");
        o.line("test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
        assert_eq!(o.summary(), "1 passed, 0 failed, 1 skipped");
    }
}

//! What is wrong, and where.
use std::fmt;

/// Why a script failed: its own fault, or the engine's.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The script.
    pub script: String,
    /// The line, from 1; 0: none in particular.
    pub line: usize,
    /// The line as written.
    pub text: String,
    /// What was wanted, what came.
    pub reason: String,
    /// The conversation until then.
    pub dump: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}:{}: {}", self.script, self.line, self.reason)?;
        if !self.text.is_empty() {
            writeln!(f, "    {}", self.text)?;
        }
        if !self.dump.is_empty() {
            writeln!(f, "the conversation until then:")?;
        }
        for line in &self.dump {
            writeln!(f, "    {line}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

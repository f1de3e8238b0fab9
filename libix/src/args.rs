//! The program's arguments, as given to the launcher: words separated by spaces.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;
use ix_abi::layout::InfoPage;

/// Arguments that have not been asked for yet.
///
/// ```
/// let mut args = libix::Args::parse("-p 7777 -v");
/// assert_eq!(args.option("-p"), Ok(Some(7777u16)));
/// assert!(args.flag("-v"));
/// assert_eq!(args.finish(), Ok(()));
/// ```
#[derive(Clone, Debug)]
pub struct Args<'a> {
    words: Vec<&'a str>,
}

impl<'a> Args<'a> {
    /// The arguments in the information page.
    pub fn new(info: &'a InfoPage) -> Args<'a> {
        let bytes = info.args.get(..info.args_len as usize).unwrap_or(&info.args);
        Args::parse(core::str::from_utf8(bytes).unwrap_or_default())
    }

    /// The words of a line.
    pub fn parse(line: &'a str) -> Args<'a> {
        Args { words: line.split_ascii_whitespace().collect() }
    }

    /// Whether `name` is there; takes it.
    pub fn flag(&mut self, name: &str) -> bool {
        let before = self.words.len();
        self.words.retain(|word| *word != name);
        self.words.len() < before
    }

    /// The value that follows `name`, if that is there; takes both.
    pub fn option<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, ArgError> {
        let Some(at) = self.words.iter().position(|word| *word == name) else { return Ok(None) };
        self.words.remove(at);
        if at == self.words.len() {
            return Err(ArgError::NoValue(name.into()));
        }
        let value = self.words.remove(at);
        let bad = || ArgError::BadValue(name.into(), value.into());
        value.parse().map(Some).map_err(|_| bad())
    }

    /// An error if anything has not been asked for.
    pub fn finish(self) -> Result<(), ArgError> {
        match self.words.first() {
            Some(word) => Err(ArgError::Unknown((*word).into())),
            None => Ok(()),
        }
    }
}

/// What is wrong with the arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArgError {
    /// An option's value is missing.
    NoValue(String),
    /// An option's value is of the wrong kind.
    BadValue(String, String),
    /// Nobody knows this one.
    Unknown(String),
}

impl fmt::Display for ArgError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ArgError::NoValue(name) => write!(f, "option {name} needs a value"),
            ArgError::BadValue(name, value) => write!(f, "option {name} cannot be '{value}'"),
            ArgError::Unknown(word) => write!(f, "unknown argument '{word}'"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_what_is_wrong() {
        let text = |result: Result<Option<u16>, ArgError>| match result {
            Err(error) => alloc::format!("{error}"),
            Ok(value) => alloc::format!("{value:?}"),
        };
        assert_eq!(text(Args::parse("-p").option("-p")), "option -p needs a value");
        assert_eq!(text(Args::parse("-p 70000").option("-p")), "option -p cannot be '70000'");
        assert_eq!(text(Args::parse("").option("-p")), "None");
        let error = Args::parse("-q").finish().unwrap_err();
        assert_eq!(alloc::format!("{error}"), "unknown argument '-q'");
    }

    #[test]
    fn a_flag_is_taken_wherever_it_stands() {
        let mut args = Args::parse("-p 1 -v");
        assert!(args.flag("-v") && !args.flag("-v"));
        assert_eq!(args.option("-p"), Ok(Some(1u8)));
    }
}

//! The guest's serial log: follows the file that QEMU writes and gives whole, printable lines.
//!
//! The guest is not trusted with the user's terminal: control characters do not pass.
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// A line is cut here, however long the guest makes it.
const LINE_BYTES_MAX: usize = 4096;

/// Follows a growing log.
#[derive(Debug)]
pub struct Follower {
    file: File,
    partial: Vec<u8>,
}

impl Follower {
    /// Starts at the beginning of the file.
    pub fn open(path: &Path) -> io::Result<Follower> {
        Ok(Follower { file: File::open(path)?, partial: Vec::new() })
    }

    /// The lines that were completed since the last call.
    pub fn poll(&mut self) -> io::Result<Vec<String>> {
        let mut lines = Vec::new();
        let mut chunk = [0; 8192];
        loop {
            let n = self.file.read(&mut chunk)?;
            if n == 0 {
                return Ok(lines);
            }
            for &byte in &chunk[..n] {
                if byte == b'\n' || self.partial.len() == LINE_BYTES_MAX {
                    lines.push(printable(&self.partial));
                    self.partial.clear();
                }
                if byte != b'\n' {
                    self.partial.push(byte);
                }
            }
        }
    }

    /// What stands on the last line without an end, once no more will come.
    pub fn rest(&mut self) -> Option<String> {
        let line = printable(&self.partial);
        self.partial.clear();
        (!line.is_empty()).then_some(line)
    }
}

/// Text with every control character but the tab shown as `\xNN`, carriage returns left out.
pub fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for c in String::from_utf8_lossy(bytes).chars() {
        match c {
            '\r' => {}
            c if c.is_control() && c != '\t' => text.extend(c.escape_default()),
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn lines_come_out_whole_even_if_they_arrive_in_pieces() {
        let dir = temp_dir::TempDir::new().unwrap();
        let path = dir.path().join("serial.log");
        let mut log = File::create(&path).unwrap();
        let mut follower = Follower::open(&path).unwrap();
        log.write_all(b"one\r\ntw").unwrap();
        assert_eq!(follower.poll().unwrap(), ["one"]);
        log.write_all(b"o\nix: re").unwrap();
        assert_eq!(follower.poll().unwrap(), ["two"]);
        assert_eq!(follower.rest().as_deref(), Some("ix: re"));
        assert_eq!(follower.rest(), None);
    }

    #[test]
    fn a_guest_cannot_send_escape_sequences_to_the_terminal() {
        assert_eq!(printable(b"\x1b[2Jgone\x07\tfine\r"), "\\u{1b}[2Jgone\\u{7}\tfine");
    }

    #[test]
    fn an_endless_line_is_cut() {
        let dir = temp_dir::TempDir::new().unwrap();
        let path = dir.path().join("serial.log");
        std::fs::write(&path, vec![b'x'; 3 * LINE_BYTES_MAX]).unwrap();
        let lines = Follower::open(&path).unwrap().poll().unwrap();
        assert_eq!(lines.len(), 2);
        assert!(lines.iter().all(|l| l.len() == LINE_BYTES_MAX));
    }
}

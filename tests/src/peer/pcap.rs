//! A packet capture in memory, written as a pcap file (nanosecond variant) when it is wanted.
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The last frames are kept, up to this many.
const FRAMES_MAX: usize = 50_000;
/// Bytes of each that are kept.
const SNAP_BYTES: usize = 256;

/// A capture.
#[derive(Debug, Default)]
pub struct Capture {
    frames: VecDeque<(Duration, usize, Vec<u8>)>,
}

impl Capture {
    /// Remembers a frame.
    pub fn record(&mut self, at: Duration, frame: &[u8]) {
        if self.frames.len() == FRAMES_MAX {
            self.frames.pop_front();
        }
        let kept = frame[..frame.len().min(SNAP_BYTES)].to_vec();
        self.frames.push_back((at, frame.len(), kept));
    }

    /// The file's contents.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let word = |w: u32, out: &mut Vec<u8>| out.extend_from_slice(&w.to_le_bytes());
        // Magic of nanosecond times, version 2.4, no zone, no accuracy, limit, Ethernet.
        for w in [0xa1b2_3c4d, 0x0004_0002, 0, 0, SNAP_BYTES as u32, 1] {
            word(w, &mut out);
        }
        for (at, len, kept) in &self.frames {
            let head = [at.as_secs() as u32, at.subsec_nanos(), kept.len() as u32, *len as u32];
            for w in head {
                word(w, &mut out);
            }
            out.extend_from_slice(kept);
        }
        out
    }

    /// Writes it as `NAME.pcap` into `target/e2e` of the workspace; where that is.
    pub fn save(&self, name: &str) -> std::io::Result<PathBuf> {
        let dir = crate::need::workspace().join("target/e2e");
        std::fs::create_dir_all(&dir)?;
        let path = dir.join(Path::new(&name.replace([':', '/'], "_")).with_extension("pcap"));
        std::fs::write(&path, self.to_bytes())?;
        Ok(path)
    }
}

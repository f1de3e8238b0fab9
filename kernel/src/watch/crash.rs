//! The log's part in a crash: the crash itself as the last record, and the last events in the report.

use core::fmt::{self, Write};
use core::panic::PanicInfo;

use ix_abi::event_log::{EventKind, Record, text_words};
use ix_abi::limits::CORES_MAX;

use super::log;
use crate::cpu::percore;
use crate::cpu::trap::Frame;
use crate::crash::say;

/// Events of the crashed core in a report, and of each other one.
const OWN: u64 = 16;
const OTHERS: u64 = 4;
/// Longest text that is recorded of a panic.
const TEXT_BYTES: usize = 96;

struct Text {
    bytes: [u8; TEXT_BYTES],
    len: usize,
}

impl Write for Text {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let free = &mut self.bytes[self.len..];
        let n = s.len().min(free.len());
        free[..n].copy_from_slice(&s.as_bytes()[..n]);
        self.len += n;
        Ok(())
    }
}

/// Records a panic, with the beginning of what it says.
pub fn panicked(info: &PanicInfo<'_>, rip: u64) {
    let (file, line) = info.location().map_or(("", 0), |at| (at.file(), at.line()));
    let name = file.strip_suffix(".rs").unwrap_or(file).as_bytes();
    let mut last = [0; 8];
    for (to, from) in last.iter_mut().zip(&name[name.len().saturating_sub(8)..]) {
        *to = *from;
    }
    log::record(EventKind::Panic, line as u16, rip, u64::from_le_bytes(last));
    let mut text = Text { bytes: [0; TEXT_BYTES], len: 0 };
    let _ = write!(text, "{}", info.message());
    for chunk in text.bytes[..text.len].chunks(16) {
        let [a, b] = text_words(chunk);
        log::record(EventKind::Text, 0, a, b);
    }
}

/// Records an exception in the kernel.
pub fn exception(frame: &Frame, cr2: u64) {
    log::record(EventKind::Exception, frame.vector as u16, frame.rip, cr2);
}

/// Prints the last events of all cores, this one's first.
pub fn report() {
    let me = percore::id();
    of_core(me, OWN);
    (0..CORES_MAX).filter(|core| *core != me).for_each(|core| of_core(core, OTHERS));
}

fn of_core(core: usize, count: u64) {
    let newest = log::newest(core);
    if newest == 0 {
        return;
    }
    say(format_args!("last events of core {core}:"));
    for number in newest.saturating_sub(count - 1).max(1)..=newest {
        let record = log::kept(core, number).filter(|record| record.kind != EventKind::Text);
        if let Some(record) = record {
            say(format_args!("  {}", WithText { core, record }));
        }
    }
}

/// A record and the text that follows it.
struct WithText {
    core: usize,
    record: Record,
}

impl fmt::Display for WithText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Record { number, time_ns, .. } = self.record;
        write!(f, "[{} us] {}", time_ns / 1000, self.record)?;
        let is_text = |record: &Record| record.kind == EventKind::Text;
        let following = (number + 1..).map_while(|n| log::kept(self.core, n).filter(is_text));
        for (i, text) in following.take(TEXT_BYTES / 16).enumerate() {
            write!(f, "{}{text}", if i == 0 { ": " } else { "" })?;
        }
        Ok(())
    }
}

//! Plays a script: the clock, the peer, the wire and the application around the engine.
mod expect;
mod wire;

use crate::Failure;
use crate::conn::Conn;
use crate::frame;
use crate::player::Outcome as Result_;
use crate::script::{Call, Counted, Line, Num, Outcome, Relation, Script, Segment, What, When};
use crate::settings::Version;
use crate::station::Station;
use ix_abi::stats::CoreStats;
use ix_abi::{Condition, Handle, SocketAddress, Status};
use ix_dataplane::app::Drain;
use ix_dataplane::time::{Duration, Instant};
use std::collections::VecDeque;
use std::net::IpAddr;

/// How long `+*` waits.
const EVER: Duration = Duration::from_s(1000);
/// After its application has gone, an engine has let go of everything by then.
const GONE: Duration = Duration::from_s(600);
/// Until an engine has its addresses.
const SET_UP: Duration = Duration::from_s(5);
/// Iterations of the core loop at one instant; more means that it never rests.
const TURNS: u32 = 1000;
/// Lines of the dump.
const DUMP: usize = 80;

/// Plays a script to its end.
pub fn run(script: &Script, version: Version) -> Result<(), Failure> {
    play(script, version).1
}

/// The same, with the whole conversation.
pub fn play(script: &Script, version: Version) -> (Vec<String>, Result<(), Failure>) {
    let mut runner = Runner::new(script, version);
    let result = runner.all();
    (runner.log, result)
}

struct Runner<'s> {
    script: &'s Script,
    version: Version,
    station: Station,
    conns: Vec<Conn>,
    began: Instant,
    now: Instant,
    /// When what the line before says was.
    line_at: Instant,
    log: Vec<String>,
    /// What is wrong whatever the script says.
    wrong: Option<String>,
    /// ICMP messages of the engine that no line has asked for yet.
    messages: VecDeque<(Instant, Vec<u8>)>,
    /// Frames are not delivered yet.
    holding: bool,
    tag: u64,
    before: CoreStats,
}

impl<'s> Runner<'s> {
    fn new(script: &'s Script, version: Version) -> Runner<'s> {
        let station = Station::new(&script.settings);
        let now = station.machine.now;
        let before = station.engine.stats().clone();
        Runner {
            script,
            version,
            station,
            conns: Vec::new(),
            began: now,
            now,
            line_at: now,
            log: Vec::new(),
            wrong: None,
            messages: VecDeque::new(),
            holding: false,
            tag: 0,
            before,
        }
    }

    fn all(&mut self) -> Result<(), Failure> {
        self.set_up().map_err(|reason| self.failure(None, reason))?;
        for line in &self.script.lines {
            for _ in 0..line.times {
                self.line(line).map_err(|reason| self.failure(Some(line), reason))?;
            }
        }
        self.finish().map_err(|reason| self.failure(None, reason))
    }

    /// Lets the engine find out that its addresses are its own (RFC 4862 §5.4).
    fn set_up(&mut self) -> Result<(), String> {
        self.advance(self.now + SET_UP, |_| false)?;
        (self.began, self.line_at) = (self.now, self.now);
        self.before = self.station.engine.stats().clone();
        Ok(())
    }

    fn failure(&self, line: Option<&Line>, reason: String) -> Failure {
        let from = self.log.len().saturating_sub(DUMP);
        Failure {
            script: self.script.name.clone(),
            line: line.map_or(0, |line| line.number),
            text: line.map_or(String::new(), |line| line.text.clone()),
            reason,
            dump: self.log[from..].to_vec(),
        }
    }

    fn line(&mut self, line: &Line) -> Result<(), String> {
        let at = self.conn(&line.conn);
        match &line.what {
            What::Expect(segment) => return self.expect(at, line.when, segment),
            What::ExpectLast(segment) => {
                self.skip_to_last(at, line.when)?;
                return self.expect(at, line.when, segment);
            }
            What::ExpectIcmp(message) => return self.expect_message(at, line.when, message),
            What::Told(event) => return self.told(at, line.when, *event),
            _ => {}
        }
        self.come_to(line.when)?;
        match &line.what {
            What::Inject(segment) => return self.inject_all(at, segment),
            What::InjectIcmp(message) => self.inject_message(at, message)?,
            What::Calls(calls) => return self.calls(at, calls),
            What::Quiet(length) => return self.quiet(Duration(*length)),
            What::Counted(what, relation, value) => {
                return self.counted(*what, *relation, *value);
            }
            What::Fresh => {
                let conn = &mut self.conns[at];
                conn.engine_isn = None;
                conn.ts_offered = (false, false);
            }
            What::Hold => self.holding = true,
            What::Release => self.holding = false,
            What::Window(win) => self.conns[at].win = win.unwrap_or(self.conns[at].win),
            _ => unreachable!("lines that stand for several were replaced"),
        }
        self.go_on()
    }

    /// Lets the engine work, unless frames are held back.
    fn go_on(&mut self) -> Result<(), String> {
        if self.holding { Ok(()) } else { self.settle().map(|_| ()) }
    }

    fn inject_all(&mut self, at: usize, segment: &Segment) -> Result<(), String> {
        let parts = segment.parts.unwrap_or(1);
        let len = segment.len.unwrap_or(0) / parts;
        for part in 0..parts {
            let seq = match segment.seq {
                Num::Relative(seq) => Num::Relative(seq + i64::from(part * len)),
                other => other,
            };
            let part = Segment { seq, len: Some(len), parts: None, ..segment.clone() };
            self.inject(at, &part)?;
            self.go_on()?;
        }
        Ok(())
    }

    /// The connection with this label.
    fn conn(&mut self, label: &str) -> usize {
        if let Some(at) = self.conns.iter().position(|conn| conn.label == label) {
            return at;
        }
        let index = self.conns.len();
        let peer = match self.version {
            Version::V4 => frame::PEER_V4.into(),
            Version::V6 => frame::PEER_V6.into(),
        };
        self.conns.push(Conn::new(label, index, peer, self.script.settings.peer_isn));
        index
    }

    /// From when to when.
    fn window(&self, when: When) -> (Instant, Instant) {
        match when {
            When::After(from, to) => (self.line_at + Duration(from), self.line_at + Duration(to)),
            When::At(from, to) => (self.began + Duration(from), self.began + Duration(to)),
            When::Any => (self.line_at, self.line_at + EVER),
        }
    }

    /// Lets time pass until something is to be done; nothing may have come that no line asks for.
    fn come_to(&mut self, when: When) -> Result<(), String> {
        let (target, _) = self.window(when);
        if matches!(when, When::At(..)) && target < self.now {
            return Err("this time has passed".to_owned());
        }
        if self.holding {
            let same = target <= self.now;
            return if same {
                Ok(())
            } else {
                Err("no time passes between hold and go".to_owned())
            };
        }
        self.advance(target, |_| false)?;
        self.line_at = target.max(self.line_at);
        self.nothing_unclaimed()
    }

    fn nothing_unclaimed(&self) -> Result<(), String> {
        for conn in &self.conns {
            if let Some(seen) = conn.segments.front() {
                return Err(format!("no line asks for what came: {}", self.show(conn, seen)));
            }
        }
        match self.messages.front() {
            Some((_, m)) => Err(format!("no line asks for ICMP type {}, code {}", m[0], m[1])),
            None => Ok(()),
        }
    }

    /// Runs until `until`, or until something has come that `stop` waits for.
    fn advance(&mut self, until: Instant, stop: impl Fn(&Self) -> bool) -> Result<(), String> {
        loop {
            let deadline = self.settle()?;
            if stop(self) || self.now >= until {
                return Ok(());
            }
            self.now = deadline.max(self.now + Duration(1)).min(until);
        }
    }

    /// Runs at the present time until there is nothing to do; when there will be.
    fn settle(&mut self) -> Result<Instant, String> {
        for _ in 0..TURNS {
            let work = self.station.step(self.now);
            let came = self.collect();
            if let Some(wrong) = self.wrong.take() {
                return Err(wrong);
            }
            if !work.busy && !came {
                return Ok(work.deadline);
            }
        }
        Err("the engine does not come to rest".to_owned())
    }

    fn calls(&mut self, at: usize, calls: &[(Call, Outcome)]) -> Result<(), String> {
        let handle = self.conns[at].handle.unwrap_or(Handle::NONE);
        let first = self.tag + 1;
        for (call, _) in calls {
            self.tag += 1;
            let call = match call {
                Call::Connect(_) => Call::Connect(self.remote(at)),
                other => other.clone(),
            };
            self.note(&self.conns[at].label.clone(), &format!("app: {call:?}"));
            self.station.machine.player.submit(self.tag, at, handle, call);
        }
        self.wake();
        self.settle()?;
        for (tag, (call, wanted)) in (first..).zip(calls) {
            let came = self.station.machine.player.outcome(tag);
            let came = came.ok_or_else(|| format!("{call:?} has no result"))?;
            if let Call::Connect(_) = call {
                self.conns[at].handle = Some(came.handle);
            }
            check_outcome(call, *wanted, came)?;
        }
        Ok(())
    }

    fn remote(&self, at: usize) -> SocketAddress {
        let conn = &self.conns[at];
        let ip = match conn.peer {
            IpAddr::V4(ip) => ix_abi::IpAddress::v4(ip.octets()),
            IpAddr::V6(ip) => ix_abi::IpAddress(ip.octets()),
        };
        SocketAddress { ip, port: conn.peer_port, scope: 0 }
    }

    fn quiet(&mut self, length: Duration) -> Result<(), String> {
        let until = self.line_at + length;
        self.advance(until, |runner| runner.nothing_unclaimed().is_err())?;
        self.line_at = self.now;
        self.nothing_unclaimed()?;
        self.no_event_unclaimed()
    }

    fn no_event_unclaimed(&self) -> Result<(), String> {
        for conn in &self.conns {
            let event = conn.events.iter().find(|(_, e)| !matches!(e, Condition::Sent { .. }));
            if let Some((_, event)) = event {
                return Err(format!("no line asks for the event {event:?}"));
            }
        }
        Ok(())
    }

    fn counted(&mut self, what: Counted, relation: Relation, wanted: u64) -> Result<(), String> {
        let stats = self.station.engine.stats();
        let (now, before) = match what {
            Counted::Counter(counter) => (stats.get(counter), self.before.get(counter)),
            Counted::Drop(reason) => (stats.dropped(reason), self.before.dropped(reason)),
        };
        let came = now.wrapping_sub(before);
        let good = match relation {
            Relation::Equal => came == wanted,
            Relation::AtLeast => came >= wanted,
            Relation::AtMost => came <= wanted,
        };
        if good { Ok(()) } else { Err(format!("expected {relation:?} {wanted}, counted {came}")) }
    }

    /// The script is over: nothing is left unsaid, and when the application goes, nothing is left.
    fn finish(&mut self) -> Result<(), String> {
        self.settle()?;
        self.nothing_unclaimed()?;
        self.no_event_unclaimed()?;
        self.station.audit()?;
        self.note("-", "the application is taken away");
        self.station.engine.detach_app();
        for conn in &mut self.conns {
            conn.engine_isn = None;
            conn.ts_offered = (false, false);
        }
        self.advance(self.now + GONE, |_| false)?;
        self.station.audit()?;
        let books = self.station.engine.conservation();
        if books.connections + books.segments + books.received > 0 {
            return Err(format!("the application is gone, and this is left: {books:?}"));
        }
        match self.station.engine.drain() {
            Drain::Done => Ok(()),
            other => Err(format!("the application is gone, and draining is {other:?}")),
        }
    }

    fn note(&mut self, label: &str, what: &str) {
        let time = self.now.since(self.began).0 as f64 / 1e9;
        self.log.push(format!("{time:.6} [{label}] {what}"));
    }
}

fn check_outcome(call: &Call, wanted: Outcome, came: Result_) -> Result<(), String> {
    let bytes = match call {
        Call::Sendv(bytes) => Some(*bytes),
        _ => None,
    };
    let good = match wanted {
        Outcome::Ok => came.status == Status::Ok && bytes.is_none_or(|bytes| bytes == came.value),
        Outcome::Took(bytes) => {
            matches!(came.status, Status::Ok | Status::Again) && bytes == came.value
        }
        Outcome::Status(status) => came.status == status,
    };
    if good {
        return Ok(());
    }
    Err(format!("expected {wanted:?}, came {:?} with {}", came.status, came.value))
}

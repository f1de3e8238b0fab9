//! QEMU's `-netdev stream` as a network card of smoltcp: each frame is preceded by its length in four
//! bytes, big-endian. Nothing that comes is trusted beyond that.
use super::faults::{Counts, Faults, Path};
use super::pcap::Capture;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant as SmolInstant;
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Longest frame that is believed.
const FRAME_BYTES_MAX: usize = 65_535;
/// The stack is not asked for more frames while this much waits to be written.
const BACKLOG_MAX: usize = 1 << 20;

/// The card.
#[derive(Debug)]
pub struct StreamDevice {
    stream: UnixStream,
    incoming: Vec<u8>,
    outgoing: VecDeque<u8>,
    received: VecDeque<Vec<u8>>,
    paths: [Path; 2],
    vlan: Option<u16>,
    capture: Capture,
    start: Instant,
    ended: bool,
}

impl StreamDevice {
    /// Over a connected socket.
    pub fn new(stream: UnixStream, faults: Faults) -> StreamDevice {
        stream.set_nonblocking(true).expect("a mode");
        StreamDevice {
            stream,
            incoming: Vec::new(),
            outgoing: VecDeque::new(),
            received: VecDeque::new(),
            paths: [Path::new(faults, 0), Path::new(faults, 1)],
            vlan: None,
            capture: Capture::default(),
            start: Instant::now(),
            ended: false,
        }
    }

    /// From now on in this VLAN: what is sent has its tag, what comes without is not seen.
    pub fn set_vlan(&mut self, vlan: Option<u16>) {
        self.vlan = vlan;
    }

    /// Whether the other side has hung up.
    pub fn ended(&self) -> bool {
        self.ended && self.received.is_empty()
    }

    /// Faults in both directions together.
    pub fn faults(&self) -> Counts {
        let [a, b] = [self.paths[0].counts, self.paths[1].counts];
        Counts {
            frames: a.frames + b.frames,
            lost: a.lost + b.lost,
            doubled: a.doubled + b.doubled,
            delayed: a.delayed + b.delayed,
        }
    }

    /// Waits until the socket has or takes something, or the time is over.
    pub fn wait(&mut self, time: Duration) {
        if !self.received.is_empty() {
            return;
        }
        let mut interest = PollFlags::POLLIN;
        interest.set(PollFlags::POLLOUT, !self.outgoing.is_empty());
        let time = PollTimeout::try_from(time).expect("a short time");
        // Waking up early, for whatever reason, does no harm.
        let _ = poll(&mut [PollFd::new(self.stream.as_fd(), interest)], time);
    }

    /// Reads and writes what the socket takes.
    pub fn pump(&mut self) {
        self.write_out();
        let mut chunk = [0; 65_536];
        // Bounded: the stack must get its turn however fast the other side is.
        for _ in 0..16 {
            match self.stream.read(&mut chunk) {
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                Ok(n) => self.incoming.extend_from_slice(&chunk[..n]),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.ended = true;
                    break;
                }
            }
        }
        self.split_frames();
        let (received, out) = (&mut self.received, &mut self.outgoing);
        self.paths[0].release(|frame| received.push_back(frame));
        self.paths[1].release(|frame| enqueue(out, &frame));
    }

    fn split_frames(&mut self) {
        let mut at = 0;
        while let Some(head) = self.incoming.get(at..at + 4) {
            let len = u32::from_be_bytes(head.try_into().expect("four bytes")) as usize;
            assert!(len <= FRAME_BYTES_MAX, "a frame of {len} bytes: out of step with QEMU");
            let Some(frame) = self.incoming.get(at + 4..at + 4 + len) else { break };
            self.capture.record(self.start.elapsed(), frame);
            let received = &mut self.received;
            if let Some(frame) = untagged(frame, self.vlan) {
                self.paths[0].push(frame, |frame| received.push_back(frame));
            }
            at += 4 + len;
        }
        self.incoming.drain(..at);
    }

    fn write_out(&mut self) {
        while !self.outgoing.is_empty() {
            let (front, _) = self.outgoing.as_slices();
            match self.stream.write(front) {
                Ok(n) => drop(self.outgoing.drain(..n)),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.ended = true;
                    self.outgoing.clear();
                }
            }
        }
    }

    /// Sends a frame as it is, through the faults.
    pub fn inject(&mut self, frame: &[u8]) {
        let frame = tagged(frame, self.vlan);
        self.capture.record(self.start.elapsed(), &frame);
        let out = &mut self.outgoing;
        self.paths[1].push(frame, |frame| enqueue(out, &frame));
    }
}

/// IEEE 802.1Q: a type of its own and the VLAN, behind the addresses.
const TAG: [u8; 2] = [0x81, 0x00];

fn tagged(frame: &[u8], vlan: Option<u16>) -> Vec<u8> {
    match (vlan, frame.split_at_checked(12)) {
        (Some(id), Some((addresses, rest))) => {
            [addresses, &TAG[..], &id.to_be_bytes()[..], rest].concat()
        }
        _ => frame.to_vec(),
    }
}

/// The frame, if it is of the VLAN, without the tag.
fn untagged(frame: &[u8], vlan: Option<u16>) -> Option<Vec<u8>> {
    let Some(id) = vlan else { return Some(frame.to_vec()) };
    let tag = [TAG, id.to_be_bytes()].concat();
    (frame.get(12..16) == Some(&tag[..])).then(|| [&frame[..12], &frame[16..]].concat())
}

fn enqueue(out: &mut VecDeque<u8>, frame: &[u8]) {
    out.extend((frame.len() as u32).to_be_bytes());
    out.extend(frame);
}

impl Drop for StreamDevice {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let thread = std::thread::current();
            match self.capture.save(thread.name().unwrap_or("unknown")) {
                Ok(path) => eprintln!("--- packets of the failed test: {}", path.display()),
                Err(e) => eprintln!("--- the packets cannot be written: {e}"),
            }
        }
    }
}

/// A received frame.
#[derive(Debug)]
pub struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

/// The right to send one frame.
#[derive(Debug)]
pub struct Send<'a>(&'a mut StreamDevice);

impl TxToken for Send<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.inject(&frame);
        result
    }
}

impl Device for StreamDevice {
    type RxToken<'a> = Received;
    type TxToken<'a> = Send<'a>;

    fn receive(&mut self, _: SmolInstant) -> Option<(Received, Send<'_>)> {
        let frame = self.received.pop_front()?;
        Some((Received(frame), Send(self)))
    }

    fn transmit(&mut self, _: SmolInstant) -> Option<Send<'_>> {
        (self.outgoing.len() < BACKLOG_MAX).then_some(Send(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

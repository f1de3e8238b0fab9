//! Pings all the time, beside everything else: for how long were they not answered?
use super::{Host, SocketHandle};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::icmp;
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, Ipv4Address};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

const IDENT: u16 = 0x4321;
/// Pings that may be outstanding.
const OUTSTANDING: usize = 64;

/// Sends an echo request at a steady pace; the outage is the time from the first that is not answered to
/// the next answer.
#[derive(Debug)]
pub struct Pinger {
    handle: SocketHandle,
    to: Ipv4Address,
    pace: Duration,
    next: Instant,
    sequence: u16,
    /// When each outstanding one was sent, by this machine's clock and by the guest's.
    outstanding: VecDeque<(u16, Instant, Duration)>,
    /// Answers.
    pub answered: u64,
    /// Outages by this machine's clock.
    pub times: Vec<Duration>,
    /// The same by the guest's.
    pub guest_times: Vec<Duration>,
}

impl Pinger {
    /// Pings `to` every `pace`.
    pub fn new(host: &mut Host, to: Ipv4Address, pace: Duration) -> Pinger {
        let buffer = || {
            let meta = vec![icmp::PacketMetadata::EMPTY; OUTSTANDING];
            icmp::PacketBuffer::new(meta, vec![0; OUTSTANDING * 64])
        };
        let handle = host.sockets.add(icmp::Socket::new(buffer(), buffer()));
        let socket = host.sockets.get_mut::<icmp::Socket<'_>>(handle);
        socket.bind(icmp::Endpoint::Ident(IDENT)).expect("a fresh socket can be bound");
        let now = Instant::now();
        Pinger {
            handle,
            to,
            pace,
            next: now,
            sequence: 0,
            outstanding: VecDeque::new(),
            answered: 0,
            times: Vec::new(),
            guest_times: Vec::new(),
        }
    }

    /// To be called all the time, beside [`Host::poll`]; `guest` is the guest's clock.
    pub fn poll(&mut self, host: &mut Host, guest: Duration) {
        let now = Instant::now();
        let socket = host.sockets.get_mut::<icmp::Socket<'_>>(self.handle);
        while let Ok((bytes, _)) = socket.recv() {
            let Ok(packet) = Icmpv4Packet::new_checked(bytes) else { continue };
            let caps = ChecksumCapabilities::default();
            let Ok(Icmpv4Repr::EchoReply { ident: IDENT, seq_no, .. }) =
                Icmpv4Repr::parse(&packet, &caps)
            else {
                continue;
            };
            self.answered += 1;
            let Some(at) = self.outstanding.iter().position(|(seq, ..)| *seq == seq_no) else {
                continue;
            };
            for (_, sent, guest_sent) in self.outstanding.drain(..=at) {
                self.times.push(now.duration_since(sent));
                self.guest_times.push(guest.saturating_sub(guest_sent));
            }
        }
        if now >= self.next && self.outstanding.len() < OUTSTANDING && socket.can_send() {
            self.next = now + self.pace;
            self.sequence = self.sequence.wrapping_add(1);
            let request =
                Icmpv4Repr::EchoRequest { ident: IDENT, seq_no: self.sequence, data: &[7; 16] };
            if let Ok(out) = socket.send(request.buffer_len(), self.to.into()) {
                let mut packet = Icmpv4Packet::new_unchecked(out);
                request.emit(&mut packet, &ChecksumCapabilities::default());
                self.outstanding.push_back((self.sequence, now, guest));
            }
        }
    }

    /// How long the oldest that is not answered has been out.
    pub fn waiting(&self) -> Duration {
        self.outstanding.front().map_or(Duration::ZERO, |(_, sent, _)| sent.elapsed())
    }
}

//! TCP and UDP echo (RFC 862): the IX application to read first.
//!
//! Every core runs one `Echo` of its own. The kernel delivers a batch of events, `libix` calls back
//! for each, and everything that the callbacks ask for goes back to the kernel as one batch.
//!
//! No byte is copied: what the network card wrote into the receive area is sent again from there, and
//! given back when the peer has acknowledged it. That is also the flow control: as long as a peer
//! does not read, its bytes stay with us, its window closes, and it cannot send more.
#![no_std]
#![deny(unsafe_code)]

use libix::abi::limits::BACKLOG_MAX;
use libix::args::ArgError;
use libix::{App, Args, Conn, Cx, Datagram, IpAddress, Knock, NoBuf, Op, Outcome, SocketAddress};
use libix::{Status, logln};

/// The port of RFC 862.
pub const PORT: u16 = 7;

/// An echo server on one core.
#[derive(Debug)]
pub struct Echo {
    local: SocketAddress,
}

impl Echo {
    /// Understands `-p PORT`.
    pub fn new(mut args: Args<'_>) -> Result<Echo, ArgError> {
        let port = args.option("-p")?.unwrap_or(PORT);
        args.finish()?;
        Ok(Echo { local: SocketAddress { ip: IpAddress::UNSPECIFIED, port, scope: 0 } })
    }
}

impl App for Echo {
    type Conn = (); // nothing to remember of a connection
    type Buf = NoBuf; // nothing of our own to send

    /// One context opens the ports; connections then come to all of them.
    fn on_start(&mut self, cx: &mut Cx<Self>) {
        if cx.index() == 0 {
            cx.udp_bind(self.local, 0, 0);
            cx.listen(self.local, BACKLOG_MAX, 0);
        }
    }

    fn on_result(&mut self, cx: &mut Cx<Self>, outcome: &Outcome) {
        match (outcome.op, outcome.status) {
            (Op::Listen, Status::Ok) => {
                logln!("TCP and UDP port {}", self.local.port);
                cx.ready();
            }
            (op, Status::Ok) => log::debug!("{op:?}"),
            (op, status) => {
                log::error!("{op:?} on port {}: {status}", self.local.port);
                libix::exit(1);
            }
        }
    }

    /// Everybody is welcome.
    fn on_knock(&mut self, _: &mut Cx<Self>, _: &Knock) -> Option<()> {
        Some(())
    }

    /// What came goes back, from where it lies. What the peer's window does not take now waits and
    /// goes on by itself; at the end of the peer's stream, libix sends the rest and closes.
    fn on_recv(&mut self, cx: &mut Cx<Self>, conn: &mut Conn<Self>) {
        conn.forward(cx, usize::MAX);
    }

    fn on_udp(&mut self, cx: &mut Cx<Self>, datagram: Datagram) {
        cx.udp_reply(datagram);
    }
}

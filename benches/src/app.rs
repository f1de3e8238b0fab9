//! Applications that do next to nothing, straight on the rings.
use crate::rings::{Calls, Events};
use ix_abi::call::{Call, SgEntry};
use ix_abi::event::{Event, Kind};
use ix_abi::{Cookie, Handle, SocketAddress};

/// The port that they listen on.
pub const PORT: u16 = 7;
const BACKLOG: u32 = 65_536;

/// What happens on events.
pub trait App: std::fmt::Debug {
    /// One event; what is to be done goes into `calls`.
    fn event(&mut self, event: &Event, calls: &mut Calls);
}

/// Runs an application over all events there are.
#[inline]
pub fn enter<A: App>(app: &mut A, events: &mut Events, calls: &mut Calls) {
    let produced = events.produced();
    while let Some(event) = events.next(produced) {
        app.event(event, calls);
    }
    calls.leave(events);
}

/// What all servers do: listen, accept, see that nothing fails.
#[derive(Debug, Default)]
pub struct Server {
    listening: bool,
}

impl Server {
    #[cold]
    fn event(&mut self, event: &Event, calls: &mut Calls) {
        match Kind(event.kind) {
            Kind::GroupIn if !self.listening => {
                self.listening = true;
                let local = SocketAddress { port: PORT, ..SocketAddress::default() };
                calls.push(Call::listen(local, BACKLOG));
            }
            Kind::Result => panic!("a call failed: {event:?}"),
            _ => {}
        }
    }
}

/// Echoes out of the receive buffer, and gives it back: the engine has a reference of its own.
#[derive(Debug, Default)]
pub struct Echo(Server);

impl App for Echo {
    #[inline]
    fn event(&mut self, event: &Event, calls: &mut Calls) {
        let handle = Handle(event.handle);
        match Kind(event.kind) {
            Kind::Recv | Kind::RecvSent => {
                let len = u64::from(event.len);
                let entry = SgEntry { addr: event.words[0], len };
                let call = Call::sendv(handle, 1, entry, SgEntry::default());
                calls.push(call.with_recv_done(len));
            }
            Kind::Sent => {}
            Kind::Knock => calls.push(Call::accept(handle, Cookie(event.handle))),
            Kind::Eof => calls.push(Call::new(ix_abi::call::Op::Close, handle)),
            _ => self.0.event(event, calls),
        }
    }
}

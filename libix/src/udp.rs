//! Datagrams: received ones as tokens, sent ones until they have left.
#![allow(unsafe_code, reason = "returns received datagrams, whose token it has consumed")]

use crate::context::Context;
use crate::inbox::Piece;
use crate::pool::Chunk;
use core::marker::PhantomData;
use ix_abi::{Cookie, Handle, SocketAddress};

/// A received datagram, in the receive area. It is the application's until it gives it back with
/// [`crate::Cx::udp_done`] or [`crate::Cx::udp_reply`]; one that is merely dropped is lost to the pool.
#[must_use = "give it back with `udp_done` or `udp_reply`"]
#[derive(Debug)]
pub struct Datagram {
    pub(crate) socket: Handle,
    pub(crate) piece: Piece,
    pub(crate) remote: SocketAddress,
    pub(crate) cookie: Cookie,
    /// Belongs to the context that received it.
    pub(crate) not_send: PhantomData<*const ()>,
}

impl Datagram {
    /// The payload.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the kernel reported it, and only `give_back` returns it, by consuming the token.
        unsafe { self.piece.bytes() }
    }

    /// The socket that it came to.
    pub fn socket(&self) -> Handle {
        self.socket
    }

    /// The cookie of that socket.
    pub fn cookie(&self) -> Cookie {
        self.cookie
    }

    /// Who sent it.
    pub fn remote(&self) -> SocketAddress {
        self.remote
    }

    pub(crate) fn give_back(self, context: &mut Context) {
        // SAFETY: the token is consumed, so no slice of it is left.
        unsafe { context.udp_recv_done(self.socket, self.piece.addr) }
    }
}

/// What a datagram on its way out keeps alive.
pub(crate) enum UdpOut<B> {
    Datagram(Datagram),
    Buf(B),
    Chunk(Chunk),
}

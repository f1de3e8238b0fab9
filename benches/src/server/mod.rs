//! What is compared: the engine, a bare responder, the same with the contract, smoltcp.
pub mod bare;
pub mod contract;
pub mod engine;
mod frame;
pub mod smoltcp;

/// A server and the network card under it.
pub trait Server {
    /// A frame for it arrives, of client `i`; `fill` writes it and tells its length.
    fn deliver(&mut self, i: usize, fill: &mut dyn FnMut(&mut [u8]) -> usize);

    /// Frames that are delivered from now on are on their way until [`Server::show`], or not any more. Only for a server whose
    /// batch is not what bounds a turn.
    fn hold(&mut self, _held: bool) {}

    /// One of those on their way is there.
    fn show(&mut self) {}

    /// Runs it over what has arrived, at most its batch: what is counted and timed.
    fn turn(&mut self);

    /// Frames that have arrived and that it has not taken.
    fn waiting(&self) -> usize;

    /// The oldest frame that it has sent and that was not looked at; `false`: none.
    fn next_sent(&mut self, bytes: &mut Vec<u8>) -> bool;

    /// Its clock.
    fn now_ns(&self) -> u64;

    /// Time passes.
    fn pass_ns(&mut self, ns: u64);

    /// Client `i` is about to connect.
    fn expect(&mut self, _i: usize) {}

    /// What it can say about what went wrong.
    fn explain(&self) -> String {
        String::new()
    }

    /// Whether it has to compute checksums.
    fn verify(&self) -> bool;
}

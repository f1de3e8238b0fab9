//! Conversations of request and answer: the opener asks, and waits for the answer before it asks again. The answer is the
//! request, so that what is checked of every conversation is checked of these.
//!
//! An engine keeps connections on which nothing else happens in a short form (ADR 7). What puts an end to that, and when, is
//! what these conversations try.
use super::book::Weather;
use super::swarm::{Swarm, one_of};
use super::{MS, S, Time};
use ix_dataplane::rng::Rng;

/// How a conversation asks.
#[derive(Clone, Copy, Debug)]
pub struct Asks {
    /// Bytes of each request but the last.
    pub size: u64,
    /// The longest pause before the next.
    pub pause: Time,
    /// How often (in 1/64) a side does something else than to answer, or ask, at once and once.
    pub whims: u64,
}

impl Asks {
    /// The end of the next request after those up to `asked`; now and then, of the one after that.
    pub fn next(&self, asked: u64, total: u64, rng: &mut Rng) -> u64 {
        let count = 1 + u64::from(rng.chance(self.whims, 256));
        total.min(asked + count * self.size)
    }

    /// The end of the last request that has come whole.
    pub fn whole(&self, received: u64, total: u64) -> u64 {
        if received >= total { total } else { received - received % self.size }
    }

    /// How long to wait before the next.
    pub fn wait(&self, rng: &mut Rng) -> Time {
        if rng.chance(1, 2) { 0 } else { rng.below(self.pause + 1) }
    }
}

/// Makes most of a swarm's conversations such. Peers have timestamps mostly: without, nothing is kept short. And where anything
/// is lost, requests and answers are, of which there are not so many frames.
pub fn draw(swarm: &mut Swarm, rng: &mut Rng) {
    if swarm.weather != Weather::Clean && rng.chance(3, 4) {
        swarm.faults.loss = one_of(rng, &[100, 300, 1000]);
        swarm.weather = Weather::Harsh;
    }
    for peer in &mut swarm.peers {
        peer.stamps = rng.chance(3, 4);
    }
    for (_, talk) in &mut swarm.talks {
        if rng.chance(1, 4) {
            continue;
        }
        let size = one_of(rng, &[8, 64, 100, 500, 1000, 1400]);
        // Some longer than a delayed acknowledgement waits, some than a retransmission timeout.
        let kinds = [(0, 300), (2 * MS, 200), (100 * MS, 50), (600 * MS, 10), (3 * S, 4)];
        let (pause, most) = one_of(rng, &kinds);
        let count = 2 + rng.below(most);
        let bytes = (size * count - rng.below(size)).max(8);
        talk.bytes = [bytes, bytes];
        talk.echo = true;
        talk.abort = talk.abort.map(|(side, _)| (side, rng.below(bytes + 1)));
        talk.write_max = 20_000;
        talk.read_max = 1 << 20;
        talk.slowness = 0;
        talk.asks = Some(Asks { size, pause, whims: one_of(rng, &[0, 4, 16]) });
    }
}

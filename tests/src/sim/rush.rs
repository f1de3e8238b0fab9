//! A rush: many conversations say much at once, in a network that loses nothing, on cores that something else has now and
//! then. So a core finds many frames of each conversation when it is behind, and calls another. What it gives
//! away then, in the midst of a poll, must not overtake itself; nor what is under way of groups that move, many at once.
use super::swarm::{Swarm, one_of};
use super::{MS, US};
use ix_dataplane::rng::Rng;

/// Conversations, at least.
const TALKS: usize = 12;

/// Makes a swarm's conversations such. What would excuse frames that overtake each other is left out.
pub fn draw(swarm: &mut Swarm, rng: &mut Rng) {
    for machine in &mut swarm.machines {
        machine.cores = machine.cores.max(one_of(rng, &[2, 4, 4, 8]));
        // Mostly not the core that a frame is for finds it.
        machine.queues = machine.queues.min(one_of(rng, &[1, 2, 8]));
        machine.groups = machine.groups.max(16);
        // What is lost for want of room excuses everything.
        (machine.rx_ring, machine.buffers) = (1024, 3 * 1024);
        machine.rx_batch = one_of(rng, &[4, 16, 64]);
        machine.tx_ring = machine.tx_ring.max(64);
        machine.tx_delay = machine.tx_delay.min(5 * US);
        machine.preempt = machine.preempt.min(1);
        machine.stalls = one_of(rng, &[16, 64]);
        machine.grants = 64;
        // More groups come at once than a core takes in one iteration.
        machine.moves = one_of(rng, &[2, 8, 16]);
        machine.flock = one_of(rng, &[4, 8, 16]);
        (machine.reject, machine.clutter, machine.lends, machine.takes) = (0, 0, 0, 0);
        machine.restarts.clear();
    }
    for peer in &mut swarm.peers {
        // One with a larger window excuses much.
        peer.rx_buffer = peer.rx_buffer.min(65_535);
    }
    while swarm.talks.len() < TALKS {
        let (start, mut talk) = one_of_these(&swarm.talks, rng).clone();
        talk.id = rng.next_u64();
        swarm.talks.push((start, talk));
    }
    for (start, talk) in &mut swarm.talks {
        *start = 10 * MS + rng.below(MS);
        talk.start = *start;
        let up = 20_000 + rng.below(60_000);
        talk.bytes = [up, if talk.echo { up } else { rng.below(60_000) }];
        talk.abort = None;
        talk.write_max = one_of(rng, &[1460, 20_000, 100_000]);
        talk.read_max = one_of(rng, &[5_000, 1 << 20]);
        talk.slowness = 0;
    }
}

fn one_of_these<'a, T>(choices: &'a [T], rng: &mut Rng) -> &'a T {
    &choices[rng.below(choices.len() as u64) as usize]
}

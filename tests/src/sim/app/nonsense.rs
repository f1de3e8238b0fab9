//! What no application should call.
use super::{Context, Shared, Tag};
use ix_abi::call::{Call, Op, SgEntry};
use ix_abi::layout::RX_BASE;
use ix_abi::{Cookie, Handle};

impl Context {
    /// Calls that must fail, and harm nobody.
    pub(super) fn nonsense(&mut self, shared: &mut Shared) {
        let rng = &mut shared.rng;
        if !rng.chance(shared.draw.nonsense, 64) {
            return;
        }
        let stray = Handle(rng.next_u64());
        let alive = self.conns.keys().next().map_or(stray, |handle| Handle(*handle));
        let reused = Handle::new(alive.group(), alive.generation() ^ 1, alive.index());
        let entry = |addr, len| SgEntry { addr, len };
        let call = match rng.below(9) {
            0 => Call::new(Op(1000 + rng.below(60_000) as u16), stray),
            1 => Call::accept(stray, Cookie(1)),
            2 => Call::recv_done(alive, u64::MAX - rng.below(10)),
            3 => Call::sendv(alive, 1, entry(rng.next_u64(), 1 + rng.below(100)), entry(0, 0)),
            4 => Call::sendv(alive, 65 + rng.below(1000) as u16, entry(0, 1), entry(0, 1)),
            5 => Call::new([Op::Close, Op::Abort, Op::Shutdown][rng.below(3) as usize], reused),
            6 => Call { reserved: 1, ..Call::new(Op::Close, alive) },
            7 => Call::accept(alive, Cookie(rng.next_u64())),
            _ => Call::sendv(alive, 2, entry(RX_BASE + rng.below(1 << 20), 40), entry(1 << 47, 9)),
        };
        // 3 and the last: an address that is not the application's, or a buffer that it may hold.
        if call.op == Op::Sendv.0 && call.sg_count < 65 && self.conns.contains_key(&call.handle) {
            return;
        }
        self.outbox.push(call, Vec::new(), Tag::Nonsense);
    }
}

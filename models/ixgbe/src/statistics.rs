//! Statistics registers (§8.2.3.23). Lengths include the FCS, as on the wire.
use crate::filter::Cast;
use crate::map::Map;
use crate::regs::Id;

/// The FCS.
const FCS: usize = 4;

/// The size registers, by the length that each goes up to.
const RECEIVED: [(usize, Id); 6] = [
    (64, Id::PRC64),
    (127, Id::PRC127),
    (255, Id::PRC255),
    (511, Id::PRC511),
    (1023, Id::PRC1023),
    (usize::MAX, Id::PRC1522),
];
const SENT: [(usize, Id); 6] = [
    (64, Id::PTC64),
    (127, Id::PTC127),
    (255, Id::PTC255),
    (511, Id::PTC511),
    (1023, Id::PTC1023),
    (usize::MAX, Id::PTC1522),
];

fn count_size(map: &mut Map, sizes: &[(usize, Id)], bytes: usize) {
    if let Some((_, id)) = sizes.iter().find(|(most, _)| bytes <= *most) {
        map.count(*id, 0, 1);
    }
}

/// A frame has come from the wire.
pub(crate) fn arrived(map: &mut Map, len: usize) {
    map.count(Id::TPR, 0, 1);
    map.count_wide(Id::TORL, Id::TORH, 0, (len + FCS) as u64);
}

/// It has passed the filters.
pub(crate) fn passed(map: &mut Map, len: usize, cast: Cast) {
    count_size(map, &RECEIVED, len + FCS);
    match cast {
        Cast::Uni => {}
        Cast::Multi => map.count(Id::MPRC, 0, 1),
        Cast::Broad => map.count(Id::BPRC, 0, 1),
    }
    map.count(Id::GPRC, 0, 1);
    map.count_wide(Id::GORCL, Id::GORCH, 0, (len + FCS) as u64);
}

/// The counters that a queue is mapped to (§8.2.3.23.71, §8.2.3.23.73): 16 for each direction.
fn mapped(map: &Map, id: Id, queue: usize) -> usize {
    (map.at(id, queue / 4) >> (8 * (queue % 4)) & 0xf) as usize
}

/// It was written to a queue.
pub(crate) fn delivered(map: &mut Map, queue: usize, len: usize) {
    let at = mapped(map, Id::RQSMR, queue);
    map.count(Id::QPRC, at, 1);
    map.count_wide(Id::QBRC_L, Id::QBRC_H, at, (len + FCS) as u64);
}

/// There was no descriptor for it.
pub(crate) fn dropped(map: &mut Map, queue: usize) {
    let at = mapped(map, Id::RQSMR, queue);
    map.count(Id::QPRDC, at, 1);
}

/// A frame leaves.
pub(crate) fn sent(map: &mut Map, queue: usize, len: usize, cast: Cast) {
    map.count(Id::TPT, 0, 1);
    map.count(Id::GPTC, 0, 1);
    map.count_wide(Id::GOTCL, Id::GOTCH, 0, (len + FCS) as u64);
    count_size(map, &SENT, len + FCS);
    match cast {
        Cast::Uni => {}
        Cast::Multi => map.count(Id::MPTC, 0, 1),
        Cast::Broad => map.count(Id::BPTC, 0, 1),
    }
    let at = mapped(map, Id::TQSM, queue);
    map.count(Id::QPTC, at, 1);
    map.count_wide(Id::QBTC_L, Id::QBTC_H, at, (len + FCS) as u64);
}

/// A pause frame leaves. Linux takes it that these are among the frames sent.
pub(crate) fn control_sent(map: &mut Map, len: usize) {
    map.count(Id::TPT, 0, 1);
    map.count(Id::GPTC, 0, 1);
    map.count(Id::MPTC, 0, 1);
    map.count_wide(Id::GOTCL, Id::GOTCH, 0, (len + FCS) as u64);
    count_size(map, &SENT, len + FCS);
}

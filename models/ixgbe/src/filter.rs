//! Which frames the host gets (§7.1.1).
use crate::map::Map;
use crate::regs::Id;

/// FCTRL (§8.2.3.7.1).
const MULTICAST_ALL: u32 = 1 << 8;
const UNICAST_ALL: u32 = 1 << 9;
const BROADCAST: u32 = 1 << 10;
/// MCSTCTRL.MFE (§8.2.3.7.3).
const MULTICAST_FILTER: u32 = 1 << 2;
/// VLNCTRL.VFE (§8.2.3.7.2).
const VLAN_FILTER: u32 = 1 << 30;
/// RAH.AV (§8.2.3.7.9).
pub(crate) const ADDRESS_VALID: u32 = 1 << 31;

/// Whom a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cast {
    Uni,
    Multi,
    Broad,
}

pub(crate) fn cast(destination: &[u8; 6]) -> Cast {
    match destination {
        [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] => Cast::Broad,
        [first, ..] if first & 1 != 0 => Cast::Multi,
        _ => Cast::Uni,
    }
}

/// Whether the filters let a frame through.
pub(crate) fn passes(map: &Map, destination: &[u8; 6], vlan: Option<u16>) -> bool {
    let control = map.get(Id::FCTRL);
    let address = match cast(destination) {
        Cast::Broad => control & BROADCAST != 0,
        Cast::Uni => control & UNICAST_ALL != 0 || is_exact(map, destination),
        Cast::Multi => {
            control & MULTICAST_ALL != 0 || is_exact(map, destination) || in_table(map, destination)
        }
    };
    address && vlan.is_none_or(|tag| map.get(Id::VLNCTRL) & VLAN_FILTER == 0 || has_vlan(map, tag))
}

/// §7.1.1.1.1: one of the 128 receive addresses.
fn is_exact(map: &Map, destination: &[u8; 6]) -> bool {
    let low = u32::from_le_bytes([destination[0], destination[1], destination[2], destination[3]]);
    let high = u32::from(u16::from_le_bytes([destination[4], destination[5]]));
    (0..128).any(|i| {
        let top = map.at(Id::RAH, i);
        top & ADDRESS_VALID != 0 && top & 0xffff == high && map.at(Id::RAL, i) == low
    })
}

/// §7.1.1.1.2: 12 bits of the address that MCSTCTRL.MO chooses are an index into 4096 bits.
fn in_table(map: &Map, destination: &[u8; 6]) -> bool {
    let control = map.get(Id::MCSTCTRL);
    let top = u32::from(u16::from_le_bytes([destination[4], destination[5]]));
    let vector = match control & 3 {
        0 => top >> 4,
        1 => top >> 3,
        2 => top >> 2,
        _ => top,
    } & 0xfff;
    control & MULTICAST_FILTER != 0
        && map.at(Id::MTA, (vector >> 5) as usize) >> (vector & 31) & 1 != 0
}

/// §7.1.1.2.
fn has_vlan(map: &Map, tag: u16) -> bool {
    let id = usize::from(tag & 0xfff);
    map.at(Id::VFTA, id / 32) >> (id % 32) & 1 != 0
}

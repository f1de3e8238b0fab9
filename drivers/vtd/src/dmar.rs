//! ACPI's DMAR table: which units there are, and which functions' requests each of them sees (§8).
//!
//! The table is the firmware's: lengths that lead out of it end the walk, what is unknown is skipped.
use crate::SourceId;

/// Bytes before the first structure (§8.1).
const HEADER: usize = 48;
/// Structure types (§8.2).
const DRHD: u16 = 0;
/// A unit's structure without its scopes (§8.3).
const DRHD_BYTES: usize = 16;
/// "All functions of the segment that no other unit names" (§8.3).
const INCLUDE_PCI_ALL: u8 = 1;
/// A scope without its path (§8.3.1).
const SCOPE_BYTES: usize = 6;
const ENDPOINT: u8 = 1;
const BRIDGE: u8 = 2;
/// Steps of a path that are followed.
const STEPS_MAX: usize = 16;
/// Units that are looked at.
const UNITS_MAX: usize = 64;

/// A remapping unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnitPlace {
    /// Where its registers are, physically.
    pub base: u64,
    /// Whose segment it looks at.
    pub segment: u16,
    /// It sees all that no other unit of the segment names.
    pub sees_rest: bool,
}

/// What a bridge leads to: its secondary and its subordinate bus; `None` if that is no bridge.
pub type Bridges<'a> = &'a dyn Fn(SourceId) -> Option<(u8, u8)>;

/// The unit that sees the requests of a function of `segment`.
#[must_use]
pub fn unit_of(
    table: &[u8],
    segment: u16,
    who: SourceId,
    bridges: Bridges<'_>,
) -> Option<UnitPlace> {
    let mut rest = None;
    for (unit, scopes) in units(table) {
        if unit.segment != segment {
            continue;
        }
        if unit.sees_rest {
            rest = rest.or(Some(unit));
        } else if scopes_of(scopes).any(|scope| scope.covers(who, bridges)) {
            return Some(unit);
        }
    }
    rest
}

/// The units of a table, each with the bytes of its scopes.
pub fn units(table: &[u8]) -> impl Iterator<Item = (UnitPlace, &[u8])> {
    structures(table).take(UNITS_MAX).filter_map(|s| {
        let head = s.first_chunk::<DRHD_BYTES>()?;
        if u16::from_le_bytes([head[0], head[1]]) != DRHD {
            return None;
        }
        let base = u64::from_le_bytes(*head.last_chunk()?);
        let usable = base != 0 && base.is_multiple_of(4096);
        let segment = u16::from_le_bytes([head[6], head[7]]);
        let unit = UnitPlace { base, segment, sees_rest: head[4] & INCLUDE_PCI_ALL != 0 };
        usable.then(|| (unit, &s[DRHD_BYTES..]))
    })
}

fn structures(table: &[u8]) -> impl Iterator<Item = &[u8]> {
    let len = table.get(4..8).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_le_bytes(*b));
    let table = table.get(..len as usize).unwrap_or(table);
    let mut left = table.get(HEADER..).unwrap_or(&[]);
    core::iter::from_fn(move || {
        let len = usize::from(u16::from_le_bytes([*left.get(2)?, *left.get(3)?]));
        if len < 4 {
            return None;
        }
        let (this, more) = left.split_at_checked(len)?;
        left = more;
        Some(this)
    })
}

/// A function, or a bridge with all behind it.
struct Scope<'a> {
    kind: u8,
    bus: u8,
    /// Device and function of each step.
    path: &'a [[u8; 2]],
}

fn scopes_of(mut left: &[u8]) -> impl Iterator<Item = Scope<'_>> {
    core::iter::from_fn(move || {
        let len = usize::from(*left.get(1)?);
        if len < SCOPE_BYTES {
            return None;
        }
        let (this, more) = left.split_at_checked(len)?;
        left = more;
        let path = this[SCOPE_BYTES..].as_chunks::<2>().0;
        Some(Scope { kind: this[0], bus: this[5], path })
    })
}

impl Scope<'_> {
    fn covers(&self, who: SourceId, bridges: Bridges<'_>) -> bool {
        let Some((last, way)) = self.path.split_last() else { return false };
        let mut bus = self.bus;
        for [device, function] in way.iter().take(STEPS_MAX) {
            let Some((below, _)) = bridges(SourceId::new(bus, *device, *function)) else {
                return false;
            };
            bus = below;
        }
        let end = SourceId::new(bus, last[0], last[1]);
        match self.kind {
            ENDPOINT => end == who,
            BRIDGE => bridges(end).is_some_and(|(first, last)| (first..=last).contains(&who.bus())),
            _ => false,
        }
    }
}

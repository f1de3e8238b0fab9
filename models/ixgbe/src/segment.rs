//! What is done to a frame before it leaves: segmentation, checksums, the VLAN tag (§7.2.4, §7.2.5).
use crate::packet::{fold, sum};

/// A context (§7.2.3.2.3).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Context {
    l2: usize,
    l3: usize,
    l4: usize,
    mss: usize,
    pub vlan: u16,
    v4: bool,
    tcp: bool,
}

impl Context {
    pub const fn new(low: u64, high: u64) -> Context {
        Context {
            l3: (low & 0x1ff) as usize,
            l2: (low >> 9 & 0x7f) as usize,
            vlan: (low >> 16) as u16,
            v4: high >> 10 & 1 != 0,
            tcp: high >> 11 & 3 == 1,
            l4: (high >> 40 & 0xff) as usize,
            mss: (high >> 48) as usize,
        }
    }
}

/// What is wanted of a frame.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wishes {
    pub context: Context,
    pub ip_sum: bool,
    pub transport_sum: bool,
    pub segment: bool,
    pub vlan: Option<u16>,
    /// Legacy: where the sum starts, where it goes.
    pub legacy_sum: Option<(usize, usize)>,
}

/// Gives the frames that come of one. `false`: what is wanted makes no sense, and nothing leaves.
pub(crate) fn frames(
    frame: &mut Vec<u8>,
    wishes: &Wishes,
    flags: (u32, u32),
    mut send: impl FnMut(&[u8]),
) -> bool {
    if wishes.segment {
        return segment(frame, wishes, flags, &mut send);
    }
    if !finish(frame, wishes) {
        return false;
    }
    insert_vlan(frame, wishes.vlan);
    send(frame);
    true
}

fn insert_vlan(frame: &mut Vec<u8>, vlan: Option<u16>) {
    if let Some(tag) = vlan.filter(|_| frame.len() >= 12) {
        let [high, low] = tag.to_be_bytes();
        frame.splice(12..12, [0x81, 0x00, high, low]);
    }
}

fn put(frame: &mut [u8], at: usize, value: u16) -> Option<()> {
    frame.get_mut(at..at + 2)?.copy_from_slice(&value.to_be_bytes());
    Some(())
}

/// The sums of a frame that is not cut: the field has the pseudo-header's (§7.2.5.2).
fn finish(frame: &mut [u8], wishes: &Wishes) -> bool {
    let Context { l2, l3, tcp, v4, .. } = wishes.context;
    let mut done = Some(());
    if wishes.ip_sum && v4 {
        done = done.and_then(|()| ip_sum(frame, l2, l3));
    }
    if wishes.transport_sum {
        let (start, field) = (l2 + l3, if tcp { 16 } else { 6 });
        done = done.and_then(|()| fill(frame, start, start + field));
    }
    if let Some((start, at)) = wishes.legacy_sum {
        done = done.and_then(|()| fill(frame, start, at));
    }
    done.is_some()
}

/// The field as it is counts: drivers have it 0.
fn ip_sum(frame: &mut [u8], l2: usize, l3: usize) -> Option<()> {
    let value = !fold(sum(frame.get(l2..l2 + l3)?, 0));
    put(frame, l2 + 10, value)
}

/// The sum from `start` to the end, the field as it is, into the field.
fn fill(frame: &mut [u8], start: usize, at: usize) -> Option<()> {
    let value = !fold(sum(frame.get(start..)?, 0));
    // UDP over IPv4: 0 would mean none.
    put(frame, at, if value == 0 { 0xffff } else { value })
}

fn segment(frame: &[u8], wishes: &Wishes, flags: (u32, u32), send: &mut impl FnMut(&[u8])) -> bool {
    let Context { l2, l3, l4, mss, tcp, v4, .. } = wishes.context;
    let headers = l2 + l3 + l4;
    let l3_least = if v4 { 20 } else { 40 };
    if mss == 0 || !tcp || l4 < 20 || l3 < l3_least || frame.len() < headers {
        return false;
    }
    let payload = &frame[headers..];
    let count = payload.len().div_ceil(mss).max(1);
    let mut pieces = payload.chunks(mss);
    for number in 0..count {
        let piece = pieces.next().unwrap_or(&[]);
        let mut out = [&frame[..headers], piece].concat();
        let mask = match number {
            _ if number + 1 == count => flags.1 & 0xfff,
            0 => flags.0 & 0xfff,
            _ => flags.0 >> 16 & 0xfff,
        };
        if edit(&mut out, wishes, number, mask as u16).is_none() {
            return false;
        }
        insert_vlan(&mut out, wishes.vlan);
        send(&out);
    }
    true
}

/// The headers of segment `number` (§7.2.4.7).
fn edit(out: &mut [u8], wishes: &Wishes, number: usize, mask: u16) -> Option<()> {
    let Context { l2, l3, mss, v4, .. } = wishes.context;
    let get = |out: &[u8], at: usize| Some(u16::from_be_bytes([*out.get(at)?, *out.get(at + 1)?]));
    let l4_bytes = out.len() - l2 - l3;
    if v4 {
        put(out, l2 + 2, (l3 + l4_bytes) as u16)?;
        let id = get(out, l2 + 4)?.wrapping_add(number as u16);
        put(out, l2 + 4, id)?;
        ip_sum(out, l2, l3)?;
    } else {
        put(out, l2 + 4, (l3 - 40 + l4_bytes) as u16)?;
    }
    let l4 = l2 + l3;
    let sequence = u32::from(get(out, l4 + 4)?) << 16 | u32::from(get(out, l4 + 6)?);
    let sequence = sequence.wrapping_add((number * mss) as u32);
    out.get_mut(l4 + 4..l4 + 8)?.copy_from_slice(&sequence.to_be_bytes());
    let word = get(out, l4 + 12)?;
    put(out, l4 + 12, word & (mask | 0xf000))?;
    // The field has the pseudo-header's sum without a length, which is added here.
    let value = !fold(sum(out.get(l4..)?, l4_bytes as u64));
    put(out, l4 + 16, value)
}

//! The transmit stage: staged frames, then the groups' connections, one doorbell.
use crate::acl;
use crate::checksum;
use crate::device::{Fragment, TxChecksum, TxFull, TxQueue};
use crate::dhcp;
use crate::engine::Engine;
use crate::family::Family;
use crate::input::eth;
use crate::local::Local;
use crate::neighbor::Lookup;
use crate::tap;
use crate::tcp;
use crate::tx::{Completion, Staged};
use crate::udp;
use crate::{ipv4, ipv6};
use ix_abi::IpAddress;
use ix_abi::stats::{Counter, Drop};

const UDP_HEADER: usize = 8;
/// Bytes of Ethernet, IPv4 and UDP headers.
const UDP_HEADERS: usize = eth::HEADER + ipv4::HEADER + UDP_HEADER;

/// Step 7: everything that is to be sent, as far as the queue takes it; without a doorbell.
#[inline]
pub fn run<T: TxQueue>(engine: &mut Engine, queue: &mut T) {
    if engine.local.tx.has_staged() || !engine.local.output_ready.is_empty() {
        run_some(engine, queue);
    }
}

/// The same while it is calm: connections may have something to send, and nobody else has. Who still has then ends the
/// calm; whether nobody has.
#[inline(always)]
pub fn run_calmly<T: TxQueue>(engine: &mut Engine, queue: &mut T) -> bool {
    if engine.local.output_ready.is_empty() {
        return true;
    }
    run_some(engine, queue);
    engine.local.calm
}

#[inline(never)]
fn run_some<T: TxQueue>(engine: &mut Engine, queue: &mut T) {
    let Engine { local, groups, .. } = engine;
    let mut full = false;
    while let Some(staged) = local.tx.pop_staged() {
        if let Err(staged) = send_staged(local, queue, staged) {
            local.tx.unpop_staged(staged);
            full = true;
            break;
        }
    }
    let mut from = 0;
    while let Some(id) = local.output_ready.next(from).filter(|_| !full) {
        from = usize::from(id.0) + 1;
        if local.frozen.contains(id) {
            continue;
        }
        let Some(Some(group)) = groups.get_mut(usize::from(id.0)) else {
            local.output_ready.remove(id);
            continue;
        };
        local.output_ready.remove(id);
        // What still wants to send enters the set again.
        full = tcp::output::run(group, local, queue).is_err();
    }
    if !local.output_ready.is_empty() || local.tx.has_staged() {
        local.stir();
    }
}

/// Sends a staged frame; back if the queue is full.
fn send_staged<T: TxQueue>(local: &mut Local, queue: &mut T, staged: Staged) -> Result<(), Staged> {
    if !local.tx.ready() {
        return Err(staged);
    }
    match staged {
        Staged::Bytes(bytes) => {
            local.tx.header()[..bytes.len()].copy_from_slice(&bytes);
            local.tx.begin(bytes.len());
            match local.tx.push(queue, &mut local.stats) {
                Ok(_) => {
                    if local.tap.is_on() {
                        tap::sent(local, |_| ());
                    }
                    Ok(())
                }
                Err(TxFull) => Err(Staged::Bytes(bytes)),
            }
        }
        Staged::Buffer { mbuf, offset, len } => {
            let bus = local.pool.area().bus_addr(&mbuf, offset);
            let fragment = Fragment { bus, len: u32::from(len) };
            match local.tx.push_buffer(queue, &mut local.stats, fragment) {
                Ok(number) => {
                    if local.tap.is_on() {
                        tap::sent_buffer(local, &mbuf, offset, len);
                    }
                    local.tx.on_completion(number, Completion::Buffer(mbuf));
                    Ok(())
                }
                Err(TxFull) => Err(Staged::Buffer { mbuf, offset, len }),
            }
        }
        Staged::Datagram { index, mac } => {
            datagram(local, queue, index, mac).map_err(|TxFull| Staged::Datagram { index, mac })
        }
    }
}

/// Writes Ethernet, IP and UDP headers; the checksum field is left 0.
fn udp_headers<A: Family>(
    h: &mut [u8],
    macs: ([u8; 6], [u8; 6]),
    from: (A, u16),
    to: (A, u16),
    (payload, hops): (usize, u8),
) {
    let Some((below, h)) = h.split_at_mut_checked(A::BELOW) else { return };
    let Some(h) = h.first_chunk_mut::<UDP_HEADER>() else { return };
    below[0..6].copy_from_slice(&macs.1);
    below[6..12].copy_from_slice(&macs.0);
    below[12..14].copy_from_slice(&A::ETHERTYPE);
    let len = (UDP_HEADER + payload) as u16;
    A::emit(&mut below[eth::HEADER..], from.0, to.0, ipv4::UDP, len, (0, hops));
    h[0..2].copy_from_slice(&from.1.to_be_bytes());
    h[2..4].copy_from_slice(&to.1.to_be_bytes());
    h[4..6].copy_from_slice(&len.to_be_bytes());
    h[6..8].fill(0);
}

/// RFC 768: a sum of zero is sent as all ones, since zero means that there is none.
fn udp_checksum(partial: u64) -> [u8; 2] {
    match checksum::finish(partial) {
        [0, 0] => [0xff, 0xff],
        field => field,
    }
}

/// Sends a datagram of the application.
fn datagram<T: TxQueue>(
    local: &mut Local,
    queue: &mut T,
    index: u32,
    mac: [u8; 6],
) -> Result<(), TxFull> {
    if local.udp.datagrams[index].local == 0 {
        datagram_of::<T, [u8; 4]>(local, queue, index, mac)
    } else {
        datagram_of::<T, [u8; 16]>(local, queue, index, mac)
    }
}

#[inline(never)]
fn datagram_of<T: TxQueue, A: Family>(
    local: &mut Local,
    queue: &mut T,
    index: u32,
    mac: [u8; 6],
) -> Result<(), TxFull> {
    let datagram = &local.udp.datagrams[index];
    if A::VERSION == 6 && local.v6.address(datagram.local) == ipv6::UNSPECIFIED {
        // It waited for a neighbour, and our address went away meanwhile.
        local.stats.drop(Drop::NoRoute);
        udp::finished(local, index);
        return Ok(());
    }
    if datagram.acl != local.acl_generation {
        let flow = datagram.flow(local);
        local.udp.datagrams[index].acl = local.acl_generation;
        if acl::judge(local, &flow, acl::Counts::Nothing).is_err() {
            udp::finished(local, index);
            return Ok(());
        }
    }
    let datagram = &local.udp.datagrams[index];
    let (own, to) = (A::own(local, datagram.local), A::from_ip(datagram.remote.ip));
    let payload = datagram.len as usize;
    let frame = local.tx.begin(A::BELOW + UDP_HEADER);
    let mut sum = 0;
    let mut odd = false;
    for (extent, _) in &datagram.pieces {
        frame.fragments.push(Fragment { bus: extent.bus(), len: extent.len() });
        if !local.tx_checksum {
            let partial = extent.sum();
            sum = checksum::add(sum, if odd { checksum::at_odd_offset(partial) } else { partial });
            odd ^= extent.len() % 2 == 1;
        }
    }
    if local.tx_checksum {
        frame.checksum = Some(TxChecksum { start: A::BELOW as u16, offset: 6 });
    }
    let h = local.tx.header();
    let (from, hops) = ((own, datagram.source_port), local.v6.config.hops);
    udp_headers(h, (local.mac, mac), from, (to, datagram.remote.port), (payload, hops));
    let len = (UDP_HEADER + payload) as u16;
    let pseudo = A::pseudo(own, to, ipv4::UDP, len);
    let field = if local.tx_checksum {
        checksum::fold(pseudo).to_ne_bytes()
    } else {
        let header = checksum::sum(&h[A::BELOW..A::BELOW + UDP_HEADER]);
        udp_checksum(checksum::add(checksum::add(pseudo, header), sum))
    };
    h[A::BELOW + 6..A::BELOW + 8].copy_from_slice(&field);
    let number = local.tx.push(queue, &mut local.stats)?;
    if local.tap.is_on() {
        tap::sent_datagram(local, index);
    }
    local.tx.on_completion(number, Completion::Datagram(index));
    local.stats.add(Counter::UdpOut, 1);
    Ok(())
}

/// Stages a message of the DHCP client, built in a receive buffer, since it is longer than a header.
pub fn dhcp(local: &mut Local, message: &dhcp::Message) {
    let Some(mut mbuf) = local.pool.alloc() else {
        return local.stats.drop(Drop::NoBuffer);
    };
    let known = match local.neighbors.lookup(IpAddress::v4(message.dst), local.now) {
        Lookup::Found(mac) if message.dst != [255; 4] => mac.0,
        _ => [0xff; 6],
    };
    let len = UDP_HEADERS + message.payload.len();
    let (mac, area) = (local.mac, local.pool.area());
    let Some(h) = area.data_mut(&mut mbuf).get_mut(..len) else {
        return local.pool.free(mbuf);
    };
    h[UDP_HEADERS..].copy_from_slice(&message.payload);
    let from = (message.src, dhcp::CLIENT_PORT);
    let to = (message.dst, dhcp::SERVER_PORT);
    udp_headers(h, (mac, known), from, to, (message.payload.len(), 0));
    let udp = &h[eth::HEADER + ipv4::HEADER..];
    let pseudo = checksum::pseudo_v4(message.src, message.dst, ipv4::UDP, udp.len() as u16);
    let field = udp_checksum(checksum::add(pseudo, checksum::sum(udp)));
    h[40..42].copy_from_slice(&field);
    if let Err(Staged::Buffer { mbuf, .. }) =
        local.tx.stage(Staged::Buffer { mbuf, offset: 0, len: len as u16 })
    {
        local.stats.drop(Drop::TxRingFull);
        local.pool.free(mbuf);
    }
}

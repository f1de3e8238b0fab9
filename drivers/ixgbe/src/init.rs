//! The initialisation sequence (§4.6.3), step by step, without the queues.
use crate::chip::{Chip, Clock, pause};
use crate::error::InitError;
use crate::pci::Media;
use crate::regs::*;
use crate::{RSS_KEY_BYTES, eeprom, link, marks};
use ix_dataplane::device::Mmio;
use ix_dataplane::time::Duration;

/// §5.2.5.3.2 names no time; Linux waits 80 ms.
const MASTER_DEADLINE: Duration = Duration::from_ms(100);
/// CTRL.RST clears itself after about 1 ms (§8.2.3.1.1).
const RESET_DEADLINE: Duration = Duration::from_ms(100);
/// §4.6.3.2: "wait at least 10 msec to enable smooth initialization flow".
const RESET_PAUSE: Duration = Duration::from_ms(10);
/// Reading the EEPROM, DMA initialisation.
const READY_DEADLINE: Duration = Duration::from_ms(500);
/// SECRXSTAT.SECRX_RDY.
const RX_PATH_DEADLINE: Duration = Duration::from_ms(10);

const CTRL_MASTER_DISABLE: u32 = 1 << 2;
const CTRL_LINK_RESET: u32 = 1 << 3;
const CTRL_RESET: u32 = 1 << 26;
const STATUS_MASTER: u32 = 1 << 19;
const CTRL_EXT_NO_SNOOP_DISABLE: u32 = 1 << 16;
const CTRL_EXT_DRIVER_LOADED: u32 = 1 << 28;
const GCR_EXT_BUFFERS_CLEAR: u32 = 1 << 30;
const EEC_AUTO_READ: u32 = 1 << 9;
const EEMNGCTL_CONFIG_DONE: u32 = 3 << 18;
const RDRXCTL_CRC_STRIP: u32 = 1 << 1;
const RDRXCTL_DMA_INIT_DONE: u32 = 1 << 3;
const RDRXCTL_RSC_FIRST_SIZE: u32 = 0x1f << 17;
const RDRXCTL_RSC_ACK: u32 = 1 << 25;
const RDRXCTL_FCOE_FIX: u32 = 1 << 26;
const HLREG0_TX_CRC: u32 = 1;
const HLREG0_RX_CRC_STRIP: u32 = 1 << 1;
const HLREG0_JUMBO: u32 = 1 << 2;
const HLREG0_TX_PAD: u32 = 1 << 10;
const HLREG0_LOOPBACK: u32 = 1 << 15;
const FCTRL_MULTICAST_ALL: u32 = 1 << 8;
const FCTRL_UNICAST_ALL: u32 = 1 << 9;
const FCTRL_BROADCAST: u32 = 1 << 10;
const RXCSUM_HASH_IN_DESCRIPTOR: u32 = 1 << 13;
const RFCTL_NO_COALESCING: u32 = 1 << 5;
/// VLNCTRL.VET: the type of tagged frames, and no more.
const VLAN_TYPE: u32 = 0x8100;
/// VLNCTRL.VFE.
const VLAN_FILTER: u32 = 1 << 30;
const RAH_VALID: u32 = 1 << 31;
/// FCRTL.XONE, FCRTH.FCEN, FCCFG.TFCE for the link (§8.2.3.3.3, .4, .7).
const FCRTL_XON: u32 = 1 << 31;
const FCRTH_ENABLE: u32 = 1 << 31;
const FCCFG_SEND: u32 = 1 << 3;
/// MFLCN.DPF and RFCE (§8.2.3.22.34): pause frames are obeyed, and nobody else sees them.
const MFLCN_DISCARD_PAUSE: u32 = 1 << 1;
const MFLCN_OBEY: u32 = 1 << 3;
const MRQC_RSS: u32 = 1;
/// TCP and UDP over IPv4 and IPv6. All else, fragments included, comes to queue 0 without a hash.
const MRQC_FIELDS: u32 = 1 << 16 | 1 << 21 | 1 << 22 | 1 << 23;
const RXPBSIZE_ALL: u32 = 512 * 1024;
/// X540: 384 KiB.
const RXPBSIZE_X540: u32 = 384 * 1024;
const TXPBSIZE_ALL: u32 = 160 * 1024;
const RTTDCS_ARBITER_DISABLE: u32 = 1 << 6;
const DTXMXSZRQ_MOST: u32 = 0xfff;
const DMATXCTL_ENABLE: u32 = 1;
const RXCTRL_ENABLE: u32 = 1;
const SECRXCTRL_DISABLE: u32 = 1 << 1;
const SECRXSTAT_READY: u32 = 1;
/// GPIE (§8.2.3.5.18): reads of EICR leave the queues' causes; a vector per queue, masked by its message, and the pending
/// bits of PCI.
const GPIE_OTHER_CLEAR: u32 = 1 << 5;
const GPIE_MULTIPLE: u32 = 1 << 4 | 1 << 30 | 1 << 31;
const IVAR_VALID: u32 = 0x80;

/// What the port shall be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub media: Media,
    pub mtu: u16,
    pub pairs: u16,
    pub promiscuous: bool,
    pub vlan: Option<u16>,
    pub flow_control: bool,
    pub rss_key: [u8; RSS_KEY_BYTES],
    pub first_vector: Option<u16>,
}

/// Stops the chip: after this it touches no memory (§4.2.1.6.1).
pub(crate) fn reset<M: Mmio>(chip: &Chip<M>, clock: Clock<'_>) -> Result<(), InitError> {
    let quiet = quiesce(chip, clock)?;
    reset_quiet(chip, quiet, clock)
}

/// The first half: no more frames in, no new requests. Whether those that were under way have ended (§5.2.5.3.2).
pub(crate) fn quiesce<M: Mmio>(chip: &Chip<M>, clock: Clock<'_>) -> Result<bool, InitError> {
    chip.present()?;
    disable_interrupts(chip);
    chip.change(RXCTRL, 0, RXCTRL_ENABLE);
    chip.change(CTRL, CTRL_MASTER_DISABLE, 0);
    let quiet = chip.wait(clock, MASTER_DEADLINE, STATUS, |status| status & STATUS_MASTER == 0);
    Ok(quiet.is_ok())
}

/// The second half.
pub(crate) fn reset_quiet<M: Mmio>(
    chip: &Chip<M>,
    quiet: bool,
    clock: Clock<'_>,
) -> Result<(), InitError> {
    if !quiet {
        // The transmit path is flushed, and the reset is done twice (§5.2.5.3.2).
        chip.change(HLREG0, HLREG0_LOOPBACK, 0);
        chip.change(GCR_EXT, GCR_EXT_BUFFERS_CLEAR, 0);
        pause(clock, Duration::from_us(20));
        chip.change(HLREG0, 0, HLREG0_LOOPBACK);
        chip.change(GCR_EXT, 0, GCR_EXT_BUFFERS_CLEAR);
        issue_reset(chip, clock)?;
    }
    issue_reset(chip, clock)?;
    // §4.6.3.1: the reset has enabled none, and yet the datasheet asks for it.
    disable_interrupts(chip);
    Ok(())
}

fn issue_reset<M: Mmio>(chip: &Chip<M>, clock: Clock<'_>) -> Result<(), InitError> {
    let bits = CTRL_RESET | CTRL_LINK_RESET;
    chip.change(CTRL, bits, 0);
    pause(clock, RESET_PAUSE);
    chip.wait(clock, RESET_DEADLINE, CTRL, |ctrl| ctrl & bits == 0)
        .map_err(|ctrl| InitError::ResetTimeout { ctrl })?;
    chip.present()
}

fn disable_interrupts<M: Mmio>(chip: &Chip<M>) {
    chip.write(EIMC, 0x7fff_ffff);
    chip.fill(EIMC_EX, 0, u32::MAX);
    chip.flush();
}

/// §4.6.3 from the reset's end on, up to where queues can be enabled. The MAC address.
pub(crate) fn prepare<M: Mmio>(
    chip: &Chip<M>,
    settings: &Settings,
    clock: Clock<'_>,
) -> Result<[u8; 6], InitError> {
    // "Wait for the EEPROM auto read completion."
    chip.wait(clock, READY_DEADLINE, EEC, |eec| eec & EEC_AUTO_READ != 0)
        .map_err(|eec| InitError::EepromAutoRead { eec })?;
    // "Wait for manageability configuration done indication": cards without such firmware never say so.
    let _ = chip.wait(clock, RESET_DEADLINE, EEMNGCTL, |c| c & EEMNGCTL_CONFIG_DONE != 0);
    if settings.media != Media::BaseT {
        eeprom::verify(chip, clock)?;
    }
    // "Wait for the DMA initialization done."
    chip.wait(clock, READY_DEADLINE, RDRXCTL, |value| value & RDRXCTL_DMA_INIT_DONE != 0)
        .map_err(|_| InitError::DmaInitTimeout)?;
    let mac = read_mac(chip)?;
    chip.change(CTRL_EXT, CTRL_EXT_DRIVER_LOADED | CTRL_EXT_NO_SNOOP_DISABLE, 0);
    // §4.6.4: PHY and link.
    link::start(chip, settings.media);
    flow_control(chip, settings);
    filters(chip, settings);
    receive(chip, settings);
    rss(chip, settings);
    transmit(chip);
    interrupts(chip, settings);
    Ok(mac)
}

/// The chip has put the EEPROM's address into the first receive address (§4.6.3.2).
fn read_mac<M: Mmio>(chip: &Chip<M>) -> Result<[u8; 6], InitError> {
    let [a, b, c, d] = chip.read(RAL.at(0)).to_le_bytes();
    let high = chip.read(RAH.at(0));
    let [e, f, ..] = high.to_le_bytes();
    let mac = [a, b, c, d, e, f];
    if a & 1 != 0 || mac == [0; 6] || high & RAH_VALID == 0 {
        return Err(InitError::BadMac { mac });
    }
    Ok(mac)
}

/// §4.6.3.2: written even where it is off; FCRTH's threshold is needed in any case.
fn flow_control<M: Mmio>(chip: &Chip<M>, settings: &Settings) {
    let at = marks::marks(receive_buffer(settings.media), settings.mtu);
    let on = |bits| if settings.flow_control { bits } else { 0 };
    chip.fill(FCTTV, 0, on(marks::TIME << 16 | marks::TIME));
    chip.write(FCRTL.at(0), on(at.low | FCRTL_XON));
    chip.fill(FCRTL, 1, 0);
    chip.write(FCRTH.at(0), at.high | on(FCRTH_ENABLE));
    chip.fill(FCRTH, 1, 0);
    chip.write(FCRTV, on(marks::TIME / 2));
    chip.write(FCCFG, on(FCCFG_SEND));
    let obey = MFLCN_DISCARD_PAUSE | MFLCN_OBEY;
    chip.change(MFLCN, on(obey), obey);
}

const fn receive_buffer(media: Media) -> u32 {
    match media {
        Media::BaseT => RXPBSIZE_X540,
        Media::SfpPlus | Media::Backplane => RXPBSIZE_ALL,
    }
}

/// §4.6.7: tables that are undefined after a reset.
fn filters<M: Mmio>(chip: &Chip<M>, settings: &Settings) {
    chip.fill(RAH, 1, 0);
    chip.fill(RAL, 1, 0);
    chip.fill(MTA, 0, 0);
    chip.fill(PFUTA, 0, 0);
    chip.fill(PFVLVF, 0, 0);
    chip.fill(FTQF, 0, 0);
    chip.fill(ETQF, 0, 0);
    chip.write(SYNQF, 0);
    vlan_filter(chip, settings.vlan);
    // The first address belongs to the first pool, the only one.
    chip.write(MPSAR.at(0), 1);
    chip.fill(MPSAR, 1, 0);
    // Multicast is the engine's to judge: it knows which groups it is in.
    let unicast = if settings.promiscuous { FCTRL_UNICAST_ALL } else { 0 };
    chip.write(FCTRL, FCTRL_BROADCAST | FCTRL_MULTICAST_ALL | unicast);
}

/// §7.1.1.2: tagged frames of this VLAN only. Those without a tag pass all the same.
fn vlan_filter<M: Mmio>(chip: &Chip<M>, vlan: Option<u16>) {
    chip.fill(VFTA, 0, 0);
    let filter = vlan.map_or(0, |id| {
        chip.write(VFTA.at(u32::from(id / 32)), 1 << (id % 32));
        VLAN_FILTER
    });
    chip.write(VLNCTRL, VLAN_TYPE | filter);
}

/// §4.6.7.
fn receive<M: Mmio>(chip: &Chip<M>, settings: &Settings) {
    chip.write(RXPBSIZE.at(0), receive_buffer(settings.media));
    chip.fill(RXPBSIZE, 1, 0);
    // The FCS is stripped; both bits have to agree (§8.2.3.8.8).
    chip.change(
        RDRXCTL,
        RDRXCTL_CRC_STRIP | RDRXCTL_RSC_ACK | RDRXCTL_FCOE_FIX,
        RDRXCTL_RSC_FIRST_SIZE,
    );
    let jumbo = if settings.mtu > 1500 { HLREG0_JUMBO } else { 0 };
    chip.change(HLREG0, HLREG0_TX_CRC | HLREG0_RX_CRC_STRIP | HLREG0_TX_PAD | jumbo, 0);
    // Ethernet header, FCS.
    chip.write(MAXFRS, (u32::from(settings.mtu) + 18) << 16);
    chip.write(RXCSUM, RXCSUM_HASH_IN_DESCRIPTOR);
    chip.change(RFCTL, RFCTL_NO_COALESCING, 0);
}

/// §7.1.2.8.
fn rss<M: Mmio>(chip: &Chip<M>, settings: &Settings) {
    for (i, word) in settings.rss_key.as_chunks::<4>().0.iter().enumerate() {
        chip.write(RSSRK.at(i as u32), u32::from_le_bytes(*word));
    }
    chip.write(MRQC, MRQC_RSS | MRQC_FIELDS);
}

/// §4.6.8: one traffic class with all of the buffer.
fn transmit<M: Mmio>(chip: &Chip<M>) {
    chip.change(RTTDCS, RTTDCS_ARBITER_DISABLE, 0);
    chip.write(DTXMXSZRQ, DTXMXSZRQ_MOST);
    chip.write(TXPBSIZE.at(0), TXPBSIZE_ALL);
    chip.fill(TXPBSIZE, 1, 0);
    chip.write(TXPBTHRESH.at(0), TXPBSIZE_ALL / 1024 - 10);
    chip.fill(TXPBTHRESH, 1, 0);
    chip.write(MTQC, 0);
    chip.change(RTTDCS, 0, RTTDCS_ARBITER_DISABLE);
    chip.change(DMATXCTL, DMATXCTL_ENABLE, 0);
}

/// §7.3: receive queue `i` has entry `first + i`; nothing else has one. All are masked until a core halts.
fn interrupts<M: Mmio>(chip: &Chip<M>, settings: &Settings) {
    chip.fill(IVAR, 0, 0);
    chip.write(IVAR_MISC, 0);
    chip.fill(EITR, 0, 0);
    chip.write(GPIE, GPIE_OTHER_CLEAR);
    let Some(first) = settings.first_vector else { return };
    chip.write(GPIE, GPIE_OTHER_CLEAR | GPIE_MULTIPLE);
    chip.write(EIAC, 0xffff);
    chip.fill(EIAM_EX, 0, u32::MAX);
    for queue in 0..u32::from(settings.pairs) {
        let entry = IVAR_VALID | (u32::from(first) + queue);
        chip.change(IVAR.at(queue / 2), entry << (16 * (queue % 2)), 0);
    }
    chip.write(EICR, 0xffff);
}

/// Lets frames in: the last step, when the queues are enabled (§4.6.7).
pub(crate) fn enable_receive<M: Mmio>(chip: &Chip<M>, clock: Clock<'_>) -> Result<(), InitError> {
    chip.change(SECRXCTRL, SECRXCTRL_DISABLE, 0);
    chip.wait(clock, RX_PATH_DEADLINE, SECRXSTAT, |value| value & SECRXSTAT_READY != 0)
        .map_err(|_| InitError::ReceivePathTimeout)?;
    chip.write(RXCTRL, RXCTRL_ENABLE);
    chip.change(SECRXCTRL, 0, SECRXCTRL_DISABLE);
    Ok(())
}

/// Unicast frames for others, too, or not.
pub(crate) fn set_promiscuous<M: Mmio>(chip: &Chip<M>, on: bool) {
    let (set, clear) = if on { (FCTRL_UNICAST_ALL, 0) } else { (0, FCTRL_UNICAST_ALL) };
    chip.change(FCTRL, set, clear);
}

/// Only these groups from now on, by 12 bits of their addresses (§7.1.1.1.2); others that share them come too.
pub(crate) fn set_multicast<M: Mmio>(chip: &Chip<M>, groups: &[[u8; 6]]) {
    const FILTER: u32 = 1 << 2;
    let mut table = [0_u32; 128];
    for group in groups {
        let vector = u16::from_le_bytes([group[4], group[5]]) >> 4;
        table[usize::from(vector >> 5)] |= 1 << (vector & 31);
    }
    for (i, word) in (0..).zip(table) {
        chip.write(MTA.at(i), word);
    }
    chip.write(MCSTCTRL, FILTER);
    chip.change(FCTRL, 0, FCTRL_MULTICAST_ALL);
}

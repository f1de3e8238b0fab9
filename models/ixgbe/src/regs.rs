//! The registers of the chip by name: where they are, what kind of access they have, what they are after a reset
//! (chapter 8). `data/registers.csv` is the witness: `tests/registers.rs` holds one against the other.

/// What reads and writes do (§8.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads what was written.
    Rw,
    /// Writes do nothing.
    Ro,
    /// Reads give 0.
    Wo,
    /// Read only, and a read clears it.
    Rc,
    /// Reads the state, writes do something else (clear bits, start something).
    Special,
}

/// A run of registers of one name at one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bank {
    /// Index of the first.
    pub first: u16,
    /// How many there are.
    pub count: u16,
    /// Where the first is, from the start of BAR 0.
    pub address: u32,
    /// Bytes from one to the next.
    pub stride: u32,
}

/// A register or an array of them.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// The datasheet's name.
    pub name: &'static str,
    /// What reads and writes do.
    pub access: Access,
    /// Bits that writes change.
    pub writable: u32,
    /// The value after a reset.
    pub reset: u32,
    /// Where it is; more than one place for high indices and for the 82598's addresses.
    pub banks: &'static [Bank],
}

macro_rules! or {
    ($default:expr) => {
        $default
    };
    ($default:expr, $given:expr) => {
        $given
    };
}

macro_rules! registers {
    ($( $name:ident $access:ident $(/ $mask:literal)? = $reset:literal
        { $( $address:literal $(+ $stride:literal * $count:literal)? $(@ $first:literal)? ),+ } )*) => {
        /// A register's name.
        #[allow(non_camel_case_types, clippy::upper_case_acronyms, reason = "the datasheet's names")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u16)]
        pub(crate) enum Id { $( $name ),* }

        /// All registers, by `Id`.
        pub const REGISTERS: &[Spec] = &[ $( Spec {
            name: stringify!($name),
            access: Access::$access,
            writable: or!(u32::MAX $(, $mask)?),
            reset: $reset,
            banks: &[ $( Bank {
                first: or!(0 $(, $first)?),
                count: or!(1 $(, $count)?),
                address: $address,
                stride: or!(0 $(, $stride)?),
            } ),+ ],
        } ),* ];

        /// The names by number.
        pub(crate) const IDS: &[Id] = &[ $( Id::$name ),* ];
    };
}

registers! {
    CTRL Special = 0 { 0x00000, 0x00004 }
    STATUS Ro = 0x0008_0000 { 0x00008 }
    CTRL_EXT Rw = 0 { 0x00018 }
    ESDP Special = 0 { 0x00020 }
    I2CCTL Special = 0xf { 0x00028 }
    FRTIMER Ro = 0 { 0x00048 }
    TCPTIMER Rw = 0 { 0x0004c }
    LEDCTL Rw = 0 { 0x00200 }
    CORESPARE Rw = 0 { 0x00600 }
    EXVET Rw = 0 { 0x05078 }
    EEC Special = 0 { 0x10010 }
    EERD Special = 0 { 0x10014 }
    FLA Rw = 0 { 0x1001c }
    EEMNGCTL Ro = 0x000c_0000 { 0x10110 }
    GRC Rw = 0 { 0x10200 }
    SWSM Special = 0 { 0x10140 }
    FWSM Ro = 0x8004 { 0x10148 }
    FACTPS Ro = 0 { 0x10150 }
    SW_FW_SYNC Rw = 0 { 0x10160 }
    GCR Rw = 0 { 0x11000 }
    GCR_EXT Rw = 0 { 0x11050 }
    MREVID Ro = 1 { 0x11064 }
    PBACL Rw = 0 { 0x11068 }
    DCA_ID Ro = 0 { 0x11070 }
    DCA_CTRL Rw = 1 { 0x11074 }
    CIAA Rw = 0 { 0x11088 }
    CIAD Rw = 0 { 0x1108c }

    EICR Special = 0 { 0x00800 }
    EICS Special = 0 { 0x00808 }
    EIAC Rw = 0 { 0x00810 }
    EITR Rw = 0 { 0x00820 + 4 * 24, 0x12300 + 4 * 105 @ 24 }
    EIMS Special = 0 { 0x00880 }
    EIMC Special = 0 { 0x00888 }
    EIAM Special = 0 { 0x00890 }
    EITRSEL Rw = 0 { 0x00894 }
    GPIE Rw = 0 { 0x00898 }
    IVAR Rw = 0 { 0x00900 + 4 * 64 }
    IVAR_MISC Rw = 0 { 0x00a00 }
    EICS_EX Special = 0 { 0x00a90 + 4 * 2 }
    EIMS_EX Special = 0 { 0x00aa0 + 4 * 2 }
    EIMC_EX Special = 0 { 0x00ab0 + 4 * 2 }
    EIAM_EX Special = 0 { 0x00ad0 + 4 * 2 }

    PFCTOP Rw = 0x8808 { 0x03008 }
    FCTTV Rw = 0 { 0x03200 + 4 * 4 }
    FCRTL Rw/0x8007_fff0 = 0 { 0x03220 + 4 * 8 }
    FCRTH Rw/0x8007_fff0 = 0 { 0x03260 + 4 * 8 }
    FCRTV Rw = 0 { 0x032a0 }
    FCCFG Rw = 0 { 0x03d00 }
    TFCS Ro = 1 { 0x0ce00 }

    RDBAL Rw/0xffff_ff80 = 0 { 0x01000 + 0x40 * 64, 0x0d000 + 0x40 * 64 @ 64 }
    RDBAH Rw = 0 { 0x01004 + 0x40 * 64, 0x0d004 + 0x40 * 64 @ 64 }
    RDLEN Rw/0x000f_ff80 = 0 { 0x01008 + 0x40 * 64, 0x0d008 + 0x40 * 64 @ 64 }
    DCA_RXCTRL Rw = 0xb200 { 0x0100c + 0x40 * 64, 0x0d00c + 0x40 * 64 @ 64, 0x02200 + 4 * 16 }
    RDH Special = 0 { 0x01010 + 0x40 * 64, 0x0d010 + 0x40 * 64 @ 64 }
    SRRCTL Rw = 0x402 { 0x01014 + 0x40 * 64, 0x0d014 + 0x40 * 64 @ 64, 0x02100 + 4 * 16 }
    RDT Special = 0 { 0x01018 + 0x40 * 64, 0x0d018 + 0x40 * 64 @ 64 }
    RXDCTL Special = 0 { 0x01028 + 0x40 * 64, 0x0d028 + 0x40 * 64 @ 64 }
    RSCCTL Rw = 0 { 0x0102c + 0x40 * 64, 0x0d02c + 0x40 * 64 @ 64 }
    RDRXCTL Special = 0x0010_0008 { 0x02f00 }
    RXCTRL Special = 0 { 0x03000 }
    RSCDBU Rw = 0 { 0x03028 }
    RXMEMWRAP Ro = 0x8888_8888 { 0x03190 }
    RXPBSIZE Rw/0x000f_fc00 = 0x0008_0000 { 0x03c00 + 4 * 8 }
    RTRPCS Rw = 0 { 0x02430 }
    RTRUP2TC Rw = 0 { 0x03020 }
    RTRPT4C Rw = 0 { 0x02140 + 4 * 8 }

    RXCSUM Rw = 0 { 0x05000 }
    RFCTL Rw = 0 { 0x05008 }
    FCTRL Rw/0x0000_0702 = 0 { 0x05080 }
    VLNCTRL Rw = 0x8100 { 0x05088 }
    MCSTCTRL Rw = 0 { 0x05090 }
    ETQF Rw = 0 { 0x05128 + 4 * 8 }
    VT_CTL Rw = 0 { 0x051b0 }
    PFVFRE Rw = 0 { 0x051e0 + 4 * 2 }
    MTA Rw = 0 { 0x05200 + 4 * 128 }
    VFTA Rw = 0 { 0x0a000 + 4 * 128 }
    RAL Rw = 0 { 0x0a200 + 8 * 128, 0x05400 + 8 * 16 }
    RAH Rw/0x8000_ffff = 0 { 0x0a204 + 8 * 128, 0x05404 + 8 * 16 }
    MPSAR Rw = 0 { 0x0a600 + 4 * 256 }
    PSRTYPE Rw = 0 { 0x0ea00 + 4 * 64, 0x05480 + 4 * 16 }
    SAQF Rw = 0 { 0x0e000 + 4 * 128 }
    DAQF Rw = 0 { 0x0e200 + 4 * 128 }
    SDPQF Rw = 0 { 0x0e400 + 4 * 128 }
    FTQF Rw = 0 { 0x0e600 + 4 * 128 }
    L34TIMIR Rw = 0 { 0x0e800 + 4 * 128 }
    RETA Rw = 0 { 0x0eb00 + 4 * 32, 0x05c00 + 4 * 32 }
    RSSRK Rw = 0 { 0x0eb80 + 4 * 10, 0x05c80 + 4 * 10 }
    ETQS Rw = 0 { 0x0ec00 + 4 * 8 }
    SYNQF Rw = 0 { 0x0ec30 }
    RQTC Rw = 0 { 0x0ec70 }
    MRQC Rw = 0 { 0x0ec80, 0x05818 }
    FCRETA Rw = 0 { 0x0ed10 + 4 * 8 }
    FDIRCTRL Special = 0 { 0x0ee00 }
    FDIRSIPV6 Rw = 0 { 0x0ee0c + 4 * 3 }
    FDIRIPSA Rw = 0 { 0x0ee18 }
    FDIRIPDA Rw = 0 { 0x0ee1c }
    FDIRPORT Rw = 0 { 0x0ee20 }
    FDIRVLAN Rw = 0 { 0x0ee24 }
    FDIRHASH Rw = 0 { 0x0ee28 }
    FDIRCMD Wo = 0 { 0x0ee2c }
    FDIRFREE Rw = 0 { 0x0ee38 }
    FDIRDIP4M Rw = 0 { 0x0ee3c }
    FDIRSIP4M Rw = 0 { 0x0ee40 }
    FDIRTCPM Rw = 0 { 0x0ee44 }
    FDIRUDPM Rw = 0 { 0x0ee48 }
    FDIRLEN Rc = 0 { 0x0ee4c }
    FDIRUSTAT Rc = 0 { 0x0ee50 }
    FDIRFSTAT Rc = 0 { 0x0ee54 }
    FDIRMATCH Rc = 0 { 0x0ee58 }
    FDIRMISS Rc = 0 { 0x0ee5c }
    FDIRHKEY Rw = 0 { 0x0ee68 }
    FDIRSKEY Rw = 0 { 0x0ee6c }
    FDIRM Rw = 0 { 0x0ee70 }
    PFVML2FLT Rw = 0 { 0x0f000 + 4 * 64 }
    PFVLVF Rw = 0 { 0x0f100 + 4 * 64 }
    PFVLVFB Rw = 0 { 0x0f200 + 4 * 128 }
    PFUTA Rw = 0 { 0x0f400 + 4 * 128 }

    TDBAL Rw/0xffff_ff80 = 0 { 0x06000 + 0x40 * 128 }
    TDBAH Rw = 0 { 0x06004 + 0x40 * 128 }
    TDLEN Rw/0x000f_ff80 = 0 { 0x06008 + 0x40 * 128 }
    DCA_TXCTRL Rw = 0x2a00 { 0x0600c + 0x40 * 128 }
    TDH Special = 0 { 0x06010 + 0x40 * 128 }
    TDT Special = 0 { 0x06018 + 0x40 * 128 }
    TXDCTL Special = 0 { 0x06028 + 0x40 * 128 }
    TDWBAL Rw = 0 { 0x06038 + 0x40 * 128 }
    TDWBAH Rw = 0 { 0x0603c + 0x40 * 128 }
    RTTDCS Rw = 0x00c0_0000 { 0x04900 }
    RTTDQSEL Rw = 0 { 0x04904 }
    RTTDT1C Rw = 0 { 0x04908 }
    RTTDT2C Rw = 0 { 0x04910 + 4 * 8 }
    TXPBTHRESH Rw = 0x96 { 0x04950 + 4 * 8 }
    RTTBCNRC Rw = 0 { 0x04984 }
    RTTBCNRM Rw = 0 { 0x04980 }
    DMATXCTL Special = 0x8100_0000 { 0x04a80 }
    DTXTCPFLGL Rw = 0x0ff6_0ff6 { 0x04a88 }
    DTXTCPFLGH Rw = 0xf7f { 0x04a8c }
    DTXMXSZRQ Rw/0x0000_0fff = 0x10 { 0x08100 }
    MTQC Rw = 0 { 0x08120 }
    PFVFTE Rw = 0 { 0x08110 + 4 * 2 }
    PFVFSPOOF Rw = 0 { 0x08200 + 4 * 8 }
    PFDTXGSWC Rw = 0 { 0x08220 }
    RTTUP2TC Rw = 0 { 0x0c800 }
    TIPG Rw = 0 { 0x0cb00 }
    TXPBSIZE Rw/0x000f_fc00 = 0x0002_8000 { 0x0cc00 + 4 * 8 }
    MNGTXMAP Rw = 0 { 0x0cd10 }
    RTTPCS Rw = 0 { 0x0cd00 }
    RTTPT2C Rw = 0 { 0x0cd20 + 4 * 8 }

    SECTXCTRL Rw = 1 { 0x08800 }
    SECTXSTAT Ro = 1 { 0x08804 }
    SECTXBUFFAF Rw = 0x250 { 0x08808 }
    SECTXMINIFG Rw = 0x1 { 0x08810 }
    SECRXCTRL Rw = 1 { 0x08d00 }
    SECRXSTAT Special = 0 { 0x08d04 }
    TSYNCRXCTL Rw = 0 { 0x05188 }
    TSYNCTXCTL Rw = 0 { 0x08c00 }
    SYSTIML Rw = 0 { 0x08c0c }
    SYSTIMH Rw = 0 { 0x08c10 }
    TIMINCA Rw = 0 { 0x08c14 }

    WUC Rw = 0 { 0x05800 }
    WUFC Rw = 0 { 0x05808 }
    WUS Rw = 0 { 0x05810 }
    MANC Rw = 0 { 0x05820 }

    PCS1GLCTL Rw = 0 { 0x04208 }
    PCS1GLSTA Ro = 0 { 0x0420c }
    PCS1GANA Rw = 0 { 0x04218 }
    HLREG0 Rw = 0x0801_040b { 0x04240 }
    HLREG1 Ro = 1 { 0x04244 }
    MSCA Special = 0 { 0x0425c }
    MSRWD Rw = 0 { 0x04260 }
    MAXFRS Rw/0xffff_0000 = 0x05ee_0000 { 0x04268 }
    PCSS1 Ro = 0 { 0x04288 }
    PCSS2 Ro = 0 { 0x0428c }
    XPCSS Ro = 0 { 0x04290 }
    MFLCN Rw/0x0000_000f = 0 { 0x04294 }
    MACS Ro = 0 { 0x0429c }
    AUTOC Special = 0x0000_6004 { 0x042a0 }
    LINKS Ro = 0 { 0x042a4 }
    AUTOC2 Rw = 0x0002_0000 { 0x042a8 }
    ANLP1 Ro = 0x0001_0000 { 0x042b0 }
    ANLP2 Ro = 0 { 0x042b4 }
    MACC Rw = 0 { 0x04330 }
    LINKS2 Ro = 0 { 0x04324 }
    CORECTL Rw = 0 { 0x14f00 }

    CRCERRS Rc = 0 { 0x04000 }
    ILLERRC Rc = 0 { 0x04004 }
    ERRBC Rc = 0 { 0x04008 }
    MLFC Rc = 0 { 0x04034 }
    MRFC Rc = 0 { 0x04038 }
    RLEC Rc = 0 { 0x04040 }
    LXONTXC Rc = 0 { 0x03f60 }
    LXONRXCNT Rc = 0 { 0x041a4 }
    LXOFFTXC Rc = 0 { 0x03f68 }
    LXOFFRXCNT Rc = 0 { 0x041a8 }
    PXONTXC Rc = 0 { 0x03f00 + 4 * 8 }
    PXOFFTXC Rc = 0 { 0x03f20 + 4 * 8 }
    PXON2OFFCNT Rc = 0 { 0x03240 + 4 * 8 }
    PXONRXCNT Rc = 0 { 0x04140 + 4 * 8 }
    PXOFFRXCNT Rc = 0 { 0x04160 + 4 * 8 }
    RXMPC Rc = 0 { 0x03fa0 + 4 * 8 }
    PRC64 Rc = 0 { 0x0405c }
    PRC127 Rc = 0 { 0x04060 }
    PRC255 Rc = 0 { 0x04064 }
    PRC511 Rc = 0 { 0x04068 }
    PRC1023 Rc = 0 { 0x0406c }
    PRC1522 Rc = 0 { 0x04070 }
    GPRC Rc = 0 { 0x04074 }
    BPRC Rc = 0 { 0x04078 }
    MPRC Rc = 0 { 0x0407c }
    GPTC Rc = 0 { 0x04080 }
    GORCL Rc = 0 { 0x04088 }
    GORCH Rc = 0 { 0x0408c }
    GOTCL Rc = 0 { 0x04090 }
    GOTCH Rc = 0 { 0x04094 }
    RUC Rc = 0 { 0x040a4 }
    RFC Rc = 0 { 0x040a8 }
    ROC Rc = 0 { 0x040ac }
    RJC Rc = 0 { 0x040b0 }
    MNGPRC Rc = 0 { 0x040b4 }
    MNGPDC Rc = 0 { 0x040b8 }
    MNGPTC Rc = 0 { 0x0cf90 }
    TORL Rc = 0 { 0x040c0 }
    TORH Rc = 0 { 0x040c4 }
    TPR Rc = 0 { 0x040d0 }
    TPT Rc = 0 { 0x040d4 }
    PTC64 Rc = 0 { 0x040d8 }
    PTC127 Rc = 0 { 0x040dc }
    PTC255 Rc = 0 { 0x040e0 }
    PTC511 Rc = 0 { 0x040e4 }
    PTC1023 Rc = 0 { 0x040e8 }
    PTC1522 Rc = 0 { 0x040ec }
    MPTC Rc = 0 { 0x040f0 }
    BPTC Rc = 0 { 0x040f4 }
    MSPDC Rc = 0 { 0x04010 }
    XEC Rc = 0 { 0x04120 }
    RQSMR Rw = 0 { 0x02300 + 4 * 32 }
    TQSM Rw = 0 { 0x08600 + 4 * 32 }
    QPRC Rc = 0 { 0x01030 + 0x40 * 16 }
    QBRC_L Rc = 0 { 0x01034 + 0x40 * 16 }
    QBRC_H Rc = 0 { 0x01038 + 0x40 * 16 }
    QPRDC Rc = 0 { 0x01430 + 0x40 * 16 }
    QPTC Rc = 0 { 0x06030 + 0x40 * 16, 0x08680 + 4 * 16 }
    QBTC_L Rc = 0 { 0x08700 + 8 * 16 }
    QBTC_H Rc = 0 { 0x08704 + 8 * 16 }
    FCCRC Rc = 0 { 0x05118 }
    FCOERPDC Rc = 0 { 0x0241c }
    FCLAST Rc = 0 { 0x02424 }
    FCOEPRC Rc = 0 { 0x02428 }
    FCOEDWRC Rc = 0 { 0x0242c }
    FCOEPTC Rc = 0 { 0x08784 }
    FCOEDWTC Rc = 0 { 0x08788 }
    SSVPC Rc = 0 { 0x08780 }
}

//! The registers that the driver uses (82599 datasheet §8.2.3). `tests/driver/registers.rs` holds them against the
//! datasheet's table.

/// A register, by its offset in BAR 0. Made here only, so that none is used that [`ALL`] does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reg(u32);

impl Reg {
    /// Bytes from the start of BAR 0.
    pub const fn offset(self) -> usize {
        self.0 as usize
    }
}

/// An array of registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Array {
    /// Offset of the first.
    pub address: u32,
    /// Bytes from one to the next.
    pub stride: u32,
    /// How many there are.
    pub count: u32,
}

impl Array {
    /// Register `index`, below the number of them.
    pub const fn at(self, index: u32) -> Reg {
        assert!(index < self.count, "no such register");
        Reg(self.address + index * self.stride)
    }
}

macro_rules! registers {
    ($( $name:ident = $address:literal $([ $stride:literal; $count:literal ])? ;)*) => {
        $( registers!(@one $name $address $($stride $count)?); )*

        /// All of them: name, offset, stride, count.
        pub const ALL: &[(&str, Array)] = &[ $( (
            stringify!($name),
            registers!(@array $address $($stride $count)?),
        ) ),* ];
    };
    (@one $name:ident $address:literal) => {
        pub(crate) const $name: Reg = Reg($address);
    };
    (@one $name:ident $address:literal $stride:literal $count:literal) => {
        pub(crate) const $name: Array = registers!(@array $address $stride $count);
    };
    (@array $address:literal) => {
        Array { address: $address, stride: 0, count: 1 }
    };
    (@array $address:literal $stride:literal $count:literal) => {
        Array { address: $address, stride: $stride, count: $count }
    };
}

registers! {
    CTRL = 0x00000;
    STATUS = 0x00008;
    CTRL_EXT = 0x00018;
    ESDP = 0x00020;
    I2CCTL = 0x00028;
    EEC = 0x10010;
    EERD = 0x10014;
    EEMNGCTL = 0x10110;
    SWSM = 0x10140;
    SW_FW_SYNC = 0x10160;
    GCR_EXT = 0x11050;

    GPIE = 0x00898;
    EICR = 0x00800;
    EIAC = 0x00810;
    EIMC = 0x00888;
    EIMS_EX = 0x00aa0 [4; 2];
    EIMC_EX = 0x00ab0 [4; 2];
    EIAM_EX = 0x00ad0 [4; 2];
    EITR = 0x00820 [4; 24];
    IVAR = 0x00900 [4; 64];
    IVAR_MISC = 0x00a00;

    FCTTV = 0x03200 [4; 4];
    FCRTL = 0x03220 [4; 8];
    FCRTH = 0x03260 [4; 8];
    FCRTV = 0x032a0;
    FCCFG = 0x03d00;

    FCTRL = 0x05080;
    VLNCTRL = 0x05088;
    MCSTCTRL = 0x05090;
    RXCSUM = 0x05000;
    RFCTL = 0x05008;
    MTA = 0x05200 [4; 128];
    RAL = 0x0a200 [8; 128];
    RAH = 0x0a204 [8; 128];
    MPSAR = 0x0a600 [4; 256];
    VFTA = 0x0a000 [4; 128];
    ETQF = 0x05128 [4; 8];
    FTQF = 0x0e600 [4; 128];
    SYNQF = 0x0ec30;
    MRQC = 0x0ec80;
    RETA = 0x0eb00 [4; 32];
    RSSRK = 0x0eb80 [4; 10];
    PFUTA = 0x0f400 [4; 128];
    PFVLVF = 0x0f100 [4; 64];

    RDBAL = 0x01000 [0x40; 64];
    RDBAH = 0x01004 [0x40; 64];
    RDLEN = 0x01008 [0x40; 64];
    DCA_RXCTRL = 0x0100c [0x40; 64];
    RDH = 0x01010 [0x40; 64];
    SRRCTL = 0x01014 [0x40; 64];
    RDT = 0x01018 [0x40; 64];
    RXDCTL = 0x01028 [0x40; 64];
    RDRXCTL = 0x02f00;
    RXCTRL = 0x03000;
    RXPBSIZE = 0x03c00 [4; 8];
    SECRXCTRL = 0x08d00;
    SECRXSTAT = 0x08d04;

    TDBAL = 0x06000 [0x40; 128];
    TDBAH = 0x06004 [0x40; 128];
    TDLEN = 0x06008 [0x40; 128];
    DCA_TXCTRL = 0x0600c [0x40; 128];
    TDH = 0x06010 [0x40; 128];
    TDT = 0x06018 [0x40; 128];
    TXDCTL = 0x06028 [0x40; 128];
    TDWBAL = 0x06038 [0x40; 128];
    RTTDCS = 0x04900;
    TXPBTHRESH = 0x04950 [4; 8];
    DMATXCTL = 0x04a80;
    DTXMXSZRQ = 0x08100;
    MTQC = 0x08120;
    TXPBSIZE = 0x0cc00 [4; 8];

    HLREG0 = 0x04240;
    MAXFRS = 0x04268;
    AUTOC = 0x042a0;
    LINKS = 0x042a4;
    AUTOC2 = 0x042a8;
    MFLCN = 0x04294;

    CRCERRS = 0x04000;
    ILLERRC = 0x04004;
    MLFC = 0x04034;
    MRFC = 0x04038;
    RLEC = 0x04040;
    LXONTXC = 0x03f60;
    LXOFFTXC = 0x03f68;
    LXONRXCNT = 0x041a4;
    LXOFFRXCNT = 0x041a8;
    RXMPC = 0x03fa0 [4; 8];
    GPRC = 0x04074;
    BPRC = 0x04078;
    MPRC = 0x0407c;
    GPTC = 0x04080;
    GORCL = 0x04088;
    GORCH = 0x0408c;
    GOTCL = 0x04090;
    GOTCH = 0x04094;
    RUC = 0x040a4;
    ROC = 0x040ac;
    TPR = 0x040d0;
    QPRDC = 0x01430 [0x40; 16];
    RQSMR = 0x02300 [4; 32];
}

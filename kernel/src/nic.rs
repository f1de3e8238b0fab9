//! A network card's queues and control part, whichever driver they are of: who holds one need not know. Each call is a branch
//! that always goes the same way. A new driver is a line here, and an arm each in `net.rs`: `driver` and `open`.
use crate::loopback;
use crate::pci::registers::Registers;

ix_dataplane::nics! {
    Virtio(ix_virtio_net::Port<Registers>),
    Ixgbe(ix_ixgbe::Port<Registers>),
    Loopback(ix_loopback::Port<loopback::Machine>),
}

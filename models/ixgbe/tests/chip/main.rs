//! The model by its registers, as a driver sees it, in what this project's own driver does not use: legacy descriptors,
//! segmentation, VLAN tags, moderation, the module's EEPROM, loopback.
mod general;
mod interrupts;
mod pause;
mod receive;
mod rig;
mod rsc;
mod sfp;
mod transmit;

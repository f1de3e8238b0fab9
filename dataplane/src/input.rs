//! What arrives: Ethernet, ARP, IPv4, ICMP, and the way to TCP and UDP.
pub mod arp;
pub mod eth;
pub mod fragments;
pub mod icmp;
pub mod icmp_error;
pub mod ipv4;
pub mod transport;

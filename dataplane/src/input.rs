//! What arrives: Ethernet, ARP, IPv4 and IPv6 with their ICMP, neighbour discovery, and the way to TCP
//! and UDP.
pub mod arp;
pub mod chain;
pub mod eth;
pub mod fragments;
pub mod fragments_v6;
pub mod icmp;
pub mod icmp_error;
pub mod icmpv6;
pub mod ipv4;
pub mod ipv6;
pub mod nd;
pub mod reassembly;
pub mod transport;

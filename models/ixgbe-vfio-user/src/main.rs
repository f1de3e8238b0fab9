//! `ixgbe-vfio-user`: an Intel 82599 for QEMU, played by a program.
//!
//! ```text
//! ixgbe-vfio-user --socket nic.sock --wire listen=wire.sock &
//! qemu-system-x86_64 … -machine q35,memory-backend=ram -object memory-backend-memfd,id=ram,size=1G,share=on \
//!     -netdev stream,id=wire,server=off,addr.type=unix,addr.path=wire.sock … \
//!     -device '{"driver":"vfio-user-pci","socket":{"type":"unix","path":"nic.sock"}}'
//! ```
#![deny(unsafe_code)]

use anyhow::{Result, ensure};
use clap::Parser;
use ix_model_ixgbe::{Chip, Faults, Options};
use ixgbe_vfio_user::Device;
use ixgbe_vfio_user::config::Config;
use ixgbe_vfio_user::device::Traced;
use ixgbe_vfio_user::run::{self, Requests};
use ixgbe_vfio_user::server::Server;
use ixgbe_vfio_user::wire::{Place, Wire};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// An Intel 82599 for QEMU 10.1 and later, over vfio-user: serves one QEMU, and ends with it. SIGUSR1 makes the chip hang: it
/// sends nothing until the guest resets it
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// Unix socket where QEMU finds the device
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// The cable: none, stream=PATH (a peer listens there), listen=PATH (a peer comes there), both with QEMU's framing,
    /// dgram=PATH,PATH (ours, the peer's) or tap=INTERFACE
    #[arg(long, default_value = "none")]
    wire: Place,
    /// Address of the card
    #[arg(long, value_parser = mac, default_value = "02:82:59:90:00:01")]
    mac: Mac,
    /// Seconds to wait for QEMU
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    patience: u64,
    /// Something that is wrong with the card, for whoever tests what a driver makes of it; may be repeated
    #[arg(long, value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(Faults::NAMES))]
    fault: Vec<String>,
    /// Tells each access to a register on standard error
    #[arg(long)]
    trace: bool,
}

type Mac = [u8; 6];

fn mac(text: &str) -> Result<Mac, String> {
    const WANTED: &str = "an address like 02:82:59:90:00:01 is wanted";
    let bytes: Result<Vec<u8>, _> = text.split(':').map(|b| u8::from_str_radix(b, 16)).collect();
    let mac: Mac = bytes.ok().and_then(|b| b.try_into().ok()).ok_or(WANTED)?;
    if mac[0] & 1 == 1 {
        Err("an address of a group cannot be a card's".to_owned())
    } else {
        Ok(mac)
    }
}

fn main() -> ExitCode {
    match serve(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ixgbe-vfio-user: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(cli: &Cli) -> Result<()> {
    // Before anybody can have found the program: the signal would end it.
    let requests = Requests::open()?;
    let wire = Wire::open(&cli.wire)?;
    let mut faults = Faults::default();
    for name in &cli.fault {
        ensure!(faults.add(name), "there is no fault {name}");
    }
    let options = Options { mac: cli.mac, faults, ..Options::default() };
    let config = Config::new(options.device_id, cli.mac);
    let chip = Chip::new(options);
    match cli.trace {
        false => attend(cli, Server::new(chip, config), wire, &requests),
        true => attend(cli, Server::new(Traced(chip), config), wire, &requests),
    }
}

/// From the wait for QEMU to its end.
fn attend<D: Device>(
    cli: &Cli,
    mut server: Server<D>,
    mut wire: Wire,
    requests: &Requests,
) -> Result<()> {
    let listener = run::listen(&cli.socket)?;
    let mut client = run::accept(&listener, &cli.socket, Duration::from_secs(cli.patience))?;
    let outcome = run::serve(&mut server, &mut client, &mut wire, requests);
    let counts = wire.counts;
    println!(
        "ixgbe-vfio-user: {} frames sent, {} received; {} lost to a slow peer, {} to none, {} odd; {} requests \
         and {} DMA accesses refused",
        counts.sent,
        counts.received,
        counts.full,
        counts.nobody,
        counts.odd,
        server.complaints.count(),
        server.outside()
    );
    outcome
}

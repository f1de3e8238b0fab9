//! `ixcp run`: looks at what is asked for and at what is there, and starts the machine; `session` stays with it.
mod ports;
mod session;

use crate::acl;
use crate::cli::{Control, Nic, Run};
use crate::control::print;
use crate::instance::{self, Base};
use crate::net::{self, Address, Backend, Claimed, Forward, Protocol};
use crate::nic::{self, Player};
use crate::qemu::{self, Accelerator, Boot, Card, Machine};
use crate::vfio::{self, Host};
use anyhow::{Context, Result, bail, ensure};
use ix_kernel_core::archive::{self, Archive};
use ix_kernel_core::cmdline::NICTEST;
use session::Session;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};

/// The member of the boot archive that holds the firewall's rules.
const RULES: &str = "acl";

/// Runs a dataplane until it ends; gives the exit code.
pub fn run(options: &Run) -> Result<u8> {
    let images = find_images(options.images.as_deref())?;
    check_app(&images, &options.app)?;
    let name = options.name.clone().unwrap_or_else(|| options.app.clone());
    instance::check_name(&name)?;
    let player = Player::find(options)?;
    let qemu = match player {
        None => qemu::find(options.qemu.as_deref(), std::env::var_os("PATH"))?,
        Some(_) => nic::find_qemu(options, &images)?,
    };
    let queues = check_network(options)?;
    let host = Host::from_env();
    if let Some(bdf) = options.vfio {
        ask_for_address(options)?;
        let passed = vfio::check(&host, bdf, options.memory)?;
        passed.told.iter().for_each(|line| eprintln!("ixcp: {line}"));
    }
    let accel = accelerator(options, &host)?;
    let base = Base::from_env()?;
    if !options.dry_run {
        // Before the ports: those of a second one of that name would be the first one's.
        base.ensure_free(&name)?;
    }
    let (forwards, _held) = forwards(options)?;
    let rules = options.acl.as_deref().map(acl::compile).transpose()?;
    // Asked only where it matters: it starts QEMU once more.
    let rss = queues > 1 && player.is_none() && qemu::has_good_rss(&qemu);
    let machine = |dir: &Path| -> Result<Machine> {
        Ok(Machine {
            qemu: qemu.clone(),
            kernel: images.join("kernel"),
            archive: match options.acl {
                Some(_) => dir.join("initrd"),
                None => images.join("initrd"),
            },
            cores: options.cores,
            memory_mib: options.memory,
            accel,
            net: options.net.clone(),
            card: match (options.vfio, &player) {
                (Some(bdf), _) => Card::Vfio(bdf),
                (None, Some(_)) => Player::card(dir),
                (None, None) if options.nic == Nic::Loopback => Card::Loopback,
                (None, None) => Card::Virtio,
            },
            queues,
            rss,
            iommu: options.iommu,
            forwards: forwards.clone(),
            address: options.address(),
            address6: options.ip6,
            append: boot_line(options)?,
            control: dir.join("control"),
            control_by: options.control,
            serial: dir.join("serial.log"),
            extra: options.qemu_arg.clone(),
        })
    };
    if options.dry_run {
        let dir = base.directory(&name);
        if let Some(player) = &player {
            print(&format!("{} &\n", player.shell(&dir)));
        }
        print(&format!("{}\n", machine(&dir)?.shell()));
        return Ok(0);
    }
    let claim = base.claim(&name)?;
    if claim.cleaned {
        eprintln!("ixcp: cleaned up after an earlier {name} that did not end in order");
    }
    if options.vfio.is_some()
        && options.control == Control::Shared
        && let Err(error) = vfio::check_control(claim.instance.dir())
    {
        claim.remove();
        return Err(error);
    }
    let machine = machine(claim.instance.dir())?;
    if let Some((_, rules, _)) = rules {
        add_rules(&images.join("initrd"), &rules, &machine.archive)?;
    }
    Session::start(claim, &machine, player.as_ref(), options)?.stay()
}

/// The images' directory: as given, `$IX_IMAGES`, or `build/images` here or beside this program.
fn find_images(given: Option<&Path>) -> Result<PathBuf> {
    let complete = |dir: &Path| dir.join("kernel").is_file() && dir.join("initrd").is_file();
    const HINT: &str = "build them: cargo xtask image";
    if let Some(dir) = given.map(PathBuf::from).or(std::env::var_os("IX_IMAGES").map(Into::into)) {
        ensure!(complete(&dir), "{} has no kernel and initrd; {HINT}", dir.display());
        return Ok(dir.canonicalize()?);
    }
    let mut places = vec![PathBuf::from("build/images")];
    if let Ok(exe) = std::env::current_exe() {
        // target/release/ixcp → the workspace
        places.extend(exe.ancestors().nth(3).map(|root| root.join("build/images")));
    }
    match places.iter().find(|dir| complete(dir)) {
        Some(dir) => Ok(dir.canonicalize()?),
        None => {
            bail!("no images found (looked for build/images); {HINT}, or name them: --images DIR")
        }
    }
}

/// `cargo xtask image` leaves a list of the applications beside the images.
fn check_app(images: &Path, app: &str) -> Result<()> {
    instance::check_name(app).with_context(|| format!("{app:?} cannot be an application"))?;
    let Ok(list) = std::fs::read_to_string(images.join("apps")) else { return Ok(()) };
    let known = list.lines().any(|line| line == app);
    ensure!(
        known,
        "no application {app} in the images; there are: {} (`cargo xtask image` builds whatever is in apps/ into them)",
        list.lines().collect::<Vec<_>>().join(", ")
    );
    Ok(())
}

/// As asked for; with a card of this machine KVM, if it works. That it does not is said.
fn accelerator(options: &Run, host: &Host) -> Result<Accelerator> {
    match (options.accel, options.vfio) {
        (Some(Accelerator::Kvm), _) => match vfio::kvm_trouble(host) {
            Some(why) => bail!("--accel kvm: {why}; --accel tcg works anywhere"),
            None => Ok(Accelerator::Kvm),
        },
        (Some(given), _) => Ok(given),
        (None, None) => Ok(Accelerator::Tcg),
        (None, Some(_)) => match vfio::kvm_trouble(host) {
            Some(why) => {
                eprintln!(
                    "ixcp: WITHOUT KVM, so instructions are translated, and nothing that is measured says anything about the \
                     card: {why}"
                );
                Ok(Accelerator::Tcg)
            }
            None => Ok(Accelerator::Kvm),
        },
    }
}

/// A card of this machine is in a network that nobody here knows.
fn ask_for_address(options: &Run) -> Result<()> {
    if options.app == NICTEST && options.ip.is_none() {
        // What it sends goes to itself.
        return Ok(());
    }
    ensure!(
        options.ip.is_some(),
        "with --vfio the guest is in the network of the card, not in QEMU's, and needs an address of it: --ip A.B.C.D/LENGTH and \
         --gw A.B.C.D (the network's router), or --ip dhcp"
    );
    if matches!(options.ip, Some(Address::Static { .. })) && options.gw.is_none() {
        eprintln!("ixcp: without --gw the guest reaches its own network only");
    }
    Ok(())
}

/// QEMU's user network has its own addresses, and only in them anything answers.
fn check_user_network(options: &Run) -> Result<()> {
    let Some(Address::Static { ip, prefix }) = options.ip else { return Ok(()) };
    let network = |ip: Ipv4Addr, prefix| u32::from(ip) & u32::MAX << (32 - u32::from(prefix));
    let is_in = network(ip, 24) == network(net::USER_HOST, 24);
    let reaches = network(ip, prefix) == network(net::USER_HOST, prefix);
    // The first ones are QEMU's: itself, its name server, its file server.
    let is_free = (5..=254).contains(&ip.octets()[3]);
    ensure!(
        is_in && reaches && is_free,
        "--ip {ip}/{prefix}: nothing would reach it in QEMU's user network, whose guests have addresses from 10.0.2.5 to 10.0.2.254, as \
         in {}: leave --ip away, or choose another network (--net tap=INTERFACE, --net stream=PATH)",
        Address::USUAL
    );
    Ok(())
}

/// Checks that the back end is there; gives the number of queue pairs it offers.
fn check_network(options: &Run) -> Result<u32> {
    if options.nic == Nic::Loopback {
        ensure!(
            options.net == Backend::User && options.forward.is_empty(),
            "--nic loopback has no wire: nothing outside reaches the guest, so --net and --forward say nothing"
        );
    }
    ensure!(
        options.net == Backend::User || options.forward.is_empty(),
        "--forward needs --net user: with --net {} the guest is reached at its own address",
        options.net
    );
    match &options.net {
        Backend::User if options.vfio.is_none() && options.nic != Nic::Loopback => {
            check_user_network(options).map(|()| 1)
        }
        Backend::User => Ok(1),
        _ if options.dry_run => Ok(1),
        Backend::Stream(path) => net::check_stream(path).map(|()| 1),
        Backend::Tap(name) => {
            let tap = net::find_tap(Path::new("/sys"), name)?;
            Ok(if tap.multi_queue { options.cores } else { 1 })
        }
    }
}

/// The ports to forward: as given, else the application's usual one.
fn forwards(options: &Run) -> Result<(Vec<Forward>, Vec<Claimed>)> {
    let outside = options.vfio.is_some() || options.nic == Nic::Loopback;
    if options.net != Backend::User || outside {
        return Ok((Vec::new(), Vec::new()));
    }
    let mut wanted = options.forward.clone();
    if wanted.is_empty() {
        let usual = usual_ports(&options.app).iter();
        wanted.extend(usual.map(|&(host, guest, protocol)| Forward {
            host: SocketAddrV4::new(Ipv4Addr::LOCALHOST, host),
            guest,
            protocol,
        }));
    }
    if options.dry_run {
        return Ok((wanted, Vec::new()));
    }
    let claimed = wanted.into_iter().map(Forward::claim).collect::<Result<Vec<_>>>()?;
    Ok((claimed.iter().map(|claimed| claimed.forward).collect(), claimed))
}

/// Host port, guest port, protocol. Ports below 1024 need rights, so echo's is moved.
fn usual_ports(app: &str) -> &'static [(u16, u16, Protocol)] {
    match app {
        "kv" => &[(11211, 11211, Protocol::Tcp)],
        "echo" => &[(7007, 7, Protocol::Tcp), (7007, 7, Protocol::Udp)],
        _ => &[],
    }
}

/// Writes the archive anew, with the firewall's rules in it.
fn add_rules(from: &Path, rules: &[u8], to: &Path) -> Result<()> {
    let bytes = std::fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    let archive = Archive::parse(&bytes).map_err(|e| {
        anyhow::anyhow!("{}: {e}; build it anew: cargo xtask image", from.display())
    })?;
    let mut members: Vec<(&str, &[u8])> = archive.members().filter(|m| m.0 != RULES).collect();
    members.push((RULES, rules));
    let packed = archive::build(&members).map_err(|e| anyhow::anyhow!("cannot add rules: {e}"))?;
    std::fs::write(to, packed).with_context(|| format!("cannot write {}", to.display()))
}

fn boot_line(options: &Run) -> Result<String> {
    let looped = options.nic == Nic::Loopback;
    let usual = options.vfio.is_none() && !looped && options.address() == Address::USUAL;
    let gateway = usual.then_some(net::USER_HOST);
    let verbose = options.verbose.then_some("verbose");
    let mtu = options.mtu.map(|mtu| format!("mtu={mtu}"));
    let vlan = options.vlan.map(|vlan| format!("vlan={vlan}"));
    let iommu = options.iommu.then_some("iommu=on");
    let nic = looped.then_some("nic=loopback");
    let words = [nic, verbose, mtu.as_deref(), vlan.as_deref(), iommu, options.append.as_deref()];
    let extra = words.into_iter().flatten().collect::<Vec<_>>().join(" ");
    let boot = Boot {
        app: &options.app,
        cores: options.cores,
        address: options.address(),
        gateway: options.gw.or(gateway),
        address6: options.ip6,
        gateway6: options.gw6,
        idle: options.idle.map(|i| i.word()),
        batch: options.batch,
        acl: options.acl.as_ref().map(|_| RULES),
        extra: Some(extra.as_str()).filter(|extra| !extra.is_empty()),
        args: &options.args,
    };
    boot.line()
}

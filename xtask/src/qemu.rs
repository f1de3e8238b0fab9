//! Another QEMU of the distribution, unpacked into `build/qemu-VERSION` or `build/qemu-vfio-user` beside the
//! installed one: apt with a state of its own resolves and fetches, dpkg unpacks. Neither needs root.
use crate::packages::codename;
use crate::workspace::{self, build_dir, output, run};
use anyhow::{Context, Result, bail, ensure};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The first release whose backports have a QEMU with vfio-user (10.1). The version there moves on.
const VFIO_USER_SUITE: &str = "trixie";

/// Fetches a version of the distribution's backports unless it is there; gives the program to start.
pub fn fetch(version: u32) -> Result<PathBuf> {
    let dir = build_dir().join(format!("qemu-{version}"));
    let what = format!("QEMU {version}");
    fetch_into(&dir, &what, &codename()?, |program| reports(program, version))
}

/// Finds or fetches one that takes devices of other processes over vfio-user; gives the program to start.
pub fn fetch_vfio_user() -> Result<PathBuf> {
    if let Some(installed) = workspace::find("qemu-system-x86_64")
        && has_vfio_user(&installed)
    {
        return Ok(installed);
    }
    let dir = build_dir().join("qemu-vfio-user");
    fetch_into(&dir, "a QEMU with vfio-user", VFIO_USER_SUITE, has_vfio_user)
}

/// Of a release and its backports, unless what is there already is good.
fn fetch_into(
    dir: &Path,
    what: &str,
    release: &str,
    good: impl Fn(&Path) -> bool,
) -> Result<PathBuf> {
    let program = dir.join("qemu-system-x86_64");
    if good(&program) {
        return Ok(program);
    }
    eprintln!("xtask: fetching {what} from the backports of {release} into {}", dir.display());
    let _ = std::fs::remove_dir_all(dir);
    let suite = format!("{release}-backports");
    unpack(dir, &[release, &suite], &["-t", &suite, "qemu-system-x86", "seabios"])?;
    write_wrapper(dir, &program)?;
    ensure!(good(&program), "the backports of {release} do not have {what}");
    Ok(program)
}

fn reports(program: &Path, version: u32) -> bool {
    let Ok(text) = output(Command::new(program).arg("--version")) else { return false };
    text.contains(&format!("version {version}."))
}

/// Asked for one device: the list of all of them loads modules, of which those of an installed QEMU do not fit.
fn has_vfio_user(program: &Path) -> bool {
    let help = output(Command::new(program).args(["-device", "vfio-user-pci,help"]));
    help.is_ok_and(|text| text.starts_with("vfio-user-pci options"))
}

/// Fetches packages of these suites, with all that they need, and unpacks them into `dir/root`.
pub fn unpack(dir: &Path, suites: &[&str], packages: &[&str]) -> Result<()> {
    let config = prepare(dir, suites)?;
    run(&mut apt(&config, &[&["install", "--download-only"], packages].concat()))?;
    unpack_all(dir)?;
    Ok(std::fs::remove_dir_all(dir.join("apt"))?)
}

/// Fetches of a package that only names the newest of its kind that one, without what it needs itself, and
/// unpacks it into `dir/root`.
pub fn unpack_newest(dir: &Path, suites: &[&str], package: &str) -> Result<()> {
    let config = prepare(dir, suites)?;
    let depends = ["depends", "--no-recommends", "--no-suggests", package];
    let text = output(Command::new("apt-cache").env("APT_CONFIG", &config).args(depends))?;
    let newest = text.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    let newest = newest.with_context(|| format!("{package} names no other package"))?;
    let archives = dir.join("apt/cache/archives");
    run(apt(&config, &["download", newest.trim()]).current_dir(archives))?;
    unpack_all(dir)?;
    Ok(std::fs::remove_dir_all(dir.join("apt"))?)
}

/// Makes the directories and fetches the lists of packages; gives apt's configuration.
fn prepare(dir: &Path, suites: &[&str]) -> Result<PathBuf> {
    for sub in ["apt/lists/partial", "apt/cache/archives/partial", "root"] {
        std::fs::create_dir_all(dir.join(sub))?;
    }
    let config = configure(dir, suites)?;
    run(&mut apt(&config, &["update"]))?;
    Ok(config)
}

fn apt(config: &Path, words: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.env("APT_CONFIG", config).args(["-q", "-y"]).args(words);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// An apt configuration that touches nothing of the system's: all packages count as missing.
fn configure(dir: &Path, suites: &[&str]) -> Result<PathBuf> {
    let uri = repository(&codename()?)?;
    let apt = dir.join("apt");
    let signed =
        if Path::new(KEYRING).exists() { format!("[signed-by={KEYRING}] ") } else { String::new() };
    let sources: String = suites.iter().map(|s| format!("deb {signed}{uri} {s} main\n")).collect();
    std::fs::write(apt.join("sources.list"), sources)?;
    std::fs::write(apt.join("status"), "")?;
    let config = apt.join("apt.conf");
    std::fs::write(
        &config,
        format!(
            "Dir::State \"{0}\";\nDir::State::status \"{0}/status\";\nDir::State::lists \"{0}/lists\";\n\
             Dir::Cache \"{0}/cache\";\nDir::Etc::sourcelist \"{0}/sources.list\";\n\
             Dir::Etc::sourceparts \"/dev/null\";\nDir::Etc::preferences \"/dev/null\";\n\
             Dir::Etc::preferencesparts \"/dev/null\";\nAPT::Install-Recommends \"false\";\n\
             Acquire::Languages \"none\";\nAPT::Sandbox::User \"\";\n",
            apt.display()
        ),
    )?;
    Ok(config)
}

/// The repository that the system itself uses for its release.
fn repository(codename: &str) -> Result<String> {
    let format = "$(CODENAME) $(REPO_URI)";
    let targets = output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        format,
        "Created-By: Packages",
    ]))?;
    for line in targets.lines() {
        if let Some((name, uri)) = line.split_once(' ')
            && name == codename
        {
            return Ok(uri.to_owned());
        }
    }
    bail!("apt has no package lists of {codename}: run apt-get update as root first")
}

fn unpack_all(dir: &Path) -> Result<()> {
    let archives = dir.join("apt/cache/archives");
    let root = dir.join("root");
    let mut count = 0;
    for entry in std::fs::read_dir(&archives).context("apt fetched nothing")? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "deb") {
            run(Command::new("dpkg").arg("-x").arg(&path).arg(&root))?;
            count += 1;
        }
    }
    ensure!(count > 0, "apt fetched no packages");
    Ok(())
}

/// The program needs its own libraries and firmware: a script that starts it so, in its own place.
fn write_wrapper(dir: &Path, program: &Path) -> Result<()> {
    let root = dir.join("root").canonicalize()?;
    // Releases since trixie have it where the system's own directories were merged into.
    let loader = ["lib64", "usr/lib64"].map(|sub| root.join(sub).join("ld-linux-x86-64.so.2"));
    let loader = loader.iter().find(|path| path.is_file());
    let loader = loader.context("the packages have no dynamic loader")?;
    let script = format!(
        "#!/bin/sh\n# Made by `cargo xtask qemu`: the unpacked QEMU with its own libraries and firmware.\n\
         R='{}'\nL=$R/usr/lib/x86_64-linux-gnu\nexport QEMU_MODULE_DIR=$L/qemu\n\
         exec '{}' --library-path \"$L:$R/lib/x86_64-linux-gnu\" \
         \"$R/usr/bin/qemu-system-x86_64\" -L \"$R/usr/share/qemu\" -L \"$R/usr/share/seabios\" \
         -L \"$R/usr/lib/ipxe/qemu\" \"$@\"\n",
        root.display(),
        loader.display()
    );
    std::fs::write(program, script)?;
    std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}

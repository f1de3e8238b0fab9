//! `cargo xtask iso`: an image for real machines (and for QEMU), that GRUB starts from on BIOS and on
//! UEFI, from a disc or from a USB stick.
use crate::image;
use crate::packages::{self, Package};
use crate::workspace::build_dir;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// What the image does.
#[derive(Debug, Args)]
pub struct Options {
    /// The application of the first menu entry
    #[arg(long, default_value = "kv")]
    pub app: String,
    /// Words for the kernel's command line, in every entry (`cores=2 ip=192.0.2.7/24`)
    #[arg(long, default_value = "")]
    pub append: String,
    /// Seconds that the menu waits
    #[arg(long, default_value_t = 5)]
    pub timeout: u32,
    /// Where to write it; build/images/ix.iso without this
    #[arg(long)]
    pub output: Option<PathBuf>,
    /// Takes kernel and applications as they were built last
    #[arg(long)]
    pub no_build: bool,
    /// Arguments for the application of the first entry
    #[arg(last = true)]
    pub args: Vec<String>,
}

impl Options {
    /// What the tests boot: the defaults, with the images as they are.
    pub fn plain() -> Options {
        Options {
            app: "kv".to_owned(),
            append: String::new(),
            timeout: 5,
            output: None,
            no_build: true,
            args: Vec::new(),
        }
    }
}

/// Everything that GRUB's image maker needs.
pub const PACKAGES: [Package; 5] =
    [Package::GRUB, Package::GRUB_BIOS, Package::GRUB_EFI, Package::XORRISO, Package::MTOOLS];

/// Builds the image; gives its path.
pub fn build(options: &Options) -> Result<PathBuf> {
    packages::install(&PACKAGES, true)?;
    if !options.no_build {
        image::build()?;
    }
    let images = build_dir().join("images");
    let config = menu(options)?;
    let tree = build_dir().join(format!("iso-{}", std::process::id()));
    let made = (|| {
        let boot = tree.join("boot/grub");
        std::fs::create_dir_all(&boot)
            .with_context(|| format!("cannot make {}", boot.display()))?;
        for name in ["kernel", "initrd"] {
            let from = images.join(name);
            std::fs::copy(&from, tree.join("boot").join(name))
                .with_context(|| format!("cannot copy {}: cargo xtask image", from.display()))?;
        }
        std::fs::write(boot.join("grub.cfg"), config)?;
        let iso = options.output.clone().unwrap_or_else(|| images.join("ix.iso"));
        let fresh = iso.with_extension(format!("iso-{}", std::process::id()));
        let output = Command::new("grub-mkrescue")
            .args(["--compress=xz", "--locales=", "--themes=", "--fonts=", "-o"])
            .arg(&fresh)
            .arg(&tree)
            .stdin(Stdio::null())
            .output()
            .context("cannot start grub-mkrescue")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() && fresh.is_file(), "grub-mkrescue failed: {said}");
        std::fs::rename(&fresh, &iso).with_context(|| format!("cannot write {}", iso.display()))?;
        Ok(iso)
    })();
    let _ = std::fs::remove_dir_all(&tree);
    made
}

/// One entry: key, title, the kernel's words.
struct Entry {
    key: char,
    title: String,
    words: String,
    graphics: bool,
}

fn menu(options: &Options) -> Result<String> {
    let args = options.args.join(" ");
    let all = [&options.app, &options.append, &args];
    if let Some(odd) =
        all.iter().find(|w| w.chars().any(|c| c.is_control() || "'\"\\$;{}|&<>#".contains(c)))
    {
        bail!("{odd:?} has a character that the boot menu cannot hold");
    }
    let args = if args.is_empty() { args } else { format!(" -- {args}") };
    let app = &options.app;
    let entry = |key, title: &str, words: String, graphics| Entry {
        key,
        title: format!("IX: {title}"),
        words: format!("{words} {}", options.append).trim().to_owned(),
        graphics,
    };
    let mut first = entry('k', app, format!("app={app}"), false);
    first.words += &args;
    let mut shown =
        entry('g', &format!("{app}, console on a framebuffer"), format!("app={app}"), true);
    shown.words += &args;
    let mut verbose =
        entry('v', &format!("{app}, verbose"), format!("app={app} log=debug report=1"), false);
    verbose.words += &args;
    let entries = [
        first,
        entry('e', "echo", "app=echo".to_owned(), false),
        verbose,
        shown,
        entry(
            'r',
            "report what this machine is, then stop",
            "selftest=report report=1".to_owned(),
            false,
        ),
        entry(
            'n',
            "test the network card, then stop",
            format!("app={} report=1", ix_kernel_core::cmdline::NICTEST),
            false,
        ),
        entry('t', "test memory, then stop", "selftest=placement report=1".to_owned(), false),
    ];
    let mut text = format!(
        "# Made by `cargo xtask iso`.\n\
         set timeout={}\nset default=0\n\
         # A machine without COM1 goes on without.\n\
         if serial --unit=0 --speed=115200; then\n  \
           terminal_input console serial\n  terminal_output console serial\n\
         fi\n\
         insmod all_video\n",
        options.timeout
    );
    for e in entries {
        // GRUB on a BIOS would give a framebuffer, since the kernel takes one: text is as good there.
        let payload = if e.graphics {
            String::new()
        } else {
            "  if [ $grub_platform = pc ]; then set gfxpayload=text; fi\n".to_owned()
        };
        text += &format!(
            "menuentry '{} ({})' --hotkey={} {{\n  multiboot2 /boot/kernel {}\n  \
             module2 /boot/initrd initrd\n{payload}}}\n",
            e.title, e.key, e.key, e.words
        );
    }
    Ok(text)
}

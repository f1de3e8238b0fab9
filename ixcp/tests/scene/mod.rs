//! A directory with a dataplane of one core, of which there is the page alone.
use ix_abi::control::{MAGIC, header};
use ixcp::instance::{Base, Claim};
use ixcp::page::Page;
use std::process::Command;

/// It lives as long as this.
#[allow(dead_code, reason = "each test program has its own part of it")]
pub struct Scene {
    pub dir: temp_dir::TempDir,
    pub page: Page,
    _claim: Claim,
}

impl Scene {
    pub fn new() -> Scene {
        let dir = temp_dir::TempDir::new().unwrap();
        let claim = Base::at(dir.path().join("run")).unwrap().claim("kv").unwrap();
        let page = Page::create(&claim.instance.control()).unwrap();
        let version = ix_abi::VERSION;
        page.store(header::VERSION, u64::from(version.major) | u64::from(version.minor) << 16);
        page.store(header::CORES, 1);
        page.store_release(header::MAGIC, MAGIC);
        Scene { dir, page, _claim: claim }
    }

    /// `ixcp`, which finds it.
    pub fn ixcp(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ixcp"));
        command.env("IX_RUNTIME_DIR", self.dir.path().join("run"));
        command
    }
}

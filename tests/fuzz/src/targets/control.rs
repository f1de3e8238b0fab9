//! ixcp against a control page that a broken kernel has written.
use crate::input::Input;
use ix_abi::VERSION;
use ix_abi::control::{self, CommandCode, header, outcome};
use ixcp::command::Writer;
use ixcp::page::Page;
use ixcp::{render, serial, snapshot};
use std::path::PathBuf;
use std::time::Duration;
use temp_dir::TempDir;

struct Scene {
    page: Page,
    lock: PathBuf,
    _dir: TempDir,
}

fn scene() -> Scene {
    let dir = TempDir::new().expect("a directory");
    let page = Page::create(&dir.path().join("control")).expect("a page");
    let lock = dir.path().join("lock");
    Scene { page, lock, _dir: dir }
}

/// Any words in the page: what ixcp reads is bounded and can be shown, commands end.
pub fn page(bytes: &[u8]) {
    thread_local! {
        static SCENE: Scene = scene();
    }
    SCENE.with(|scene| {
        let page = &scene.page;
        for at in (0..control::CORE_BASE + 2 * control::CORE_STRIDE).step_by(8) {
            page.store(at, 0);
        }
        page.store(header::VERSION, u64::from(VERSION.major) | u64::from(VERSION.minor) << 16);
        page.store(header::CORES, 2);
        page.store(header::MAGIC, control::MAGIC);
        let mut input = Input::new(bytes);
        while !input.is_empty() {
            let at = usize::from(input.u16()) % (control::CORE_BASE / 8 + 512) * 8;
            let value = match input.below(4) {
                0 => input.u64(),
                1 => u64::from(input.u8()),
                2 => u64::MAX - u64::from(input.u8()),
                _ => u64::from(input.u16()) << input.below(49),
            };
            page.store(at, value);
        }
        match snapshot::read(page) {
            Ok(snapshot) => {
                assert!(snapshot.cores.len() <= ix_abi::limits::CORES_MAX);
                let text = render::status("fuzz", &snapshot);
                assert!(text.chars().all(|c| !c.is_control() || c == '\n'), "{text:?}");
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        let writer = Writer::lock(&scene.lock, Duration::ZERO).expect("nobody else has it");
        let value = page.load(outcome::SEQUENCE);
        let _outcome = writer.send(page, CommandCode::Nop, [1, 2, 3, value], Duration::ZERO);
    });
}

/// The guest's serial log: nothing that a terminal would obey.
pub fn serial(bytes: &[u8]) {
    let text = serial::printable(bytes);
    assert!(text.chars().all(|c| !c.is_control() || c == '\t'), "{text:?}");
}

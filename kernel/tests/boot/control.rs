//! The control page, from the side of `ixcp`: a file that QEMU shares with the machine.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ix_abi::control::{self, command, core_block, core_offset, header, outcome};
use ix_abi::control::{CommandCode, GiveRefusal, State};
use ix_abi::status::Status;

use crate::vm::{APP, OK, Vm, scratch};

struct Page(File, PathBuf);

impl Page {
    fn new(name: &str) -> Self {
        let path = scratch(name);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        file.set_len(control::PAGE_BYTES as u64).unwrap();
        Self(file, path)
    }

    fn path(&self) -> &Path {
        &self.1
    }

    fn get(&self, offset: usize) -> u64 {
        let mut b = [0; 8];
        self.0.read_exact_at(&mut b, offset as u64).unwrap();
        u64::from_le_bytes(b)
    }

    fn set(&self, offset: usize, value: u64) {
        self.0.write_all_at(&value.to_le_bytes(), offset as u64).unwrap();
    }

    fn command(&self, sequence: u64, epoch: u64, code: CommandCode, arg: u64) {
        self.set(command::EPOCH, epoch);
        self.set(command::CODE, u64::from(code.0));
        self.set(command::ARGS, arg);
        self.set(command::SEQUENCE, sequence);
    }

    fn machine(&self, cmdline: &str) -> Vm {
        let backend = format!(
            "memory-backend-file,id=iv,mem-path={},size={},share=on",
            self.path().to_str().unwrap(),
            control::PAGE_BYTES
        );
        Vm::new(cmdline).extra(&["-object", &backend, "-device", "ivshmem-plain,memdev=iv"])
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.1);
    }
}

#[test]
fn commands_are_answered_and_wrong_ones_refused() {
    let page = Page::new("commands");
    // Left by an earlier boot: must not be executed.
    page.command(77, 1, CommandCode::Stop, 0);
    let mut step = 0;
    let mut heartbeats = Vec::new();
    let run = page.machine("").run_with(|_| {
        if page.get(header::MAGIC) != control::MAGIC {
            return;
        }
        heartbeats.push(page.get(header::HEARTBEAT));
        let epoch = page.get(header::EPOCH);
        if step > 0 && page.get(outcome::SEQUENCE) != 77 + step {
            return;
        }
        let answer = (Status(page.get(outcome::STATUS) as u16), page.get(outcome::VALUE));
        match step {
            0 => page.command(78, epoch, CommandCode::Nop, 0),
            1 => {
                assert_eq!(answer, (Status::Ok, 0), "nop");
                page.command(79, epoch ^ 2, CommandCode::Stop, 0);
            }
            2 => {
                assert_eq!(answer.0, Status::Stale, "another epoch");
                page.command(80, epoch, CommandCode::SetBatch, 1025);
            }
            3 => {
                assert_eq!(answer.0, Status::Invalid, "batch of 1025");
                page.command(81, epoch, CommandCode::SetBatch, 17);
            }
            4 => {
                assert_eq!(answer, (Status::Ok, 17), "batch");
                assert_eq!(page.get(header::BATCH), 17);
                page.command(82, epoch, CommandCode(9999), 0);
            }
            5 => {
                assert_eq!(answer, (Status::Unsupported, 0), "unknown");
                page.command(83, epoch, CommandCode::GiveCore, 1);
            }
            6 => {
                // Without a monitor its call would be an undefined instruction.
                let no_monitor = u64::from(GiveRefusal::NoMonitor.0);
                assert_eq!(answer, (Status::Unsupported, no_monitor), "a core is given");
                page.command(84, epoch, CommandCode::Stop, 0);
            }
            _ => return,
        }
        step += 1;
    });
    let Some(run) = run else { return };
    run.ended_with(OK).says("stopped by command");
    assert_eq!(step, 7);
    assert!(heartbeats.is_sorted() && heartbeats.last() > heartbeats.first(), "{heartbeats:?}");
}

#[test]
fn the_page_tells_what_the_machine_is() {
    let page = Page::new("facts");
    let mut done = false;
    let run = page.machine("batch=32").run_with(|since| {
        let there = page.get(header::MAGIC) == control::MAGIC && page.get(header::HEARTBEAT) > 3;
        if there && !done && since > Duration::from_millis(200) {
            done = true;
            let version = ix_abi::VERSION;
            let version = u64::from(version.major) | u64::from(version.minor) << 16;
            assert_eq!(page.get(header::VERSION), version);
            assert_eq!(page.get(header::CORES), 2);
            assert_eq!(page.get(header::BATCH), 32);
            assert_eq!(page.get(header::STATE), u64::from(State::AppEnded.0), "no app was named");
            assert!(page.get(header::TSC_KHZ) > 100_000);
            assert!(page.get(header::MEMORY_BYTES) > 200 << 20);
            assert_eq!(page.get(core_offset(1) + core_block::APIC_ID), 1);
            page.command(1, page.get(header::EPOCH), CommandCode::Stop, 0);
        }
    });
    if let Some(run) = run {
        run.ended_with(OK);
    }
}

#[test]
fn an_app_is_restarted_on_all_cores_without_a_leak() {
    const ROUNDS: u64 = 20;
    let page = Page::new("restart");
    let mut sequence = 0;
    let line = format!("log=debug cores=2 heap=32 app={APP} ip=10.0.2.15/24 -- enter");
    let run = page.machine(&line).run_with(|_| {
        let answered = page.get(outcome::SEQUENCE) == sequence;
        let ready = page.get(header::STATE) == u64::from(State::Ready.0);
        let starts = page.get(header::APP_STARTS);
        if page.get(header::MAGIC) != control::MAGIC || !answered || !ready || starts <= sequence {
            return;
        }
        sequence += 1;
        let stop = sequence > ROUNDS;
        let code = if stop { CommandCode::Stop } else { CommandCode::RestartApp };
        page.command(sequence, page.get(header::EPOCH), code, 0);
    });
    let Some(run) = run else { return };
    let run = run.ended_with(OK).does_not_say("in flight");
    assert_eq!(run.log.matches("app restarted in").count() as u64, ROUNDS, "{}", run.log);
    // What is free after the first restart is free after the last.
    let lines = run.log.lines().filter(|l| l.contains("bytes free after"));
    let free: Vec<&str> = lines.filter_map(|l| l.split_once("] ")).map(|(_, text)| text).collect();
    assert_eq!(free.len() as u64, ROUNDS, "{}", run.log);
    assert!(free[1..].iter().all(|f| *f == free[1]), "{free:#?}");
}

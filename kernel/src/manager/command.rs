//! What `ixcp` asks for, one arm a command.
use core::sync::atomic::Ordering;

use ix_abi::control::{State, header};
use ix_abi::status::Status;
use ix_dataplane::engine::Engine;
use ix_kernel_core::commands::Command;

use super::{BATCH, Manager};
use crate::exit::{Exit, exit};
use crate::user::lifecycle::{self, Reason};
use crate::{control, start};

impl Manager {
    /// Executes the command that the page holds, if any.
    pub(super) fn command(&mut self, engine: &mut Engine) {
        if self.acl.is_busy() || self.cores.is_busy() {
            return;
        }
        let Some((c, command)) = control::poll_command() else { return };
        match command {
            Command::Nop => control::answer(c, Status::Ok, 0),
            Command::Stop => {
                log::info!("stopped by command");
                control::set_state(State::Stopping);
                control::answer(c, Status::Ok, 0);
                exit(Exit::Ok);
            }
            Command::RestartApp if start::machine().config.app.is_none() => {
                control::answer(c, Status::State, 0);
            }
            Command::RestartApp => {
                self.restart = true;
                if self.ended {
                    self.restart_app();
                } else {
                    lifecycle::end(Reason::Command);
                }
                control::answer(c, Status::Ok, lifecycle::starts());
            }
            Command::SetBatch(frames) => {
                BATCH.store(frames, Ordering::Relaxed);
                control::set(header::BATCH, frames as u64);
                control::answer(c, Status::Ok, frames as u64);
            }
            Command::MoveGroup(group, core) => self.cores.move_group(engine, c, group, core),
            Command::SetCores(count) => self.cores.set_count(engine, c, count),
            Command::SetCoreSet(set) => self.cores.set(engine, c, set),
            Command::SetLimits => self.cores.set_limits(c),
            Command::Reserve(count) => self.cores.reserve(c, count),
            Command::Give { core, name_bytes } => self.cores.give(c, core, name_bytes),
            Command::AclSet(bytes) => self.acl.begin(engine, c, bytes),
            Command::AclRead => control::answer(c, Status::Ok, super::acl::read(engine)),
            Command::CaptureStart | Command::CaptureStop(_) | Command::Trace(_) => {
                self.watch.command(c, command);
            }
        }
    }
}

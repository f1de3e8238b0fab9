//! What `ixcp` asks for, one arm a command.
use core::sync::atomic::Ordering;

use ix_abi::control::{CommandCode, State, header};
use ix_abi::status::Status;
use ix_dataplane::engine::Engine;

use super::{BATCH, Manager};
use crate::exit::{Exit, exit};
use crate::user::lifecycle::{self, Reason};
use crate::{control, start};

impl Manager {
    /// Executes the command that the page holds, if any.
    pub(super) fn command(&mut self, engine: &mut Engine) {
        if self.acl.is_busy() {
            return;
        }
        let Some(c) = control::poll_command() else { return };
        match c.code {
            CommandCode::Nop => control::answer(c, Status::Ok, 0),
            CommandCode::Stop => {
                log::info!("stopped by command");
                control::set_state(State::Stopping);
                control::answer(c, Status::Ok, 0);
                exit(Exit::Ok);
            }
            CommandCode::RestartApp if start::machine().config.app.is_none() => {
                control::answer(c, Status::State, 0);
            }
            CommandCode::RestartApp => {
                self.restart = true;
                if self.ended {
                    self.restart_app();
                } else {
                    lifecycle::end(Reason::Command);
                }
                control::answer(c, Status::Ok, lifecycle::starts());
            }
            CommandCode::SetBatch if (1..=1024).contains(&c.args[0]) => {
                BATCH.store(c.args[0] as usize, Ordering::Relaxed);
                control::set(header::BATCH, c.args[0]);
                control::answer(c, Status::Ok, c.args[0]);
            }
            CommandCode::SetBatch => control::answer(c, Status::Invalid, 0),
            CommandCode::AclSet => self.acl.begin(engine, c),
            CommandCode::AclRead => control::answer(c, Status::Ok, super::acl::read(engine)),
            CommandCode::CaptureStart | CommandCode::CaptureStop | CommandCode::Trace => {
                self.watch.command(c);
            }
            _ => control::answer(c, Status::Unsupported, 0),
        }
    }
}

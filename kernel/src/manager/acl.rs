//! Rules of the firewall: from the control page or the boot archive to every core's engine. A set is
//! compiled in slices, so that core 0 goes on with its packets meanwhile, and the command that brought it is
//! answered when all cores judge by it.
use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::vec::Vec;

use ix_abi::IpAddress;
use ix_abi::acl::{ReplyHeader, SET_BYTES_MAX};
use ix_abi::control::{REPLY_BASE, REPLY_BYTES};
use ix_abi::status::Status;
use ix_acl::{AclError, Compiler, RuleSet};
use ix_dataplane::acl::Firewall;
use ix_dataplane::engine::Engine;
use zerocopy::IntoBytes;

use crate::control::{self, Pending};
use crate::time;

/// How long one tick may spend on a set, but for the slice that is under way then.
const SLICE_NS: u64 = 100_000;

/// A set that is on its way.
#[derive(Default)]
pub(super) enum Task {
    #[default]
    None,
    /// Of a command, or of our own: our address is another now.
    Compile(Option<Pending>, Box<Compiler>),
    /// Compiled; messages to the other cores wait for room.
    Publish(Option<Pending>, Box<RuleSet>),
    /// All cores are to take it over.
    Settle(Option<Pending>),
}

fn address(engine: &Engine) -> IpAddress {
    engine.ipv4().map_or(IpAddress::UNSPECIFIED, |v4| IpAddress::v4(v4.address))
}

impl Task {
    pub(super) fn is_busy(&self) -> bool {
        !matches!(self, Task::None)
    }

    /// A client's set: `bytes` of the bulk area.
    pub(super) fn begin(&mut self, engine: &Engine, command: Pending, bytes: usize) {
        if bytes > SET_BYTES_MAX {
            return refuse(Some(command), AclError::TooLarge);
        }
        let Some(source) = control::copy_bulk(bytes) else {
            return refuse(Some(command), AclError::Memory);
        };
        match Compiler::new(source, address(engine)) {
            Ok(compiler) => *self = Task::Compile(Some(command), Box::new(compiler)),
            Err(e) => refuse(Some(command), e),
        }
    }

    /// Every millisecond: goes on with what is under way.
    pub(super) fn step(&mut self, engine: &mut Engine) {
        if !self.is_busy() {
            if let Some(compiler) = engine.recompile_rules() {
                *self = Task::Compile(None, Box::new(compiler));
            }
            return;
        }
        let until = time::now_ns() + SLICE_NS;
        while time::now_ns() < until {
            match core::mem::take(self) {
                Task::None => return,
                Task::Compile(command, mut compiler) => match compiler.advance() {
                    Ok(None) => *self = Task::Compile(command, compiler),
                    Ok(Some(rules)) => *self = Task::Publish(command, Box::new(rules)),
                    Err(e) => return refuse(command, e),
                },
                Task::Publish(command, rules) if engine.can_set_rules() => {
                    match engine.set_rules(*rules) {
                        Ok(()) => *self = Task::Settle(command),
                        Err(e) => return refuse(command, e),
                    }
                }
                Task::Settle(command) if engine.rules_settled() => return done(engine, command),
                waiting => {
                    *self = waiting;
                    return;
                }
            }
        }
    }
}

fn done(engine: &Engine, command: Option<Pending>) {
    let Some((rules, generation)) = engine.rules() else { return };
    log::info!("acl: {} rules in force, {} KiB", rules.rules().len(), rules.bytes() >> 10);
    if let Some(command) = command {
        control::answer(command, Status::Ok, generation.into());
    }
}

/// The set that was in force stays. What is wrong with the new one is in the reply area.
fn refuse(command: Option<Pending>, error: AclError) {
    log::warn!("acl: refused: {error}");
    let Some(command) = command else { return };
    let text = error.to_string();
    control::write_area(REPLY_BASE, text.as_bytes());
    let status = if error == AclError::Memory { Status::NoMemory } else { Status::Invalid };
    control::answer(command, status, text.len() as u64);
}

/// Lays rules and counters into the reply area; the number of bytes.
pub(super) fn read(engine: &Engine) -> u64 {
    let mut header = ReplyHeader { generation: 0, set_bytes: 0, counters: 0, reserved: [0; 5] };
    let mut at = size_of::<ReplyHeader>();
    if let Some((rules, generation)) = engine.rules() {
        let source = rules.source();
        let counters = rules.verdicts();
        header.generation = generation.into();
        header.set_bytes = source.len() as u64;
        header.counters = counters as u64;
        for rule in 0..counters {
            control::write_area(REPLY_BASE + at, &engine.rule_hits(rule).to_le_bytes());
            at += 8;
        }
        if at + source.len() <= REPLY_BYTES {
            control::write_area(REPLY_BASE + at, source);
            at += source.len();
        }
    }
    control::write_area(REPLY_BASE, header.as_bytes());
    at as u64
}

/// The rules that the command line names, compiled and made into each core's part.
pub fn at_boot(
    source: &[u8],
    engine: &mut Engine,
    local: Option<[u8; 4]>,
) -> Result<Vec<Firewall>, AclError> {
    let local = local.map_or(IpAddress::UNSPECIFIED, IpAddress::v4);
    let rules = ix_acl::decode(source.to_vec(), local)?;
    log::info!(
        "acl: {} rules in force from the first packet, {} KiB",
        rules.rules().len(),
        rules.bytes() >> 10
    );
    engine.make_rules(rules)
}

//! The scenarios by name: what the program does when callgrind runs it.
use crate::app;
use crate::bulk;
use crate::clients::Clients;
use crate::collect;
use crate::echo::Echo;
use crate::idle;
use crate::life;
use crate::say;
use crate::server::Server;
use crate::server::bare::Bare;
use crate::server::contract::Contract;
use crate::server::engine::{EngineServer, Setup};
use crate::server::smoltcp::{Does, Smoltcp};
use crate::team::Team;
use crate::timers::{self, Work};
use clap::{Args, ValueEnum};
use ix_abi::limits::CORES_MAX;
use ix_abi::stats::Counter;

/// Who is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Subject {
    /// The engine
    Engine,
    /// The bare responder
    Bare,
    /// The bare responder as a dataplane: with the card, the rings and the application of the engine
    Contract,
    /// smoltcp
    Smoltcp,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// 64-byte requests and answers; an operation is one
    Echo,
    /// A connection from SYN to the last ACK with one request; an operation is one
    Life,
    /// One stream into the server; an operation is a byte
    Receive,
    /// One stream out of it; an operation is a byte
    Send,
    /// The application's timers: fire, and are set again
    AppTimers,
    /// The wheel: timers are armed
    Arm,
    /// Armed timers are armed for another time
    Rearm,
    /// They are cancelled
    Cancel,
    /// They fire
    Fire,
    /// Connections are kept alive for an hour; an operation is a connection
    Idle,
}

/// The bound of a turn's frames that all subjects have.
const BATCH: usize = 64;
/// Flow tables hold more; the process of a few million takes gigabytes.
pub const CONNECTIONS_MAX: usize = 4_000_000;

/// A number from 1 to this.
///
/// # Errors
/// What it is not.
pub fn up_to<const MOST: usize>(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..) if number <= MOST => Ok(number),
        Ok(_) if MOST == usize::MAX => Err("at least 1".to_owned()),
        Ok(_) => Err(format!("from 1 to {MOST}")),
        Err(e) => Err(format!("{e}")),
    }
}

/// A scenario.
#[derive(Clone, Copy, Debug, Args)]
pub struct Run {
    /// Who
    #[arg(value_enum, default_value = "engine")]
    pub subject: Subject,
    /// What
    #[arg(short, long, value_enum, default_value = "echo")]
    pub scenario: Scenario,
    /// Established connections; timers
    #[arg(short, long, default_value_t = 1, value_parser = up_to::<CONNECTIONS_MAX>)]
    pub connections: usize,
    /// Frames of one turn
    #[arg(short, long, default_value_t = 1, value_parser = up_to::<BATCH>)]
    pub batch: usize,
    /// Cores of the dataplane, of which one is looked at (scenario `echo`)
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=CORES_MAX as i64))]
    pub cores: u16,
    /// Each answer is acknowledged by itself, in a turn of its own, before the next request (scenario `echo`)
    #[arg(long)]
    pub acks_apart: bool,
    /// Clients offer no options, as QEMU's user network does (scenario `echo`)
    #[arg(long)]
    pub plain: bool,
    /// Answers come from so many pieces of the application's memory; 0: from where the request is (scenario `echo`)
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=16))]
    pub pieces: u8,
    /// Operations
    #[arg(short = 'n', long, default_value_t = 2048, value_parser = up_to::<{ usize::MAX }>)]
    pub operations: usize,
    /// The network card does checksums and hash
    #[arg(long)]
    pub offload: bool,
    /// It also cuts large packets into segments
    #[arg(long)]
    pub tso: bool,
    /// It makes one frame of so many segments that it receives (scenario `receive`)
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=44))]
    pub merge: u8,
}

impl Default for Run {
    fn default() -> Run {
        Run {
            subject: Subject::Engine,
            scenario: Scenario::Echo,
            connections: 1,
            batch: 1,
            cores: 1,
            acks_apart: false,
            plain: false,
            pieces: 0,
            operations: 2048,
            offload: false,
            tso: false,
            merge: 1,
        }
    }
}

impl Run {
    /// Its arguments on a command line.
    pub fn args(&self) -> Vec<String> {
        let name = |value: Option<clap::builder::PossibleValue>| {
            value.expect("none is skipped").get_name().to_owned()
        };
        let mut args = vec![name(self.subject.to_possible_value())];
        args.extend(["-s".to_owned(), name(self.scenario.to_possible_value())]);
        for (flag, value) in [("-c", self.connections), ("-b", self.batch), ("-n", self.operations)]
        {
            args.extend([flag.to_owned(), value.to_string()]);
        }
        if self.cores > 1 {
            args.extend(["--cores".to_owned(), self.cores.to_string()]);
        }
        let switches = [
            (self.offload, "--offload"),
            (self.tso, "--tso"),
            (self.acks_apart, "--acks-apart"),
            (self.plain, "--plain"),
        ];
        args.extend(switches.iter().filter(|(on, _)| *on).map(|(_, flag)| (*flag).to_owned()));
        if self.pieces > 0 {
            args.extend(["--pieces".to_owned(), self.pieces.to_string()]);
        }
        if self.merge > 1 {
            args.extend(["--merge".to_owned(), self.merge.to_string()]);
        }
        args
    }

    /// Whether the subject knows the scenario, and the scenario what else was asked for.
    ///
    /// # Errors
    /// Which does not.
    pub fn check(&self) -> anyhow::Result<()> {
        let Run { subject, scenario, .. } = *self;
        let echo = scenario == Scenario::Echo;
        let known = match subject {
            Subject::Engine => true,
            Subject::Bare | Subject::Contract => echo,
            Subject::Smoltcp => {
                matches!(scenario, Scenario::Life | Scenario::Receive | Scenario::Send) || echo
            }
        };
        anyhow::ensure!(known, "{subject:?} does not know the scenario {scenario:?}: see --help");
        let engine = [
            (self.cores > 1, "--cores"),
            (self.pieces > 0, "--pieces"),
            (self.tso, "--tso"),
            (self.merge > 1, "--merge"),
        ];
        if let Some((_, option)) = engine.iter().find(|(on, _)| *on && subject != Subject::Engine) {
            anyhow::bail!("{option} is for the engine, not for {subject:?}");
        }
        let echoes = [
            (self.cores > 1, "--cores"),
            (self.pieces > 0, "--pieces"),
            (self.acks_apart, "--acks-apart"),
            (self.plain, "--plain"),
        ];
        if let Some((_, option)) = echoes.iter().find(|(on, _)| *on && !echo) {
            anyhow::bail!("{option} is for the scenario echo, not for {scenario:?}");
        }
        Ok(())
    }

    /// Does it, which is to be [checked](Run::check) before; how many operations were counted.
    pub fn run(&self) -> usize {
        match self.subject {
            Subject::Engine => self.engine(),
            Subject::Bare => self.floor(Bare::new(self.connections, self.offload, BATCH)),
            Subject::Contract => self.floor(Contract::new(self.connections, self.offload, BATCH)),
            Subject::Smoltcp => self.smoltcp(),
        }
    }

    fn floor<S: Server>(&self, server: S) -> usize {
        match self.scenario {
            Scenario::Echo => self.echo(server),
            _ => panic!("a bare responder echoes, nothing else"),
        }
    }

    fn engine(&self) -> usize {
        let most = self.connections.max(self.operations.min(65_536));
        let setup = Setup {
            connections: self.connections,
            buffers: most.min(16_384) + 4096,
            offload: self.offload || self.tso || self.merge > 1,
            tso: self.tso,
            batch: BATCH,
        };
        match self.scenario {
            Scenario::Echo if self.cores > 1 => {
                // With as many connections on the core that is looked at as without the others.
                let all = self.connections * usize::from(self.cores);
                let team = Team::new(Setup { connections: all, ..setup }, self.cores);
                let mut cores = team.split(all);
                collect::instrument();
                cores[0].count(self.operations, self.batch)
            }
            Scenario::Echo if self.pieces > 0 => {
                let store = app::Store::new(usize::from(self.pieces));
                self.echo(EngineServer::new(setup, store))
            }
            Scenario::Echo => self.echo(EngineServer::new(setup, app::Echo::default())),
            Scenario::Life => self.life(EngineServer::new(setup, app::Echo::default())),
            Scenario::Receive => {
                let mut server = EngineServer::new(setup, app::Sink::default());
                let bytes = bulk::receive(
                    &mut server,
                    self.operations,
                    self.batch,
                    usize::from(self.merge),
                );
                assert_eq!(server.stats().get(Counter::PayloadCopied), 0, "zero copy");
                bytes
            }
            Scenario::Send => {
                let mut server = EngineServer::new(setup, app::Source::default());
                let bytes = bulk::send(&mut server, self.operations, self.batch);
                assert_eq!(server.stats().get(Counter::PayloadCopied), 0, "zero copy");
                bytes
            }
            Scenario::AppTimers => {
                let (timers, every_us) = (self.connections as u64, 100_000);
                let app = app::Timers { timers, every_us, ..app::Timers::default() };
                timers::app(&mut EngineServer::new(setup, app), self.operations)
            }
            Scenario::Arm => timers::wheel(self.connections, Work::Arm),
            Scenario::Rearm => timers::wheel(self.connections, Work::Rearm),
            Scenario::Cancel => timers::wheel(self.connections, Work::Cancel),
            Scenario::Fire => timers::wheel(self.connections, Work::Fire),
            Scenario::Idle => {
                let found = idle::run(self.connections, 1);
                assert_eq!(found.alive, self.connections as u64, "all are alive");
                self.connections
            }
        }
    }

    fn smoltcp(&self) -> usize {
        let server = |does, sockets| Smoltcp::new(does, self.offload, BATCH, sockets);
        match self.scenario {
            Scenario::Echo => self.echo(server(Does::Echo, self.connections)),
            Scenario::Life => self.life(server(Does::Echo, self.batch)),
            Scenario::Receive => {
                bulk::receive(&mut server(Does::Sink, 1), self.operations, self.batch, 1)
            }
            Scenario::Send => bulk::send(&mut server(Does::Source, 1), self.operations, self.batch),
            _ => panic!("not for smoltcp"),
        }
    }

    fn echo<S: Server>(&self, server: S) -> usize {
        let mut echo = match self.plain {
            true => Echo::plain(server, self.connections, self.batch),
            false => Echo::new(server, self.connections, self.operations, self.batch),
        };
        echo.acks_apart = self.acks_apart;
        let Clients { timestamps, sack, shift, .. } = &echo.clients;
        say!("timestamps: {timestamps}, SACK: {sack}, shift: {shift:?}");
        collect::instrument();
        echo.count(self.operations, self.batch)
    }

    fn life<S: Server>(&self, mut server: S) -> usize {
        let lives = self.operations.next_multiple_of(self.batch);
        let mut clients =
            Clients::new(self.batch + life::WARM.next_multiple_of(self.batch) + lives);
        life::count(&mut server, &mut clients, self.batch)
    }
}

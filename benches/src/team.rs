//! A dataplane of several cores behind one network card that spreads frames over their queues.
use crate::app;
use crate::clients::Clients;
use crate::echo::Echo;
use crate::server::Server;
use crate::server::engine::{EngineServer, Setup};

type Core = EngineServer<app::Echo>;

/// The cores of one dataplane.
#[derive(Debug)]
pub struct Team {
    cores: Vec<Core>,
    /// Which core has client `i`, once it has connected.
    owners: Vec<usize>,
    frame: Vec<u8>,
}

impl Team {
    /// A dataplane that echoes.
    pub fn new(setup: Setup, cores: u16) -> Team {
        let listens = |core: ix_abi::CoreId| {
            // One asks for all.
            let server = app::Server { listening: core.0 > 0, ..app::Server::default() };
            app::Echo(server)
        };
        let cores = EngineServer::team(setup, cores, listens);
        Team { cores, owners: vec![0; setup.connections], frame: vec![0; 2048] }
    }

    /// Opens all connections and hands the cores out, each with the clients whose connections it has.
    pub fn split(mut self, connections: usize) -> Vec<Echo<Core>> {
        let mut clients = Clients::new(connections);
        clients.open(&mut self);
        let Team { cores, owners, .. } = self;
        let cores = cores.into_iter().enumerate();
        cores
            .map(|(core, server)| {
                let talking = (0..connections).filter(|i| owners[*i] == core).collect();
                Echo::begin(server, clients.clone(), talking, 1)
            })
            .collect()
    }
}

impl Server for Team {
    fn deliver(&mut self, i: usize, fill: &mut dyn FnMut(&mut [u8]) -> usize) {
        let len = fill(&mut self.frame);
        let frame = &self.frame[..len];
        let count = self.cores.len() as u16;
        let core = usize::from(self.cores[0].core_of(frame, count).0);
        if let Some(owner) = self.owners.get_mut(i) {
            *owner = core;
        }
        self.cores[core].deliver(i, &mut |into| {
            into[..len].copy_from_slice(frame);
            len
        });
    }

    fn turn(&mut self) {
        self.cores.iter_mut().for_each(Server::turn);
    }

    fn waiting(&self) -> usize {
        self.cores.iter().map(Server::waiting).sum()
    }

    fn next_sent(&mut self, bytes: &mut Vec<u8>) -> bool {
        self.cores.iter_mut().any(|core| core.next_sent(bytes))
    }

    fn now_ns(&self) -> u64 {
        self.cores[0].now_ns()
    }

    fn pass_ns(&mut self, ns: u64) {
        self.cores.iter_mut().for_each(|core| core.pass_ns(ns));
    }

    fn explain(&self) -> String {
        self.cores.iter().map(|core| format!("{}\n", core.explain())).collect()
    }

    fn verify(&self) -> bool {
        self.cores[0].verify()
    }
}

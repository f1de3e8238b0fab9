//! The 64-byte echo over established connections picked at random: one frame in, one frame out, the answer
//! carries the acknowledgement, and the next request acknowledges the answer.
use crate::clients::Clients;
use crate::collect;
use crate::server::Server;
use ix_dataplane::rng::Rng;

/// Bytes of a request and of its answer.
pub const MESSAGE: usize = 64;
/// Time between two requests of the network as a whole.
const REQUEST_EVERY_NS: u64 = 1_000;
/// Connections that talk, picked out of all: so few that each does again before a retransmission timer.
const TALKING_MAX: usize = 16_384;

/// A server whose clients are connected, and which of them talk.
#[derive(Debug)]
pub struct Echo<S> {
    /// The server.
    pub server: S,
    /// Its clients.
    pub clients: Clients,
    /// They acknowledge each answer by itself, before the next request.
    pub acks_apart: bool,
    talking: Vec<usize>,
    rng: Rng,
    chosen: Vec<usize>,
}

/// How long the connections have been open before anybody talks: two seconds.
const SETTLE_TURNS: u32 = 200;
const SETTLE_TURN_NS: u64 = 10_000_000;

impl<S: Server> Echo<S> {
    /// Opens `connections`, of which at most `talking` will talk, and lets each of those talk twice.
    pub fn new(server: S, connections: usize, talking: usize, batch: usize) -> Echo<S> {
        let mut rng = Rng::from_seed(2);
        let mut all: Vec<usize> = (0..connections).collect();
        let wanted = talking.min(connections).min(TALKING_MAX);
        for at in 0..wanted {
            all.swap(at, at + rng.below((connections - at) as u64) as usize);
        }
        all.truncate(wanted);
        let (mut server, mut clients) = (server, Clients::new(connections));
        clients.open(&mut server);
        Echo::begin(server, clients, all, batch)
    }

    /// The same of a server whose clients offer no options.
    pub fn plain(server: S, connections: usize, batch: usize) -> Echo<S> {
        let (mut server, mut clients) = (server, Clients::new(connections));
        clients.plain = true;
        clients.open(&mut server);
        Echo::begin(server, clients, (0..connections).collect(), batch)
    }

    /// The same, of a server whose clients are connected; `talking` are those that will talk.
    pub fn begin(server: S, clients: Clients, talking: Vec<usize>, batch: usize) -> Echo<S> {
        let (rng, wanted) = (Rng::from_seed(3), talking.len());
        let mut echo =
            Echo { server, clients, acks_apart: false, talking, rng, chosen: Vec::new() };
        // Timers of the handshakes, which are left to fire in vain, belong to those and not to an echo.
        for _ in 0..SETTLE_TURNS {
            echo.server.pass_ns(SETTLE_TURN_NS);
            echo.server.turn();
        }
        for _ in 0..2 {
            for from in (0..wanted).step_by(batch) {
                echo.chosen = echo.talking[from..(from + batch).min(wanted)].to_vec();
                echo.deliver();
                echo.server.turn();
                echo.check();
            }
        }
        echo
    }

    /// The connections that talk.
    pub fn talking(&self) -> &[usize] {
        &self.talking
    }

    /// Picks `batch` connections, or all of fewer, each once.
    fn choose(&mut self, batch: usize) {
        self.chosen.clear();
        while self.chosen.len() < batch.min(self.talking.len()) {
            let i = self.talking[self.rng.below(self.talking.len() as u64) as usize];
            if !self.chosen.contains(&i) {
                self.chosen.push(i);
            }
        }
    }

    fn deliver(&mut self) {
        for i in &self.chosen {
            self.clients.request(&mut self.server, *i, MESSAGE);
        }
        self.server.pass_ns(REQUEST_EVERY_NS * self.chosen.len() as u64);
    }

    fn check(&mut self) {
        let mut answers = 0;
        let frames = self.clients.receive(&mut self.server, |_, _, _, answer| {
            answers += usize::from(answer.payload == MESSAGE);
        });
        assert_eq!(
            (frames, answers),
            (self.chosen.len(), self.chosen.len()),
            "one for each: {}",
            self.server.explain()
        );
    }

    /// Lays up `rpcs` requests and runs one turn for `batch` of them at a time, timed: nanoseconds. Each turn finds so many,
    /// because more are not there yet.
    pub fn time(&mut self, rpcs: usize, batch: usize) -> u64 {
        self.server.hold(true);
        for _ in 0..rpcs.div_ceil(batch) {
            self.choose(batch);
            for i in &self.chosen {
                self.clients.request_ahead(&mut self.server, *i, MESSAGE);
            }
        }
        let start = std::time::Instant::now();
        for _ in 0..rpcs.div_ceil(batch) {
            self.server.pass_ns(REQUEST_EVERY_NS * batch as u64);
            (0..batch).for_each(|_| self.server.show());
            self.server.turn();
        }
        let ns = start.elapsed().as_nanos() as u64;
        self.server.hold(false);
        let looked = self.clients.look(&mut self.server);
        assert_eq!(looked, (rpcs, rpcs * MESSAGE), "one for each: {}", self.server.explain());
        ns
    }

    /// The clients acknowledge the answers, in a turn of their own.
    fn acknowledge(&mut self) {
        for i in &self.chosen {
            self.clients.acknowledge(&mut self.server, *i);
        }
        self.server.pass_ns(REQUEST_EVERY_NS);
        let server = &mut self.server;
        collect::counted_region(|| server.turn());
        let frames = self.clients.receive(&mut self.server, |_, _, _, _| {});
        assert_eq!(frames, 0, "nothing to say: {}", self.server.explain());
    }

    /// At least `rpcs` requests in batches of `batch`, each batch in one counted turn, or two with their acknowledgements. How
    /// many there were.
    pub fn count(&mut self, rpcs: usize, batch: usize) -> usize {
        let mut done = 0;
        while done < rpcs {
            self.choose(batch);
            self.deliver();
            let server = &mut self.server;
            collect::counted_region(|| server.turn());
            self.check();
            if self.acks_apart {
                self.acknowledge();
            }
            done += self.chosen.len();
        }
        done
    }
}

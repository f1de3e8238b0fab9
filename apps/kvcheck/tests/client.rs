//! The client against kv's own library, without a network: what is right is found right, cut anywhere; what is not is found.
use kv::conn::Conn;
use kv::store::Store;
use kv::worker::{Settings, Shared, Worker};
use kvcheck::client::Client;
use kvcheck::{Options, USAGE};

struct Server {
    conn: Conn,
    worker: Worker<'static>,
}

impl Server {
    fn new() -> Server {
        let store = Store::with_capacity(32 << 20, 1);
        let shared = Box::leak(Box::new(Shared::new(store, Settings::default())));
        let mut worker = Worker::new(shared, 0);
        worker.set_time(0);
        Server { conn: Conn::new(&worker), worker }
    }

    fn answer(&mut self, request: &[u8]) -> Vec<u8> {
        assert_eq!(self.conn.on_data(&mut self.worker, request), request.len());
        let mut answer = Vec::new();
        let peeked = self.conn.out.peek(self.worker.store(), 64, |piece| answer.extend(piece));
        self.conn.out.take(peeked.bytes);
        self.conn.out.sent(self.worker.store(), &mut self.worker.pool, peeked.bytes);
        answer
    }
}

/// Asks and takes the request away, in two pieces of which one comes back first.
fn request(client: &mut Client) -> Vec<u8> {
    client.ask();
    let all = client.to_send().to_vec();
    client.took(all.len() / 2);
    client.untook(1.min(all.len() / 2));
    let mut parts = all[..all.len() / 2].to_vec();
    parts.truncate(all.len() / 2 - 1.min(all.len() / 2));
    parts.extend(client.to_send());
    assert_eq!(parts, all);
    client.took(all.len());
    assert!(client.to_send().is_empty() && client.is_waiting());
    all
}

#[test]
fn all_answers_of_kv_are_right_wherever_they_are_cut() {
    let mut server = Server::new();
    let mut client = Client::new(3, 7, 2000);
    let (mut sets, mut hits, mut misses) = (0, 0, 0);
    for round in 0..5000_usize {
        let asked = request(&mut client);
        let answer = server.answer(&asked);
        match (asked.starts_with(b"set "), answer.starts_with(b"VALUE ")) {
            (true, _) => sets += 1,
            (false, true) => hits += 1,
            (false, false) => misses += 1,
        }
        for piece in answer.chunks(1 + round % 97) {
            assert!(client.is_waiting());
            client.receive(piece).expect("it is right");
        }
        assert!(client.is_answered());
    }
    assert!(sets > 1000 && hits > 2000 && misses > 3, "{sets} {hits} {misses}");
}

#[test]
fn one_wrong_bit_anywhere_is_found_and_so_is_what_is_too_much() {
    let mut server = Server::new();
    for flipped in 0..4000_usize {
        let mut client = Client::new(flipped as u32, 1, 300);
        for _ in 0..20 {
            let asked = request(&mut client);
            let answer = server.answer(&asked);
            let at = flipped % answer.len();
            let mut wrong = answer.clone();
            wrong[at] ^= 1 << (flipped % 8);
            let found = client.receive(&wrong).expect_err("it is wrong");
            assert_eq!((found.at, found.expected, found.got), (at, Some(answer[at]), wrong[at]));
            assert!(found.to_string().contains(&format!("byte {at} of")));
            client.receive(&answer).expect("it is right");
            assert!(client.is_answered());
            let more = client.receive(b"E").expect_err("there is no more");
            assert_eq!((more.at, more.expected), (answer.len(), None));
        }
    }
}

/// An old value is a wrong one; after a lost connection nobody knows which it is.
#[test]
fn an_old_value_is_wrong_and_a_lost_set_is_not_relied_on() {
    let mut client = Client::new(1, 1, 100);
    let (mut server, mut stale) = (Server::new(), Server::new());
    let mut found = 0;
    for number in 0..600 {
        let asked = request(&mut client);
        let (right, old) = (server.answer(&asked), stale.answer(&asked));
        if right != old {
            assert!(client.receive(&old).is_err());
            found += 1;
        }
        if asked.starts_with(b"set ") && number % 7 == 0 {
            // The one server has it, and the client does not know.
            client.disconnected();
            continue;
        }
        client.receive(&right).expect("right");
        if number == 300 {
            stale = Server::new();
        }
    }
    assert!(found > 10, "{found}");
}

/// A core that was stopped runs again, and does what it was asked before its connections ended.
#[test]
fn a_lost_set_may_be_done_at_any_time() {
    let mut client = Client::new(1, 1, 100);
    let mut server = Server::new();
    let (mut late, mut sets) = (Vec::new(), 0);
    for number in 0..2000 {
        let asked = request(&mut client);
        if asked.starts_with(b"set ") {
            sets += 1;
            if sets % 7 == 0 {
                late.push((number + 50, asked));
                client.disconnected();
                continue;
            }
        }
        let answer = server.answer(&asked);
        client.receive(&answer).expect("right");
        late.retain(|(at, asked)| {
            let waits = *at > number;
            if !waits {
                server.answer(asked);
            }
            waits
        });
    }
    assert!(sets > 500, "{sets}");
}

#[test]
fn options_are_words_with_values() {
    assert_eq!(Options::parse("").expect("defaults"), Options::default());
    let o =
        Options::parse("connections=3 requests=10 rounds=0 value=7 seed=9 port=80").expect("all");
    assert_eq!(
        (o.connections, o.requests, o.rounds, o.value, o.seed, o.port),
        (3, 10, 0, 7, 9, 80)
    );
    assert_eq!((o.share(0), o.share(1), o.share(2)), (4, 3, 3));
    for bad in ["rounds", "rounds=x", "connections=0", "requests=0", "value=0", "port=40000", "x=1"]
    {
        let error = Options::parse(bad).expect_err(bad).to_string();
        assert!(error.starts_with(bad), "{error}");
    }
    assert!(USAGE.contains("rounds"));
}

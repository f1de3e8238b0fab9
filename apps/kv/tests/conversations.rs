//! Conversations with the library: what is said, and what is answered.
mod common;

use common::client::{Client, UNIX_START, shared};

const MIB: usize = 1 << 20;

#[test]
fn what_is_set_is_got_with_its_flags() {
    let shared = shared(8 * MIB);
    let mut c = Client::new(&shared, 0);
    assert_eq!(c.say("set a 42 0 5\r\nhello\r\n"), "STORED\r\n");
    assert_eq!(c.say("get a\r\n"), "VALUE a 42 5\r\nhello\r\nEND\r\n");
    assert_eq!(c.say("get b\r\n"), "END\r\n");
    assert_eq!(c.say("get a b a\r\n").matches("VALUE").count(), 2);
}

#[test]
fn a_batch_of_requests_is_one_sendv() {
    let shared = shared(8 * MIB);
    let mut c = Client::new(&shared, 0);
    c.say("set a 0 0 5\r\nhello\r\n");
    let batch = "get a\r\nset b 0 0 1\r\nx\r\nincr n 1\r\nget b a\r\n".repeat(30);
    c.conn.on_data(&mut c.worker, batch.as_bytes());
    let peeked = c.conn.out.peek(c.worker.store(), 64, |_| {});
    assert_eq!(peeked.pieces, 1, "small replies are rendered behind one another");
    assert_eq!(peeked.bytes, c.conn.out.waiting());
}

#[test]
fn a_large_value_is_sent_from_the_store() {
    let shared = shared(8 * MIB);
    let mut c = Client::new(&shared, 0);
    let value = vec![b'v'; 100_000];
    c.ask(b"set big 0 0 100000\r\n");
    c.ask(&value);
    c.ask(b"\r\n");
    let whole = b"VALUE big 0 100000\r\n".len() + 100_002;
    // The last line of the reply is stored behind the item.
    let asked: [(&[u8], &[usize]); 3] = [
        (b"get big\r\n", &[whole + 5]),
        (b"get big big\r\n", &[whole, whole + 5]),
        (b"get big none\r\n", &[whole, 5]),
    ];
    for (request, expected) in asked {
        c.conn.on_data(&mut c.worker, request);
        let mut pieces = Vec::new();
        let peeked = c.conn.out.peek(c.worker.store(), 64, |piece| pieces.push(piece.to_vec()));
        let lens: Vec<usize> = pieces.iter().map(Vec::len).collect();
        assert_eq!(lens, expected);
        let all = pieces.concat();
        assert!(all.ends_with(b"v\r\nEND\r\n"));
        assert_eq!(all.windows(3).filter(|bytes| bytes == b"END").count(), 1);
        c.conn.out.take(peeked.bytes);
        c.conn.out.sent(c.worker.store(), &mut c.worker.pool, peeked.bytes);
    }
}

#[test]
fn a_value_on_its_way_out_survives_all_updates() {
    let shared = shared(4 * MIB);
    let mut c = Client::new(&shared, 0);
    let mut other = Client::new(&shared, 1);
    let value = format!("7{}", " ".repeat(999));
    c.say(&format!("set k 0 0 1000\r\n{value}\r\n"));
    c.conn.on_data(&mut c.worker, b"get k\r\n");
    for update in [
        "incr k 5\r\n",
        "append k 0 0 1\r\nx\r\n",
        "set k 0 0 1\r\ny\r\n",
        "delete k\r\n",
        "flush_all\r\n",
    ] {
        other.say(update);
    }
    // Everything else that the memory can hold: the value must not be evicted either.
    for n in 0..20_000 {
        other.say(&format!("set f{n} 0 0 900\r\n{}\r\n", "f".repeat(900)));
    }
    assert_eq!(other.say("get k\r\n"), "END\r\n");
    let taken = c.take(64);
    assert_eq!(taken, format!("VALUE k 0 1000\r\n{value}\r\nEND\r\n").into_bytes());
    let used = shared.store.figures().used_chunks;
    c.sent(taken.len());
    assert_eq!(shared.store.figures().used_chunks, used - 1, "freed when sent, not before");
}

#[test]
fn a_partial_acceptance_is_continued_where_it_stopped() {
    let shared = shared(8 * MIB);
    let mut c = Client::new(&shared, 0);
    let value = "v".repeat(3000);
    c.say(&format!("set k 0 0 3000\r\n{value}\r\n"));
    let expected = format!("VALUE k 0 3000\r\n{value}\r\nEND\r\n").repeat(5);
    c.conn.on_data(&mut c.worker, "get k\r\n".repeat(5).as_bytes());
    let mut got = Vec::new();
    let mut step = 1;
    while c.conn.out.waiting() > 0 {
        let mut offered = Vec::new();
        c.conn.out.peek(c.worker.store(), 64, |piece| offered.extend_from_slice(piece));
        // As on IX: taken as if all were accepted, then told that it was not.
        c.conn.out.take(offered.len());
        let accepted = offered.len().min(step);
        c.conn.out.untake(offered.len() - accepted);
        got.extend_from_slice(&offered[..accepted]);
        assert_eq!(c.conn.out.in_flight(), got.len() - (got.len() - accepted));
        c.sent(accepted);
        step = step * 2 + 1;
    }
    assert_eq!(String::from_utf8(got).unwrap(), expected);
    assert_eq!(c.conn.out.pieces(), 0);
}

#[test]
fn too_much_output_stops_the_input() {
    let shared = shared(16 * MIB);
    let mut c = Client::new(&shared, 0);
    c.ask(format!("set k 0 0 500000\r\n{}\r\n", "v".repeat(500_000)).as_bytes());
    let requests = "get k\r\n".repeat(100);
    let used = c.conn.on_data(&mut c.worker, requests.as_bytes());
    assert!(c.conn.is_stalled());
    assert!(used < requests.len() / 10, "{used} of {} bytes used", requests.len());
    assert_eq!(c.conn.on_data(&mut c.worker, &requests.as_bytes()[used..]), 0);
    let first = c.drain().len();
    let rest = c.ask(&requests.as_bytes()[used..]).len();
    assert_eq!(first + rest, 100 * ("VALUE k 0 500000\r\n\r\nEND\r\n".len() + 500_000));
}

#[test]
fn the_replies_that_wait_are_never_more_than_one_sendv_takes() {
    let shared = shared(16 * MIB);
    let mut c = Client::new(&shared, 0);
    c.say(&format!("set k 0 0 1000\r\n{}\r\n", "v".repeat(1000)));
    for requests in ["get k\r\n".repeat(500), format!("gets{}\r\n", " k".repeat(500))] {
        let used = c.conn.on_data(&mut c.worker, requests.as_bytes());
        assert!(c.conn.is_stalled() && used < requests.len());
        assert!((50..=64).contains(&c.conn.out.pieces()), "{} pieces", c.conn.out.pieces());
        c.drain();
        c.ask(&requests.as_bytes()[used..]);
    }
}

#[test]
fn one_get_of_many_large_values_is_answered_in_turns() {
    let shared = shared(32 * MIB);
    let mut c = Client::new(&shared, 0);
    c.ask(format!("set k 0 0 400000\r\n{}\r\n", "v".repeat(400_000)).as_bytes());
    let request = format!("get{}\r\n", " k".repeat(50));
    let used = c.conn.on_data(&mut c.worker, request.as_bytes());
    assert!(c.conn.is_stalled() && used < request.len());
    let mut replies = c.drain();
    replies.extend(c.ask(&request.as_bytes()[used..]));
    assert_eq!(replies.len(), 50 * ("VALUE k 0 400000\r\n\r\n".len() + 400_000) + 5);
}

#[test]
fn values_expire_when_their_time_has_come() {
    let shared = shared(8 * MIB);
    let mut c = Client::new(&shared, 0);
    c.say("set a 0 10 1\r\nx\r\n");
    c.say("set b 0 -1 1\r\nx\r\n");
    c.say(&format!("set c 0 {} 1\r\nx\r\n", UNIX_START + 20));
    c.say("set d 0 2592001 1\r\nx\r\n");
    c.say("set e 0 0 1\r\nx\r\n");
    let keys = |c: &mut Client<'_>| c.say("get a b c d e\r\n").matches("VALUE").count();
    assert_eq!(keys(&mut c), 3, "b and d have been dead from the start");
    c.worker.set_time(9_999_999_999);
    assert_eq!(keys(&mut c), 3);
    c.worker.set_time(10_000_000_000);
    assert_eq!(keys(&mut c), 2);
    c.say("touch e 5\r\n");
    c.worker.set_time(20_000_000_000);
    assert_eq!(keys(&mut c), 0);
    let totals = shared.totals();
    assert_eq!(totals.get_expired, 5);
}

#[test]
fn a_delayed_flush_spares_what_comes_after_it() {
    let shared = shared(8 * MIB);
    let mut c = Client::new(&shared, 0);
    c.say("set a 0 0 1\r\nx\r\n");
    assert_eq!(c.say("flush_all 10\r\n"), "OK\r\n");
    c.worker.set_time(5_000_000_000);
    c.say("set b 0 0 1\r\nx\r\n");
    assert_eq!(c.say("get a b\r\n").matches("VALUE").count(), 2);
    c.worker.set_time(11_000_000_000);
    c.say("set c 0 0 1\r\nx\r\n");
    assert_eq!(c.say("get a b c\r\n"), "VALUE c 0 1\r\nx\r\nEND\r\n");
    // Another delayed one does not bring back what the first has flushed.
    c.say("set d 0 0 1\r\nx\r\nflush_all 1000\r\n");
    assert_eq!(c.say("get a b c d\r\n").matches("VALUE").count(), 2);
}

#[test]
fn an_immediate_flush_spares_what_follows_in_the_same_second() {
    let shared = shared(8 * MIB);
    let mut c = Client::new(&shared, 0);
    let talk = "set a 0 0 1\r\nx\r\nflush_all\r\nset b 0 0 1\r\ny\r\nget a b\r\n";
    assert_eq!(c.say(talk), "STORED\r\nOK\r\nSTORED\r\nVALUE b 0 1\r\ny\r\nEND\r\n");
}

#[test]
fn cas_stores_only_over_the_version_it_names() {
    let shared = shared(8 * MIB);
    let mut c = Client::new(&shared, 0);
    c.say("set a 3 0 1\r\nx\r\n");
    let version = |c: &mut Client<'_>| {
        let reply = c.say("gets a\r\n");
        reply.lines().next().unwrap().split(' ').nth(4).unwrap().to_string()
    };
    let first = version(&mut c);
    assert_eq!(c.say(&format!("cas a 0 0 1 {first}\r\ny\r\n")), "STORED\r\n");
    assert_eq!(c.say(&format!("cas a 0 0 1 {first}\r\nz\r\n")), "EXISTS\r\n");
    assert_eq!(c.say(&format!("cas b 0 0 1 {first}\r\nz\r\n")), "NOT_FOUND\r\n");
    assert_ne!(version(&mut c), first);
}

#[test]
fn quit_is_answered_by_the_end_and_nothing_else() {
    let shared = shared(8 * MIB);
    let mut c = Client::new(&shared, 0);
    assert_eq!(c.say("get a\r\nquit\r\nget a\r\n"), "END\r\n");
    assert!(c.conn.is_closing());
}

#[test]
fn a_line_without_an_end_is_cut_off() {
    let shared = shared(8 * MIB);
    let mut c = Client::new(&shared, 0);
    assert_eq!(c.say(&format!("set {}", "x".repeat(2044))), "");
    assert!(!c.conn.is_closing());
    c.say("y");
    assert!(c.conn.is_closing());
}

#[test]
fn a_client_that_leaves_in_the_middle_of_a_value_leaves_nothing_behind() {
    let shared = shared(8 * MIB);
    let mut c = Client::new(&shared, 0);
    c.say("set k 0 0 1000\r\nhalf");
    assert_eq!(shared.store.figures().used_chunks, 1);
    c.close();
    let mut c = Client::new(&shared, 0);
    c.say(&format!("set k 0 0 1000\r\n{}\r\n", "v".repeat(1000)));
    c.conn.on_data(&mut c.worker, "get k\r\n".repeat(9).as_bytes());
    c.say("delete k\r\n");
    c.close();
    let figures = shared.store.figures();
    assert_eq!((figures.used_chunks, figures.curr_items, figures.bytes), (0, 0, 0));
    assert_eq!(shared.connections(), 0);
}

#[test]
fn stats_have_memcacheds_names() {
    let shared = shared(8 * MIB);
    let mut c = Client::new(&shared, 0);
    c.say("set a 0 0 1\r\nx\r\nget a b\r\n");
    let stats = c.say("stats\r\n");
    for line in ["cmd_get 2", "cmd_set 1", "get_hits 1", "get_misses 1", "curr_items 1"] {
        assert!(stats.contains(&format!("STAT {line}\r\n")), "{line} not in {stats}");
    }
    assert!(stats.ends_with("END\r\n"));
    assert!(c.say("stats items\r\n").contains(":number 1\r\n"));
    assert!(c.say("stats slabs\r\n").contains("STAT active_slabs 1\r\n"));
    assert!(c.say("stats settings\r\n").contains("STAT item_size_max 1048576\r\n"));
    assert_eq!(c.say("stats reset\r\n"), "RESET\r\n");
    assert!(c.say("stats\r\n").contains("STAT cmd_get 0\r\n"));
    assert!(c.say("stats\r\n").contains("STAT curr_connections 1\r\n"));
}

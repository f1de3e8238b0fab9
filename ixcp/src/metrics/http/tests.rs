//! Requests that are served, refused, cut short, dripped and flooded.
use super::*;

#[test]
fn a_head_is_judged_by_its_method_and_path() {
    for (head, expected) in [
        ("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", Asked::Metrics),
        ("GET /metrics?x=1 HTTP/1.0\r\n\r\n", Asked::Metrics),
        ("GET / HTTP/1.1\r\n\r\n", Asked::NotFound),
        ("GET /metrics/../x HTTP/1.1\r\n\r\n", Asked::NotFound),
        ("POST /other HTTP/1.1\r\n\r\n", Asked::NotAllowed),
        ("HEAD /metrics HTTP/1.1\r\n\r\n", Asked::NotAllowed),
        ("POST /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\n", Asked::NotAllowed),
        ("GET /metrics HTTP/1.1\r\nHo", Asked::More),
        ("", Asked::More),
        ("GET /metrics HTTP/2.0\r\n\r\n", Asked::Bad),
        ("GET /metrics\r\n\r\n", Asked::Bad),
        ("\x16\x03\x01\x02\0\x01", Asked::Bad),
        ("GET /metrics HTTP/1.1\r\nno colon\r\n\r\n", Asked::Bad),
    ] {
        assert_eq!(asked(head.as_bytes()), expected, "{head:?}");
    }
    let long = format!("GET /metrics HTTP/1.1\r\nA: {}", "a".repeat(HEAD_BYTES_MAX));
    assert_eq!(asked(&long.as_bytes()[..HEAD_BYTES_MAX]), Asked::Bad);
    let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "A: a\r\n".repeat(FIELDS_MAX + 1));
    assert_eq!(asked(many.as_bytes()), Asked::Bad);
}

/// A server on a free port, for the rest of the process.
fn server(metrics: fn() -> Result<String>) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || serve(&listener, metrics));
    address
}

/// Sends the pieces, then reads all of the answer.
fn ask(address: std::net::SocketAddr, pieces: &[&[u8]]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    for piece in pieces {
        stream.write_all(piece).unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_scrape_is_served_whole_also_if_the_request_comes_in_pieces() {
    let address = server(|| Ok("ix_alive 1\n".repeat(100_000)));
    let pieces: [&[u8]; 3] = [b"GET /met", b"rics HTTP/1.1\r\nHost: x\r", b"\n\r\n"];
    let answer = ask(address, &pieces);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("Content-Length: 1100000\r\n"), "{head}");
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    assert_eq!(body.len(), 1_100_000);
}

#[test]
fn what_is_refused_gets_an_answer_even_with_a_long_body_behind_it() {
    let address = server(|| anyhow::bail!("the directory is gone"));
    let status = |request: &[u8]| ask(address, &[request]).split("\r\n").next().unwrap().to_owned();
    assert_eq!(status(b"GET /x HTTP/1.1\r\n\r\n"), "HTTP/1.1 404 Not Found");
    let mut post = b"POST /metrics HTTP/1.1\r\n\r\n".to_vec();
    post.resize(30_000, b'x');
    assert_eq!(status(&post), "HTTP/1.1 405 Method Not Allowed");
    let head = ask(address, &[b"HEAD /metrics HTTP/1.1\r\n\r\n"]);
    assert!(head.contains("\r\nAllow: GET\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    assert_eq!(status(&[0xff; 9000]), "HTTP/1.1 400 Bad Request");
    let failed = ask(address, &[b"GET /metrics HTTP/1.1\r\n\r\n"]);
    assert!(
        failed.starts_with("HTTP/1.1 500 ") && failed.contains("directory is gone"),
        "{failed}"
    );
}

#[test]
fn a_client_that_drips_or_says_nothing_is_let_go_and_the_next_is_served() {
    let address = server(|| Ok("ix_alive 1\n".to_owned()));
    let mut drips = TcpStream::connect(address).unwrap();
    let silent = TcpStream::connect(address).unwrap();
    let gone = TcpStream::connect(address).unwrap();
    drop(gone);
    let start = Instant::now();
    std::thread::scope(|s| {
        s.spawn(|| {
            // Each byte comes well within any timeout of a single read.
            for byte in b"GET /metrics HTTP/1.1\r\nA: aaaaaaaaaaaaaaaaaaaaaaaaaa" {
                if drips.write_all(&[*byte]).is_err() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let answer = ask(address, &[b"GET /metrics HTTP/1.1\r\n\r\n"]);
        assert!(answer.ends_with("ix_alive 1\n"), "{answer}");
        // Two were waited for, and no longer than allowed (a busy machine adds to it).
        let waited = start.elapsed();
        assert!(waited >= PATIENCE * 2 && waited < PATIENCE * 5, "{waited:?}");
    });
    drop(silent);
}

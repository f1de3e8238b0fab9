//! The library behind ordinary sockets: one thread per client, as many workers as there are clients.
use kv::conn::{Conn, on_datagram};
use kv::limits::WORKERS_MAX;
use kv::store::Store;
use kv::time::Clock;
use kv::worker::{Settings, Shared, Worker};
use std::io::{IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A running server. It serves until the process ends.
pub struct Server {
    pub address: SocketAddr,
    /// Where it takes datagrams, if that port was free, too.
    pub udp: Option<SocketAddr>,
    pub shared: Arc<Shared>,
}

impl Server {
    /// Listens on a port of 127.0.0.1 that the system chooses.
    pub fn start(memory_bytes: usize) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let clock = Clock::new(unix as i64);
        let settings = Settings { port: address.port(), clock, ..Settings::default() };
        let udp = UdpSocket::bind(address);
        let store = Store::with_capacity(memory_bytes, 0x5eed);
        let shared = Arc::new(Shared::new(store, settings));
        let free = Arc::new(Mutex::new((0..WORKERS_MAX).collect::<Vec<_>>()));
        let (epoch, all, workers) = (Instant::now(), Arc::clone(&shared), Arc::clone(&free));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (shared, free) = (Arc::clone(&all), Arc::clone(&workers));
                let Some(index) = free.lock().expect("no panics").pop() else { continue };
                std::thread::spawn(move || {
                    let mut worker = Worker::new(&shared, index);
                    // A client that hangs up in the middle is no failure of the server.
                    let _ = serve(&stream, &mut worker, epoch);
                    free.lock().expect("no panics").push(index);
                });
            }
        });
        let has_udp = udp.is_ok();
        if let (Ok(socket), all) = (udp, Arc::clone(&shared)) {
            let index = free.lock().expect("no panics").pop().expect("a worker");
            std::thread::spawn(move || serve_datagrams(&socket, Worker::new(&all, index), epoch));
        }
        Server { address, udp: has_udp.then_some(address), shared }
    }
}

fn serve_datagrams(socket: &UdpSocket, mut worker: Worker<'_>, epoch: Instant) {
    let mut request = vec![0; 65536];
    while let Ok((len, client)) = socket.recv_from(&mut request) {
        worker.set_time(epoch.elapsed().as_nanos() as u64);
        on_datagram(&mut worker, &request[..len], &mut |answer| {
            // What does not fit is lost, as datagrams are.
            let _ = socket.send_to(answer, client);
        });
    }
}

fn serve(mut stream: &TcpStream, worker: &mut Worker<'_>, epoch: Instant) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut conn = Conn::new(worker);
    let mut buffer = vec![0; 16384];
    let result = loop {
        let len = match stream.read(&mut buffer) {
            Ok(0) => break Ok(()),
            Ok(len) => len,
            Err(error) => break Err(error),
        };
        worker.set_time(epoch.elapsed().as_nanos() as u64);
        let mut at = 0;
        loop {
            at += conn.on_data(worker, &buffer[at..len]);
            if let Err(error) = flush(&mut conn, worker, stream) {
                conn.close(worker);
                return Err(error);
            }
            if !conn.is_stalled() {
                break;
            }
        }
        assert_eq!(at, len, "a connection that is not stalled uses all it was given");
        if conn.is_closing() {
            break Ok(());
        }
    };
    conn.close(worker);
    result
}

fn flush(conn: &mut Conn, worker: &mut Worker<'_>, mut stream: &TcpStream) -> std::io::Result<()> {
    while conn.out.waiting() > 0 {
        let mut pieces = Vec::new();
        conn.out.peek(worker.store(), 64, |bytes| pieces.push(IoSlice::new(bytes)));
        let written = stream.write_vectored(&pieces)?;
        conn.out.take(written);
        conn.out.sent(worker.store(), &mut worker.pool, written);
    }
    Ok(())
}

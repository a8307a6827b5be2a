//! Clients that read their answers slowly, or not at all: below the floor they are cut off, above it they get all
//! of it, and a system that stops waits for neither.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use socket2::{Domain, Socket, Type};
use sq_shared::limits::{ANSWER_WINDOW, ANSWER_WINDOW_BYTES};
use sq_tests::deployment::Deployment;
use sq_tests::process::Identity;
use sq_tests::setup::Setup;
use sq_tests::{process, wait};

/// Far more than the kernel and the gateway keep for a client between them.
const LARGE_BYTES: usize = 24 << 20;

/// What a reader's kernel keeps for it: little, so that its speed is what the server sees.
const RECEIVE_BUFFER: usize = 16 << 10;

/// What a telephone gets in one packet. On the loopback device it would be 32 KiB, for which that buffer has no place:
/// the kernel drops it, and tries again after ever longer pauses.
const SEGMENT_BYTES: u32 = 1400;

/// The slowest reader that is served, in bytes a second.
const FLOOR_BYTES_PER_S: usize = (ANSWER_WINDOW_BYTES / ANSWER_WINDOW.as_secs()) as usize;

/// How far a deadline may be missed by a busy machine.
const SLACK: Duration = Duration::from_secs(5);

fn with_large_phext(setup: &Setup) -> Deployment {
    let running = Deployment::start(setup);
    let folder = running.join("data/alice");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("large.phext"), "0123456789abcdef".repeat(LARGE_BYTES / 16)).unwrap();
    running
}

fn only_worker(running: &Deployment) -> Identity {
    Identity::of(running.workers()[0].pid).expect("a running worker")
}

/// Asks for a path, and reads nothing of it yet.
fn ask(running: &Deployment, target: &str, receive_buffer: usize) -> TcpStream {
    let client = running.client_of("alice");
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    // Before it connects: the kernel does not take back how much it has said that it takes.
    socket.set_recv_buffer_size(receive_buffer).unwrap();
    socket.set_tcp_mss(SEGMENT_BYTES).unwrap();
    socket.connect(&client.address.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.write_all((client.head("GET", target) + "\r\n").as_bytes()).unwrap();
    stream
}

/// Reads so many bytes every second until the time is over; gives how many came, or how it ended.
fn sip(stream: &mut TcpStream, bytes_per_s: usize, time: Duration) -> Result<usize, (Duration, ErrorKind)> {
    let began = Instant::now();
    let mut taken = 0;
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    while began.elapsed() < time {
        let due = (began.elapsed().as_secs_f64() * bytes_per_s as f64) as usize;
        let mut bytes = vec![0; due.saturating_sub(taken)];
        match stream.read(&mut bytes) {
            Ok(0) if !bytes.is_empty() => return Err((began.elapsed(), ErrorKind::UnexpectedEof)),
            Ok(count) => taken += count,
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {}
            Err(error) => return Err((began.elapsed(), error.kind())),
        }
        wait::pass(Duration::from_millis(100));
    }
    Ok(taken)
}

/// Reads what is left; gives how much that was, and the error at its end.
fn read_to_the_end(stream: &mut TcpStream) -> (usize, Option<ErrorKind>) {
    stream.set_read_timeout(Some(wait::PATIENCE)).unwrap();
    let mut bytes = Vec::new();
    let error = stream.read_to_end(&mut bytes).err();
    (bytes.len(), error.map(|error| error.kind()))
}

fn ipv4(address: SocketAddr) -> SocketAddrV4 {
    match address {
        SocketAddr::V4(address) => address,
        SocketAddr::V6(address) => panic!("{address}: the harness uses IPv4"),
    }
}

/// A telephone with one bar: twice the floor, for longer than two windows.
#[test]
fn a_reader_above_the_floor_gets_all_of_its_answer() {
    let setup = Setup { timeouts: "idle = \"500ms\"".to_owned(), ..Setup::default() };
    let running = with_large_phext(&setup);
    let mut stream = ask(&running, "/api/v2/get?p=large", RECEIVE_BUFFER);
    let sipped = sip(&mut stream, 2 * FLOOR_BYTES_PER_S, ANSWER_WINDOW * 5 / 2);
    let sipped = sipped.unwrap_or_else(|end| panic!("cut off: {end:?}"));
    assert!(sipped > ANSWER_WINDOW_BYTES as usize * 4, "{sipped} bytes: this machine was too slow to say");
    let (rest, error) = read_to_the_end(&mut stream);
    assert!(sipped + rest > LARGE_BYTES && error.is_none(), "{sipped} bytes, then {rest}, then {error:?}");
}

/// Half the floor, a byte a second, nothing: each gives its place back after the first window in which it took too
/// little. The first window may pass, by what the kernels at both ends keep.
#[test]
fn a_reader_below_the_floor_is_cut_off() {
    let running = with_large_phext(&Setup { limits: "in_flight = 3".to_owned(), ..Setup::default() });
    let readers = [FLOOR_BYTES_PER_S / 2, 1, 0].map(|bytes_per_s| {
        let mut stream = ask(&running, "/api/v2/get?p=large", RECEIVE_BUFFER);
        std::thread::spawn(move || {
            let sipped = sip(&mut stream, bytes_per_s, ANSWER_WINDOW * 2 + SLACK);
            sipped.map_or_else(|(_, how)| Some(how), |_| read_to_the_end(&mut stream).1)
        })
    });
    let client = running.client_of("alice");
    let began = Instant::now();
    wait::until("all places taken", || client.get("/api/v2/version").status == 429);
    let address = ipv4(running.listen);
    let first = wait::within(ANSWER_WINDOW + SLACK, || (process::connections(address) < 3).then_some(()));
    assert!(first.is_some(), "nobody was cut off after {:?}", began.elapsed());
    assert!(began.elapsed() >= ANSWER_WINDOW, "cut off after {:?}", began.elapsed());
    client.get("/api/v2/version").ok();
    let all = wait::within(ANSWER_WINDOW + SLACK, || (process::connections(address) == 0).then_some(()));
    assert!(all.is_some(), "somebody is still there after {:?}", began.elapsed());
    for reader in readers {
        assert_eq!(reader.join().unwrap(), Some(ErrorKind::ConnectionReset));
    }
}

/// Short answers that the kernel keeps, and long ones of which it keeps a part: nobody reads them, and none of the
/// connections stays.
#[test]
fn answers_of_many_lengths_that_nobody_reads_are_given_up() {
    /// The shortest fits into what the kernel keeps (`CLIENT_UNSENT_BYTES`); the longest has 1.4 MB, and of that the
    /// gateway keeps less than 1 MiB.
    const ANSWERS: usize = 28;
    const STEP_BYTES: usize = 50_000;
    let setup = Setup { timeouts: "idle = \"500ms\"".to_owned(), ..Setup::default() };
    let running = Deployment::start(&setup);
    let client = running.client_of("alice");
    let at = |number| format!("p=sizes&c=1.1.1/1.1.1/1.1.{number}");
    for number in 1..=ANSWERS {
        client.post(&format!("/api/v2/update?{}", at(number)), "x".repeat(number * STEP_BYTES)).ok();
    }
    let began = Instant::now();
    let unread: Vec<TcpStream> =
        (1..=ANSWERS).map(|number| ask(&running, &format!("/api/v2/select?{}", at(number)), 2304)).collect();
    let connected = || process::connections(ipv4(running.listen));
    let some = wait::within(SLACK, || (connected() < ANSWERS).then_some(()));
    assert!(some.is_some(), "no answer fits into what the kernel keeps");
    assert!(connected() > 0, "every answer fits into what the kernel keeps");
    let left = wait::within(ANSWER_WINDOW * 2 + SLACK, || (connected() == 0).then_some(()));
    assert!(left.is_some(), "{} connections are kept after {:?}", connected(), began.elapsed());
    drop(unread);
}

/// Gateway and worker both end within their drain, whoever still reads.
#[test]
fn a_system_that_stops_does_not_wait_for_slow_readers() {
    let drain = Duration::from_secs(2);
    let setup = Setup { timeouts: format!("drain = \"{}s\"", drain.as_secs()), ..Setup::default() };
    let mut running = with_large_phext(&setup);
    let readers = [RECEIVE_BUFFER; 3].map(|buffer| ask(&running, "/api/v2/get?p=large", buffer));
    wait::until("a worker", || running.worker_of("alice").is_some());
    let worker = only_worker(&running);
    let began = Instant::now();
    running.signal(Signal::TERM);
    assert_eq!(running.ended().code(), Some(0));
    assert!(!worker.is_alive(), "the worker outlived the pool");
    assert!(began.elapsed() < drain * 2 + SLACK, "{:?}", began.elapsed());
    drop(readers);
}

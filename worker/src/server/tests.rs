//! The server on a real socket, with slow clients.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use sq_shared::layout;
use sq_shared::phext_name::PhextName;
use sq_shared::registry::{Key, Scope};
use sq_shared::token::BearerToken;
use tokio::task::spawn_blocking;

use super::*;
use crate::settings::WorkerSettings;
use crate::store::{DataDirectory, Limits, Store};

/// More than the kernel buffers for both ends of a connection.
const LARGE_BYTES: usize = 32 * 1024 * 1024;

fn settings(idle_timeout_ms: u64) -> WorkerSettings {
    let sha256 = BearerToken::parse(b"secret").unwrap().digest();
    WorkerSettings {
        keys: vec![Key { id: "k1".into(), sha256, scope: Scope::Write, expires_s: None }],
        quota_bytes: None,
        phexts: None,
        coordinate: None,
        memory_bytes: 1 << 20,
        body_bytes: None,
        idle_timeout_ms,
        drain_ms: 50,
        directory: None,
    }
}

fn store(dir: &Path, scroll: String) -> Store {
    std::fs::write(layout::phext_file(dir, &PhextName::parse("notes").unwrap()), scroll).unwrap();
    Store::open(
        DataDirectory::open(dir).unwrap(),
        Limits { quota_bytes: None, phexts: None, coordinate: None, memory_bytes: 1 << 20 },
    )
    .unwrap()
}

/// Serves until the worker's idle timeout, while a client runs.
async fn serve_for<T: Send + 'static>(
    worker: Rc<Worker>,
    client: impl FnOnce(SocketAddr) -> T + Send + 'static,
) -> T {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let client = spawn_blocking(move || client(address));
    let serving = run(listener, worker, None, Signals::for_worker(false).unwrap());
    let (served, outcome) = tokio::join!(serving, client);
    served.unwrap();
    outcome.unwrap()
}

fn get(address: SocketAddr, target: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "GET /api/v2/{target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: secret\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

#[tokio::test(flavor = "local")]
async fn an_idle_worker_waits_for_a_client_that_reads_slowly() {
    let dir = tempfile::tempdir().unwrap();
    let worker = Rc::new(Worker::for_pool(None, store(dir.path(), "x".repeat(LARGE_BYTES)), settings(20)));
    let (begun, begins) = tokio::sync::oneshot::channel();
    let reading = serve_for(Rc::clone(&worker), |address| {
        let mut stream = get(address, "get?p=notes");
        let mut bytes = vec![0; 1024];
        stream.read_exact(&mut bytes).unwrap();
        begun.send(()).unwrap();
        // Reading in pieces takes much longer than idle timeout and drain together.
        let mut piece = vec![0; 256 * 1024];
        loop {
            match stream.read(&mut piece)? {
                0 => return Ok::<_, io::Error>(bytes.len()),
                length => bytes.extend_from_slice(&piece[..length]),
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
    });
    let checking = async {
        begins.await.unwrap();
        assert_eq!(worker.answer_budget.reserved_kib(), LARGE_BYTES / 1024, "reserved while it is read");
    };
    let (bytes, ()) = tokio::join!(reading, checking);
    let bytes = bytes.unwrap();
    assert_eq!(worker.answer_budget.reserved_kib(), 0, "freed");
    assert!(bytes > LARGE_BYTES, "{bytes} bytes, head and all");
}

#[tokio::test(flavor = "local")]
async fn long_answers_made_in_pieces_are_complete() {
    let dir = tempfile::tempdir().unwrap();
    let text = "a \"quoted\" line\n".repeat(100_000);
    let worker = Rc::new(Worker::for_pool(None, store(dir.path(), text.clone()), settings(500)));
    let answers = serve_for(worker, |address| {
        ["get?p=notes", "json-export?p=notes", "toc?p=notes"].map(|target| {
            let mut answer = String::new();
            get(address, target).read_to_string(&mut answer).unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            (head.to_lowercase(), body.to_owned())
        })
    });
    let [whole, json, lines] = answers.await;
    assert!(whole.0.contains(&format!("content-length: {}", text.len())), "{}", whole.0);
    assert!(whole.1 == text);
    assert!(json.0.contains("transfer-encoding: chunked"), "{}", json.0);
    let mut body = String::new();
    let mut rest = json.1.as_str();
    while let Some((size, behind)) = rest.split_once("\r\n") {
        let (chunk, behind) = behind.split_at(usize::from_str_radix(size, 16).unwrap());
        body += chunk;
        rest = &behind[2..];
    }
    let rows: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert!(rows == serde_json::json!([{ "coord": "1.1.1/1.1.1/1.1.1", "scroll": text }]));
    assert!(lines.0.contains("content-length: 40"), "{}", lines.0);
    assert_eq!(lines.1, "* 1.1.1/1.1.1/1.1.1: a \"quoted\" line...\n");
}

#[tokio::test(flavor = "local")]
async fn a_worker_whose_disk_fails_answers_503_and_ends_with_an_error() {
    let store = Store::on_a_failing_disk();
    let worker = Worker::for_pool(None, store, settings(60_000));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let client = spawn_blocking(move || {
        let mut answer = String::new();
        get(address, "update?p=notes&c=1.1.1/1.1.1/1.1.1&s=new").read_to_string(&mut answer).unwrap();
        answer
    });
    let serving = run(listener, Rc::new(worker), None, Signals::for_worker(false).unwrap());
    let (served, answer) = tokio::join!(serving, client);
    assert!(answer.unwrap().starts_with("HTTP/1.1 503 "));
    assert!(served.is_err());
}

#[tokio::test(flavor = "local")]
async fn slow_bodies_of_unknown_length_do_not_block_others() {
    const STEP: usize = 100 * 1024;
    let dir = tempfile::tempdir().unwrap();
    let worker = Rc::new(Worker::for_pool(None, store(dir.path(), String::new()), settings(100)));
    let upload = |address| {
        let mut stream = TcpStream::connect(address).unwrap();
        let target = "/api/v2/update?p=notes&c=1.1.1/1.1.1/1.1.1";
        let fields = "Host: x\r\nConnection: close\r\nAuthorization: secret\r\nTransfer-Encoding: chunked";
        write!(stream, "POST {target} HTTP/1.1\r\n{fields}\r\n\r\n").unwrap();
        stream
    };
    let chunk = |stream: &mut TcpStream| write!(stream, "{STEP:x}\r\n{}\r\n", "x".repeat(STEP)).unwrap();
    let end = |mut stream: TcpStream| {
        stream.write_all(b"0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let answers = serve_for(Rc::clone(&worker), move |address| {
        let mut slow = [upload(address), upload(address), upload(address)];
        slow.iter_mut().for_each(chunk);
        let mut quick = upload(address);
        (0..20).for_each(|_| chunk(&mut quick));
        let first = end(quick);
        let others = slow.map(|mut stream| {
            chunk(&mut stream);
            end(stream)
        });
        (first, others)
    });
    let (first, others) = answers.await;
    assert!(first.ends_with("Updated 2048000 bytes"), "{first}");
    others.iter().for_each(|answer| assert!(answer.ends_with("Updated 204800 bytes"), "{answer}"));
    assert_eq!(worker.body_budget.reserved_kib(), 0, "freed");
}

/// Many clients declare the longest bodies and send nothing of them: another client's large body is still accepted.
#[tokio::test(flavor = "local")]
async fn declared_bodies_that_never_arrive_do_not_block_others() {
    const BYTES: usize = 64 << 20;
    let dir = tempfile::tempdir().unwrap();
    let worker = Rc::new(Worker::for_pool(None, store(dir.path(), String::new()), settings(500)));
    let upload = |address| {
        let mut stream = TcpStream::connect(address).unwrap();
        let target = "/api/v2/update?p=notes&c=1.1.1/1.1.1/1.1.1";
        let fields =
            format!("Host: x\r\nConnection: close\r\nAuthorization: secret\r\nContent-Length: {BYTES}");
        write!(stream, "POST {target} HTTP/1.1\r\n{fields}\r\n\r\n").unwrap();
        stream
    };
    let answer = serve_for(Rc::clone(&worker), move |address| {
        let declared: Vec<TcpStream> = (0..32).map(|_| upload(address)).collect();
        let mut honest = upload(address);
        honest.write_all("x".repeat(BYTES).as_bytes()).unwrap();
        let mut answer = String::new();
        honest.read_to_string(&mut answer).unwrap();
        drop(declared);
        answer
    });
    let answer = answer.await;
    assert!(answer.ends_with("Updated 67108864 bytes"), "{answer}");
    assert_eq!(worker.body_budget.reserved_kib(), 0, "freed");
}

//! A program in a tenant's slot that does what it is told with each request, instead of a worker.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::set_socket_linger;
use sq_tests::wait;

use super::behaviour::{GOOD, READ_BODY_BYTES, Step};

/// How long a worker tries to hold the gateway: far longer than any bound.
const OBSTINACY: Duration = Duration::from_secs(60);

/// What it does now with each request, and where it says that it has.
struct Orders {
    steps: Vec<Step>,
    done: Sender<()>,
}

/// The worker, which listens until its test ends.
pub(super) struct Worker {
    orders: Arc<Mutex<Arc<Orders>>>,
}

impl Worker {
    /// A good one, for the time being.
    pub(super) fn listen(address: Ipv4Addr, port: u16) -> Self {
        let listener = TcpListener::bind((address, port)).unwrap();
        let good = Orders { steps: vec![Step::Send(GOOD.into())], done: mpsc::channel().0 };
        let orders = Arc::new(Mutex::new(Arc::new(good)));
        let given = Arc::clone(&orders);
        // They end with the process: a listener cannot be waited for and told to stop.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let given = Arc::clone(&given);
                thread::spawn(move || serve(stream, &given));
            }
        });
        Self { orders }
    }

    /// From now on it does this with each request. What is received tells that it has done so once.
    pub(super) fn does(&self, steps: Vec<Step>) -> Receiver<()> {
        let (done, is_done) = mpsc::channel();
        *self.orders.lock().unwrap() = Arc::new(Orders { steps, done });
        is_done
    }
}

/// Serves the requests of one connection, until it ends.
fn serve(mut stream: TcpStream, given: &Mutex<Arc<Orders>>) {
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(OBSTINACY)).unwrap();
    stream.set_write_timeout(Some(OBSTINACY)).unwrap();
    while read_request(&mut stream).is_some() {
        let orders = Arc::clone(&given.lock().unwrap());
        let is_open = orders.steps.iter().all(|step| take(&mut stream, step).is_some());
        // The test may have seen enough.
        let _ = orders.done.send(());
        if !is_open {
            return;
        }
    }
}

/// Reads the head of a request, and a short body.
fn read_request(stream: &mut TcpStream) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.extend(byte);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let body_bytes = length.filter(|bytes| *bytes <= READ_BODY_BYTES).unwrap_or(0);
    stream.read_exact(&mut vec![0; body_bytes]).ok()
}

/// Takes a step; `None` when it is the last one.
fn take(stream: &mut TcpStream, step: &Step) -> Option<()> {
    let until = Instant::now() + OBSTINACY;
    match step {
        Step::Send(bytes) => stream.write_all(bytes).ok()?,
        Step::Bytewise(bytes) => bytes.iter().try_for_each(|byte| {
            wait::pass(Duration::from_micros(200));
            stream.write_all(&[*byte]).ok()
        })?,
        Step::Flood(bytes) => {
            let many = bytes.repeat(1 + 4096 / bytes.len());
            while Instant::now() < until {
                stream.write_all(&many).ok()?;
            }
        }
        Step::Drip(byte) => {
            while Instant::now() < until {
                stream.write_all(&[*byte]).ok()?;
                wait::pass(Duration::from_millis(50));
            }
        }
        Step::Pause(ms) => wait::pass(Duration::from_millis(*ms)),
        Step::Wait => {
            is_closed_within(stream, OBSTINACY);
            return None;
        }
        Step::Sip => {
            let mut sip = [0; 64];
            while !is_closed_within(stream, Duration::from_millis(100)) && Instant::now() < until {
                stream.read_exact(&mut sip).ok()?;
            }
        }
        Step::HalfClose => stream.shutdown(std::net::Shutdown::Write).ok()?,
        Step::Close => return None,
        Step::Reset => {
            set_socket_linger(&*stream, Some(Duration::ZERO)).unwrap();
            return None;
        }
    }
    Some(())
}

/// Waits until the gateway has closed, without reading what it sent.
fn is_closed_within(stream: &TcpStream, time: Duration) -> bool {
    let limit = Timespec::try_from(time).unwrap();
    poll(&mut [PollFd::new(stream, PollFlags::RDHUP)], Some(&limit)).unwrap() > 0
}

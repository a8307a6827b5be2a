//! A fake worker that does the same steps with each request, on as many connections as come.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::set_socket_linger;

use super::{FakeWorker, Head, SERVED};
use crate::wait;

/// How long a worker tries to hold the gateway: far longer than any of the gateway's deadlines.
const HOLD: Duration = Duration::from_secs(120);

/// What it does with each request from now on, and where it says that it has.
#[derive(Debug)]
struct Orders {
    steps: Vec<Step>,
    done: Sender<()>,
}

/// A body up to this length is read before the first step; nothing of a longer one is read.
const READ_BODY_BYTES: usize = 1024;

/// One thing that the worker does. A step that fails because the gateway has closed the connection is the last one.
#[derive(Debug, Clone)]
pub enum Step {
    /// Sends bytes.
    Send(Vec<u8>),
    /// Sends bytes, each by itself.
    Bytewise(Vec<u8>),
    /// Sends the same bytes again and again, until the gateway closes.
    Flood(Vec<u8>),
    /// Sends the same byte again and again, one in 50 ms, until the gateway closes.
    Drip(u8),
    /// Does nothing for so many milliseconds.
    Pause(u64),
    /// Does nothing until the gateway closes.
    Wait,
    /// Reads 64 bytes of the request in 100 ms, until the gateway closes.
    Sip,
    /// Sends no more, but keeps the connection.
    HalfClose,
    /// Closes.
    Close,
    /// Closes with a reset.
    Reset,
}

/// The worker, which listens until the test's process ends.
#[derive(Debug)]
pub struct ScriptedWorker {
    orders: Arc<Mutex<Arc<Orders>>>,
}

impl ScriptedWorker {
    /// Listens in a slot, and answers well until it is told otherwise.
    pub fn listen(address: Ipv4Addr, port: u16) -> Self {
        let worker = FakeWorker::listen(address, port);
        let good = Orders { steps: vec![Step::Send(SERVED.into())], done: mpsc::channel().0 };
        let orders = Arc::new(Mutex::new(Arc::new(good)));
        let given = Arc::clone(&orders);
        // The threads end with the process: a thread that waits for a connection cannot be told to stop.
        thread::spawn(move || {
            loop {
                let (stream, given) = (worker.accept(), Arc::clone(&given));
                thread::spawn(move || serve(stream, &given));
            }
        });
        Self { orders }
    }

    /// Does this with each request from now on. The receiver hears each time that it has been done.
    ///
    /// # Panics
    /// A thread of the worker did.
    pub fn does(&self, steps: Vec<Step>) -> Receiver<()> {
        let (done, is_done) = mpsc::channel();
        *self.orders.lock().unwrap() = Arc::new(Orders { steps, done });
        is_done
    }
}

/// Serves the requests of one connection, until it ends.
fn serve(mut stream: TcpStream, given: &Mutex<Arc<Orders>>) {
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(HOLD)).unwrap();
    stream.set_write_timeout(Some(HOLD)).unwrap();
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

/// Reads a request: its head, and its body if that is short.
fn read_request(stream: &mut TcpStream) -> Option<()> {
    let body_bytes = Head::read(stream).ok()?.body_bytes();
    let read_bytes = if body_bytes <= READ_BODY_BYTES { body_bytes } else { 0 };
    stream.read_exact(&mut vec![0; read_bytes]).ok()
}

/// Takes a step; `None` when it is the last one.
fn take(stream: &mut TcpStream, step: &Step) -> Option<()> {
    let until = Instant::now() + HOLD;
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
            is_closed_within(stream, HOLD);
            return None;
        }
        Step::Sip => {
            let mut sip = [0; 64];
            while !is_closed_within(stream, Duration::from_millis(100)) && Instant::now() < until {
                stream.read_exact(&mut sip).ok()?;
            }
        }
        Step::HalfClose => stream.shutdown(Shutdown::Write).ok()?,
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

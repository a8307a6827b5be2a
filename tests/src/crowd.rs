//! A crowd of slow clients, all of them driven by one thread: each sends what opens its attack, then a byte at a
//! time or nothing, and reads what comes or nothing. Who is cut off is noted, and comes again.

use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::net::sockopt::set_socket_recv_buffer_size;

/// How often the thread looks whose next byte is due. So short that 3,000 who send a byte a second come in handfuls:
/// a crowd in step would be a flood, many times a second.
const TICK: Duration = Duration::from_millis(4);

/// The smallest receive buffer that Linux gives (socket(7), `SO_RCVBUF`): what a client does not read waits at
/// the server.
const SMALLEST_BUFFER: usize = 2304;

/// Between two that come: a crowd of 3,000 is there in seven seconds. Were they to come at once, they would also be
/// cut off at once, ten seconds later, and what honest clients see would be how long 2,000 refusals take.
const ARRIVAL_GAP: Duration = Duration::from_micros(2500);

/// What one kind of client does.
#[derive(Debug, Clone)]
pub struct Manner {
    /// What the kind is called in a report.
    pub name: &'static str,
    /// What each sends at once.
    pub opening: Vec<u8>,
    /// What each then sends, and how far apart.
    pub drip: Option<(u8, Duration)>,
    /// Whether it reads; who does not has the smallest receive buffer.
    pub reads: bool,
}

/// A connection that the server has ended.
#[derive(Debug, Clone)]
pub struct End {
    /// The kind of client.
    pub name: &'static str,
    /// How long it was connected.
    pub after: Duration,
    /// The first bytes that it read.
    pub read: Vec<u8>,
}

/// A crowd at work.
#[derive(Debug)]
pub struct Crowd {
    shared: Arc<Shared>,
    thread: JoinHandle<Vec<End>>,
}

#[derive(Debug, Default)]
struct Shared {
    connected: AtomicUsize,
    /// Who is cut off stays away.
    leaving: AtomicBool,
    /// Whoever is still connected goes.
    over: AtomicBool,
}

struct Member {
    manner: usize,
    stream: TcpStream,
    since: Instant,
    next_drip: Instant,
    read: Vec<u8>,
}

impl Crowd {
    /// Starts so many clients of each manner.
    pub fn start(server: SocketAddr, kinds: Vec<(usize, Manner)>) -> Self {
        let shared = Arc::new(Shared::default());
        let driver = Driver::new(server, kinds, Arc::clone(&shared));
        Self { shared, thread: std::thread::spawn(move || driver.run()) }
    }

    /// How many are connected now.
    pub fn connected(&self) -> usize {
        self.shared.connected.load(Ordering::Relaxed)
    }

    /// From now on nobody comes again.
    pub fn leave(&self) {
        self.shared.leaving.store(true, Ordering::Relaxed);
    }

    /// Ends the attack; gives the ends that the server made.
    ///
    /// # Panics
    /// The thread did.
    pub fn end(self) -> Vec<End> {
        self.leave();
        self.shared.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("the thread of the crowd")
    }
}

struct Driver {
    server: SocketAddr,
    manners: Vec<Manner>,
    to_come: VecDeque<usize>,
    next_arrival: Instant,
    members: HashMap<u64, Member>,
    epoll: std::os::fd::OwnedFd,
    shared: Arc<Shared>,
    number: u64,
    ends: Vec<End>,
}

impl Driver {
    fn new(server: SocketAddr, kinds: Vec<(usize, Manner)>, shared: Arc<Shared>) -> Self {
        let mut to_come = VecDeque::new();
        for (index, (count, _)) in kinds.iter().enumerate() {
            to_come.extend(std::iter::repeat_n(index, *count));
        }
        Self {
            server,
            manners: kinds.into_iter().map(|(_, manner)| manner).collect(),
            to_come,
            next_arrival: Instant::now(),
            members: HashMap::new(),
            epoll: epoll::create(CreateFlags::CLOEXEC).expect("an epoll"),
            shared,
            number: 0,
            ends: Vec::new(),
        }
    }

    fn run(mut self) -> Vec<End> {
        // An attacker's processor is not the server's: here they are the same, so this thread goes last.
        rustix::process::setpriority_process(None, 19).expect("the lowest priority");
        let tick = rustix::event::Timespec { tv_sec: 0, tv_nsec: TICK.as_nanos().try_into().expect("short") };
        let mut events = Vec::with_capacity(1024);
        let mut looked = Instant::now();
        while !self.shared.over.load(Ordering::Relaxed) {
            if !self.shared.leaving.load(Ordering::Relaxed) {
                self.connect();
            }
            events.clear();
            let waited = epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&tick));
            if waited.is_ok() {
                events.iter().for_each(|event| self.hear(*event));
            }
            if looked.elapsed() >= TICK {
                looked = Instant::now();
                self.drip();
            }
            self.shared.connected.store(self.members.len(), Ordering::Relaxed);
        }
        self.ends
    }

    fn connect(&mut self) {
        while self.next_arrival <= Instant::now()
            && let Some(manner) = self.to_come.pop_front()
        {
            self.next_arrival += ARRIVAL_GAP;
            match TcpStream::connect(self.server) {
                Ok(stream) => self.join(manner, stream),
                // A full backlog makes it wait.
                Err(_) => self.to_come.push_back(manner),
            }
        }
        if self.to_come.is_empty() {
            self.next_arrival = self.next_arrival.max(Instant::now());
        }
    }

    fn join(&mut self, manner: usize, mut stream: TcpStream) {
        let Some(Manner { reads, opening, .. }) = self.manners.get(manner) else { return };
        if !reads {
            set_socket_recv_buffer_size(&stream, SMALLEST_BUFFER).expect("a receive buffer");
        }
        // A server that has closed already is seen by reading.
        let _ = stream.write_all(opening);
        stream.set_nonblocking(true).expect("a socket that does not block");
        self.number += 1;
        // An end is told by EPOLLHUP and EPOLLERR, which nobody has to ask for.
        let wanted = if *reads { EventFlags::IN } else { EventFlags::empty() };
        epoll::add(&self.epoll, &stream, EventData::new_u64(self.number), wanted).expect("a place");
        let now = Instant::now();
        self.members
            .insert(self.number, Member { manner, stream, since: now, next_drip: now, read: Vec::new() });
    }

    fn drip(&mut self) {
        let now = Instant::now();
        for member in self.members.values_mut().filter(|member| member.next_drip <= now) {
            let Some((byte, pause)) = self.manners.get(member.manner).and_then(|manner| manner.drip) else {
                continue;
            };
            member.next_drip = now + pause;
            // Whether the server still listens is seen by reading.
            let _ = member.stream.write(&[byte]);
        }
    }

    fn hear(&mut self, event: Event) {
        let (number, flags) = (event.data.u64(), event.flags);
        let Some(member) = self.members.get_mut(&number) else { return };
        let mut bytes = [0; 4096];
        let is_over = match self.manners.get(member.manner).is_some_and(|manner| manner.reads) {
            true => match member.stream.read(&mut bytes) {
                Ok(0) => true,
                Ok(count) => {
                    member.read.extend(bytes.iter().take(count));
                    false
                }
                Err(error) => error.kind() != ErrorKind::WouldBlock,
            },
            false => flags.intersects(EventFlags::HUP | EventFlags::ERR),
        };
        if is_over && let Some(member) = self.members.remove(&number) {
            let name = self.manners.get(member.manner).map_or("", |manner| manner.name);
            self.ends.push(End { name, after: member.since.elapsed(), read: member.read });
            self.to_come.push_back(member.manner);
        }
    }
}

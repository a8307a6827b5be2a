//! The ways out, a row each.

use std::ffi::CStr;
use std::io;

use rustix::net::{SendFlags, SocketAddrUnix, bind, connect, sendto};

use super::call;
use super::field::Field;

/// One way out.
pub(super) struct Row {
    /// What it tries.
    pub(super) name: &'static str,
    /// Who can do it outside.
    pub(super) privilege: Privilege,
    /// What stops it.
    pub(super) wall: Wall,
    /// Tries it.
    pub(super) attempt: fn(&Field) -> io::Result<i64>,
}

/// Who can do it without walls.
#[derive(Clone, Copy)]
pub(super) enum Privilege {
    Anyone,
    Root,
}

/// What it takes to stop it.
#[derive(Clone, Copy)]
pub(super) enum Wall {
    /// Landlock and seccomp, which are required.
    Required,
    /// A root directory of its own, which is taken where it is to be had.
    OwnRoot,
}

impl Privilege {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Anyone => "anyone",
            Self::Root => "root",
        }
    }
}

impl Wall {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::OwnRoot => "own-root",
        }
    }
}

const HERE: usize = libc::AT_FDCWD as usize;
const SECRET: &str = "secret.phext";

/// All of them.
pub(super) fn rows() -> Vec<Row> {
    [reading(), changing(), making(), shared(), processes(), network(), kernel(), memory()]
        .into_iter()
        .flatten()
        .collect()
}

fn row(name: &'static str, attempt: fn(&Field) -> io::Result<i64>) -> Row {
    Row { name, privilege: Privilege::Anyone, wall: Wall::Required, attempt }
}

fn root_row(name: &'static str, attempt: fn(&Field) -> io::Result<i64>) -> Row {
    Row { privilege: Privilege::Root, ..row(name, attempt) }
}

fn address(text: &CStr) -> usize {
    text.as_ptr() as usize
}

fn open(path: &CStr, flags: i32) -> io::Result<i64> {
    call(libc::SYS_openat, [HERE, address(path), flags as usize, 0o600, 0, 0])
}

fn plain(number: i64, arguments: &[usize]) -> io::Result<i64> {
    let mut all = [0; 6];
    all.iter_mut().zip(arguments).for_each(|(place, argument)| *place = *argument);
    call(number, all)
}

fn reading() -> Vec<Row> {
    vec![
        row("read a neighbour's file", |field| open(&field.in_neighbour(SECRET), libc::O_RDONLY)),
        row("list a neighbour's directory", |field| {
            open(&field.neighbour, libc::O_RDONLY | libc::O_DIRECTORY)
        }),
        row("read by a link in the own directory", |field| open(&field.in_own("link.phext"), libc::O_RDONLY)),
        row("read by a way upwards", |field| {
            let own = open(&field.own, libc::O_RDONLY | libc::O_DIRECTORY);
            let own = own.or_else(|_| open(c".", libc::O_RDONLY | libc::O_DIRECTORY))? as usize;
            let path = c"../neighbour/secret.phext";
            plain(libc::SYS_openat, &[own, address(path), libc::O_RDONLY as usize])
        }),
        row("read by the root of another process", |field| open(&field.by_root_of_process(), libc::O_RDONLY)),
        row("read the system's files", |_| open(c"/etc/passwd", libc::O_RDONLY)),
        row("read its own environment", |_| open(c"/proc/self/environ", libc::O_RDONLY)),
        Row {
            wall: Wall::OwnRoot,
            ..row("look at a neighbour's file", |field| {
                let mut found = [0_u8; 512];
                let path = field.in_neighbour(SECRET);
                let mask = libc::STATX_BASIC_STATS as usize;
                plain(libc::SYS_statx, &[HERE, address(&path), 0, mask, found.as_mut_ptr() as usize])
            })
        },
    ]
}

fn changing() -> Vec<Row> {
    vec![
        row("write a neighbour's file", |field| open(&field.in_neighbour(SECRET), libc::O_WRONLY)),
        row("cut a neighbour's file off", |field| {
            let path = field.in_neighbour("cut.phext");
            plain(libc::SYS_truncate, &[address(&path), 0])
        }),
        row("empty a neighbour's file", |field| {
            open(&field.in_neighbour("cut.phext"), libc::O_WRONLY | libc::O_TRUNC)
        }),
        row("make a file in a neighbour's directory", |field| {
            open(&field.in_neighbour("new.phext"), libc::O_WRONLY | libc::O_CREAT)
        }),
        row("delete a neighbour's file", |field| {
            plain(libc::SYS_unlinkat, &[HERE, address(&field.in_neighbour("gone.phext")), 0])
        }),
        row("link a neighbour's file into the own directory", |field| {
            let (from, to) = (field.in_neighbour(SECRET), field.in_own("stolen.phext"));
            plain(libc::SYS_linkat, &[HERE, address(&from), HERE, address(&to), 0])
        }),
        row("move a neighbour's file into the own directory", |field| {
            let (from, to) = (field.in_neighbour("moved.phext"), field.in_own("moved.phext"));
            plain(libc::SYS_renameat, &[HERE, address(&from), HERE, address(&to)])
        }),
        row("move a file into a neighbour's directory", |field| {
            let (from, to) = (field.in_own("own.phext"), field.in_neighbour("gift.phext"));
            plain(libc::SYS_renameat, &[HERE, address(&from), HERE, address(&to)])
        }),
        row("change the mode of a neighbour's file", |field| {
            plain(libc::SYS_fchmodat, &[HERE, address(&field.in_neighbour(SECRET)), 0o600])
        }),
        row("change the owner of a neighbour's file", |field| {
            let nobody = usize::MAX;
            plain(libc::SYS_fchownat, &[HERE, address(&field.in_neighbour(SECRET)), nobody, nobody, 0])
        }),
        row("change the time of a neighbour's file", |field| {
            plain(libc::SYS_utimensat, &[HERE, address(&field.in_neighbour(SECRET)), 0, 0])
        }),
    ]
}

fn making() -> Vec<Row> {
    vec![
        row("make a link", |field| {
            let (to, link) = (c"/etc/passwd", field.in_own("made-link"));
            plain(libc::SYS_symlinkat, &[address(to), HERE, address(&link)])
        }),
        row("make a directory", |field| {
            plain(libc::SYS_mkdirat, &[HERE, address(&field.in_own("made-dir")), 0o700])
        }),
        row("make a pipe in the file system", |field| {
            let mode = (libc::S_IFIFO | 0o600) as usize;
            plain(libc::SYS_mknodat, &[HERE, address(&field.in_own("made-pipe")), mode, 0])
        }),
        row("change the directory", |_| plain(libc::SYS_chdir, &[address(c"/")])),
        root_row("change the root", |_| plain(libc::SYS_chroot, &[address(c"/")])),
        row("cut the log off", |_| plain(libc::SYS_ftruncate, &[2, 0])),
        row("write into the middle of the log", |_| plain(libc::SYS_pwrite64, &[2, address(c"x"), 1, 0])),
        row("get the log by another number", |_| {
            plain(libc::SYS_fcntl, &[2, libc::F_DUPFD_CLOEXEC as usize, 0])
        }),
        row("cut the log off by a longer number", |_| plain(libc::SYS_ftruncate, &[(1 << 32) + 2, 0])),
    ]
}

/// What others have too: the log, and the slot's socket.
fn shared() -> Vec<Row> {
    vec![
        row("go back in the log", |_| plain(libc::SYS_lseek, &[2, 0, libc::SEEK_SET as usize])),
        row("read the log", |_| {
            let mut byte = 0_u8;
            plain(libc::SYS_read, &[2, (&raw mut byte) as usize, 1])
        }),
        row("make the log drop lines", |_| {
            let mut yes = 1_i32;
            plain(libc::SYS_ioctl, &[2, libc::FIONBIO as usize, (&raw mut yes) as usize])
        }),
        row("lock the log", |_| plain(libc::SYS_flock, &[2, libc::LOCK_EX as usize])),
        row("make the slot's socket block", |field| {
            plain(libc::SYS_fcntl, &[Field::number(&field.slot), libc::F_SETFL as usize, 0])
        }),
        row("make the slot's socket block by another call", |field| {
            let mut no = 0_i32;
            let request = libc::FIONBIO as usize;
            plain(libc::SYS_ioctl, &[Field::number(&field.slot), request, (&raw mut no) as usize])
        }),
        row("get the slot's socket by another number", |field| {
            plain(libc::SYS_fcntl, &[Field::number(&field.slot), libc::F_DUPFD_CLOEXEC as usize, 0])
        }),
        row("end the slot's socket for all", |field| {
            plain(libc::SYS_shutdown, &[Field::number(&field.slot), libc::SHUT_RD as usize])
        }),
        root_row("filter who comes to the slot's socket", |field| {
            // One instruction: take nothing.
            let drop_all = [6_u64];
            let program = [1_u64, drop_all.as_ptr() as u64];
            let (level, name) = (libc::SOL_SOCKET as usize, libc::SO_ATTACH_FILTER as usize);
            let length = size_of_val(&program);
            let slot = Field::number(&field.slot);
            plain(libc::SYS_setsockopt, &[slot, level, name, program.as_ptr() as usize, length])
        }),
        row("map a file", |field| {
            let file = open(&field.in_own("own.phext"), libc::O_RDONLY);
            let file = file.or_else(|_| open(c"own.phext", libc::O_RDONLY))? as usize;
            let (how, kind) = (libc::PROT_READ as usize, libc::MAP_PRIVATE as usize);
            plain(libc::SYS_mmap, &[0, 4096, how, kind, file, 0])
        }),
        row("ask where it is", |_| {
            let mut path = [0_u8; 4096];
            plain(libc::SYS_getcwd, &[path.as_mut_ptr() as usize, path.len()])
        }),
    ]
}

fn processes() -> Vec<Row> {
    vec![
        row("signal a process", |field| plain(libc::SYS_kill, &[field.pid, libc::SIGCONT as usize])),
        row("signal a thread", |field| {
            plain(libc::SYS_tgkill, &[field.pid, field.pid, libc::SIGCONT as usize])
        }),
        row("trace a process", |field| plain(libc::SYS_ptrace, &[libc::PTRACE_SEIZE as usize, field.pid])),
        row("hold a process", |field| plain(libc::SYS_pidfd_open, &[field.pid, 0])),
        row("change the limits of a process", |field| {
            let limit = [0_u64; 2];
            plain(libc::SYS_prlimit64, &[field.pid, libc::RLIMIT_CORE as usize, limit.as_ptr() as usize, 0])
        }),
        row("fork", |_| become_two(libc::SIGCHLD as usize)),
        row("fork and wait", |_| become_two((libc::CLONE_VFORK | libc::SIGCHLD) as usize)),
        row("fork by the newest call", |_| {
            let mut request = [0_u64; 8];
            request[4] = libc::SIGCHLD as u64;
            end_if_child(plain(libc::SYS_clone3, &[request.as_ptr() as usize, size_of_val(&request)]))
        }),
        row("run a program", |_| {
            let words = [address(c"echo"), address(c"allowed"), 0];
            let none = [0_usize];
            let (words, none) = (words.as_ptr() as usize, none.as_ptr() as usize);
            plain(libc::SYS_execve, &[address(c"/bin/echo"), words, none])
        }),
        row("become another user", |_| {
            let own = plain(libc::SYS_getuid, &[])? as usize;
            plain(libc::SYS_setresuid, &[own, own, own])
        }),
        row("let others look into it", |_| plain(libc::SYS_prctl, &[libc::PR_SET_DUMPABLE as usize, 1])),
    ]
}

fn become_two(flags: usize) -> io::Result<i64> {
    end_if_child(plain(libc::SYS_clone, &[flags]))
}

fn end_if_child(made: io::Result<i64>) -> io::Result<i64> {
    if matches!(made, Ok(0)) {
        plain(libc::SYS_exit_group, &[0])?;
    }
    made
}

fn network() -> Vec<Row> {
    vec![
        row("make a TCP socket", |_| {
            plain(libc::SYS_socket, &[libc::AF_INET as usize, libc::SOCK_STREAM as usize, 0])
        }),
        row("make a UDP socket", |_| {
            plain(libc::SYS_socket, &[libc::AF_INET as usize, libc::SOCK_DGRAM as usize, 0])
        }),
        row("make a Unix socket", |_| {
            plain(libc::SYS_socket, &[libc::AF_UNIX as usize, libc::SOCK_STREAM as usize, 0])
        }),
        row("make a netlink socket", |_| {
            plain(libc::SYS_socket, &[libc::AF_NETLINK as usize, libc::SOCK_RAW as usize, 0])
        }),
        row("connect to a neighbour's port", |field| done(connect(&field.stream, &field.listener()))),
        row("take a port", |field| {
            let mut address = field.listener();
            address.set_port(field.free_port);
            done(bind(&field.stream, &address))
        }),
        row("send a datagram elsewhere", |field| {
            let target = field.listener();
            done(sendto(&field.datagram, b"x", SendFlags::empty(), &target).map(drop))
        }),
        row("connect to an abstract socket", |field| {
            let name = format!("sq-escape-{}", field.port);
            let address = SocketAddrUnix::new_abstract_name(name.as_bytes())?;
            done(connect(&field.unix_stream, &address))
        }),
        row("connect to a socket file", |field| {
            let address = SocketAddrUnix::new(field.in_neighbour("socket").as_c_str())?;
            done(connect(&field.unix_stream, &address))
        }),
    ]
}

fn done(result: rustix::io::Result<()>) -> io::Result<i64> {
    result?;
    Ok(0)
}

fn kernel() -> Vec<Row> {
    vec![
        row("make a user namespace", |_| plain(libc::SYS_unshare, &[libc::CLONE_NEWUSER as usize])),
        root_row("make a mount namespace", |_| plain(libc::SYS_unshare, &[libc::CLONE_NEWNS as usize])),
        root_row("mount", |field| {
            plain(libc::SYS_unshare, &[libc::CLONE_NEWNS as usize])?;
            let (kind, target) = (c"tmpfs", field.in_own(""));
            plain(libc::SYS_mount, &[address(kind), address(&target), address(kind), 0, 0])
        }),
        row("start io_uring", |_| {
            let mut parameters = [0_u8; 256];
            plain(libc::SYS_io_uring_setup, &[1, parameters.as_mut_ptr() as usize])
        }),
        root_row("load a BPF map", |_| {
            // An array of one entry: type 2, keys of 4 bytes, values of 4 bytes.
            let attributes = [2_u32, 4, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0];
            plain(libc::SYS_bpf, &[0, attributes.as_ptr() as usize, size_of_val(&attributes)])
        }),
        root_row("count events of the machine", |_| {
            let mut attributes = [0_u32; 32];
            (attributes[0], attributes[1]) = (1, 128);
            let every = usize::MAX;
            plain(libc::SYS_perf_event_open, &[attributes.as_ptr() as usize, 0, every, every, 0])
        }),
        root_row("handle page faults", |_| plain(libc::SYS_userfaultfd, &[0])),
        row("keep a key in the kernel", |_| {
            let (kind, name) = (c"user", c"sq-escape");
            let keyring = libc::KEY_SPEC_PROCESS_KEYRING as usize;
            plain(libc::SYS_add_key, &[address(kind), address(name), address(name), 1, keyring])
        }),
        row("ask a terminal", |field| {
            let terminal = field.terminal.as_ref().ok_or(io::ErrorKind::NotFound)?;
            let mut number = 0_u32;
            let request = libc::TIOCGPTN as usize;
            plain(libc::SYS_ioctl, &[Field::number(terminal), request, (&raw mut number) as usize])
        }),
        row("watch files", |_| plain(libc::SYS_inotify_init1, &[0])),
        row("make a message queue", |_| {
            let id = plain(libc::SYS_msgget, &[libc::IPC_PRIVATE as usize, 0o600])? as usize;
            plain(libc::SYS_msgctl, &[id, libc::IPC_RMID as usize, 0])
        }),
        row("set another personality", |_| plain(libc::SYS_personality, &[0xffff_ffff])),
        row("raise its own limits", |_| {
            let limit = [0_u64; 2];
            plain(libc::SYS_prlimit64, &[0, libc::RLIMIT_CORE as usize, limit.as_ptr() as usize, 0])
        }),
        row("change a thread's scheduling", |_| {
            plain(libc::SYS_sched_setaffinity, &[0, 8, [1_u64].as_ptr() as usize])
        }),
    ]
}

/// Ways to memory that can be run, and to more of it than a worker may have.
fn memory() -> Vec<Row> {
    const PAGE: usize = 4096;
    const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;
    const FAR_DOWN: usize = 1 << 20;
    vec![
        row("make a file of memory", |_| plain(libc::SYS_memfd_create, &[address(c"x"), 0])),
        row("share memory with others", |_| {
            let id = plain(libc::SYS_shmget, &[libc::IPC_PRIVATE as usize, 4096, 0o600])? as usize;
            plain(libc::SYS_shmctl, &[id, libc::IPC_RMID as usize, 0])
        }),
        row("make memory that can be run", |_| {
            map(PAGE, READ_WRITE | libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS)
        }),
        row("make shared memory", |_| map(PAGE, READ_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS)),
        row("make shared memory that is written to later", |_| {
            let memory = map(PAGE, libc::PROT_NONE, libc::MAP_SHARED | libc::MAP_ANONYMOUS)?;
            plain(libc::SYS_mprotect, &[memory as usize, PAGE, READ_WRITE as usize])
        }),
        row("make shared memory by a longer number", |_| {
            let kind = (libc::MAP_SHARED | libc::MAP_ANONYMOUS) as usize;
            plain(libc::SYS_mmap, &[0, PAGE, READ_WRITE as usize, (2 << 32) + kind, usize::MAX, 0])
        }),
        row("make a stack that grows", |_| {
            map(PAGE, READ_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_GROWSDOWN)
        }),
        row("make memory that is never paged out", |_| {
            map(PAGE, READ_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_LOCKED)
        }),
        row("make the first stack longer", |_| {
            let here = 0_u8;
            use_stack(2 * FAR_DOWN / PAGE);
            // A page that is of no more use.
            let page = (std::ptr::from_ref(&here).addr() - FAR_DOWN) & !(PAGE - 1);
            plain(libc::SYS_mremap, &[page, PAGE, 2 * PAGE, libc::MREMAP_MAYMOVE as usize])
        }),
        row("make another set of descriptors to wait for", |_| plain(libc::SYS_epoll_create1, &[0])),
        row("make a descriptor that counts", |_| plain(libc::SYS_eventfd2, &[0, 0])),
        row("make a pair of sockets", |_| {
            let mut pair = [0_i32; 2];
            let (domain, kind) = (libc::AF_UNIX as usize, libc::SOCK_STREAM as usize);
            plain(libc::SYS_socketpair, &[domain, kind, 0, pair.as_mut_ptr().addr()])
        }),
        row("take more addresses than there is memory", |_| {
            map(1 << 42, libc::PROT_READ, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE)
        }),
        row("take all of the machine's memory, and write to it later", |field| {
            let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            let memory = map(field.memory_bytes, libc::PROT_NONE, kind)?;
            plain(libc::SYS_mprotect, &[memory as usize, field.memory_bytes, READ_WRITE as usize])
        }),
    ]
}

fn map(bytes: usize, how: i32, kind: i32) -> io::Result<i64> {
    plain(libc::SYS_mmap, &[0, bytes, how as usize, kind as usize, usize::MAX, 0])
}

/// Lets the stack grow by so many pages.
fn use_stack(pages: usize) {
    let page = std::hint::black_box([0_u8; 4096]);
    if pages > 0 {
        use_stack(pages - 1);
    }
    std::hint::black_box(page);
}

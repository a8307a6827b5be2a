//! `check` and `healthcheck`, which an operator runs before and after a start.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use sq_shared::socket_file::{self, Connected};
use sq_tests::deployment::Deployment;
use sq_tests::process::{self, Outcome};
use sq_tests::root::Root;
use sq_tests::separate::{Gateway, Pool};
use sq_tests::setup::Setup;
use sq_tests::{address, binaries, notice, wait};

fn worker(arguments: &[&str]) -> Outcome {
    process::run(Command::new(binaries::worker()).args(arguments))
}

fn folder(root: &Root) -> &str {
    root.path().to_str().unwrap()
}

fn mistaken(root: &Root, told: &[&str]) -> String {
    let outcome = root.with_config(&["check"]);
    assert_eq!(outcome.code(), Some(1), "{outcome:?}");
    assert!(outcome.stdout.is_empty(), "{outcome:?}");
    for words in told {
        assert!(outcome.stderr.contains(words), "{words} is missing:\n{}", outcome.stderr);
    }
    outcome.stderr
}

fn with_socket(path: &str) -> Root {
    Root::new(&Setup { gateway: format!("listen = \"unix:{path}\""), ..Setup::default() })
}

#[test]
fn check_accepts_a_root_folder() {
    let root = Root::new(&Setup::default());
    for arguments in [&["check", "--root", folder(&root)][..], &["check", "--root", "."]] {
        assert_eq!(root.gateway(arguments).success().trim(), "ok");
    }
    let both = root.gateway(&["check", "--root", ".", "--config", "gateway.toml"]);
    assert_eq!(both.code(), Some(2), "{both:?}");
    let empty = Root::empty();
    let outcome = empty.gateway(&["check", "--root", "."]);
    assert_eq!(outcome.code(), Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("gateway.toml") && !empty.config().exists(), "{outcome:?}");
}

#[test]
fn mistakes_of_both_files_are_reported_together() {
    let setup = Setup { limits: "per_ip = \"many\"".to_owned(), ..Setup::default() };
    let root = Root::new(&setup);
    let registry = root.read("tenants.toml");
    root.write_registry(&registry.replacen("name = \"alice\"", "name = \"Alice\"", 1));
    let told = mistaken(&root, &["2 mistakes", "per_ip", "tenants.toml:2:"]);
    assert!(told.find("gateway.toml:") < told.find("tenants.toml:"), "{told}");
    // A good or missing registry, with a wrong config.
    root.write_registry(&registry);
    mistaken(&root, &["1 mistake\n", "per_ip"]);
    fs::remove_file(root.registry()).unwrap();
    mistaken(&root, &["2 mistakes", "per_ip", "tenants.toml: "]);
    // A config that is not TOML does not hide mistakes in the registry.
    root.write_registry(&registry.replacen("state = \"active\"", "state = \"actve\"", 1));
    let config = root.read("gateway.toml");
    root.write("gateway.toml", &(config + "[gateway\n"));
    mistaken(&root, &["gateway.toml:", "actve"]);
}

#[test]
fn impossible_socket_path_is_a_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let of_length = |length: usize| {
        let path = folder.path().join("s").display().to_string();
        path.clone() + &"s".repeat(length - path.len())
    };
    assert_eq!(with_socket(&of_length(107)).with_config(&["check"]).success().trim(), "ok");
    let too_long = with_socket(&of_length(108));
    let told = mistaken(&too_long, &["107 bytes at most", "108"]);
    assert!(told.contains("gateway.toml:") && told.contains("listen"), "{told}");
    // No server starts on this address, and no option accepts it.
    let up = too_long.gateway(&["up", "--root", too_long.path().to_str().unwrap()]);
    assert!(up.code() == Some(1) && up.stderr.contains("107 bytes"), "{up:?}");
    let option = too_long.gateway(&["up", "--listen", &format!("unix:{}", of_length(120))]);
    assert!(option.code() == Some(2) && option.stderr.contains("107 bytes"), "{option:?}");

    for occupy in [
        |path: &str| fs::write(path, "a file").unwrap(),
        |path: &str| fs::create_dir(path).unwrap(),
        |path: &str| std::os::unix::fs::symlink("nowhere", path).unwrap(),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.sock").display().to_string();
        occupy(&path);
        mistaken(&with_socket(&path), &["occupied", &path]);
        assert!(fs::symlink_metadata(&path).is_ok(), "it was removed");
    }
}

/// Answers each connection as a foreign server would, until the test ends.
fn stranger(accept: impl Fn() -> Option<Box<dyn Foreign>> + Send + 'static) {
    thread::spawn(move || {
        while let Some(mut stream) = accept() {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"220 mail ready\r\n");
        }
    });
}

trait Foreign: Read + Write {}
impl<T: Read + Write> Foreign for T {}

#[test]
fn address_in_use_by_another_program_is_a_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.sock");
    let listener = UnixListener::bind(&path).unwrap();
    stranger(move || listener.accept().ok().map(|(stream, _)| Box::new(stream) as Box<dyn Foreign>));
    let root = with_socket(path.to_str().unwrap());
    mistaken(&root, &["in use by another program", path.to_str().unwrap()]);

    for (port, field) in
        [(1337, "gateway.listen"), (1338, "gateway.admin_listen"), (1339, "pool.status_listen")]
    {
        let root = Root::new(&Setup::default());
        let listener = TcpListener::bind(address::at(root.address, port)).unwrap();
        stranger(move || listener.accept().ok().map(|(stream, _)| Box::new(stream) as Box<dyn Foreign>));
        mistaken(&root, &["in use by another program", field, &format!("sport = :{port}")]);
    }
    // `check` does not connect to a slot, because that would wake a worker.
    let root = Root::new(&Setup::default());
    let slot = TcpListener::bind(address::at(root.address, 1345)).unwrap();
    slot.set_nonblocking(true).unwrap();
    mistaken(&root, &["1345", "slots", "not by this system's pool"]);
    assert!(slot.accept().is_err(), "the slot was connected to");
}

#[test]
fn stale_socket_file_is_fine() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.sock");
    drop(UnixListener::bind(&path).unwrap());
    let root = with_socket(path.to_str().unwrap());
    let outcome = root.with_config(&["check"]);
    assert_eq!((outcome.code(), outcome.stderr.as_str()), (Some(0), ""), "{outcome:?}");
}

#[test]
fn running_system_passes_check() {
    let running = Deployment::start(&Setup::default());
    let outcome = running.with_config(&["check"]);
    assert_eq!((outcome.code(), outcome.stderr.as_str()), (Some(0), ""), "{outcome:?}");
    running.stop();

    let folder = tempfile::tempdir().unwrap();
    let root = Arc::new(with_socket(folder.path().join("gateway.sock").to_str().unwrap()));
    let (pool, gateway) = (Pool::start(&root), Gateway::begin(&root, &[]));
    gateway.wait_ready();
    let outcome = root.with_config(&["check"]);
    assert_eq!((outcome.code(), outcome.stderr.as_str()), (Some(0), ""), "{outcome:?}");
    gateway.stop();
    pool.stop();
}

#[test]
fn exposed_addresses_cause_warnings() {
    let all = || format!("0.0.0.0:{}", address::free_port());
    for (field, setup) in [
        ("gateway.listen", Setup { gateway: format!("listen = \"{}\"", all()), ..Setup::default() }),
        (
            "gateway.listen",
            Setup { gateway: format!("listen = \"[::]:{}\"", address::free_port()), ..Setup::default() },
        ),
        (
            "gateway.admin_listen",
            Setup {
                gateway: format!("admin_listen = \"{}\"\nadmin_allow_remote = true", all()),
                ..Setup::default()
            },
        ),
        ("pool.status_listen", Setup { pool: format!("status_listen = \"{}\"", all()), ..Setup::default() }),
        ("pool.slot_address", Setup { pool: "slot_address = \"0.0.0.0\"".to_owned(), ..Setup::default() }),
    ] {
        let root = Root::new(&setup);
        let outcome = root.with_config(&["check"]);
        let warnings: Vec<&str> = outcome
            .stderr
            .lines()
            .filter(|line| line.contains("can be reached from other machines"))
            .collect();
        assert!(warnings.len() == 1 && warnings[0].starts_with(&format!("warning: {field} ")), "{outcome:?}");
        assert_eq!(outcome.success().trim(), "ok");
    }
}

/// An address that no machine has (RFC 5737).
const NOWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

#[test]
fn address_of_another_machine_is_a_mistake_and_not_connected_to() {
    let begun = Instant::now();
    let lines = [
        ("gateway.listen", format!("listen = \"{NOWHERE}:1337\""), String::new()),
        ("gateway.listen", "listen = \"[2001:db8::1]:1337\"".to_owned(), String::new()),
        (
            "gateway.admin_listen",
            format!("admin_listen = \"{NOWHERE}:1338\"\nadmin_allow_remote = true"),
            String::new(),
        ),
        ("pool.status_listen", String::new(), format!("status_listen = \"{NOWHERE}:1339\"")),
        ("pool.slot_address", String::new(), format!("slot_address = \"{NOWHERE}\"")),
    ];
    for (field, gateway, pool) in lines {
        let root = Root::new(&Setup { gateway, pool, ..Setup::default() });
        mistaken(&root, &[&format!("{field} = "), "no such address", "1 mistake\n"]);
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "it was waited for");
    // Both addresses may be those of a pool in another container.
    let pool = format!("status_listen = \"{NOWHERE}:1339\"\nslot_address = \"{NOWHERE}\"");
    let outcome = Root::new(&Setup { pool, ..Setup::default() }).with_config(&["check"]);
    assert!(outcome.stderr.contains("not an address of this machine: start the pool"), "{outcome:?}");
    assert_eq!(outcome.success().trim(), "ok");
}

#[test]
fn privileged_port_is_a_mistake() {
    if !rustix::process::geteuid().is_root() {
        return notice::not_allowed_here("a check as another user");
    }
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    if first.trim() == "0" {
        return notice::skip("a port below 1024: every user of this machine may have it");
    }
    let own = Root::new(&Setup::default()).address;
    let lines = [
        ("gateway.listen", format!("listen = \"{own}:80\"")),
        ("gateway.admin_listen", format!("admin_listen = \"{own}:81\"")),
        ("pool.slot_address", "slots = \"900-1100\"".to_owned()),
    ];
    for (field, gateway) in lines {
        let root = Root::new(&Setup { gateway, ..Setup::default() });
        // Root becomes the owner of the system's root.
        for path in [root.path().to_owned(), root.config(), root.registry()] {
            std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
        }
        mistaken(&root, &[&format!("{field} = "), "Permission denied", "CAP_NET_BIND_SERVICE"]);
    }
}

#[test]
fn other_running_system_is_not_mistaken_for_this_one() {
    let running = Deployment::start(&Setup::default());
    let config = running.read("gateway.toml");
    let other = Root::empty();
    other.write("gateway.toml", &config);
    other.write_registry(&running.read("tenants.toml"));
    let told = mistaken(&other, &["gateway.listen", "gateway.admin_listen", "pool.status_listen"]);
    assert_eq!(told.matches("is in use by another SQ system (process ").count(), 3, "{told}");
    assert!(told.contains("1341") && told.contains("not by this system's pool"), "{told}");
    // Without a status address, the slots' sockets identify the pool.
    let silent = config.replace("[pool]\n", "[pool]\nstatus_listen = \"off\"\n");
    let lines: Vec<&str> = silent.lines().collect();
    let is_second = |line: &&str| line.starts_with("status_listen") && !line.contains("off");
    let silent = lines.into_iter().filter(|line| !is_second(line)).collect::<Vec<_>>().join("\n");
    other.write("gateway.toml", &silent);
    mistaken(&other, &["not by this system's pool"]);
    running.write("silent.toml", &silent);
    assert_eq!(running.gateway(&["check", "--config", "silent.toml"]).success().trim(), "ok");
    // An edited copy of the config that the system runs with.
    running.write("edited.toml", &config);
    let outcome = running.gateway(&["check", "--config", "edited.toml"]);
    assert_eq!((outcome.code(), outcome.stderr.as_str()), (Some(0), ""), "{outcome:?}");
}

/// A server whose queue is full, and that accepts no connection.
fn full(path: &Path) -> (UnixListener, Vec<Connected>) {
    let listener = UnixListener::bind(path).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let mut waiting = Vec::new();
    loop {
        match socket_file::connect(path).unwrap() {
            Connected::QueueIsFull => return (listener, waiting),
            connected => waiting.push(connected),
        }
    }
}

#[test]
fn server_with_a_full_queue_does_not_block_check() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.sock");
    let root = with_socket(path.to_str().unwrap());
    let _full = full(&path);
    let begun = Instant::now();
    mistaken(&root, &["queue is full", path.to_str().unwrap()]);
    let asked = root.with_config(&["healthcheck"]);
    assert!(asked.code() == Some(1) && asked.stderr.contains("queue is full"), "{asked:?}");
    let serve = root.with_config(&["serve"]);
    assert!(serve.code() == Some(1) && serve.stderr.contains("queue is full"), "{serve:?}");
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

#[test]
fn endless_response_is_abandoned() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.sock");
    let listener = UnixListener::bind(&path).unwrap();
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            while stream.write_all(b"x").is_ok() {
                wait::pass(Duration::from_millis(200));
            }
        }
    });
    let root = with_socket(path.to_str().unwrap());
    let begun = Instant::now();
    assert_eq!(root.with_config(&["healthcheck"]).code(), Some(1));
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
}

/// `serve` says what is wrong with an address.
#[test]
fn failure_to_listen_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::write(path("file"), "a file").unwrap();
    fs::create_dir(path("folder")).unwrap();
    std::os::unix::fs::symlink("nowhere", path("link")).unwrap();
    let _alive = UnixListener::bind(path("alive")).unwrap();
    let _datagrams = UnixDatagram::bind(path("datagrams")).unwrap();
    let taken = Root::new(&Setup::default()).address;
    let _taken = TcpListener::bind(address::at(taken, 1337)).unwrap();
    for (listen, told) in [
        (format!("{taken}:1337"), "ss -ltnp 'sport = :1337'"),
        (format!("{NOWHERE}:1337"), "this machine has no such address; change [gateway] listen"),
        (format!("unix:{}", path("file")), "occupied by a file that is not a socket"),
        (format!("unix:{}", path("folder")), "occupied by a folder"),
        (format!("unix:{}", path("link")), "occupied by a symbolic link"),
        (format!("unix:{}", path("alive")), "a server listens there"),
        (format!("unix:{}", path("datagrams")), "a socket that cannot be connected to"),
        (format!("unix:{}", path("none/socket")), "is its folder there?"),
    ] {
        let root = Root::new(&Setup { gateway: format!("listen = \"{listen}\""), ..Setup::default() });
        let outcome = root.with_config(&["serve"]);
        assert_eq!(outcome.code(), Some(1), "{outcome:?}");
        assert!(outcome.stderr.contains(&listen) && outcome.stderr.contains(told), "{listen}: {outcome:?}");
        let is_of_listener = outcome.stderr.contains("another one of ours");
        assert_eq!(is_of_listener, listen.starts_with(&taken.to_string()), "{outcome:?}");
    }
    let alone = worker(&["serve", "--key", "k", "--listen", "192.0.2.1:9", "--data-dir", &path("data")]);
    assert!(alone.code() == Some(1) && alone.stderr.contains("no such address"), "{alone:?}");
}

#[test]
fn impossible_upgrade_causes_a_warning() {
    let root = Root::new(&Setup::default());
    let deep = root.join("d".repeat(90));
    fs::create_dir(&deep).unwrap();
    for file in ["gateway.toml", "tenants.toml"] {
        fs::copy(root.join(file), deep.join(file)).unwrap();
    }
    let outcome = root.gateway(&["check", "--root", deep.to_str().unwrap()]);
    assert!(outcome.stderr.contains("--upgrade") && outcome.stderr.contains("107"), "{outcome:?}");
    assert_eq!(outcome.success().trim(), "ok");
}

#[test]
fn healthcheck_uses_the_address_in_the_config() {
    let running = Deployment::start(&Setup::default());
    let root = folder(&running);
    let config = running.config();
    let config = config.to_str().unwrap();
    for arguments in [["healthcheck", "--root", root], ["healthcheck", "--config", config]] {
        assert_eq!(running.gateway(&arguments).code(), Some(0), "{arguments:?}");
        assert_eq!(worker(&arguments).code(), Some(0), "{arguments:?}");
    }
    let both = running.gateway(&["healthcheck", "http://127.0.0.1:1/", "--root", root]);
    assert_eq!(both.code(), Some(2), "{both:?}");
    let root = running.stop();
    for outcome in [
        root.gateway(&["healthcheck", "--root", folder(&root)]),
        worker(&["healthcheck", "--root", folder(&root)]),
        root.gateway(&["healthcheck", "--root", "nowhere"]),
    ] {
        assert!(outcome.code() == Some(1) && !outcome.stderr.is_empty(), "{outcome:?}");
    }
    let off = Root::new(&Setup { pool: "status_listen = \"off\"".to_owned(), ..Setup::default() });
    let outcome = worker(&["healthcheck", "--root", folder(&off)]);
    assert!(outcome.code() == Some(1) && outcome.stderr.contains("status_listen"), "{outcome:?}");
}

#[test]
fn healthcheck_reaches_a_socket_file() {
    let folder = tempfile::tempdir().unwrap();
    let root = Arc::new(with_socket(folder.path().join("gateway.sock").to_str().unwrap()));
    let check = || root.gateway(&["healthcheck", "--root", root.path().to_str().unwrap()]);
    assert_eq!(check().code(), Some(1));
    let gateway = Gateway::begin(&root, &[]);
    gateway.wait_ready();
    assert_eq!(check().code(), Some(0), "{:?}", check());
    gateway.stop();
    assert_eq!(check().code(), Some(1));
}

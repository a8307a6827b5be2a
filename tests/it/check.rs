//! `check` and `healthcheck`: what an operator asks before and after a start.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use sq_tests::deployment::Deployment;
use sq_tests::process::{self, Outcome};
use sq_tests::root::Root;
use sq_tests::separate::{Gateway, Pool};
use sq_tests::setup::Setup;
use sq_tests::{address, binaries};

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
fn a_root_is_checked_by_its_folder() {
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
fn mistakes_of_both_files_are_told_at_once() {
    let setup = Setup { limits: "per_ip = \"many\"".to_owned(), ..Setup::default() };
    let root = Root::new(&setup);
    let registry = root.read("tenants.toml");
    root.write_registry(&registry.replacen("name = \"alice\"", "name = \"Alice\"", 1));
    let told = mistaken(&root, &["2 mistakes", "per_ip", "tenants.toml:2:"]);
    assert!(told.find("gateway.toml:") < told.find("tenants.toml:"), "{told}");
    // A registry that is good, or gone, beside a config that is not.
    root.write_registry(&registry);
    mistaken(&root, &["1 mistake\n", "per_ip"]);
    fs::remove_file(root.registry()).unwrap();
    mistaken(&root, &["2 mistakes", "per_ip", "tenants.toml: "]);
    // What is no TOML at all hides nothing of the registry.
    root.write_registry(&registry.replacen("state = \"active\"", "state = \"actve\"", 1));
    let config = root.read("gateway.toml");
    root.write("gateway.toml", &(config + "[gateway\n"));
    mistaken(&root, &["gateway.toml:", "actve"]);
}

#[test]
fn a_socket_path_that_cannot_be_had_is_a_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let of_length = |length: usize| {
        let path = folder.path().join("s").display().to_string();
        path.clone() + &"s".repeat(length - path.len())
    };
    assert_eq!(with_socket(&of_length(107)).with_config(&["check"]).success().trim(), "ok");
    let too_long = with_socket(&of_length(108));
    let told = mistaken(&too_long, &["107 bytes at most", "108"]);
    assert!(told.contains("gateway.toml:") && told.contains("listen"), "{told}");
    // No server starts on it, and no option takes it.
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

/// Answers each connection, until the test ends, with something that is not ours.
fn stranger(accept: impl Fn() -> Option<Box<dyn Foreign>> + Send + 'static) {
    thread::spawn(move || {
        while let Some(mut stream) = accept() {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"220 mail ready\r\n");
        }
    });
}

trait Foreign: std::io::Read + std::io::Write {}
impl<T: std::io::Read + std::io::Write> Foreign for T {}

#[test]
fn an_address_that_another_program_has_is_a_mistake() {
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
    // A slot is not asked, for that would wake a worker.
    let root = Root::new(&Setup::default());
    let slot = TcpListener::bind(address::at(root.address, 1345)).unwrap();
    slot.set_nonblocking(true).unwrap();
    let outcome = root.with_config(&["check"]);
    assert!(outcome.stderr.contains("1345") && outcome.stderr.contains("slots"), "{outcome:?}");
    assert_eq!(outcome.success().trim(), "ok");
    assert!(slot.accept().is_err(), "the slot was connected to");
}

#[test]
fn a_socket_that_was_left_over_is_fine() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.sock");
    drop(UnixListener::bind(&path).unwrap());
    let root = with_socket(path.to_str().unwrap());
    let outcome = root.with_config(&["check"]);
    assert_eq!((outcome.code(), outcome.stderr.as_str()), (Some(0), ""), "{outcome:?}");
}

#[test]
fn a_system_that_runs_passes_its_own_check() {
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
fn addresses_that_other_machines_reach_are_warned_of() {
    let other = Ipv4Addr::new(192, 0, 2, 1);
    for (field, setup) in [
        ("gateway.listen", Setup { gateway: "listen = \"0.0.0.0:1\"".to_owned(), ..Setup::default() }),
        ("gateway.listen", Setup { gateway: "listen = \"[::]:1\"".to_owned(), ..Setup::default() }),
        (
            "gateway.admin_listen",
            Setup {
                gateway: format!("admin_listen = \"{other}:1338\"\nadmin_allow_remote = true"),
                ..Setup::default()
            },
        ),
        (
            "pool.status_listen",
            Setup { pool: format!("status_listen = \"{other}:1339\""), ..Setup::default() },
        ),
        ("pool.slot_address", Setup { pool: format!("slot_address = \"{other}\""), ..Setup::default() }),
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

#[test]
fn an_upgrade_that_could_not_be_made_is_warned_of() {
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
fn a_healthcheck_asks_where_the_config_says() {
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
fn a_healthcheck_reaches_a_socket_file() {
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

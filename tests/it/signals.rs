//! Signals that scripts send to every daemon: a server handles those it knows, and none of the others ends it.

use std::sync::Arc;

use rustix::process::Signal;
use sq_tests::deployment::Deployment;
use sq_tests::lone_worker::LoneWorker;
use sq_tests::process::{self, Identity};
use sq_tests::root::Root;
use sq_tests::separate::{Gateway, Pool};
use sq_tests::setup::Setup;
use sq_tests::target::SELECT;
use sq_tests::wait;

const UPDATE: &str = "/api/v2/update?p=text&c=1.1.1/1.1.1/1.1.1&s=text";

#[test]
fn gateway_and_pool_survive_sigusr1() {
    let root = Arc::new(Root::new(&Setup::default()));
    let (mut pool, mut gateway) = (Pool::start(&root), Gateway::serve(&root));
    for program in [&mut *pool, &mut *gateway] {
        for count in 1..=3 {
            program.signal(Signal::USR1);
            wait::until("its word", || program.log().matches("SIGUSR1 is ignored").count() == count);
        }
        assert!(program.is_running(), "{}", program.log());
    }
    gateway.client_of("alice").get(UPDATE).ok();
    // Processes that wait for the sockets of running ones ignore it too.
    let mut next_pool = Pool::begin_upgrade(&root, &sq_tests::binaries::worker());
    let mut next_gateway = Gateway::begin_upgrade(&root);
    next_pool.signal(Signal::USR1);
    next_gateway.signal(Signal::USR1);
    pool.signal(Signal::QUIT);
    gateway.signal(Signal::QUIT);
    assert_eq!((pool.ended().code(), gateway.ended().code()), (Some(0), Some(0)));
    next_pool.wait_ready();
    next_gateway.wait_ready();
    assert!(next_pool.is_running() && next_gateway.is_running());
    assert_eq!(next_gateway.client_of("alice").get(SELECT).ok(), "text");
    next_gateway.stop();
    next_pool.stop();
}

#[test]
fn up_ignores_sigusr1_and_sigusr2() {
    let running = Deployment::start(&Setup::default());
    for signal in [Signal::USR1, Signal::USR2, Signal::USR1] {
        running.signal(signal);
        running.client_of("alice").get(UPDATE).ok();
    }
    wait::until("its word", || running.log().contains("SIGUSR1 is ignored"));
    running.stop();
}

/// `pkill -HUP sq-worker` reaches the workers too.
#[test]
fn worker_survives_user_signals() {
    let running = Deployment::start(&Setup::default());
    running.client_of("alice").get(UPDATE).ok();
    let worker = running.worker_of("alice").expect("her worker");
    let identity = Identity::of(worker.pid).expect("it runs");
    for (signal, name) in [(Signal::USR1, "SIGUSR1"), (Signal::USR2, "SIGUSR2"), (Signal::HUP, "SIGHUP")] {
        process::signal(worker.pid, signal);
        wait::until("its word", || running.log().contains(&format!("{name} is ignored")));
        assert!(identity.is_alive(), "{name}");
        assert_eq!(running.client_of("alice").get(SELECT).ok(), "text");
    }
    assert_eq!(running.worker_of("alice"), Some(worker));
    running.stop();
}

#[test]
fn lone_worker_survives_user_signals() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = LoneWorker::command(folder.path());
    // Detached from the terminal of the test run.
    let mut alone = std::process::Command::new("setsid");
    alone.arg(command.get_program()).args(command.get_args());
    command.get_envs().for_each(|(name, value)| _ = value.map(|value| alone.env(name, value)));
    command = alone;
    let worker = LoneWorker::spawn(&mut command).unwrap();
    for signal in [Signal::USR1, Signal::USR2, Signal::HUP] {
        worker.signal(signal);
        worker.client.get(UPDATE).ok();
    }
    worker.stop();
}

/// Logs say in words how a process ended, and why a stop began.
#[test]
fn logs_contain_no_internal_messages() {
    let running = Deployment::start(&Setup::default());
    running.client_of("alice").get(UPDATE).ok();
    let worker = running.worker_of("alice").expect("her worker");
    let pool = process::parent(worker.pid).expect("the pool");
    process::signal(worker.pid, Signal::KILL);
    wait::until("the crash", || running.log().contains("worker crashed"));
    process::signal(pool, Signal::KILL);
    wait::until("the pool's end", || running.log().contains("the pool died and is started again"));
    wait::until("the next pool", || running.log().matches("pool ready").count() == 2);
    let root = running.stop();
    let log = root.read("up.log");
    let told = |about: &str| {
        log.lines().find(|line| line.contains(about)).unwrap_or_else(|| panic!("{about}: {log}"))
    };
    for about in ["worker crashed", "the pool died and is started again"] {
        assert!(told(about).contains("signal: 9 (SIGKILL)"), "{}", told(about));
    }
    assert!(told("draining").contains("end=stop"), "{}", told("draining"));
    for debug in ["unix_wait_status", "ExitStatus", "HandedOver", "Ok(", "Err(", "Some("] {
        assert!(!log.contains(debug), "{debug}: {log}");
    }
}

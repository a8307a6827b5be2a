//! A file that cannot be written: with `require` no write is taken meanwhile, with `try` what is lost is counted.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use sq_tests::client::Client;
use sq_tests::deployment::Deployment;
use sq_tests::mount::{self, Mount};
use sq_tests::notice::{self, say};
use sq_tests::root::Root;
use sq_tests::setup::{Setup, Tenant};
use sq_tests::{binaries, process, wait};

use super::{AT, full_pipe, lines_in, new_id, setup, text};

fn select(client: &Client) -> String {
    client.get(&format!("/api/v2/select?p=shared&{AT}")).ok().to_owned()
}

/// Writes until it is told that nothing is taken; gives the ids of what was acknowledged, and what is stored.
fn write_until_refused(client: &Client) -> (Vec<String>, String) {
    let (mut acknowledged, mut stored) = (Vec::new(), select(client));
    loop {
        let write = super::write(client, "+");
        match write.status {
            Some(200) => acknowledged.push(write.id),
            other => {
                assert_eq!(other, Some(503), "{write:?}");
                return (acknowledged, stored);
            }
        }
        stored.push('+');
        assert!(acknowledged.len() < 10_000, "nothing fails");
    }
}

/// Checks that nothing is written while the file cannot be, and that all is well by itself when it can be again.
/// Gives the ids of what was acknowledged.
fn assert_refuses_until_mended(running: &Deployment, mend: impl FnOnce()) -> Vec<String> {
    let client = running.client_of("alice");
    let (mut acknowledged, stored) = write_until_refused(&client);
    let mut refused = 1;
    for command in ["insert", "update", "delete"] {
        let answer = client.post(&format!("/api/v2/{command}?p=shared&{AT}"), "lost");
        let problem = answer.problem(503, "worker_unavailable");
        assert!(text(&problem, "detail").contains("audit log"), "{problem}");
        refused += 1;
    }
    assert_eq!(select(&client), stored, "a refused write was stored, or an acknowledged one was not");
    mend();
    wait::until("a write that is taken", || {
        let write = super::write(&client, "+");
        refused += u64::from(write.status == Some(503));
        acknowledged.extend(Some(write.id).filter(|_| write.status == Some(200)));
        write.status == Some(200)
    });
    acknowledged.push(super::write(&client, "+").id);
    let log = running.read("audit.log");
    let (_, missing) = whole_lines(&log);
    assert_eq!(missing, refused, "each refused write is missing, and said to be: {log}");
    assert!(ids_in(&log).ends_with(&acknowledged[acknowledged.len() - 2..]), "{log}");
    acknowledged
}

/// Whose lines stand in a log, in their order.
fn ids_in(log: &str) -> Vec<String> {
    whole_lines(log).0.iter().map(|line| text(line, "request_id").to_owned()).collect()
}

/// The lines of writes, and how many lines the log says are missing. What was torn off stands alone.
fn whole_lines(log: &str) -> (Vec<Value>, u64) {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let (gaps, lines): (Vec<_>, Vec<_>) = lines.partition(|line| line.get("missing").is_some());
    for gap in &gaps {
        assert!(text(gap, "from") <= text(gap, "to") && text(gap, "to") <= text(gap, "time"), "{gap}");
    }
    (lines, gaps.iter().map(|gap| gap["missing"].as_u64().unwrap()).sum())
}

/// Puts something else in the place of the file, and has it opened anew.
fn replace_log(running: &Deployment, put: impl FnOnce(&Path)) {
    let log = running.join("audit.log");
    fs::rename(&log, running.join("audit.log.1")).unwrap();
    put(&log);
    let logged = running.log().len();
    running.signal(Signal::HUP);
    wait::until("the word of it", || running.log()[logged..].contains("the audit log cannot be written"));
}

#[test]
fn a_path_that_became_a_directory() {
    let running = Deployment::start(&setup("require"));
    running.client_of("alice").post(&format!("/api/v2/update?p=shared&{AT}"), "x").ok();
    replace_log(&running, |log| fs::create_dir(log).unwrap());
    assert_refuses_until_mended(&running, || fs::remove_dir(running.join("audit.log")).unwrap());
}

#[test]
fn a_file_that_may_not_be_written_any_more() {
    if binaries::on_path("setpriv").is_none() {
        notice::skip("an audit log that may not be written: setpriv is missing; apt-get install util-linux");
        return;
    }
    // Root may write every file, unless it gives that up.
    let root = Root::new(&setup("require"));
    let folder = root.path().to_str().unwrap().to_owned();
    let mut command = if rustix::process::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.arg("--bounding-set=-dac_override,-dac_read_search").arg(binaries::gateway());
        command
    } else {
        Command::new(binaries::gateway())
    };
    let running = Deployment::spawn(root, command.args(["up", "--root", &folder]));
    let log = running.join("audit.log");
    replace_log(&running, |log| {
        fs::write(log, "").unwrap();
        fs::set_permissions(log, fs::Permissions::from_mode(0o400)).unwrap();
    });
    let mend = || fs::set_permissions(&log, fs::Permissions::from_mode(0o600)).unwrap();
    assert_refuses_until_mended(&running, mend);
}

#[test]
fn a_device_that_takes_nothing() {
    let root = Root::new(&setup("require"));
    symlink("/dev/full", root.join("audit.log")).unwrap();
    let running = Deployment::up(root, &[]);
    let client = running.client_of("alice");
    // Nobody could know: it is done, and its line waits.
    let first = super::write(&client, "first");
    assert_eq!(first.status, Some(200));
    assert_refuses_until_mended(&running, || fs::remove_file(running.join("audit.log")).unwrap());
    let (lines, _) = whole_lines(&running.read("audit.log"));
    assert_eq!(text(&lines[0], "request_id"), first.id);
    let root = running.stop();
    assert!(root.read("up.log").contains("the audit log can be written again"));
}

#[test]
fn a_disk_that_does_not_answer_holds_an_answer_and_a_stop_only_for_a_time() {
    let root = Root::new(&Setup { timeouts: "drain = \"1s\"".to_owned(), ..setup("require") });
    let mut pipe = full_pipe(&root.join("audit.log"));
    let running = Deployment::up(root, &[]);
    let client = running.client_of("alice");
    let held = super::write(&client, "+");
    assert_eq!(held.status, Some(200));
    assert!((10..15).contains(&(held.answered - held.sent).as_secs()), "{held:?}");
    assert_eq!(super::write(&client, "+").status, Some(503));
    assert_eq!(select(&client), "+");
    let asked = Instant::now();
    client
        .request("DELETE", &format!("/api/v2/delete?p=shared&{AT}"), "", None)
        .problem(405, "method_not_allowed");
    assert!(asked.elapsed() < Duration::from_secs(5), "a refusal waits for its line");
    // Somebody reads, and all is well.
    drain(&mut pipe);
    wait::until("a write that is taken", || super::write(&client, "+").status == Some(200));
    assert_eq!(super::write(&client, "+").status, Some(200));
    assert_eq!(select(&client), "+++");
    super::fill(&mut pipe);
    let target = format!("/api/v2/insert?p=shared&{AT}&s=%2B");
    let mut unanswered = client.connect();
    unanswered.send((client.head("GET", &target) + "\r\n").as_bytes());
    wait::until("the write", || select(&client) == "++++");
    let begun = Instant::now();
    let root = running.stop();
    // One second for the requests, and one for the log.
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(root.read("up.log").contains("its last lines are lost"), "{}", root.read("up.log"));
    drop(pipe);
}

/// Reads all that is in a pipe.
fn drain(pipe: &mut File) {
    let error = pipe.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_log_that_fails_keeps_no_rate_from_being_charged_and_hides_no_other_refusal() {
    let limits = "per_tenant = \"6/h\"".to_owned();
    let tenants = vec![Tenant::new("alice", 1341).with_key("reads-only", "read", None)];
    let running = Deployment::start(&Setup { limits, tenants, ..setup("require") });
    replace_log(&running, |log| fs::create_dir(log).unwrap());
    let target = format!("/api/v2/update?p=shared&{AT}");
    running.client(Some("reads-only")).post(&target, "x").problem(403, "read_only_key");
    let client = running.client_of("alice");
    client.request("DELETE", &target, "", None).problem(405, "method_not_allowed");
    for _ in 0..4 {
        let answer = client.post(&target, "x");
        answer.problem(503, "worker_unavailable");
        assert!(answer.header("ratelimit").is_some_and(|rates| rates.contains("tenant")), "{answer}");
    }
    client.post(&target, "x").problem(429, "rate_limited_tenant");
    fs::remove_dir(running.join("audit.log")).unwrap();
    wait::until("the lines", || {
        fs::read_to_string(running.join("audit.log")).is_ok_and(|log| log.lines().count() == 3)
    });
    let (lines, missing) = whole_lines(&running.read("audit.log"));
    let statuses: Vec<_> = lines.iter().map(|line| line["status"].as_u64().unwrap()).collect();
    assert_eq!((statuses, missing), (vec![403, 405], 4));
}

/// A deployment whose log is in a small file system of its own.
fn on_a_small_disk(audit: &str) -> (Mount, Deployment) {
    let root = Root::new(&setup(audit));
    let disk = Mount::tmpfs(&root.join("disk"), "256k");
    symlink(disk.path().join("audit.log"), root.join("audit.log")).unwrap();
    (disk, Deployment::up(root, &[]))
}

/// The mount goes before the folder that it is in.
fn unmount(disk: Mount, running: Deployment) {
    let root = running.stop();
    drop(disk);
    drop(root);
}

#[test]
fn a_full_disk_is_a_refusal_until_there_is_room() {
    if !mount::works("an audit log on a full disk", &[]) {
        return;
    }
    let (disk, running) = on_a_small_disk("require");
    let filler = disk.path().join("filler");
    fs::write(&filler, vec![0; 200 << 10]).unwrap();
    let is_torn =
        || running.read("audit.log").lines().any(|line| serde_json::from_str::<Value>(line).is_err());
    let acknowledged = assert_refuses_until_mended(&running, || fs::remove_file(&filler).unwrap());
    assert_eq!(ids_in(&running.read("audit.log")), acknowledged);
    let (lines, torn) = (acknowledged.len(), is_torn());
    say(&format!(
        "audit on a full disk: {lines} lines before and after; one was torn, and came again: {torn}"
    ));
    unmount(disk, running);
}

#[test]
fn a_file_system_that_is_read_only() {
    if !mount::works("an audit log on a read-only file system", &[]) {
        return;
    }
    let (disk, running) = on_a_small_disk("require");
    let remount = |how: &str| {
        process::run(Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(disk.path()))
            .success();
    };
    // Nobody may have a file open there for writing when it becomes read-only.
    let other = running.join("elsewhere.log");
    fs::remove_file(running.join("audit.log")).unwrap();
    symlink(&other, running.join("audit.log")).unwrap();
    running.signal(Signal::HUP);
    wait::until("the other file", || other.exists());
    wait::until("the disk let go", || {
        let outcome = process::run(Command::new("mount").args(["-o", "remount,ro"]).arg(disk.path()));
        outcome.status.success()
    });
    replace_log(&running, |log| symlink(disk.path().join("audit.log"), log).unwrap());
    assert_refuses_until_mended(&running, || remount("rw"));
    unmount(disk, running);
}

#[test]
fn a_start_without_the_file_is_refused_or_warned_of() {
    let root = Root::new(&setup("require"));
    fs::create_dir(root.join("audit.log")).unwrap();
    let outcome = root.gateway(&["up", "--root", root.path().to_str().unwrap()]);
    assert_eq!(outcome.code(), Some(1), "{outcome:?}");
    assert!(
        outcome.stderr.contains("failed to open the audit log") && outcome.stderr.contains("gateway.audit"),
        "{outcome:?}"
    );
    assert!(!outcome.stdout.contains("ready"), "{outcome:?}");

    let root = Root::new(&setup("try"));
    fs::create_dir(root.join("audit.log")).unwrap();
    let running = Deployment::up(root, &[]);
    let write = super::write(&running.client_of("alice"), "x");
    assert_eq!(write.status, Some(200));
    assert!(running.log().contains("the audit log cannot be written"), "{}", running.log());
    fs::remove_dir(running.join("audit.log")).unwrap();
    wait::until("the line that waited", || running.join("audit.log").is_file());
    wait::until("the line that waited", || running.read("audit.log").ends_with('\n'));
    assert_eq!(text(&lines_in(&running.join("audit.log"))[0], "request_id"), write.id);
}

/// More than the lines that may wait in memory.
const FLOOD: usize = 16_384 + 616;
const FLOODERS: usize = 4;

/// Sends so many writes that are refused, which are the cheapest, on one connection.
fn flood(client: &Client, count: usize) {
    let mut connection = client.connect();
    for _ in 0..count {
        let id = format!("X-Request-Id: {}\r\n\r\n", new_id());
        connection.send((client.head("GET", &format!("/api/v2/delete?p=flood&{AT}")) + &id).as_bytes());
        assert_eq!(connection.answer().status, 403);
    }
}

#[test]
fn with_try_writes_go_on_and_what_is_lost_is_counted() {
    let tenants = vec![Tenant::new("alice", 1341).with_key("reads-only", "read", None)];
    let root = Root::new(&Setup { tenants, ..setup("try") });
    symlink("/dev/full", root.join("audit.log")).unwrap();
    let running = Deployment::up(root, &[]);
    let client = running.client_of("alice");
    let first = super::write(&client, "first");
    assert_eq!(first.status, Some(200));
    let reader = running.client(Some("reads-only"));
    thread::scope(|scope| {
        (0..FLOODERS).for_each(|_| _ = scope.spawn(|| flood(&reader, FLOOD / FLOODERS)));
    });
    assert_eq!(super::write(&client, "+").status, Some(200));
    assert_eq!(select(&client), "first+");
    assert!(running.log().contains("audit lines are lost"), "{}", running.log());
    fs::remove_file(running.join("audit.log")).unwrap();
    wait::until("the lines that waited", || {
        fs::read_to_string(running.join("audit.log"))
            .is_ok_and(|log| log.contains("\"missing\":") && log.ends_with('\n'))
    });
    let last = super::write(&client, "+");
    let root = running.stop();
    let (lines, missing) = whole_lines(&root.read("audit.log"));
    assert_eq!(lines.len() as u64 + missing, FLOOD as u64 + 3, "neither a line nor counted");
    assert_eq!(missing, FLOOD as u64 + 2 - 16_384);
    assert_eq!(text(&lines[0], "request_id"), first.id);
    assert_eq!(text(lines.last().unwrap(), "request_id"), last.id);
    say(&format!("audit = \"try\" on a full device: {} lines in the end, {missing} counted", lines.len()));
}

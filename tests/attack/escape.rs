//! A worker that was taken over gets no further: every way out is tried inside its walls, and, to know that the
//! attempt is a good one, outside of them.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use rustix::process::{Signal, geteuid};
use sq_tests::deployment::Deployment;
use sq_tests::lone_worker::LoneWorker;
use sq_tests::process::{self, Outcome};
use sq_tests::root::Root;
use sq_tests::setup::Setup;
use sq_tests::strace::{self, Strace};
use sq_tests::{notice, wait};
use tempfile::TempDir;

/// The user and group that own nothing, on every Linux.
const NOBODY: u32 = 65534;

/// What there is to attack, all of it of one user.
struct Field {
    folder: TempDir,
    user: u32,
    bystander: Child,
    listener: TcpListener,
    _abstract: UnixListener,
    _socket_file: UnixListener,
}

/// A row of the table.
struct Row {
    name: String,
    needs_root: bool,
    needs_own_root: bool,
}

impl Field {
    fn new(user: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["", "own", "neighbour"] {
            let path = folder.path().join(name);
            fs::create_dir_all(&path).unwrap();
            chown(path, Some(user), Some(user)).unwrap();
        }
        let bystander = Command::new("sleep").arg("600").uid(user).gid(user).spawn().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let name = format!("sq-escape-{}", listener.local_addr().unwrap().port());
        let abstract_name = SocketAddr::from_abstract_name(name).unwrap();
        let socket_file = folder.path().join("neighbour/socket");
        let field = Self {
            _abstract: UnixListener::bind_addr(&abstract_name).unwrap(),
            _socket_file: UnixListener::bind(&socket_file).unwrap(),
            folder,
            user,
            bystander,
            listener,
        };
        chown(socket_file, Some(user), Some(user)).unwrap();
        field
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts everything back that an attempt may have taken away or left behind.
    fn restore(&self) {
        for name in ["own/stolen.phext", "own/made-link", "own/made-pipe", "neighbour/gift.phext"] {
            let _ = fs::remove_file(self.path(name));
        }
        let _ = fs::remove_file(self.path("own/link.phext"));
        let _ = fs::remove_dir(self.path("own/made-dir"));
        symlink(self.path("neighbour/secret.phext"), self.path("own/link.phext")).unwrap();
        for name in ["secret", "cut", "gone", "moved"] {
            self.write(&format!("neighbour/{name}.phext"));
        }
        self.write("own/own.phext");
    }

    fn write(&self, name: &str) {
        fs::write(self.path(name), "text").unwrap();
        chown(self.path(name), Some(self.user), Some(self.user)).unwrap();
    }

    fn attempt(&self, row: &Row, walls: &str) -> Result<(), String> {
        self.restore();
        let mut command = escape();
        command.args([&row.name, walls]).arg(self.path("own")).arg(self.path("neighbour"));
        command.arg(self.bystander.id().to_string());
        command.arg(self.listener.local_addr().unwrap().port().to_string());
        verdict(&process::run(command.uid(self.user).gid(self.user)))
    }
}

impl Drop for Field {
    fn drop(&mut self) {
        process::kill_and_reap(&mut self.bystander);
    }
}

fn escape() -> Command {
    Command::new(env!("CARGO_BIN_EXE_escape"))
}

fn rows() -> Vec<Row> {
    let listed = process::run(escape().arg("list")).success();
    let parse = |line: &str| {
        let [name, privilege, wall] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        Row { name: name.to_owned(), needs_root: privilege == "root", needs_own_root: wall == "own-root" }
    };
    listed.lines().map(parse).collect()
}

/// What came of an attempt: nothing, or what stopped it.
fn verdict(outcome: &Outcome) -> Result<(), String> {
    if outcome.status.signal() == Some(Signal::SYS.as_raw()) {
        return Err("killed".into());
    }
    match outcome.stdout.trim().split_once(' ').unwrap_or((outcome.stdout.trim(), "")) {
        ("allowed", _) => Ok(()),
        ("denied", why) => Err(why.to_owned()),
        _ => panic!("no verdict: {outcome:?}"),
    }
}

/// A row of the table for people, and what is wrong with it.
fn try_row(field: &Field, row: &Row) -> (String, Option<String>) {
    let [free, confined, contained] = ["none", "all", "no-root"].map(|walls| field.attempt(row, walls));
    let shown = |verdict: &Result<(), String>| match verdict {
        Ok(()) => "allowed".to_owned(),
        Err(why) => why.split(" (os error").next().unwrap_or_default().to_owned(),
    };
    let line = [&free, &confined, &contained].map(shown).join(" | ");
    let line = format!("{} | {line}", row.name);
    if free.is_err() && !(row.needs_root && field.user != 0) {
        notice::skip(&format!("the way out that this machine does not allow outside either: {line}"));
    }
    let is_held = confined.is_err() && (contained.is_err() || row.needs_own_root);
    let mistake = (!is_held).then(|| line.clone());
    (line, mistake)
}

fn assert_no_way_out(user: u32) {
    let (field, rows) = (Field::new(user), rows());
    let (lines, mistakes): (Vec<_>, Vec<_>) = rows.iter().map(|row| try_row(&field, row)).unzip();
    notice::say(&format!(
        "user {user}: {} ways out: outside | inside | inside, without a root of its own\n  {}",
        rows.len(),
        lines.join("\n  ")
    ));
    let mistakes: Vec<String> = mistakes.into_iter().flatten().collect();
    assert!(mistakes.is_empty(), "user {user}: not denied inside:\n{}", mistakes.join("\n"));
}

#[test]
fn every_way_out_is_denied_inside_and_allowed_outside() {
    assert_no_way_out(geteuid().as_raw());
}

#[test]
fn nor_does_an_unprivileged_worker_get_out() {
    if !geteuid().is_root() {
        return notice::not_allowed_here(
            "the escape table of an unprivileged user: it takes root to become one",
        );
    }
    assert_no_way_out(NOBODY);
}

#[test]
fn a_worker_holds_what_it_needs_and_nothing_else() {
    let setup = Setup { pool: "sandbox = \"require\"".into(), ..Setup::default() };
    let running = Deployment::start(&setup);
    let alice = running.client_of("alice");
    assert_eq!(alice.post("/api/v2/insert?p=notes&c=1.1.1/1.1.1/1.1.1", "text").status, 200);
    let worker = running.worker_of("alice").expect("it is awake");
    let of_worker = |name: &str| Path::new("/proc").join(worker.pid.to_string()).join(name);

    let status = fs::read_to_string(of_worker("status")).unwrap();
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000", "CapPrm:\t0000000000000000"] {
        assert!(status.contains(line), "{line} is not in\n{status}");
    }
    let limits = fs::read_to_string(of_worker("limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "{core}");
    for (name, most) in [("data size", 1 << 44), ("stack size", 8 << 20), ("address space", 1 << 44)] {
        let line = limits.lines().find(|line| line.starts_with(&format!("Max {name}"))).unwrap();
        for limit in &line.split_whitespace().collect::<Vec<_>>()[3..5] {
            assert!(limit.parse::<u64>().is_ok_and(|limit| limit <= most), "{line}");
        }
    }
    if !geteuid().is_root() {
        // Not even its own user looks into it.
        let refused = fs::read_dir(of_worker("fd")).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
        return notice::not_allowed_here("the descriptors of a worker: it takes root to see them");
    }
    let environment = fs::read(of_worker("environ")).unwrap();
    for variable in environment.split(|byte| *byte == 0).filter(|variable| !variable.is_empty()) {
        let variable = String::from_utf8_lossy(variable);
        assert!(["LISTEN_FDS=1", "RUST_LOG="].iter().any(|known| variable.starts_with(known)), "{variable}");
    }
    let data = running.join("data/alice");
    assert_eq!(fs::read_link(of_worker("root")).unwrap(), data);
    for entry in fs::read_dir(of_worker("fd")).unwrap() {
        let entry = entry.unwrap();
        let (number, target) = (entry.file_name(), fs::read_link(entry.path()).unwrap());
        let shown = target.display().to_string();
        let is_standard = ["0", "1", "2"].iter().any(|standard| number == *standard);
        let is_known = shown.starts_with("socket:") || shown.starts_with("anon_inode:[event");
        let is_pipe_copy = shown.starts_with("pipe:");
        assert!(
            is_standard || is_known || is_pipe_copy || target.starts_with(&data),
            "{number:?} is {shown}"
        );
    }
}

#[test]
fn a_worker_that_root_starts_for_another_users_directory_is_that_users() {
    if !geteuid().is_root() {
        return notice::not_allowed_here("root that serves another user's directory");
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let data = folder.path().join("data");
    make_nobodys(&data);
    let worker = LoneWorker::start(&data);
    assert_eq!(worker.client.get("/api/v2/insert?p=notes&c=1.1.1/1.1.1/1.1.1&s=text").status, 200);
    let status = fs::read_to_string(format!("/proc/{}/status", worker.pid())).unwrap();
    let ids = format!("Uid:\t{NOBODY}\t{NOBODY}\t{NOBODY}\t{NOBODY}\n");
    assert!(status.contains(&ids) && status.contains("CapEff:\t0000000000000000"), "{status}");
    worker.stop();
    assert_eq!(fs::metadata(data.join("notes.phext")).unwrap().uid(), NOBODY);
}

/// Root's own system, with a tenant's directory that is another user's: beneath that directory is all that is left to use
/// the privilege on.
#[test]
fn a_worker_of_roots_pool_keeps_what_another_users_directory_takes() {
    if !geteuid().is_root() {
        return notice::not_allowed_here("root's pool with another user's directory");
    }
    let root = Root::new(&Setup::default());
    fs::create_dir_all(root.join("data")).unwrap();
    make_nobodys(&root.join("data/alice"));
    let running = Deployment::up(root, &[]);
    assert_eq!(
        running.client_of("alice").get("/api/v2/insert?p=notes&c=1.1.1/1.1.1/1.1.1&s=text").status,
        200
    );
    let worker = running.worker_of("alice").unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", worker.pid)).unwrap();
    assert!(status.contains("CapEff:\t0000000000000002"), "more than CAP_DAC_OVERRIDE, or less:\n{status}");
}

fn make_nobodys(directory: &Path) {
    fs::create_dir(directory).unwrap();
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).unwrap();
    chown(directory, Some(NOBODY), Some(NOBODY)).unwrap();
}

#[test]
fn a_kernel_without_landlock_is_told_of() {
    if !strace::works("the sandbox on a kernel without Landlock") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let start = |sandbox: &str| {
        let mut traced = LoneWorker::command(&folder.path().join("data"));
        traced.args(["--sandbox", sandbox]);
        let calls = ["landlock_create_ruleset"];
        let strace = Strace::new(&folder.path().join("trace"), &calls);
        LoneWorker::spawn(&mut strace.inject_always(calls[0], "error=ENOSYS").command(&traced))
    };
    let refused = start("require").expect_err("it must not start");
    assert_eq!(refused.code(), Some(1), "{refused:?}");
    assert!(
        refused.stderr.contains("Landlock") && refused.stderr.contains("sandbox = \"try\""),
        "{refused:?}"
    );
    let lone = start("try").unwrap_or_else(|outcome| panic!("{outcome:?}"));
    assert_eq!(lone.client.get("/api/v2/phexts").status, 200);
    lone.stop();
}

/// Everything that the API does, on one worker.
fn use_everything(lone: &LoneWorker) {
    let ask = |method: &str, target: &str, body: Option<&[u8]>| {
        let answer = lone.client.request(method, &format!("/api/v2/{target}"), "", body);
        assert_eq!(answer.status, 200, "{target}: {answer}");
    };
    let place = "p=notes&c=1.1.1/1.1.1/1.1.1";
    let large = "a line of text\n".repeat(200_000);
    for verb in ["insert", "update", "delete"] {
        ask("POST", &format!("{verb}?{place}"), Some(b"text"));
        ask("GET", &format!("{verb}?{place}&s=text"), None);
    }
    ask("POST", "insert?p=large&c=1.1.1/1.1.1/1.1.1", Some(large.as_bytes()));
    for target in ["version", "phexts", "select?p=large&c=1.1.1/1.1.1/1.1.1", &format!("select?{place}")] {
        ask("GET", target, None);
    }
    for verb in ["load", "status", "toc", "get", "checksum", "json-export"] {
        ask("GET", &format!("{verb}?p=large"), None);
    }
    ask("POST", "delta?p=notes", Some(b""));
    ask("GET", "query?p=notes&from=1.1.1/1.1.1/1.1.1&to=2.1.1/1.1.1/1.1.1", None);
    ask("POST", "where?algo=xor&limit=1", Some(b"text"));
}

/// The list of what a worker may call is neither too short, which would end it one day, nor without reason.
#[test]
fn what_a_worker_calls_is_on_its_list() {
    if !strace::works("the list of system calls against the whole API") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("trace");
    let mut traced = LoneWorker::command(&folder.path().join("data"));
    traced.args(["--sandbox", "try"]);
    let lone = LoneWorker::spawn(&mut Strace::everything(&log).command(&traced)).unwrap();
    use_everything(&lone);
    lone.stop();
    // Each line is a thread, a call's number in brackets, its name and arguments; `strace` may write the last ones
    // when what it traces has ended already.
    let read = || fs::read_to_string(&log).unwrap();
    wait::until("the end of the trace", || read().contains("exit_group(0"));
    let calls: Vec<i64> = read()
        .lines()
        .filter_map(|line| line.split_once('[')?.1.split_once(']')?.0.trim().parse().ok())
        .collect();
    let walls = calls.iter().rposition(|call| *call == libc::SYS_seccomp).expect("the walls go up");
    let made: BTreeSet<i64> = calls[walls + 1..].iter().copied().collect();
    let listed: BTreeSet<i64> = sq_worker::sandbox::listed_calls().into_iter().collect();
    let missing: Vec<_> = made.difference(&listed).collect();
    assert!(missing.is_empty(), "made, and not on the list: {missing:?}");
    let idle: Vec<_> = listed.difference(&made).collect();
    notice::say(&format!(
        "system calls: {} on the list, {} made here; not made: {idle:?}",
        listed.len(),
        made.len()
    ));
    assert!(made.len() * 2 > listed.len(), "most of the list has no reason: {idle:?}");
}

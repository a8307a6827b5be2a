//! A service user that was taken over plants links, pipes and folders where root's next command reads and writes.
//! Root has its own files in a folder beside: whatever the command does, they stay as they are and are not shown.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode};
use rustix::process::geteuid;
use sq_tests::deployment::Deployment;
use sq_tests::lone_worker::LoneWorker;
use sq_tests::notice;
use sq_tests::process::{self, Outcome};
use sq_tests::root::Root;
use sq_tests::separate::{Gateway, Pool};
use sq_tests::setup::Setup;
use tempfile::TempDir;

/// The service user, who may make files and read what all may read.
const USER: u32 = 65534;

/// What root's file holds: valid TOML, whose field a careless error would repeat.
const SECRET: &str = "the-secret-word = 1\n";

/// What can be planted at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trap {
    LinkToFile,
    LinkToNothing,
    LinkToFolder,
    LinkToEmptyFolder,
    HardLink,
    Pipe,
    Folder,
}

const TRAPS: [Trap; 7] = [
    Trap::LinkToFile,
    Trap::LinkToNothing,
    Trap::LinkToFolder,
    Trap::LinkToEmptyFolder,
    Trap::HardLink,
    Trap::Pipe,
    Trap::Folder,
];

/// Where root's commands read, write, rename, make directories, or delete.
const PATHS: [&str; 12] = [
    "gateway.toml",
    "gateway.toml.tmp",
    "tenants.toml",
    "tenants.toml.tmp",
    "tenants.toml.lock",
    "keys.csv",
    "imported.toml",
    "imported.toml.tmp",
    "data",
    "data/dora",
    "data/slot-001",
    "data/.archive",
];

/// The commands that end at once. (`remove` waits for workers.)
const COMMANDS: [&[&str]; 10] = [
    &["check", "--config", "gateway.toml"],
    &["tenants", "list", "--root", "."],
    &["tenants", "show", "alice", "--root", "."],
    &["tenants", "add", "dora", "--root", "."],
    &["tenants", "suspend", "alice", "--root", "."],
    &["tenants", "rotate-key", "alice", "--root", "."],
    &["tenants", "revoke-key", "alice", "k1", "--root", "."],
    &["provision", "--slots", "2", "--root", "."],
    &["provision", "--slots", "2", "--root", ".", "--keys-out", "keys.csv"],
    &["import", "old.json", "--out", "imported.toml", "--root", "."],
];

const WRITE: &str = "/api/v2/insert?p=notes&c=1.1.1/1.1.1/1.1.1";

const OLD_REGISTRY: &str =
    r#"{"tenants": [{"token": "old-token", "port": 1350, "data_dir": "/srv/old/erin"}]}"#;

/// A system of the service user's, and files of root's.
struct Field {
    root: Arc<Root>,
    victim: TempDir,
    before: BTreeMap<PathBuf, String>,
}

impl Field {
    /// A system of this user's; `None` when this process may not make one.
    fn of_user(user: Option<u32>) -> Self {
        let root = Root::new(&Setup { timeouts: "answer = \"3s\"".to_owned(), ..Setup::default() });
        for tenant in ["alice", "bob"] {
            fs::create_dir_all(root.join("data").join(tenant)).unwrap();
        }
        root.write("data/bob/notes.phext", "text");
        root.write("old.json", OLD_REGISTRY);
        if let Some(user) = user {
            give(root.path(), user);
        }
        let victim = tempfile::tempdir().unwrap();
        let path = |name: &str| victim.path().join(name);
        fs::create_dir_all(path("folder/deep")).unwrap();
        fs::create_dir(path("empty")).unwrap();
        for name in ["file", "folder/file", "folder/deep/notes.phext"] {
            fs::write(path(name), SECRET).unwrap();
            fs::set_permissions(path(name), Permissions::from_mode(0o600)).unwrap();
        }
        // All may look into the folders: the way is open, and still nothing happens.
        for name in ["", "folder", "folder/deep", "empty"] {
            fs::set_permissions(path(name), Permissions::from_mode(0o755)).unwrap();
        }
        let before = state(victim.path());
        Self { root: Arc::new(root), victim, before }
    }

    fn of_service_user() -> Self {
        Self::of_user(Some(USER))
    }

    fn victim(&self, name: &str) -> PathBuf {
        self.victim.path().join(name)
    }

    fn plant(&self, name: &str, trap: Trap) {
        let path = self.root.join(name);
        let _ = fs::remove_dir_all(&path);
        let _ = fs::remove_file(&path);
        let linked = match trap {
            Trap::LinkToFile => symlink(self.victim("file"), &path),
            Trap::LinkToNothing => symlink(self.victim("absent"), &path),
            Trap::LinkToFolder => symlink(self.victim("folder"), &path),
            Trap::LinkToEmptyFolder => symlink(self.victim("empty"), &path),
            Trap::HardLink => fs::hard_link(self.victim("file"), &path),
            Trap::Pipe => rustix::fs::mkfifoat(CWD, &path, Mode::RWXU).map_err(Into::into),
            Trap::Folder => fs::create_dir(&path),
        };
        linked.unwrap();
        if trap != Trap::HardLink && geteuid().is_root() {
            lchown(&path, Some(USER), Some(USER)).unwrap();
        }
    }

    /// Root's files are as they were, and a command said nothing that they hold.
    fn assert_untouched(&self, what: &str, outcome: Option<&Outcome>) {
        assert_eq!(state(self.victim.path()), self.before, "{what}: {outcome:?}");
        let Some(outcome) = outcome else { return };
        let told = format!("{}{}", outcome.stdout, outcome.stderr);
        assert!(!told.contains("the-secret-word"), "{what} shows it: {told}");
        let is_said = outcome.code() == Some(1) && outcome.stderr.starts_with("sq-gateway: ");
        assert!(outcome.code() == Some(0) || is_said, "{what}: {outcome:?}");
    }

    fn assert_owned_by_user(&self, name: &str) {
        let made = fs::symlink_metadata(self.root.join(name)).unwrap();
        assert_eq!((made.uid(), made.gid()), (USER, USER), "{name}");
    }

    fn run(&self, command: &[&str]) -> Outcome {
        self.root.gateway(command)
    }
}

fn give(path: &Path, user: u32) {
    lchown(path, Some(user), Some(user)).unwrap();
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        give(&entry.path(), user);
    }
}

/// Everything below a folder: kind, owner, mode, and text.
fn state(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut paths = vec![folder.to_owned()];
    while let Some(path) = paths.pop() {
        let entry = fs::symlink_metadata(&path).unwrap();
        paths.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        let text = if entry.is_file() { fs::read_to_string(&path).unwrap() } else { String::new() };
        let state = format!("{}:{} {:o} {text}", entry.uid(), entry.gid(), entry.mode());
        found.insert(path, state);
    }
    found
}

fn is_root(what: &str) -> bool {
    if !geteuid().is_root() {
        notice::not_allowed_here(what);
    }
    geteuid().is_root()
}

/// Runs rows on a few threads.
fn each<T: Copy + Sync>(rows: &[T], run: impl Fn(T) + Sync) {
    std::thread::scope(|scope| {
        for part in rows.chunks(rows.len().div_ceil(8)) {
            scope.spawn(|| part.iter().for_each(|row| run(*row)));
        }
    });
}

#[test]
fn no_command_of_roots_follows_what_the_service_user_planted() {
    if !is_root("commands of root in another user's folder") {
        return;
    }
    let mut rows = Vec::new();
    for path in PATHS {
        rows.extend(TRAPS.map(|trap| (path, trap)));
    }
    each(&rows, |(path, trap)| {
        for command in COMMANDS {
            let field = Field::of_service_user();
            field.plant(path, trap);
            let outcome = field.run(command);
            field.assert_untouched(&format!("{command:?} with {trap:?} at {path}"), Some(&outcome));
        }
    });
    notice::say(&format!("{} traps, each for {} commands of root's", rows.len(), COMMANDS.len()));
}

#[test]
fn removing_a_tenant_leaves_alone_what_its_folders_lead_to() {
    if !is_root("removal by root in another user's folder") {
        return;
    }
    let mut rows = Vec::new();
    for path in ["tenants.toml.tmp", "tenants.toml.lock", "data", "data/bob", "data/.archive"] {
        for trap in TRAPS {
            rows.extend([(path, trap, None), (path, trap, Some("--purge"))]);
        }
    }
    each(&rows, |(path, trap, option)| {
        let field = Field::of_service_user();
        field.plant(path, trap);
        let mut command = vec!["tenants", "remove", "bob", "--root", "."];
        command.extend(option);
        let outcome = field.run(&command);
        field.assert_untouched(&format!("{command:?} with {trap:?} at {path}"), Some(&outcome));
    });
}

/// Links are not needed where the service user writes what root reads.
#[test]
fn a_config_and_a_registry_of_the_service_users_do_not_send_root_elsewhere() {
    if !is_root("configs that another user wrote") {
        return;
    }
    let quoted = |path: PathBuf| format!("{:?}", path.to_str().unwrap());
    let set = |field: &Field, name: &str, path: &str| {
        let config = field.root.read("gateway.toml");
        let line = format!("[gateway]\n{name} = {}\n", quoted(field.victim(path)));
        field.root.write("gateway.toml", &config.replacen("[gateway]\n", &line, 1));
    };
    let commands: [&[&str]; 3] = [
        &["tenants", "add", "dora", "--adopt", "--root", "."],
        &["provision", "--slots", "2", "--root", "."],
        &["tenants", "remove", "bob", "--purge", "--root", "."],
    ];
    each(&commands, |command| {
        for (name, path) in [("data_root", "folder"), ("data_root", "absent"), ("tenants", "absent.toml")] {
            let field = Field::of_service_user();
            set(&field, name, path);
            let outcome = field.run(command);
            field.assert_untouched(&format!("{command:?}, {name} = {path}"), Some(&outcome));
        }
        let field = Field::of_service_user();
        let line = format!("name = \"bob\"\ndata_dir = {}", quoted(field.victim("folder")));
        let registry = field.root.read("tenants.toml").replace("name = \"bob\"", &line);
        fs::write(field.root.join("tenants.toml"), registry).unwrap();
        let outcome = field.run(command);
        field.assert_untouched(&format!("{command:?}, data_dir"), Some(&outcome));
    });
}

#[test]
fn a_new_system_in_the_service_users_folder_is_made_by_that_user() {
    if !is_root("a system that root makes in another user's folder") {
        return;
    }
    let mut rows = Vec::new();
    for path in ["keys.csv", "gateway.toml", "gateway.toml.tmp", "tenants.toml", "data"] {
        rows.extend(TRAPS.map(|trap| (path, trap)));
    }
    each(&rows, |(path, trap)| {
        let field = Field::of_service_user();
        for name in ["gateway.toml", "tenants.toml"] {
            fs::remove_file(field.root.join(name)).unwrap();
        }
        field.plant(path, trap);
        let outcome = field.run(&["provision", "--slots", "1", "--root", "."]);
        field.assert_untouched(&format!("a new system with {trap:?} at {path}"), Some(&outcome));
    });
    let field = Field::of_service_user();
    let made = field.run(&["provision", "--slots", "1", "--root", "new/folder"]).success();
    assert!(made.contains("provisioned 1 tenants"), "{made}");
    field.assert_owned_by_user("new/folder/data/slot-001");
}

#[test]
fn what_root_starts_in_the_service_users_folder_runs_as_that_user() {
    if !is_root("a gateway that root starts in another user's folder") {
        return;
    }
    each(&TRAPS, |trap| {
        let field = Field::of_service_user();
        let paths = ["audit.log", "keys.csv", "tenants.toml.lock", "tenants.toml.tmp", "data/alice"];
        for path in [&paths[..], &["gateway.toml.handover", "gateway.toml.pool-upgrade"]].concat() {
            field.plant(path, trap);
        }
        let running = Deployment::up(Arc::clone(&field.root), &[]);
        for tenant in ["alice", "bob"] {
            // A worker whose directory leads elsewhere does not start, so alice is answered 504.
            running.client_of(tenant).post(WRITE, "more");
        }
        let _ = running.admin().post("/admin/tenants/add", r#"{"name":"dora"}"#);
        let family = process::descendants(running.pid());
        assert!(family.len() >= 2, "a pool, and a worker of bob's: {family:?}");
        for pid in family.iter().map(|process| process.pid).chain([running.pid()]) {
            assert_is_user(pid);
        }
        running.stop();
        field.assert_untouched(&format!("up with {trap:?}"), None);
    });
}

#[test]
fn gateway_and_pool_alone_run_as_the_service_user_too() {
    if !is_root("programs that root starts in another user's folder") {
        return;
    }
    let field = Field::of_service_user();
    let pool = Pool::start(&field.root);
    let gateway = Gateway::serve(&field.root);
    gateway.client_of("alice").post(WRITE, "text").ok();
    assert_is_user(pool.pid());
    assert_is_user(gateway.pid());
    gateway.stop();
    pool.stop();
    for name in ["audit.log", "data/alice/notes.phext"] {
        field.assert_owned_by_user(name);
    }
}

#[test]
fn a_worker_that_root_starts_serves_no_directory_of_roots_for_the_service_user() {
    if !is_root("a worker that root starts on another user's directory") {
        return;
    }
    let field = Field::of_service_user();
    for trap in [Trap::LinkToFolder, Trap::LinkToEmptyFolder, Trap::LinkToNothing] {
        field.plant("data/alice", trap);
        for sandbox in ["try", "off"] {
            let mut command = LoneWorker::command(&field.root.join("data/alice"));
            let refused =
                LoneWorker::spawn(command.args(["--sandbox", sandbox])).expect_err("it must not start");
            assert!(refused.stderr.contains("cannot use the data directory"), "{refused:?}");
        }
    }
    LoneWorker::start(&field.root.join("data/new")).stop();
    field.assert_owned_by_user("data/new");
    field.assert_untouched("a worker", None);
}

/// All of its ids, its groups, and no privilege.
fn assert_is_user(pid: u32) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let ids = format!("\t{USER}").repeat(4);
    for line in [format!("Uid:{ids}"), format!("Gid:{ids}"), "CapPrm:\t0000000000000000".to_owned()] {
        assert!(status.contains(&line), "{line} is not in\n{status}");
    }
    let groups = status.lines().find(|line| line.starts_with("Groups:")).unwrap();
    assert!(!groups.split_whitespace().any(|group| group == "0"), "{groups}");
}

#[test]
fn the_operators_own_files_are_read_and_written_as_root() {
    if !is_root("root's files beside another user's system") {
        return;
    }
    let field = Field::of_service_user();
    let own = tempfile::tempdir().unwrap();
    let path = |name: &str| own.path().join(name).to_str().unwrap().to_owned();
    let (keys, old) = (path("keys.csv"), path("old.json"));
    field.run(&["provision", "--slots", "2", "--root", ".", "--keys-out", &keys]).success();
    let made = fs::metadata(&keys).unwrap();
    assert_eq!((made.uid(), made.gid(), made.mode() & 0o777), (0, 0, 0o600));
    assert_eq!(fs::read_to_string(&keys).unwrap().lines().count(), 3);
    fs::write(&old, OLD_REGISTRY).unwrap();
    fs::set_permissions(&old, Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(field.root.join("tenants.toml")).unwrap();
    field.run(&["import", &old, "--root", "."]).success();
    field.run(&["tenants", "add", "dora", "--root", "."]).success();
    for name in ["tenants.toml", "tenants.toml.lock", "data/dora", "data/slot-001"] {
        field.assert_owned_by_user(name);
    }
    field.assert_untouched("what is not about root's files", None);
}

/// Root's config is not the service user's to change; what it names is.
#[test]
fn a_config_of_roots_for_files_of_the_service_users() {
    if !is_root("root's config of another user's files") {
        return;
    }
    let field = Field::of_service_user();
    let own = tempfile::tempdir().unwrap();
    fs::set_permissions(own.path(), Permissions::from_mode(0o755)).unwrap();
    let (registry, data) = (field.root.join("tenants.toml"), field.root.join("data"));
    let lines = format!("[gateway]\ntenants = {registry:?}\ndata_root = {data:?}\n");
    let config = own.path().join("gateway.toml");
    fs::write(&config, field.root.read("gateway.toml").replacen("[gateway]\n", &lines, 1)).unwrap();
    field.plant("tenants.toml.tmp", Trap::LinkToFile);
    let command = ["provision", "--slots", "1", "--config", config.to_str().unwrap()];
    field.run(&command).success();
    field.assert_untouched("root's config", None);
    for name in ["tenants.toml", "data/slot-001"] {
        field.assert_owned_by_user(name);
    }
    assert_eq!(fs::metadata(own.path().join("keys.csv")).unwrap().uid(), 0);
}

#[test]
fn what_only_root_may_read_in_the_folder_is_refused_with_the_reason() {
    if !is_root("root's files in another user's folder") {
        return;
    }
    let field = Field::of_service_user();
    let registry = field.root.join("tenants.toml");
    chown(&registry, Some(0), Some(0)).unwrap();
    fs::set_permissions(&registry, Permissions::from_mode(0o600)).unwrap();
    let refused = field.run(&["tenants", "list", "--root", "."]);
    let told = format!("who owns {}", field.root.path().display());
    assert!(refused.code() == Some(1) && refused.stderr.contains(&told), "{refused:?}");
    assert!(refused.stderr.contains(&format!("({USER})")), "{refused:?}");
}

/// What root does not write through a link in its own folder, no user does.
#[test]
fn nothing_is_written_through_a_link_in_ones_own_folder() {
    for trap in TRAPS {
        let field = Field::of_user(None);
        field.plant("tenants.toml.tmp", trap);
        let outcome = field.run(&["tenants", "add", "dora", "--root", "."]);
        field.assert_untouched(&format!("{trap:?}"), Some(&outcome));
        assert_eq!(outcome.code(), Some(i32::from(trap == Trap::Folder)), "{trap:?}: {outcome:?}");
        for (path, command) in [("tenants.toml.lock", COMMANDS[3]), ("keys.csv", COMMANDS[7])] {
            let field = Field::of_user(None);
            field.plant(path, trap);
            let outcome = field.run(command);
            field.assert_untouched(&format!("{trap:?} at {path}"), Some(&outcome));
            assert!(outcome.code() == Some(1) && outcome.stderr.contains(path), "{trap:?}: {outcome:?}");
        }
    }
}

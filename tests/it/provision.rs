//! Five hundred tenants, provisioned by one command, each served with its own key only.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::process::Command;

use sq_tests::deployment::Deployment;
use sq_tests::root::Root;
use sq_tests::setup::Setup;
use sq_tests::target::url;
use sq_tests::{notice, process};

const SLOTS: usize = 500;
const AT: &str = "p=own&c=1.1.1/1.1.1/1.1.1";

/// A row of the CSV.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    tenant: String,
    port: u16,
    key_id: String,
    key: String,
}

fn rows(root: &Root, file: &str) -> Vec<Row> {
    let mode = fs::metadata(root.join(file)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{file}");
    let text = root.read(file);
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("tenant,port,key_id,key"));
    lines.map(row).collect()
}

fn row(line: &str) -> Row {
    let fields: Vec<&str> = line.split(',').collect();
    let [tenant, port, key_id, key] = fields[..] else { panic!("{line}") };
    Row { tenant: tenant.into(), port: port.parse().unwrap(), key_id: key_id.into(), key: key.into() }
}

fn provision(root: &Root, arguments: &[&str]) -> process::Outcome {
    let folder = root.path().to_str().unwrap();
    root.gateway(&[&["provision", "--root", folder], arguments].concat())
}

#[test]
fn each_of_500_tenants_sees_only_its_own_data() {
    let root = Root::without_registry(&Setup::default());
    let printed = provision(&root, &["--slots", "500"]).success();
    assert!(printed.contains("500"), "{printed}");
    let rows = rows(&root, "keys.csv");
    assert_eq!(rows.len(), SLOTS);
    for (index, row) in rows.iter().enumerate() {
        assert_eq!(
            (row.tenant.clone(), usize::from(row.port)),
            (format!("slot-{:03}", index + 1), 1341 + index)
        );
        let digits = row.key.strip_prefix("pmb-v1-").unwrap();
        assert!(digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()), "{row:?}");
    }
    assert_eq!(rows.iter().map(|row| &row.key).collect::<HashSet<_>>().len(), SLOTS);
    assert!(!printed.contains("pmb-v1-") && !root.read("tenants.toml").contains("pmb-v1-"));

    let running = Deployment::up(root, &[]);
    assert_eq!(running.tenants, SLOTS);
    assert_eq!(running.pool_status()["workers"]["running"], 0, "a worker runs before the first request");
    for row in &rows {
        let text = format!("of {}", row.tenant);
        running.client(Some(&row.key)).post(&format!("/api/v2/update?{AT}"), &text).ok();
    }
    for row in &rows {
        let client = running.client(Some(&row.key));
        assert_eq!(client.get(&format!("/api/v2/get?{AT}")).ok(), format!("of {}", row.tenant));
    }
    let stored: BTreeMap<String, Vec<u8>> =
        running.stored().into_iter().map(|(path, bytes)| (path.display().to_string(), bytes)).collect();
    assert_eq!(stored.keys().filter(|path| path.ends_with(".phext")).count(), SLOTS);
    for row in &rows {
        assert_eq!(
            stored[&format!("data/{}/own.phext", row.tenant)],
            format!("of {}", row.tenant).into_bytes()
        );
    }
    for row in rows.iter().step_by(100) {
        assert_eq!(curl(&running, row), format!("of {}", row.tenant));
    }
    running.stop();
}

/// Requests a tenant's phext as its customer does, with curl.
fn curl(running: &Deployment, row: &Row) -> String {
    let header = format!("Authorization: Bearer {}", row.key);
    let url = url(running.listen, &format!("/api/v2/select?{AT}"));
    process::run(Command::new("curl").args(["--silent", "--show-error", "--fail", "-H", &header, &url]))
        .success()
}

#[test]
fn second_run_adds_missing_tenants_and_changes_no_key() {
    let root = Root::without_registry(&Setup::default());
    provision(&root, &["--slots", "3"]).success();
    let (first, registry) = (rows(&root, "keys.csv"), root.read("tenants.toml"));
    provision(&root, &["--slots", "3"]).success();
    assert_eq!((rows(&root, "keys.csv"), root.read("tenants.toml")), (first.clone(), registry.clone()));
    provision(&root, &["--slots", "5"]).success();
    assert!(root.read("tenants.toml").starts_with(&registry), "what was there has changed");
    let added = rows(&root, "keys.csv");
    let names: Vec<&str> = added.iter().map(|row| row.tenant.as_str()).collect();
    assert_eq!(names, ["slot-001", "slot-002", "slot-003", "slot-004", "slot-005"]);
    assert_eq!(added[..3], first[..]);
}

#[test]
fn provision_takes_the_lowest_free_ports() {
    let root = Root::new(&Setup::default());
    provision(
        &root,
        &["--slots", "2", "--prefix", "guest-", "--state", "reserved", "--keys-out", "new-keys.csv"],
    )
    .success();
    let found: Vec<_> = rows(&root, "new-keys.csv").into_iter().map(|row| (row.tenant, row.port)).collect();
    assert_eq!(found, [("guest-001".to_owned(), 1343), ("guest-002".to_owned(), 1344)]);
    let key = rows(&root, "new-keys.csv")[0].key.clone();
    let running = Deployment::up(root, &[]);
    running.client(Some(&key)).get(&format!("/api/v2/select?{AT}")).problem(403, "tenant_reserved");
    running.client_of("alice").get(&format!("/api/v2/select?{AT}")).ok();
}

/// In a folder like /tmp, another user may have created the file first.
#[test]
fn keys_go_to_no_file_that_another_user_has_put_there() {
    if !rustix::process::geteuid().is_root() {
        notice::not_allowed_here("keys in a file of another user: only root can write to it");
        return;
    }
    let shared = tempfile::tempdir().unwrap();
    fs::set_permissions(shared.path(), Permissions::from_mode(0o1777)).unwrap();
    let file = shared.path().join("keys.csv");
    let mut plant = Command::new("setpriv");
    plant.args(["--reuid", "65534", "--clear-groups", "sh", "-c", "umask 0; : >\"$1\"", "sh"]).arg(&file);
    process::run(&mut plant).success();
    let options = ["--slots", "2", "--keys-out", file.to_str().unwrap()];
    let assert_refused = |root: &Root| {
        let before = sq_tests::tree::files(root.path());
        let outcome = provision(root, &options);
        assert_eq!(outcome.code(), Some(1), "{outcome:?}");
        for words in [file.to_str().unwrap(), "65534", "remove it"] {
            assert!(outcome.stderr.contains(words), "{words}: {outcome:?}");
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "");
        assert_eq!(sq_tests::tree::files(root.path()), before);
    };
    assert_refused(&Root::new(&Setup::default()));
    let empty = Root::empty();
    assert_refused(&empty);
    // The owner of the system's root may read its keys anyway.
    chown(empty.path(), Some(65534), Some(65534)).unwrap();
    provision(&empty, &options).success();
    assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 3);
}

#[test]
fn too_many_tenants_for_the_slots_is_an_error_and_writes_nothing() {
    let root = Root::without_registry(&Setup::default());
    let before = sq_tests::tree::files(root.path());
    let outcome = provision(&root, &["--slots", "501"]);
    assert_eq!(outcome.code(), Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("500"), "the number of slots is missing: {}", outcome.stderr);
    let is_lock = |path: &std::path::PathBuf| path.extension().is_some_and(|end| end == "lock");
    let after: Vec<_> =
        sq_tests::tree::files(root.path()).into_iter().filter(|path| !is_lock(path)).collect();
    assert_eq!(after, before);
    for wrong in ["0", "-1", "many"] {
        assert_eq!(provision(&root, &["--slots", wrong]).code(), Some(2), "{wrong}");
    }
}

/// The keys are delivered, but no tenant has written yet: a registry that is missing now is lost, not new.
#[test]
fn lost_registry_is_not_created_again() {
    for (what, arguments) in [("keys.csv", &[][..]), ("data/.sq-tenants", &["--keys-out", "-"])] {
        let root = Root::without_registry(&Setup::default());
        assert_eq!(provision(&root, &[&["--slots", "2"], arguments].concat()).code(), Some(0));
        let keys = fs::read(root.join("keys.csv")).unwrap_or_default();
        fs::rename(root.registry(), root.join("kept")).unwrap();
        for is_link in [false, true] {
            if is_link {
                symlink("unmounted/tenants.toml", root.registry()).unwrap();
                fs::create_dir(root.join("unmounted")).unwrap();
            }
            for command in [&["up", "--root", "."][..], &["provision", "--slots", "2", "--root", "."]] {
                let refused = root.gateway(command);
                assert_eq!(refused.code(), Some(1), "{what}: {refused:?}");
                for words in ["this system has had tenants", what] {
                    assert!(refused.stderr.contains(words), "{what}: {refused:?}");
                }
                assert!(!root.registry().exists());
                assert_eq!(fs::read(root.join("keys.csv")).unwrap_or_default(), keys);
            }
        }
        fs::remove_file(root.registry()).unwrap();
        fs::rename(root.join("kept"), root.registry()).unwrap();
        assert_eq!(provision(&root, &[&["--slots", "2"], arguments].concat()).code(), Some(0));
    }
}

/// A command that was killed while it created the first tenants left directories, keys, and the registry's temporary file.
#[test]
fn interrupted_first_registry_is_created_again() {
    let root = Root::without_registry(&Setup::default());
    assert_eq!(provision(&root, &["--slots", "2"]).code(), Some(0));
    fs::rename(root.registry(), root.join("tenants.toml.tmp")).unwrap();
    assert_eq!(provision(&root, &["--slots", "2"]).code(), Some(0));
    assert!(root.registry().exists() && !root.join("tenants.toml.tmp").exists());
}

//! Which directories a tenant may have: not the system's, not one with the service's own files, and not another tenant's
//! by any path. Mistakes in the native format and in the old ones are reported with their line.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use sq_tests::deployment::Deployment;
use sq_tests::mount::{self, Bound};
use sq_tests::root::Root;
use sq_tests::scrape::reload_by;
use sq_tests::setup::{Setup, Tenant, registry_text};
use sq_tests::target::SELECT;

/// A native registry that names alice's directory on line 5, and bob's on line 13.
fn native(alice: &str, bob: Option<&str>) -> String {
    let mut text = registry_text(&[Tenant::new("alice", 1341)])
        .replace("state = \"active\"", &format!("state = \"active\"\ndata_dir = {alice}"));
    if let Some(bob) = bob {
        text += &format!("[[tenant]]\nname = \"bob\"\nport = 1342\ndata_dir = {bob}\n");
    }
    text
}

/// The same in SQ's format, with alice on line 2 and bob on line 3.
fn of_sq(alice: &str, bob: Option<&str>) -> String {
    let bob =
        bob.map(|bob| format!(",\n\"t2\": {{\"name\": \"bob\", \"data_dir\": {bob}}}")).unwrap_or_default();
    format!("{{\"tenants\": {{\n\"t1\": {{\"name\": \"alice\", \"data_dir\": {alice}}}{bob}\n}}}}\n")
}

/// A folder with `data/alice`, links to it and elsewhere, and a folder that resembles the archive.
fn root() -> Root {
    let root = Root::without_registry(&Setup::default());
    for folder in ["data/alice", "data/.archive/old-1", "here"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::create_dir(root.join("d")).unwrap();
    for (target, link) in [
        ("data/alice", "hers"),
        ("/etc", "system"),
        ("/etc/sq/none", "system-to-be"),
        ("data", "root"),
        ("/", "everything"),
        ("here", "there"),
        // As on a disk that is not mounted yet.
        ("missing", "later"),
        ("../later", "d/later"),
        ("circle", "circle"),
    ] {
        symlink(target, root.join(link)).unwrap();
    }
    root
}

/// The output of `check` for a registry.
fn complaint(root: &Root, registry: &str) -> String {
    root.write_registry(registry);
    let outcome = root.with_config(&["check"]);
    assert_eq!(outcome.code(), Some(1), "accepted: {registry}{outcome:?}");
    outcome.stderr
}

fn assert_refused(alice: &str, bob: Option<&str>, words: &str) {
    let root = root();
    // JSON and TOML escape these texts in the same way.
    let quoted = |text: &str| serde_json::to_string(text).unwrap();
    let (alice, bob) = (quoted(alice), bob.map(quoted));
    let (line, old_line) = if bob.is_some() { (13, 3) } else { (5, 2) };
    for (registry, line) in
        [(native(&alice, bob.as_deref()), line), (of_sq(&alice, bob.as_deref()), old_line)]
    {
        let told = complaint(&root, &registry);
        let place = format!("tenants.toml:{line}:");
        assert!(
            told.contains(&place) && told.contains(words),
            "{alice} {bob:?}, wanted {place} {words}: {told}"
        );
    }
    // An import writes nothing.
    fs::rename(root.registry(), root.join("old")).unwrap();
    assert_eq!(root.with_config(&["import", "old"]).code(), Some(1));
    assert!(!root.registry().exists());
}

#[test]
fn no_directory_of_the_system_is_a_tenants() {
    for directory in [
        "/",
        "//",
        "/etc",
        "/etc/",
        "/etc/sq",
        "/usr/local/sq",
        "/proc/self",
        "/dev/shm",
        "/sys",
        "/var/lib",
        "/home",
        "/srv/../etc/sq",
        "/tmp",
        "system",
        "system/sq",
        "everything",
        "everything/etc",
        "system-to-be",
        "system-to-be/x",
    ] {
        assert_refused(directory, None, "a directory of the system");
    }
}

#[test]
fn directories_with_the_services_files_are_refused() {
    for directory in [".", "./", "here/..", "data/../.", "data", "data/", "root", "there/../data", "./data/."]
    {
        assert_refused(directory, None, "a directory that holds");
    }
    // The parent of the test's temporary folder.
    assert_refused("../../tmp/..", None, "a directory");
    for directory in ["data/.archive", "data/.archive/old-1", "root/.archive/x"] {
        assert_refused(directory, None, "the archive");
    }
}

/// The audit log, keys and locks are beside the paths that the operator named, which may be links.
#[test]
fn directories_with_links_to_the_services_files_are_refused() {
    let root = Root::without_registry(&Setup::default());
    for folder in ["etc/inner", "named", "on-the-way", "disk/data", "free"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    let config = root.read("gateway.toml");
    root.write(
        "etc/gateway.toml",
        &config.replacen("[gateway]", "[gateway]\ntenants = \"../named/tenants.toml\"", 1),
    );
    fs::remove_file(root.config()).unwrap();
    for (target, link) in [
        ("../on-the-way/gateway.toml", "named/gateway.toml"),
        ("../etc/gateway.toml", "on-the-way/gateway.toml"),
        ("../etc/tenants.toml", "named/tenants.toml"),
        ("named", "folder"),
        ("../disk/data", "named/data"),
    ] {
        symlink(target, root.join(link)).unwrap();
    }
    let check = |directory: &Path| {
        let registry = native(&format!("{directory:?}"), None);
        root.write("etc/tenants.toml", &registry);
        root.gateway(&["check", "--config", "folder/gateway.toml"])
    };
    for directory in ["named", "on-the-way", "etc", "folder", "."] {
        let outcome = check(&root.join(directory));
        assert_eq!(outcome.code(), Some(1), "accepted: {directory} {outcome:?}");
        assert!(outcome.stderr.contains("a directory that holds"), "{directory}: {outcome:?}");
    }
    for directory in ["free", "named/inner", "etc/inner"] {
        check(&root.join(directory)).success();
    }
}

#[test]
fn values_that_name_no_directory_are_refused() {
    assert_refused("", None, "empty");
    for directory in ["\0", "a\0b", "/srv/a\0", "a\nb", "a\u{7f}"] {
        assert_refused(directory, None, "control character");
    }
}

#[test]
fn one_directory_under_two_names_is_refused() {
    for (alice, bob) in [
        ("d/x", "d/x"),
        ("d/x", "d/x/"),
        ("d/x", "d//x/."),
        ("d/x", "d/y/../x"),
        ("data/alice", "hers"),
        ("hers", "root/alice"),
        ("here", "there"),
        ("later", "d/later"),
        ("missing/x", "later/x"),
    ] {
        assert_refused(alice, Some(bob), "have the same data_dir");
    }
    for (alice, bob) in [("d", "d/x"), ("here", "there/x"), ("hers", "data/alice/x/y"), ("d/x", "d/x/y/../z")]
    {
        assert_refused(alice, Some(bob), "lies inside that of tenant alice");
    }
}

#[test]
fn nested_directories_are_refused() {
    let root = root();
    let told = complaint(&root, &native("\"d/x\"", Some("\"d\"")));
    assert!(
        told.contains("tenants.toml:5:") && told.contains("alice lies inside that of tenant bob"),
        "{told}"
    );
    // Bob's directory is data/bob.
    let text = native("\"data/bob/x\"", Some("\"data/bob\"")).replace("data_dir = \"data/bob\"\n", "");
    let told = complaint(&root, &text);
    assert!(
        told.contains("tenants.toml:5:") && told.contains("alice lies inside that of tenant bob"),
        "{told}"
    );
    symlink("alice", root.join("data/bob")).unwrap();
    let text = registry_text(&[Tenant::new("alice", 1341), Tenant::new("bob", 1342)]);
    assert!(complaint(&root, &text).contains("have the same data_dir"));
    fs::remove_file(root.join("data/bob")).unwrap();
    symlink("/etc", root.join("data/bob")).unwrap();
    assert!(complaint(&root, &text).contains("bob is /etc, a directory of the system"));
}

/// A bind mount gives a directory a second path without a link.
#[test]
fn a_directory_that_is_mounted_twice_is_one() {
    if !mount::works("a directory under two mount points", &[]) {
        return;
    }
    let root = root();
    fs::create_dir_all(root.join("data/alice/inside")).unwrap();
    let bound = Bound::new(&root.join("data/alice"), &root.join("bound"), "");
    assert!(
        complaint(&root, &native("\"data/alice\"", Some("\"bound\""))).contains("have the same data_dir")
    );
    let told = complaint(&root, &native("\"data/alice\"", Some("\"bound/new\"")));
    assert!(told.contains("bob lies inside that of tenant alice"), "{told}");
    drop(bound);
    let _bound = Bound::new(root.path(), &root.join("here"), "");
    assert!(complaint(&root, &native("\"here\"", None)).contains("a directory that holds"));
}

#[test]
fn fit_directories_are_accepted_anywhere() {
    let root = root();
    for (alice, bob) in [
        ("d/x", "d/xy"),
        ("here", "data/bob"),
        ("/srv/sq-tests/a", "/srv/sq-tests/b"),
        ("..a", "d/..b"),
        ("circle", "later"),
    ] {
        root.write_registry(&native(&format!("{alice:?}"), Some(&format!("{bob:?}"))));
        assert_eq!(root.with_config(&["check"]).success(), "ok\n", "{alice} {bob}");
    }
}

#[test]
fn a_reload_with_such_a_directory_changes_nothing() {
    let running = Deployment::start(&Setup::default());
    let good = running.read("tenants.toml");
    running.client_of("bob").get(SELECT).ok();
    for directory in ["/etc", ".", "", "data/alice/x"] {
        let bad = good.replace("port = 1342", &format!("port = 1342\ndata_dir = \"{directory}\""));
        reload_by(&running, "rejected", || running.write_registry(&bad));
        running.client_of("bob").get(SELECT).ok();
    }
    assert!(running.log().contains("tenants.toml:12:12: "), "{}", running.log());
}

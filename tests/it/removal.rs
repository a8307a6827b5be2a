//! Removing a tenant's directory: the output names its real path, and a directory outside the data root is neither moved
//! nor deleted unless the operator confirms it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use sq_tests::deployment::Deployment;
use sq_tests::mount::{self, Mount};
use sq_tests::process::{self, Outcome};
use sq_tests::root::Root;
use sq_tests::setup::{Setup, Tenant, registry_text};
use sq_tests::target::{SELECT, UPDATE};
use sq_tests::wait;

/// Alice's directory is named by the registry, unless that is empty.
fn registry(alice: &str) -> String {
    let text = registry_text(&[Tenant::new("alice", 1341), Tenant::new("bob", 1342)]);
    if alice.is_empty() { text } else { text.replacen("state", &format!("data_dir = \"{alice}\"\nstate"), 1) }
}

/// A folder with this registry, and a directory that is alice's.
fn root(alice: &str, hers: &str) -> Root {
    let root = Root::without_registry(&Setup::default());
    root.write_registry(&registry(alice));
    fs::create_dir_all(root.join("data")).unwrap();
    put_text(&root.join(hers));
    root
}

fn put_text(directory: &Path) {
    fs::create_dir_all(directory).unwrap();
    fs::write(directory.join("text.phext"), "hers").unwrap();
}

fn has_text(directory: &Path) -> bool {
    fs::read_to_string(directory.join("text.phext")).is_ok_and(|text| text == "hers")
}

fn remove(root: &Root, options: &[&str]) -> Outcome {
    root.with_config(&[&["tenants", "remove", "alice"], options].concat())
}

fn has_alice(root: &Root) -> bool {
    root.read("tenants.toml").contains("alice")
}

/// Alice's directories in the archive.
fn archived(root: &Root) -> Vec<PathBuf> {
    let entries = fs::read_dir(root.join("data/.archive")).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Alice is removed, her directory is left, and the output says so.
fn assert_left(root: &Root, outcome: Outcome, real: &Path, why: &str) {
    let told = outcome.success();
    assert!(!has_alice(root), "she is still in the registry: {told}");
    assert!(told.contains(&format!("{} was left as it is", shown(real))) && told.contains(why), "{told}");
    assert!(archived(root).is_empty(), "{told}");
}

/// Nothing was changed, and the output says so.
fn assert_refused(root: &Root, outcome: &Outcome, real: &Path, why: &str) {
    assert_eq!(outcome.code(), Some(1), "{outcome:?}");
    let told = &outcome.stderr;
    assert!(
        told.contains("nothing was changed") && told.contains(&shown(real)) && told.contains(why),
        "{told}"
    );
    assert!(has_alice(root) && has_text(real), "{told}");
}

/// Each way to a directory outside the data root: the path in the registry, what to prepare, and where it leads.
type Way = (&'static str, &'static str, fn(&Root));

const WAYS_OUT: [Way; 4] = [
    ("elsewhere/alice", "elsewhere/alice", |_| ()),
    ("", "elsewhere/hers", |root| symlink("../elsewhere/hers", root.join("data/alice")).unwrap()),
    ("data/link/alice", "elsewhere/alice", |root| symlink("../elsewhere", root.join("data/link")).unwrap()),
    ("link/../elsewhere/alice", "elsewhere/alice", |root| symlink("data", root.join("link")).unwrap()),
];

#[test]
fn what_is_outside_the_data_root_is_left_where_it_is() {
    for (named, hers, prepare) in WAYS_OUT {
        let root = root(named, hers);
        prepare(&root);
        let real = root.join(hers);
        assert_refused(&root, &remove(&root, &["--purge"]), &real, "--yes");
        assert_left(&root, remove(&root, &[]), &real, "outside the data root");
        assert!(has_text(&real));
    }
}

#[test]
fn directory_outside_the_data_root_is_removed_when_confirmed() {
    for (named, hers, prepare) in WAYS_OUT {
        for purges in [true, false] {
            let root = root(named, hers);
            prepare(&root);
            let told = remove(&root, if purges { &["--purge", "--yes"] } else { &["--yes"] }).success();
            assert!(told.contains(&shown(&root.join(hers))), "{told}");
            assert!(!root.join(hers).exists(), "it is still there: {told}");
            assert!(!root.join("data/alice").is_symlink(), "a link to nothing stays: {told}");
            match archived(&root).as_slice() {
                [] => assert!(purges && told.contains("is deleted"), "{told}"),
                [archive] => {
                    assert!(!purges && has_text(archive) && told.contains(&shown(archive)), "{told}")
                }
                more => panic!("{more:?}"),
            }
        }
    }
}

#[test]
fn directory_inside_the_data_root_is_archived_by_its_real_path() {
    let ways: [Way; 4] = [
        ("", "data/alice", |_| ()),
        ("data/hers", "data/hers", |_| ()),
        ("", "data/hers", |root| symlink("hers", root.join("data/alice")).unwrap()),
        ("", "disk/alice", |root| {
            fs::remove_dir(root.join("data")).unwrap();
            symlink("disk", root.join("data")).unwrap();
        }),
    ];
    for (named, hers, prepare) in ways {
        for purges in [true, false] {
            let root = root(named, hers);
            prepare(&root);
            let told = remove(&root, if purges { &["--purge"] } else { &[] }).success();
            assert!(told.contains(&shown(&root.join(hers))), "{told}");
            assert!(!root.join(hers).exists() && !root.join("data/alice").is_symlink(), "{told}");
            assert_eq!(
                archived(&root).iter().filter(|archive| has_text(archive)).count(),
                usize::from(!purges)
            );
        }
    }
}

#[test]
fn link_outside_the_data_root_is_left_without_confirmation() {
    let with_link = || {
        let root = root("op/mylink", "data/hers");
        fs::create_dir(root.join("op")).unwrap();
        symlink("../data/hers", root.join("op/mylink")).unwrap();
        root
    };
    for (options, stays) in [(&[][..], true), (&["--purge"], true), (&["--purge", "--yes"], false)] {
        let root = with_link();
        let link = root.join("op/mylink");
        let told = remove(&root, options).success();
        assert!(!root.join("data/hers").exists(), "{told}");
        assert_eq!(link.is_symlink(), stays, "{told}");
        assert_eq!(
            told.contains(&format!("the link {} is outside the data root", shown(&link))),
            stays,
            "{told}"
        );
    }
    let running = Deployment::up(with_link(), &[]);
    let answer = running.admin().request("DELETE", "/admin/tenants/alice", "", None).json();
    assert_eq!(answer["left_link"], shown(&running.join("op/mylink")), "{answer}");
    assert!(running.join("op/mylink").is_symlink() && !running.join("data/hers").exists());
}

#[test]
fn file_instead_of_a_directory_is_left() {
    let outside = root("", "elsewhere");
    fs::write(outside.join("data/alice"), "a file").unwrap();
    let refused = remove(&outside, &["--purge"]);
    assert!(refused.code() == Some(1) && refused.stderr.contains("not a directory"), "{refused:?}");
    assert_left(&outside, remove(&outside, &[]), &outside.join("data/alice"), "not a directory");
    assert_eq!(outside.read("data/alice"), "a file");

    // Opening a pipe would wait for a writer.
    let pipe = root("", "elsewhere");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        pipe.join("data/alice"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    assert_left(&pipe, remove(&pipe, &[]), &pipe.join("data/alice"), "not a directory");

    for options in [&[][..], &["--purge"]] {
        let missing = root("", "elsewhere");
        symlink("../not-mounted", missing.join("data/alice")).unwrap();
        let told = remove(&missing, options).success();
        assert!(told.contains(&format!("no directory {}", shown(&missing.join("not-mounted")))), "{told}");
        assert!(missing.join("data/alice").is_symlink());
    }
}

/// The gateway's user may plant such a link, and root would move directories wherever it leads.
#[test]
fn an_archive_that_is_a_link_is_not_followed() {
    let root = root("", "data/alice");
    fs::create_dir(root.join("target")).unwrap();
    symlink("../target", root.join("data/.archive")).unwrap();
    for options in [&[][..], &["--purge"]] {
        root.write_registry(&registry(""));
        let outcome = remove(&root, options);
        assert_eq!(outcome.code(), Some(1), "{outcome:?}");
        assert!(
            outcome.stderr.contains(".archive") && outcome.stderr.contains("left as it is"),
            "{outcome:?}"
        );
        assert!(has_text(&root.join("data/alice")));
        assert_eq!(fs::read_dir(root.join("target")).unwrap().count(), 0);
    }
}

#[test]
fn mount_point_is_left() {
    if !mount::works("removing a tenant whose directory is a mount point", &[]) {
        return;
    }
    let root = root("", "data/alice");
    let mounted = Mount::tmpfs(&root.join("data/alice"), "1m");
    put_text(mounted.path());
    assert_refused(&root, &remove(&root, &["--purge"]), mounted.path(), "mounted");
    assert_left(&root, remove(&root, &[]), mounted.path(), "mounted");
    assert!(has_text(mounted.path()));
    // Neither does a mount inside the directory belong to the tenant.
    drop(mounted);
    root.write_registry(&registry(""));
    let inside = Mount::tmpfs(&root.join("data/alice/a b"), "1m");
    put_text(inside.path());
    assert_refused(&root, &remove(&root, &["--purge"]), &root.join("data/alice"), "a b");
    assert!(has_text(inside.path()));
}

/// Runs `remove` in a mount namespace after this shell command, whose `$1` is the path.
fn remove_after(root: &Root, script: &str, path: &Path, options: &[&str]) -> Outcome {
    let config = shown(&root.config());
    let arguments = [&["tenants", "remove", "alice", "--config", &config], options].concat();
    process::run(&mut mount::in_private(script, path, &root.gateway_command(&arguments)))
}

#[test]
fn mount_point_is_left_among_other_mounts() {
    if !mount::works("removing a tenant beside a mount point whose name is not UTF-8", &["unshare"]) {
        return;
    }
    let root = root("", "data/alice");
    let mounted = Mount::tmpfs(&root.join("data/alice/inside"), "1m");
    put_text(mounted.path());
    let unrelated = root.join(OsStr::from_bytes(b"unrelated \xc3\xff"));
    fs::create_dir(&unrelated).unwrap();
    let also_mounted = "mount -t tmpfs tmpfs \"$1\"";
    let refused = remove_after(&root, also_mounted, &unrelated, &["--purge"]);
    assert_refused(&root, &refused, &root.join("data/alice"), "mounted");
    let left = remove_after(&root, also_mounted, &unrelated, &[]);
    assert_left(&root, left, &root.join("data/alice"), "mounted");
    assert!(has_text(mounted.path()));
}

#[test]
fn nothing_is_removed_while_mount_points_are_unknown() {
    if !mount::works("removing a tenant without /proc", &["unshare"]) {
        return;
    }
    let root = root("", "data/alice");
    for options in [&[][..], &["--purge"], &["--purge", "--yes"]] {
        let refused = remove_after(&root, "mount -t tmpfs tmpfs \"$1\"", Path::new("/proc"), options);
        let told = &refused.stderr;
        assert_eq!(refused.code(), Some(1), "{refused:?}");
        assert!(told.contains("/proc/self/mountinfo") && told.contains("nothing was changed"), "{told}");
        assert!(has_alice(&root) && has_text(&root.join("data/alice")), "{told}");
    }
}

#[test]
fn directory_on_another_file_system_is_left_or_purged_in_place() {
    if !mount::works("removing a tenant whose directory is on another file system", &[]) {
        return;
    }
    let root = root("elsewhere/alice", "hers");
    let mounted = Mount::tmpfs(&root.join("elsewhere"), "1m");
    let real = mounted.path().join("alice");
    put_text(&real);
    assert_left(&root, remove(&root, &["--yes"]), &real, "another file system");
    assert!(has_text(&real));
    root.write_registry(&registry("elsewhere/alice"));
    let told = remove(&root, &["--purge", "--yes"]).success();
    assert!(told.contains(&format!("{} is deleted", shown(&real))) && !real.exists(), "{told}");
    assert!(mounted.path().exists());
}

/// The admin API cannot ask for confirmation, so it leaves directories outside the data root, and says so.
#[test]
fn the_admin_api_leaves_what_is_outside_the_data_root() {
    for (named, target) in
        [("elsewhere/alice", ""), ("elsewhere/alice", "?purge=true"), ("", "?purge=true"), ("", "")]
    {
        let root = root(named, "elsewhere/alice");
        if named.is_empty() {
            symlink("../elsewhere/alice", root.join("data/alice")).unwrap();
        }
        let running = Deployment::up(root, &[]);
        let alice = running.client_of("alice");
        assert_eq!(alice.get(SELECT).ok(), "hers");
        alice.post(UPDATE, "hers again").ok();
        let real = running.join("elsewhere/alice");
        let answer = running.admin().request("DELETE", &format!("/admin/tenants/alice{target}"), "", None);
        let answer = (answer.status, answer.json());
        assert_eq!((answer.0, &answer.1["directory"]), (200, &"left".into()), "{answer:?}");
        assert_eq!(answer.1["path"], shown(&real), "{answer:?}");
        assert!(answer.1["why_left"].as_str().unwrap().contains("outside the data root"), "{answer:?}");
        // The worker has stopped: the last write is in the text file.
        wait::until("no worker", || running.worker_of("alice").is_none());
        assert!(real.join("text.phext").exists() && archived(&running).is_empty());
        assert_eq!(alice.get(SELECT).status, 401);
    }
}

#[test]
fn admin_api_returns_real_paths() {
    let root = root("", "data/hers");
    symlink("hers", root.join("data/alice")).unwrap();
    let running = Deployment::up(root, &[]);
    running.client_of("alice").post(UPDATE, "hers again").ok();
    let answer = running.admin().request("DELETE", "/admin/tenants/alice?purge=true", "", None).json();
    assert_eq!((&answer["directory"], &answer["why_left"]), (&"purged".into(), &serde_json::Value::Null));
    assert_eq!(answer["path"], shown(&running.join("data/hers")), "{answer}");
    assert!(!running.join("data/hers").exists() && !running.join("data/alice").is_symlink());
}

//! A registry behind symbolic links, as in a ConfigMap mounted by Kubernetes or in `/etc`: changes go to the file, the links
//! stay, and all paths of a file share one lock. A file that cannot be replaced is left, without temporary files beside it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use sq_tests::deployment::Deployment;
use sq_tests::mount::{self, Mount};
use sq_tests::process::Outcome;
use sq_tests::root::Root;
use sq_tests::setup::Setup;
use sq_tests::target::SELECT;
use sq_tests::{notice, tree, wait};

/// How a registry's name leads to its file.
#[derive(Debug, Clone, Copy)]
enum Way {
    Absolute,
    Relative,
    Chain,
    /// The link leads through a folder that is itself a link, which is swapped as a whole.
    ConfigMap,
}

const WAYS: [Way; 4] = [Way::Absolute, Way::Relative, Way::Chain, Way::ConfigMap];

/// Moves the registry away, and links its path to it. Returns the file and the links.
fn lead_away(root: &Root, way: Way) -> (PathBuf, Vec<PathBuf>) {
    let folder = root.join(if matches!(way, Way::ConfigMap) { "..2027" } else { "source" });
    fs::create_dir(&folder).unwrap();
    let (name, file) = (root.registry(), folder.join("tenants.toml"));
    fs::rename(&name, &file).unwrap();
    let more = match way {
        Way::Absolute => {
            symlink(&file, &name).unwrap();
            vec![]
        }
        Way::Relative => {
            symlink("source/../source/tenants.toml", &name).unwrap();
            vec![]
        }
        Way::Chain => {
            symlink("source/second", &name).unwrap();
            symlink("tenants.toml", folder.join("second")).unwrap();
            vec![folder.join("second")]
        }
        Way::ConfigMap => {
            symlink("..2027", root.join("..data")).unwrap();
            symlink("..data/tenants.toml", &name).unwrap();
            vec![root.join("..data")]
        }
    };
    (file, [vec![name], more].concat())
}

fn tenants(root: &Root, line: &str) -> Outcome {
    root.with_config(&[&["tenants"], &line.split(' ').collect::<Vec<_>>()[..]].concat())
}

#[test]
fn changes_follow_links_and_keep_them() {
    for way in WAYS {
        let root = Root::new(&Setup::default());
        let (file, links) = lead_away(&root, way);
        let running = Deployment::up(root, &[]);
        tenants(&running, "add dora").success();
        tenants(&running, "rotate-key bob").success();
        let added = running.admin().post("/admin/tenants/add", r#"{"name":"erin"}"#);
        assert_eq!(added.status, 201, "{way:?}: {added:?}");
        wait::until("the old key's end", || running.client_of("bob").get(SELECT).status == 401);
        for link in &links {
            assert!(link.is_symlink(), "{way:?}: {}", link.display());
        }
        let found = fs::symlink_metadata(&file).unwrap();
        assert!(found.is_file() && found.permissions().mode() & 0o777 == 0o600, "{way:?}: {found:?}");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains("\"dora\"") && text.contains("\"erin\""), "{way:?}: {text}");
        let is_lock = |path: &PathBuf| path.extension().is_some_and(|end| end == "lock" || end == "tmp");
        let beside: Vec<PathBuf> = tree::files(running.path()).into_iter().filter(is_lock).collect();
        assert_eq!(beside.len(), 1, "{way:?}: {beside:?}");
        // A key that is revoked in the file is refused.
        running.client_of("alice").get(SELECT).ok();
        let bob = text.find("[[tenant]]\nname = \"bob\"").unwrap();
        fs::write(&file, &text[bob..]).unwrap();
        wait::until("a revocation at the source", || running.client_of("alice").get(SELECT).status == 401);
        running.stop();
    }
}

/// A second config names the file directly, and both sides change it concurrently.
#[test]
fn all_paths_of_a_registry_share_one_lock() {
    let root = Root::new(&Setup::default());
    lead_away(&root, Way::Chain);
    let config = root.read("gateway.toml");
    fs::create_dir(root.join("other")).unwrap();
    let other = "[gateway]\ndata_root = \"../data\"\ntenants = \"../source/tenants.toml\"\n";
    root.write("other/gateway.toml", &config.replacen("[gateway]\n", other, 1));
    let configs = ["gateway.toml", "other/gateway.toml"];
    const EACH: usize = 8;
    std::thread::scope(|scope| {
        for (number, config) in configs.iter().enumerate() {
            let root = &root;
            scope.spawn(move || {
                for count in 0..EACH {
                    let name = format!("t{number}-{count}");
                    root.gateway(&["tenants", "add", &name, "--config", config]).success();
                }
            });
        }
    });
    let registry = fs::read_to_string(root.join("source/tenants.toml")).unwrap();
    assert_eq!(registry.matches("[[tenant]]").count(), 2 + configs.len() * EACH, "{registry}");
}

#[test]
fn dangling_link_leads_to_the_file_that_is_created() {
    // The registry, by `provision`.
    let root = Root::without_registry(&Setup::default());
    fs::create_dir(root.join("source")).unwrap();
    symlink("source/tenants.toml", root.registry()).unwrap();
    let refused = tenants(&root, "add dora");
    assert!(refused.code() == Some(1) && refused.stderr.contains("does not exist"), "{refused:?}");
    root.gateway(&["provision", "--slots", "1", "--root", "."]).success();
    assert!(root.registry().is_symlink() && root.read("source/tenants.toml").contains("slot-001"));

    // The config of a new root.
    let root = Root::empty();
    fs::create_dir(root.join("source")).unwrap();
    symlink("source/gateway.toml", root.config()).unwrap();
    root.gateway(&["provision", "--slots", "1", "--root", "."]).success();
    assert!(root.config().is_symlink() && root.read("source/gateway.toml").contains("[gateway]"));

    // An imported registry.
    root.write("old.json", r#"{"tenants": {"tok-1": {"name": "zoe", "data_dir": "zoe"}}}"#);
    symlink("source/imported.toml", root.join("imported.toml")).unwrap();
    root.gateway(&["import", "old.json", "--out", "imported.toml", "--root", "."]).success();
    assert!(root.join("imported.toml").is_symlink() && root.read("source/imported.toml").contains("zoe"));

    // The folder is missing, as with an unmounted disk.
    let root = Root::without_registry(&Setup::default());
    symlink("absent/tenants.toml", root.registry()).unwrap();
    let before = tree::files(root.path());
    let refused = root.gateway(&["provision", "--slots", "1", "--root", "."]);
    assert!(refused.code() == Some(1) && refused.stderr.contains("absent/tenants.toml"), "{refused:?}");
    assert_eq!(tree::files(root.path()), before);
}

#[test]
fn circular_links_are_reported_as_a_mistake() {
    let root = Root::without_registry(&Setup::default());
    symlink("second.toml", root.registry()).unwrap();
    symlink("tenants.toml", root.join("second.toml")).unwrap();
    let before = tree::files(root.path());
    for command in [
        &["provision", "--slots", "1", "--root", "."][..],
        &["tenants", "add", "dora", "--root", "."],
        &["tenants", "list", "--root", "."],
        &["up", "--root", "."],
    ] {
        let refused = root.gateway(command);
        assert_eq!(refused.code(), Some(1), "{command:?}: {refused:?}");
        let is_said = ["without end", "symbolic links"].iter().any(|words| refused.stderr.contains(words));
        assert!(is_said && refused.stderr.contains("tenants.toml"), "{command:?}: {refused:?}");
        assert_eq!(tree::files(root.path()), before, "{command:?}");
    }
}

/// Commands that change the registry, with and without a new key.
const CHANGES: [&str; 4] = ["add dora", "rotate-key alice", "suspend alice", "revoke-key alice k1"];

fn assert_left_as_it_is(root: &Root, file: &Path, words: &[&str]) {
    let (text, inode) = (fs::read_to_string(file).unwrap(), file.metadata().unwrap().ino());
    // The first command creates the data root's marker.
    let is_lasting = |path: &PathBuf| {
        path.extension().is_some_and(|end| end == "lock" || end == "data-root")
            || path.ends_with(".sq-data-root")
    };
    let files = || tree::files(root.path()).into_iter().filter(|path| !is_lasting(path)).collect::<Vec<_>>();
    let before = files();
    let provision = "provision --slots 1 --root .";
    let lines = CHANGES.map(|line| format!("tenants {line} --root ."));
    for line in lines.iter().map(String::as_str).chain([provision]) {
        let refused = root.gateway(&line.split(' ').collect::<Vec<_>>());
        assert_eq!(refused.code(), Some(1), "{line}: {refused:?}");
        for word in words {
            assert!(refused.stderr.contains(word), "{word}: {line}: {refused:?}");
        }
        assert_eq!(refused.stdout, "", "{line}: a key that is not valid");
        assert_eq!(files(), before, "{line}: something is left behind");
        assert_eq!(
            (fs::read_to_string(file).unwrap(), file.metadata().unwrap().ino()),
            (text.clone(), inode),
            "{line}"
        );
        assert!(!root.join("data/dora").exists() && !root.join("data/slot-001").exists(), "{line}");
    }
}

#[test]
fn irreplaceable_registry_is_unchanged() {
    if !mount::works("registries that cannot be replaced", &["chattr"]) {
        return;
    }
    // A container in which only this file is mounted.
    let root = Root::new(&Setup::default());
    {
        let mounted = Mount::over_itself(&root.registry());
        assert_left_as_it_is(&root, mounted.path(), &["tenants.toml", "mount point", "mount the folder"]);
    }
    // The same behind a link.
    let (file, _) = lead_away(&root, Way::Relative);
    {
        let _mounted = Mount::over_itself(&file);
        assert_left_as_it_is(&root, &file, &["tenants.toml", "mount point"]);
    }
    // A read-only folder, as of a ConfigMap.
    let root = Root::new(&Setup::default());
    let (file, _) = lead_away(&root, Way::ConfigMap);
    let text = fs::read_to_string(&file).unwrap();
    {
        let disk = Mount::tmpfs(&root.join("..2027"), "64k");
        fs::write(&file, &text).unwrap();
        let remount = ["-o", "remount,ro"];
        sq_tests::process::run(std::process::Command::new("mount").args(remount).arg(disk.path())).success();
        assert_left_as_it_is(&root, &file, &["tenants.toml", "Read-only file system"]);
    }
    // Set immutable.
    let root = Root::new(&Setup::default());
    let set = |flag: &str| {
        let mut chattr = std::process::Command::new("chattr");
        sq_tests::process::run(chattr.arg(flag).arg(root.registry())).status.success()
    };
    if set("+i") {
        assert_left_as_it_is(&root, &root.registry(), &["tenants.toml", "immutable"]);
        assert!(set("-i"));
    } else {
        notice::skip("an immutable registry: this file system has no such thing");
    }
}

/// A rename gives one path the new text, and hard links keep the old one. The operator is warned.
#[test]
fn hard_link_to_the_registry_keeps_the_old_text_with_a_warning() {
    let root = Root::new(&Setup::default());
    let (other, old) = (root.join("other.toml"), root.read("tenants.toml"));
    let quiet = tenants(&root, "suspend bob");
    assert!(quiet.code() == Some(0) && !quiet.stderr.contains("hard links"), "{quiet:?}");
    for line in ["activate bob", "add carol", "rotate-key carol", "remove carol"] {
        let _ = fs::remove_file(&other);
        fs::hard_link(root.registry(), &other).unwrap();
        let before = root.read("tenants.toml");
        let told = tenants(&root, line);
        assert_eq!(told.code(), Some(0), "{line}: {told:?}");
        for words in [root.registry().to_str().unwrap(), "hard links", "keep the old"] {
            assert!(told.stderr.contains(words), "{line}: {told:?}");
        }
        assert_eq!(fs::read_to_string(&other).unwrap(), before, "{line}");
        assert_ne!(root.read("tenants.toml"), before, "{line}");
    }
    assert_eq!(root.read("tenants.toml").matches("[[tenant]]").count(), old.matches("[[tenant]]").count());
}

/// Another user's link in a folder where all users may create files.
#[test]
fn a_link_of_another_user_in_a_shared_folder_is_not_followed() {
    if !geteuid().is_root() {
        return notice::not_allowed_here("links of another user");
    }
    let root = Root::new(&Setup::default());
    let shared = tempfile::tempdir().unwrap();
    fs::set_permissions(shared.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    let link = shared.path().join("imported.toml");
    symlink(root.join("victim.toml"), &link).unwrap();
    std::os::unix::fs::lchown(&link, Some(65534), Some(65534)).unwrap();
    root.write("old.json", r#"{"tenants": {"tok-1": {"name": "zoe", "data_dir": "zoe"}}}"#);
    let out = link.to_str().unwrap();
    let refused = root.gateway(&["import", "old.json", "--out", out, "--root", "."]);
    assert_eq!(refused.code(), Some(1), "{refused:?}");
    assert!(!root.join("victim.toml").exists() && link.is_symlink());
}

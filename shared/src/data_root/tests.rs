//! What is taken for a system's data root, and what is made of its tenants' directories.

use super::*;

fn system() -> (tempfile::TempDir, Config) {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::parse(&folder.path().join("gateway.toml"), "").unwrap();
    (folder, config)
}

fn registry(config: &Config) -> Registry {
    let text = "[[tenant]]\nname = \"alice\"\nport = 1341\n[[tenant]]\nname = \"bob\"\nport = 1342\n";
    Registry::parse(&config.gateway.tenants, text, config).unwrap().registry
}

fn marker(config: &Config) -> PathBuf {
    layout::data_root_marker(&config.gateway.data_root)
}

#[test]
fn a_new_root_is_marked_and_known_again() {
    let (_folder, config) = system();
    assert_eq!(DataRoot::inspect(&config, &registry(&config)), Ok(None));
    let root = DataRoot::establish(&config, &registry(&config)).unwrap();
    assert_eq!(root.check(), Ok(()));
    assert_eq!(DataRoot::establish(&config, &registry(&config)).as_ref(), Ok(&root));
    let found = DataRoot::inspect(&config, &registry(&config)).unwrap().unwrap();
    assert_eq!((found.path(), &found.guard), (root.path(), &root.guard));
    let id_file = layout::data_root_id(&config.path);
    assert_eq!(std::fs::read(marker(&config)).unwrap(), std::fs::read(id_file).unwrap());
}

#[test]
fn what_is_not_the_marker_is_refused_and_nothing_is_made() {
    let (_folder, config) = system();
    let root = DataRoot::establish(&config, &registry(&config)).unwrap();
    let marker = marker(&config);
    let good = std::fs::read_to_string(&marker).unwrap();
    for (what, text, words) in [
        ("another id", "0123456789abcdef0123456789abcdef\n", "another data root"),
        ("one digit less", good.get(1..).unwrap(), "holds no id"),
        ("nothing", "", "holds no id"),
        ("bytes", "\u{0}\u{1}", "holds no id"),
    ] {
        std::fs::write(&marker, text).unwrap();
        let loss = root.check().unwrap_err().to_string();
        assert!(loss.contains(words), "{what}: {loss}");
        assert_eq!(DataRoot::establish(&config, &registry(&config)).unwrap_err().to_string(), loss, "{what}");
        assert!(root.make(&"alice".parse().unwrap(), &config.gateway.data_root.join("alice")).is_err());
    }
    std::fs::remove_dir_all(&config.gateway.data_root).unwrap();
    for why in [root.check().unwrap_err(), DataRoot::establish_empty(&config).unwrap_err()] {
        assert!(why.to_string().contains("is its disk mounted?"), "{why}");
    }
    assert!(!config.gateway.data_root.exists());
}

#[test]
fn a_root_from_before_there_were_markers_is_marked_when_a_directory_is_there() {
    let (_folder, config) = system();
    std::fs::write(layout::audit_log(&config.path), "{\"status\":200}\n").unwrap();
    let refused = DataRoot::establish(&config, &registry(&config)).unwrap_err().to_string();
    assert!(refused.contains("none of the 2 tenants' directories is there"), "{refused}");
    assert!(!config.gateway.data_root.exists());
    std::fs::create_dir_all(config.gateway.data_root.join("bob")).unwrap();
    DataRoot::establish(&config, &registry(&config)).unwrap();
    assert!(marker(&config).exists());
}

#[test]
fn neither_a_directory_elsewhere_nor_a_rotated_log_hides_that_the_root_is_missing() {
    let (folder, config) = system();
    let elsewhere = folder.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let mut registry = registry(&config);
    registry.tenants[1].data_dir = Some(elsewhere);
    let audit_log = layout::audit_log(&config.path);
    let rotated =
        [".1", ".1.gz", "-20261129"].map(|end| PathBuf::from(format!("{}{end}", audit_log.display())));
    for evidence in rotated.iter().chain([&audit_log]) {
        std::fs::write(evidence, "{\"status\":200}\n").unwrap();
        let refused = DataRoot::establish(&config, &registry).unwrap_err().to_string();
        let words = ["none of the 1 tenants' directories is there", evidence.to_str().unwrap()];
        assert!(words.iter().all(|words| refused.contains(words)), "{refused}");
        assert!(!config.gateway.data_root.exists());
        std::fs::remove_file(evidence).unwrap();
    }
    DataRoot::establish(&config, &registry).unwrap();
}

#[test]
fn a_directory_is_made_for_a_new_tenant_and_for_no_other() {
    let (folder, config) = system();
    let root = DataRoot::establish(&config, &registry(&config)).unwrap();
    let alice: crate::tenant::TenantName = "alice".parse().unwrap();
    for directory in [config.gateway.data_root.join("alice"), folder.path().join("elsewhere/alice")] {
        assert_eq!(root.find_gone(&alice, &directory).unwrap(), None);
        let Place::There(first) = root.find_or_make(&alice, &directory).unwrap() else { panic!("it is new") };
        assert_eq!(root.find_or_make(&alice, &directory).unwrap(), Place::There(first));
        std::fs::remove_dir(&directory).unwrap();
        assert_eq!(root.find_or_make(&alice, &directory).unwrap(), Place::Gone(Gone::Missing));
        assert_eq!(root.find_gone(&alice, &directory).unwrap(), Some(Gone::Missing));
        assert!(!directory.exists());
        root.make(&alice, &directory).unwrap();
        assert!(matches!(root.find_or_make(&alice, &directory).unwrap(), Place::There(_)));
        root.forget(&alice).unwrap();
        std::fs::remove_dir(&directory).unwrap();
    }
}

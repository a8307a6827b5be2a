//! Each format as its own program writes it, and each mistake where it stands.

use super::*;

fn config(text: &str) -> Config {
    Config::parse(Path::new("/srv/gateway.toml"), text).unwrap()
}

fn load(text: &str) -> Result<Loaded, Mistakes> {
    Registry::parse(Path::new("/srv/tenants"), text, &config("[plan.founding]\nquota = \"10GiB\""))
}

fn digest(token: &str) -> TokenDigest {
    crate::token::BearerToken::parse(token.as_bytes()).unwrap().digest()
}

fn summary(loaded: &Loaded) -> Vec<(String, u16, PathBuf)> {
    let config = config("");
    let row =
        |tenant: &Tenant| (tenant.name.to_string(), tenant.port, tenant.directory(&config.gateway.data_root));
    loaded.registry.tenants.iter().map(row).collect()
}

#[test]
fn the_native_format() {
    let text = format!(
        "[[tenant]]\nname = \"alice\"\nport = 1341\nplan = \"founding\"\n\
         [[tenant.key]]\nid = \"k1\"\nsha256 = \"{}\"\nscope = \"read\"\nexpires = 2027-01-01T00:00:00Z\n\
         [[tenant]]\nname = \"bob\"\nport = 1342\nstate = \"reserved\"\ndata_dir = \"elsewhere\"\nquota = \"5MiB\"\n",
        digest("a")
    );
    let loaded = load(&text).unwrap();
    assert_eq!(loaded.format, Format::Native);
    assert_eq!(
        summary(&loaded),
        [("alice".into(), 1341, "/srv/data/alice".into()), ("bob".into(), 1342, "/srv/elsewhere".into())]
    );
    let key = &loaded.registry.tenants[0].keys[0];
    assert_eq!((key.scope, key.expires_s), (Scope::Read, Some(1_798_761_600)));
    assert!(key.is_valid_at(1_798_761_599) && !key.is_valid_at(1_798_761_600));
    assert_eq!(loaded.registry.tenants[1].limits(&config("")).quota_bytes, Some(5 << 20));
    let again = load(&edit::render(&loaded.registry)).unwrap();
    assert_eq!(again.registry, loaded.registry);
}

#[test]
fn every_mistake_of_the_native_format_has_its_line() {
    let key = digest("a");
    let text = format!(
        "[[tenant]]\nname = \"Alice\"\nport = 1341\n[[tenant]]\nname = \"bob\"\nport = 80\n\
         [[tenant]]\nname = \"bob\"\nport = 1341\nplan = \"gold\"\nsurname = \"b\"\n[[tenant.key]]\nid = \"k1\"\nsha256 = \"{key}\"\n\
         [[tenant.key]]\nid = \"k1\"\nsha256 = \"{key}\"\n[[tenant]]\nport = 1343\n"
    );
    let mistakes = load(&text).unwrap_err().0;
    let lines: Vec<_> = mistakes.iter().map(|mistake| mistake.position.unwrap().0).collect();
    assert_eq!(lines, [2, 6, 8, 9, 10, 11, 16, 17, 18], "{mistakes:#?}");
}

#[test]
fn the_format_of_sq() {
    let text = r#"{"tenants": {
        "pmb-v1-alice-key": {"name": "alice", "data_dir": "/d/alice"},
        "pmb-v1-bob-key": {"name": "bob", "data_dir": "bob"}}}"#;
    let loaded = load(text).unwrap();
    assert_eq!(loaded.format, Format::SqHost);
    assert_eq!(
        summary(&loaded),
        [("alice".into(), 1341, "/d/alice".into()), ("bob".into(), 1342, "/srv/bob".into())]
    );
    let keys: Vec<_> = loaded.registry.tenants[1].keys.iter().map(|key| key.sha256).collect();
    assert_eq!(keys, [digest("pmb-v1-bob-key")]);
}

#[test]
fn an_entry_keeps_the_name_that_is_valid_already_wherever_it_stands() {
    let text = r#"{"tenants": {
        "t1": {"name": "Al", "data_dir": "/d/1"},
        "t2": {"name": "al", "data_dir": "/d/2"},
        "t3": {"name": "al-2", "data_dir": "/d/3"}}}"#;
    let loaded = load(text).unwrap();
    let named = |name: &str, port, dir: &str| (name.to_owned(), port, PathBuf::from(dir));
    assert_eq!(
        summary(&loaded),
        [named("al", 1341, "/d/2"), named("al-2", 1342, "/d/3"), named("al-3", 1343, "/d/1")]
    );
    assert_eq!(loaded.changes, ["tenant \"Al\" of line 2 is now al-3: the one of line 3 is al"]);
    assert!(loaded.registry.tenants.iter().all(|tenant| tenant.keys.len() == 1));
}

#[test]
fn numbered_names_stay_within_the_limit() {
    let long = "a".repeat(crate::limits::TENANT_NAME_BYTES);
    let entries =
        (0..12).map(|number| format!(r#""t{number}": {{"name": "{long}b", "data_dir": "/d/{number}"}}"#));
    let text = format!(r#"{{"tenants": {{{}}}}}"#, entries.collect::<Vec<_>>().join(","));
    let names: std::collections::BTreeSet<_> =
        load(&text).unwrap().registry.tenants.into_iter().map(|tenant| tenant.name).collect();
    assert_eq!(names.len(), 12, "{names:?}");
}

#[test]
fn a_key_in_a_place_for_something_else_is_not_repeated() {
    for text in [
        r#"{"tenants": {"a": "pmb-v1-secret"}}"#,
        r#"{"tenants": [{"token": "t", "port": "pmb-v1-secret"}]}"#,
        "[[tenants]]\ntoken = \"t\"\nport = \"pmb-v1-secret\"\n",
    ] {
        let told = load(text).unwrap_err().to_string();
        assert!(told.contains("invalid type: string, expected") && !told.contains("secret"), "{told}");
    }
}

#[test]
fn a_key_without_quotes_is_not_repeated() {
    for value in [
        "777712345678",
        "-7777123",
        "7777.125",
        "7777e200",
        "7777123456789012345678901234567890",
        "true",
        "[7777]",
    ] {
        let json_or_toml = [
            format!(r#"{{"tenants": [{{"name": "a", "api_key": {value}}}]}}"#),
            format!(r#"{{"tenants": [{{"token": {value}}}]}}"#),
            format!(r#"{{"tenants": {{"a": {value}}}}}"#),
            format!(r#"{{"tenants": [{{"token": "t", "port": {value}}}]}}"#),
            format!(r#"{{"tenants": [{{"token": "t", "enabled": {value}1}}]}}"#),
            format!("[[tenants]]\ntoken = {value}\n"),
            format!("[[tenants]]\ntoken = \"t\"\nport = {value}\n"),
            format!("[[tenants]]\ntoken = pmb-{value}\n"),
            format!("[[tenant]]\nname = \"a\"\nport = 1341\n[[tenant.key]]\nid = \"k1\"\nsha256 = {value}\n"),
        ];
        for text in json_or_toml {
            let told = load(&text).unwrap_err().to_string();
            assert!(!told.contains("7777") && !told.contains("true"), "{text}: {told}");
        }
    }
}

#[test]
fn a_data_root_may_lie_in_a_directory_of_the_system_but_not_be_one() {
    let check = |data_root: &str, directory: &str| {
        let config = config(&format!("[gateway]\ndata_root = \"{data_root}\""));
        let text = format!("[[tenant]]\nname = \"bin\"\nport = 1341\n{directory}");
        Registry::parse(Path::new("/srv/tenants"), &text, &config).map(|_| ())
    };
    check("/etc/sq/data", "").unwrap();
    check("/etc/sq/data", "data_dir = \"/etc/sq/data/b\"").unwrap();
    assert!(check("/etc/sq/data", "data_dir = \"/etc/sq/other\"").is_err());
    for system in ["/", "/usr", "/etc"] {
        assert!(check(system, "").unwrap_err().to_string().contains("directory of the system"), "{system}");
    }
}

#[test]
fn the_format_of_the_router() {
    let text = r#"{"tenants": [{"token": "t1", "port": 1500, "data_dir": "/d/zoe"},
        {"token": "t2", "port": 9000, "data_dir": "/d/Amy Lee"}]}"#;
    let loaded = load(text).unwrap();
    assert_eq!(loaded.format, Format::SqRouter);
    assert_eq!(
        summary(&loaded),
        [("amy-lee".into(), 1341, "/d/Amy Lee".into()), ("zoe".into(), 1500, "/d/zoe".into())]
    );
    assert_eq!(
        loaded.changes,
        ["tenant \"Amy Lee\" is now amy-lee", "tenant amy-lee moves from port 9000 to 1341"]
    );
}

#[test]
fn the_format_of_the_python_gateway() {
    let text = "[[tenants]]\ntoken = \"t\"\nname = \"alice\"\nport = 1341\nphext = \"alice\"\n";
    let loaded = load(text).unwrap();
    assert_eq!(loaded.format, Format::PythonGateway);
    assert_eq!(summary(&loaded), [("alice".into(), 1341, "/srv/data/alice".into())]);
}

#[test]
fn the_format_with_an_admin_key() {
    let text = r#"{"admin_key": "x", "tenants": [
        {"id": "alice", "api_key": "t", "data_dir": "/d/a", "quota_mb": 500, "enabled": false}]}"#;
    let loaded = load(text).unwrap();
    assert_eq!(loaded.format, Format::AdminKey);
    let alice = &loaded.registry.tenants[0];
    assert_eq!((alice.state, alice.quota_bytes), (TenantState::Suspended, Some(500 << 20)));
}

/// Whatever may say that an entry is closed is understood or refused.
#[test]
fn a_closed_entry_of_an_old_format_is_never_opened() {
    let entry = |more: &str| {
        load(&format!("{{\"tenants\": [\n{{\"token\": \"t\", \"data_dir\": \"/d/a\", {more}}}]}}"))
    };
    for closed in ["false", "null"] {
        let loaded = entry(&format!("\"enabled\": {closed}")).unwrap();
        assert_eq!(loaded.registry.tenants[0].state, TenantState::Suspended, "{closed}");
    }
    assert_eq!(entry("\"enabled\": true").unwrap().registry.tenants[0].state, TenantState::Active);
    for closed in [
        "\"enable\": false",
        "\"Enabled\": false",
        "\"active\": null",
        "\"disabled\": 1",
        "\"active\": \"no\"",
        "\"status\": \"suspended\"",
        "\"scope\": \"read\"",
        "\"expires\": \"2020-01-01\"",
        "\"enabled\": 0",
        "\"enabled\": true, \"enabled\": false",
    ] {
        let mistakes = entry(closed).unwrap_err().0;
        assert!(mistakes.iter().all(|mistake| mistake.position.unwrap().0 == 2), "{mistakes:#?}");
    }
    let toml = "[[tenants]]\ntoken = \"t\"\nname = \"alice\"\nactive = false\n";
    assert!(load(toml).unwrap_err().to_string().starts_with("/srv/tenants:4:"));
    let loaded = entry("\"email\": \"a@example.org\"").unwrap();
    assert_eq!(loaded.changes[0], "\"email\" is unknown here, and left out (entries with it: 1)");
}

#[test]
fn what_cannot_be_isolated_is_refused() {
    let same =
        r#"{"tenants": {"t1": {"name": "a", "data_dir": "/d"}, "t2": {"name": "b", "data_dir": "/d"}}}"#;
    assert!(load(same).unwrap_err().to_string().contains("same data_dir"));
    let inside =
        r#"{"tenants": {"t1": {"name": "a", "data_dir": "/d"}, "t2": {"name": "b", "data_dir": "/d/b"}}}"#;
    assert!(load(inside).unwrap_err().to_string().contains("lies inside"));
    let detour = r#"{"tenants": {"t1": {"name": "a", "data_dir": "/d/a"}, "t2": {"name": "b", "data_dir": "/d/x/../a"}}}"#;
    assert!(load(detour).unwrap_err().to_string().contains("same data_dir"));
    let keys = r#"{"tenants": [{"token": "t", "data_dir": "/a"}, {"token": "t", "data_dir": "/b"}]}"#;
    assert!(load(keys).unwrap_err().to_string().contains("same key"));
    assert!(load("{\"tenants\": {").is_err());
    assert!(load(r#"{"tenants": {"a b": {"name": "a", "data_dir": "/d"}}}"#).is_err());
    assert!(load("gibberish").is_err());
}

#[test]
fn a_link_to_a_neighbours_directory_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("a")).unwrap();
    std::os::unix::fs::symlink("a", folder.path().join("b")).unwrap();
    let text = r#"{"tenants": {"t1": {"name": "a", "data_dir": "a"}, "t2": {"name": "b", "data_dir": "b"}}}"#;
    let mistakes = Registry::parse(&folder.path().join("tenants.json"), text, &config("")).unwrap_err();
    assert!(mistakes.to_string().contains("same data_dir"));
}

#[test]
fn a_key_in_the_place_of_its_digest_is_not_repeated() {
    let text =
        "[[tenant]]\nname = \"a\"\nport = 1341\n[[tenant.key]]\nid = \"k1\"\nsha256 = \"pmb-v1-secret\"";
    assert!(!load(text).unwrap_err().to_string().contains("secret"));
}

#[test]
fn an_empty_file_is_not_a_registry() {
    assert!(load(" \n").is_err());
    assert!(load("# No tenants.\n").unwrap().registry.tenants.is_empty());
}

#[test]
fn edits_keep_comments_and_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tenants.toml");
    std::fs::write(&path, "# ours\n[[tenant]]\nname = \"alice\" # first\nport = 1341\n").unwrap();
    let config = config("");
    let alice: TenantName = "alice".parse().unwrap();
    let bob = Tenant { name: "bob".parse().unwrap(), port: 1342, ..load_one(&path, &config) };
    let mut registry = edit::RegistryEdit::open(&path, &config).unwrap();
    registry.add(&bob).unwrap();
    registry.set_state(&alice, TenantState::Suspended).unwrap();
    registry.add_key(&alice, &edit::write_key("k1".into(), digest("a"))).unwrap();
    registry.commit(&config).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("# ours\n") && text.contains("# first"), "{text}");
    let loaded = Registry::load(&path, &config).unwrap().registry;
    assert_eq!(loaded.tenants.len(), 2);
    assert_eq!((loaded.tenants[0].state, loaded.tenants[0].keys.len()), (TenantState::Suspended, 1));

    let mut registry = edit::RegistryEdit::open(&path, &config).unwrap();
    registry.remove_key(&alice, "k1").unwrap();
    registry.remove(&bob.name).unwrap();
    assert!(registry.remove_key(&alice, "k1").is_err());
    registry.commit(&config).unwrap();
    let mut registry = edit::RegistryEdit::open(&path, &config).unwrap();
    registry.add(&Tenant { port: 1341, ..bob }).unwrap();
    assert!(registry.commit(&config).is_err(), "a slot was given out twice");
}

/// The reader takes them, so the editor must: an edit that finds no place for a key would lose it.
#[test]
fn arrays_that_are_written_inline_are_edited_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tenants.toml");
    let (config, alice): (_, TenantName) = (config(""), "alice".parse().unwrap());
    let (a, b) = (digest("a"), digest("b"));
    for text in [
        format!(
            "[[tenant]]\nname = \"alice\"\n# ours\nkey = [{{ id = \"k1\", sha256 = \"{a}\" }}] # one\nport = 1341\n"
        ),
        format!(
            "# ours\ntenant = [{{ name = \"alice\", port = 1341, key = [{{ id = \"k1\", sha256 = \"{a}\" }}] }}]\n"
        ),
        "# ours\ntenant = [\n  { name = \"alice\", port = 1341, data_dir = \"a\" }, # one\n  { name = \"bob\", port = 1342 },\n]\n".to_owned(),
        "# ours\n[[tenant]]\nname = \"alice\"\nkey = [] # none yet\nport = 1341\n".to_owned(),
        "# ours\n[[tenant]]\nname = \"alice\"\ndata_dir = \"a\"\nport = 1341\n".to_owned(),
    ] {
        std::fs::write(&path, &text).unwrap();
        let before = load_one(&path, &config);
        let mut registry = edit::RegistryEdit::open(&path, &config).unwrap();
        registry.add_key(&alice, &edit::write_key("k2".into(), b)).unwrap();
        registry.set_key_expiry(&alice, "k2", 1_798_761_600).unwrap();
        registry.commit(&config).unwrap();
        let after = load_one(&path, &config);
        let edited = std::fs::read_to_string(&path).unwrap();
        assert_eq!(edited.matches("# ours").count(), 1, "{edited}");
        let added = Key { expires_s: Some(1_798_761_600), ..edit::write_key("k2".into(), b) };
        assert_eq!(after.keys, [before.keys.clone(), vec![added]].concat(), "{edited}");

        let mut registry = edit::RegistryEdit::open(&path, &config).unwrap();
        registry.remove_key(&alice, "k2").unwrap();
        registry.set_state(&alice, TenantState::Suspended).unwrap();
        registry.commit(&config).unwrap();
        let last = load_one(&path, &config);
        assert_eq!(last, Tenant { state: TenantState::Suspended, last_key: 2, ..before });
        let mut registry = edit::RegistryEdit::open(&path, &config).unwrap();
        registry.remove(&alice).unwrap();
        registry.commit(&config).unwrap();
        assert_eq!(Registry::load(&path, &config).unwrap().registry.find(&alice), None);
    }
}

#[test]
fn what_would_be_read_otherwise_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tenants.toml");
    let text = "[[tenant]]\nname = \"alice\"\nport = 1341\n";
    std::fs::write(&path, text).unwrap();
    let config = config("");
    let mut registry = edit::RegistryEdit::open(&path, &config).unwrap();
    // A time after the year 9999 cannot be written: the key would have no end.
    let key = Key { expires_s: Some(i64::MAX), ..edit::write_key("k1".into(), digest("a")) };
    registry.add_key(&"alice".parse().unwrap(), &key).unwrap();
    assert!(matches!(registry.commit(&config), Err(edit::EditError::ReadsOtherwise(_))));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn the_numbers_of_keys_end() {
    let alice = |more: &str| {
        let loaded = load(&format!("[[tenant]]\nname = \"alice\"\nport = 1341\n{more}"));
        loaded.map(|loaded| loaded.registry.tenants[0].clone())
    };
    let with_key = |id: &str| {
        let digest = digest("a");
        alice(&format!("[[tenant.key]]\nid = \"{id}\"\nsha256 = \"{digest}\"\n")).unwrap().next_key_id()
    };
    let (last, past) = (KEY_NUMBER, KEY_NUMBER + 1);
    let id = |number: u32| Some(format!("k{number}"));
    assert_eq!(alice(&format!("last_key = {}", last - 1)).unwrap().next_key_id(), id(last));
    assert_eq!(alice(&format!("last_key = {last}")).unwrap().next_key_id(), None);
    for number in [&past.to_string(), "-1", "99999999999999999999"] {
        let mistakes = alice(&format!("last_key = {number}")).unwrap_err().to_string();
        assert!(mistakes.contains("from 0 to 999999999"), "{mistakes}");
    }
    assert_eq!(with_key(&format!("k{}", last - 1)), id(last));
    assert_eq!(with_key(&format!("k{last}")), None);
    // Written by hand, and no number of ours: it never comes up to it.
    assert_eq!(with_key(&format!("k{past}")), id(1));
    assert_eq!(with_key("k20260101120000"), id(1));
}

fn load_one(path: &Path, config: &Config) -> Tenant {
    Registry::load(path, config).unwrap().registry.tenants[0].clone()
}

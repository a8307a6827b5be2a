//! Files saved by an editor: a byte order mark is accepted, and text that is not UTF-8 is refused with its encoding.

use std::fs;

use sq_tests::client::Client;
use sq_tests::deployment::Deployment;
use sq_tests::root::Root;
use sq_tests::scrape::reload_by;
use sq_tests::separate::{Gateway, Pool};
use sq_tests::setup::{Setup, key_of};
use sq_tests::target::SELECT;
use sq_tests::wait;

const MARK: &str = "\u{feff}";

/// An old registry in each format, with one tenant whose key is `tok-1`.
const OLD: [(&str, &str); 4] = [
    ("sq host", r#"{"tenants": {"tok-1": {"name": "zoe", "data_dir": "zoe"}}}"#),
    ("sq route", r#"{"tenants": [{"token": "tok-1", "port": 1341, "data_dir": "zoe"}]}"#),
    ("python", "[[tenants]]\ntoken = \"tok-1\"\nname = \"zoe\"\nport = 1341\nphext = \"zoe\"\n"),
    (
        "python JSON",
        r#"{"admin_key": "x", "tenants": [{"id": "zoe", "api_key": "tok-1", "data_dir": "zoe"}]}"#,
    ),
];

fn utf16(text: &str, to_bytes: impl Fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(to_bytes).collect()
}

#[test]
fn an_old_registry_with_a_mark_is_served_and_imported() {
    for (format, text) in OLD {
        let root = Root::without_registry(&Setup::default());
        root.write("old", &(MARK.to_owned() + text));
        root.with_config(&["import", "old", "--out", "new.toml"]).success();
        assert!(root.read("new.toml").contains("name = \"zoe\""), "{format}");
        let running = Deployment::up(root, &["--tenants", "old"]);
        running.client(Some("tok-1")).get(SELECT).ok();
    }
}

#[test]
fn config_and_registry_may_have_it_and_a_change_keeps_the_rest() {
    let root = Root::new(&Setup::default());
    for file in ["gateway.toml", "tenants.toml"] {
        let text = root.read(file);
        root.write(file, &(MARK.to_owned() + "# first\r\n" + &text));
    }
    assert_eq!(root.with_config(&["check"]).success().trim(), "ok");
    root.with_config(&["tenants", "add", "carol"]).success();
    assert!(root.read("tenants.toml").starts_with("# first"), "{}", root.read("tenants.toml"));
    let running = Deployment::up(root, &[]);
    running.client_of("alice").get(SELECT).ok();
    // Saved again while the system runs.
    let text = running.read("tenants.toml").replace("\"carol\"", "\"dora\"");
    reload_by(&running, "accepted", || running.write_registry(&(MARK.to_owned() + &text)));
}

#[test]
fn a_place_is_counted_without_the_mark() {
    let root = Root::new(&Setup::default());
    root.write("gateway.toml", &format!("{MARK}[gatewya]\n"));
    let outcome = root.with_config(&["check"]);
    assert!(outcome.stderr.contains("gateway.toml:1:2:"), "{outcome:?}");
}

#[test]
fn the_admins_key_may_be_in_such_a_file() {
    let root = std::sync::Arc::new(Root::new(&Setup::default()));
    root.write("admin-key", &format!("{MARK}the-key\r\n"));
    let file = root.join("admin-key");
    let gateway = Gateway::begin(&root, &["--admin-key-file", file.to_str().unwrap()]);
    gateway.wait_ready();
    assert_eq!(Client::new(root.admin(), Some("the-key")).get("/admin/tenants").status, 200);
    gateway.stop();
}

#[test]
fn what_is_not_utf_8_is_named_and_changes_nothing() {
    let json = OLD[0].1;
    let latin: &[u8] = b"# caf\xe9\n[[tenant]]\n";
    for (what, bytes, told) in [
        (
            "UTF-16, little endian",
            utf16(&(MARK.to_owned() + json), u16::to_le_bytes),
            "is UTF-16: save it as UTF-8",
        ),
        (
            "UTF-16, big endian",
            utf16(&(MARK.to_owned() + json), u16::to_be_bytes),
            "is UTF-16: save it as UTF-8",
        ),
        ("UTF-16 without a mark", utf16(json, u16::to_le_bytes), "zero byte"),
        ("UTF-32", [&b"\xff\xfe\0\0"[..], &b"{\0\0\0"[..]].concat(), "is UTF-32"),
        ("Latin-1", latin.to_vec(), "is not UTF-8 (line 1, byte 5)"),
    ] {
        let root = Root::new(&Setup::default());
        let (config, registry) = (fs::read(root.config()).unwrap(), fs::read(root.registry()).unwrap());
        fs::write(root.registry(), &bytes).unwrap();
        for arguments in [&["check"][..], &["tenants", "list"], &["tenants", "add", "carol"]] {
            let outcome = root.with_config(arguments);
            assert_eq!(outcome.code(), Some(1), "{what}: {outcome:?}");
            assert!(
                outcome.stderr.contains(told) && outcome.stderr.contains("tenants.toml"),
                "{what}: {outcome:?}"
            );
        }
        assert_eq!(fs::read(root.registry()).unwrap(), bytes, "{what}");
        fs::write(root.registry(), &registry).unwrap();
        fs::write(root.config(), &bytes).unwrap();
        let outcome = root.with_config(&["check"]);
        assert!(
            outcome.stderr.contains(told) && outcome.stderr.contains("gateway.toml"),
            "{what}: {outcome:?}"
        );
        fs::write(root.config(), &config).unwrap();
    }
}

#[test]
fn a_running_system_says_so_and_goes_on() {
    let root = std::sync::Arc::new(Root::new(&Setup::default()));
    let (pool, gateway) = (Pool::start(&root), Gateway::serve(&root));
    fs::write(root.join("new"), utf16(&(MARK.to_owned() + &root.read("tenants.toml")), u16::to_le_bytes))
        .unwrap();
    fs::rename(root.join("new"), root.registry()).unwrap();
    for program in [&*pool, &*gateway] {
        wait::until("its word", || program.log().contains("is UTF-16: save it as UTF-8"));
    }
    Client::new(root.listen(), Some(&key_of("alice"))).get(SELECT).ok();
}

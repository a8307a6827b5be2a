//! The command line: help, exit codes, and what each command does to the files.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::process::Command;

use rustix::process::geteuid;
use serde_json::Value;
use sq_tests::deployment::Deployment;
use sq_tests::process::{self, Outcome};
use sq_tests::root::Root;
use sq_tests::setup::{Setup, key_of};
use sq_tests::target::{SELECT, url};
use sq_tests::{address, binaries, notice, wait};

/// Every command of `sq-gateway`, as its arguments.
const GATEWAY_COMMANDS: [&str; 17] = [
    "",
    "up",
    "serve",
    "provision",
    "tenants",
    "import",
    "check",
    "healthcheck",
    "tenants list",
    "tenants show",
    "tenants add",
    "tenants activate",
    "tenants suspend",
    "tenants remove",
    "tenants add-key",
    "tenants rotate-key",
    "tenants revoke-key",
];
const WORKER_COMMANDS: [&str; 5] = ["", "serve", "pool", "fsck", "healthcheck"];

fn worker(arguments: &[&str]) -> Outcome {
    process::run(Command::new(binaries::worker()).args(arguments).env_remove("SQ_KEY"))
}

fn words(command: &str) -> Vec<&str> {
    command.split_whitespace().collect()
}

#[test]
fn every_command_has_help_with_an_example() {
    let root = Root::empty();
    let helps = |run: &dyn Fn(&[&str]) -> Outcome, name: &str, commands: &[&str]| {
        for command in commands {
            let printed = run(&[&words(command)[..], &["--help"]].concat()).success();
            let example = printed.split("Example").nth(1).unwrap_or_default();
            assert!(
                example.contains(&format!("{name} ")),
                "{name} {command}: the example shows no use:\n{printed}"
            );
        }
        let version = run(&["--version"]).success();
        assert_eq!(version.trim(), format!("{name} {}", env!("CARGO_PKG_VERSION")));
    };
    helps(&|arguments| root.gateway(arguments), "sq-gateway", &GATEWAY_COMMANDS);
    helps(&worker, "sq-worker", &WORKER_COMMANDS);
}

#[test]
fn wrong_argument_is_printed_without_control_characters() {
    let root = Root::empty();
    for (arguments, shown) in [
        (&["tenants", "show", "t\u{1b}[31m\u{202e}"][..], "'t\\u{1b}[31m\\u{202e}'"),
        (&["tenants\u{7}\n"], "'tenants\\u{7}\\u{a}'"),
        (&["provision", "--slots", "5\u{9b}"], "'5\\u{9b}'"),
        (&["up", "--no\u{2066}thing"], "'--no\\u{2066}thing'"),
    ] {
        let outcome = root.gateway(arguments);
        assert_eq!(outcome.code(), Some(2), "{outcome:?}");
        assert!(outcome.stderr.contains(shown), "wanted {shown}: {outcome:?}");
    }
}

#[test]
fn wrong_usage_exits_with_2_and_explains_on_stderr() {
    let root = Root::new(&Setup::default());
    for wrong in [
        "",
        "nothing",
        "up --nothing",
        "serve",
        "provision",
        "provision --slots x",
        "tenants",
        "tenants add",
        "tenants add Alice",
        "tenants revoke-key alice",
        "tenants revoke-key alice k1 --expired",
        "tenants add-key",
        "tenants add-key alice --scope admin",
        "tenants add-key alice --expires tomorrow",
        "tenants add-key alice --expires 2020-01-01T00:00:00Z",
        "tenants add-key alice --expires 2999-01-01T00:00:00Z --expires-in 1d",
        "tenants add-key alice --expires-in 0s",
        "tenants add-key alice --expires-in 9000y",
        "tenants rotate-key alice --grace soon",
        "tenants nothing",
        "import",
        "check",
        "provision --slots 1 --state suspended",
        "--log-format xml check",
        "up --listen here",
    ] {
        let outcome = root.gateway(&words(wrong));
        assert_eq!(outcome.code(), Some(2), "sq-gateway {wrong}: {outcome:?}");
        assert!(!outcome.stderr.is_empty() && outcome.stdout.is_empty(), "sq-gateway {wrong}: {outcome:?}");
    }
    for wrong in ["", "nothing", "serve", "pool", "fsck", "fsck one two"] {
        assert_eq!(worker(&words(wrong)).code(), Some(2), "sq-worker {wrong}");
    }
}

#[test]
fn check_accepts_a_good_config() {
    let root = Root::new(&Setup::default());
    let outcome = root.with_config(&["check"]);
    assert_eq!((outcome.code(), outcome.stdout.trim()), (Some(0), "ok"), "{outcome:?}");
}

#[test]
fn check_reports_every_mistake_with_its_line() {
    let root = Root::new(&Setup::default());
    let assert_lines = |file: &str, lines: &[usize]| {
        let outcome = root.with_config(&["check"]);
        assert_eq!(outcome.code(), Some(1), "{outcome:?}");
        let told = outcome.stdout + &outcome.stderr;
        for line in lines {
            assert!(told.contains(&format!("{file}:{line}:")), "line {line} is missing:\n{told}");
        }
        assert!(!told.contains("panicked") && !told.lines().any(|line| line == "ok"), "{told}");
    };
    let config = root.read("gateway.toml");
    let key = "0".repeat(64);
    let tenant = |name: &str, port: u16| {
        format!(
            "[[tenant]]\nname = \"{name}\"\nport = {port}\n[[tenant.key]]\nid = \"k1\"\nsha256 = \"{key}\"\n"
        )
    };
    root.write_registry(
        &(tenant("Alice", 1341) + &tenant("bob", 80) + "[[tenant]]\nport = 1341\nsurname = \"x\"\n"),
    );
    assert_lines("tenants.toml", &[2, 9, 12, 13, 14, 15]);
    root.write("gateway.toml", "[gateway]\nlisten = \"here\"\nthreads = -1\n\n[limits]\nper_ip = \"100/fortnight\"\nburst = 3\n[lmits]\n");
    assert_lines("gateway.toml", &[2, 3, 6, 7, 8]);
    root.write("gateway.toml", &(config + "[gateway\n"));
    assert_eq!(root.with_config(&["check"]).code(), Some(1));
    fs::remove_file(root.config()).unwrap();
    let missing = root.with_config(&["check"]);
    assert_eq!(missing.code(), Some(1));
    assert!(missing.stderr.contains("gateway.toml"), "{missing:?}");
}

/// The key that a command printed, anywhere in its output.
fn printed_key(printed: &str) -> String {
    let mut keys = printed.split_whitespace().filter(|word| word.starts_with("pmb-v1-"));
    let key = keys.next().unwrap_or_else(|| panic!("no key: {printed}")).to_owned();
    assert_eq!(keys.next(), None, "more than one key: {printed}");
    key
}

#[test]
fn tenants_are_added_shown_suspended_and_removed() {
    let running = Deployment::start(&Setup::default());
    let tenants = |line: &str| running.with_config(&[&["tenants"], &words(line)[..]].concat());
    let status = |key: &str| running.client(Some(key)).get(SELECT).status;
    let becomes = |key: &str, wanted: u16| wait::until(&format!("{wanted}"), || status(key) == wanted);

    let key = printed_key(&tenants("add carol").success());
    becomes(&key, 200);
    running.client(Some(&key)).get("/api/v2/update?p=text&c=1.1.1/1.1.1/1.1.1&s=hers").ok();
    let twice = tenants("add carol");
    assert_eq!(twice.code(), Some(1), "{twice:?}");
    assert!(twice.stderr.contains("carol"), "{twice:?}");

    let list: Value = serde_json::from_str(&tenants("list --json").success()).unwrap();
    let names: Vec<_> =
        list.as_array().unwrap().iter().map(|tenant| tenant["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["alice", "bob", "carol"]);
    let show: Value = serde_json::from_str(&tenants("show carol --json").success()).unwrap();
    assert_eq!((&show["port"], &show["state"]), (&1343.into(), &"active".into()));
    for line in ["list", "show carol", "list --json", "show carol --json"] {
        let printed = tenants(line).success();
        assert!(printed.contains("carol") && !printed.contains("pmb-v1-"), "{line}: {printed}");
    }

    tenants("suspend carol").success();
    becomes(&key, 403);
    tenants("activate carol").success();
    becomes(&key, 200);

    let second = printed_key(&tenants("rotate-key carol").success());
    becomes(&second, 200);
    becomes(&key, 401);
    let show: Value = serde_json::from_str(&tenants("show carol --json").success()).unwrap();
    let id = show["keys"][0]["id"].as_str().unwrap().to_owned();
    tenants(&format!("revoke-key carol {id}")).success();
    becomes(&second, 401);

    tenants("remove carol").success();
    assert!(!running.join("data/carol").exists(), "its directory is still in its place");
    let is_hers = |path: &std::path::PathBuf| path.ends_with("text.phext");
    assert!(
        running.stored().into_iter().any(|(path, bytes)| is_hers(&path) && bytes == b"hers"),
        "not archived"
    );
    running.client_of("alice").get(SELECT).ok();
}

#[test]
fn purge_deletes_the_directory() {
    let running = Deployment::start(&Setup::default());
    running.client_of("bob").get("/api/v2/update?p=text&c=1.1.1/1.1.1/1.1.1&s=his").ok();
    running.with_config(&["tenants", "remove", "bob", "--purge"]).success();
    assert!(running.stored().is_empty(), "{:?}", running.stored());
    wait::until("the end of the key", || running.client_of("bob").get(SELECT).status == 401);
}

#[test]
fn missing_tenants_and_keys_are_named() {
    let root = Root::new(&Setup::default());
    let registry = root.read("tenants.toml");
    for line in [
        "show nobody",
        "suspend nobody",
        "activate nobody",
        "remove nobody",
        "add-key nobody",
        "rotate-key nobody",
        "rotate-key alice --key k9",
        "revoke-key nobody --expired",
        "revoke-key nobody k1",
        "revoke-key alice k9",
        "add dora --plan platinum",
    ] {
        let outcome = root.with_config(&[&["tenants"], &words(line)[..]].concat());
        assert_eq!(outcome.code(), Some(1), "{line}: {outcome:?}");
        let named = ["nobody", "k9", "platinum"].iter().any(|name| outcome.stderr.contains(name));
        assert!(named && outcome.stdout.is_empty(), "{line}: {outcome:?}");
    }
    assert_eq!(root.read("tenants.toml"), registry);
}

#[test]
fn each_old_format_is_imported() {
    let formats = [
        (
            "a",
            r#"{"tenants": {"tok-1": {"name": "alice", "data_dir": "old/alice"}, "tok-2": {"name": "Bob B", "data_dir": "old/bob"}}}"#,
        ),
        (
            "b",
            r#"{"tenants": [{"token": "tok-1", "port": 1341, "data_dir": "old/alice"}, {"token": "tok-2", "port": 9000, "data_dir": "old/Bob B"}]}"#,
        ),
        (
            "c",
            "[[tenants]]\ntoken = \"tok-1\"\nname = \"alice\"\nport = 1341\nphext = \"alice\"\n[[tenants]]\ntoken = \"tok-2\"\nname = \"Bob B\"\nport = 9000\nphext = \"b\"\n",
        ),
        (
            "d",
            r#"{"admin_key": "x", "tenants": [{"id": "alice", "api_key": "tok-1", "data_dir": "old/alice", "quota_mb": 5, "enabled": true}, {"id": "Bob B", "api_key": "tok-2", "data_dir": "old/bob", "quota_mb": 5, "enabled": true}]}"#,
        ),
    ];
    for (format, text) in formats {
        let root = Root::without_registry(&Setup::default());
        root.write("old-registry", text);
        let old = root.join("old-registry");
        let outcome = root.with_config(&["import", old.to_str().unwrap()]);
        // With a mistyped folder or an unmounted disk, the data would seem lost.
        let is_warned = outcome.stderr.contains("old/alice does not exist");
        assert_eq!(is_warned, format != "c", "format {format}: {}", outcome.stderr);
        let printed = outcome.success();
        assert!(
            printed.contains("Bob B") && printed.contains("bob-b"),
            "format {format}: the new name: {printed}"
        );
        let moved = printed.contains("9000") && printed.contains("1342");
        assert_eq!(moved, ["b", "c"].contains(&format), "format {format}: the moved port: {printed}");
        let registry = root.read("tenants.toml");
        assert!(
            registry.contains("[[tenant]]") && !registry.contains("tok-1"),
            "format {format}: {registry}"
        );
        assert_eq!(root.read("old-registry"), text, "format {format}: the old file was changed");
        let running = Deployment::up(root, &[]);
        for key in ["tok-1", "tok-2"] {
            running.client(Some(key)).get(&format!("{}&s={key}", SELECT.replace("select", "update"))).ok();
            assert_eq!(running.client(Some(key)).get(SELECT).ok(), key, "format {format}");
        }
        let used_as_is = running.join("old/alice/text.phext").exists();
        assert_eq!(used_as_is, format != "c", "format {format}: {:?}", running.stored().keys());
    }
}

#[test]
fn import_overwrites_nothing_and_explains_unreadable_files() {
    let root = Root::new(&Setup::default());
    let registry = root.read("tenants.toml");
    root.write("good.json", r#"{"tenants": {"tok-1": {"name": "zoe", "data_dir": "zoe"}}}"#);
    root.write("bad.json", "{\"tenants\": {");
    for file in ["good.json", "bad.json", "missing.json"] {
        let outcome = root.with_config(&["import", file]);
        assert_eq!(outcome.code(), Some(1), "{file}: {outcome:?}");
        assert!(!outcome.stderr.is_empty(), "{file}");
    }
    assert_eq!(root.read("tenants.toml"), registry);
}

#[test]
fn healthcheck_exit_code_depends_on_the_response() {
    let running = Deployment::start(&Setup::default());
    let check = |url: String| running.gateway(&["healthcheck", &url]).code();
    let at = |path: &str| url(running.listen, path);
    assert_eq!(
        (check(at("/health")), check(at("/ready")), check(at("/nowhere"))),
        (Some(0), Some(0), Some(1))
    );
    assert_eq!(check(url(address::at(running.address, 1340), "/health")), Some(1));
    assert_eq!(check("no url".to_owned()), Some(1));
    let pool = url(address::at(running.address, 1339), "/health");
    assert_eq!(
        (worker(&["healthcheck", &pool]).code(), worker(&["healthcheck", &at("/nowhere")]).code()),
        (Some(0), Some(1))
    );
}

#[test]
fn up_with_a_mistake_names_its_place_and_does_not_start() {
    let root = Root::new(&Setup { limits: "per_ip = \"many\"".to_owned(), ..Setup::default() });
    let folder = root.path().to_str().unwrap();
    let outcome = root.gateway(&["up", "--root", folder]);
    assert_eq!(outcome.code(), Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("gateway.toml:") && outcome.stderr.contains("per_ip"), "{outcome:?}");
    let missing = root.gateway(&["up", "--config", "nowhere.toml"]);
    assert_eq!(missing.code(), Some(1), "{missing:?}");
    assert!(missing.stderr.contains("nowhere.toml"), "{missing:?}");
}

#[test]
fn logs_are_text_or_json_and_contain_no_key() {
    for (format, is_json) in [("text", false), ("json", true)] {
        let root = Root::new(&Setup::default());
        let folder = root.path().to_str().unwrap().to_owned();
        let mut command = root.gateway_command(&["--log-format", format, "up", "--root", &folder]);
        let running = Deployment::spawn(root, &mut command);
        running.client_of("alice").get(SELECT).ok();
        running
            .client(Some("a-wrong-secret"))
            .get(&format!("{SELECT}&s=words-of-a-scroll"))
            .problem(401, "invalid_key");
        wait::until("a line in the log", || running.log().lines().count() > 0);
        let root = running.stop();
        let log = root.read("up.log");
        let lines: Vec<&str> = log.lines().collect();
        assert!(lines.iter().all(|line| serde_json::from_str::<Value>(line).is_ok() == is_json), "{log}");
        for secret in [key_of("alice").as_str(), "a-wrong-secret", "words-of-a-scroll"] {
            assert!(!log.contains(secret), "{secret} is in the log:\n{log}");
        }
    }
}

#[test]
fn rotated_key_inherits_scope_and_expiry() {
    let root = Root::new(&Setup::default());
    let registry = root
        .read("tenants.toml")
        .replace("scope = \"write\"", "scope = \"read\"\nexpires = 2099-01-01T00:00:00Z");
    root.write_registry(&registry);
    root.with_config(&["tenants", "rotate-key", "alice"]).success();
    let shown = root.with_config(&["tenants", "show", "alice", "--json"]).success();
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["keys"][0]["scope"], "read", "{shown}");
    assert_eq!(shown["keys"][0]["expires_s"], 4_070_908_800_u64, "{shown}");
}

/// Gateway and pool run as a separate user, who must still be able to read what an administrator changes.
#[test]
fn files_that_root_changes_keep_their_owner() {
    if !geteuid().is_root() {
        return notice::not_allowed_here("edits by root of another user's registry");
    }
    let user = 65534;
    let root = Root::new(&Setup::default());
    fs::create_dir(root.join("data")).unwrap();
    for name in ["", "tenants.toml", "gateway.toml", "data"] {
        chown(root.join(name), Some(user), Some(user)).unwrap();
    }
    root.with_config(&["tenants", "revoke-key", "alice", "k1"]).success();
    root.with_config(&["tenants", "add", "dora"]).success();
    for name in ["tenants.toml", "tenants.toml.lock", "data/dora"] {
        let made = fs::metadata(root.join(name)).unwrap();
        assert_eq!((made.uid(), made.gid()), (user, user), "{name}");
    }
}

#[test]
fn failed_changes_write_nothing() {
    let root = Root::new(&Setup::default());
    let registry = root.read("tenants.toml");
    let outcome = root.with_config(&["provision", "--slots", "3", "--plan", "platinum"]);
    assert!(outcome.code() == Some(1) && outcome.stderr.contains("platinum"), "{outcome:?}");
    let outcome = root.with_config(&["tenants", "add", "dora", "--plan", "platinum"]);
    assert_eq!(outcome.code(), Some(1), "{outcome:?}");
    assert_eq!(root.read("tenants.toml"), registry);
    assert!(
        !root.join("keys.csv").exists()
            && !root.join("data/slot-001").exists()
            && !root.join("data/dora").exists()
    );
}

#[test]
fn new_tenant_gets_no_used_directory() {
    let root = Root::new(&Setup::default());
    fs::create_dir_all(root.join("data/dora")).unwrap();
    root.write("data/dora/old.phext", "somebody's");
    let refused = root.with_config(&["tenants", "add", "dora"]);
    assert!(refused.code() == Some(1) && refused.stderr.contains("--adopt"), "{refused:?}");
    root.with_config(&["tenants", "add", "dora", "--adopt"]).success();
}

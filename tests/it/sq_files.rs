//! Directories of SQ's users: the unnamed phext, coordinates of any size, links, long names; and files that cannot be
//! served.

use std::fmt::Write;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rustix::process::Signal;
use serde_json::{Value, json};
use sq_tests::answer::Answer;
use sq_tests::client::Client;
use sq_tests::deployment::Deployment;
use sq_tests::root::Root;
use sq_tests::setup::Setup;
use sq_tests::{binaries, process};

/// The root of a system, with these files in alice's directory.
fn with_files(setup: &Setup, files: &[(&str, &[u8])]) -> Root {
    let root = Root::new(setup);
    let directory = root.join("data/alice");
    fs::create_dir_all(&directory).unwrap();
    for (name, bytes) in files {
        fs::write(directory.join(name), bytes).unwrap();
    }
    root
}

fn fsck(directory: &Path) -> process::Outcome {
    process::run(Command::new(binaries::worker()).arg("fsck").arg(directory))
}

/// The detail of a refusal that lasts, without `Retry-After`.
fn lasting(answer: &Answer) -> String {
    let problem = answer.refused(503, "worker_unavailable");
    assert_eq!(answer.header("retry-after"), None, "{answer}");
    problem["detail"].as_str().unwrap().to_owned()
}

#[test]
fn every_command_has_the_unnamed_phext() {
    let root = with_files(&Setup::default(), &[(".phext", b"one\x17two")]);
    let running = Deployment::up(root, &[]);
    let client = running.client_of("alice");
    // A client that does not know `p`, and one that leaves it empty.
    for p in ["", "p=&"] {
        let get =
            |command: &str, rest: &str| client.get(&format!("/api/v2/{command}?{p}{rest}")).ok().to_owned();
        let at = "c=1.1.1/1.1.1/1.1.2";
        assert!(get("status", "").contains("Scrolls: 2"));
        assert_eq!(get("load", ""), "Loaded .phext");
        assert_eq!(get("select", at), "two");
        assert_eq!(get("update", &format!("{at}&s=2")), "Updated 1 bytes");
        assert_eq!(get("insert", &format!("{at}&s=b")), "Inserted 1 bytes");
        assert_eq!(get("get", ""), "one\u{17}2b");
        assert_eq!(get("toc", "").lines().count(), 2);
        assert_eq!(get("checksum", "").len(), 32);
        assert_eq!(get("delta", ""), "one\u{17}2b");
        assert!(get("query", "set=1.1.1/1.1.1/1.1.2").contains("2b"));
        assert!(get("json-export", "").contains("2b"));
        assert_eq!(get("delete", at), "Removed 2 bytes");
        let post = |command: &str, rest: &str, body: &str| {
            client.post(&format!("/api/v2/{command}?{p}{rest}"), body).ok().to_owned()
        };
        assert_eq!(post("update", at, "two"), "Updated 3 bytes");
    }
    let listed = client.get("/api/v2/phexts").json();
    assert_eq!(listed, json!([{"phext": "", "bytes": 7, "scrolls": 2}]));
    assert_eq!(running.client_of("bob").get("/api/v2/get").ok(), "");
    process::signal(running.worker_of("alice").unwrap().pid, Signal::KILL);
    assert_eq!(client.get("/api/v2/get").ok(), "one\u{17}two");
    let root = running.stop();
    let log = root.read("audit.log");
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.len() >= 8 && lines.iter().all(|line| line["phext"] == ""), "{log}");
    assert_eq!(fs::read(root.join("data/alice/.phext")).unwrap(), b"one\x17two");
    assert_eq!(fs::read_dir(root.join("data/bob")).unwrap().count(), 0, "a read made a file");
    let outcome = fsck(&root.join("data/alice"));
    assert!(outcome.status.success() && outcome.stdout.contains(".phext  "), "{outcome:?}");
}

/// A write that is only in the unnamed phext's journal counts, and its key is known.
#[test]
fn the_unnamed_phext_has_a_journal_as_others_have() {
    let root = with_files(&Setup::default(), &[]);
    let running = Deployment::up(root, &[]);
    let client = running.client_of("alice");
    let insert = |key: &str| {
        let target = "/api/v2/insert?c=1.1.1/1.1.1/1.1.1";
        let field = format!("Idempotency-Key: {key}\r\n");
        client.request("POST", target, &field, Some(b"once,"))
    };
    insert("first").ok();
    process::signal(running.worker_of("alice").unwrap().pid, Signal::KILL);
    let again = insert("first");
    again.ok();
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    insert("second").ok();
    assert_eq!(client.get("/api/v2/select?c=1.1.1/1.1.1/1.1.1").ok(), "once,once,");
    let root = running.stop();
    assert!(root.join("data/alice/.journal").exists());
    assert_eq!(fs::read(root.join("data/alice/.phext")).unwrap(), b"once,once,");
}

const DATED: &str = "20260211.1.1/1.1.1/1.1.1";

/// A phext with 100,002 scrolls in a row and one at a date, and its table of contents.
fn far_phext() -> (Vec<u8>, String) {
    let (mut text, mut toc) = (String::new(), String::new());
    for number in 1..=100_002 {
        text += &format!("{number}\x17");
        writeln!(toc, "* 1.1.1/1.1.1/1.1.{number}: {number}").unwrap();
    }
    text.pop();
    text += &"\x01".repeat(20_260_210);
    text += "dated";
    writeln!(toc, "* {DATED}: dated").unwrap();
    (text.into_bytes(), toc)
}

#[test]
fn scrolls_far_away_are_read_whole_and_written_back_unchanged() {
    let (text, toc) = far_phext();
    let root = with_files(&Setup::default(), &[("far.phext", &text)]);
    let running = Deployment::up(root, &[]);
    let client = running.client_of("alice");
    let get =
        |command: &str, rest: &str| client.get(&format!("/api/v2/{command}?p=far{rest}")).ok().to_owned();
    assert_eq!(get("toc", ""), toc);
    assert!(get("get", "").into_bytes() == text);
    assert_eq!(get("checksum", ""), libphext::phext::checksum(std::str::from_utf8(&text).unwrap()));
    assert!(get("status", "").contains("Scrolls: 100003"));
    assert_eq!(get("select", &format!("&c={DATED}")), "dated");
    assert_eq!(get("select", "&c=20260211.1.1"), "dated");
    assert_eq!(get("select", "&c=1.1.1/1.1.1/1.1.100002"), "100002");
    assert_eq!(get("select", "&c=4294967295.1.1"), "");
    let from = "&from=1.1.1/1.1.1/1.1.100001&to=4294967295.1.1";
    let found: Vec<Value> = serde_json::from_str(&get("query", from)).unwrap();
    assert_eq!(found.len(), 3);
    let exported: Vec<Value> = serde_json::from_str(&get("json-export", "")).unwrap();
    assert_eq!(exported.last().unwrap(), &json!({"coord": DATED, "scroll": "dated"}));
    let checksum = libphext::phext::checksum("dated");
    let delta = client.post("/api/v2/delta?p=far", format!("20260211.1.1: {checksum}"));
    assert!(!delta.ok().contains("dated") && delta.text().len() > 400_000);
    // An edit of one scroll, and of existing far ones, moves no other.
    assert_eq!(get("update", "&c=1.1.1/1.1.1/1.1.1&s=one"), "Updated 3 bytes");
    assert_eq!(get("update", "&c=20260211.1.1&s=date"), "Updated 4 bytes");
    assert_eq!(get("insert", "&c=20260211.1.1&s=d"), "Inserted 1 bytes");
    let root = running.stop();
    let saved = fs::read(root.join("data/alice/far.phext")).unwrap();
    assert!(saved == [b"one", &text[1..]].concat(), "{} bytes instead of {}", saved.len(), text.len() + 2);
}

#[test]
fn new_scrolls_are_as_near_as_the_config_says() {
    let update = |client: &Client, c: &str| client.get(&format!("/api/v2/update?p=new&c={c}&s=x"));
    let mut root =
        Arc::new(with_files(&Setup::default(), &[("new.phext", &[&[0x17; 99_999][..], b"there"].concat())]));
    // At the limit, one past it, and the refusal's detail.
    for (limit, near, far) in [
        ("", "1.1.1/1.1.1/1.1.99999", "1.1.1/1.1.1/1.1.100001"),
        ("coordinate = 3", "3.3.3/3.3.3/3.3.3", "1.1.1/1.1.1/4.1.1"),
        ("coordinate = 100001", "100001.1.1", "100002.1.1"),
    ] {
        root = fresh_config(&root, limit);
        let running = Deployment::up(Arc::clone(&root), &[]);
        let client = running.client_of("alice");
        update(&client, near).ok();
        let stored = client.get("/api/v2/get?p=new").ok().to_owned();
        for refused in [
            update(&client, far),
            client.post(&format!("/api/v2/insert?p=new&c={far}"), "x"),
            client.get(&format!("/api/v2/update?p=none&c={far}&s=x")),
        ] {
            let problem = refused.problem(400, "invalid_coordinate");
            let says = limit.split_once("= ").map_or("99999", |(_, limit)| limit);
            assert!(problem["detail"].as_str().unwrap().contains(&format!("1 to {says} ")), "{problem}");
        }
        // An existing far scroll can be written and deleted; reads and deletes have no limit.
        update(&client, "1.1.1/1.1.1/1.1.100000").ok();
        assert_eq!(client.get(&format!("/api/v2/delete?p=new&c={far}")).ok(), "Removed 0 bytes");
        assert_eq!(client.get(&format!("/api/v2/select?p=new&c={far}")).ok(), "");
        assert_eq!(client.get("/api/v2/get?p=new").ok().replace("there", "x"), stored.replace("there", "x"));
        root = running.stop();
    }
    // Without a limit, breaks count against the quota.
    root = fresh_config(&root, "coordinate = \"off\"\nquota = \"30MiB\"");
    let running = Deployment::up(root, &[]);
    let client = running.client_of("alice");
    update(&client, "4294967295.1.1").problem(507, "quota_exceeded");
    update(&client, "20260211.1.1").ok();
    update(&client, "20260211.20260211.1").problem(507, "quota_exceeded");
    update(&client, "4294967296.1.1").problem(400, "invalid_coordinate");
}

/// The same directories with another config.
fn fresh_config(root: &Root, limits: &str) -> Arc<Root> {
    let fresh = Root::new(&Setup { limits: limits.to_owned(), ..Setup::default() });
    if root.join("data").exists() {
        process::run(Command::new("cp").arg("-a").args([root.join("data"), fresh.join("data")])).success();
    }
    Arc::new(fresh)
}

#[test]
fn a_link_within_the_directory_is_followed_and_one_that_leads_out_is_refused() {
    let root = with_files(&Setup::default(), &[("notes.phext", b"own")]);
    let (alice, bob) = (root.join("data/alice"), root.join("data/bob"));
    fs::create_dir_all(alice.join("2026")).unwrap();
    fs::create_dir_all(&bob).unwrap();
    fs::write(bob.join("secret.phext"), "bob's").unwrap();
    symlink("notes.phext", alice.join("relative.phext")).unwrap();
    symlink(alice.join("notes.phext"), alice.join("absolute.phext")).unwrap();
    symlink("relative.phext", alice.join("chain.phext")).unwrap();
    symlink("notes.phext", alice.join(".phext")).unwrap();
    symlink("../bob/secret.phext", alice.join("stolen.phext")).unwrap();
    symlink(bob.join("secret.phext"), alice.join("taken.phext")).unwrap();
    symlink("/etc/hostname", alice.join("system.phext")).unwrap();
    symlink("2026", alice.join("folder.phext")).unwrap();
    let running = Deployment::up(root, &[]);
    let client = running.client_of("alice");
    let at = |command: &str, phext: &str| format!("/api/v2/{command}?p={phext}&c=1.1.1/1.1.1/1.1.1");
    for phext in ["relative", "absolute", "chain", ""] {
        let written = client.post(&at("update", phext), format!("through {phext}"));
        written.ok();
        assert_eq!(written.header("etag"), client.get(&at("select", "notes")).header("etag"));
        assert_eq!(client.get(&at("select", "notes")).ok(), format!("through {phext}"));
        client.post(&at("update", "notes"), "own").ok();
        assert_eq!(client.get(&at("select", phext)).ok(), "own");
    }
    for (phext, says) in [
        ("stolen", "leads out"),
        ("taken", "leads out"),
        ("system", "leads out"),
        ("folder", "does not lead to a .phext file"),
    ] {
        for answer in [
            client.get(&at("select", phext)),
            client.post(&at("update", phext), "x"),
            client.get(&at("toc", phext)),
        ] {
            let detail = lasting(&answer);
            assert!(detail.contains(says) && !detail.contains('/'), "{detail}");
        }
    }
    let root = running.stop();
    let (alice, bob) = (root.join("data/alice"), root.join("data/bob"));
    assert_eq!(fs::read_to_string(alice.join("notes.phext")).unwrap(), "own");
    assert_eq!(fs::read_to_string(bob.join("secret.phext")).unwrap(), "bob's");
    for link in ["relative", "absolute", "chain", "stolen", ""] {
        assert!(alice.join(format!("{link}.phext")).symlink_metadata().unwrap().is_symlink(), "{link}");
    }
    let outcome = fsck(&alice);
    let line = |name: &str| outcome.stdout.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(line("relative.phext").contains("a link to notes.phext"), "{outcome:?}");
    assert!(
        line("stolen.phext").contains("DAMAGED") && line("stolen.phext").contains("leads out"),
        "{outcome:?}"
    );
}

#[test]
fn a_link_into_a_folder_is_followed_to_a_file_that_is_there() {
    // The two links to june count as one phext, the dangling one as another.
    let root = with_files(
        &Setup { limits: "phexts = 4".to_owned(), ..Setup::default() },
        &[("notes.phext", b"own")],
    );
    let alice = root.join("data/alice");
    fs::create_dir_all(alice.join("years/2026")).unwrap();
    fs::write(alice.join("years/2026/june.phext"), "june").unwrap();
    symlink("years/2026/june.phext", alice.join("month.phext")).unwrap();
    symlink("years/2026", alice.join("now")).unwrap();
    symlink("now/june.phext", alice.join("through.phext")).unwrap();
    symlink("now/july.phext", alice.join("unwritten.phext")).unwrap();
    let running = Deployment::up(root, &[]);
    let client = running.client_of("alice");
    let at = |command: &str, phext: &str| format!("/api/v2/{command}?p={phext}&c=1.1.1/1.1.1/1.1.1");
    assert_eq!(client.get(&at("select", "month")).ok(), "june");
    client.post(&at("update", "month"), "through month").ok();
    assert_eq!(client.get(&at("select", "through")).ok(), "through month");
    client.post(&at("update", "through"), "summer").ok();
    let listed = client.get("/api/v2/phexts").ok().to_owned();
    assert!(
        listed.contains(r#""month""#) && listed.contains(r#""through""#) && !listed.contains("2026"),
        "{listed}"
    );
    for answer in [client.get(&at("select", "unwritten")), client.post(&at("update", "unwritten"), "x")] {
        let detail = lasting(&answer);
        assert!(detail.contains("a folder where there is no such .phext file"), "{detail}");
    }
    client.post(&at("update", "third"), "x").ok();
    client.post(&at("update", "fourth"), "x").refused(507, "quota_exceeded");
    let root = running.stop();
    let alice = root.join("data/alice");
    assert_eq!(fs::read_to_string(alice.join("years/2026/june.phext")).unwrap(), "summer");
    assert!(!alice.join("years/2026/july.phext").exists());
    assert!(alice.join("month.phext").is_symlink() && alice.join("through.phext").is_symlink());
    let outcome = fsck(&alice);
    let line = |name: &str| outcome.stdout.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(line("month.phext").contains("a link to years/2026/june.phext"), "{outcome:?}");
    assert!(line("years/2026/june.phext").contains("1 scroll"), "{outcome:?}");
    assert!(line("unwritten.phext").contains("DAMAGED"), "{outcome:?}");
}

#[test]
fn a_state_that_lasts_names_no_time_to_try_again() {
    let setup = Setup { limits: "quota = \"10MiB\"".to_owned(), ..Setup::default() };
    let files: [(&str, &[u8]); 6] = [
        ("binary.phext", b"\xff\xfe"),
        ("torn.phext", b"x"),
        ("torn.journal", &[7; 300]),
        ("large.phext", &vec![b'x'; 11 << 20]),
        ("way.phext", b"x"),
        ("good.phext", b"x"),
    ];
    let root = with_files(&setup, &files);
    let alice = root.join("data/alice");
    fs::create_dir_all(alice.join("way.phext.tmp/full")).unwrap();
    fs::create_dir_all(alice.join("folder.phext")).unwrap();
    process::run(Command::new("mkfifo").arg(alice.join("pipe.phext"))).success();
    symlink("disk/notes.phext", alice.join("absent.phext")).unwrap();
    fs::write(alice.join("closed.phext"), "x").unwrap();
    fs::set_permissions(alice.join("closed.phext"), Permissions::from_mode(0o0)).unwrap();
    let running = Deployment::up(root, &[]);
    let client = running.client_of("alice");
    for phext in ["binary", "torn", "large", "way", "folder", "pipe", "absent", "closed"] {
        lasting(&client.get(&format!("/api/v2/toc?p={phext}")));
        lasting(&client.get(&format!("/api/v2/update?p={phext}&c=1.1.1&s=x")));
    }
    client.get("/api/v2/update?p=good&c=1.1.1&s=y").ok();
    let root = running.stop();
    // The keys of all phexts: without them nothing is written.
    fs::write(root.join("data/alice/.keys"), [7; 300]).unwrap();
    let running = Deployment::up(Arc::clone(&root), &[]);
    let client = running.client_of("alice");
    assert_eq!(client.get("/api/v2/select?p=good&c=1.1.1").ok(), "y");
    lasting(&client.get("/api/v2/update?p=good&c=1.1.1&s=z"));
}

//! A changed file is applied within a second, however it is changed: written in steps, renamed, swapped behind a
//! symbolic link, or with its folder replaced. A broken file changes nothing, and its mistake is reported with its
//! position. No request is affected.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sq_tests::client::Client;
use sq_tests::deployment::Deployment;
use sq_tests::root::Root;
use sq_tests::scrape::{reload_by, reloads};
use sq_tests::setup::{Setup, Tenant, registry_text};
use sq_tests::target::SELECT;
use sq_tests::wait;

/// Tries of something that must be quick on a machine that is busy with other tests: the quickest counts.
const TRIES: usize = 3;

fn alice_and(more: &[&str]) -> String {
    let names = ["alice"].iter().chain(more).zip(1341..);
    registry_text(&names.map(|(name, port)| Tenant::new(name, port)).collect::<Vec<_>>())
}

fn status(client: &Client) -> u16 {
    client.get(SELECT).status
}

fn wait_for(running: &Deployment, tenant: &str, wanted: u16) {
    let client = running.client_of(tenant);
    wait::until(&format!("{wanted} for {tenant}"), || status(&client) == wanted);
}

#[test]
fn gateway_and_pool_log_that_a_mistake_is_fixed() {
    let running = Deployment::start(&Setup::default());
    let good = running.read("gateway.toml");
    let lines = |words: &str| running.log().lines().filter(|line| line.contains(words)).count();
    running.write("gateway.toml", &good.replace("[limits]", "[limits]\nper_ip = \"lots\""));
    wait::until("both complain", || lines("not reloaded") > 0 && lines("reload rejected") > 0);
    running.write("gateway.toml", &good);
    // The previous text, which applied all the time.
    wait::until("the gateway's word", || lines(" reloaded reason=FileChanged") > 0);
    wait::until("the pool's word", || lines(" reloaded tenants=2 active=2") > 0);
}

#[test]
fn a_key_is_valid_and_a_revoked_one_refused_within_a_second() {
    let running = Deployment::start(&Setup::default());
    let timed = |client: &Client, wanted: u16| {
        let changed = Instant::now();
        wait::until(&format!("{wanted}"), || status(client) == wanted);
        changed.elapsed()
    };
    let (mut valid, mut refused) = (Duration::MAX, Duration::MAX);
    for number in 0..TRIES {
        let added = running.with_config(&["tenants", "add-key", "alice"]).success();
        let key = added.split_whitespace().find(|word| word.starts_with("pmb-v1-")).expect("the key");
        let client = running.client(Some(key));
        valid = valid.min(timed(&client, 200));
        running.with_config(&["tenants", "revoke-key", "alice", &format!("k{}", number + 2)]).success();
        refused = refused.min(timed(&client, 401));
    }
    assert!(valid < Duration::from_secs(1), "a new key is valid after {valid:?}");
    assert!(refused < Duration::from_secs(1), "a revoked key is refused after {refused:?}");
}

#[test]
fn half_written_file_changes_nothing() {
    let running = Deployment::start(&Setup::default());
    let text = alice_and(&["bob", "carol"]);
    let (first, rest) = text.split_at(text.find("state").unwrap() + 3);
    let (second, third) = rest.split_at(rest.len() / 2);
    // A slow editor truncates the file, then writes it in steps with pauses.
    let mut file = None;
    reload_by(&running, "rejected", || file = Some(File::create(running.registry()).unwrap()));
    let mut file = file.expect("the registry");
    for part in [first, second] {
        reload_by(&running, "rejected", || file.write_all(part.as_bytes()).unwrap());
        assert_eq!(status(&running.client_of("alice")), 200);
        assert_eq!(status(&running.client_of("bob")), 200, "half a file took him away");
    }
    reload_by(&running, "accepted", || file.write_all(third.as_bytes()).unwrap());
    wait_for(&running, "carol", 200);
}

#[test]
fn mistake_is_logged_once_with_its_position() {
    let running = Deployment::start(&Setup::default());
    let good = running.read("tenants.toml");
    // The gateway reads the files again when its watch begins; an earlier mistake would be reported twice.
    wait::until("the watch", || reloads(&running, "accepted") > 0.0);
    assert_eq!(reloads(&running, "rejected"), 0.0);
    let bad = good.replacen("port = 1341", "port = \"1341\"", 1);
    reload_by(&running, "rejected", || running.write_registry(&bad));
    assert_eq!(status(&running.client_of("alice")), 200);

    let line = 1 + good.lines().position(|line| line == "port = 1341").unwrap();
    let place = format!("{}:{line}:8: port is a whole number", running.registry().display());
    let told = |log: String| log.lines().filter(|line| line.contains(&place)).count();
    wait::until("the pool says so too", || told(running.log()) == 2);
    let checked = running.with_config(&["check"]);
    assert_eq!((checked.code(), told(checked.stderr)), (Some(1), 1));

    // The pool has read the file long ago; by now a second read would have been counted.
    reload_by(&running, "accepted", || running.write_registry(&good));
    assert_eq!((reloads(&running, "rejected"), told(running.log())), (1.0, 2));

    let config = running.read("gateway.toml");
    let mistaken = config.replacen("per_ip = \"off\"", "per_ip = \"of\"", 1);
    reload_by(&running, "rejected", || running.write("gateway.toml", &mistaken));
    let line = 1 + config.lines().position(|line| line.starts_with("per_ip")).unwrap();
    let place = format!("{}:{line}:10: per_ip", running.config().display());
    assert!(running.log().contains(&place), "no {place}\n{}", running.log());
}

#[test]
fn mistakes_between_tenants_and_between_fields_have_a_place_too() {
    let root = Root::new(&Setup::default());
    let checked = |name: &str, old: &str, new: &str| {
        let text = root.read(name);
        root.write(name, &text.replacen(old, new, 1));
        let outcome = root.with_config(&["check"]);
        root.write(name, &text);
        assert_eq!(outcome.code(), Some(1), "{}", outcome.stderr);
        outcome.stderr
    };
    let error = checked("tenants.toml", "port = 1342", "port = 1342\ndata_dir = \"data/alice\"");
    assert!(error.contains("tenants.toml:12:12: tenants alice and bob have the same data_dir"), "{error}");
    let error = checked("gateway.toml", ":1338", ":1337");
    assert!(error.contains("gateway.toml:3:16: gateway.admin_listen and gateway.listen have"), "{error}");
    root.write("old.toml", "[[tenants]]\ntoken = \"t\"\nname = 7\n");
    let outcome = root.gateway(&["import", "old.toml", "--root", "new"]);
    assert!(outcome.stderr.contains("old.toml:3:8: invalid type"), "{}", outcome.stderr);
}

/// A folder as of a ConfigMap mounted by Kubernetes: `tenants.toml` leads to `..data/tenants.toml`, and `..data` to a
/// version's folder.
fn mount_version(root: &Root, version: &str, registry: &str) {
    let mounted = root.join("mounted");
    fs::create_dir_all(mounted.join(version)).unwrap();
    fs::write(mounted.join(version).join("tenants.toml"), registry).unwrap();
    symlink(version, mounted.join("..data_tmp")).unwrap();
    fs::rename(mounted.join("..data_tmp"), mounted.join("..data")).unwrap();
}

#[test]
fn a_registry_behind_symbolic_links_is_followed_wherever_they_lead() {
    let setup = Setup { gateway: "tenants = \"mounted/tenants.toml\"".to_owned(), ..Setup::default() };
    let root = Root::new(&setup);
    mount_version(&root, "..1", &alice_and(&[]));
    let mounted = root.join("mounted");
    symlink("..data/tenants.toml", mounted.join("tenants.toml")).unwrap();
    let running = Deployment::up(root, &[]);
    let alice = running.client_of("alice");

    // Kubernetes swaps a whole version.
    mount_version(&running, "..2", &alice_and(&["bob"]));
    fs::remove_dir_all(mounted.join("..1")).unwrap();
    wait_for(&running, "bob", 200);
    // The file behind the link is written to.
    fs::write(mounted.join("..2/tenants.toml"), alice_and(&["bob", "carol"])).unwrap();
    wait_for(&running, "carol", 200);
    // The link is replaced: `ln -sf`.
    fs::write(running.join("other.toml"), alice_and(&["bob", "dave"])).unwrap();
    symlink(running.join("other.toml"), mounted.join("link")).unwrap();
    fs::rename(mounted.join("link"), mounted.join("tenants.toml")).unwrap();
    wait_for(&running, "dave", 200);
    wait_for(&running, "carol", 401);

    // The folder disappears, as when it is unmounted: nothing changes. Then another one replaces it.
    reload_by(&running, "rejected", || fs::rename(&mounted, running.join("away")).unwrap());
    assert_eq!(status(&alice), 200);
    reload_by(&running, "accepted", || {
        fs::create_dir(running.join("next")).unwrap();
        fs::write(running.join("next/tenants.toml"), alice_and(&["erin"])).unwrap();
        fs::rename(running.join("next"), &mounted).unwrap();
    });
    wait_for(&running, "erin", 200);
    // Writes in the new folder are noticed too.
    fs::write(mounted.join("tenants.toml"), alice_and(&["bob"])).unwrap();
    wait_for(&running, "erin", 401);
    wait_for(&running, "bob", 200);
}

#[test]
fn tenant_and_cors_settings_apply_without_a_restart() {
    let mut tenants = vec![Tenant::new("alice", 1341)];
    tenants[0].plan = Some("small");
    let plans = "[plan.small]\nper_tenant = \"1000/min\"\n".to_owned();
    let running = Deployment::start(&Setup { tenants, plans, ..Setup::default() });
    let policy = |answer: &sq_tests::answer::Answer| answer.header("ratelimit-policy").map(str::to_owned);
    let ask = || running.client_of("alice").request("GET", SELECT, "Origin: https://a.example\r\n", None);
    let before = ask();
    assert!(policy(&before).is_some_and(|policy| policy.contains("q=1000")), "{before}");
    assert_eq!(before.header("access-control-allow-origin"), None);

    let config = running.read("gateway.toml").replace("1000/min", "2000/min");
    let config = config.replace("[cors]\n", "[cors]\nallow_origins = [\"https://a.example\"]\n");
    reload_by(&running, "accepted", || running.write("gateway.toml", &config));
    let after = ask();
    assert!(policy(&after).is_some_and(|policy| policy.contains("q=2000")), "{after}");
    assert_eq!(after.header("access-control-allow-origin"), Some("https://a.example"));

    // Fields that are read only at the start are named.
    let config = config.replace("threads = 1", "threads = 2");
    reload_by(&running, "accepted", || running.write("gateway.toml", &config));
    let log = running.log();
    assert!(log.lines().any(|line| line.contains("next start") && line.contains("gateway.threads")), "{log}");
}

#[test]
fn touched_file_is_not_logged() {
    let running = Deployment::start(&Setup::default());
    let noise = || running.log().lines().filter(|line| line.contains("reloaded")).count();
    let before = noise();
    for _ in 0..TRIES {
        let text = running.read("tenants.toml");
        reload_by(&running, "accepted", || running.write_registry(&text));
    }
    assert_eq!(noise(), before, "{}", running.log());
    reload_by(&running, "accepted", || running.signal(Signal::HUP));
    wait::until("the line that a signal gets", || noise() > before);
}

#[test]
fn twenty_reloads_fail_no_request() {
    let running = Deployment::start(&Setup::default());
    let (is_over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut upload = running.client_of("bob").connect();
    let target = "/api/v2/update?p=text&c=1.1.1/1.1.1/1.1.1";
    let head = running.client_of("bob").head("POST", target);
    upload.send((head + "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n").as_bytes());
    assert_eq!(upload.answer().status, 100);

    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut connection = running.client_of("alice").connect();
                let request = running.client_of("alice").head("GET", SELECT) + "\r\n";
                while !is_over.load(Ordering::Relaxed) {
                    connection.send(request.as_bytes());
                    assert_eq!(connection.answer().ok(), "");
                    assert_eq!(running.client_of("alice").get(SELECT).ok(), "");
                    answered.fetch_add(2, Ordering::Relaxed);
                }
            });
        }
        let over = Over(&is_over);
        for number in 0..20 {
            let before = answered.load(Ordering::Relaxed);
            reload_by(&running, "accepted", || match number % 4 {
                0 => running.write_registry(&alice_and(&["bob", "carol"])),
                1 => running.write("gateway.toml", &(running.read("gateway.toml") + "# Touched.\n")),
                2 => running.signal(Signal::HUP),
                _ => running.write_registry(&alice_and(&["bob"])),
            });
            wait::until("requests go on", || answered.load(Ordering::Relaxed) > before);
        }
        drop(over);
    });
    upload.send(b"Hello");
    assert_eq!(upload.answer().ok(), "Updated 5 bytes");
    assert_eq!(running.client_of("bob").get(SELECT).ok(), "Hello");
}

/// Stops the load, also when the test fails, and joins its threads.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

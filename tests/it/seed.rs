//! The user's own test, word for word, and the first start on an empty folder.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use sq_tests::deployment::Deployment;
use sq_tests::notice::skip;
use sq_tests::process;
use sq_tests::root::Root;
use sq_tests::setup::Setup;

pub(crate) const TENANTS: &str = r#"{
  "tenants": {
    "pmb-v1-alice-key": { "name": "alice", "data_dir": "$DIR/alice" },
    "pmb-v1-bob-key": { "name": "bob", "data_dir": "$DIR/bob" }
  }
}"#;

pub(crate) const SCRIPT: &str = r#"
curl -H "Authorization: Bearer pmb-v1-alice-key" "http://localhost:9999/api/v2/insert?p=test&c=1.1.1/1.1.1/1.1.1&s=AliceData"
curl -H "Authorization: Bearer pmb-v1-bob-key"   "http://localhost:9999/api/v2/insert?p=test&c=1.1.1/1.1.1/1.1.1&s=BobData"
"#;

#[test]
fn the_users_own_test() {
    let root = Root::without_registry(&Setup::default());
    let folder = root.path().to_str().unwrap().to_owned();
    root.write("sq-test-tenants.json", &TENANTS.replace("$DIR", &folder));
    let listen = format!("{}:9999", root.address);
    let tenants = root.join("sq-test-tenants.json");
    let running = Deployment::up(root, &["--listen", &listen, "--tenants", tenants.to_str().unwrap()]);
    assert_eq!((running.listen.to_string(), running.tenants), (listen.clone(), 2));

    let answers = shell(&SCRIPT.replace("localhost:9999", &listen));
    assert_eq!(answers, "Inserted 9 bytesInserted 7 bytes");
    let cat = |name: &str| shell(&format!("cat {folder}/{name}/test.phext"));
    assert_eq!((cat("alice"), cat("bob")), ("AliceData".to_owned(), "BobData".to_owned()));

    let target = "/api/v2/insert?p=test&c=1.1.1/1.1.1/1.1.1&s=x";
    running.client(None).get(target).problem(401, "missing_key");
    running.client(Some("pmb-v1-wrong-key")).get(target).problem(401, "invalid_key");
    assert_eq!((cat("alice"), cat("bob")), ("AliceData".to_owned(), "BobData".to_owned()));
    running.stop();
}

#[test]
fn what_is_missing_is_made_and_what_is_there_is_used() {
    let running = Deployment::up(Root::without_registry(&Setup::default()), &[]);
    assert_eq!(running.tenants, 2);
    assert_printed_lines_work(&running);
    let rows = keys_of(&running);
    let tenants: Vec<_> =
        rows.iter().map(|row| (row[0].as_str(), row[1].as_str(), row[2].as_str())).collect();
    assert_eq!(
        tenants.iter().filter(|row| row.0 != "(admin)").collect::<Vec<_>>(),
        [&("alice", "1341", "k1"), &("bob", "1342", "k1")]
    );
    let keys = running.read("keys.csv");
    let root = running.stop();

    let again = Deployment::up(root, &[]);
    assert_eq!(curl_lines(&again.printed()), Vec::<String>::new(), "a second key was made");
    assert!(!again.printed().contains("pmb-v1-"), "a key was printed again: {}", again.printed());
    assert_eq!(again.read("keys.csv"), keys);
    for row in rows.iter().filter(|row| row[0] != "(admin)") {
        again.client(Some(&row[3])).get("/api/v2/status?p=test").ok();
    }
    again.stop();
}

/// The one test on the default addresses, because only they show the very first start. Two runs of it wait for each other;
/// where another program has the ports, it is skipped.
#[test]
fn the_very_first_start_makes_a_config_and_an_admin_key() {
    // The lock of a folder that every run has, so that no file is left.
    let turn = File::open(std::env::temp_dir()).unwrap();
    turn.lock().unwrap();
    let wanted = (1337..=1339).chain(1341..=1840);
    if let Some(taken) = wanted.into_iter().find(|port| TcpListener::bind(("127.0.0.1", *port)).is_err()) {
        return skip(&format!("the very first start: port {taken} is taken"));
    }
    let running = Deployment::up(Root::empty(), &[]);
    assert_eq!(running.listen.to_string(), "127.0.0.1:1337");
    assert_printed_lines_work(&running);
    let rows = keys_of(&running);
    let mut tenants: Vec<_> = rows.iter().map(|row| row[0].as_str()).collect();
    tenants.sort_unstable();
    assert_eq!(tenants, ["(admin)", "alice", "bob"]);
    for row in &rows {
        let registry = running.read("tenants.toml") + &running.read("gateway.toml");
        assert!(!registry.contains(&row[3]), "the key of {} is stored", row[0]);
    }
    for name in ["keys.csv", "tenants.toml"] {
        assert_eq!(mode(&running, name), 0o600, "{name}");
    }
    running.stop();
}

/// A new system prints a line for each of its two tenants, to be pasted into a terminal.
fn assert_printed_lines_work(running: &Deployment) {
    let lines = curl_lines(&running.printed());
    assert_eq!(lines.len(), 2, "{}", running.printed());
    for line in &lines {
        assert_eq!(status_of_pasted(line), "200", "{line}");
    }
}

/// The rows of `keys.csv` below its header.
fn keys_of(root: &Root) -> Vec<Vec<String>> {
    assert_eq!(mode(root, "keys.csv"), 0o600);
    let text = root.read("keys.csv");
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("tenant,port,key_id,key"));
    lines.map(|line| line.split(',').map(str::to_owned).collect()).collect()
}

fn mode(root: &Root, name: &str) -> u32 {
    fs::metadata(root.join(name)).unwrap().permissions().mode() & 0o777
}

fn curl_lines(printed: &str) -> Vec<String> {
    printed.lines().map(str::trim).filter(|line| line.starts_with("curl ")).map(str::to_owned).collect()
}

/// Runs a line as it was printed, and gives the status alone.
fn status_of_pasted(line: &str) -> String {
    shell(&line.replacen("curl ", "curl --output /dev/null --write-out '%{http_code}' ", 1))
}

pub(crate) fn shell(script: &str) -> String {
    let quiet = script.replace("curl ", "curl --silent --show-error ");
    process::run(Command::new("sh").args(["-e", "-c", &quiet])).success()
}

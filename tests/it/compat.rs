//! Our worker compared with the real `sq` 0.6.0: the same operations give the same bytes, and each intended
//! difference is asserted on both sides (`differences`).

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use sq_tests::binaries;
use sq_tests::client::percent_encoded;
use sq_tests::peers::{self, Server};
use sq_tests::random::Random;
use tempfile::TempDir;

mod differences;

const KEY: &str = "pmb-v1-compat-key";
const OPERATIONS: usize = 250;

/// The peer and our worker, each on an empty directory.
struct Pair {
    peer: Server,
    ours: Server,
    folder: TempDir,
}

impl Pair {
    /// `None` if there is no peer here.
    fn start(what: &str) -> Option<Self> {
        let program = peers::sq(what)?;
        let folder = tempfile::tempdir().unwrap();
        let data = |name: &str| -> PathBuf {
            let path = folder.path().join(name).join("data");
            fs::create_dir_all(&path).unwrap();
            path
        };
        let peer = Server::peer(&program, &data("peer"), KEY);
        assert_eq!(peer.client.get("/api/v2/version").ok(), "0.6.0", "{} is not the peer", program.display());
        let ours = Server::worker(&data("ours"), KEY);
        Some(Self { peer, ours, folder })
    }

    fn file(&self, side: &str, phext: &str) -> PathBuf {
        self.folder.path().join(side).join("data").join(format!("{phext}.phext"))
    }

    /// Both responses to one request: the peer's, then ours.
    fn ask(&self, operation: &Operation) -> (String, String) {
        let ask = |server: &Server| {
            let answer = match &operation.body {
                Some(body) => server.client.post(&operation.target, body),
                None => server.client.get(&operation.target),
            };
            assert_eq!(answer.status, 200, "{}: {answer}", operation.target);
            answer.text().to_owned()
        };
        (ask(&self.peer), ask(&self.ours))
    }

    fn assert_same(&self, operation: &Operation) {
        let (peer, ours) = self.ask(operation);
        assert_eq!(ours, peer, "{} {:?}", operation.target, operation.body);
    }
}

#[derive(Debug)]
struct Operation {
    target: String,
    body: Option<String>,
}

fn get(target: String) -> Operation {
    Operation { target, body: None }
}

fn post(target: String, body: String) -> Operation {
    Operation { target, body: Some(body) }
}

const PHEXTS: [&str; 2] = ["notes", "a b-\u{e4}.1"];
const WORDS: [&str; 10] = [
    "",
    "hello",
    " two  words ",
    "line\nline\r\n",
    "\u{e4}\u{20ac}",
    "\u{1f506}",
    "a+b%20c&d=e",
    "\"quoted\" \\ /",
    "\t{}[]",
    "0123456789abcdef0123456789",
];

/// Coordinates that collide often, and vary in every dimension.
fn coordinate(random: &mut Random) -> String {
    let parts: Vec<String> = (0..9).map(|_| (1 + random.below(8) / 6).to_string()).collect();
    format!("{}/{}/{}", parts[..3].join("."), parts[3..6].join("."), parts[6..].join("."))
}

fn text(random: &mut Random) -> String {
    let words: Vec<&str> = (0..1 + random.below(3)).map(|_| *random.pick(&WORDS)).collect();
    let text = words.concat();
    // An empty text is a delete, which has its own case.
    if text.is_empty() { "x".to_owned() } else { text }
}

fn operation(random: &mut Random) -> Operation {
    let p = percent_encoded(random.pick(&PHEXTS));
    let c = coordinate(random);
    let at = format!("p={p}&c={c}");
    match random.below(16) {
        0 | 1 => get(format!("/api/v2/insert?{at}&s={}", percent_encoded(text(random)))),
        2 | 3 => post(format!("/api/v2/insert?{at}"), text(random)),
        4 | 5 => get(format!("/api/v2/update?{at}&s={}", percent_encoded(text(random)))),
        6 | 7 => post(format!("/api/v2/update?{at}"), text(random)),
        8 => get(format!("/api/v2/delete?{at}")),
        9 => get(format!("/api/v2/select?{}", at.replace('/', ";"))),
        10 => get(format!("/api/v2/toc?p={p}")),
        11 => get(format!("/api/v2/get?p={p}")),
        12 => get(format!("/api/v2/checksum?p={p}")),
        13 => get(format!("/api/v2/delta?p={p}")),
        14 => query(random, &p),
        _ => post(
            format!(
                "/api/v2/where?algo={}&limit={}",
                random.pick(&["xor", "checksum"]),
                1 + random.below(60)
            ),
            text(random),
        ),
    }
}

fn query(random: &mut Random, p: &str) -> Operation {
    let (first, second) = (coordinate(random), coordinate(random));
    let (from, to) = if first <= second { (first, second) } else { (second, first) };
    let limit = if random.below(2) == 0 { String::new() } else { format!("&limit={}", random.below(5)) };
    match random.below(3) {
        0 => get(format!("/api/v2/query?p={p}&from={from}&to={to}{limit}")),
        1 => get(format!("/api/v2/query?p={p}&set={from},{to}{limit}")),
        _ => post(format!("/api/v2/query?p={p}{limit}"), format!("{from}\n{to}")),
    }
}

fn assert_same_state(pair: &Pair, seed: u64) {
    for phext in PHEXTS {
        let p = percent_encoded(phext);
        for command in ["toc", "get", "checksum"] {
            pair.assert_same(&get(format!("/api/v2/{command}?p={p}")));
        }
        let status = get(format!("/api/v2/status?p={p}"));
        let (peer, ours) = pair.ask(&status);
        let counted = |text: &str| text.lines().skip(2).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(counted(&ours), counted(&peer), "seed {seed}");
        assert_eq!(exported(pair, &pair.ours, &p), exported(pair, &pair.peer, &p), "seed {seed}");
    }
}

/// The peer's export as a map, because its order is that of a hash table. Strings are compared where it is valid
/// JSON, which it is not with a quote or a control character in a scroll.
fn exported(pair: &Pair, server: &Server, p: &str) -> Option<BTreeMap<String, String>> {
    let of = |server: &Server| {
        let answer = server.client.get(&format!("/api/v2/json-export?p={p}"));
        serde_json::from_slice::<Value>(&answer.body).ok()
    };
    of(&pair.peer)?;
    let pairs = of(server)?;
    let text = |value: &Value, name: &str| value[name].as_str().unwrap().to_owned();
    Some(pairs.as_array()?.iter().map(|pair| (text(pair, "coord"), text(pair, "scroll"))).collect())
}

#[test]
fn the_same_operations_give_the_same_bytes() {
    for seed in 1..=4 {
        let Some(pair) = Pair::start("the same operations on our worker and on sq") else { return };
        let mut random = Random::new(seed);
        for _ in 0..OPERATIONS {
            pair.assert_same(&operation(&mut random));
        }
        assert_same_state(&pair, seed);
        for phext in PHEXTS.map(percent_encoded) {
            let manifest = manifest_of(&pair, &phext);
            pair.assert_same(&post(format!("/api/v2/delta?p={phext}"), manifest));
        }
    }
}

/// Lines `<coordinate>: <checksum>` for a delta: some match, some do not, one is of a missing scroll.
fn manifest_of(pair: &Pair, p: &str) -> String {
    let toc = pair.peer.client.get(&format!("/api/v2/toc?p={p}"));
    let coordinates =
        toc.text().lines().filter_map(|line| line.strip_prefix("* ")?.split_once(": ")).map(|(at, _)| at);
    let is_coordinate = |at: &&str| at.split(['.', '/']).count() == 9;
    let mut lines = Vec::new();
    for (index, at) in coordinates.filter(is_coordinate).enumerate() {
        let scroll = pair.peer.client.get(&format!("/api/v2/select?p={p}&c={at}"));
        let checksum = libphext::phext::checksum(scroll.text());
        lines.push(format!(
            "{at}: {}",
            if index % 2 == 0 { &checksum } else { "00000000000000000000000000000000" }
        ));
    }
    lines.join("\n")
}

#[test]
fn each_reads_the_files_of_the_other() {
    let Some(pair) = Pair::start("files that sq and our worker exchange") else { return };
    let mut random = Random::new(99);
    for number in 0..20 {
        let c = coordinate(&mut random);
        let body = format!("{number}: {}", text(&mut random));
        pair.assert_same(&post(format!("/api/v2/update?p=notes&c={c}"), body));
    }
    let written = |side: &str| fs::read(pair.file(side, "notes")).unwrap();
    assert_eq!(String::from_utf8(written("ours")), String::from_utf8(written("peer")));
    fs::copy(pair.file("ours", "notes"), pair.file("peer", "swapped")).unwrap();
    fs::copy(pair.file("peer", "notes"), pair.file("ours", "swapped")).unwrap();
    for command in ["toc", "get", "checksum"] {
        pair.assert_same(&get(format!("/api/v2/{command}?p=swapped")));
    }
}

#[test]
fn plus_and_percent_are_decoded_as_in_sq() {
    let Some(pair) = Pair::start("how sq decodes a query") else { return };
    for written in
        ["a+b", "a%2Bb", "a%20b", "%41", "%e2%82%ac", "100%", "%zz", "%4", "a=b", "?a", "a;b", "%26%3d"]
    {
        pair.assert_same(&get(format!("/api/v2/update?p=notes&c=1.1.1/1.1.1/1.1.1&s={written}")));
        pair.assert_same(&get("/api/v2/select?p=notes&c=1.1.1/1.1.1/1.1.1".to_owned()));
    }
}

#[test]
fn our_worker_refuses_to_start_without_a_key() {
    let folder = tempfile::tempdir().unwrap();
    let listen = sq_tests::address::at(sq_tests::address::unused(), 1341).to_string();
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(binaries::worker());
        command.args(["serve", "--data-dir"]).arg(folder.path()).args(arguments);
        for variable in ["SQ_KEY", "SQ_PORT", "SQ_DATA_DIR", "SQ_TENANT"] {
            command.env_remove(variable);
        }
        sq_tests::process::run(&mut command)
    };
    let without = run(&["--listen", &listen]);
    assert!(!without.status.success() && without.stderr.contains("key"), "{without:?}");
    let remote = run(&["--listen", "0.0.0.0:0", "--no-auth"]);
    assert!(!remote.status.success() && remote.stderr.contains("--no-auth"), "{remote:?}");
}

//! The worker alone beside `sq host`: what a tenant of each is served, without a proxy.

use std::process::Command;

use sq_tests::peers::{self, Server};
use sq_tests::process;

use super::fleet::{SHORT, SHORT_BYTES};
use super::measure::{Expected, Sent, Subject, in_turn};
use super::options::Options;
use super::report;
use super::script::Script;

const CONNECTIONS: u32 = 32;

/// The key of both.
const KEY: &str = "pmb-v1-the-benchs-key";

/// Measures selects with connections that are kept, and with a new one each time. `sq` keeps none.
pub(crate) fn run(options: &Options) {
    let root = sq_tests::root::Root::empty();
    let folder = |name: &str| {
        let folder = root.join(name);
        std::fs::create_dir_all(&folder).expect("a folder for its data");
        folder
    };
    let worker = Server::worker(&folder("ours"), KEY);
    let peer = peers::sq_if_any().map(|program| Server::peer(&program, &folder("theirs"), KEY));
    let servers = [("sq host", peer.as_ref()), ("sq-worker", Some(&worker))];
    let servers: Vec<(&'static str, &Server)> =
        servers.into_iter().filter_map(|(name, server)| Some((name, server?))).collect();
    for (_, server) in &servers {
        let mut pin = Command::new("taskset");
        process::run(pin.args(["--all-tasks", "--cpu-list", "--pid", "0", &server.pid().to_string()]))
            .success();
        let text = "x".repeat(SHORT_BYTES);
        assert_eq!(server.client.get(&format!("/api/v2/update?{SHORT}&s={text}")).status, 200);
    }
    let kept =
        Script { keys: vec![KEY.to_owned()], ..Script::get("kept", &format!("/api/v2/select?{SHORT}"), &[]) };
    let closed =
        Script { name: "closed".to_owned(), fields: ", [\"Connection\"] = \"close\"", ..kept.clone() };
    for (title, script) in [("connections kept", kept), ("a new connection each time", closed)] {
        let script = script.write(&root);
        let subject = |(name, server): &(&'static str, &Server)| Subject {
            name,
            pid: server.pid(),
            address: server.client.address,
            script: &script,
        };
        let subjects: Vec<Subject<'_>> = servers.iter().map(subject).collect();
        let figures = in_turn(
            options,
            &subjects,
            Sent {
                connections: CONNECTIONS,
                answer: Expected { status: 200, body_bytes: Some(SHORT_BYTES) },
            },
        );
        report::table(
            &format!("the worker alone, select of 40 bytes, {CONNECTIONS} connections, {title}"),
            &figures,
        );
    }
}

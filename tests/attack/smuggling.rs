//! Request smuggling: hundreds of messages that two servers in a row might cut in two ways, each with a request
//! hidden in it that the client did not frame. No worker may see one, alone or behind nginx.

mod chunks;
mod hop_by_hop;
mod http2;
mod lengths;
mod line_endings;
mod names;
mod pipelining;
mod targets;
mod transfer_encoding;
mod variant;

use std::collections::BTreeMap;

use serde_json::Value;
use sq_tests::client::{Client, Connection};
use sq_tests::deployment::Deployment;
use sq_tests::nginx::{self, Nginx};
use sq_tests::notice::say;
use sq_tests::root::Root;
use sq_tests::setup::{Setup, key_of};
use sq_tests::wait;

use variant::{Places, Variant, Verdict, post};

/// What the workers log of each head that comes, before they look at it.
const SEEN: &str = "sq_worker::server::request";
const LOG_FILTER: &str = "info,access=off,sq_worker::server::request=debug";

/// How many variants there are at least.
const AT_LEAST: usize = 150;

/// What both tenants have, and what is asked for after each variant.
const OWN: &str = "/api/v2/select?p=own&c=1.1.1/1.1.1/1.1.1";

/// All variants, with the names of their groups.
fn variants() -> Vec<(&'static str, Variant)> {
    let spelled: Vec<Variant> = transfer_encoding::VALUES.iter().flat_map(|value| spellings(value)).collect();
    let sized: Vec<Variant> = chunks::SIZES.iter().map(|size| sized(size)).collect();
    [
        ("lengths", lengths::VARIANTS),
        ("names", names::VARIANTS),
        ("line endings", line_endings::VARIANTS),
        ("Transfer-Encoding", transfer_encoding::VARIANTS),
        ("Transfer-Encoding", &spelled),
        ("chunks", chunks::VARIANTS),
        ("chunk sizes", &sized),
        ("targets", targets::VARIANTS),
        ("hop by hop", hop_by_hop::VARIANTS),
        ("pipelining", pipelining::VARIANTS),
    ]
    .into_iter()
    .flat_map(|(group, variants)| variants.iter().map(move |variant| (group, *variant)))
    .collect()
}

/// A value that is not `chunked`, with a length that makes the hidden request a body, and without.
fn spellings(value: &'static str) -> [Variant; 2] {
    let text = |rest: &str| &*format!("Transfer-Encoding: {value}\r\n{rest}").leak();
    [
        post(value, text("Content-Length: {n+5}\r\n\r\n0\r\n\r\n{H}")),
        post(value, text("\r\n{x}\r\n{H}\r\n0\r\n\r\n")),
    ]
}

/// A line that is no size, before the hidden request.
fn sized(size: &'static str) -> Variant {
    post(size, format!("Transfer-Encoding: chunked\r\n\r\n{size}\r\n{{H}}\r\n0\r\n\r\n").leak())
}

/// A system in which each tenant has a scroll of its own.
fn deployment() -> Deployment {
    let root = Root::new(&Setup::default());
    let folder = root.path().to_str().expect("a path of UTF-8").to_owned();
    let mut command = root.gateway_command(&["--log-format", "json", "up", "--root", &folder]);
    command.env("RUST_LOG", LOG_FILTER);
    let running = Deployment::spawn(root, &mut command);
    for tenant in ["alice", "bob"] {
        running.client_of(tenant).post(&OWN.replace("select", "update"), tenant).ok();
    }
    running
}

/// A UUID that says which request it is of.
fn id(variant: usize, which: usize) -> String {
    format!("00000000-0000-7000-8{which:03}-{variant:012}")
}

const OUTER: usize = 0;
const SECOND: usize = 1;
const HIDDEN: usize = 2;

/// A GET that would write, and whose traces cannot be overlooked.
fn request(target: &str, key: &str, id: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: sq\r\nAuthorization: Bearer {key}\r\nX-Request-Id: {id}\r\n\r\n")
}

fn places(number: usize, client: &Client, hidden_of: &str) -> Places {
    let at = |command: &str| format!("/api/v2/{command}?p=outer&c=1.1.1/1.1.1/1.1.{}", number + 1);
    let hidden = format!("/api/v2/insert?p=hidden&c=1.1.1/1.1.1/1.1.{}&s=marker", number + 1);
    Places {
        target: at("update"),
        read: at("select"),
        host: client.address.to_string(),
        key: key_of("alice"),
        id: id(number, OUTER),
        bob: key_of("bob"),
        hidden: request(&hidden, &key_of(hidden_of), &id(number, HIDDEN)),
        second: request(&at("select"), &key_of("alice"), &id(number, SECOND)),
    }
}

/// The statuses of all final answers on one connection. It is kept open until the first has come: a client that
/// has hung up is not served.
fn statuses(client: &Client, variant: &Variant, bytes: &[u8]) -> Vec<u16> {
    let head = bytes.strip_prefix(b"\r\n").unwrap_or(bytes).starts_with(b"HEAD ");
    let mut connection = client.connect();
    connection.send(bytes);
    let mut statuses = Vec::new();
    loop {
        let method = if head && statuses.is_empty() { "HEAD" } else { "GET" };
        match connection.try_answer(method) {
            Ok(answer) if answer.status < 200 => {}
            Ok(answer) => {
                statuses.push(answer.status);
                connection.finish_sending();
            }
            Err(_) => break,
        }
    }
    statuses.extend(headless(&connection));
    assert!(!statuses.is_empty(), "{variant:?}: no answer, but {:?}", connection.unparsed());
    statuses
}

/// nginx answers HTTP/0.9 as that protocol has it: with a body alone.
fn headless(connection: &Connection) -> Option<u16> {
    let problem: Value = serde_json::from_slice(connection.unparsed()).ok()?;
    problem.get("status")?.as_u64()?.try_into().ok()
}

/// Tenants whose requests come after each variant on connections that are kept, from one variant to the next.
struct Victims {
    all: Vec<(&'static str, Client, Connection)>,
}

impl Victims {
    fn new(client: impl Fn(&str) -> Client) -> Self {
        let all = ["alice", "bob"].into_iter().map(|tenant| {
            let client = client(tenant);
            let connection = client.connect();
            (tenant, client, connection)
        });
        Self { all: all.collect() }
    }

    /// Each must get the answer to its own question.
    fn ask(&mut self, after: &str) {
        for (tenant, client, connection) in &mut self.all {
            connection.send((client.head("GET", OWN) + "\r\n").as_bytes());
            let answer = connection.try_answer("GET");
            let answer =
                answer.unwrap_or_else(|error| panic!("{tenant} got no answer after {after}: {error}"));
            assert_eq!(answer.ok(), *tenant, "another's answer came after {after}");
        }
    }
}

/// How the variants of a set-up ended.
#[derive(Default)]
struct Tally {
    refused: usize,
    served: usize,
    /// By request id: how often a worker may see it at most, and at least.
    expected: BTreeMap<String, (usize, usize)>,
}

/// Sends all variants, each with a request of alice and with one of bob hidden in it.
fn run(running: &Deployment, client: &Client, mut victims: Victims, is_alone: bool) -> Tally {
    let mut tally = Tally::default();
    let variants = variants();
    assert!(variants.len() >= AT_LEAST, "{} variants", variants.len());
    let mut wrong = Vec::new();
    for (round, hidden_of) in ["alice", "bob"].into_iter().enumerate() {
        for (index, (group, variant)) in variants.iter().enumerate() {
            let number = round * variants.len() + index;
            let places = places(number, client, hidden_of);
            let what = format!("{group}: {:?}, {hidden_of}'s hidden", variant.name);
            let statuses = statuses(client, variant, &variant.bytes(&places));
            let is_served = (200..300).contains(&statuses[0]);
            if let Err(why) = judge(running, variant, &places, &statuses, is_alone) {
                wrong.push(format!("{what}: {statuses:?}: {why}"));
            }
            if is_served {
                tally.served += 1
            } else {
                tally.refused += 1
            }
            let reaches_a_worker =
                is_served && !variant.text.starts_with("OPTIONS") && !variant.text.contains("/health");
            tally.expected.insert(id(number, OUTER), (usize::from(reaches_a_worker), 1));
            tally.expected.insert(id(number, SECOND), (0, variant.framed - 1));
            victims.ask(&what);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    tally
}

/// What is wrong about a variant's answers, if something is.
fn judge(
    running: &Deployment,
    variant: &Variant,
    places: &Places,
    statuses: &[u16],
    is_alone: bool,
) -> Result<(), String> {
    let framed = if is_alone { 1 } else { variant.framed };
    // Several refusals are as good as one: what follows a head that was ended early is refused as well.
    let is_refused = statuses.iter().all(|status| (400..500).contains(status));
    if statuses.len() > framed && !is_refused {
        return Err(format!("{framed} answers were due"));
    }
    if statuses.iter().any(|status| !(200..300).contains(status) && !(400..500).contains(status)) {
        return Err("neither 2xx nor 4xx".to_owned());
    }
    let is_served = (200..300).contains(&statuses[0]);
    let should_serve = variant.verdict != Verdict::Refused;
    if is_alone && is_served != should_serve {
        return Err(format!("{:?} was due", variant.verdict));
    }
    let Verdict::Writes(body) = variant.verdict else { return Ok(()) };
    let (written, due) = (running.client_of("alice").get(&places.read), places.fill(body));
    let is_as_due = !is_served || written.ok() == due;
    if is_as_due { Ok(()) } else { Err(format!("wrote {:?}", written.text())) }
}

/// The workers' own count: by request id, how many heads came.
fn seen_by_workers(running: &Deployment) -> BTreeMap<String, usize> {
    let mut seen = BTreeMap::new();
    let log = running.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    for line in lines.filter(|line| line.get("target").and_then(Value::as_str) == Some(SEEN)) {
        let id = line.get("request_id").and_then(Value::as_str).expect("an id in each line").to_owned();
        *seen.entry(id).or_default() += 1;
    }
    seen
}

/// Checks what the workers saw, and what is stored.
fn assert_nothing_was_smuggled(running: &Deployment, tally: &Tally) {
    // The last answer may be on its way before the line of its request is.
    let wanted = |seen: &BTreeMap<String, usize>| {
        let is_due =
            |(id, (least, _)): (&String, &(usize, usize))| seen.get(id).copied().unwrap_or(0) >= *least;
        tally.expected.iter().all(is_due)
    };
    let seen =
        wait::until_some("the workers' lines", || Some(seen_by_workers(running)).filter(|seen| wanted(seen)));
    let of_variants = seen.iter().filter(|(id, _)| id.starts_with("00000000-0000-7000-8"));
    let too_many: Vec<String> = of_variants
        .filter(|(id, count)| tally.expected.get(*id).is_none_or(|(_, most)| *count > most))
        .map(|(id, count)| format!("{id}: {count}"))
        .collect();
    assert!(too_many.is_empty(), "workers saw what no client framed: {too_many:?}");
    let least: usize = tally.expected.values().map(|(least, _)| least).sum();
    let counted = seen.keys().filter(|id| tally.expected.contains_key(*id)).count();
    say(&format!(
        "  workers saw {counted} of the variants' requests, at least {least} were due, none was hidden"
    ));
    let hidden: Vec<_> =
        running.stored().into_keys().filter(|path| path.to_string_lossy().contains("hidden")).collect();
    assert!(hidden.is_empty(), "a hidden request was served: {hidden:?}");
    assert_the_trap_is_live(running);
}

/// Sent honestly, the same hidden requests are seen, counted and served: what was not there before could have been.
fn assert_the_trap_is_live(running: &Deployment) {
    for (number, tenant) in [(999_998, "alice"), (999_999, "bob")] {
        let client = running.client_of(tenant);
        let mut places = places(0, &client, tenant);
        places.hidden = places.hidden.replace(&id(0, HIDDEN), &id(number, HIDDEN));
        client.raw(places.hidden).ok();
        wait::until("the line of an honest request", || {
            seen_by_workers(running).contains_key(&id(number, HIDDEN))
        });
        let stored =
            running.stored().into_keys().any(|path| path.ends_with(format!("{tenant}/hidden.phext")));
        let journal =
            running.stored().into_keys().any(|path| path.ends_with(format!("{tenant}/hidden.journal")));
        assert!(stored || journal, "an honest request stored nothing");
    }
}

fn report(set_up: &str, tally: &Tally) {
    let count = variants().len();
    let (refused, served) = (tally.refused, tally.served);
    say(&format!(
        "smuggling {set_up}: {count} variants, sent twice: {refused} refused, {served} served as one"
    ));
}

#[test]
fn nothing_is_smuggled_past_the_gateway() {
    let running = deployment();
    let client = running.client_of("alice");
    let victims = Victims::new(|tenant| running.client_of(tenant));
    let tally = run(&running, &client, victims, true);
    report("at the gateway alone", &tally);
    assert_nothing_was_smuggled(&running, &tally);
}

#[test]
fn nothing_is_smuggled_past_nginx_and_the_gateway() {
    if !nginx::works("smuggling behind nginx") {
        return;
    }
    let running = deployment();
    let nginx = Nginx::start(running.listen, running.address, running.path());
    let client = nginx.client(Some(&key_of("alice")));
    let victims = Victims::new(|tenant| nginx.client(Some(&key_of(tenant))));
    let tally = run(&running, &client, victims, false);
    report("behind nginx", &tally);
    assert_nothing_was_smuggled(&running, &tally);
    assert!(!running.log().contains("marker"), "a query was logged");
}

#[test]
fn nothing_is_smuggled_in_http2() {
    if !nginx::works("smuggling in HTTP/2") {
        return;
    }
    let running = deployment();
    let nginx = Nginx::start(running.listen, running.address, running.path());
    let client = nginx.client(Some(&key_of("alice")));
    let mut victims = Victims::new(|tenant| nginx.client(Some(&key_of(tenant))));
    let mut tally = Tally::default();
    for (round, hidden_of) in ["alice", "bob"].into_iter().enumerate() {
        for (index, variant) in http2::VARIANTS.iter().enumerate() {
            let number = round * http2::VARIANTS.len() + index;
            let status = http2::status(nginx.http2(), variant, &places(number, &client, hidden_of));
            let is_served = status.is_some_and(|status| (200..300).contains(&status));
            let is_refused = status.is_none_or(|status| (400..500).contains(&status));
            assert!(is_served || is_refused, "{}: {status:?}", variant.name);
            assert!(is_served || !variant.name.starts_with("honest"), "{}: {status:?}", variant.name);
            if is_served {
                tally.served += 1
            } else {
                tally.refused += 1
            }
            tally.expected.insert(id(number, OUTER), (usize::from(is_served), 1));
            victims.ask(variant.name);
        }
    }
    let (count, refused, served) = (http2::VARIANTS.len(), tally.refused, tally.served);
    say(&format!(
        "smuggling in HTTP/2: {count} variants, sent twice: {refused} refused, {served} served as one"
    ));
    assert_nothing_was_smuggled(&running, &tally);
}

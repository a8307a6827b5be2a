//! Each job, by all proxies.

use super::fleet::{Fleet, LONG, LONG_BYTES, SHORT, SHORT_BYTES, TENANTS};
use super::measure::{Expected, Sent, Subject, in_turn};
use super::options::Options;
use super::proxy::{Kind, Proxy, Rate, Site};
use super::report;
use super::script::Script;

/// A job, and who can do it.
struct Job {
    title: &'static str,
    connections: u32,
    script: Script,
    rate: Rate,
    answer: Expected,
    /// Whether the router is asked too: it serves one connection at a time, until the worker closes it, and so can only be
    /// asked on a new one each time.
    with_router: bool,
}

/// Measures every job that is asked for.
pub(crate) fn run(options: &Options, kinds: &[Kind]) {
    let fleet = Fleet::start(options);
    let jobs = jobs(&fleet);
    for rate in [Rate::Never, Rate::OneAMinute] {
        let jobs: Vec<&Job> =
            jobs.iter().filter(|job| job.rate == rate && options.wants_job(job.title)).collect();
        if jobs.is_empty() {
            continue;
        }
        let site = Site { fleet: &fleet, tenants: &fleet.tenants, rate };
        let able = kinds.iter().filter(|kind| rate == Rate::Never || kind.has_rates());
        let proxies: Vec<Proxy> = able.map(|kind| kind.start(&site)).collect();
        for job in jobs {
            measure(options, &fleet, &proxies, job);
        }
    }
}

fn measure(options: &Options, fleet: &Fleet, proxies: &[Proxy], job: &Job) {
    let script = job.script.clone().write(&fleet.root);
    let subjects: Vec<Subject<'_>> = proxies
        .iter()
        .filter(|proxy| job.with_router || proxy.kind != Kind::SqRoute)
        .map(|proxy| Subject {
            name: proxy.kind.name(),
            pid: proxy.pid(),
            address: proxy.address,
            script: &script,
        })
        .collect();
    let sent = Sent { connections: job.connections, answer: job.answer };
    report::table(job.title, &in_turn(options, &subjects, sent));
}

fn jobs(fleet: &Fleet) -> Vec<Job> {
    let one = fleet.tenants.get(..1).unwrap_or_default();
    let select = format!("/api/v2/select?{SHORT}");
    let read = |name: &'static str, connections| Job {
        title: name,
        connections,
        script: Script::get(name, &select, one),
        rate: Rate::Never,
        answer: Expected { status: 200, body_bytes: Some(SHORT_BYTES) },
        with_router: false,
    };
    let write = |name: &'static str, connections, body_bytes| Job {
        script: Script {
            method: "POST",
            target: "/api/v2/update?p=written&c=1.1.1/1.1.1/1.1.1".to_owned(),
            body_bytes,
            ..Script::get(name, "", one)
        },
        answer: Expected { status: 200, body_bytes: None },
        ..read(name, connections)
    };
    let refusal = |status| Expected { status, body_bytes: None };
    let fleet_of = |name: &'static str, connections| Job {
        script: Script::get(name, &select, &fleet.tenants),
        ..read(name, connections)
    };
    let unknown =
        Script { keys: vec!["pmb-v1-nobodys-key".to_owned()], ..Script::get("a 401", &select, one) };
    let closing = Script { fields: ", [\"Connection\"] = \"close\"", ..Script::get("close", &select, one) };
    assert_eq!((LONG_BYTES, TENANTS), (1 << 20, 500), "the titles say so");
    vec![
        read("select of 40 bytes, 1 connection", 1),
        read("select of 40 bytes, 32 connections", 32),
        read("select of 40 bytes, 256 connections", 256),
        Job {
            script: closing,
            with_router: true,
            ..read("select of 40 bytes, 32 connections, a new one each time", 32)
        },
        write("update of 1 KiB, 32 connections", 32, 1024),
        write("update of 1 MiB, 8 connections", 8, 1 << 20),
        Job {
            script: Script::get("long", &format!("/api/v2/select?{LONG}"), one),
            answer: Expected { status: 200, body_bytes: Some(LONG_BYTES) },
            ..read("select of 1 MiB, 8 connections", 8)
        },
        Job { script: unknown, answer: refusal(401), ..read("a 401, 32 connections", 32) },
        Job { rate: Rate::OneAMinute, answer: refusal(429), ..read("a 429, 32 connections", 32) },
        fleet_of("select of 40 bytes, 500 tenants at once, 256 connections", 256),
    ]
}

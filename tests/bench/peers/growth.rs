//! What a request costs as a host grows: more tenants that are registered, more that are asked, and more client
//! addresses that a limiter remembers.

use std::path::Path;
use std::time::Duration;

use super::fleet::{Fleet, SHORT, SHORT_BYTES};
use super::load::Load;
use super::measure::{Expected, Sent, Subject, in_turn};
use super::options::Options;
use super::proxy::{Kind, Proxy, Rate, Site};
use super::report;
use super::script::{Script, Written};

/// How many tenants are registered.
const TENANTS: [usize; 3] = [1, 50, 500];

/// From how many addresses those who ask are drawn. nginx has room for all of them; the gateway gives a place of its
/// own to each of 100,000, and the others share 1,024.
const ADDRESSES: [u32; 2] = [1_000, 1_000_000];

const CONNECTIONS: u32 = 32;

/// Measures every growth.
pub(crate) fn run(options: &Options, kinds: &[Kind]) {
    let fleet = Fleet::start(options);
    let select = format!("/api/v2/select?{SHORT}");
    for kind in kinds.iter().filter(|kind| matches!(kind, Kind::Nginx | Kind::Gateway)) {
        tenants(options, &fleet, *kind, &select, For::One);
        tenants(options, &fleet, *kind, &select, For::All);
        addresses(options, &fleet, *kind, &select);
    }
}

/// A proxy with what it is asked.
struct Asked {
    name: String,
    proxy: Proxy,
    script: Written,
}

/// Whom of the tenants the requests are for.
#[derive(Clone, Copy)]
enum For {
    /// The first: what grows is what the proxy knows.
    One,
    /// All, in turn: the workers grow in number too, and take turns on their processor.
    All,
}

fn tenants(options: &Options, fleet: &Fleet, kind: Kind, select: &str, whom: For) {
    let ask = |count: &usize| {
        let tenants = fleet.tenants.get(..*count).unwrap_or_default();
        let (name, asked) = match whom {
            For::One => (format!("1 of {count} tenants"), tenants.get(..1).unwrap_or_default()),
            For::All => (format!("{count} tenants"), tenants),
        };
        let script = Script::get(&name, select, asked).write(&fleet.root);
        Asked { name, proxy: kind.start(&Site { fleet, tenants, rate: Rate::Never }), script }
    };
    let asked: Vec<Asked> = TENANTS.iter().map(ask).collect();
    let what = match whom {
        For::One => "more tenants are registered, one is asked",
        For::All => "more tenants, all are asked in turn",
    };
    print(options, &format!("{}: {what}", kind.name()), &asked);
}

fn addresses(options: &Options, fleet: &Fleet, kind: Kind, select: &str) {
    let ask = |count: &u32| {
        let name = format!("{count} addresses");
        let one = fleet.tenants.get(..1).unwrap_or_default();
        let script = Script { addresses: *count, ..Script::get(&name, select, one) }.write(&fleet.root);
        let proxy = kind.start(&Site { fleet, tenants: &fleet.tenants, rate: Rate::RememberedForAMinute });
        fill(&proxy, &script.file, *count);
        Asked { name, proxy, script }
    };
    let asked: Vec<Asked> = ADDRESSES.iter().map(ask).collect();
    print(options, &format!("{}: more addresses", kind.name()), &asked);
}

fn print(options: &Options, what: &str, asked: &[Asked]) {
    let subjects: Vec<Subject<'_>> = asked
        .iter()
        .map(|Asked { name, proxy, script }| Subject {
            name,
            pid: proxy.pid(),
            address: proxy.address,
            script,
        })
        .collect();
    let answer = Expected { status: 200, body_bytes: Some(SHORT_BYTES) };
    let figures = in_turn(options, &subjects, Sent { connections: CONNECTIONS, answer });
    report::table(&format!("{what}, select of 40 bytes, {CONNECTIONS} connections"), &figures);
}

/// How many requests come before the measurement: of a million addresses, four in ten have come then. More would use
/// up what those that share a place may ask.
const FILLING: u32 = 500_000;

fn fill(proxy: &Proxy, script: &Path, count: u32) {
    let mut came = 0;
    while came < u64::from(count.min(FILLING)) {
        let time = Duration::from_secs(5);
        came += Load { address: proxy.address, script, connections: CONNECTIONS, time }.run().requests;
    }
}

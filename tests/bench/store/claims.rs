//! What we say of the store, and whether this run bears it out.

use super::corpus::{JUST_JOURNALLED_BYTES, megabytes};
use super::latency::Latencies;
use super::memory::Memory;
use super::options::Options;
use super::subject::{Command, Side};
use super::table::{Table, nothing, times};
use super::writers::{Rate, WRITERS};

/// How many times faster than the peer an update of the largest phext is, at least.
const UPDATE_FASTER: f64 = 100.0;

/// How many times as long an update of the largest phext takes as one of the smallest that is journalled, at most.
const UPDATE_GROWTH: f64 = 1.5;

/// How many times as long a select takes as the peer's, or as one of a smaller phext, at most.
const SELECT: f64 = 1.2;

/// How many updates a second the writers reach, unless the disk's limit is lower.
const UPDATES_PER_SECOND: f64 = 5000.0;

/// How many times its size a phext takes in memory, at most.
const MEMORY: f64 = 1.5;

/// A claim and its figure; `None` when this run has not measured it.
#[derive(Debug)]
pub(crate) struct Claim {
    text: String,
    figure: Option<String>,
    is_met: bool,
}

impl Claim {
    fn at_most(text: String, figure: Option<f64>, limit: f64) -> Self {
        Self { text, figure: figure.map(times), is_met: figure.is_some_and(|figure| figure <= limit) }
    }
}

/// All claims.
pub(crate) fn of(
    options: &Options,
    latencies: &Latencies,
    memories: &[Memory],
    rates: &[Rate],
) -> Vec<Claim> {
    let mut claims = Vec::from(of_updates(options, latencies, rates));
    claims.extend(of_selects(options, latencies));
    claims.extend(rates.iter().map(of_rate));
    claims.extend(of_memory(options, memories));
    claims
}

fn of_updates(options: &Options, latencies: &Latencies, rates: &[Rate]) -> [Claim; 2] {
    let largest = megabytes(options.largest());
    let ours = latencies.p50_ms(Command::Update, options.largest(), Side::Ours);
    let theirs = latencies.p50_ms(Command::Update, options.largest(), Side::Theirs);
    let journalled = latencies.p50_ms(Command::Update, JUST_JOURNALLED_BYTES, Side::Ours);
    let faster = quotient(theirs, ours);
    // The first phext of the writers is journalled, as the largest is.
    let possible = quotient(theirs, rates.first().map(Rate::disk_floor_ms)).map_or_else(nothing, times);
    [
        Claim {
            text: format!(
                "update at {largest}: sq's p50 is at least {UPDATE_FASTER} times ours (one fdatasync: {possible})"
            ),
            figure: faster.map(times),
            is_met: faster.is_some_and(|faster| faster >= UPDATE_FASTER),
        },
        Claim::at_most(
            format!(
                "update at {largest}: our p50 is at most {UPDATE_GROWTH} times ours at {}",
                megabytes(JUST_JOURNALLED_BYTES)
            ),
            quotient(ours, journalled),
            UPDATE_GROWTH,
        ),
    ]
}

fn of_selects(options: &Options, latencies: &Latencies) -> Vec<Claim> {
    let p50 = |bytes: usize, side| latencies.p50_ms(Command::Select, bytes, side);
    let compared = options.sizes.iter().filter(|bytes| **bytes != JUST_JOURNALLED_BYTES);
    let beside = compared.map(|bytes| {
        Claim::at_most(
            format!("select at {}: our p50 is at most {SELECT} times sq's", megabytes(*bytes)),
            quotient(p50(*bytes, Side::Ours), p50(*bytes, Side::Theirs)),
            SELECT,
        )
    });
    let ours = options.sizes.iter().filter_map(|bytes| p50(*bytes, Side::Ours));
    let (least, most) = (ours.clone().min_by(f64::total_cmp), ours.max_by(f64::total_cmp));
    let spread = format!("select: our p50 at the slowest size is at most {SELECT} times that at the fastest");
    beside.chain([Claim::at_most(spread, quotient(most, least), SELECT)]).collect()
}

fn of_rate(rate: &Rate) -> Claim {
    Claim {
        text: format!(
            "{WRITERS} writers, {} phext: at least {UPDATES_PER_SECOND} updates/s, or the disk's {:.0}",
            rate.phext,
            rate.disk_limit_per_second()
        ),
        figure: Some(format!("{:.0}/s", rate.updates_per_second)),
        is_met: rate.updates_per_second >= UPDATES_PER_SECOND.min(rate.disk_limit_per_second()),
    }
}

fn of_memory(options: &Options, memories: &[Memory]) -> Vec<Claim> {
    let is_meant = |memory: &&Memory| memory.side == Side::Ours && memory.bytes == options.largest();
    let claims = |memory: &Memory| {
        let scrolls = if memory.is_short { "short scrolls" } else { "scrolls of 1 KB" };
        let text = |when: &str| {
            format!(
                "memory at {}, {scrolls}: {when} at most {MEMORY} times the size",
                megabytes(memory.bytes)
            )
        };
        [
            Claim::at_most(text("after use"), Some(memory.resident), MEMORY),
            Claim::at_most(text("at its peak"), Some(memory.peak), MEMORY),
        ]
    };
    memories.iter().filter(is_meant).flat_map(claims).collect()
}

fn quotient(dividend: Option<f64>, divisor: Option<f64>) -> Option<f64> {
    Some(dividend? / divisor?)
}

/// Prints them with their figures.
pub(crate) fn print(claims: &[Claim]) {
    let mut table = Table::new(&["claim", "figure", ""]);
    for claim in claims {
        let verdict = match (&claim.figure, claim.is_met) {
            (None, _) => "not measured",
            (_, true) => "met",
            (_, false) => "NOT met",
        };
        let figure = claim.figure.clone().unwrap_or_else(nothing);
        table.row(vec![claim.text.clone(), figure, verdict.to_owned()]);
    }
    table.print("Claims.");
}

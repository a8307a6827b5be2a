//! How a request stands with a rate, which is GCRA by `governor` whose burst is the whole count, and the fields that
//! say so to the client.

use std::time::Duration;

use governor::clock::QuantaInstant;
use governor::middleware::StateSnapshot;
use governor::{NotUntil, Quota};
use sq_shared::config::units::Rate;

/// How a request stands with one rate, after it was charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The rate.
    pub rate: Rate,
    /// Requests that would pass now.
    pub remaining: u32,
    /// Whole seconds: until the full count is there again, or, when nothing remains, until one request passes.
    pub reset_s: u64,
}

impl Standing {
    pub(super) fn allowed(rate: Rate, snapshot: &StateSnapshot) -> Self {
        let remaining = snapshot.remaining_burst_capacity();
        let missing = if remaining == 0 { 1 } else { rate.count.get().saturating_sub(remaining) };
        let reset = rate.period.mul_f64(f64::from(missing) / f64::from(rate.count.get()));
        Self { rate, remaining, reset_s: whole_seconds(reset) }
    }

    pub(super) fn refused(rate: Rate, not_until: &NotUntil<QuantaInstant>, now: QuantaInstant) -> Self {
        Self { rate, remaining: 0, reset_s: whole_seconds(not_until.wait_time_from(now)).max(1) }
    }
}

/// Rounded up: who waits that long has waited enough.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// All of a rate's requests at once, then one each part of its period.
pub(super) fn quota(rate: Rate) -> Quota {
    let one = Quota::with_period(rate.period / rate.count.get()).unwrap_or(Quota::per_minute(rate.count));
    one.allow_burst(rate.count)
}

/// Room for both policies with usual numbers.
const FIELD_BYTES: usize = 64;

/// `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-11, sections 3 and 4): `q` requests in
/// `w` seconds; `r` remain, `t` seconds until the count is full again, or, when none remains, until one more
/// passes. A refusal's `Retry-After` is the `t` of the rate that refused, and so not earlier (section 6).
pub fn rate_limit_fields(standings: &[(&str, Option<Standing>)]) -> Option<(String, String)> {
    let mut policy = String::with_capacity(FIELD_BYTES);
    let mut state = String::with_capacity(FIELD_BYTES);
    for (name, standing) in standings.iter().filter_map(|(name, standing)| Some((name, (*standing)?))) {
        let separator = if policy.is_empty() { "" } else { ", " };
        let (quota, window_s) = (standing.rate.count.get(), standing.rate.period.as_secs());
        push_item(&mut policy, [separator, "\"", name, "\";q="], quota, ";w=", window_s);
        push_item(&mut state, [separator, "\"", name, "\";r="], standing.remaining, ";t=", standing.reset_s);
    }
    (!policy.is_empty()).then_some((policy, state))
}

/// Without the machinery of `format!`, which takes three times as long, twice in each answer.
fn push_item(field: &mut String, front: [&str; 4], first: u32, between: &str, second: u64) {
    front.into_iter().for_each(|part| field.push_str(part));
    field.push_str(itoa::Buffer::new().format(first));
    field.push_str(between);
    field.push_str(itoa::Buffer::new().format(second));
}

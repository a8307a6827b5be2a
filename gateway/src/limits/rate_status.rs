//! What is left of a rate after a request, and the header fields that tell the client. The algorithm is governor's GCRA, with
//! the rate's whole count as its burst.

use std::time::Duration;

use governor::clock::QuantaInstant;
use governor::middleware::StateSnapshot;
use governor::{NotUntil, Quota};
use sq_shared::config::units::Rate;

/// What is left of a rate after a request was charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RateStatus {
    pub rate: Rate,
    /// The number of requests that would pass now.
    pub remaining: u32,
    /// Whole seconds until the full count is available again or, when nothing remains, until one request passes.
    pub reset_s: u64,
}

impl RateStatus {
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

/// Rounded up, so that a request after this time passes.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// The whole count at once, then one request per fraction of the period.
pub(super) fn quota(rate: Rate) -> Quota {
    let one = Quota::with_period(rate.period / rate.count.get()).unwrap_or(Quota::per_minute(rate.count));
    one.allow_burst(rate.count)
}

/// Holds both policies with usual numbers.
const FIELD_BYTES: usize = 64;

/// `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-11, sections 3 and 4): `q` requests in
/// `w` seconds; `r` remain, `t` seconds until the count is full again, or, when none remains, until one more
/// passes. A refusal's `Retry-After` is the `t` of the rate that refused, and so not earlier (section 6).
pub(crate) fn rate_limit_fields(statuses: &[(&str, Option<RateStatus>)]) -> Option<(String, String)> {
    let mut policy = String::with_capacity(FIELD_BYTES);
    let mut state = String::with_capacity(FIELD_BYTES);
    for (name, status) in statuses.iter().filter_map(|(name, status)| Some((name, (*status)?))) {
        let separator = if policy.is_empty() { "" } else { ", " };
        let (quota, window_s) = (status.rate.count.get(), status.rate.period.as_secs());
        push_item(&mut policy, [separator, "\"", name, "\";q="], quota, ";w=", window_s);
        push_item(&mut state, [separator, "\"", name, "\";r="], status.remaining, ";t=", status.reset_s);
    }
    (!policy.is_empty()).then_some((policy, state))
}

/// Avoids `format!`, which takes three times as long, twice per answer.
fn push_item(field: &mut String, front: [&str; 4], first: u32, between: &str, second: u64) {
    front.into_iter().for_each(|part| field.push_str(part));
    field.push_str(itoa::Buffer::new().format(first));
    field.push_str(between);
    field.push_str(itoa::Buffer::new().format(second));
}

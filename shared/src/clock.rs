//! The time of day, in whole seconds: what keys expire by.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::failure::Failure;

/// Seconds since 1970; 0 on a clock that stands before it.
pub fn now_s() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_secs()).unwrap_or(i64::MAX)
}

/// What a server asks before it serves: HTTP's dates and the ids of requests (UUIDv7) begin with 1970, and the libraries
/// that write them panic before it. Linux lets no clock be set to such a time, so it need not be asked again.
///
/// # Errors
/// The clock stands before 1970.
pub fn check() -> Result<(), Failure> {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(_) => Ok(()),
        Err(error) => {
            let days = error.duration().as_secs().div_ceil(86_400);
            Err(Failure::Failed(format!(
                "this machine's clock stands before 1970 (by {days} days): set it (`timedatectl set-ntp true`, or \
                 `date -s`), for answers and keys are dated by it; nothing is served until then"
            )))
        }
    }
}

/// A time in seconds since 1970 as RFC 3339 writes it, in UTC; `None` after the year 9999.
pub fn rfc3339(seconds: i64) -> Option<String> {
    jiff::Timestamp::from_second(seconds).ok().map(|time| time.to_string())
}

/// Reads a date with time and zone (RFC 3339), as seconds since 1970.
///
/// # Errors
/// It is none.
pub fn parse_rfc3339(text: &str) -> Result<i64, String> {
    let time = text.parse::<jiff::Timestamp>();
    time.map(jiff::Timestamp::as_second)
        .map_err(|_| "a date with time and zone, as in 2027-01-01T00:00:00Z".to_owned())
}

/// The time so long after another, in seconds since 1970; `None` after the year 9999.
pub fn later_s(time_s: i64, by: Duration) -> Option<i64> {
    let later_s = time_s.checked_add_unsigned(by.as_secs())?;
    rfc3339(later_s).map(|_| later_s)
}

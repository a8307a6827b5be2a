//! The time of day, by which keys expire and lines and answers are dated. A clock may have any value; the times given
//! here are bounded at both ends, because the libraries that write dates panic outside of their range.

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

/// The year 10000, in seconds since 1970: dates in HTTP and RFC 3339 have four digits for the year.
const YEAR_10000_S: u64 = 253_402_300_800;

/// The time since 1970; zero on an earlier clock.
pub fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Seconds since 1970; 0 on an earlier clock.
pub fn now_s() -> i64 {
    i64::try_from(since_1970().as_secs()).unwrap_or(i64::MAX)
}

/// The time for a log line. A clock outside the years that can be written gives the nearest one.
pub fn now() -> Timestamp {
    let now = SystemTime::now();
    let nearest = if now < UNIX_EPOCH { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::try_from(now).unwrap_or(nearest)
}

/// Whether an answer can be dated: from 1970 to the end of the year 9999. Outside, the libraries that write HTTP
/// dates panic. Linux lets no clock be set to such a time, but a machine may report one.
pub fn can_date_answers() -> bool {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    since_1970.is_ok_and(|since_1970| since_1970.as_secs() < YEAR_10000_S)
}

/// Checks before a server starts that its answers can be dated.
///
/// # Errors
/// The clock is before 1970, or after 9999.
pub fn check() -> io::Result<()> {
    let advice = "set it (`timedatectl set-ntp true`, or `date -s`), for answers and keys are dated by it; nothing is \
                  served until then";
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since_1970) if since_1970.as_secs() < YEAR_10000_S => Ok(()),
        Ok(_) => Err(io::Error::other(format!("this machine's clock is after the year 9999: {advice}"))),
        Err(error) => {
            let days = error.duration().as_secs().div_ceil(86_400);
            Err(io::Error::other(format!("this machine's clock is before 1970 (by {days} days): {advice}")))
        }
    }
}

/// A time in seconds since 1970, in RFC 3339 and UTC; `None` after the year 9999.
pub fn rfc3339(seconds: i64) -> Option<String> {
    Timestamp::from_second(seconds).ok().map(|time| time.to_string())
}

/// Reads a date with time and zone (RFC 3339), as seconds since 1970.
pub fn parse_rfc3339(text: &str) -> Result<i64, String> {
    let time = text.parse::<Timestamp>();
    time.map(Timestamp::as_second)
        .map_err(|_| "a date with time and zone, as in 2027-01-01T00:00:00Z".to_owned())
}

/// The time so long after another, in seconds since 1970; `None` after the year 9999.
pub fn later_s(time_s: i64, by: Duration) -> Option<i64> {
    let later_s = time_s.checked_add_unsigned(by.as_secs())?;
    rfc3339(later_s).map(|_| later_s)
}

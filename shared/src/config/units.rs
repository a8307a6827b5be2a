//! Durations, sizes, rates and counts, as they are written in the config.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

/// A number of requests per time. The burst is the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: NonZeroU32,
    /// A second, a minute, an hour or a day.
    pub period: Duration,
}

/// The names of the periods, and their seconds.
const PERIODS: [(&str, u64); 4] = [("s", 1), ("min", 60), ("h", 3_600), ("day", 86_400)];

impl Rate {
    /// A rate per minute; a count of 0 is raised to 1.
    pub fn per_minute(count: u32) -> Self {
        Self { count: NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN), period: Duration::from_secs(60) }
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "a count and a time, as in 20/s, 100/min, 500/h, 10000/day, or \"off\"".to_owned();
        let (count, unit) = text.split_once('/').ok_or_else(wrong)?;
        let (_, seconds) = PERIODS.into_iter().find(|(name, _)| *name == unit.trim()).ok_or_else(wrong)?;
        let count = count.trim().parse().map_err(|_| wrong())?;
        Ok(Self { count, period: Duration::from_secs(seconds) })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = PERIODS.into_iter().find(|(_, seconds)| *seconds == self.period.as_secs());
        write!(f, "{}/{}", self.count, named.map_or("day", |(name, _)| name))
    }
}

/// A duration such as `300ms`, `10s`, `5m`, `24h`, `30d`; longer than zero.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    if let Some(number) = without_unit(text) {
        return Err(format!("a duration has a unit, as in {number}s, {number}m, {number}h or {number}d"));
    }
    let wrong = || "a duration longer than zero, as in 300ms, 10s, 5m, 24h, 30d".to_owned();
    humantime::parse_duration(text).ok().filter(|duration| !duration.is_zero()).ok_or_else(wrong)
}

/// A size such as `64KiB`, `1GiB`, or a plain number of bytes; at least 1.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || "a size of at least a byte, as in 64KiB, 64MiB, 1GiB".to_owned();
    let size: bytesize::ByteSize = text.parse().map_err(|_| wrong())?;
    Some(size.as_u64()).filter(|bytes| *bytes > 0).ok_or_else(wrong)
}

/// A size in a command, which needs a unit: a user who types `5` does not mean five bytes.
pub fn parse_size(text: &str) -> Result<u64, String> {
    match without_unit(text) {
        Some(number) => {
            Err(format!("a size has a unit, as in {number}MiB or {number}GiB, or {number}B for bytes"))
        }
        None => parse_bytes(text),
    }
}

/// A number without a unit.
fn without_unit(text: &str) -> Option<&str> {
    let number = text.trim();
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    (is_number && number != "0").then_some(number)
}

/// A count of at least 1.
pub fn parse_count(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| "a count of at least 1, or \"off\"".to_owned())
}

/// The largest part of a coordinate: 1 to 4,294,967,295.
pub fn parse_coordinate_part(text: &str) -> Result<u32, String> {
    let wrong = || format!("a number from 1 to {}, or \"off\"", u32::MAX);
    text.parse().ok().filter(|part| *part > 0).ok_or_else(wrong)
}

/// Reads `"off"` as no limit, and everything else by `parse`.
pub fn parse_or_off<T, E>(parse: impl Fn(&str) -> Result<T, E>) -> impl Fn(&str) -> Result<Option<T>, E> {
    move |text| if text == "off" { Ok(None) } else { parse(text).map(Some) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_wants_the_unit_of_a_size() {
        for (text, bytes) in
            [("5GiB", 5 << 30), ("5 MiB", 5 << 20), ("1.5KiB", 1536), ("5B", 5), ("5kb", 5000)]
        {
            assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
        }
        for text in ["5", " 5 ", "1.5", "1073741824"] {
            let error = parse_size(text).unwrap_err();
            assert!(error.contains(&format!("{}GiB", text.trim())), "{error}");
        }
        for text in ["", "0", "-5", "GiB", "5 apples", "0B", "5GiB/s"] {
            parse_size(text).expect_err(text);
        }
        // A registry or a config may have a plain number of bytes.
        assert_eq!(parse_bytes("5").unwrap(), 5);
    }

    #[test]
    fn a_duration_without_a_unit_is_told_which_there_are() {
        for text in ["24", " 30 ", "1.5"] {
            let error = parse_duration(text).unwrap_err();
            assert!(
                ["h", "d"].iter().all(|unit| error.contains(&format!("{}{unit}", text.trim()))),
                "{error}"
            );
        }
        for text in ["", "0", "0s", "soon", "-1h", "5 apples"] {
            let error = parse_duration(text).unwrap_err();
            assert!(error.contains("24h, 30d"), "{text}: {error}");
        }
        assert_eq!(parse_duration("30d").unwrap(), Duration::from_secs(30 * 86_400));
    }
}

//! The name of a tenant: safe as a folder, a metric label and the prefix of a coordinate.

use std::fmt;
use std::str::FromStr;

use crate::limits::TENANT_NAME_BYTES;

/// A tenant's name: `[a-z][a-z0-9-]{0,62}`.
///
/// Cloning is cheap: the text is shared.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantName(std::sync::Arc<str>);

/// Why a text is not a tenant's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a tenant's name is a letter a-z, then at most 62 of a-z, 0-9 and '-'")]
pub struct InvalidTenantName;

impl TenantName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The nearest valid name to any text: lower case, every other character a hyphen. `None` when
    /// no letter is in it. Used by `import`, which reports each name that it changed.
    pub fn nearest(text: &str) -> Option<Self> {
        let lowered = text.to_ascii_lowercase();
        let start = lowered.find(|c: char| c.is_ascii_lowercase())?;
        let mapped: String = lowered
            .get(start..)?
            .chars()
            .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' })
            .take(TENANT_NAME_BYTES)
            .collect();
        mapped.trim_end_matches('-').parse().ok()
    }
}

impl std::borrow::Borrow<str> for TenantName {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl FromStr for TenantName {
    type Err = InvalidTenantName;

    fn from_str(text: &str) -> Result<Self, InvalidTenantName> {
        let starts_with_letter = text.as_bytes().first().is_some_and(u8::is_ascii_lowercase);
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if starts_with_letter && text.len() <= TENANT_NAME_BYTES && text.bytes().all(allowed) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidTenantName)
        }
    }
}

impl fmt::Display for TenantName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TenantName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl serde::Serialize for TenantName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for TenantName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_at_the_limit_and_one_past() {
        let longest = format!("a{}", "9".repeat(62));
        assert!(longest.parse::<TenantName>().is_ok());
        assert!(format!("{longest}9").parse::<TenantName>().is_err());
        for bad in ["", "A", "1a", "-a", "a_b", "a.b", "a/b", "ä", "a b", "a\0"] {
            assert!(bad.parse::<TenantName>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn the_nearest_name_keeps_what_it_can() {
        let nearest = |text| TenantName::nearest(text).map(|name| name.to_string());
        assert_eq!(nearest("Alice Smith").as_deref(), Some("alice-smith"));
        assert_eq!(nearest("42 bob_1").as_deref(), Some("bob-1"));
        assert_eq!(nearest("123"), None);
    }
}

//! The entries of an old file, with the places of each entry and its fields.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::path::Path;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use toml::Spanned;

use super::Format;
use crate::toml_reader::{Document, Mistake, Mistakes};

/// A tenant in any of the old formats.
#[derive(Deserialize)]
pub(super) struct OldTenant {
    #[serde(alias = "api_key")]
    pub(super) token: Option<String>,
    #[serde(alias = "id")]
    pub(super) name: Option<String>,
    pub(super) port: Option<u16>,
    pub(super) data_dir: Option<String>,
    pub(super) quota_mb: Option<u64>,
    /// `Some(None)` is a null.
    #[serde(default, deserialize_with = "given")]
    pub(super) enabled: Option<Option<bool>>,
}

/// The known fields of an entry. `phext` is the Python gateway's, and ignored.
const FIELDS: &[&str] =
    &["token", "api_key", "name", "id", "port", "data_dir", "quota_mb", "enabled", "phext"];

/// Distinguishes null from a missing field.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<bool>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// One entry of the file.
pub(super) struct Entry {
    pub(super) old: OldTenant,
    pub(super) span: Span,
}

/// An entry's place, in bytes from the beginning of the file.
pub(super) struct Span {
    pub(super) whole: Range<usize>,
    fields: BTreeMap<String, Range<usize>>,
}

impl Span {
    /// The place of the first of these fields that is present, or else of the entry.
    pub(super) fn at(&self, fields: &[&str]) -> Range<usize> {
        fields.iter().find_map(|field| self.fields.get(*field)).unwrap_or(&self.whole).clone()
    }

    /// The unknown fields, and the places of their values.
    pub(super) fn unknown(&self) -> impl Iterator<Item = (&str, &Range<usize>)> {
        let fields = self.fields.iter().map(|(name, range)| (name.as_str(), range));
        fields.filter(|(name, _)| !FIELDS.contains(name))
    }
}

/// The whole file, with the tenants by their tokens or in a list.
#[derive(Deserialize)]
struct Root<T> {
    tenants: T,
}

/// The members of a JSON object in their order. A map would keep only the last of two with the same key.
struct Members<T>(Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Members<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor(PhantomData))
    }
}

struct MembersVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for MembersVisitor<T> {
    type Value = Members<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<T>, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Members(members))
    }
}

/// Every entry, in the order of the file.
pub(super) fn read(path: &Path, text: &str, format: Format) -> Result<Vec<Entry>, Mistakes> {
    let json_error = |error: serde_json::Error| {
        let position = Some((error.line(), error.column()));
        Mistakes(vec![Mistake {
            file: path.to_owned(),
            position,
            message: without_value(&error.to_string()),
        }])
    };
    let (tenants, spans) = match format {
        Format::SqHost => by_token(text).map_err(json_error)?,
        Format::SqRouter | Format::AdminKey => listed_in_json(text).map_err(json_error)?,
        Format::PythonGateway | Format::Native => listed_in_toml(text).or_else(|error| {
            let document = Document::new(path, text);
            document.mistake(error.span(), without_value(error.message()));
            document.finish(<_>::default())
        })?,
    };
    Ok(tenants.into_iter().zip(spans).map(|(old, span)| Entry { old, span }).collect())
}

/// The members of the whole file except the tenants, with their values where these are strings. Empty ones are left
/// out.
pub(super) fn other_members(text: &str, format: Format) -> Vec<(String, Option<String>)> {
    let members: Vec<(String, Option<String>)> = match format {
        Format::SqHost | Format::SqRouter | Format::AdminKey => {
            let Ok(Members(members)) = serde_json::from_str::<Members<serde_json::Value>>(text) else {
                return Vec::new();
            };
            let shown = |value: serde_json::Value| match value {
                serde_json::Value::Null => Some(String::new()),
                value => value.as_str().map(str::to_owned),
            };
            members.into_iter().map(|(name, value)| (name, shown(value))).collect()
        }
        Format::PythonGateway | Format::Native => {
            let table: toml::Table = text.parse().unwrap_or_default();
            table.into_iter().map(|(name, value)| (name, value.as_str().map(str::to_owned))).collect()
        }
    };
    let says_something = |(name, value): &(String, Option<String>)| {
        name != "tenants" && value.as_ref().is_none_or(|value| !value.is_empty())
    };
    members.into_iter().filter(says_something).collect()
}

type Read = (Vec<OldTenant>, Vec<Span>);

fn by_token(text: &str) -> serde_json::Result<Read> {
    let Root { tenants: Members(tenants) } = serde_json::from_str::<Root<Members<OldTenant>>>(text)?;
    let Root { tenants: Members(raw) } = serde_json::from_str::<Root<Members<&RawValue>>>(text)?;
    let with_token = |(token, tenant)| OldTenant { token: Some(token), ..tenant };
    let spans: serde_json::Result<_> = raw.into_iter().map(|(_, raw)| json_span(text, raw)).collect();
    Ok((tenants.into_iter().map(with_token).collect(), spans?))
}

fn listed_in_json(text: &str) -> serde_json::Result<Read> {
    let tenants = serde_json::from_str::<Root<Vec<OldTenant>>>(text)?.tenants;
    let raw = serde_json::from_str::<Root<Vec<&RawValue>>>(text)?.tenants;
    let spans: serde_json::Result<_> = raw.into_iter().map(|raw| json_span(text, raw)).collect();
    Ok((tenants, spans?))
}

fn json_span(text: &str, entry: &RawValue) -> serde_json::Result<Span> {
    let range = |raw: &RawValue| {
        let start = raw.get().as_ptr().addr().saturating_sub(text.as_ptr().addr());
        start..start.saturating_add(raw.get().len())
    };
    let fields: BTreeMap<String, &RawValue> = serde_json::from_str(entry.get())?;
    let fields = fields.into_iter().map(|(name, raw)| (name, range(raw))).collect();
    Ok(Span { whole: range(entry), fields })
}

fn listed_in_toml(text: &str) -> Result<Read, toml::de::Error> {
    type Fields = BTreeMap<String, Spanned<IgnoredAny>>;
    let tenants = toml::from_str::<Root<Vec<OldTenant>>>(text)?.tenants;
    let spanned = toml::from_str::<Root<Vec<Spanned<Fields>>>>(text)?.tenants;
    let span = |entry: Spanned<Fields>| {
        let whole = entry.span();
        let fields = entry.into_inner().into_iter().map(|(name, value)| (name, value.span())).collect();
        Span { whole, fields }
    };
    Ok((tenants, spanned.into_iter().map(span).collect()))
}

/// A message of serde's without the value that it found, which may be a key: a string in quotes, or a number or a
/// truth value in backticks (serde's `Unexpected`).
fn without_value(message: &str) -> String {
    let (Some((kind, found)), Some((_, expected))) =
        (message.split_once(": "), message.rsplit_once(", expected "))
    else {
        return message.to_owned();
    };
    let found = found.split(['"', '`']).next().unwrap_or_default();
    match found.split(", expected ").next().unwrap_or_default().trim_end() {
        "" => format!("{kind}, expected {expected}"),
        found => format!("{kind}: {found}, expected {expected}"),
    }
}

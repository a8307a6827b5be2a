//! Reads a TOML file and reports all mistakes in it at once, each with its line. (serde stops at the first.) An
//! unknown key is a mistake too.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One mistake in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The file, as the operator named it.
    pub file: PathBuf,
    /// Line and column, counted from 1; `None` when the mistake is about the whole file.
    pub position: Option<(usize, usize)>,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some((line, column)) = self.position {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// All the mistakes of one reading; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

impl Mistakes {
    /// A mistake about a whole file.
    pub fn about(file: &Path, message: impl fmt::Display) -> Self {
        Self(vec![Mistake { file: file.to_owned(), position: None, message: message.to_string() }])
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.0.iter().enumerate() {
            let line_break = if index == 0 { "" } else { "\n" };
            write!(f, "{line_break}{mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

/// A file's text and the mistakes found in it so far.
pub struct Document<'t> {
    file: &'t Path,
    text: &'t str,
    mistakes: RefCell<Vec<Mistake>>,
}

impl<'t> Document<'t> {
    /// A document that has not been parsed.
    pub fn new(file: &'t Path, text: &'t str) -> Self {
        Self { file, text, mistakes: RefCell::default() }
    }

    /// Parses the text as TOML. Syntax errors are noted; the rest is returned.
    pub fn parse(&self) -> DeTable<'t> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            self.mistake(error.span(), error.message());
        }
        table.into_inner()
    }

    /// Notes a mistake at a place in the text.
    pub fn mistake(&self, span: Option<Range<usize>>, message: impl fmt::Display) {
        let position = span.map(|span| self.position(span.start));
        let mistake = Mistake { file: self.file.to_owned(), position, message: message.to_string() };
        self.mistakes.borrow_mut().push(mistake);
    }

    /// The line of a place in the text, counted from 1.
    pub fn line(&self, offset: usize) -> usize {
        self.position(offset).0
    }

    fn position(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
        (before.matches('\n').count() + 1, column)
    }

    /// The value, when no mistake was noted.
    ///
    /// # Errors
    /// Every mistake noted so far, in the order of the file.
    pub fn finish<T>(self, value: T) -> Result<T, Mistakes> {
        let mut mistakes = self.mistakes.into_inner();
        if mistakes.is_empty() {
            return Ok(value);
        }
        mistakes.sort_by_key(|mistake| mistake.position);
        Err(Mistakes(mistakes))
    }
}

/// A table of the file. Each method takes a key; [`Section::finish`] reports the keys that were never taken.
pub struct Section<'a, 't> {
    document: &'a Document<'t>,
    table: Option<&'a DeTable<'t>>,
    /// The section's own place, for missing keys.
    span: Option<Range<usize>>,
    taken: RefCell<BTreeSet<&'static str>>,
}

impl<'a, 't> Section<'a, 't> {
    /// The file's root table.
    pub fn root(document: &'a Document<'t>, table: &'a DeTable<'t>) -> Self {
        Self { document, table: Some(table), span: None, taken: RefCell::default() }
    }

    fn take(&self, key: &'static str) -> Option<&'a Spanned<DeValue<'t>>> {
        self.taken.borrow_mut().insert(key);
        let found = self.table?.iter().find(|(name, _)| name.get_ref() == key);
        found.map(|(_, value)| value)
    }

    fn expected(&self, key: &str, what: &str, value: &Spanned<DeValue<'t>>) {
        let found = value.get_ref().type_str();
        self.document.mistake(Some(value.span()), format!("{key} is {what}, not a TOML {found}"));
    }

    /// Whether the section has the key at all.
    pub fn has(&self, key: &'static str) -> bool {
        self.take(key).is_some()
    }

    /// Notes a mistake at the section itself.
    pub fn mistake(&self, message: impl fmt::Display) {
        self.document.mistake(self.span.clone(), message);
    }

    /// Notes a mistake at a key's value, or at the section when the key is missing.
    pub fn mistake_at(&self, key: &'static str, message: impl fmt::Display) {
        self.document.mistake(self.place_of(key), message);
    }

    /// The place of a key's value, or of the section when the key is missing.
    pub fn place_of(&self, key: &'static str) -> Option<Range<usize>> {
        self.take(key).map(Spanned::span).or_else(|| self.span.clone())
    }

    /// The value of a key that has one, if `convert` accepts its type; else it is noted that the key is `what`.
    fn converted<T>(
        &self,
        key: &'static str,
        what: &str,
        convert: impl FnOnce(&'a DeValue<'t>) -> Option<T>,
    ) -> Option<T> {
        let value = self.take(key)?;
        let converted = convert(value.get_ref());
        if converted.is_none() {
            self.expected(key, what, value);
        }
        converted
    }

    /// A string, read by `parse`. An error of `parse` is noted with the key and the string in front.
    pub fn parsed<T, E: fmt::Display>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.converted(key, "a string in quotes", DeValue::as_str)?;
        parse(text).map_err(|error| self.mistake_at(key, format!("{key} = {text:?}: {error}"))).ok()
    }

    /// A string that may hold a secret by mistake, such as a key instead of its digest: the message does not repeat it.
    pub fn parsed_secret<T, E: fmt::Display>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.converted(key, "a string in quotes", DeValue::as_str)?;
        parse(text).map_err(|error| self.mistake_at(key, format!("{key}: {error}"))).ok()
    }

    /// A string, unchanged.
    pub fn text(&self, key: &'static str) -> Option<String> {
        self.converted(key, "a string in quotes", DeValue::as_str).map(str::to_owned)
    }

    /// A whole number from 0 to 65535.
    pub fn small_number(&self, key: &'static str) -> Option<u16> {
        let digits = self.take(key)?.get_ref().as_integer();
        let number = digits.and_then(|digits| u16::from_str_radix(digits.as_str(), digits.radix()).ok());
        if number.is_none() {
            self.mistake_at(key, format!("{key} is a whole number from 0 to 65535"));
        }
        number
    }

    /// A whole number, or a string read by `parse`.
    pub fn integer_or<T, E: fmt::Display>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.converted(key, "a whole number or a string", |value| match value {
            DeValue::Integer(digits) => Some(digits.as_str()),
            DeValue::String(text) => Some(text.as_ref()),
            _ => None,
        })?;
        parse(text).map_err(|error| self.mistake_at(key, format!("{key}: {error}"))).ok()
    }

    /// `true` or `false`.
    pub fn boolean(&self, key: &'static str) -> Option<bool> {
        self.converted(key, "true or false", DeValue::as_bool)
    }

    /// A date with time and zone, as seconds since 1970.
    pub fn timestamp_s(&self, key: &'static str) -> Option<i64> {
        self.converted(key, "a date with time and zone, as in 2027-01-01T00:00:00Z", |value| {
            value.as_datetime()?.to_string().parse().ok().map(jiff::Timestamp::as_second)
        })
    }

    /// A list of strings, each read by `parse`.
    pub fn list<T, E: fmt::Display>(
        &self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<Vec<T>> {
        let array = self.converted(key, "a list of strings", DeValue::as_array)?;
        let mut list = Vec::new();
        for item in array.iter() {
            match item.get_ref().as_str().map(&parse) {
                Some(Ok(parsed)) => list.push(parsed),
                Some(Err(error)) => self.document.mistake(Some(item.span()), format!("{key}: {error}")),
                None => self.expected(key, "a list of strings", item),
            }
        }
        Some(list)
    }

    /// A value that is to be a table; else it is noted that the key is `what`.
    fn child(&self, key: &str, what: &str, value: &'a Spanned<DeValue<'t>>) -> Option<Self> {
        let Some(table) = value.get_ref().as_table() else {
            self.expected(key, what, value);
            return None;
        };
        Some(Self { table: Some(table), span: Some(value.span()), ..self.missing() })
    }

    fn missing(&self) -> Self {
        Self { document: self.document, table: None, span: None, taken: RefCell::default() }
    }

    /// A table in this one; empty when it is missing.
    pub fn section(&self, key: &'static str) -> Self {
        let found = self.take(key).and_then(|value| self.child(key, "a table", value));
        found.unwrap_or_else(|| self.missing())
    }

    /// The tables in this one, whose names the file chooses.
    pub fn named_sections(&self) -> Vec<(String, Self)> {
        let values = self.table.into_iter().flat_map(|table| table.iter());
        let named = values.map(|(name, value)| (name.get_ref(), value));
        named
            .filter_map(|(name, value)| Some((name.to_string(), self.child(name, "a table", value)?)))
            .collect()
    }

    /// An array of tables, `[[key]]`; empty when it is missing.
    pub fn sections(&self, key: &'static str) -> Vec<Self> {
        const WHAT: &str = "an array of tables";
        let items = self.converted(key, WHAT, DeValue::as_array).into_iter().flat_map(|array| array.iter());
        items.filter_map(|item| self.child(key, WHAT, item)).collect()
    }

    /// The value, after each key that was never taken is reported.
    pub fn finish<T>(&self, value: T) -> T {
        let taken = self.taken.borrow();
        for (name, _) in self.table.into_iter().flat_map(|table| table.iter()) {
            if !taken.contains(name.get_ref().as_ref()) {
                let known = taken.iter().copied().collect::<Vec<_>>().join(", ");
                let message = format!("unknown field {}; known here: {known}", name.get_ref());
                self.document.mistake(Some(name.span()), message);
            }
        }
        value
    }
}

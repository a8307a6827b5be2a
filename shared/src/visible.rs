//! Makes hidden characters visible: those that change the reading direction, that have no width, or that a terminal
//! obeys. A phext's name may contain most of them, and in a log `a<U+202E>txt` would read as another name. Every log
//! line, audit line, error detail and line of a command passes through here.

use std::borrow::Cow;
use std::fmt::Write;
use std::ops::RangeInclusive;

/// Starts a colour in a terminal.
const ESCAPE: char = '\u{1b}';

/// Characters outside ASCII that show nothing, or change how others are shown: Unicode's controls (Cc), line and
/// paragraph separators (Zl, Zp), annotations, and `Default_Ignorable_Code_Point` (DerivedCoreProperties.txt, 16.0).
const HIDDEN: [RangeInclusive<char>; 19] = [
    '\u{80}'..='\u{9f}',
    '\u{ad}'..='\u{ad}',
    '\u{34f}'..='\u{34f}',
    '\u{61c}'..='\u{61c}',
    '\u{115f}'..='\u{1160}',
    '\u{17b4}'..='\u{17b5}',
    '\u{180b}'..='\u{180f}',
    '\u{200b}'..='\u{200f}',
    '\u{2028}'..='\u{202e}',
    '\u{2060}'..='\u{206f}',
    '\u{3164}'..='\u{3164}',
    '\u{fe00}'..='\u{fe0f}',
    '\u{feff}'..='\u{feff}',
    '\u{ffa0}'..='\u{ffa0}',
    '\u{fff0}'..='\u{fffb}',
    '\u{13430}'..='\u{1343f}',
    '\u{1bca0}'..='\u{1bca3}',
    '\u{1d173}'..='\u{1d17a}',
    '\u{e0000}'..='\u{e0fff}',
];

/// A text on one line, with each hidden character as `\u{202e}`.
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false, for_people)
}

/// The same for a line with colours. The text in it must have been made visible before.
pub fn coloured_line(text: &str) -> Cow<'_, str> {
    escaped(text, |character| character == ESCAPE, for_people)
}

/// The same for a text of several lines: line breaks and tabs stay.
pub fn text(text: &str) -> Cow<'_, str> {
    escaped(text, |character| matches!(character, '\n' | '\t'), for_people)
}

fn for_people(character: char, visible: &mut String) {
    visible.extend(character.escape_unicode());
}

/// JSON with each hidden character as `\u202e`; it parses to exactly the same value. (JSON has none of them outside
/// strings.)
pub fn json(json: &str) -> Cow<'_, str> {
    let is_kept = |character: char| character.is_ascii_control() && character != '\u{7f}';
    escaped(json, is_kept, |character, visible| {
        for unit in character.encode_utf16(&mut [0; 2]) {
            // Writing to a string does not fail.
            let _ = write!(visible, "\\u{unit:04x}");
        }
    })
}

fn escaped(text: &str, is_kept: impl Fn(char) -> bool, escape: impl Fn(char, &mut String)) -> Cow<'_, str> {
    let is_shown = |character: char| !is_hidden(character) || is_kept(character);
    // Most texts are plain ASCII, where a byte is a character.
    if text.bytes().all(|byte| byte.is_ascii() && is_shown(char::from(byte))) || text.chars().all(is_shown) {
        return Cow::Borrowed(text);
    }
    let mut visible = String::with_capacity(text.len() * 2);
    for character in text.chars() {
        if is_shown(character) { visible.push(character) } else { escape(character, &mut visible) }
    }
    Cow::Owned(visible)
}

fn is_hidden(character: char) -> bool {
    if character.is_ascii() {
        return character.is_ascii_control();
    }
    HIDDEN.iter().any(|range| range.contains(&character))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BIDI: [char; 12] = [
        '\u{61c}', '\u{200e}', '\u{200f}', '\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}', '\u{202e}',
        '\u{2066}', '\u{2067}', '\u{2068}', '\u{2069}',
    ];

    #[test]
    fn what_hides_is_shown_in_text() {
        assert_eq!(text("a\u{202e}txt"), "a\\u{202e}txt");
        assert_eq!(text("\u{1b}[31m\u{0}\u{7f}\u{9b}"), "\\u{1b}[31m\\u{0}\\u{7f}\\u{9b}");
        assert_eq!(coloured_line("\u{1b}[31m\u{202e}\r"), "\u{1b}[31m\\u{202e}\\u{d}");
        assert_eq!(line("a\nb\u{202e}"), "a\\u{a}b\\u{202e}");
        for hidden in BIDI.into_iter().chain([
            '\u{200b}',
            '\u{200d}',
            '\u{2028}',
            '\u{2029}',
            '\u{feff}',
            '\u{85}',
            '\u{e0041}',
        ]) {
            assert_eq!(text(&hidden.to_string()), hidden.escape_unicode().to_string());
        }
    }

    #[test]
    fn json_says_the_same_as_before() {
        let every: String = (0..=char::MAX as u32).filter_map(char::from_u32).collect();
        let plain = serde_json::to_string(&every).unwrap();
        let visible = json(&plain);
        assert!(!visible.chars().any(is_hidden));
        assert_eq!(serde_json::from_str::<String>(&visible).unwrap(), every);
        assert_eq!(json("{\"a\": \"\u{202e}\u{e0001}\"}\n"), "{\"a\": \"\\u202e\\udb40\\udc01\"}\n");
    }

    #[test]
    fn what_shows_stays_as_it_is() {
        for shown in [
            "",
            "notes",
            "two lines\n\tand a tab",
            "Ä 1 \u{1f506}",
            "\u{627}\u{644}",
            "\u{5d0}",
            "\u{915}\u{93f}",
            "e\u{301}",
        ] {
            assert!(matches!(text(shown), Cow::Borrowed(same) if same == shown), "{shown:?}");
            assert!(matches!(json(shown), Cow::Borrowed(same) if same == shown), "{shown:?}");
        }
    }
}

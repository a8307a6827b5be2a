//! Product code, docs, config and messages are in plain English: phrases that a reader has to read twice, and names that a
//! newcomer has to ask about, are mistakes. `docs/glossary.md` has the words to use.

use std::path::PathBuf;

use super::{assert_none, files_in, pages, read};

/// Phrases, word by word and without regard to case, and what to write.
const PHRASES: &[(&str, &str)] = &[
    ("anew", "again"),
    ("for ever", "indefinitely, or until …"),
    ("for want of", "because … is missing"),
    ("of its own", "separate, or its"),
    ("of their own", "separate, or their"),
    ("whoever", "name the process or client"),
    ("whomever", "name the process or client"),
    ("nobody", "name the process or client: no client, no process"),
    ("somebody", "name the process or client"),
    ("everybody", "name the processes or clients: every client"),
    ("anybody", "name the process or client"),
    ("is none", "say what it is: not valid, missing, empty"),
    ("are none", "say what they are"),
    ("was none", "say what it was"),
    ("becomes of", "say what happens"),
    ("became of", "say what happened"),
    ("comes to rest", "settles, or converges"),
    ("come to rest", "settle, or converge"),
    ("bound anew", "binding a new socket"),
    ("last word", "name the message: commit, abort"),
    ("waited for on", "keep the timer running"),
    ("lets go of", "closes, releases"),
    ("let go of", "close, release"),
    ("loses its patience", "times out"),
    ("lost its patience", "timed out"),
    ("the way of a", "the life of a"),
    ("says to its end", "until it exits"),
    ("in the place of", "instead of, or replaces"),
    ("puts in force", "applies"),
    ("put in force", "apply, applied"),
    ("in force", "applied, or in effect"),
    ("no hindrance", "say what still works"),
    ("who does not", "a client that does not"),
    ("who is", "name it: the client that is"),
    ("who has", "name it: the client that has"),
    ("who comes", "name it: a client that connects"),
    ("who sends", "name it: a client that sends"),
    ("who asks", "name it: the caller"),
    ("who gives", "name it"),
    ("who takes", "name it"),
    ("who connects", "name it: a client that connects"),
    ("in whose", "in which"),
    ("one a tenant", "one per tenant"),
    ("one a core", "one per core"),
    ("one a request", "one per request"),
    ("one a phext", "one per phext"),
    ("one a worker", "one per worker"),
    ("a line a", "a line per"),
    ("a file a", "a file per"),
    ("cpu a request", "CPU per request"),
    ("time a request", "time per request"),
    ("instructions a request", "instructions per request"),
];

/// Names of types that say too little, and what the glossary calls them.
const TYPES: &[(&str, &str)] = &[
    ("Standing", "RateStatus"),
    ("Ended", "RequestSummary"),
    ("Ending", "outcome"),
    ("Departure", "ExitKind"),
    ("Asked", "Signal"),
    ("Taken", "Predecessor"),
    ("Giver", "Predecessor"),
    ("Taker", "Successor"),
    ("Meeting", "UpgradeSocket"),
    ("Door", "UpgradeSocket"),
    ("Look", "FileStamp"),
    ("Turns", "LoopTick"),
    ("End", "what ends"),
    ("State", "whose state"),
    ("Source", "source of what"),
    ("Written", "what was written"),
];

/// Names of files that say too little.
const FILES: &[&str] = &["served.rs", "look.rs", "account.rs", "room.rs", "succession.rs", "standing.rs"];

/// Every text that is ours and that a user or a maintainer reads, but for tests.
fn texts() -> Vec<(PathBuf, String)> {
    let code = ["gateway/src", "worker/src", "shared/src"];
    let code =
        code.iter().flat_map(|folder| ["rs", "js", "html"].into_iter().flat_map(|end| files_in(folder, end)));
    let config = ["config", "compose"].iter().flat_map(|folder| {
        ["toml", "conf", "service", "socket", "yml", "yaml", "json", "sh"]
            .into_iter()
            .flat_map(|end| files_in(folder, end))
    });
    let others = [".ci/run", "justfile", "compose/Dockerfile", "compose/setup"].map(PathBuf::from);
    let read = |path: PathBuf| (path.clone(), read(&path));
    code.chain(config).chain(others).map(read).chain(pages()).collect()
}

/// The words of a text with their lines. `None` stands where a sentence or a comment ends.
fn words(text: &str) -> Vec<(usize, Option<String>)> {
    let mut found = Vec::new();
    let mut was_comment = false;
    for (index, line) in text.lines().enumerate() {
        let code = line.trim_start();
        let is_comment = code.starts_with("//") || code.starts_with('#');
        if is_comment != was_comment || code.is_empty() {
            found.push((index, None));
        }
        was_comment = is_comment;
        let mut word = String::new();
        for letter in line.chars().chain([' ']) {
            if letter.is_alphanumeric() || letter == '_' || letter == '\'' {
                word.extend(letter.to_lowercase());
                continue;
            }
            if !word.is_empty() {
                found.push((index, Some(std::mem::take(&mut word))));
            }
            if ".,;:(){}[]|`\"!?=<>&".contains(letter) {
                found.push((index, None));
            }
        }
    }
    found
}

fn phrases_in(text: &str) -> Vec<(usize, &'static str, &'static str)> {
    let words = words(text);
    let mut found = Vec::new();
    for (phrase, instead) in PHRASES {
        let wanted: Vec<&str> = phrase.split(' ').collect();
        for start in 0..words.len() {
            let before = start.checked_sub(1).and_then(|before| words[before].1.as_deref());
            // "The client who sends it" and "there is none" are English; "Who sends it" and "a key that is none" are not.
            let is_english = match wanted[0] {
                "who" => before.is_some(),
                "is" | "are" | "was" => before == Some("there"),
                _ => false,
            };
            let is_hit = words[start..].len() >= wanted.len()
                && words[start..]
                    .iter()
                    .zip(&wanted)
                    .all(|((_, word), wanted)| word.as_deref() == Some(*wanted))
                && !is_english;
            if is_hit {
                found.push((words[start].0 + 1, *phrase, *instead));
            }
        }
    }
    found
}

#[test]
fn no_phrase_has_to_be_read_twice() {
    let mut mistakes = Vec::new();
    for (path, text) in texts() {
        for (line, phrase, instead) in phrases_in(&text) {
            mistakes.push(format!("{}:{line}: \"{phrase}\"; write: {instead}", path.display()));
        }
    }
    assert_none(&mistakes);
}

#[test]
fn no_name_has_to_be_asked_about() {
    let mut mistakes = Vec::new();
    for (path, text) in
        texts().into_iter().filter(|(path, _)| path.extension().is_some_and(|end| end == "rs"))
    {
        let shown = path.display();
        if path.file_name().and_then(|name| name.to_str()).is_some_and(|name| FILES.contains(&name)) {
            mistakes.push(format!("{shown}: a file name that says too little"));
        }
        for (number, line) in text.lines().enumerate() {
            let mut words = line.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
            while let Some(keyword) = words.next() {
                let name = match keyword {
                    "struct" | "enum" | "type" | "trait" | "fn" => words.next().unwrap_or_default(),
                    _ => continue,
                };
                let number = number + 1;
                if let Some((_, instead)) = TYPES.iter().find(|(vague, _)| *vague == name) {
                    mistakes.push(format!("{shown}:{number}: {keyword} {name}; say {instead}"));
                }
                if keyword == "fn" && (name == "of" || name.starts_with("of_")) {
                    mistakes.push(format!("{shown}:{number}: fn {name}; call it from_…, for_… or new"));
                }
            }
        }
    }
    assert_none(&mistakes);
}

#[test]
fn a_phrase_is_found_across_lines_and_not_across_sentences() {
    let hit = "    /// The socket is bound\n    /// anew.\n    fn f() {}";
    assert!(phrases_in(hit).iter().any(|(line, phrase, _)| (*line, *phrase) == (1, "bound anew")));
    let misses = "// what it is\nNone => {}\nif this.is_none() {}\n// The key is. None was sent.";
    assert_eq!(phrases_in(misses), []);
}

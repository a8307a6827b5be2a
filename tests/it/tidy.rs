//! The house rules that a machine can check: sizes, headings, samples and the truth of the docs.

mod rooms;
mod words;

use std::fs;
use std::path::{Path, PathBuf};

use sq_shared::config::Config;
use sq_shared::registry::Registry;
use sq_tests::binaries::workspace;
use sq_tests::tree;

/// A file or a function beyond this says that a room is missing.
const FILE_LINES: usize = 500;
const FUNCTION_LINES: usize = 70;

/// Where our sources are.
const CRATES: [&str; 4] = ["gateway", "worker", "shared", "tests"];

/// The lines that bring a fresh clone to life, as the README has them.
const RUN_LINE: &str = "cargo build --release && ./target/release/sq-gateway up";
const TEST_LINE: &str = "cargo test --workspace";

fn files_in(folder: &str, end: &str) -> Vec<PathBuf> {
    let has_end = |path: &PathBuf| path.extension().is_some_and(|extension| extension == end);
    let found = tree::files(&workspace().join(folder)).into_iter();
    found.filter(has_end).map(|path| Path::new(folder).join(path)).collect()
}

fn sources() -> Vec<(PathBuf, String)> {
    let paths = CRATES.iter().flat_map(|folder| files_in(folder, "rs"));
    let is_ours = |path: &PathBuf| !path.components().any(|part| part.as_os_str() == "target");
    paths.filter(is_ours).map(|path| (path.clone(), read(&path))).collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(workspace().join(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Fails with all the mistakes at once.
fn assert_none(mistakes: &[String]) {
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
}

#[test]
fn each_file_says_what_it_is_for_and_is_of_readable_length() {
    let mut mistakes = Vec::new();
    for (path, text) in sources() {
        let (shown, lines) = (path.display(), text.lines().count());
        if !text.starts_with("//! ") {
            mistakes.push(format!("{shown} does not begin with //!"));
        }
        if lines >= FILE_LINES {
            mistakes.push(format!("{shown} has {lines} lines"));
        }
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        let folder =
            path.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default();
        if ["util", "utils", "common", "helpers", "misc"]
            .iter()
            .any(|vague| name == *vague || folder == *vague)
        {
            mistakes.push(format!("{shown}: a name that says nothing"));
        }
    }
    assert_none(&mistakes);
}

#[test]
fn functions_are_short() {
    let mut mistakes = Vec::new();
    for (path, text) in sources() {
        for (name, lines) in functions(&text) {
            if lines >= FUNCTION_LINES {
                mistakes.push(format!("{}: fn {name} has {lines} lines", path.display()));
            }
        }
    }
    assert_none(&mistakes);
}

/// Each function's name and its number of lines, by the indentation that rustfmt gives: a body ends at
/// the first line that is a closing brace as deep as its `fn`.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let words = code
            .split_whitespace()
            .take_while(|word| ["pub", "async", "const", "pub(crate)", "pub(super)", "fn"].contains(word));
        if !code.ends_with('{') && !code.ends_with('(') || !words.into_iter().any(|word| word == "fn") {
            continue;
        }
        let end = format!("{}}}", &line[..line.len() - code.len()]);
        let length = lines[start..].iter().position(|line| *line == end).map_or(0, |length| length + 1);
        let name =
            code.split("fn ").nth(1).and_then(|rest| rest.split(['(', '<']).next()).unwrap_or_default();
        found.push((name.to_owned(), length));
    }
    found
}

#[test]
fn nothing_outside_the_tests_can_panic_by_choice() {
    let forbidden =
        [".unwrap()", ".expect(", "panic!(", "todo!(", "unimplemented!(", "dbg!(", "#[allow(", "#![allow("];
    let mut mistakes = Vec::new();
    for (path, text) in sources() {
        let is_test = path.starts_with("tests")
            || path.ends_with("tests.rs")
            || path.to_string_lossy().starts_with("worker/src/store/disk/sim")
            || path.components().any(|part| part.as_os_str() == "tests");
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for (number, line) in
            code.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"))
        {
            let found = forbidden.iter().find(|word| line.contains(**word));
            if let Some(word) = found.filter(|_| !is_test) {
                mistakes.push(format!("{}:{}: {word}", path.display(), number + 1));
            }
        }
        for skipped in ["#[ignore", "thread::sleep("] {
            let quoted = path.ends_with("it/tidy.rs");
            if is_test && !quoted && text.contains(skipped) {
                mistakes.push(format!("{}: {skipped} in a test", path.display()));
            }
        }
    }
    assert_none(&mistakes);
}

#[test]
fn the_sample_configs_are_valid() {
    let samples = files_in("config", "toml");
    assert!(samples.contains(&PathBuf::from("config/gateway.toml")), "{samples:?}");
    let path = workspace().join("config/gateway.toml");
    let config = Config::load(&path).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    for sample in samples.into_iter().filter(|path| path.to_string_lossy().contains("tenants")) {
        let loaded = Registry::load(&workspace().join(&sample), &config);
        assert!(loaded.is_ok(), "{}: {loaded:?}", sample.display());
    }
}

/// The pages at the root, and every page of the docs.
fn pages() -> Vec<(PathBuf, String)> {
    let at_the_root = ["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(PathBuf::from);
    let paths = at_the_root.into_iter().chain(files_in("docs", "md"));
    paths.filter(|path| workspace().join(path).is_file()).map(|path| (path.clone(), read(&path))).collect()
}

#[test]
fn the_readme_says_how_to_run_and_how_to_test() {
    let Some((_, readme)) = pages().into_iter().find(|(path, _)| path == Path::new("README.md")) else {
        panic!("there is no README.md");
    };
    for wanted in [RUN_LINE, TEST_LINE] {
        assert!(readme.lines().any(|line| line.trim() == wanted), "the README has no line `{wanted}`");
    }
}

#[test]
fn every_path_that_the_docs_name_exists() {
    let mut mistakes = Vec::new();
    for (page, text) in pages() {
        for quoted in text.split('`').skip(1).step_by(2).chain(links(&text)) {
            let path = quoted.trim_start_matches("./").split('#').next().unwrap_or_default();
            let from_page = workspace().join(&page).parent().map(|folder| folder.join(path));
            let exists = workspace().join(path).exists() || from_page.is_some_and(|path| path.exists());
            if looks_like_a_path(path) && !exists {
                mistakes.push(format!("{}: {quoted} does not exist", page.display()));
            }
        }
    }
    assert_none(&mistakes);
}

#[test]
fn every_test_that_the_docs_name_exists() {
    let mut mistakes = Vec::new();
    for (page, text) in pages() {
        for (path, name) in text.split('`').skip(1).step_by(2).filter_map(|quoted| quoted.split_once(".rs::"))
        {
            let file = workspace().join(format!("{path}.rs"));
            let source = fs::read_to_string(file).unwrap_or_default();
            if !source.contains(&format!("fn {name}(")) {
                mistakes.push(format!("{}: {path}.rs::{name} does not exist", page.display()));
            }
        }
    }
    assert_none(&mistakes);
}

/// The targets of Markdown links into the repository.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://") && !target.starts_with('#'))
}

/// A path of the repository begins with one of its folders and has no placeholder in it.
fn looks_like_a_path(text: &str) -> bool {
    let folders =
        ["gateway/src", "worker/src", "shared/src", "tests/", "config/", "compose/", "docs/", ".ci/"];
    let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte));
    is_plain && folders.iter().any(|folder| text.starts_with(folder))
}

#[test]
fn every_command_that_the_docs_name_exists() {
    let commands = |file: &str| {
        let text = read(Path::new(file)).to_lowercase();
        move |command: &str| text.contains(&format!("{}(", command.replace('-', "")))
    };
    let (gateway, worker) = (commands("gateway/src/cli.rs"), commands("worker/src/cli.rs"));
    let mut mistakes = Vec::new();
    for (page, text) in pages() {
        for (program, knows) in [("sq-gateway", &gateway as &dyn Fn(&str) -> bool), ("sq-worker", &worker)] {
            for rest in text.split(&format!("{program} ")).skip(1) {
                let command: String =
                    rest.chars().take_while(|letter| letter.is_ascii_lowercase() || *letter == '-').collect();
                let is_code =
                    rest.len() > command.len() && rest[command.len()..].starts_with([' ', '`', '\n']);
                // Prose goes on with a word; a command is followed by an option, a quote or a line's end.
                let next = rest[command.len()..].trim_start_matches(' ');
                let is_command = is_code && next.starts_with(['-', '`', '\n']) && !command.starts_with('-');
                if is_command && !command.is_empty() && !knows(&command) {
                    mistakes.push(format!("{}: {program} {command} does not exist", page.display()));
                }
            }
        }
    }
    assert_none(&mistakes);
}

//! The modules of each crate, its rooms, stand in layers from top to bottom: paragraphs of `mod` lines in `lib.rs`. A room
//! imports from its own layer and those below it, without circles. `docs/architecture.md` shows the same layers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::{assert_none, files_in, read};

const CRATES: [&str; 3] = ["gateway/src", "worker/src", "shared/src"];

/// The rooms of a crate, layer by layer, as its `lib.rs` declares them.
fn layers(folder: &str) -> Vec<Vec<String>> {
    let text = read(&Path::new(folder).join("lib.rs"));
    let module = |line: &str| {
        line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';').map(str::to_owned)
    };
    let paragraphs = text.split("\n\n").map(|paragraph| paragraph.lines().filter_map(module).collect());
    paragraphs.filter(|rooms: &Vec<String>| !rooms.is_empty()).collect()
}

/// The same as the architecture page shows them: `| `gateway/src` | what they are | `cli`, `commands` |`.
fn documented_layers(folder: &str) -> Vec<Vec<String>> {
    let page = read(Path::new("docs/architecture.md"));
    let rows = page.lines().filter_map(|line| line.strip_prefix(&format!("| `{folder}` |")));
    let rooms = |row: &str| {
        let cell = row.split('|').nth(1).unwrap_or_default();
        cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    rows.map(rooms).collect()
}

/// The room that a file belongs to: the first part of its path below the crate.
fn room_of(folder: &str, path: &Path) -> Option<String> {
    let first = path.strip_prefix(folder).ok()?.components().next()?;
    Some(first.as_os_str().to_str()?.trim_end_matches(".rs").to_owned())
}

/// The rooms that a file's code names, with the lines. Its tests may name any.
fn imports(text: &str) -> Vec<(usize, String)> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let without_comment =
        |line: &str| if line.trim_start().starts_with("//") { String::new() } else { line.to_owned() };
    let code = code.lines().map(without_comment).collect::<Vec<_>>().join("\n");
    let mut found = Vec::new();
    for (start, _) in code.match_indices("crate::") {
        let (before, rest) = code.split_at(start + "crate::".len());
        let group = rest.strip_prefix('{').and_then(|group| group.split('}').next());
        let names = group.map_or_else(|| vec![rest], |group| group.split(',').map(str::trim_start).collect());
        let is_name = |letter: &char| letter.is_alphanumeric() || *letter == '_';
        let names = names.iter().map(|name| name.chars().take_while(is_name).collect::<String>());
        let line = before.matches('\n').count() + 1;
        found.extend(names.filter(|name| !name.is_empty()).map(|name| (line, name)));
    }
    found
}

/// The files of a crate without its tests.
fn product_files(folder: &str) -> impl Iterator<Item = PathBuf> {
    let is_test = |path: &PathBuf| {
        path.ends_with("tests.rs") || path.components().any(|part| part.as_os_str() == "tests")
    };
    files_in(folder, "rs").into_iter().filter(move |path| !is_test(path))
}

#[test]
fn no_module_imports_from_a_layer_above_its_own_or_in_a_circle() {
    let mut mistakes = Vec::new();
    for folder in CRATES {
        let layers = layers(folder);
        let floor = |room: &String| layers.iter().position(|rooms| rooms.contains(room));
        let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for path in product_files(folder) {
            let Some(own) = room_of(folder, &path).filter(|room| floor(room).is_some()) else { continue };
            for (line, room) in imports(&read(&path)) {
                if floor(&room) < floor(&own) && floor(&room).is_some() {
                    mistakes.push(format!("{}:{line} imports from {room}, a layer above", path.display()));
                }
                uses.entry(own.clone()).or_default().insert(room);
            }
            uses.entry(own.clone()).or_default().remove(&own);
        }
        // A room that uses only rooms that were taken away can be taken away too. What is left is a circle.
        while !uses.is_empty() {
            let left: BTreeSet<String> = uses.keys().cloned().collect();
            uses.retain(|_, used| used.iter().any(|room| left.contains(room)));
            if uses.len() == left.len() {
                mistakes.push(format!("{folder}: a circle of {left:?}"));
                break;
            }
        }
    }
    assert_none(&mistakes);
}

#[test]
fn the_architecture_shows_the_layers_as_the_crates_declare_them() {
    for folder in CRATES {
        assert_eq!(documented_layers(folder), layers(folder), "{folder}: docs/architecture.md, lib.rs");
    }
}

#[test]
fn an_import_is_seen_in_a_path_and_in_a_group() {
    let text = "use crate::limits::Rate;\nuse crate::{\n    cors,\n    phase,\n};\n// crate::edge\n#[cfg(test)]\nmod tests {\n    use crate::edge;";
    let found: Vec<_> = imports(text).into_iter().map(|(_, room)| room).collect();
    assert_eq!(found, ["limits", "cors", "phase"]);
}

//! The rooms of each crate stand in one order, from top to bottom, and no module imports from a room above its own.
//! `docs/architecture.md` has the order, and `lib.rs` declares the modules in it.

use std::path::{Path, PathBuf};

use super::{assert_none, files_in, read};

const CRATES: [&str; 3] = ["gateway/src", "worker/src", "shared/src"];

/// Where `docs/architecture.md` has a crate's rooms: `| `gateway/src` | `cli`, `commands`, … |`.
fn rooms(folder: &str) -> Vec<String> {
    let page = read(Path::new("docs/architecture.md"));
    let row = page.lines().find(|line| line.starts_with(&format!("| `{folder}` |")));
    let row = row.unwrap_or_else(|| panic!("docs/architecture.md does not list the rooms of {folder}"));
    row.split('`').skip(3).step_by(2).map(str::to_owned).collect()
}

/// The modules that a crate's `lib.rs` declares, in its order.
fn modules(folder: &str) -> Vec<String> {
    let text = read(&Path::new(folder).join("lib.rs"));
    let declared = text.lines().filter_map(|line| {
        line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';').map(str::to_owned)
    });
    declared.collect()
}

/// The room that a file belongs to: the first part of its path below the crate.
fn room_of(folder: &str, path: &Path) -> Option<String> {
    let first = path.strip_prefix(folder).ok()?.components().next()?;
    Some(first.as_os_str().to_str()?.trim_end_matches(".rs").to_owned())
}

/// The rooms that a file's code names, with their lines. Its tests may name any.
fn imports(text: &str) -> Vec<(usize, String)> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let mut found = Vec::new();
    for (index, line) in code.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
        for rest in line.split("crate::").skip(1) {
            let group = rest.strip_prefix('{').and_then(|group| group.split('}').next());
            let names = group.map_or_else(|| vec![rest], |group| group.split(", ").collect());
            let is_name = |letter: &char| letter.is_alphanumeric() || *letter == '_';
            found.extend(names.iter().map(|name| (index + 1, name.chars().take_while(is_name).collect())));
        }
    }
    found
}

#[test]
fn no_module_imports_from_a_room_above_its_own() {
    let mut mistakes = Vec::new();
    for folder in CRATES {
        let rooms = rooms(folder);
        let floor = |room: &str| rooms.iter().position(|known| known == room);
        let is_test = |path: &PathBuf| {
            path.ends_with("tests.rs") || path.components().any(|part| part.as_os_str() == "tests")
        };
        for path in files_in(folder, "rs").into_iter().filter(|path| !is_test(path)) {
            let Some(own) = room_of(folder, &path).and_then(|room| floor(&room)) else { continue };
            for (line, room) in imports(&read(&path)) {
                if floor(&room).is_some_and(|other| other < own) {
                    mistakes.push(format!("{}:{line} imports upward from {room}", path.display()));
                }
            }
        }
    }
    assert_none(&mistakes);
}

#[test]
fn the_architecture_lists_the_rooms_as_the_crates_declare_them() {
    for folder in CRATES {
        assert_eq!(rooms(folder), modules(folder), "{folder}: docs/architecture.md, lib.rs");
    }
}

#[test]
fn an_import_is_seen_in_a_path_and_in_a_group() {
    let text = "use crate::limits::Rate;\nuse crate::{cors, phase};\n// crate::edge\n#[cfg(test)]\nmod tests {\n    use crate::edge;";
    let found: Vec<_> = imports(text).into_iter().map(|(_, room)| room).collect();
    assert_eq!(found, ["limits", "cors", "phase"]);
}

//! The modules of this crate stand in layers (`src/lib.rs`), and none imports from a later one, nor in a circle.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

type Imports = BTreeMap<String, BTreeSet<String>>;

/// Each module's layer. A layer is a paragraph of `mod` lines.
fn layers() -> BTreeMap<String, usize> {
    let text = fs::read_to_string("src/lib.rs").unwrap();
    let paragraphs = text.split("\n\n").filter(|paragraph| paragraph.contains("pub mod ")).enumerate();
    let modules = paragraphs.flat_map(|(layer, paragraph)| {
        let names = paragraph.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
        names.map(move |name| (name.to_owned(), layer))
    });
    modules.collect()
}

/// The code of a file, without its tests and comments.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

fn add_imports(folder: &Path, top: Option<&str>, imports: &mut Imports) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let module = top.unwrap_or(&stem);
        if path.is_dir() {
            add_imports(&path, Some(module), imports);
        } else if module != "lib" && stem != "tests" {
            let text = code(&path);
            let names = text.split("crate::").skip(1).flat_map(|rest| {
                let list = rest
                    .strip_prefix('{')
                    .and_then(|rest| rest.split_once('}'))
                    .map_or(rest, |(list, _)| list);
                let items = if rest.starts_with('{') { list.split(',').collect() } else { vec![list] };
                let name = |item: &str| {
                    item.trim_start()
                        .split(|c: char| !c.is_alphanumeric() && c != '_')
                        .next()
                        .map(str::to_owned)
                };
                items.into_iter().filter_map(name).collect::<Vec<_>>()
            });
            let names = names.filter(|name| !name.is_empty() && name != module);
            imports.entry(module.to_owned()).or_default().extend(names.collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_module_imports_from_its_own_layer_and_those_before_it() {
    let (layers, mut imports) = (layers(), Imports::new());
    add_imports(Path::new("src"), None, &mut imports);
    assert!(layers.len() > 30 && imports.len() == layers.len(), "{layers:?} {imports:?}");
    for (module, imported) in &imports {
        for other in imported {
            assert!(layers[other] <= layers[module], "{module} imports {other}, of a later layer");
        }
    }
    // What imports only modules that are taken away can be taken away: a circle is left.
    while !imports.is_empty() {
        let left: BTreeSet<String> = imports.keys().cloned().collect();
        imports.retain(|_, imported| imported.iter().any(|other| left.contains(other)));
        assert!(imports.len() < left.len(), "a circle: {left:?}");
    }
}

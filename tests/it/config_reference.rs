//! `docs/configuration.md` and the config agree: the same fields, the same defaults, the same fields that need a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use sq_shared::config::Config;
use sq_shared::config::fields::FIELDS;
use sq_tests::binaries::workspace;

const REFERENCE: &str = "docs/configuration.md";

/// How the reference writes the name that a file chooses for a plan.
const PLAN: &str = "plan.NAME";

fn read(path: &str) -> String {
    fs::read_to_string(workspace().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The keys that the parser takes at this place: it lists them when it meets one that it does not know.
fn known(section: &str) -> Vec<String> {
    let text = format!("{section}\nno_such_field = 0\n");
    let mistakes = Config::parse(Path::new("gateway.toml"), &text).expect_err("an unknown field").to_string();
    let (_, keys) = mistakes.split_once("known here: ").unwrap_or_else(|| panic!("no keys in: {mistakes}"));
    keys.trim().split(", ").map(str::to_owned).collect()
}

fn known_fields() -> BTreeSet<String> {
    let mut fields = BTreeSet::new();
    for section in known("") {
        let section = if section == "plan" { PLAN.to_owned() } else { section };
        fields.extend(known(&format!("[{section}]")).into_iter().map(|key| format!("{section}.{key}")));
    }
    fields
}

/// The fields that a config sets, with their values.
fn set_in(config: &str) -> BTreeMap<String, String> {
    let (mut section, mut fields) = (String::new(), BTreeMap::new());
    for line in config.lines().filter(|line| !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = if name.starts_with("plan.") { PLAN.to_owned() } else { name.to_owned() };
        } else if let Some((key, value)) = line.split_once(" = ") {
            fields.insert(format!("{section}.{key}"), value.to_owned());
        }
    }
    fields
}

/// A row of the reference.
struct Row {
    default: String,
    takes_effect: String,
}

fn rows() -> BTreeMap<String, Row> {
    let mut rows = BTreeMap::new();
    for line in read(REFERENCE).lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [field, kind, default, _, meaning, takes_effect] = cells[..] else { continue };
        assert!(!kind.is_empty() && !meaning.is_empty(), "{REFERENCE}: {line}");
        let row = Row { default: default.to_owned(), takes_effect: takes_effect.to_owned() };
        assert!(rows.insert(field.trim_matches('`').to_owned(), row).is_none(), "twice: {line}");
    }
    rows
}

#[test]
fn the_reference_has_the_fields_of_the_config_and_no_others() {
    let documented: BTreeSet<String> = rows().into_keys().collect();
    let known = known_fields();
    assert!(known.len() >= 30, "{known:?}");
    assert_eq!(documented, known);
}

#[test]
fn the_reference_has_the_defaults_of_the_sample() {
    let rows = rows();
    for (field, value) in set_in(&read("config/gateway.toml")) {
        let row = rows.get(&field).unwrap_or_else(|| panic!("{REFERENCE} has no {field}"));
        let is_sample = field.starts_with(PLAN) || field == "gateway.admin_key_sha256";
        let wanted = format!("`{value}`");
        assert!(is_sample || row.default == wanted, "{field} is {value}, not {}", row.default);
    }
}

#[test]
fn the_table_of_fields_has_every_field_that_the_parser_takes() {
    let table: BTreeSet<String> = FIELDS.iter().map(|field| field.name.to_owned()).collect();
    assert_eq!(table, known_fields());
}

#[test]
fn the_reference_says_which_fields_need_a_restart() {
    let rows = rows();
    for field in &FIELDS {
        let wanted = if field.restarts.is_empty() { "reload" } else { "restart" };
        let row = rows.get(field.name).unwrap_or_else(|| panic!("{REFERENCE} has no {}", field.name));
        assert_eq!(row.takes_effect, wanted, "{}", field.name);
    }
}

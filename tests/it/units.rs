//! Sizes and durations on the command line: a number without a unit is refused.

use sq_tests::root::Root;
use sq_tests::setup::Setup;

fn refused(root: &Root, arguments: &[&str], told: &[&str]) {
    let registry = root.read("tenants.toml");
    let outcome = root.with_config(&[&["tenants"], arguments].concat());
    assert_eq!(outcome.code(), Some(2), "{arguments:?}: {outcome:?}");
    for words in told {
        assert!(outcome.stderr.contains(words), "{arguments:?}, {words}: {}", outcome.stderr);
    }
    assert_eq!(root.read("tenants.toml"), registry, "{arguments:?}");
}

#[test]
fn size_without_a_unit_is_an_error_that_names_units() {
    let root = Root::new(&Setup::default());
    for quota in ["5", "1073741824", "1.5", "010"] {
        refused(
            &root,
            &["add", "carol", "--quota", quota],
            &[&format!("{quota}GiB"), &format!("{quota}MiB")],
        );
    }
    for quota in ["", "0", "GiB", "five", "-5GiB", "0GiB"] {
        refused(&root, &["add", "carol", &format!("--quota={quota}")], &["64MiB, 1GiB"]);
    }
    for (name, quota, bytes) in
        [("carol", "5GiB", 5_u64 << 30), ("dora", "4096B", 4096), ("eve", "1.5 MiB", 3 << 19)]
    {
        root.with_config(&["tenants", "add", name, "--quota", quota]).success();
        let shown = root.with_config(&["tenants", "show", name]).success();
        assert!(shown.contains(&format!("{bytes} bytes")), "{quota}: {shown}");
    }
}

#[test]
fn duration_without_a_unit_is_an_error_that_names_units() {
    let root = Root::new(&Setup::default());
    for (command, option) in [("add-key", "--expires-in"), ("rotate-key", "--grace")] {
        refused(&root, &[command, "alice", option, "24"], &["24h", "24d"]);
        for wrong in ["", "0s", "soon", "24 parsecs"] {
            refused(&root, &[command, "alice", &format!("{option}={wrong}")], &["24h, 30d"]);
        }
        let help = root.gateway(&["tenants", command, "--help"]).success();
        assert!(["12h or 30d", "24h or 7d"].iter().any(|example| help.contains(example)), "{help}");
    }
    root.with_config(&["tenants", "add-key", "alice", "--expires-in", "12h"]).success();
    root.with_config(&["tenants", "rotate-key", "bob", "--grace", "7d"]).success();
}

/// In a file, a plain number is still a number of bytes.
#[test]
fn files_are_read_as_before() {
    let setup = Setup { limits: "quota = \"1048576\"\nbody = \"65536\"".to_owned(), ..Setup::default() };
    let root = Root::new(&setup);
    assert_eq!(root.with_config(&["check"]).success().trim(), "ok");
    let root = Root::new(&Setup { timeouts: "drain = \"30\"".to_owned(), ..Setup::default() });
    let outcome = root.with_config(&["check"]);
    assert!(outcome.stderr.contains("30s, 30m, 30h or 30d"), "{outcome:?}");
}

/// A mistake that a command would write is reported with the file that it concerns.
#[test]
fn refused_change_names_the_real_registry() {
    let root = Root::new(&Setup::default());
    let registry = root.read("tenants.toml");
    let outcome = root.with_config(&["tenants", "add", "carol", "--plan", "platinum"]);
    assert_eq!(outcome.code(), Some(1), "{outcome:?}");
    let named = format!("{}:", root.registry().display());
    assert!(outcome.stderr.contains(&named) && outcome.stderr.contains("platinum"), "{outcome:?}");
    assert!(outcome.stderr.contains("nothing was changed"), "{outcome:?}");
    assert!(!outcome.stderr.contains("the changed registry"), "{outcome:?}");
    let outcome = root.with_config(&["provision", "--slots", "3", "--plan", "platinum"]);
    assert!(outcome.stderr.contains(&named) && outcome.stderr.contains("platinum"), "{outcome:?}");
    assert_eq!(root.read("tenants.toml"), registry);
}

//! Commands whose output cannot be written: a full disk, a closed descriptor, a reader that has exited. A new key is
//! delivered before anything changes, and a result that cannot be written is a failure.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use sq_tests::mount::{self, Mount};
use sq_tests::root::Root;
use sq_tests::setup::{Setup, digest_of};
use sq_tests::{binaries, process, tree};

/// Where a command's output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    /// A disk without room.
    Full,
    /// The descriptor is closed.
    Closed,
    /// The descriptor is open for reading only.
    ReadOnly,
    /// Standard error is closed too.
    AllClosed,
    /// The reader exited before the command started.
    DeadReader,
    /// The reader exits without reading.
    Indifferent,
    /// `/dev/null`, chosen by the operator.
    Null,
    /// The same, as Python's `DEVNULL` and Node's `ignore` open it.
    NullBothWays,
}

const WANTED: [Output; 2] = [Output::Null, Output::NullBothWays];

const LOST: [Output; 6] = [
    Output::Full,
    Output::Closed,
    Output::ReadOnly,
    Output::AllClosed,
    Output::DeadReader,
    Output::Indifferent,
];

/// Runs a command, and returns its exit code and standard error.
fn run_to(command: &Command, output: Output) -> (Option<i32>, String) {
    let script = match output {
        Output::Closed => r#"exec "$@" >&-"#,
        Output::ReadOnly => r#"exec "$@" 1</dev/null"#,
        Output::AllClosed => r#"exec "$@" >&- 2>&-"#,
        Output::Indifferent => r#"{ "$@"; code=$?; echo "exit $code" >&2; } | true"#,
        Output::Full | Output::DeadReader | Output::Null | Output::NullBothWays => r#"exec "$@""#,
    };
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "sh"]).arg(command.get_program()).args(command.get_args());
    shell.stdin(Stdio::null()).stderr(Stdio::piped()).env_remove("RUST_LOG");
    if let Some(folder) = command.get_current_dir() {
        shell.current_dir(folder);
    }
    match output {
        Output::Full => shell.stdout(File::options().write(true).open("/dev/full").unwrap()),
        Output::NullBothWays => {
            shell.stdout(File::options().read(true).write(true).open("/dev/null").unwrap())
        }
        Output::DeadReader => shell.stdout(std::io::pipe().unwrap().1),
        _ => shell.stdout(Stdio::null()),
    };
    let ended = shell.output().unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    match told.lines().last().and_then(|line| line.strip_prefix("exit ")) {
        Some(code) => (code.parse().ok(), told),
        None => (ended.status.code(), told),
    }
}

/// A folder's files, without the lock.
fn state(root: &Root) -> BTreeMap<std::path::PathBuf, Vec<u8>> {
    // The first command creates the data root's marker.
    let is_lasting = |path: &Path| {
        path.extension().is_some_and(|end| end == "lock" || end == "data-root")
            || path.ends_with(".sq-data-root")
    };
    let files = tree::files(root.path()).into_iter().filter(|path| !is_lasting(path));
    files.map(|path| (path.clone(), fs::read(root.join(&path)).unwrap_or_default())).collect()
}

#[test]
fn a_key_that_cannot_be_handed_over_changes_nothing() {
    let commands: [&[&str]; 6] = [
        &["tenants", "add", "dora"],
        &["tenants", "add-key", "alice", "--scope", "read"],
        &["tenants", "rotate-key", "alice"],
        &["tenants", "rotate-key", "alice", "--grace", "1h"],
        &["provision", "--slots", "3", "--keys-out", "-"],
        &["provision", "--slots", "300", "--keys-out", "-"],
    ];
    let root = Root::new(&Setup::default());
    let before = state(&root);
    for arguments in commands {
        let command = root.gateway_command(&[arguments, &["--root", "."]].concat());
        for output in LOST {
            let (code, told) = run_to(&command, output);
            assert_eq!(code, Some(1), "{arguments:?} to {output:?}: {told}");
            let is_told = told.contains("standard output") && told.contains("nothing was changed");
            assert!(is_told || output == Output::AllClosed, "{arguments:?} to {output:?}: {told}");
            assert!(!told.contains("pmb-v1-"), "{arguments:?} to {output:?}: {told}");
            assert_eq!(state(&root), before, "{arguments:?} to {output:?}");
            assert!(!root.join("data/dora").exists() && !root.join("data/slot-001").exists());
        }
    }
    // An operator may discard the key on purpose.
    for (arguments, nowhere) in commands.iter().flat_map(|command| WANTED.map(|nowhere| (*command, nowhere)))
    {
        let root = Root::new(&Setup::default());
        let command = root.gateway_command(&[arguments, &["--root", "."]].concat());
        let (code, told) = run_to(&command, nowhere);
        assert_eq!(code, Some(0), "{arguments:?} to {nowhere:?}: {told}");
    }
}

/// The pipe buffers the key, and its reader reads it late.
#[test]
fn slow_reader_gets_its_key() {
    let root = Root::new(&Setup::default());
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut command = root.gateway_command(&["tenants", "add", "dora", "--root", "."]);
    let mut child = command.stdout(writer).stderr(Stdio::null()).spawn().unwrap();
    // What holds the other end goes with it.
    drop(command);
    let mut printed = String::new();
    reader.read_to_string(&mut printed).unwrap();
    assert!(child.wait().unwrap().success());
    let key = printed.trim().rsplit(' ').next().unwrap();
    assert!(root.read("tenants.toml").contains(&digest(key)), "{printed}");
}

/// The reader exits as soon as it has the line.
#[test]
fn reader_of_one_line_gets_its_key() {
    let root = Root::new(&Setup::default());
    for (number, reader) in ["head -1", "sed 1q", "grep -m1 -o pmb.*"].iter().enumerate() {
        let command = root.gateway_command(&["tenants", "add", &format!("reader-{number}"), "--root", "."]);
        let script = format!(r#"{{ "$@" || echo "exit $?" >&2; }} | {reader}"#);
        let mut shell = Command::new("sh");
        shell.args(["-c", &script, "sh"]).arg(command.get_program()).args(command.get_args());
        let outcome = process::run(shell.current_dir(root.path()));
        assert_eq!(outcome.stderr.matches("exit").count(), 0, "{reader}: {outcome:?}");
        let key = outcome.stdout.trim().rsplit(' ').next().unwrap();
        assert!(root.read("tenants.toml").contains(&digest(key)), "{reader}: {outcome:?}");
    }
}

#[test]
fn unwritable_result_is_a_failure() {
    let root = Root::new(&Setup::default());
    root.write("old.json", r#"{"tenants": {"tok-1": {"name": "Alice A", "data_dir": "old/alice"}}}"#);
    fs::create_dir_all(root.join("data/alice")).unwrap();
    root.write("data/alice/notes.phext", "text");
    let gateway = |line: &str| root.gateway_command(&line.split(' ').collect::<Vec<_>>());
    let worker = |line: &str| {
        let mut command = Command::new(binaries::worker());
        command.current_dir(root.path()).args(line.split(' '));
        command
    };
    let mut rows = Vec::new();
    for line in [
        "tenants list --root .",
        "tenants list --json --root .",
        "tenants show alice --root .",
        "tenants show alice --json --root .",
        "tenants suspend alice --root .",
        "tenants activate alice --root .",
        "check --config gateway.toml",
        "import old.json --root . --out new.toml",
        "provision --slots 1 --root .",
        "--help",
        "--version",
        "tenants add --help",
    ] {
        rows.push((line, gateway(line)));
    }
    for line in ["fsck data/alice", "--help", "--version"] {
        rows.push((line, worker(line)));
    }
    for (line, command) in &rows {
        for output in [Output::Full, Output::Closed, Output::ReadOnly, Output::AllClosed, Output::DeadReader]
        {
            let (code, told) = run_to(command, output);
            assert_eq!(code, Some(1), "{line} to {output:?}: {told}");
            let is_told = told.contains("cannot write to standard output");
            assert!(is_told || output == Output::AllClosed, "{line} to {output:?}: {told}");
        }
        // `import` and `provision` find their work done, or do it here.
        if !line.starts_with("import") {
            let (code, told) = run_to(command, Output::Null);
            assert_eq!(code, Some(0), "{line}: {told}");
        }
    }
    assert!(!root.join("new.toml").exists(), "a registry of which no change could be reported");
    let (_, told) = run_to(&gateway("tenants suspend bob --root ."), Output::Full);
    assert!(told.contains("done") && told.contains("tenant bob is suspended"), "{told}");
}

fn digest(key: &str) -> String {
    digest_of(key).to_string()
}

/// Every line is whole, and every key is valid.
fn assert_whole(root: &Path, what: &str) -> usize {
    let Ok(text) = fs::read_to_string(root.join("keys.csv")) else { return 0 };
    assert!(text.is_empty() || text.ends_with('\n'), "{what}: {text}");
    let taken = ["tenants.toml", "gateway.toml"]
        .map(|name| fs::read_to_string(root.join(name)).unwrap_or_default())
        .concat();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("tenant,port,key_id,key"), "{what}");
    for line in lines.clone() {
        let fields: Vec<&str> = line.split(',').collect();
        assert_eq!(fields.len(), 4, "{what}: {line}");
        assert!(taken.contains(&digest(fields[3])), "{what}: a dead key: {line}");
    }
    lines.count()
}

/// The command in docs/operations.md.
fn documented_key(keys: &Path, tenant: &str) -> String {
    let page = fs::read_to_string(binaries::workspace().join("docs/operations.md")).unwrap();
    let line = page.lines().find(|line| line.starts_with("KEY=$(awk")).unwrap();
    let line = line.replace("slot-001", tenant).replace("/srv/sq/keys.csv", keys.to_str().unwrap());
    let printed = process::run(Command::new("sh").args(["-c", &format!("{line}; echo \"$KEY\"")])).success();
    printed.trim_end().to_owned()
}

/// Fills the disk at each step in turn.
#[test]
fn keys_that_a_full_disk_takes_in_part_are_taken_back() {
    if !mount::works("a full disk in memory", &[]) {
        return;
    }
    let outside = Root::empty();
    let disk = Mount::tmpfs(&outside.join("disk"), "512k");
    let root = disk.path().join("root");
    let provision =
        |slots: &str| outside.gateway(&["provision", "--slots", slots, "--root", root.to_str().unwrap()]);
    let mut failures = 0;
    for slots in [30, 60] {
        let filler = disk.path().join("filler");
        let mut fill = 512 << 10;
        loop {
            // As much as fits, up to this.
            let _ = fs::write(&filler, vec![0; fill]);
            let outcome = provision(&slots.to_string());
            let keys = assert_whole(&root, &format!("{slots} slots, {fill} bytes: {outcome:?}"));
            assert!(!root.join("tenants.toml.tmp").exists() && !root.join("gateway.toml.tmp").exists());
            if outcome.code() == Some(0) {
                assert_eq!(keys, slots + 1, "the tenants' and the admin's");
                break;
            }
            failures += 1;
            assert!(outcome.stderr.contains("No space left"), "{outcome:?}");
            fs::remove_file(&filler).unwrap();
            fill -= 4 << 10;
        }
        fs::remove_file(&filler).unwrap();
    }
    assert!(failures > 10, "{failures}");
    let key = documented_key(&root.join("keys.csv"), "slot-060");
    assert!(fs::read_to_string(root.join("tenants.toml")).unwrap().contains(&digest(&key)));
}

/// An outdated line: of a removed tenant, or of a command that was killed before it wrote the registry.
#[test]
fn documented_command_finds_the_valid_key() {
    let root = Root::new(&Setup::default());
    let provision = ["provision", "--slots", "2", "--root", "."];
    root.gateway(&provision).success();
    let first = documented_key(&root.join("keys.csv"), "slot-002");
    root.gateway(&["tenants", "remove", "slot-002", "--root", "."]).success();
    root.gateway(&provision).success();
    let second = documented_key(&root.join("keys.csv"), "slot-002");
    let registry = root.read("tenants.toml");
    assert!(!registry.contains(&digest(&first)) && registry.contains(&digest(&second)), "{first} {second}");
}

#[test]
fn torn_line_is_removed_and_whole_line_is_ended() {
    let row = format!("slot-009,1349,k1,pmb-v1-{}", "0a".repeat(16));
    let head = "tenant,port,key_id,key\n";
    for (end, kept) in [
        (&row[..10], ""),
        (&row[..row.len() - 1], ""),
        (&row, row.as_str()),
        ("\0\0\0\0", ""),
        ("slot-009,13\0\0", ""),
    ] {
        let root = Root::new(&Setup::default());
        root.write("keys.csv", &format!("{head}{end}"));
        root.gateway(&["provision", "--slots", "1", "--root", "."]).success();
        let lines: Vec<String> = root.read("keys.csv").lines().map(str::to_owned).collect();
        let kept: Vec<&str> = Some(kept).filter(|line| !line.is_empty()).into_iter().collect();
        assert_eq!(lines[1..lines.len() - 1], kept, "{end:?}");
        assert!(lines.last().unwrap().starts_with("slot-001,1343,k1,pmb-v1-"), "{lines:?}");
    }
    // Foreign text is not removed: the wrong file may have been named by mistake.
    let root = Root::new(&Setup::default());
    root.write("notes.txt", "The keys of May:");
    let before = state(&root);
    let refused = root.gateway(&["provision", "--slots", "1", "--root", ".", "--keys-out", "notes.txt"]);
    assert!(refused.code() == Some(1) && refused.stderr.contains("notes.txt"), "{refused:?}");
    assert_eq!(state(&root), before);
    assert!(!root.join("data/slot-001").exists());
}

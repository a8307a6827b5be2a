//! One request that comes twice under one key.

use super::*;

fn client(text: &str) -> Option<WriteKey> {
    Some(WriteKey::new(KeyOrigin::Client, text))
}

fn request(place: &str, edit: Edit, key: Option<WriteKey>) -> Write {
    Write { at: at(place), edit, expected: None, key }
}

fn ask(store: &mut Store, write: &Write) -> Result<WriteReceipt, StoreError> {
    let (written, commit_points) = store.write(&name("notes"), write)?.into_parts();
    run_jobs(store);
    assert!(store.is_durable(&commit_points)?);
    Ok(written)
}

fn first(bytes: u64) -> WriteReceipt {
    WriteReceipt { bytes, is_replay: false }
}

fn again(bytes: u64) -> WriteReceipt {
    WriteReceipt { bytes, is_replay: true }
}

#[test]
fn a_replay_gets_the_first_answer_and_writes_nothing() {
    for tuning in [Tuning::DEFAULT, large(Duration::ZERO), unsaved()] {
        let disk = SimDisk::new(1);
        let mut store = on_sim(&disk, tuning);
        let write = request(ORIGIN, append("abc"), client("k"));
        assert_eq!(ask(&mut store, &write).unwrap(), first(3));
        put(&mut store, "notes", ORIGIN, "other").unwrap();
        let changes = disk.changes();
        assert_eq!(ask(&mut store, &write).unwrap(), again(3));
        assert_eq!(disk.changes(), changes);
        close(store);
        for disk in [disk.kill(), disk.crash(1)] {
            let mut store = on_sim(&disk, tuning);
            assert_eq!(ask(&mut store, &write).unwrap(), again(3));
            assert_eq!(scroll(&mut store, "notes", ORIGIN), "other");
        }
    }
}

#[test]
fn a_key_outlives_its_journal() {
    let disk = SimDisk::new(1);
    let tuning = Tuning { compact_journal_bytes: 0, ..Tuning::DEFAULT };
    let mut store = on_sim(&disk, tuning);
    let write = request(ORIGIN, append("abc"), client("k"));
    ask(&mut store, &write).unwrap();
    let before = disk.bytes(&journal_file("notes")).unwrap();
    let text = "x".repeat(1000);
    for _ in 0..20 {
        put(&mut store, "notes", ORIGIN, &text).unwrap();
        put(&mut store, "notes", ORIGIN, "last").unwrap();
    }
    let after = disk.bytes(&journal_file("notes")).unwrap();
    assert_ne!(before.get(8..16), after.get(8..16), "a new generation");
    assert!(after.len() < 2000);
    for disk in [disk.clone(), disk.kill()] {
        let mut store = on_sim(&disk, tuning);
        assert_eq!(ask(&mut store, &write).unwrap(), again(3));
        assert_eq!(scroll(&mut store, "notes", ORIGIN), "last");
    }
}

#[test]
fn a_key_stands_for_one_request() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    ask(&mut store, &request(ORIGIN, append("abc"), client("k"))).unwrap();
    let others = [
        request(ORIGIN, append("abd"), client("k")),
        request("1.1.1/1.1.1/1.1.2", append("abc"), client("k")),
        request(ORIGIN, Edit::Replace("abc".into()), client("k")),
        request(ORIGIN, Edit::Remove, client("k")),
    ];
    for other in others {
        assert!(matches!(ask(&mut store, &other), Err(StoreError::KeyReused)), "{other:?}");
    }
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "abc");
}

#[test]
fn keys_of_client_and_gateway_and_of_two_phexts_never_meet() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let gateway = Some(WriteKey::new(KeyOrigin::Gateway, "k"));
    for repeat in [client("k"), gateway] {
        assert_eq!(ask(&mut store, &request(ORIGIN, append("a"), repeat)).unwrap(), first(1));
    }
    let write = request(ORIGIN, append("a"), client("k"));
    assert!(!store.write(&name("other"), &write).unwrap().into_inner_undurable().is_replay);
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "aa");
    assert_eq!(ask(&mut store, &request(ORIGIN, append("a"), gateway)).unwrap(), again(1));
}

#[test]
fn the_key_of_a_write_that_failed_is_free() {
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, unsaved());
    put(&mut store, "notes", ORIGIN, "abc").unwrap();
    let write = request(ORIGIN, append("d"), client("k"));
    disk.fail(Operation::Write, 1, Errno::NOSPC);
    assert!(matches!(ask(&mut store, &write), Err(StoreError::DiskFull { .. })));
    disk.fail(Operation::Write, 1, Errno::IO);
    assert!(matches!(ask(&mut store, &write), Err(StoreError::Io(_))));
    store.set_limits(Limits { quota_bytes: Some(3), ..NO_LIMITS });
    assert!(matches!(ask(&mut store, &write), Err(StoreError::QuotaExceeded { .. })));
    store.set_limits(NO_LIMITS);
    let refused =
        Write { expected: Some(Expected::OneOf(vec![7])), ..request(ORIGIN, append("d"), client("k")) };
    assert!(matches!(ask(&mut store, &refused), Err(StoreError::NotAsExpected)));
    assert_eq!(ask(&mut store, &request(ORIGIN, append("other"), client("k"))).unwrap(), first(5));
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "abcother");
}

#[test]
fn a_replayed_delete_of_nothing_deletes_nothing() {
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, Tuning::DEFAULT);
    let delete = request(ORIGIN, Edit::Remove, client("k"));
    assert_eq!(ask(&mut store, &delete).unwrap(), first(0));
    put(&mut store, "notes", ORIGIN, "someone else's").unwrap();
    assert_eq!(ask(&mut store, &delete).unwrap(), again(0));
    for disk in [disk.kill(), disk.crash(3)] {
        let mut store = on_sim(&disk, Tuning::DEFAULT);
        assert_eq!(ask(&mut store, &delete).unwrap(), again(0));
        assert_eq!(scroll(&mut store, "notes", ORIGIN), "someone else's");
    }
}

#[test]
fn the_answer_to_a_delete_is_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    put(&mut store, "notes", ORIGIN, "five!").unwrap();
    let delete = request(ORIGIN, Edit::Remove, client("k"));
    assert_eq!(ask(&mut store, &delete).unwrap(), first(5));
    assert_eq!(ask(&mut store, &delete).unwrap(), again(5));
}

#[test]
fn a_replay_is_answered_before_the_quota_and_the_precondition_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let empty = xxhash_rust::xxh3::xxh3_128(b"");
    let write =
        Write { expected: Some(Expected::OneOf(vec![empty])), ..request(ORIGIN, append("abc"), client("k")) };
    assert_eq!(ask(&mut store, &write).unwrap(), first(3));
    store.set_limits(Limits { quota_bytes: Some(1), ..NO_LIMITS });
    assert_eq!(ask(&mut store, &write).unwrap(), again(3));
    assert!(matches!(
        ask(&mut store, &Write { key: client("other"), ..write }),
        Err(StoreError::NotAsExpected)
    ));
}

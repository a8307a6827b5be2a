//! The time of day is set while a worker is down: a write that is sent again is still made once.

use sq_tests::faketime;
use sq_tests::lone_worker::LoneWorker;
use sq_tests::root::Root;

#[test]
fn a_repeated_write_is_made_once_however_the_clock_steps() {
    let Some(library) = faketime::library("steps of the clock") else { return };
    for key in ["Idempotency-Key: k", "X-SQ-Repeat-Key: k"] {
        // Behind the lifetime of a gateway's key, and of a client's; a year; and before the first write.
        for offset in ["+11m", "+25h", "+365d", "-25h", "-365d"] {
            let root = Root::empty();
            let insert = |worker: &LoneWorker| {
                let target = "/api/v2/insert?p=notes&c=1.1.1/1.1.1/1.1.1&s=once";
                worker.client.request("GET", target, &format!("{key}\r\n"), None)
            };
            let worker = LoneWorker::start(root.path());
            insert(&worker).ok();
            worker.kill();
            let mut command = LoneWorker::command(root.path());
            library.set(&mut command, offset);
            let worker = LoneWorker::spawn(&mut command).unwrap();
            let answer = insert(&worker);
            assert_eq!(answer.ok(), "Inserted 4 bytes", "{key} {offset}");
            assert_eq!(answer.header("idempotency-replayed"), Some("true"), "{key} {offset}");
            let text = worker.client.get("/api/v2/select?p=notes&c=1.1.1/1.1.1/1.1.1");
            assert_eq!(text.ok(), "once", "{key} {offset}");
            worker.kill();
        }
    }
}

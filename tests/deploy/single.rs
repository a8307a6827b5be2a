//! `compose/single.yaml`: one worker with `SQ_KEY`.

use sq_tests::compose::{PROGRAM_IMAGE, Project};
use sq_tests::engine::Engine;
use sq_tests::process;

const UPDATE: &str = "/api/v2/update?p=notes&c=1.1.1/1.1.1/1.1.1&s=Hello";
const SELECT: &str = "/api/v2/select?p=notes&c=1.1.1/1.1.1/1.1.1";

#[test]
fn one_worker_serves_who_has_its_key_and_keeps_what_it_was_told() {
    let Some(engine) = Engine::start("single.yaml", &[PROGRAM_IMAGE]) else { return };
    let without = Project::single("");
    let refused = without.compose(&engine, &["up", "--detach"]);
    assert!(refused.code() != Some(0) && refused.stderr.contains("set SQ_KEY"), "{refused:?}");

    let project = Project::single("SQ_KEY=only-this-one\n");
    project.up(&engine);
    let ask = |key: &str, target: &str| {
        let mut curl = std::process::Command::new("curl");
        curl.args(["-sS", "-w", " %{http_code}", "-H", &format!("Authorization: Bearer {key}")]);
        process::run(curl.arg(format!("http://127.0.0.1:1341{target}"))).success()
    };
    assert_eq!(ask("only-this-one", UPDATE), "Updated 5 bytes 200");
    assert!(ask("another", SELECT).ends_with(" 401"));
    project.compose(&engine, &["down"]).success();
    project.up(&engine);
    assert_eq!(ask("only-this-one", SELECT), "Hello 200", "the volume outlives the container");
}

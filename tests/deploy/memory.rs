//! The pool's memory limit is the kernel's: who fills a worker loses that worker, and nobody else notices.

use sq_tests::compose::{HEALTHY_PATIENCE, NGINX_IMAGE, PROGRAM_IMAGE, Project};
use sq_tests::engine::Engine;
use sq_tests::{notice, wait};

use crate::customer::{Customer, bearer};

/// A scroll near the limit of a body.
const SCROLL_BYTES: usize = 60 << 20;

/// Many times the limit of the pool.
const MOST_SCROLLS: usize = 40;

#[test]
fn who_fills_a_worker_is_cut_off_and_the_others_go_on() {
    let Some(engine) = Engine::start("the memory limit", &[PROGRAM_IMAGE, NGINX_IMAGE]) else { return };
    let project = Project::whole("SQ_POOL_MEMORY=384m\n");
    project.up(&engine);
    let keys = project.provision(&engine, 3);
    project.edit_config(&engine, |config| {
        config.to_owned() + "\n[limits]\nper_ip = \"off\"\nper_tenant = \"off\"\nquota = \"10GiB\"\n"
    });
    wait::until("they are served", || {
        project.customer().ask(&["-H", &bearer(&keys[0])], "/api/v2/phexts").0 == 200
    });
    let pool = project.container(&engine, "pool");
    let other = Customer::start(project.customer(), &keys[1]);

    let text = project.path("scroll.txt");
    std::fs::write(&text, "greedy ".repeat(SCROLL_BYTES / 7)).expect("a long text");
    let body = format!("@{}", text.display());
    let header = bearer(&keys[0]);
    let write = |number: usize| {
        let target = format!("/api/v2/update?p=greedy&c=1.1.1/1.1.1/1.1.{number}");
        project.customer().ask(&["-H", &header, "--data-binary", &body], &target)
    };
    let (written, refusal) = (1..=MOST_SCROLLS)
        .map(|number| (number, write(number)))
        .find(|(_, (status, _))| *status != 200)
        .expect("a worker that takes more than its pool may have");
    assert!([502, 503].contains(&refusal.0), "{refusal:?}");

    let from = other.acknowledged();
    let goes_on = wait::within(HEALTHY_PATIENCE, || (other.acknowledged() > from + 20).then_some(()));
    assert!(goes_on.is_some(), "the neighbour is not served any more");
    assert_eq!(project.container(&engine, "pool").pid, pool.pid, "the pool itself was ended");
    let logs = project.compose(&engine, &["logs", "pool"]).stdout;
    let crashes: Vec<&str> = logs.lines().filter(|line| line.contains("worker crashed")).collect();
    // The kernel ends with SIGKILL; a worker's own limit would be an abort.
    let is_the_kernels = |line: &&str| line.contains("slot-001") && line.contains("signal: 9");
    assert!(crashes.iter().all(is_the_kernels) && !crashes.is_empty(), "{logs}");
    let account = other.stop();
    assert_eq!(account.sent, account.acknowledged, "a request of the neighbour failed");
    let acknowledged = written - 1;
    notice::say(&format!(
        "384 MiB for the pool: cut off after {acknowledged} scrolls of 60 MiB with {}; the neighbour: {account:?}",
        refusal.0
    ));

    // With more room, all that was acknowledged is there.
    let more = project.with_more("SQ_POOL_MEMORY=6g\n");
    more.up(&engine);
    for number in 1..=acknowledged {
        let target = format!("/api/v2/select?p=greedy&c=1.1.1/1.1.1/1.1.{number}");
        let (status, text) = more.customer().ask(&["-H", &header], &target);
        assert_eq!((status, text.len()), (200, SCROLL_BYTES / 7 * 7), "scroll {number}");
    }
}

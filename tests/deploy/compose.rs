//! `compose/compose.yaml` on an engine: it comes up from nothing, and comes back by itself from whatever ends it, with
//! every scroll that was acknowledged.

use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sq_tests::compose::{HEALTHY_PATIENCE, NGINX_IMAGE, PROGRAM_IMAGE, Project};
use sq_tests::engine::Engine;
use sq_tests::{notice, process, wait};

use crate::customer::{Customer, bearer};
use crate::page::commands;

/// What the services may take to be healthy, from nothing.
const COMES_UP_WITHIN: Duration = Duration::from_secs(30);

const SERVICES: [&str; 3] = ["pool", "gateway", "nginx"];

/// Lines that must have been acknowledged before, and after, something is ended.
const LINES: usize = 20;

fn without_rates(config: &str) -> String {
    config.to_owned() + "\n[limits]\nper_ip = \"off\"\nper_tenant = \"off\"\n"
}

#[test]
fn comes_up_from_nothing_and_back_from_everything() {
    let images = [PROGRAM_IMAGE, NGINX_IMAGE];
    let Some(mut engine) = Engine::start("compose.yaml", &images) else { return };
    let project = Project::whole("");
    let took = project.up(&engine);
    notice::say(&format!("compose.yaml: all healthy after {:.1} s", took.as_secs_f32()));
    assert!(took < COMES_UP_WITHIN, "{took:?}");

    let (status, body) = project.customer().ask(&[], "/api/v2/version");
    assert_eq!((status, body.contains("missing_key")), (401, true), "{body}");
    let keys = project.provision(&engine, 500);
    assert_eq!(keys.len(), 500);
    admin_answers(&project);
    project.edit_config(&engine, without_rates);
    wait::until("the first tenant is served, without a rate limit", || {
        let answers =
            [(); 3].map(|()| project.customer().ask(&["-H", &bearer(&keys[0])], "/api/v2/phexts").0);
        answers == [200; 3]
    });
    customers_survive(&mut engine, &project, &keys);
    a_backup_can_be_restored(&engine, &project, &keys[0]);
    drains_at_a_stop(&engine, &project, &keys[2]);
}

/// The admin API has the key of the secret, and is published on this machine's loopback address.
fn admin_answers(project: &Project) {
    let key = std::fs::read_to_string(project.path("secrets/admin_key")).expect("the admin's key");
    let ask = |key: &str| {
        let mut curl = std::process::Command::new("curl");
        curl.args(["-sS", "-o", "/dev/null", "-w", "%{http_code}", "-H", &bearer(key)]);
        process::run(curl.arg("http://127.0.0.1:1338/admin/tenants")).success()
    };
    assert_eq!((ask(key.trim()), ask("another")), ("200".to_owned(), "401".to_owned()));
}

/// Two of them write through all that happens.
fn customers_survive(engine: &mut Engine, project: &Project, keys: &[String]) {
    let customers =
        [Customer::start(project.customer(), &keys[0]), Customer::start(project.customer(), &keys[499])];
    let served = |what: &str| {
        let from = customers.each_ref().map(Customer::acknowledged);
        let go_on =
            || customers.iter().zip(from).all(|(customer, from)| customer.acknowledged() > from + LINES);
        let served = wait::within(HEALTHY_PATIENCE, || go_on().then_some(()));
        assert!(served.is_some(), "nobody is served any more: {what}");
    };
    let watch = |engine: &Engine, what: &str, begun: Instant| {
        project.wait_healthy(engine);
        served(what);
        notice::say(&format!("{what}: healthy and served after {:.1} s", begun.elapsed().as_secs_f32()));
    };
    served("before anything happened");
    for service in SERVICES {
        let begun = Instant::now();
        let before = project.container(engine, service);
        process::signal(before.pid, Signal::KILL);
        wait::until("its restart", || {
            let now = project.container(engine, service);
            now.restarts > before.restarts && now.pid != 0
        });
        watch(engine, &format!("kill -9 of {service}"), begun);
    }
    let begun = Instant::now();
    project.compose(engine, &["restart"]).success();
    watch(engine, "docker compose restart", begun);

    let begun = Instant::now();
    engine.stop();
    engine.resume();
    watch(engine, "the engine stopped and started", begun);

    let begun = Instant::now();
    engine.crash();
    engine.resume();
    watch(engine, "kill -9 of the engine and of every container at once", begun);

    for customer in customers {
        let account = customer.stop();
        notice::say(&format!("{account:?}, all of them there once"));
    }
}

/// By the very commands of the page, which speak of the first tenant.
fn a_backup_can_be_restored(engine: &Engine, project: &Project, key: &str) {
    let ask = |command: &str, text: &str| {
        let target = format!("/api/v2/{command}?p=notes&c=1.1.1/1.1.1/1.1.1{text}");
        project.customer().ask(&["-H", &bearer(key)], &target)
    };
    assert_eq!(ask("update", "&s=good").0, 200);
    let commands = commands("docs/containers.md", "Back up and restore");
    let (back_up, restore) = commands.split_at(commands.find("docker compose stop").expect("the restore"));
    project.shell(engine, back_up).success();
    assert_eq!(ask("update", "&s=spoilt").0, 200);
    // The shell that restores is another.
    let volumes: String = back_up
        .lines()
        .filter(|line| line.contains("_VOLUME=$(") || line.starts_with("BACKUP="))
        .map(|line| line.to_owned() + "\n")
        .collect();
    project.shell(engine, &(volumes + restore)).success();
    project.wait_healthy(engine);
    wait::until("what the backup had", || ask("select", "") == (200, "good".to_owned()));
}

/// An upload that is on its way is finished, inside the grace period, by whoever is told to stop.
fn drains_at_a_stop(engine: &Engine, project: &Project, key: &str) {
    let text = project.path("upload.txt");
    std::fs::write(&text, "drained ".repeat(64 << 10)).expect("a text to upload");
    let body = format!("@{}", text.display());
    for services in [&["gateway"][..], &["pool"], &[]] {
        let arguments = ["-H", &bearer(key), "--limit-rate", "128K", "--data-binary", &body];
        let mut upload = project.customer().command(&arguments, "/api/v2/update?p=drain&c=1.1.1/1.1.1/1.1.1");
        let upload = upload.stdout(Stdio::piped()).spawn().expect("curl");
        wait::until("the upload is on its way", || in_flight() > 0);
        let begun = Instant::now();
        project.compose(engine, &[&["stop"], services].concat()).success();
        let took = begun.elapsed();
        let answer = upload.wait_with_output().expect("curl's end");
        let answer = String::from_utf8_lossy(&answer.stdout).into_owned();
        assert_eq!(answer, format!("Updated {} bytes\n200", (64 << 10) * 8), "{}", project.logs(engine));
        let told = if services.is_empty() { &SERVICES[..] } else { services };
        for service in told {
            let stopped = project.container(engine, service);
            assert_eq!((stopped.status.as_str(), stopped.exit_code), ("exited", 0), "{service}");
        }
        notice::say(&format!("stop of {told:?} with an upload in flight: {:.1} s", took.as_secs_f32()));
        if !services.is_empty() {
            project.compose(engine, &["start"]).success();
            project.wait_healthy(engine);
        }
    }
}

/// How many requests the gateway has at the moment, by its metrics.
fn in_flight() -> u32 {
    let mut curl = std::process::Command::new("curl");
    let metrics = process::run(curl.args(["-sS", "http://127.0.0.1:1338/metrics"])).stdout;
    let counts = metrics.lines().filter(|line| line.starts_with("sq_gateway_in_flight{"));
    counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u32>().ok()).sum()
}

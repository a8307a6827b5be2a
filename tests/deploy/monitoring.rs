//! The profile `monitoring` of `compose/compose.yaml`: Prometheus reaches gateway and pool on the containers' network, and
//! has the alerts. (Grafana is in no package of Debian's: nobody has started it here.)

use serde_json::Value;
use sq_tests::binaries::workspace;
use sq_tests::compose::{HEALTHY_PATIENCE, NGINX_IMAGE, PROGRAM_IMAGE, Project};
use sq_tests::engine::Engine;
use sq_tests::{process, wait};

const PROMETHEUS_IMAGE: &str = "sq-base/prometheus:latest";

#[test]
fn prometheus_scrapes_both_and_has_the_alerts() {
    let images = [PROGRAM_IMAGE, NGINX_IMAGE, PROMETHEUS_IMAGE];
    let Some(engine) = Engine::start("the profile monitoring", &images) else { return };
    let project = Project::whole(&format!("SQ_PROMETHEUS_IMAGE={PROMETHEUS_IMAGE}\n"));
    project.up(&engine);
    project.compose(&engine, &["--profile", "monitoring", "up", "--detach", "prometheus"]).success();
    let form = "{{(index .NetworkSettings.Networks \"sq_slots\").IPAddress}}";
    let id = project.container(&engine, "prometheus").id;
    let address = engine.docker(&["inspect", "--format", form, &id]).success();
    let ask = |what: &str| {
        let url = format!("http://{}:9090/api/v1/{what}", address.trim());
        let answer = process::run(std::process::Command::new("curl").args(["-sS", &url])).stdout;
        serde_json::from_str::<Value>(&answer).unwrap_or_default()
    };
    let healthy = || {
        let targets = ask("targets");
        let targets = targets.pointer("/data/activeTargets")?.as_array()?;
        let is_up = |target: &Value| target.pointer("/health").and_then(Value::as_str) == Some("up");
        (targets.len() == 2 && targets.iter().all(is_up)).then_some(())
    };
    assert!(
        wait::within(HEALTHY_PATIENCE, healthy).is_some(),
        "{}\n{}",
        ask("targets"),
        project.logs(&engine)
    );
    let rules = ask("rules");
    let groups = rules.pointer("/data/groups").and_then(Value::as_array).expect("groups of rules");
    let alerts = groups.iter().filter_map(|group| group.get("rules")?.as_array()).map(Vec::len);
    let ours = std::fs::read_to_string(workspace().join("config/prometheus/alerts.yml")).expect("the alerts");
    assert_eq!(alerts.sum::<usize>(), ours.matches("- alert:").count(), "{rules}");
}

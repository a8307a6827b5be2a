//! What is shipped for operators is true: alert rules, dashboard and runbook fit each other and the metrics, and the
//! real Prometheus reads from gateway and pool what clients did, to the request.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::{Value, json};
use sq_tests::client::Connection;
use sq_tests::deployment::Deployment;
use sq_tests::prometheus::{FOLDER, Prometheus, check_metrics, promtool, works};
use sq_tests::scrape::{Scrape, reload_by, reloads};
use sq_tests::setup::{Setup, Tenant};
use sq_tests::test_time::test_time;
use sq_tests::{binaries, notice, process, wait};

const DASHBOARD: &str = "config/grafana/sq-gateway.json";
const RUNBOOK: &str = "docs/alerts.md";

/// Every metric and its labels.
const METRICS: [(&str, &[&str]); 18] = [
    ("sq_gateway_requests_total", &["command", "status", "tenant"]),
    ("sq_gateway_request_duration_seconds", &["command"]),
    ("sq_gateway_upstream_duration_seconds", &["command"]),
    ("sq_gateway_rejected_total", &["code"]),
    ("sq_gateway_connections", &[]),
    ("sq_gateway_data_root_missing", &[]),
    ("sq_gateway_in_flight", &["tenant"]),
    ("sq_gateway_config_reloads_total", &["result"]),
    ("sq_gateway_tenants", &["state"]),
    ("sq_gateway_limiter_keys", &["limiter"]),
    ("sq_pool_workers", &["state"]),
    ("sq_pool_worker_starts_total", &["reason", "tenant"]),
    ("sq_pool_cold_start_seconds", &[]),
    ("sq_pool_worker_crashes_total", &["tenant"]),
    ("sq_pool_storage_bytes", &["tenant"]),
    ("sq_pool_disk_bytes", &["tenant"]),
    ("sq_pool_quota_bytes", &["tenant"]),
    ("sq_pool_directories_missing", &[]),
];

/// The metric that a name in an expression is of: a histogram has three.
fn metric_of(name: &str) -> &str {
    let ends = ["_bucket", "_sum", "_count"];
    ends.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)
}

/// The names in an expression that look like ours.
fn metrics_in(expression: &str) -> BTreeSet<&str> {
    let words = expression.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(|word| word.starts_with("sq_")).map(metric_of).collect()
}

fn assert_known(place: &str, expression: &str) {
    for name in metrics_in(expression) {
        assert!(METRICS.iter().any(|(known, _)| *known == name), "{place}: no metric {name}: {expression}");
    }
}

fn read(path: impl AsRef<Path>) -> String {
    let path = binaries::workspace().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn promtool_takes_the_configuration_and_each_alert_fires_when_it_should() {
    if !works("the check of config/prometheus") {
        return;
    }
    promtool(&["check", "config", "prometheus.yml"]).success();
    promtool(&["check", "rules", "alerts.yml"]).success();
    promtool(&["test", "rules", "alerts_test.yml"]).success();
    let tests = read(Path::new(FOLDER).join("alerts_test.yml"));
    for alert in alerts() {
        assert!(tests.contains(&format!("alertname: {alert}\n")), "{alert} is not tested");
        assert!(tests.contains(&format!("alertname: {alert}, ")), "{alert} is not seen silent");
    }
}

/// The names of the alerts that are shipped.
fn alerts() -> Vec<String> {
    let rules = read(Path::new(FOLDER).join("alerts.yml"));
    let names = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let names: Vec<String> = names.map(str::to_owned).collect();
    assert!(!names.is_empty(), "no alert in {rules}");
    names
}

#[test]
fn each_alert_has_its_heading_in_the_runbook() {
    let headings: Vec<String> =
        read(RUNBOOK).lines().filter_map(|line| line.strip_prefix("### ")).map(str::to_owned).collect();
    for alert in alerts() {
        assert!(headings.contains(&alert), "{RUNBOOK} has no heading {alert}");
    }
    for heading in headings.iter().filter(|heading| heading.starts_with("Sq")) {
        assert!(alerts().contains(heading), "{RUNBOOK}: there is no alert {heading}");
    }
}

/// Every string under a key, however deep.
fn strings_under<'v>(value: &'v Value, key: &str, found: &mut Vec<&'v str>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get(key).and_then(Value::as_str));
            members.values().for_each(|member| strings_under(member, key, found));
        }
        Value::Array(members) => members.iter().for_each(|member| strings_under(member, key, found)),
        _ => {}
    }
}

#[test]
fn the_dashboard_asks_for_metrics_that_are_there_in_expressions_that_parse() {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).expect("JSON");
    let mut expressions = Vec::new();
    strings_under(&dashboard, "expr", &mut expressions);
    let shown: BTreeSet<&str> = expressions.iter().flat_map(|expression| metrics_in(expression)).collect();
    expressions.iter().for_each(|expression| assert_known(DASHBOARD, expression));
    for (metric, _) in METRICS {
        assert!(shown.contains(metric), "{DASHBOARD} does not show {metric}");
    }
    assert_panels(&dashboard);
    if !works("the check of the dashboard's expressions") {
        return;
    }
    // promtool 2.42 parses expressions in rules only. JSON is YAML.
    let rule = |(number, expression): (usize, &&str)| json!({"record": format!("panel:{number}"), "expr": expression.replace("$__rate_interval", "1m")});
    let rules: Vec<Value> = expressions.iter().enumerate().map(rule).collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dashboard.yml");
    fs::write(&file, json!({"groups": [{"name": "dashboard", "rules": rules}]}).to_string()).unwrap();
    promtool(&["check", "rules", file.to_str().unwrap()]).success();
}

/// What Grafana shows without complaint: each panel has a number of its own, a place of its own in a grid of 24
/// columns, and the data source of the variable.
fn assert_panels(dashboard: &Value) {
    let panels = dashboard["panels"].as_array().expect("the panels");
    let (mut numbers, mut places) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels {
        assert!(numbers.insert(panel["id"].as_u64().expect("a number")), "a number twice: {panel}");
        let [x, y, width, height] =
            ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().expect("a place"));
        assert!(x + width <= 24, "too wide: {panel}");
        let mut cells = (y..y + height).flat_map(|row| (x..x + width).map(move |column| (row, column)));
        assert!(cells.all(|cell| places.insert(cell)), "over another: {panel}");
        let is_row = panel["type"] == "row";
        assert!(is_row || panel["datasource"]["uid"] == "${datasource}", "another data source: {panel}");
    }
}

/// Four active tenants, of whom one may store little and one never comes, and one of each other state.
fn setup() -> Setup {
    let mut tenants: Vec<Tenant> = ["alice", "bob", "carol", "erin"]
        .iter()
        .zip(1341..)
        .map(|(name, port)| Tenant::new(name, port))
        .collect();
    tenants[2].plan = Some("tiny");
    tenants.push(Tenant::new("dave", 1345).in_state("suspended"));
    tenants.push(Tenant::new("frank", 1346).in_state("reserved"));
    Setup {
        tenants,
        limits: "per_ip = \"1000000/day\"\nfailed_keys = \"1000000/day\"".to_owned(),
        plans: "[plan.tiny]\nquota = \"1KiB\"\n".to_owned(),
        ..Setup::default()
    }
}

const SCROLL: &str = "p=text&c=1.1.1/1.1.1/1.1.1";

/// So many requests of each kind, whoever calls.
fn one_round(running: &Deployment, from: &str) {
    let forwarded = format!("X-Forwarded-For: {from}\r\n");
    let get = |tenant: Option<&str>, target: &str| {
        let client = tenant.map_or_else(|| running.client(Some("guess")), |tenant| running.client_of(tenant));
        client.request("GET", &format!("/api/v2/{target}"), &forwarded, None)
    };
    for _ in 0..3 {
        get(Some("alice"), &format!("select?{SCROLL}")).ok();
    }
    for _ in 0..2 {
        get(Some("alice"), &format!("update?{SCROLL}&s=Hello")).ok();
        get(None, &format!("select?{SCROLL}")).problem(401, "invalid_key");
    }
    get(Some("bob"), &format!("insert?{SCROLL}&s=more")).ok();
    get(Some("alice"), "select?p=text&c=nowhere").problem(400, "invalid_coordinate");
    get(Some("alice"), "nothing").problem(404, "unknown_route");
    get(Some("dave"), &format!("select?{SCROLL}")).problem(403, "tenant_suspended");
    get(Some("carol"), &format!("select?{SCROLL}")).ok();
    let much = "x".repeat(2000);
    get(Some("carol"), &format!("update?{SCROLL}&s={much}")).problem(507, "quota_exceeded");
}

/// How many requests a round has.
const ROUND: f64 = 13.0;

/// What so many rounds have counted.
fn expected_of_rounds(rounds: f64) -> Vec<(&'static str, f64)> {
    vec![
        ("sq_gateway_requests_total", ROUND * rounds),
        (r#"sq_gateway_requests_total{tenant="alice", command="select", status="200"}"#, 3.0 * rounds),
        (r#"sq_gateway_requests_total{tenant="alice", command="update", status="200"}"#, 2.0 * rounds),
        (r#"sq_gateway_requests_total{tenant="bob", command="insert", status="200"}"#, rounds),
        (r#"sq_gateway_requests_total{tenant="carol", command="select", status="200"}"#, rounds),
        (r#"sq_gateway_requests_total{tenant="carol", command="update", status="507"}"#, rounds),
        (r#"sq_gateway_requests_total{tenant="-", status="401"}"#, 2.0 * rounds),
        (r#"sq_gateway_requests_total{status="400"}"#, rounds),
        (r#"sq_gateway_requests_total{status="404", command="-"}"#, rounds),
        (r#"sq_gateway_requests_total{status="403"}"#, rounds),
        ("sq_gateway_request_duration_seconds_count", ROUND * rounds),
        (r#"sq_gateway_request_duration_seconds_count{command="update"}"#, 3.0 * rounds),
        (r#"sq_gateway_request_duration_seconds_bucket{command="insert", le="+Inf"}"#, rounds),
        (r#"sq_gateway_upstream_duration_seconds_count{command="update"}"#, 3.0 * rounds),
        (r#"sq_gateway_upstream_duration_seconds_count{command="insert"}"#, rounds),
        ("sq_gateway_rejected_total", 6.0 * rounds),
        (r#"sq_gateway_rejected_total{code="invalid_key"}"#, 2.0 * rounds),
        (r#"sq_gateway_rejected_total{code="invalid_coordinate"}"#, rounds),
        (r#"sq_gateway_rejected_total{code="unknown_route"}"#, rounds),
        (r#"sq_gateway_rejected_total{code="tenant_suspended"}"#, rounds),
        (r#"sq_gateway_rejected_total{code="quota_exceeded"}"#, rounds),
    ]
}

/// Waits until Prometheus has each of these sums.
fn assert_sums(prometheus: &Prometheus, expected: &[(&str, f64)]) {
    let mut wrong = Vec::new();
    let is_right = wait::within(wait::PATIENCE, || {
        let found =
            expected.iter().map(|(expression, wanted)| (expression, wanted, prometheus.sum(expression)));
        wrong = found.filter(|(_, wanted, found)| *found != Some(**wanted)).collect();
        wrong.is_empty().then_some(())
    });
    assert!(is_right.is_some(), "as Prometheus has it (expression, wanted, found):\n{wrong:#?}");
}

/// An upload of alice's that has begun.
fn begin_upload(running: &Deployment) -> Connection {
    let client = running.client_of("alice");
    let mut upload = client.connect();
    let head = client.head("POST", &format!("/api/v2/update?{SCROLL}"));
    upload.send((head + "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n").as_bytes());
    assert_eq!(upload.answer().status, 100);
    upload
}

/// Whose alerts fire.
fn firing(prometheus: &Prometheus) -> Vec<String> {
    let is_firing = |rule: &&Value| rule["state"] == "firing";
    let rules = prometheus.alert_rules();
    rules.iter().filter(is_firing).map(|rule| rule["name"].as_str().unwrap().to_owned()).collect()
}

fn assert_rules_are_loaded(prometheus: &Prometheus) {
    let is_evaluated = |rule: &Value| rule["health"] != "unknown";
    wait::until("each rule's first evaluation", || prometheus.alert_rules().iter().all(is_evaluated));
    let rules = prometheus.alert_rules();
    assert_eq!(rules.len(), alerts().len());
    for rule in rules {
        let name = rule["name"].as_str().expect("a name");
        let severity = rule["labels"]["severity"].as_str().unwrap_or_default();
        assert!(["critical", "warning", "info"].contains(&severity), "{name}: severity {severity:?}");
        for annotation in ["summary", "description"] {
            assert!(rule["annotations"][annotation].is_string(), "{name} has no {annotation}");
        }
        assert_eq!(rule["annotations"]["runbook"], format!("{RUNBOOK}#{}", name.to_lowercase()));
        assert_known(name, rule["query"].as_str().expect("an expression"));
        assert_eq!(rule["health"], "ok", "{rule}");
    }
}

fn assert_every_metric_has_its_labels(prometheus: &Prometheus) {
    for (metric, labels) in METRICS {
        let name = if metric.ends_with("_seconds") { format!("{metric}_count") } else { metric.to_owned() };
        let found = prometheus.query(&name);
        assert!(!found.is_empty(), "no {name}");
        for (series, _) in found {
            let of_ours = |label: &&String| !["instance", "job"].contains(&label.as_str());
            let series: Vec<&String> = series.keys().filter(of_ours).collect();
            assert_eq!(series, labels, "{name}");
        }
    }
}

/// The bytes of a tenant's phexts on disk.
fn stored_bytes(running: &Deployment, tenant: &str) -> f64 {
    let files = running.stored().into_iter().filter(|(path, _)| {
        path.extension().is_some_and(|end| end == "phext")
            && path.components().any(|part| part.as_os_str() == tenant)
    });
    let bytes: usize = files.map(|(_, bytes)| bytes.len()).sum();
    u32::try_from(bytes).map(f64::from).expect("little")
}

#[test]
fn prometheus_has_every_metric_right_to_the_request() {
    if !works("the scrape by Prometheus") {
        return;
    }
    let running = Deployment::start(&setup());
    let prometheus = Prometheus::start(&running);
    assert_rules_are_loaded(&prometheus);
    let (begun, mut rounds) = (Instant::now(), 0.0);
    while begun.elapsed() < test_time() {
        rounds += 1.0;
        one_round(&running, "203.0.113.1");
    }
    one_round(&running, "203.0.113.2");
    rounds += 1.0;
    assert_sums(&prometheus, &expected_of_rounds(rounds));
    assert_sums(&prometheus, &expected_at_rest(&running));
    assert_eq!(firing(&prometheus), Vec::<String>::new());

    let mut upload = begin_upload(&running);
    let accepted = reloads(&running, "accepted");
    let registry = running.read("tenants.toml");
    reload_by(&running, "rejected", || running.write_registry("[[tenant]]\n"));
    reload_by(&running, "accepted", || running.write_registry(&registry));
    assert_sums(
        &prometheus,
        &[
            (r#"sq_gateway_config_reloads_total{result="rejected"}"#, 1.0),
            (r#"sq_gateway_config_reloads_total{result="accepted"}"#, accepted + 1.0),
            (r#"sq_gateway_in_flight{tenant="alice"}"#, 1.0),
            ("sq_gateway_in_flight", 1.0),
            ("sq_gateway_connections", 1.0),
        ],
    );
    wait::until("the alert of a rejected reload", || firing(&prometheus) == ["SqReloadRejected"]);
    upload.send(b"Hello");
    assert_eq!(upload.answer().ok(), "Updated 5 bytes");
    drop(upload);

    let worker = running.worker_of("alice").expect("her worker");
    process::signal(worker.pid, Signal::KILL);
    wait::until("her next worker", || {
        running.client_of("alice").get("/api/v2/phexts").status == 200
            && running.worker_of("alice").is_some_and(|next| next.pid != worker.pid)
    });
    assert_sums(
        &prometheus,
        &[
            (r#"sq_pool_worker_crashes_total{tenant="alice"}"#, 1.0),
            ("sq_pool_worker_crashes_total", 1.0),
            (r#"sq_pool_worker_starts_total{tenant="alice"}"#, 2.0),
            ("sq_gateway_in_flight", 0.0),
            ("sq_gateway_connections", 0.0),
        ],
    );
    assert_every_metric_has_its_labels(&prometheus);
    assert_promtool_takes_both(&running);
    notice::say(&format!("prometheus: {} requests in {:?}, each counted", ROUND * rounds, begun.elapsed()));
}

/// What the gauges of both, and the counters of the pool, say when nobody asks any more.
fn expected_at_rest(running: &Deployment) -> Vec<(&'static str, f64)> {
    let gibibyte = f64::from(1 << 30);
    vec![
        (r#"sq_gateway_tenants{state="active"}"#, 4.0),
        (r#"sq_gateway_tenants{state="suspended"}"#, 1.0),
        (r#"sq_gateway_tenants{state="reserved"}"#, 1.0),
        (r#"sq_gateway_limiter_keys{limiter="per_ip"}"#, 2.0),
        (r#"sq_gateway_limiter_keys{limiter="failed_keys"}"#, 2.0),
        ("sq_gateway_in_flight", 0.0),
        ("sq_gateway_connections", 0.0),
        (r#"sq_pool_workers{state="running"}"#, 3.0),
        (r#"sq_pool_workers{state="sleeping"}"#, 1.0),
        (r#"sq_pool_workers{state="backing_off"}"#, 0.0),
        (r#"sq_pool_workers{state="stopping"}"#, 0.0),
        (r#"sq_pool_worker_starts_total{tenant="alice"}"#, 1.0),
        ("sq_pool_worker_starts_total", 3.0),
        ("sq_pool_cold_start_seconds_count", 3.0),
        ("sq_pool_worker_crashes_total", 0.0),
        (r#"sq_pool_storage_bytes{tenant="alice"}"#, stored_bytes(running, "alice")),
        (r#"sq_pool_storage_bytes{tenant="bob"}"#, stored_bytes(running, "bob")),
        (r#"sq_pool_storage_bytes{tenant="erin"}"#, 0.0),
        (r#"sq_pool_quota_bytes{tenant="alice"}"#, gibibyte),
        (r#"sq_pool_quota_bytes{tenant="carol"}"#, 1024.0),
    ]
}

fn assert_promtool_takes_both(running: &Deployment) {
    let (gateway, pool) = (Scrape::of_gateway(running.address), Scrape::of_pool(running.address));
    for (name, scrape) in [("gateway", gateway), ("pool", pool)] {
        let file = format!("{name}.metrics");
        running.write(&file, &scrape.text);
        let outcome = check_metrics(&running.join(&file));
        assert_eq!((outcome.code(), outcome.stderr.as_str()), (Some(0), ""), "{name}");
    }
}

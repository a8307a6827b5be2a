//! The config's defaults, and that each mistake is found where it stands.

use super::*;

fn parse(text: &str) -> Result<Config, Mistakes> {
    Config::parse(Path::new("/etc/sq/gateway.toml"), text)
}

#[test]
fn the_documented_sample_is_the_default() {
    let sample = include_str!("../../../config/gateway.toml");
    let mut config = parse(sample).unwrap();
    assert!(config.gateway.admin_key.take().is_some(), "the sample shows where the admin key goes");
    assert!(config.plans.remove("founding").is_some(), "the sample shows a plan");
    assert_eq!(config, parse("").unwrap());
}

#[test]
fn paths_are_relative_to_the_file() {
    let config = parse("[gateway]\ntenants = \"t.toml\"\ndata_root = \"/data/sq\"").unwrap();
    assert_eq!(config.gateway.tenants, Path::new("/etc/sq/t.toml"));
    assert_eq!(config.gateway.data_root, Path::new("/data/sq"));
}

#[test]
fn every_mistake_is_reported_with_its_line() {
    let text =
        "[gateway]\nlisten = \"here\"\nthreads = -1\n\n[limits]\nper_ip = \"100/fortnight\"\nburst = 3\n";
    let mistakes = parse(text).unwrap_err().0;
    let lines: Vec<_> = mistakes.iter().map(|mistake| mistake.position.unwrap().0).collect();
    assert_eq!(lines, [2, 3, 6, 7], "{mistakes:?}");
    assert!(mistakes[3].message.contains("unknown field burst"));
    assert!(mistakes[0].to_string().starts_with("/etc/sq/gateway.toml:2:10: listen = \"here\""));
}

#[test]
fn a_limit_may_be_off_and_a_plan_overrides() {
    let text = "[limits]\nper_ip = \"off\"\nin_flight = \"off\"\nquota = \"off\"\nphexts = \"off\"\n[plan.gold]\nper_tenant = \"9/s\"\nin_flight = 7\nphexts = 8";
    let config = parse(text).unwrap();
    assert_eq!(
        (config.limits.per_ip, config.limits.in_flight, config.limits.quota_bytes, config.limits.phexts),
        (None, None, None, None)
    );
    let gold = config.limits_of(Some("gold"));
    assert_eq!(gold.per_tenant.unwrap().to_string(), "9/s");
    assert_eq!((gold.in_flight, gold.quota_bytes, gold.phexts), (Some(7), None, Some(8)));
    assert_eq!(config.limits_of(None).per_tenant, Some(Rate::per_minute(600)));
    assert_eq!((parse("").unwrap().limits.phexts, config.limits_of(None).phexts), (Some(100_000), None));
}

#[test]
fn the_admin_listener_is_loopback_unless_it_is_allowed() {
    assert!(parse("[gateway]\nadmin_listen = \"0.0.0.0:1338\"").is_err());
    assert!(parse("[gateway]\nadmin_listen = \"0.0.0.0:1338\"\nadmin_allow_remote = true").is_ok());
}

#[test]
fn two_servers_on_one_port_are_a_mistake() {
    let clash = |text: &str| parse(text).unwrap_err().to_string();
    assert!(clash("[gateway]\nlisten = \"127.0.0.1:1341\"").contains("is one of the slots"));
    assert!(clash("[gateway]\nlisten = \"0.0.0.0:1339\"").contains("want the same address"));
    assert!(parse("[gateway]\nlisten = \"127.0.0.2:1341\"").is_ok());
    assert!(parse("[gateway]\nlisten = \"127.0.0.1:0\"").is_ok());
}

#[test]
fn units_that_are_none_are_refused() {
    for wrong in ["head = \"10\"", "head = \"0s\"", "head = \"-1s\"", "head = 10"] {
        assert!(parse(&format!("[timeouts]\n{wrong}")).is_err(), "{wrong}");
    }
    for wrong in [
        "body = \"0\"",
        "body = \"big\"",
        "per_ip = \"0/min\"",
        "per_ip = \"1/week\"",
        "in_flight = 0",
        "in_flight = \"some\"",
    ] {
        assert!(parse(&format!("[limits]\n{wrong}")).is_err(), "{wrong}");
    }
}

#[test]
fn an_origin_is_written_as_browsers_send_it() {
    let with = |origin: &str| parse(&format!("[cors]\nallow_origins = [\"{origin}\"]"));
    for origin in
        ["*", "https://app.example.org", "http://localhost:3000", "https://a:80", "http://[::1]:3000"]
    {
        assert_eq!(with(origin).unwrap().cors.allow_origins, [origin]);
    }
    for origin in [
        "app.example.org",
        "https://",
        "https://App.example.org",
        "HTTPS://app.example.org",
        "https://app.example.org/",
        "https://app.example.org:443",
        "http://app.example.org:80",
        "https://*.example.org",
        "https://user@app.example.org",
        "ftp://app.example.org",
        "null",
        "",
    ] {
        assert!(with(origin).is_err(), "{origin}");
    }
}

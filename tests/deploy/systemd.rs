//! `config/systemd/` on a host of its own, set up by the very commands of `docs/operations.md`.

use std::time::Instant;

use sq_tests::engine::Engine;
use sq_tests::host::{HOST_IMAGE, Host};
use sq_tests::root::Root;
use sq_tests::tls_curl::TlsCurl;
use sq_tests::{notice, wait};

use crate::customer::Customer;
use crate::page::commands;

const NAME: &str = "sq.example.org";

const PAGE: &str = "docs/operations.md";

/// The exposure that `systemd-analyze security` may find, of 10; what it calls OK ends at 3.
const MOST_EXPOSURE: f64 = 2.5;

#[test]
fn an_empty_host_serves_by_the_commands_of_the_page() {
    let Some(engine) = Engine::start("a host with systemd", &[HOST_IMAGE]) else { return };
    let mut host = Host::start(&engine);
    let begun = Instant::now();
    // This machine may give fewer open files than the units ask for.
    let open_files = "for unit in sq-pool sq-gateway; do mkdir -p /etc/systemd/system/$unit.service.d; \
                      printf '[Service]\\nLimitNOFILE=%s\\n' \"$(ulimit -Hn)\" >/etc/systemd/system/$unit.service.d/here.conf; done";
    host.run(&engine, open_files).success();
    let said = host.run(&engine, &commands(PAGE, "From an empty host")).success();
    assert!(said.ends_with("Updated 5 bytesHello"), "{said}");
    notice::say(&format!(
        "500 tenants behind nginx on an empty host: {:.1} s",
        begun.elapsed().as_secs_f32()
    ));

    units_are_clean(&host, &engine);
    everything_comes_back(&mut host, &engine);
    backups_can_be_restored(&host, &engine);
}

fn units_are_clean(host: &Host, engine: &Engine) {
    let verified = host.run(engine, "systemd-analyze verify /etc/systemd/system/sq-*.service");
    assert_eq!((verified.code(), verified.stderr.as_str()), (Some(0), ""), "{}", verified.stdout);
    for unit in ["sq-gateway", "sq-pool"] {
        let report = host.run(engine, &format!("systemd-analyze security --no-pager {unit}")).success();
        let last = report.lines().last().unwrap_or_default();
        let exposure =
            last.split_once(": ").and_then(|(_, rest)| rest.split(' ').next()?.parse::<f64>().ok());
        assert!(exposure.is_some_and(|exposure| exposure <= MOST_EXPOSURE), "{report}");
        notice::say(last.trim());
        let shown =
            host.run(engine, &format!("systemctl show {unit} -P StatusText -P ActiveState")).success();
        assert!(shown.contains("tenants=500") && shown.contains("active"), "{shown}");
    }
    let log = host.run(engine, "journalctl --no-pager --output cat --unit sq-pool").success();
    let confined = log
        .lines()
        .find(|line| line.contains("a worker is confined") && line.contains("the directory alone"));
    notice::say(confined.unwrap_or_else(|| panic!("the unit weakens what confines the workers: {log}")));
}

/// A new program in the place of the running one, inside the unit: no request fails, and systemd follows.
fn upgrades_lose_nothing(host: &Host, engine: &Engine, customer: &Customer) {
    for unit in ["sq-gateway", "sq-pool"] {
        let main_pid = || {
            let shown = format!("systemctl show {unit} -P MainPID -P ActiveState -P NRestarts");
            host.run(engine, &shown).success()
        };
        let (before, failed) = (main_pid(), customer.failed());
        host.run(engine, &format!("systemctl kill --kill-whom=main --signal=USR2 {unit}")).success();
        wait::until("another main process", || main_pid() != before);
        let from = customer.acknowledged();
        wait::until("requests after the upgrade", || customer.acknowledged() > from + 20);
        assert_eq!(customer.failed(), failed, "requests failed during the upgrade of {unit}");
        let (before, after) = (before.replace('\n', " "), main_pid().replace('\n', " "));
        let but_pid = |shown: &str| shown.split_once(' ').map(|(_, rest)| rest.to_owned());
        assert_eq!(but_pid(&before), but_pid(&after), "the unit was restarted or failed");
        notice::say(&format!(
            "upgrade of {unit} inside its unit, main process {before}-> {after}: no request failed"
        ));
    }
}

fn everything_comes_back(host: &mut Host, engine: &Engine) {
    let root = Root::empty();
    let certificate = host.run(engine, &format!("cat /etc/letsencrypt/live/{NAME}/fullchain.pem")).success();
    root.write("certificate.pem", &certificate);
    let key = host.run(engine, "awk -F, '$1 == \"slot-500\" { print $4 }' /srv/sq/keys.csv").success();
    host.run(engine, "sed -i 's/^per_ip = .*/per_ip = \"off\"/; s/^per_tenant = \"600.*/per_tenant = \"off\"/' /srv/sq/gateway.toml").success();
    host.run(engine, "systemctl reload sq-gateway sq-pool").success();
    let curl =
        TlsCurl { name: NAME, address: host.address.clone(), certificate: root.join("certificate.pem") };
    let customer = Customer::start(curl, key.trim());
    let served = |what: &str, begun: Instant| {
        let from = customer.acknowledged();
        wait::until(what, || customer.acknowledged() > from + 10);
        notice::say(&format!("{what}: served again after {:.1} s", begun.elapsed().as_secs_f32()));
    };
    served("before anything happened", Instant::now());
    for unit in ["sq-pool", "sq-gateway"] {
        for what in ["kill --kill-whom=main --signal=KILL", "restart"] {
            let begun = Instant::now();
            host.run(engine, &format!("systemctl {what} {unit}")).success();
            served(&format!("systemctl {what} {unit}"), begun);
        }
    }
    upgrades_lose_nothing(host, engine, &customer);
    host.run(engine, "systemctl stop sq-pool sq-gateway").success();
    let results = host.run(engine, "systemctl show sq-gateway sq-pool -P Result").success();
    let log = || host.run(engine, "journalctl --no-pager --lines 60 --unit sq-pool").stdout;
    assert_eq!(results.split_whitespace().collect::<Vec<_>>(), ["success"; 2], "{}", log());
    host.run(engine, "systemctl start sq-gateway sq-pool").success();
    let address = host.address.clone();
    let begun = Instant::now();
    host.reboot(engine);
    assert_eq!(host.address, address, "the customer asks there");
    served("the host shut down and started", begun);
    let account = customer.stop();
    notice::say(&format!("{account:?}, all of them there once"));
}

/// A tenant's text as it was at the backup, after it has been changed: hers alone, and everybody's.
fn backups_can_be_restored(host: &Host, engine: &Engine) {
    let setting = "KEY=$(cat carol.key 2>/dev/null || sq-gateway tenants add carol --root /srv/sq | grep -o 'pmb-v1-[0-9a-f]*' | tee carol.key)\n\
                   api() { curl -sS --retry 20 --retry-all-errors --retry-delay 1 --fail-with-body -H \"Authorization: Bearer $KEY\" \"http://127.0.0.1:1337/api/v2/$1?p=notes&c=1.1.1/1.1.1/1.1.1${2-}\"; }\n";
    // All slots are used.
    host.run(engine, "sq-gateway tenants remove slot-250 --root /srv/sq").success();
    let run = |script: &str| host.run(engine, &format!("{setting}{script}")).success();
    run("api update '&s=good'");
    run(&commands(PAGE, "Back up"));
    for heading in ["Restore one tenant", "Restore all of them"] {
        run("api update '&s=spoilt'");
        run(&commands(PAGE, heading));
        assert!(run("api select").ends_with("good"), "{heading}");
        run("rm -rf /srv/sq/carol.before /srv/sq/data.before");
        notice::say(&format!("{heading}: what the backup had is there"));
    }
}

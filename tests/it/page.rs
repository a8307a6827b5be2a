//! The status page in a real browser: what it shows, how soon, and what an operator can do with it.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use sq_shared::token::BearerToken;
use sq_tests::deployment::Deployment;
use sq_tests::devtools::DevTools;
use sq_tests::lone_worker::LoneWorker;
use sq_tests::notice::say;
use sq_tests::root::Root;
use sq_tests::setup::{Setup, Tenant, key_of};
use sq_tests::target::url;
use sq_tests::wait;

const ADMIN_KEY: &str = "pmb-v1-the-key-of-the-admin";
const READ: &str = "/api/v2/select?p=notes&c=1.1.1/1.1.1/1.1.1";
const SLOTS: usize = 500;

/// How soon the page must be painted with 500 tenants.
const FIRST_PAINT_MS: f64 = 200.0;

/// How soon one line of text is painted on an idle machine. On a slower one, the page may take longer by the same factor.
const ONE_LINE_MS: f64 = 25.0;

/// The best of a few loads shows what the page takes; a single one is noise.
const LOADS: usize = 8;

/// The variable with a folder for screenshots, relative to the workspace.
const SCREENSHOTS_VARIABLE: &str = "SQ_SCREENSHOTS";

fn setup() -> Setup {
    let digest = BearerToken::parse(ADMIN_KEY.as_bytes()).unwrap().digest();
    Setup { gateway: format!("admin_key_sha256 = \"{digest}\""), ..Setup::default() }
}

fn page_of(root: &Root) -> String {
    url(root.admin(), "/")
}

fn browser() -> Option<DevTools> {
    let mut browser = DevTools::start("the status page")?;
    browser.look(1280, 900, "light");
    Some(browser)
}

/// A JavaScript expression for the square of a slot.
fn square(port: u16) -> String {
    format!("document.querySelector('#theGrid li[data-port=\"{port}\"] button')")
}

/// Waits until a square shows this state.
fn until_state(browser: &mut DevTools, port: u16, state: &str) {
    browser.until(&format!("{}.dataset.state === '{state}'", square(port)));
}

/// Waits until this element has the focus.
fn until_focused(browser: &mut DevTools, id: &str) {
    browser.until(&format!("document.activeElement.id === '{id}'"));
}

/// Presses the tab key until this expression holds for the focused element.
fn tab_to(browser: &mut DevTools, wanted: &str) {
    for _ in 0..40 {
        if browser.evaluate(&format!("(focused => {wanted})(document.activeElement)")) == true {
            return;
        }
        browser.press("Tab");
    }
    panic!("the tab key does not lead to {wanted}");
}

/// The key that the page shows.
fn shown_key(browser: &mut DevTools) -> String {
    let token = "document.getElementById('newKeyToken')";
    browser.until(&format!("{token}.checkVisibility() && {token}.textContent !== ''"));
    browser.evaluate(&format!("{token}.textContent")).as_str().unwrap().to_owned()
}

#[test]
fn first_paint_shows_500_slots() {
    let Some(mut browser) = browser() else { return };
    let root = Root::without_registry(&setup());
    root.with_config(&["provision", "--slots", "500"]).success();
    let deployment = Deployment::up(root, &[]);
    let url = page_of(&deployment);
    // Alternately, so other load on the machine affects both.
    let (mut one_line_ms, mut page_ms) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..LOADS {
        one_line_ms = one_line_ms.min(first_paint_ms(&mut browser, &format!("{url}health")));
        page_ms = page_ms.min(first_paint_ms(&mut browser, &url));
    }
    say(&format!(
        "status page: first contentful paint with {SLOTS} tenants {page_ms:.0} ms, of one line {one_line_ms:.0} ms \
         (each the best of {LOADS})"
    ));
    let limit_ms = FIRST_PAINT_MS * (one_line_ms / ONE_LINE_MS).max(1.0);
    assert!(page_ms < limit_ms, "{page_ms} ms, and for one line of text {one_line_ms} ms");
    let was_drawn = "performance.getEntriesByName('drawn')[0].startTime <= performance.getEntriesByName('first-paint')[0].startTime";
    assert_eq!(browser.evaluate(was_drawn), true, "nothing is painted before the squares");
    assert_eq!(browser.evaluate("document.querySelectorAll('#theGrid button').length"), SLOTS);
    assert_eq!(browser.evaluate("document.getElementById('claimedCount').textContent"), "500");
    assert_all_are_named(&mut browser);
    assert_arrow_keys_move(&mut browser);
}

/// The time from the navigation to the first contentful paint.
fn first_paint_ms(browser: &mut DevTools, url: &str) -> f64 {
    browser.open(url);
    browser.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime").as_f64().unwrap()
}

/// Checks the names that a screen reader reads.
fn assert_all_are_named(browser: &mut DevTools) {
    let tree = browser.call("Accessibility.getFullAXTree", json!({}));
    let nodes = tree["nodes"].as_array().unwrap();
    let buttons = nodes.iter().filter(|node| node["role"]["value"] == "button" && node["ignored"] == false);
    let names: Vec<&str> = buttons.map(|node| node["name"]["value"].as_str().unwrap_or_default()).collect();
    assert!(names.iter().all(|name| !name.is_empty()), "{names:?}");
    let squares: Vec<&&str> = names.iter().filter(|name| name.starts_with("slot ")).collect();
    assert_eq!(squares.len(), SLOTS);
    assert!(squares.iter().any(|name| name.starts_with("slot 1341, slot-001, asleep")), "{squares:?}");
}

fn assert_arrow_keys_move(browser: &mut DevTools) {
    browser.evaluate(&format!("{}.focus()", square(1341)));
    for (key, port) in [
        ("ArrowLeft", 1341),
        ("ArrowRight", 1342),
        ("ArrowDown", 1367),
        ("End", 1390),
        ("Home", 1366),
        ("ArrowUp", 1341),
    ] {
        browser.press(key);
        let label = browser.evaluate("document.activeElement.getAttribute('aria-label')");
        assert!(label.as_str().unwrap().starts_with(&format!("slot {port},")), "{key}: {label}");
    }
    assert_eq!(browser.evaluate("document.querySelectorAll('#theGrid [tabindex=\"0\"]').length"), 1);
}

#[test]
fn update_redraws_only_differences_and_requests_no_other_host() {
    let Some(mut browser) = browser() else { return };
    let deployment = Deployment::start(&setup());
    browser.open(&page_of(&deployment));
    until_state(&mut browser, 1341, "asleep");
    browser.evaluate(
        "window.before = [...document.querySelectorAll('#theGrid *')]; before[1].focus(); window.shifts = [];\
         new PerformanceObserver(list => shifts.push(...list.getEntries().map(shift => shift.toJSON())))\
         .observe({type: 'layout-shift', buffered: true}); window.changed = [];\
         new MutationObserver(records => changed.push(...records.map(({target}) => target.ariaLabel)))\
         .observe(document.getElementById('theGrid'), {subtree: true, childList: true, attributes: true})",
    );
    deployment.client_of("bob").get(READ).ok();
    until_state(&mut browser, 1342, "awake");
    let polls =
        "performance.getEntriesByType('resource').filter(({name}) => name.endsWith('/overview')).length";
    let seen = browser.evaluate(polls).as_u64().unwrap();
    browser.until(&format!("{polls} >= {}", seen + 2));
    let after = "[...document.querySelectorAll('#theGrid *')]";
    assert_eq!(browser.evaluate(&format!("{after}.every((node, index) => node === before[index])")), true);
    assert_eq!(browser.evaluate("document.activeElement === before[1]"), true);
    assert_eq!(browser.evaluate("shifts"), json!([]));
    let changed = browser.evaluate("changed");
    let is_bob = |label: &Value| label.as_str().is_some_and(|label| label.starts_with("slot 1342, bob,"));
    assert!(changed.as_array().unwrap().iter().all(is_bob), "{changed}");
    assert_is_quiet(&mut browser, &page_of(&deployment));
}

/// No request went to another origin, and neither the page nor its policy reported an error.
fn assert_is_quiet(browser: &mut DevTools, origin: &str) {
    for request in browser.take_events("Network.requestWillBeSent") {
        let url = request["request"]["url"].as_str().unwrap();
        assert!(url.starts_with(origin) || url == "about:blank", "{url}");
    }
    for event in ["Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"] {
        let complaints = browser.take_events(event);
        assert!(complaints.is_empty(), "{complaints:?}");
    }
}

#[test]
fn tenant_is_added_suspended_and_rekeyed_by_keyboard_alone() {
    let Some(mut browser) = browser() else { return };
    let deployment = Deployment::start(&setup());
    browser.open(&page_of(&deployment));
    let old = add_carol(&mut browser);
    until_state(&mut browser, 1343, "asleep");
    deployment.client(Some(&old)).get(READ).ok();
    until_state(&mut browser, 1343, "awake");
    browser.press("Escape");
    browser.until(&format!("document.activeElement === {}", square(1343)));
    assert_eq!(browser.evaluate("document.getElementById('newKeyToken').textContent"), "");

    browser.press("Enter");
    tab_to(&mut browser, "focused.id === 'stateButton'");
    browser.press("Enter");
    until_focused(&mut browser, "stateYes");
    browser.press("Enter");
    until_state(&mut browser, 1343, "suspended");
    deployment.client(Some(&old)).get(READ).problem(403, "tenant_suspended");
    browser.until("document.getElementById('stateButton').textContent === 'Activate'");
    until_focused(&mut browser, "stateButton");
    browser.press("Enter");
    browser.until(&format!("{}.dataset.state !== 'suspended'", square(1343)));

    tab_to(&mut browser, "focused.ariaLabel === 'Rotate key k1'");
    browser.press("Enter");
    until_focused(&mut browser, "rotateGrace");
    tab_to(&mut browser, "focused.textContent === 'Make the new key'");
    browser.press("Enter");
    let new = shown_key(&mut browser);
    assert_ne!(new, old);
    // The pool applies a change of the registry within a second.
    wait::until("an answer to the new key", || deployment.client(Some(&new)).get(READ).status == 200);
    deployment.client(Some(&old)).get(READ).problem(401, "invalid_key");
    browser.until("document.querySelector('#keyList code').textContent === 'k2'");
    assert_eq!(browser.evaluate("location.hash"), "#carol");
    for request in browser.take_events("Network.requestWillBeSent") {
        assert!(!request["request"]["url"].as_str().unwrap().contains(ADMIN_KEY), "{request}");
    }
}

#[test]
fn pool_without_a_status_address_is_no_alarm() {
    let Some(mut browser) = browser() else { return };
    let deployment = Deployment::start(&Setup { pool: "status_listen = \"off\"".to_owned(), ..setup() });
    browser.open(&page_of(&deployment));
    until_state(&mut browser, 1341, "unknown");
    let pulse = "document.getElementById('thePulse')";
    assert_eq!(browser.evaluate(&format!("{pulse}.dataset.health")), "good");
    let said = browser.evaluate(&format!("{pulse}.textContent"));
    assert!(said.as_str().unwrap().contains("pool.status_listen is off"), "{said}");
}

/// The URLs from which the page requests a new key.
const KEYS_URL: &str = "*/admin/tenants/*/keys";

#[test]
fn new_key_is_shown_under_its_tenant_despite_other_input() {
    let Some(mut browser) = browser() else { return };
    let deployment = Deployment::start(&setup());
    let url = page_of(&deployment);
    browser.open(&url);
    browser.evaluate(&format!("sessionStorage.setItem('sq-admin-key', '{ADMIN_KEY}')"));
    browser.open(&url);
    open_rotation(&mut browser, "bob");
    browser.evaluate("document.getElementById('rotateGrace').value = '604800'");
    browser.press("Escape");
    browser.until("location.hash === ''");
    browser.call("Fetch.enable", json!({"patterns": [{"urlPattern": KEYS_URL}]}));
    open_rotation(&mut browser, "alice");
    // The choice made for bob does not carry over to alice.
    assert_eq!(browser.evaluate("document.getElementById('rotateGrace').value"), "");
    tab_to(&mut browser, "focused.textContent === 'Make the new key'");
    browser.press("Enter");
    browser.press("Enter");
    let asked = wait::within(wait::PATIENCE, || {
        // Each call also reads pending events.
        browser.evaluate("0");
        Some(browser.take_events("Fetch.requestPaused")).filter(|asked| !asked.is_empty())
    });
    let asked = asked.expect("the page asks for a key");
    assert_eq!(asked.len(), 1, "Enter twice asks for two keys");
    // Chrome closes a dialog at the second Escape, even if the page objects.
    browser.press("Escape");
    browser.press("Escape");
    browser.evaluate("location.hash = 'bob'");
    browser.until("location.hash === '#alice'");
    browser.until("document.getElementById('thePanel').open");
    browser.call("Fetch.continueRequest", json!({"requestId": asked[0]["requestId"]}));
    let new = shown_key(&mut browser);
    browser.call("Fetch.disable", json!({}));
    assert_eq!(
        browser.evaluate("document.getElementById('newKeyTitle').textContent"),
        "The new key of alice"
    );
    assert_eq!(browser.evaluate("document.getElementById('panelTitle').textContent"), "alice");
    deployment.client(Some(&new)).get(READ).ok();
    browser.until("document.querySelector('#keyList code').textContent === 'k2'");
    assert_eq!(browser.evaluate("document.querySelectorAll('#keyList li').length"), 1);
    assert!(browser.take_events("Fetch.requestPaused").is_empty(), "Enter twice asks for two keys");
}

/// Opens a tenant's panel, and the form for rotating its key.
fn open_rotation(browser: &mut DevTools, tenant: &str) {
    browser.evaluate(&format!("location.hash = '{tenant}'"));
    browser.until(&format!("document.getElementById('panelTitle').textContent === '{tenant}'"));
    browser.until("document.querySelector('#keyList button')?.checkVisibility()");
    tab_to(browser, "focused.ariaLabel === 'Rotate key k1'");
    browser.press("Enter");
    until_focused(browser, "rotateGrace");
}

/// Adds a tenant from the top of the page, with a wrong key and wrong names on the way.
fn add_carol(browser: &mut DevTools) -> String {
    tab_to(browser, "focused.id === 'addButton'");
    browser.press("Enter");
    until_focused(browser, "adminKey");
    browser.type_text("pmb-v1-not-the-admin");
    browser.press("Enter");
    browser.until("document.getElementById('adminKeyProblem').textContent.includes('not the admin')");
    browser.until("document.getElementById('adminKey').ariaInvalid === 'true'");
    browser.type_text(ADMIN_KEY);
    browser.press("Enter");
    until_focused(browser, "addName");
    for wrong in ["alice", "Carol"] {
        browser.type_text(wrong);
        browser.press("Enter");
        browser.until("document.getElementById('addName').ariaInvalid === 'true'");
        browser.until("document.getElementById('addNameProblem').textContent !== ''");
        until_focused(browser, "addName");
    }
    browser.type_text("carol");
    browser.press("Enter");
    let key = shown_key(browser);
    assert!(key.starts_with("pmb-v1-"), "{key}");
    until_focused(browser, "copyButton");
    key
}

/// 500 slots with tenants in all states: one has nearly used its quota, and the worker of one cannot start.
fn mixed() -> Root {
    let state = |index: u16| match index {
        290.. => "reserved",
        _ if index % 31 == 30 => "suspended",
        _ => "active",
    };
    let tenant = |index: u16| Tenant {
        plan: (index == 57).then_some("tiny"),
        ..Tenant::new(&format!("slot-{:03}", index + 1), 1341 + index).in_state(state(index))
    };
    let tenants = (0..412).map(tenant).collect();
    let plans = "[plan.tiny]\nquota = \"1KiB\"\n".to_owned();
    let root = Root::new(&Setup { tenants, plans, ..setup() });
    for (tenant, bytes) in [("slot-058", 922), ("slot-004", 300 << 10), ("slot-101", 5 << 20)] {
        let folder = root.join("data").join(tenant);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("kept.phext"), "a".repeat(bytes)).unwrap();
    }
    root
}

#[test]
fn every_state_has_its_square_and_count() {
    let Some(mut browser) = browser() else { return };
    let deployment = Deployment::up(mixed(), &[]);
    // Another program holds the directory, so the pool's worker cannot start.
    let _other = LoneWorker::start(&deployment.join("data/slot-009"));
    for index in (3..280).step_by(7).filter(|index| index % 31 != 30 && *index != 8 && *index != 57) {
        let client = deployment.client(Some(&key_of(&format!("slot-{:03}", index + 1))));
        client.get(READ).ok();
        client.get("/api/v2/select?p=notes&c=0.1.1/1.1.1/1.1.1").problem(400, "invalid_coordinate");
    }
    deployment.client(Some("pmb-v1-nobody")).get(READ).problem(401, "invalid_key");
    browser.open(&page_of(&deployment));
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // A client waits for the worker that cannot start, so the pool tries again, with longer pauses each time.
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                let _ = deployment.client_of("slot-009").try_get(READ);
            }
        });
        let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until_state(&mut browser, 1349, "crashed");
            until_state(&mut browser, 1398, "full");
            take_pictures(&mut browser, &deployment);
        }));
        is_done.store(true, Ordering::Relaxed);
        seen.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    for (state, port) in
        [("awake", 1344), ("asleep", 1342), ("suspended", 1371), ("reserved", 1640), ("free", 1840)]
    {
        until_state(&mut browser, port, state);
    }
    let counts = browser.evaluate(
        "Object.fromEntries([...document.querySelectorAll('#theLegend li')]\
         .map(entry => [entry.children[1].textContent, Number(entry.children[2].textContent)]))",
    );
    for (state, count) in
        [("suspended", 9), ("reserved", 122), ("free", 88), ("quota nearly used", 1), ("unknown", 0)]
    {
        assert_eq!(counts[state], count, "{counts}");
    }
    let total: u64 = counts.as_object().unwrap().values().filter_map(Value::as_u64).sum();
    assert_eq!(total, 500, "{counts}");
}

/// Takes screenshots for the docs if they are wanted.
fn take_pictures(browser: &mut DevTools, deployment: &Deployment) {
    let Some(folder) = std::env::var_os(SCREENSHOTS_VARIABLE) else { return };
    let folder: PathBuf = sq_tests::binaries::workspace().join(folder);
    for (name, width, height) in [("wide", 1280, 900), ("phone", 390, 844)] {
        for scheme in ["light", "dark"] {
            browser.look(width, height, scheme);
            browser.open(&page_of(deployment));
            until_state(browser, 1349, "crashed");
            browser.screenshot(&folder.join(format!("status-page-{name}-{scheme}.png")));
        }
    }
    browser.look(1280, 900, "light");
    browser.open(&page_of(deployment));
    browser.evaluate(&format!("sessionStorage.setItem('sq-admin-key', '{ADMIN_KEY}')"));
    browser.open(&format!("{}#slot-004", page_of(deployment)));
    wait::until("the keys", || browser.evaluate("document.querySelectorAll('#keyList li').length") == 1);
    browser.screenshot(&folder.join("status-page-tenant.png"));
}

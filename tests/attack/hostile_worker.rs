//! A worker that was taken over answers as it likes: more than seventy ways. Whatever it does, nothing that `docs/api.md` does
//! not list reaches a client, no request outlives its bounds, the gateway's memory stays within its own, other tenants are
//! served meanwhile, and so is the next request of the same tenant.

mod behaviour;
mod client;
mod codings;
mod ends;
mod fields;
mod heads;
mod interim;
mod kept;
mod lengths;
mod limits;
mod load;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sq_tests::fake_worker::SERVED;
use sq_tests::fake_worker::scripted::{ScriptedWorker, Step};
use sq_tests::notice::say;
use sq_tests::root::Root;
use sq_tests::separate::Gateway;
use sq_tests::setup::{Setup, tenants};
use sq_tests::wait::PATIENCE;

use behaviour::{Behaviour, MARK, Request, Verdict};
use client::ask;

/// How many behaviours there are at least.
const AT_LEAST: usize = 70;

/// How long a worker may take, in these tests.
const ANSWER: Duration = Duration::from_secs(3);

/// When a request must have ended: the time for its answer, or, for a body that stops, the times for head and body, and what a
/// busy machine takes. The worker tries to hold a request for two minutes.
const BOUND: Duration = Duration::from_secs(15);

/// How many behaviours are tried at once, each on a tenant.
const LANES: usize = 16;

/// The gateway with short times, and workers in the slots of so many tenants.
struct System {
    gateway: Gateway,
    workers: Vec<ScriptedWorker>,
}

impl System {
    fn start(tenant_count: usize, answer: Duration) -> Self {
        let count = u16::try_from(tenant_count).unwrap();
        let timeouts = format!("answer = \"{}ms\"\n", answer.as_millis());
        let root = Arc::new(Root::new(&Setup { tenants: tenants(count), timeouts, ..Setup::default() }));
        let workers = (0..count).map(|slot| ScriptedWorker::listen(root.address, 1341 + slot)).collect();
        Self { gateway: Gateway::serve(&root), workers }
    }

    fn client(&self, tenant: usize) -> sq_tests::client::Client {
        self.gateway.client_of(&format!("slot-{:03}", tenant + 1))
    }

    /// What is wrong with the gateway when this tenant's worker behaves so, or afterwards.
    fn try_out(&self, tenant: usize, behaviour: &Behaviour) -> Option<String> {
        let (worker, client) = (&self.workers[tenant], self.client(tenant));
        let done = worker.does(behaviour.steps.clone());
        let received = ask(&client, behaviour.request, PATIENCE);
        if received.took > BOUND {
            return Some(format!("the request took {:?}", received.took));
        }
        if let Some(mistake) = received.mistake(behaviour.request, behaviour.verdict) {
            return Some(mistake);
        }
        if done.recv_timeout(PATIENCE).is_err() {
            return Some("the gateway still holds the worker's connection".to_owned());
        }
        worker.does(vec![Step::Send(SERVED.replace("2\r\n\r\nok", "9\r\n\r\nsome text").into())]);
        let next = ask(&client, Request::Select, PATIENCE);
        next.mistake(Request::Select, Verdict::Served("some text"))
            .map(|mistake| format!("afterwards {mistake}"))
    }
}

fn behaviours() -> Vec<Behaviour> {
    [
        heads::behaviours(),
        interim::behaviours(),
        fields::behaviours(),
        lengths::behaviours(),
        codings::behaviours(),
        ends::behaviours(),
        kept::behaviours(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Asks a tenant's good worker while something goes on, and at least once: each answer must come in time.
fn while_a_neighbour_asks<T>(system: &System, tenant: usize, action: impl FnOnce() -> T) -> T {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let neighbour = scope.spawn(|| ask_until(system, tenant, &is_over));
        let outcome = catch_unwind(AssertUnwindSafe(action));
        is_over.store(true, Ordering::Relaxed);
        neighbour.join().unwrap();
        outcome.unwrap_or_else(|panic| resume_unwind(panic))
    })
}

fn ask_until(system: &System, tenant: usize, is_over: &AtomicBool) {
    loop {
        let began = Instant::now();
        assert_eq!(system.client(tenant).get("/api/v2/select?p=text&c=1.1.1/1.1.1/1.1.1").ok(), "ok");
        assert!(began.elapsed() < BOUND, "the neighbour waited {:?}", began.elapsed());
        if is_over.load(Ordering::Relaxed) {
            return;
        }
    }
}

#[test]
fn nothing_unlisted_passes_nothing_is_held_and_nobody_else_notices() {
    let behaviours = behaviours();
    assert!(behaviours.len() >= AT_LEAST, "{}", behaviours.len());
    let system = System::start(LANES + 1, ANSWER);
    let mistakes: Vec<String> = while_a_neighbour_asks(&system, LANES, || {
        thread::scope(|scope| {
            let lanes: Vec<_> = (0..LANES)
                .map(|lane| {
                    let (system, behaviours) = (&system, &behaviours);
                    scope.spawn(move || {
                        let own = behaviours.iter().skip(lane).step_by(LANES);
                        let tried = own.map(|behaviour| (behaviour.name, system.try_out(lane, behaviour)));
                        tried
                            .filter_map(|(name, mistake)| Some(format!("{name}: {}", mistake?)))
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            lanes.into_iter().flat_map(|lane| lane.join().unwrap()).collect()
        })
    });
    assert!(mistakes.is_empty(), "{} of {}:\n{}", mistakes.len(), behaviours.len(), mistakes.join("\n"));
    assert!(!system.gateway.log().contains(MARK), "{MARK} is logged:\n{}", system.gateway.log());
    say(&format!("{} behaviours of a hostile worker", behaviours.len()));
}

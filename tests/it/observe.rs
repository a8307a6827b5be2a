//! What an operator can see of requests: exact counters, lines that show where the time went, and ids that lead from
//! a client to its worker.

mod counts;
mod ends;
mod lines;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use sq_tests::scrape::Scrape;
use sq_tests::target::{SELECT, UPDATE};
use sq_tests::wait;

const REQUESTS: &str = "sq_gateway_requests_total";

/// The counted requests: tenant, command, status, the code of a refusal, and their number.
#[derive(Debug, Default)]
struct Expected(Vec<(&'static str, &'static str, u16, &'static str)>);

impl Expected {
    fn add(&mut self, tenant: &'static str, command: &'static str, status: u16, code: &'static str) {
        self.0.push((tenant, command, status, code));
    }

    /// Waits until this many are counted, and checks that there are no others.
    fn assert_counted(&self, address: Ipv4Addr) -> Scrape {
        let scrape = after(address, self.0.len());
        let mut requests = BTreeMap::new();
        let mut rejected = BTreeMap::new();
        let mut durations = BTreeMap::new();
        for (tenant, command, status, code) in &self.0 {
            let series =
                format!("{REQUESTS}{{command=\"{command}\",status=\"{status}\",tenant=\"{tenant}\"}}");
            *requests.entry(series).or_default() += 1.0;
            let series = format!("sq_gateway_request_duration_seconds_count{{command=\"{command}\"}}");
            *durations.entry(series).or_default() += 1.0;
            if !code.is_empty() {
                *rejected.entry(format!("sq_gateway_rejected_total{{code=\"{code}\"}}")).or_default() += 1.0;
            }
        }
        assert_eq!(scrape.of(REQUESTS), requests);
        assert_eq!(scrape.of("sq_gateway_rejected_total"), rejected);
        assert_eq!(scrape.of("sq_gateway_request_duration_seconds_count"), durations);
        scrape
    }
}

/// Waits for the scrape with this many requests: a client gets its response a moment before.
fn after(address: Ipv4Addr, requests: usize) -> Scrape {
    let requests = requests as f64;
    wait::until_some("all requests to be counted", || {
        let scrape = Scrape::of_gateway(address);
        let counted = scrape.sum(REQUESTS);
        assert!(counted <= requests, "more than {requests} were counted: {:#?}", scrape.of(REQUESTS));
        (counted == requests).then_some(scrape)
    })
}

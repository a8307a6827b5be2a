//! What a container's health check calls: one GET, exit 0 when the answer is a success.

use std::time::Duration;

/// How long a health check waits before it counts as failed: less than Docker's default of 30 s.
const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// Asks a URL once.
///
/// # Errors
/// It does not answer in five seconds, or with a status other than 2xx; the text says which.
pub fn check(url: &str) -> Result<(), String> {
    let config = ureq::Agent::config_builder().timeout_global(Some(HEALTHCHECK_TIMEOUT)).build();
    let answer = ureq::Agent::new_with_config(config).get(url).call();
    answer.map(|_| ()).map_err(|error| format!("{url}: {error}"))
}

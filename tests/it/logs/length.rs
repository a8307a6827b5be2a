//! A client may send a path and a method as long as a head may be; log lines stay short.

use sq_tests::answer::Answer;
use sq_tests::deployment::Deployment;
use sq_tests::wait;

use super::deployment;

/// Longer than any line with only the necessary fields.
const LINE_BYTES: usize = 2048;

/// The limit for each line with a field chosen by the client, for a head under 64 KiB.
const LONG: usize = 60_000;

fn line_of(running: &Deployment, answer: &Answer) -> String {
    let id = answer.header("x-request-id").unwrap().to_owned();
    wait::until_some("the line of the request", || {
        running
            .log()
            .lines()
            .find(|line| line.contains(&id) && line.contains("duration_us"))
            .map(str::to_owned)
    })
}

#[test]
fn no_line_grows_with_its_request() {
    for format in ["text", "json"] {
        let running = deployment(format, "info");
        let (alice, admin) = (running.client_of("alice"), running.admin_with(Some("guess")));
        let long = [
            format!("/api/v2/{}", "a".repeat(LONG)),
            format!("/api/v2/{}", "%E2%80%AE".repeat(LONG / 9)),
            format!("/{}", "\u{202e}".repeat(LONG / 9)),
            "/".repeat(LONG),
        ];
        for client in [&alice, &admin] {
            for target in &long {
                // hyper does not accept raw bytes above ASCII everywhere; what it refuses leaves no line.
                let answer = client.request("GET", target, "", None);
                if answer.header("x-request-id").is_none() {
                    continue;
                }
                let line = line_of(&running, &answer);
                assert!(line.len() < LINE_BYTES, "{} bytes: {line}", line.len());
                assert!(line.contains(target.get(..9).unwrap_or("/")), "{line}");
            }
            let answer = client.request(&"M".repeat(LONG), "/api/v2/select", "", None);
            if answer.header("x-request-id").is_some() {
                let line = line_of(&running, &answer);
                assert!(line.len() < LINE_BYTES && line.contains("MMMM"), "{} bytes: {line}", line.len());
            }
        }
        let longest = running.log().lines().map(str::len).max();
        assert!(longest < Some(LINE_BYTES), "{longest:?}");
        // A short value stays whole.
        let whole = format!("/api/v2/{}", "b".repeat(120));
        let answer = alice.get(&whole);
        assert!(line_of(&running, &answer).contains(&whole));
    }
}

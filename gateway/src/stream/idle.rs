//! The idle timeout between two requests. A connection uses one timer for its whole life: setting a timer for each request
//! of a busy client would cost more than the wait is worth.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Completes after `limit`. The timer may still be set for an earlier wait: then it is reset when it expires, which on a
/// busy connection happens once per `limit` and not once per request.
pub(crate) async fn idle_for(limit: Duration, mut timer: Pin<&mut Sleep>) {
    let end = Instant::now() + limit;
    if timer.is_elapsed() || timer.deadline() > end {
        timer.as_mut().reset(end);
    }
    loop {
        timer.as_mut().await;
        if timer.deadline() >= end {
            return;
        }
        timer.as_mut().reset(end);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::time::{sleep, timeout};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    /// How long a connection is idle.
    async fn waited(limit: Duration, timer: Pin<&mut Sleep>) -> Duration {
        let start = Instant::now();
        idle_for(limit, timer).await;
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn each_wait_is_as_long_as_the_limit_whatever_the_timer_was_set_to() {
        let mut timer = pin!(sleep(LIMIT));
        assert_eq!(waited(LIMIT, timer.as_mut()).await, LIMIT);
        assert_eq!(waited(LIMIT, timer.as_mut()).await, LIMIT, "after it expired");
        for busy in [LIMIT / 3, LIMIT - Duration::from_millis(1), LIMIT, 2 * LIMIT] {
            // A request comes soon, and takes so long.
            assert!(timeout(LIMIT / 10, idle_for(LIMIT, timer.as_mut())).await.is_err());
            sleep(busy).await;
            assert_eq!(waited(LIMIT, timer.as_mut()).await, LIMIT, "after a request of {busy:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_limit_holds_from_the_next_wait_on() {
        let mut timer = pin!(sleep(LIMIT));
        assert_eq!(waited(LIMIT / 4, timer.as_mut()).await, LIMIT / 4, "a shorter one");
        assert!(timeout(LIMIT / 10, idle_for(LIMIT / 4, timer.as_mut())).await.is_err());
        assert_eq!(waited(4 * LIMIT, timer.as_mut()).await, 4 * LIMIT, "a longer one");
    }
}

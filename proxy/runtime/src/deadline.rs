//! The time that a client gives a request, by the clock of this proxy: when it is over, and what of it is told onward.
//! What stands in the headers is read and written by [`mesh_proxy_core::http_hygiene`].

use http::HeaderMap;
use mesh_proxy_core::http_hygiene::{Admitted, tell_time, time_given};
use std::time::Duration;
use tokio::time::Instant;

/// What is told is told in whole milliseconds at the most: whoever is told so may end up to so much earlier.
const TOLD_UNIT: Duration = Duration::from_millis(1);

/// There is no time left.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Over;

/// When the time is over that the client of a request that has just come gave it; `None` also for what is longer than a
/// clock counts.
pub(crate) fn due(headers: &HeaderMap, admitted: &Admitted) -> Option<Instant> {
    match admitted.timed {
        true => due_in(headers, admitted.grpc),
        false => None,
    }
}

fn due_in(headers: &HeaderMap, grpc: bool) -> Option<Instant> {
    let given = time_given(headers, grpc)?; // most give none, and need no clock
    Instant::now().checked_add(given)
}

/// Tells the next hop how much is left until `ends`; nothing, if there is no end.
///
/// # Errors
/// [`Over`] if nothing is left: then nothing is told, and the request should go nowhere.
pub(crate) fn tell(headers: &mut HeaderMap, grpc: bool, ends: Option<Instant>) -> Result<(), Over> {
    let Some(ends) = ends else {
        return Ok(());
    };
    let left = ends.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(Over);
    }
    tell_time(headers, grpc, left);
    Ok(())
}

/// Whether the time is over by the clock of somebody who was told of it.
pub(crate) fn may_be_over(due: Instant) -> bool {
    due <= Instant::now() + TOLD_UNIT
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "x-envoy-expected-rq-timeout-ms";

    fn giving(ms: &'static str) -> HeaderMap {
        let value = http::HeaderValue::from_static(ms);
        HeaderMap::from_iter([(http::HeaderName::from_static(NAME), value)])
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_told_is_what_was_given_less_what_was_used() {
        let mut headers = giving("250");
        let due = due_in(&headers, false);
        tokio::time::advance(Duration::from_millis(100)).await;
        assert_eq!(tell(&mut headers, false, due), Ok(()));
        assert_eq!(headers[NAME], "150");
        tokio::time::advance(Duration::from_millis(150)).await;
        assert_eq!(tell(&mut headers, false, due), Err(Over));
        assert_eq!(headers[NAME], "150", "nothing is told");
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_end_what_stands_there_stays() {
        for (ms, grpc) in [("0", false), ("soon", false), ("250", true)] {
            let mut headers = giving(ms);
            let due = due_in(&headers, grpc);
            assert_eq!(due, None);
            assert_eq!(tell(&mut headers, grpc, due), Ok(()));
            assert_eq!(headers[NAME], ms);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_told_may_end_a_millisecond_sooner_and_no_more() {
        let due = Instant::now() + Duration::from_millis(10);
        for (waited_us, want) in [(8_999, false), (1, true), (1_000, true), (60_000_000, true)] {
            tokio::time::advance(Duration::from_micros(waited_us)).await;
            assert_eq!(may_be_over(due), want);
        }
    }
}

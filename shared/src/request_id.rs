//! A request's id, which its answer, its log lines and its errors have.

use http::{HeaderMap, HeaderValue};
use uuid::{ContextV7, Timestamp, Uuid};

use crate::clock;
use crate::headers::lookup::X_REQUEST_ID;

thread_local! {
    /// Keeps the ids of one millisecond in order.
    static ORDER: ContextV7 = const { ContextV7::new() };
}

/// The client's own id when it is a UUID, with or without hyphens; else a new one.
pub fn request_id(headers: &HeaderMap) -> HeaderValue {
    let own = headers.get(X_REQUEST_ID).filter(|value| {
        let bytes = value.as_bytes();
        matches!(bytes.len(), 32 | 36) && Uuid::try_parse_ascii(bytes).is_ok()
    });
    own.cloned().unwrap_or_else(new_request_id)
}

/// A new UUIDv7, in the order of time on each thread (RFC 9562, 5.7). (`Uuid::now_v7` panics when the clock is before
/// 1970.)
pub fn new_request_id() -> HeaderValue {
    let time = clock::since_1970();
    let time = ORDER.with(|order| Timestamp::from_unix(order, time.as_secs(), time.subsec_nanos()));
    let mut buffer = Uuid::encode_buffer();
    let text = Uuid::new_v7(time).hyphenated().encode_lower(&mut buffer);
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_for(sent: &str) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(X_REQUEST_ID, sent.parse().unwrap());
        request_id(&headers).to_str().unwrap().to_owned()
    }

    #[test]
    fn ids_are_in_the_order_of_time() {
        let ids: Vec<String> = (0..1000).map(|_| new_request_id().to_str().unwrap().to_owned()).collect();
        assert!(ids.is_sorted());
    }

    #[test]
    fn a_uuid_is_kept_and_anything_else_replaced() {
        for own in ["0192f0c1-2345-7abc-8def-0123456789ab", "0192f0c123457abc8def0123456789ab"] {
            assert_eq!(id_for(own), own);
        }
        for other in
            ["", "1", "{0192f0c1-2345-7abc-8def-0123456789ab}", "0192f0c1-2345-7abc-8def-0123456789ag"]
        {
            let id = id_for(other);
            assert!(id != other && id.len() == 36, "{id}");
        }
    }
}

//! Reads a request's body: a small JSON object. An error names the field.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{FromRequest, Request};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use sq_shared::limits::{LINGER_BYTES, LINGER_TIME};
use sq_shared::problem::{Code, Problem};

use super::refusal::Refusal;

/// The longest body, in bytes: enough for a few names and numbers.
const BODY_BYTES: usize = 16 << 10;

/// How long a body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A body as JSON, whatever its `Content-Type`. An empty body is an empty object.
pub(super) struct JsonBody<T>(pub(super) T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        let mut body = request.into_body();
        let read = tokio::time::timeout(BODY_TIMEOUT, read(&mut body)).await;
        let bytes = read.map_err(|_| {
            let seconds = BODY_TIMEOUT.as_secs();
            Refusal::new(Code::RequestTimeout, format!("Send the whole body within {seconds} s"))
        })??;
        parse(&bytes).map(Self)
    }
}

async fn read(body: &mut Body) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    while let Some(data) = next_data(body).await? {
        if bytes.len() + data.len() > BODY_BYTES {
            // A client that is disconnected while it sends may never read the response.
            let _ = tokio::time::timeout(LINGER_TIME, discard(body)).await;
            let detail = format!("The body is a JSON object of at most {BODY_BYTES} bytes");
            return Err(Refusal(Problem::new(Code::BodyTooLarge, detail).with("limit", BODY_BYTES)));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

async fn discard(body: &mut Body) {
    let mut discarded = 0;
    while let Ok(Some(data)) = next_data(body).await {
        discarded += data.len();
        if discarded > LINGER_BYTES {
            return;
        }
    }
}

/// The next chunk; `None` at the end. A trailer counts as an empty chunk.
async fn next_data(body: &mut Body) -> Result<Option<bytes::Bytes>, Refusal> {
    match poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await {
        None => Ok(None),
        Some(Ok(frame)) => Ok(Some(frame.into_data().unwrap_or_default())),
        Some(Err(_)) => {
            Err(Refusal::new(Code::BadRequest, "The body broke off, or its chunks are malformed"))
        }
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let problem = Problem::new(Code::InvalidUtf8, "The body is not UTF-8");
        Refusal(problem.with("part", "body").with("offset", error.valid_up_to()))
    })?;
    let text = if text.trim().is_empty() { "{}" } else { text };
    // The OpenAPI document allows null for an optional body.
    if text.trim() == "null"
        && let Ok(nothing) = serde_json::from_str(text)
    {
        return Ok(nothing);
    }
    // serde would also accept an array of the fields' values.
    if !text.trim_start().starts_with('{') {
        return Err(Refusal::new(Code::BadRequest, "The body is a JSON object, as in {\"name\": \"carol\"}"));
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    match serde_path_to_error::deserialize(&mut deserializer) {
        Ok(fields) => deserializer.end().map(|()| fields).map_err(|error| malformed(&error)),
        Err(error) if error.inner().is_data() => {
            Err(Refusal::invalid(&error.path().to_string(), without_position(error.inner())))
        }
        Err(error) => Err(malformed(error.inner())),
    }
}

fn malformed(error: &serde_json::Error) -> Refusal {
    let problem = Problem::new(Code::BadRequest, format!("The body is not JSON: {error}"));
    Refusal(problem.with("line", error.line()).with("column", error.column()))
}

fn without_position(error: &serde_json::Error) -> String {
    let (text, position) =
        (error.to_string(), format!(" at line {} column {}", error.line(), error.column()));
    text.strip_suffix(&position).map(str::to_owned).unwrap_or(text)
}

/// Deserializes a field for which null and absence differ: null is `Some(None)`.
pub(super) fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Deserializes a field with the parser that the registry uses.
pub(super) fn from_str<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

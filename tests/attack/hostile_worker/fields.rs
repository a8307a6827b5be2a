//! Fields that are not a worker's to send, and values that its own fields do not have.

use super::behaviour::Verdict::Served;
use super::behaviour::{Behaviour, adds};

pub(super) fn behaviours() -> Vec<Behaviour> {
    let not_its_own = [
        ("Set-Cookie", "Set-Cookie: a=injected; Domain=example.org\r\nSet-Cookie2: injected"),
        ("CORS", "Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: injected"),
        (
            "Location",
            "Location: https://injected/\r\nContent-Location: /injected\r\nRefresh: 0; url=injected",
        ),
        ("Server", "Server: injected\r\nX-Powered-By: injected\r\nVia: 1.1 injected"),
        ("an id", "X-Request-Id: injected\r\nTraceparent: injected"),
        (
            "Connection",
            "Connection: x-request-id, cache-control, keep-alive, injected\r\nKeep-Alive: timeout=9",
        ),
        ("Upgrade", "Upgrade: injected\r\nConnection: upgrade"),
        ("Alt-Svc", "Alt-Svc: h2=\"injected:443\"\r\nAlternate-Protocol: injected"),
        ("a content coding", "Content-Encoding: injected\r\nVary: injected"),
        ("a challenge", "WWW-Authenticate: Basic realm=injected\r\nProxy-Authenticate: Basic realm=injected"),
        ("policies of a site", "Strict-Transport-Security: injected\r\nClear-Site-Data: \"injected\""),
        ("a policy of content", "Content-Security-Policy: injected\r\nX-Content-Type-Options: injected"),
        ("caching", "Cache-Control: public, injected\r\nExpires: injected\r\nAge: 1\r\nPragma: injected"),
        ("rates", "RateLimit: injected\r\nRateLimit-Policy: injected\r\nX-RateLimit-Remaining: injected"),
        ("a file's name", "Content-Disposition: attachment; filename=injected\r\nContent-Range: bytes 0-1/9"),
        ("trailers", "Trailer: injected\r\nTE: trailers"),
        ("the gateway's own", "X-SQ-Code: injected\r\nX-SQ-Bytes: injected\r\nX-SQ-Repeat-Key: injected"),
        ("an internal redirect", "X-Accel-Redirect: /injected\r\nX-Sendfile: /injected\r\nLink: <injected>"),
        ("a date", "Date: injected\r\nLast-Modified: injected"),
        ("a replay without a key", "Idempotency-Replayed: true"),
    ];
    let not_its_values = [
        ("HTML", "Content-Type: text/html"),
        ("a script", "Content-Type: text/javascript; charset=injected"),
        ("two types", "Content-Type: text/html; injected\r\nContent-Type: text/plain; charset=utf-8"),
        ("a list of tags", "ETag: \"a\", \"injected\""),
        ("a weak tag", "ETag: W/\"injected\""),
        ("a long tag", "ETag: \"injected-0123456789-0123456789-0123456789-0123456789-0123456789-01\""),
        ("methods that do not exist", "Allow: GET, injected"),
        ("a date to wait for", "Retry-After: Fri, 31 Dec 9999 23:59:59 GMT injected"),
        ("a wait without end", "Retry-After: 99999999999999999999 injected"),
        ("a replay flag that is not true", "Idempotency-Replayed: injected"),
    ];
    not_its_own
        .into_iter()
        .chain(not_its_values)
        .map(|(name, fields)| adds(name, fields, Served("ok")))
        .collect()
}

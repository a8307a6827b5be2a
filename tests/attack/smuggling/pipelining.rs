//! Two requests that the client framed one after the other (RFC 9112, 9.3.2). The gateway answers the first and
//! closes; nginx may answer both.

use super::variant::{Variant, post, whole};

pub(super) const VARIANTS: &[Variant] = &[
    post("behind a length", "Content-Length: {n}\r\n\r\n{H}{second}").harmless().pipelined(),
    post("behind chunks", "Transfer-Encoding: chunked\r\n\r\n{x}\r\n{H}\r\n0\r\n\r\n{second}").harmless().pipelined(),
    post("behind chunks with a trailer", "Transfer-Encoding: chunked\r\n\r\n{x}\r\n{H}\r\n0\r\nX-A: b\r\n\r\n{second}").harmless().pipelined(),
    post("behind an empty line", "Content-Length: {n}\r\n\r\n{H}\r\n{second}").harmless().pipelined(),
    post("behind Expect", "Expect: 100-continue\r\nContent-Length: {n}\r\n\r\n{H}{second}").harmless().pipelined(),
    post("behind no body", "Content-Length: 0\r\n\r\n{second}").pipelined(),
    whole("behind a GET", "GET {read} HTTP/1.1\r\n{fields}\r\n{second}").answered().pipelined(),
    whole("behind a GET with a body", "GET {read} HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}{second}").answered().pipelined(),
    whole("behind a HEAD", "HEAD {read} HTTP/1.1\r\n{fields}\r\n{second}").answered().pipelined(),
    whole("behind OPTIONS", "OPTIONS {read} HTTP/1.1\r\n{fields}\r\n{second}").answered().pipelined(),
    whole("behind a health check", "GET /health HTTP/1.1\r\n{fields}\r\n{second}").answered().pipelined(),
    whole("behind a wrong key", "GET {read} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer no\r\nX-Request-Id: {id}\r\n\r\n{second}").pipelined(),
    whole("behind no such path", "POST /nowhere HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}{second}").pipelined(),
    whole("behind HTTP/1.0", "GET {read} HTTP/1.0\r\n{fields}\r\n{second}").answered().pipelined(),
    whole("behind a body that is not UTF-8", "POST {target} HTTP/1.1\r\n{fields}Content-Length: 2\r\n\r\n\u{ff}\u{fe}{second}").pipelined(),
    post("behind close", "Connection: close\r\nContent-Length: {n}\r\n\r\n{H}{second}").harmless().pipelined(),
];

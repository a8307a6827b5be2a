//! Request lines: methods, forms of the target, versions (RFC 9112, 3), and other protocols.

use super::variant::{Variant, whole};

pub(super) const VARIANTS: &[Variant] = &[
    whole(
        "absolute, same host",
        "POST http://{host}{target} HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}",
    )
    .harmless(),
    whole(
        "absolute, scheme in capitals",
        "POST HTTP://{host}{target} HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}",
    )
    .harmless(),
    whole(
        "absolute, https",
        "POST https://{host}{target} HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}",
    )
    .harmless(),
    whole(
        "absolute, other host",
        "POST http://other{target} HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}",
    ),
    whole(
        "absolute, a worker's port",
        "POST http://127.0.0.1:1342{target} HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}",
    ),
    whole(
        "absolute, a user",
        "POST http://{host}@other{target} HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}",
    ),
    whole(
        "absolute, a backslash",
        "POST http://{host}\\@other{target} HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}",
    ),
    whole("absolute, no host", "POST http://{target} HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}"),
    whole(
        "absolute, another scheme",
        "POST file://{host}{target} HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}",
    ),
    whole("a host and no scheme", "POST {host}{target} HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}"),
    whole("an @ in front", "POST @other{target} HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}"),
    whole("two slashes", "POST /{target} HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}"),
    whole("dot segments", "POST /api/v2/../..{target} HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}"),
    whole("encoded dots", "POST /%2e%2e{target} HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}"),
    whole(
        "an encoded question mark",
        "POST /api/v2/update%3fp=outer HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}",
    ),
    whole(
        "a parameter of the path",
        "POST /api/v2/update;a=b?p=outer HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}",
    ),
    whole("an asterisk", "POST * HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}"),
    whole("a NUL in the target", "POST {target}\0 HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}"),
    whole("a tab in the target", "POST {target}\tx HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}"),
    whole("a CR in the target", "POST {target}\rx HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}"),
    whole(
        "a request in the target",
        "POST {target} HTTP/1.1\r\nX-A: HTTP/1.1 HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}",
    )
    .harmless(),
    whole("two versions", "POST {target} HTTP/1.1 HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}"),
    whole("two targets", "POST {target} /other HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}"),
    whole("two spaces", "POST  {target} HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}"),
    whole(
        "two spaces before the version",
        "POST {target}  HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}",
    ),
    whole("a space behind the version", "POST {target} HTTP/1.1 \r\n{fields}Content-Length: {n}\r\n\r\n{H}"),
    whole("tabs between", "POST\t{target}\tHTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}"),
    whole("vertical tabs between", "POST\x0b{target}\x0bHTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}"),
    whole(
        "bytes that are not UTF-8",
        "POST {target}\u{ff} HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}",
    ),
    whole(
        "CR LF percent-encoded in the query",
        "POST {target}&x=%0d%0aHost:%20other%0d%0a%0d%0a HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}",
    )
    .harmless(),
    whole(
        "CR LF percent-encoded in the path",
        "POST /api/v2/update%20HTTP/1.1%0d%0aHost:%20other HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}",
    ),
    whole("a fragment", "POST {target}#x HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}"),
    whole("version in small letters", "POST {target} http/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}"),
    whole("version 1.2", "POST {target} HTTP/1.2\r\n{fields}Content-Length: {n}\r\n\r\n{H}"),
    whole("version 1.10", "POST {target} HTTP/1.10\r\n{fields}Content-Length: {n}\r\n\r\n{H}"),
    whole("version 01.1", "POST {target} HTTP/01.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}"),
    whole("version 1", "POST {target} HTTP/1\r\n{fields}Content-Length: {n}\r\n\r\n{H}"),
    whole("version 1.1.1", "POST {target} HTTP/1.1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}"),
    whole("version +1.1", "POST {target} HTTP/+1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}"),
    whole("version 2.0", "POST {target} HTTP/2.0\r\n{fields}Content-Length: {n}\r\n\r\n{H}"),
    whole("version 0.9", "POST {target} HTTP/0.9\r\n{fields}Content-Length: {n}\r\n\r\n{H}"),
    whole("another protocol", "POST {target} ICY/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}"),
    whole("no version", "POST {target}\r\n{fields}Content-Length: {n}\r\n\r\n{H}"),
    whole("HTTP/0.9", "GET {target}\r\n\r\n"),
    whole("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{H}"),
    whole("HTTP/1.0", "POST {target} HTTP/1.0\r\n{fields}Content-Length: {n}\r\n\r\n{H}").harmless(),
    whole(
        "HTTP/1.0, kept alive",
        "POST {target} HTTP/1.0\r\n{fields}Connection: keep-alive\r\nContent-Length: {n}\r\n\r\n{H}",
    )
    .harmless(),
    whole("a method in small letters", "post {target} HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}"),
    whole("a method with a NUL", "POST\0 {target} HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}"),
    whole("a method with a colon", "POST: {target} HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}"),
    whole("a method of no one's", "SMUGGLE {target} HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}"),
    whole("no method", " {target} HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}"),
    whole("GET with a body", "GET {read} HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}").answered(),
    whole(
        "GET with chunks",
        "GET {read} HTTP/1.1\r\n{fields}Transfer-Encoding: chunked\r\n\r\n{x}\r\n{H}\r\n0\r\n\r\n",
    )
    .answered(),
    whole("GET that writes its body", "GET {target} HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}")
        .harmless(),
    whole("HEAD with a body", "HEAD {read} HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}").answered(),
    whole("DELETE with a body", "DELETE {target} HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}"),
    whole("PUT with a body", "PUT {target} HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}"),
    whole("TRACE with a body", "TRACE {target} HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}"),
    whole("OPTIONS with a body", "OPTIONS {target} HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}")
        .answered(),
    whole("OPTIONS * with a body", "OPTIONS * HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}").answered(),
    whole("health with a body", "GET /health HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}").answered(),
    whole("no such path, with a body", "POST /nowhere HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}"),
    whole("CONNECT", "CONNECT 127.0.0.1:1342 HTTP/1.1\r\n{fields}\r\n{H}"),
    whole("CONNECT with a length", "CONNECT {host} HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}"),
    whole("CONNECT with a path", "CONNECT {target} HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}"),
];

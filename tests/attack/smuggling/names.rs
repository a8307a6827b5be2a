//! Names of fields that one server takes for `Content-Length`, `Transfer-Encoding` or `Host`, and another does
//! not (RFC 9112, 5.1).

use super::variant::{Variant, post, whole};

pub(super) const VARIANTS: &[Variant] = &[
    post("CL space before the colon", "Content-Length : 0\r\nContent-Length: {n}\r\n\r\n{H}"),
    post("CL tab before the colon", "Content-Length\t: 0\r\nContent-Length: {n}\r\n\r\n{H}"),
    post("CL NUL before the colon", "Content-Length\0: 0\r\nContent-Length: {n}\r\n\r\n{H}"),
    post("CL vertical tab before the colon", "Content-Length\x0b: 0\r\nContent-Length: {n}\r\n\r\n{H}"),
    post("CL no-break space before the colon", "Content-Length\u{a0}: 0\r\nContent-Length: {n}\r\n\r\n{H}"),
    post("CL space in front", "X-A: b\r\n Content-Length: 0\r\nContent-Length: {n}\r\n\r\n{H}"),
    post("CL tab in front", "X-A: b\r\n\tContent-Length: 0\r\nContent-Length: {n}\r\n\r\n{H}"),
    post("CL vertical tab in front", "\x0bContent-Length: 0\r\nContent-Length: {n}\r\n\r\n{H}"),
    post("CL two colons", "Content-Length:: 0\r\nContent-Length: {n}\r\n\r\n{H}"),
    post("CL quoted name", "\"Content-Length\": 0\r\nContent-Length: {n}\r\n\r\n{H}"),
    post("CL no colon", "Content-Length 0\r\nContent-Length: {n}\r\n\r\n{H}"),
    post("CL equals sign", "Content-Length=0\r\nContent-Length: {n}\r\n\r\n{H}"),
    post("CL en dash", "Content\u{e2}\u{80}\u{93}Length: 0\r\nContent-Length: {n}\r\n\r\n{H}"),
    post("CL in a name with spaces", "X Content-Length: 0\r\nContent-Length: {n}\r\n\r\n{H}"),
    post("CL underscore", "Content_Length: 0\r\nContent-Length: {n}\r\n\r\n{H}").harmless(),
    post("CL with X-", "X-Content-Length: 0\r\nContent-Length: {n}\r\n\r\n{H}").harmless(),
    post("CL with a letter more", "Content-Lengths: 0\r\nContent-Length: {n}\r\n\r\n{H}").harmless(),
    post("CL dot", "Content.Length: 0\r\nContent-Length: {n}\r\n\r\n{H}").harmless(),
    post(
        "TE space before the colon",
        "Transfer-Encoding : chunked\r\nContent-Length: {n+5}\r\n\r\n0\r\n\r\n{H}",
    ),
    post(
        "TE tab before the colon",
        "Transfer-Encoding\t: chunked\r\nContent-Length: {n+5}\r\n\r\n0\r\n\r\n{H}",
    ),
    post(
        "TE NUL before the colon",
        "Transfer-Encoding\0: chunked\r\nContent-Length: {n+5}\r\n\r\n0\r\n\r\n{H}",
    ),
    post(
        "TE no-break space before the colon",
        "Transfer-Encoding\u{a0}: chunked\r\nContent-Length: {n+5}\r\n\r\n0\r\n\r\n{H}",
    ),
    post(
        "TE space in front",
        "X-A: b\r\n Transfer-Encoding: chunked\r\nContent-Length: {n+5}\r\n\r\n0\r\n\r\n{H}",
    ),
    post(
        "TE tab in front",
        "X-A: b\r\n\tTransfer-Encoding: chunked\r\nContent-Length: {n+5}\r\n\r\n0\r\n\r\n{H}",
    ),
    post(
        "TE vertical tab in front",
        "\x0bTransfer-Encoding: chunked\r\nContent-Length: {n+5}\r\n\r\n0\r\n\r\n{H}",
    ),
    post("TE colon in front", ":Transfer-Encoding: chunked\r\nContent-Length: {n+5}\r\n\r\n0\r\n\r\n{H}"),
    post("TE CR in the name", "Transfer\r-Encoding: chunked\r\nContent-Length: {n+5}\r\n\r\n0\r\n\r\n{H}"),
    post("TE LF in the name", "Transfer-\nEncoding: chunked\r\nContent-Length: {n+5}\r\n\r\n0\r\n\r\n{H}"),
    post("TE semicolon", "Transfer-Encoding; chunked\r\nContent-Length: {n+5}\r\n\r\n0\r\n\r\n{H}"),
    post("TE DEL in the name", "Transfer-Encoding\x7f: chunked\r\nContent-Length: {n+5}\r\n\r\n0\r\n\r\n{H}"),
    post("TE underscore", "Transfer_Encoding: chunked\r\nContent-Length: {n+5}\r\n\r\n0\r\n\r\n{H}")
        .writes("0\r\n\r\n{H}"),
    post("TE with X-", "X-Transfer-Encoding: chunked\r\nContent-Length: {n+5}\r\n\r\n0\r\n\r\n{H}")
        .writes("0\r\n\r\n{H}"),
    post("TE short", "TE: chunked\r\nContent-Length: {n+5}\r\n\r\n0\r\n\r\n{H}").writes("0\r\n\r\n{H}"),
    post("TE short, trailers", "TE: trailers, chunked\r\nContent-Length: {n+5}\r\n\r\n0\r\n\r\n{H}")
        .writes("0\r\n\r\n{H}"),
    post("Content-Encoding", "Content-Encoding: chunked\r\nContent-Length: {n+5}\r\n\r\n0\r\n\r\n{H}"),
    post("two Hosts", "Host: other\r\nContent-Length: {n}\r\n\r\n{H}"),
    post("two equal Hosts", "Host: {host}\r\nContent-Length: {n}\r\n\r\n{H}"),
    post("Host with a space before the colon", "Host : other\r\nContent-Length: {n}\r\n\r\n{H}"),
    post("Host folded", "X-A: b\r\n Host: other\r\nContent-Length: {n}\r\n\r\n{H}"),
    whole(
        "no Host",
        "POST {target} HTTP/1.1\r\nAuthorization: Bearer {key}\r\nX-Request-Id: {id}\r\nContent-Length: {n}\r\n\r\n{H}",
    ),
    whole(
        "an empty Host",
        "POST {target} HTTP/1.1\r\nHost:\r\nAuthorization: Bearer {key}\r\nX-Request-Id: {id}\r\nContent-Length: {n}\r\n\r\n{H}",
    ),
    whole(
        "a Host with a space",
        "POST {target} HTTP/1.1\r\nHost: a b\r\nAuthorization: Bearer {key}\r\nX-Request-Id: {id}\r\nContent-Length: {n}\r\n\r\n{H}",
    ),
    whole(
        "a Host with a path",
        "POST {target} HTTP/1.1\r\nHost: a/b\r\nAuthorization: Bearer {key}\r\nX-Request-Id: {id}\r\nContent-Length: {n}\r\n\r\n{H}",
    ),
    whole(
        "a Host with a user",
        "POST {target} HTTP/1.1\r\nHost: a@b\r\nAuthorization: Bearer {key}\r\nX-Request-Id: {id}\r\nContent-Length: {n}\r\n\r\n{H}",
    ),
    whole(
        "a Host with a NUL",
        "POST {target} HTTP/1.1\r\nHost: a\0b\r\nAuthorization: Bearer {key}\r\nX-Request-Id: {id}\r\nContent-Length: {n}\r\n\r\n{H}",
    ),
    whole(
        "a list of Hosts",
        "POST {target} HTTP/1.1\r\nHost: a, b\r\nAuthorization: Bearer {key}\r\nX-Request-Id: {id}\r\nContent-Length: {n}\r\n\r\n{H}",
    ),
];

//! Lines that end otherwise than with CR LF, or do not end where they seem to (RFC 9112, 2.2 and 5.2).

use super::variant::{Variant, post, whole};

pub(super) const VARIANTS: &[Variant] = &[
    post("LF before a second CL", "X-A: b\nContent-Length: 0\r\nContent-Length: {n}\r\n\r\n{H}"),
    post("CR before a second CL", "X-A: b\rContent-Length: 0\r\nContent-Length: {n}\r\n\r\n{H}"),
    post("CR CR LF before a second CL", "X-A: b\r\r\nContent-Length: 0\r\nContent-Length: {n}\r\n\r\n{H}"),
    post("LF CR before a second CL", "X-A: b\n\rContent-Length: 0\r\nContent-Length: {n}\r\n\r\n{H}"),
    post("NUL before a second CL", "X-A: b\0Content-Length: 0\r\nContent-Length: {n}\r\n\r\n{H}"),
    post("LF before TE", "X-A: b\nTransfer-Encoding: chunked\r\nContent-Length: {n+5}\r\n\r\n0\r\n\r\n{H}"),
    post("CR before TE", "X-A: b\rTransfer-Encoding: chunked\r\nContent-Length: {n+5}\r\n\r\n0\r\n\r\n{H}"),
    post(
        "CR space before TE",
        "X-A: b\r Transfer-Encoding: chunked\r\nContent-Length: {n+5}\r\n\r\n0\r\n\r\n{H}",
    ),
    post("the head ends with LF", "Content-Length: {n}\r\n\n{H}"),
    post("the head ends with LF CR LF", "Content-Length: {n}\n\r\n{H}"),
    post("the head ends with two LF", "Content-Length: {n}\n\n{H}"),
    post("the head ends with CR", "Content-Length: {n}\r\n\r{H}"),
    post("the head ends with two CR", "Content-Length: {n}\r\r{H}"),
    post("the head ends with CR CR LF", "Content-Length: {n}\r\n\r\r\n{H}"),
    post("the head ends with a blank line of a space", "Content-Length: {n}\r\n \r\n\r\n{H}"),
    post("the head ends with a blank line of a tab", "Content-Length: {n}\r\n\t\r\n\r\n{H}"),
    post("an empty line before the length", "\nContent-Length: {n}\r\n\r\n{H}"),
    post("a space folds", "X-A: b\r\n c\r\nContent-Length: {n}\r\n\r\n{H}"),
    post("a tab folds", "X-A: b\r\n\tc\r\nContent-Length: {n}\r\n\r\n{H}"),
    post("a fold of nothing", "X-A: b\r\n \r\nContent-Length: {n}\r\n\r\n{H}"),
    post("a fold with a second CL", "X-A: b\r\n Content-Length: 0\r\nContent-Length: {n}\r\n\r\n{H}"),
    post("a fold behind LF", "X-A: b\n Content-Length: 0\r\nContent-Length: {n}\r\n\r\n{H}"),
    post("TE folded", "Transfer-Encoding:\r\n chunked\r\nContent-Length: {n+5}\r\n\r\n0\r\n\r\n{H}"),
    post(
        "TE folded to identity",
        "Transfer-Encoding: chunked\r\n , identity\r\nContent-Length: {n+5}\r\n\r\n0\r\n\r\n{H}",
    ),
    post("LF everywhere in the fields", "X-A: b\nX-B: c\nContent-Length: {n}\n\n{H}"),
    whole("the request line ends with LF", "POST {target} HTTP/1.1\n{fields}Content-Length: {n}\r\n\r\n{H}"),
    whole("the request line ends with CR", "POST {target} HTTP/1.1\r{fields}Content-Length: {n}\r\n\r\n{H}"),
    whole(
        "the request line ends with CR CR LF",
        "POST {target} HTTP/1.1\r\r\n{fields}Content-Length: {n}\r\n\r\n{H}",
    ),
    whole("the first field is folded", "POST {target} HTTP/1.1\r\n {fields}Content-Length: {n}\r\n\r\n{H}"),
    whole("LF before the request line", "\nPOST {target} HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}"),
    whole("CR before the request line", "\rPOST {target} HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}"),
    whole(
        "NUL before the request line",
        "\0POST {target} HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}",
    ),
    whole(
        "a space before the request line",
        " POST {target} HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}",
    ),
    whole(
        "a BOM before the request line",
        "\u{ef}\u{bb}\u{bf}POST {target} HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}",
    ),
    whole(
        "an empty line before the request line",
        "\r\nPOST {target} HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}",
    )
    .harmless(),
    whole(
        "two empty lines before the request line",
        "\r\n\r\nPOST {target} HTTP/1.1\r\n{fields}Content-Length: {n}\r\n\r\n{H}",
    )
    .harmless(),
    post(
        "a line separator of Unicode",
        "X-A: b\u{e2}\u{80}\u{a8}Content-Length: 0\r\nContent-Length: {n}\r\n\r\n{H}",
    )
    .harmless(),
    post("a next line of Latin-1", "X-A: b\u{85}Content-Length: 0\r\nContent-Length: {n}\r\n\r\n{H}")
        .harmless(),
    post(
        "letters whose low bytes are CR LF",
        "X-A: b\u{c4}\u{8d}\u{c4}\u{8a}Transfer-Encoding: chunked\r\nContent-Length: {n}\r\n\r\n{H}",
    )
    .harmless(),
    post(
        "CR LF percent-encoded in a field",
        "X-A: b%0d%0aTransfer-Encoding: chunked\r\nContent-Length: {n}\r\n\r\n{H}",
    )
    .harmless(),
];

//! Transfer codings, chunks and trailers.

use super::behaviour::Verdict::{BrokenOff, Refused, Served};
use super::behaviour::{Behaviour, does, sends};
use sq_tests::fake_worker::scripted::Step::{Close, Flood, Send, Wait};

const HEAD: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
const TEXT: &str = "9\r\nsome text\r\n";
const END: &str = "0\r\n\r\n";

pub(super) fn behaviours() -> Vec<Behaviour> {
    let mut all = codings();
    all.extend(chunks());
    all.extend(trailers());
    all
}

fn codings() -> Vec<Behaviour> {
    let with =
        |name, coding: &str, verdict| sends(name, HEAD.replacen("chunked", coding, 1) + TEXT + END, verdict);
    vec![
        with("gzip", "gzip", Refused),
        with("identity", "identity", Refused),
        with("chunked twice", "chunked, chunked", Refused),
        with("chunked in two fields", "chunked\r\nTransfer-Encoding: chunked", Refused),
        with("gzip, chunked", "gzip, chunked", Refused),
        with("chunked, gzip", "chunked, gzip", Refused),
        with("xchunked", "xchunked", Refused),
        with("chunked with a parameter", "chunked;a=b", Refused),
        with("an empty coding", "", Refused),
        with("a length beside chunks", "chunked\r\nContent-Length: 3", Served("some text")),
        with("chunks in capitals", "CHUNKED", Served("some text")),
        sends("chunks in HTTP/1.0", HEAD.replacen("1.1", "1.0", 1) + TEXT + END, Served("some text")),
    ]
}

fn chunks() -> Vec<Behaviour> {
    let after = |start: String, step| vec![Send((HEAD.to_owned() + &start).into()), step];
    let with = |name, chunks: &str, verdict| sends(name, HEAD.to_owned() + chunks, verdict);
    let extension = "x".repeat(7000);
    vec![
        with("a chunk size that is not a number", "injected\r\nsome text\r\n0\r\n\r\n", BrokenOff),
        with("a negative chunk", "-9\r\nsome text\r\n0\r\n\r\n", BrokenOff),
        with("a chunk with 0x", "0x9\r\nsome text\r\n0\r\n\r\n", BrokenOff),
        with("a chunk beyond 2^64", "10000000000000009\r\nsome text\r\n0\r\n\r\n", BrokenOff),
        with("a chunk longer than its size", "4\r\nsomeinjected\r\n0\r\n\r\n", BrokenOff),
        does("a chunk without its end", after("9\r\nsome".to_owned(), Wait), BrokenOff),
        does("a huge chunk", after("7fffffffffffffff\r\nsome".to_owned(), Wait), BrokenOff),
        does("no last chunk", after(TEXT.to_owned(), Close), BrokenOff),
        does("no last chunk, and silence", after(TEXT.to_owned(), Wait), BrokenOff),
        with(
            "chunk extensions",
            &format!("9;injected=1\r\nsome text\r\n0;{extension}\r\n\r\n"),
            Served("some text"),
        ),
        does("a chunk extension without end", after("9;".to_owned(), Flood(b"injected".into())), BrokenOff),
        does("a chunk's size without end", after(String::new(), Flood(b"0".into())), BrokenOff),
        with(
            "a second answer behind the chunks",
            &format!("{TEXT}{END}HTTP/1.1 200 injected\r\n\r\n"),
            Served("some text"),
        ),
    ]
}

fn trailers() -> Vec<Behaviour> {
    let after = |start: String, step| vec![Send((HEAD.to_owned() + TEXT + &start).into()), step];
    let trailer = "0\r\nSet-Cookie: injected\r\nContent-Length: 3\r\n\r\n";
    vec![
        sends("trailers", HEAD.to_owned() + TEXT + trailer, Served("some text")),
        does("trailers without end", after("0\r\n".to_owned(), Flood(b"X: injected\r\n".into())), BrokenOff),
        does("a trailer without end", after("0\r\nX: ".to_owned(), Flood(b"injected".into())), BrokenOff),
        does("half a trailer", after("0\r\nX: injec".to_owned(), Wait), BrokenOff),
    ]
}

//! Bodies that are not plain text: compressed ones, and multipart forms. They are refused before they are read.

use std::io::Write;
use std::process::{Command, Stdio};

use sq_tests::answer::Answer;
use sq_tests::client::Client;
use sq_tests::deployment::Deployment;
use sq_tests::everywhere::everywhere;
use sq_tests::setup::{Setup, key_of};
use sq_tests::target::url;

const AT: &str = "p=text&c=1.1.1/1.1.1/1.1.1";

/// "text", compressed by gzip: not UTF-8.
const GZIP: &[u8] =
    b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x2b\x49\xad\x28\x01\x00\xc7\xe4\xd8\x0d\x04\x00\x00\x00";
const PARTS: &str =
    "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\ntext\r\n--x--\r\n";
const MULTIPART: &str = "Content-Type: multipart/form-data; boundary=x\r\n";

fn target(command: &str) -> String {
    format!("/api/v2/{command}?{AT}")
}

fn assert_unchanged(client: &Client) {
    assert_eq!(client.get(&target("select")).ok(), "kept");
}

fn assert_encoding(answer: &Answer, what: &str) {
    let problem = answer.refused(415, "unsupported_encoding");
    assert!(problem["detail"].as_str().unwrap().contains("identity"), "{what}: {problem}");
    assert_eq!(answer.header("accept-encoding"), Some("identity"), "{what}");
}

#[test]
fn an_encoded_body_is_refused() {
    everywhere(|client| {
        client.post(&target("update"), "kept").ok();
        for coding in ["gzip", "GZIP", "br", "deflate, gzip", "identity\r\nContent-Encoding: zstd"] {
            for command in ["insert", "update", "delete", "query", "delta", "where"] {
                let line = format!("Content-Encoding: {coding}\r\n");
                for (method, body) in [("POST", GZIP), ("POST", b"text"), ("POST", b""), ("GET", GZIP)] {
                    if command == "where" && method == "GET" {
                        continue;
                    }
                    let answer = client.request(method, &target(command), &line, Some(body));
                    assert_encoding(&answer, command);
                }
            }
        }
        let chunked = "Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
        let chunks = [client.head("POST", &target("update")) + chunked, "4\r\ntext\r\n0\r\n\r\n".to_owned()];
        assert_encoding(&client.raw(chunks.concat()), "chunks");
        assert_unchanged(client);
        for coding in ["identity", "Identity", "identity, identity", ""] {
            let line = format!("Content-Encoding: {coding}\r\n");
            client.request("POST", &target("update"), &line, Some(b"kept")).ok();
        }
        // A read without a body is not checked.
        client.request("GET", &target("select"), "Content-Encoding: gzip\r\n", None).ok();
    });
}

/// The client waits for `100 Continue`, or has sent no byte of the body yet.
#[test]
fn encoded_body_is_refused_before_it_is_read() {
    everywhere(|client| {
        for field in ["Content-Encoding: gzip\r\n", MULTIPART] {
            for expect in ["", "Expect: 100-continue\r\n"] {
                let mut connection = client.connect();
                let head = client.head("POST", &target("update")) + field + expect;
                connection.send((head + "Content-Length: 1000000\r\n\r\n").as_bytes());
                assert_eq!(connection.answer().status, 415, "{field}");
            }
        }
        // A body over the size limit is not read either.
        let head = client.head("POST", &target("update")) + MULTIPART + "Content-Length: 99999999999\r\n\r\n";
        assert!([413, 415].contains(&client.raw(head).status));
        assert_eq!(client.get(&target("select")).ok(), "");
    });
}

#[test]
fn a_form_with_parts_is_refused_and_says_how_to_send_a_file() {
    everywhere(|client| {
        client.post(&target("update"), "kept").ok();
        for media_type in [
            "multipart/form-data; boundary=x",
            "Multipart/Form-Data;boundary=\"x\"",
            "multipart/form-data",
            "text/plain\r\nContent-Type: multipart/form-data; boundary=x",
        ] {
            let line = format!("Content-Type: {media_type}\r\n");
            for (target, body) in [
                (target("update"), PARTS),
                (target("insert"), ""),
                ("/api/v2/update".to_owned(), PARTS),
                (target("query"), PARTS),
            ] {
                let answer = client.request("POST", &target, &line, Some(body.as_bytes()));
                let problem = answer.refused(415, "unsupported_media_type");
                assert!(problem["detail"].as_str().unwrap().contains("--data-binary @file"), "{problem}");
            }
        }
        assert_unchanged(client);
        // All other types are taken as text.
        for media_type in ["multipart/mixed; boundary=x", "application/octet-stream", "image/png", "x"] {
            let line = format!("Content-Type: {media_type}\r\n");
            client.request("POST", &target("update"), &line, Some(b"kept")).ok();
        }
        client.request("GET", &(target("update") + "&s=kept"), MULTIPART, None).ok();
    });
}

#[test]
fn curl_is_told_how_to_send_a_file() {
    let running = Deployment::start(&Setup::default());
    let client = running.client_of("alice");
    let curl = |arguments: &[&str]| {
        let mut command = Command::new("curl");
        let url = url(client.address, &target("update"));
        let key = format!("Authorization: Bearer {}", key_of("alice"));
        command.args(["-sS", "-H", &key, &url]).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"from a file").unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
    };
    assert!(curl(&["-F", "file=@-"]).contains("--data-binary @file"));
    assert!(curl(&["-H", "Content-Encoding: gzip", "--data-binary", "@-"]).contains("unsupported_encoding"));
    assert_eq!(client.get(&target("select")).ok(), "");
    assert_eq!(curl(&["--data-binary", "@-"]), "Updated 11 bytes");
}

#[test]
fn refused_bodies_are_counted_and_audited() {
    let running = Deployment::start(&Setup::default());
    let client = running.client_of("alice");
    client.request("POST", &target("update"), MULTIPART, Some(b"x")).problem(415, "unsupported_media_type");
    client
        .request("POST", &target("update"), "Content-Encoding: br\r\n", Some(b"x"))
        .problem(415, "unsupported_encoding");
    let scrape = sq_tests::scrape::Scrape::of_gateway(running.address);
    for code in ["unsupported_media_type", "unsupported_encoding"] {
        assert_eq!(scrape.value(&format!("sq_gateway_rejected_total{{code=\"{code}\"}}")), 1.0);
    }
}

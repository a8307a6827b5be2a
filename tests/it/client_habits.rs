//! What SQ's clients send: short coordinates, forms, texts that curl labels as forms, and the push of an emptied
//! scroll.

use serde_json::Value;
use sq_tests::client::Client;
use sq_tests::deployment::Deployment;
use sq_tests::setup::Setup;

const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";

fn select(client: &Client, c: &str) -> String {
    client.get(&format!("/api/v2/select?p=notes&c={c}")).ok().to_owned()
}

#[test]
fn a_coordinate_may_be_short_and_have_spaces_and_zeros() {
    let running = Deployment::start(&Setup::default());
    let client = running.client_of("alice");
    for (written, whole) in [
        ("7.1.1/3.1.1", "7.1.1/3.1.1/1.1.1"),
        ("8.1.2", "8.1.2/1.1.1/1.1.1"),
        ("2025.7.26", "2025.7.26/1.1.1/1.1.1"),
        ("alice.9.1.1", "9.1.1/1.1.1/1.1.1"),
        ("+1.2.3/4.5.6/7.8.9%20", "1.2.3/4.5.6/7.8.9"),
        ("%20%20alice.1.2.3;4.5.6", "1.2.3/4.5.6/1.1.1"),
        ("01.02.003/4.5.6/7.8.9", "1.2.3/4.5.6/7.8.9"),
        ("1.2.3.4.5.6.7.8.9", "1.2.3/4.5.6/7.8.9"),
        ("1/2/3;4.5.6;7/8.9", "1.2.3/4.5.6/7.8.9"),
    ] {
        client.post(&format!("/api/v2/update?p=notes&c={written}"), written).ok();
        assert_eq!(select(&client, whole), written, "{written}");
        assert_eq!(select(&client, written), written, "{written}");
        let query = client.get(&format!("/api/v2/query?p=notes&set={}", written.replace(';', "/")));
        assert!(query.ok().contains(whole), "{query}");
        client.get(&format!("/api/v2/delete?p=notes&c={written}")).ok();
        assert_eq!(client.get("/api/v2/get?p=notes").ok(), "", "{written}");
    }
    client.post("/api/v2/update?p=notes&c=2.1.1", "two").ok();
    client.post("/api/v2/update?p=notes&c=3.1.1", "three").ok();
    let range = client.get("/api/v2/query?p=notes&from=2.1.1&to=2.9.9");
    assert!(range.ok().contains("two") && !range.text().contains("three"), "{range}");
    let delta =
        client.post("/api/v2/delta?p=notes", format!(" 2.1.1: {}\n", libphext::phext::checksum("two")));
    assert!(!delta.ok().contains("two") && delta.text().contains("three"), "{delta}");
    let root = running.stop();
    let log = root.read("audit.log");
    let last: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    assert_eq!(last["coordinate"], "alice.3.1.1/1.1.1/1.1.1");
}

#[test]
fn invalid_coordinate_is_refused_and_nothing_is_written() {
    let running = Deployment::start(&Setup::default());
    let client = running.client_of("alice");
    for c in [
        "",
        "%20",
        "1",
        "1.1",
        "1.1.1.1",
        "1.1.1/1.1",
        "1.1.1/1.1.1/1",
        "1.1.1/1.1.1/1.1.1/1.1.1",
        "1.1.1/",
        ".1.1.1",
        "1..1",
        "1.1.1%0a",
        "%091.1.1",
        "1.%201.1",
        "0.1.1",
        "1.1.1/1.1.1/1.1.0",
        "-1.1.1",
        "%2b1.1.1",
        "1e1.1.1",
        "4294967296.1.1",
        "1,1,1",
        "alice",
        "alice.",
        "alice/1.1.1",
        "ALICE.1.1.1",
        "alice.alice.1.1.1",
        "%D9%A1.1.1",
    ] {
        for command in ["update", "insert", "delete", "select"] {
            let answer = client.get(&format!("/api/v2/{command}?p=notes&c={c}&s=x"));
            answer.problem(400, "invalid_coordinate");
        }
    }
    assert!(running.stored().is_empty());
}

#[test]
fn another_tenants_namespace_is_named_in_the_refusal() {
    let running = Deployment::start(&Setup::default());
    let client = running.client_of("alice");
    for (c, name) in
        [("bob.1.1.1", "bob"), ("+bob.1.1.1/1.1.1/1.1.1", "bob"), ("x1.1.1", "x1"), ("a-b.1.1.1", "a-b")]
    {
        let problem =
            client.get(&format!("/api/v2/update?p=notes&c={c}&s=x")).problem(403, "foreign_namespace");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(&format!("\"{name}\"")), "{detail}");
    }
    assert!(running.stored().is_empty());
}

#[test]
fn empty_post_with_a_content_type_empties_the_scroll() {
    let running = Deployment::start(&Setup::default());
    let client = running.client_of("alice");
    let post = |command: &str, fields: &str, body: Option<&[u8]>| {
        client.request("POST", &format!("/api/v2/{command}?p=notes&c=7.1.1"), fields, body)
    };
    for content_type in
        ["application/phext", "text/plain; charset=utf-8", "application/x-www-form-urlencoded"]
    {
        client.post("/api/v2/update?p=notes&c=7.1.1", "text").ok();
        let field = format!("Content-Type: {content_type}\r\n");
        assert_eq!(post("insert", &field, Some(b"")).ok(), "Inserted 0 bytes");
        assert_eq!(select(&client, "7.1.1"), "text");
        assert_eq!(post("update", &field, Some(b"")).ok(), "Updated 0 bytes");
        assert_eq!(select(&client, "7.1.1"), "", "{content_type}");
    }
    // An empty body can be announced in other ways too.
    let typed = "Content-Type: text/plain\r\n";
    for (fields, body) in [("Content-Length: 00\r\n", ""), ("Transfer-Encoding: chunked\r\n", "0\r\n\r\n")] {
        client.post("/api/v2/update?p=notes&c=7.1.1", "text").ok();
        let send = |fields: &str| {
            let mut connection = client.connect();
            let head = client.head("POST", "/api/v2/update?p=notes&c=7.1.1");
            connection.send(format!("{head}{fields}\r\n{body}").as_bytes());
            connection.answer()
        };
        send(fields).problem(400, "missing_parameter");
        assert_eq!(select(&client, "7.1.1"), "text");
        assert_eq!(send(&format!("{typed}{fields}")).ok(), "Updated 0 bytes");
        assert_eq!(select(&client, "7.1.1"), "", "{fields}");
    }
    // A form in chunks without a text is not an empty body.
    client.post("/api/v2/update?p=notes&c=7.1.1", "text").ok();
    let mut connection = client.connect();
    let head = client.head("POST", "/api/v2/update");
    let form = "Transfer-Encoding: chunked\r\n\r\n11\r\np=notes&c=7.1.1&x\r\n0\r\n\r\n";
    connection.send(format!("{head}{FORM}{form}").as_bytes());
    connection.answer().problem(400, "missing_parameter");
    assert_eq!(select(&client, "7.1.1"), "text");
    // A client that forgets the text does not mean an empty one.
    post("update", "", Some(b"")).problem(400, "missing_parameter");
    post("update", "", None).problem(400, "missing_parameter");
    post("update", "Content-Type: text/plain\r\n", None).problem(400, "missing_parameter");
    client.post_chunks("/api/v2/update?p=notes&c=7.1.1", &[]).problem(400, "missing_parameter");
    let get = |fields: &str| client.request("GET", "/api/v2/update?p=notes&c=7.1.1", fields, Some(b""));
    get("Content-Type: text/plain\r\n").problem(400, "missing_parameter");
    // A text in the query counts.
    let target = "/api/v2/update?p=notes&c=7.1.1&s=in+the+query";
    client.request("POST", target, "Content-Type: text/plain\r\n", Some(b"")).ok();
    assert_eq!(select(&client, "7.1.1"), "in the query");
    // An editor gets the same response to a precondition.
    let guarded = "Content-Type: application/phext\r\nIf-Match: \"0123\"\r\n";
    post("update", guarded, Some(b"")).problem(412, "precondition_failed");
}

#[test]
fn form_body_is_the_text_unless_it_has_known_fields() {
    let running = Deployment::start(&Setup::default());
    let client = running.client_of("alice");
    let post = |target: &str, body: &str| client.request("POST", target, FORM, Some(body.as_bytes()));
    let get = |target: &str| client.get(target).ok().to_owned();
    for text in [
        "hello",
        "hello=1&x=y",
        "100%",
        "a+b",
        "line\nline",
        "P=1",
        "https://example.org/?a=1&s=2",
        "x=y&p=named&c=9.9.9",
        "50%ff=half&s=1",
    ] {
        post("/api/v2/update?c=1.1.1", text).ok();
        assert_eq!(get("/api/v2/select?c=1.1.1"), text);
        post("/api/v2/update?p=&c=1.1.1", "p=q&s=x").ok();
        assert_eq!(get("/api/v2/select?c=1.1.1"), "p=q&s=x");
    }
    post("/api/v2/update", "c=2.1.1&content=a+form").ok();
    assert_eq!(get("/api/v2/select?c=2.1.1"), "a form");
    post("/api/v2/update?c=3.1.1", "s=").ok();
    assert_eq!(get("/api/v2/select?c=3.1.1"), "");
    post("/api/v2/update?c=3.1.1", "p=named&s=x").ok();
    assert_eq!(get("/api/v2/select?p=named&c=3.1.1"), "x");
    // A form without a text writes nothing.
    post("/api/v2/update?c=2.1.1", "p=named").problem(400, "missing_parameter");
    post("/api/v2/delete", "c=2.1.1").ok();
    assert_eq!(get("/api/v2/select?c=2.1.1"), "");
}

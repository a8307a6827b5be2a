//! Invalid UTF-8 is refused with its offset, stores nothing, and does not affect later requests; valid UTF-8 is
//! returned byte for byte.

use sq_tests::answer::Answer;
use sq_tests::client::{Client, percent_encoded};
use sq_tests::deployment::Deployment;
use sq_tests::setup::Setup;

const AT: &str = "p=text&c=1.1.1/1.1.1/1.1.1";

/// Every ill-formed class of table 3-7 of the Unicode Standard, at the borders of each range.
const ILL_FORMED: [(&str, &[u8]); 40] = [
    ("a continuation without a lead", b"\x80"),
    ("the last continuation without a lead", b"\xbf"),
    ("two continuations without a lead", b"\x80\xbf"),
    ("overlong NUL in two bytes", b"\xc0\x80"),
    ("overlong slash in two bytes", b"\xc0\xaf"),
    ("the longest overlong in two bytes", b"\xc1\xbf"),
    ("overlong slash in three bytes", b"\xe0\x80\xaf"),
    ("the longest overlong in three bytes", b"\xe0\x9f\xbf"),
    ("overlong slash in four bytes", b"\xf0\x80\x80\xaf"),
    ("the longest overlong in four bytes", b"\xf0\x8f\xbf\xbf"),
    ("the first surrogate", b"\xed\xa0\x80"),
    ("the last high surrogate", b"\xed\xaf\xbf"),
    ("the first low surrogate", b"\xed\xb0\x80"),
    ("the last surrogate", b"\xed\xbf\xbf"),
    ("a pair of surrogates (CESU-8)", b"\xed\xa0\xbd\xed\xb4\x86"),
    ("the first above 10FFFF", b"\xf4\x90\x80\x80"),
    ("the last with the lead F4", b"\xf4\xbf\xbf\xbf"),
    ("the lead F5", b"\xf5\x80\x80\x80"),
    ("the lead F7", b"\xf7\xbf\xbf\xbf"),
    ("five bytes", b"\xf8\x88\x80\x80\x80"),
    ("six bytes", b"\xfc\x84\x80\x80\x80\x80"),
    ("the byte FE", b"\xfe"),
    ("the byte FF", b"\xff"),
    ("the text that once crashed SQ", b"\xff\xfe\xfd"),
    ("C2 cut", b"\xc2"),
    ("DF cut", b"\xdf"),
    ("E0 cut after one", b"\xe0"),
    ("E0 cut after two", b"\xe0\xa0"),
    ("E1 cut after one", b"\xe1"),
    ("EC cut after two", b"\xec\xbf"),
    ("ED cut after two", b"\xed\x9f"),
    ("EE cut after two", b"\xee\x80"),
    ("EF cut after two", b"\xef\xbf"),
    ("F0 cut after one", b"\xf0"),
    ("F0 cut after two", b"\xf0\x90"),
    ("F0 cut after three", b"\xf0\x90\x80"),
    ("F1 cut after three", b"\xf1\x80\x80"),
    ("F4 cut after two", b"\xf4\x8f"),
    ("F4 cut after three", b"\xf4\x8f\xbf"),
    ("a lead that another lead cuts", b"\xe2\x82\xe2\x82\xac"),
];

fn deployment() -> Deployment {
    Deployment::start(&Setup::default())
}

fn assert_refused(answer: &Answer, part: &str, offset: Option<usize>, what: &str) {
    let body = answer.refused(400, "invalid_utf8");
    assert_eq!(body["part"], part, "{what}: {answer}");
    if let Some(offset) = offset {
        assert_eq!(body["offset"], offset, "{what}: {answer}");
    }
}

/// After a bad request, nothing is stored, and the same tenant is served.
fn assert_unharmed(running: &Deployment, client: &Client) {
    assert!(running.stored().is_empty(), "something was stored: {:?}", running.stored());
    assert_eq!(client.get(&format!("/api/v2/select?{AT}")).ok(), "");
}

#[test]
fn each_ill_formed_class_is_refused_in_a_body() {
    let running = deployment();
    let client = running.client_of("alice");
    let target = format!("/api/v2/insert?{AT}");
    for (what, bad) in ILL_FORMED {
        for (before, after) in [("", ""), ("abc", "def"), ("x\u{20ac}\u{1f506}", "\u{e4}")] {
            let body = [before.as_bytes(), bad, after.as_bytes()].concat();
            assert_refused(&client.post(&target, &body), "body", Some(before.len()), what);
        }
        assert_unharmed(&running, &client);
    }
}

#[test]
fn each_ill_formed_class_is_refused_when_it_is_split() {
    let running = deployment();
    let client = running.client_of("alice");
    let target = format!("/api/v2/insert?{AT}");
    for (what, bad) in ILL_FORMED {
        let body = [b"ab", bad, b"cd"].concat();
        for split in 1..body.len() {
            let parts = [&body[..split], &body[split..]];
            assert_refused(&client.post_chunks(&target, &parts), "body", Some(2), what);
            assert_refused(&client.post_writes(&target, &parts), "body", Some(2), what);
        }
        let bytes: Vec<&[u8]> = body.chunks(1).collect();
        assert_refused(&client.post_chunks(&target, &bytes), "body", Some(2), what);
        assert_unharmed(&running, &client);
    }
}

#[test]
fn a_sequence_that_the_end_of_the_body_cuts_is_refused() {
    let running = deployment();
    let client = running.client_of("alice");
    let target = format!("/api/v2/update?{AT}");
    for whole in ["\u{e4}", "\u{20ac}", "\u{1f506}"] {
        for kept in 1..whole.len() {
            let body = [b"ok", &whole.as_bytes()[..kept]].concat();
            assert_refused(&client.post(&target, &body), "body", Some(2), whole);
            let (first, last) = body.split_at(body.len() - 1);
            assert_refused(&client.post_chunks(&target, &[first, last]), "body", Some(2), whole);
        }
    }
    assert_unharmed(&running, &client);
}

#[test]
fn each_ill_formed_class_is_refused_in_query_and_path() {
    let running = deployment();
    let client = running.client_of("alice");
    for (what, bad) in ILL_FORMED {
        let bad = percent_encoded(bad);
        for target in [
            format!("/api/v2/insert?{AT}&s=ab{bad}cd"),
            format!("/api/v2/insert?{AT}&s={bad}"),
            format!("/api/v2/insert?p=a{bad}&c=1.1.1/1.1.1/1.1.1&s=x"),
            format!("/api/v2/insert?p=text&c={bad}&s=x"),
            format!("/api/v2/insert?{AT}&s=x&{bad}=1"),
            format!("/api/v2/select?{AT}&unused={bad}"),
        ] {
            assert_refused(&client.get(&target), "query", None, what);
        }
        for target in
            [format!("/api/v2/insert{bad}?{AT}&s=x"), format!("/{bad}"), format!("/api/v2/{bad}?s={bad}")]
        {
            assert_refused(&client.get(&target), "path", None, what);
        }
        assert_unharmed(&running, &client);
    }
}

#[test]
fn raw_bytes_in_the_target_are_refused() {
    let running = deployment();
    let client = running.client_of("alice");
    for target in ["/api/v2/select?p=\0&c=1.1.1/1.1.1/1.1.1", "/api/v2/sel\0ect"] {
        // The client writes text; the NUL in it is replaced by the byte FF.
        let head = client.head("GET", target) + "Connection: close\r\n\r\n";
        let bytes: Vec<u8> = head.bytes().map(|byte| if byte == 0 { 0xff } else { byte }).collect();
        let answer = client.raw(&bytes);
        assert_eq!(answer.status, 400, "{answer}");
        let code = answer.json()["code"].as_str().unwrap().to_owned();
        assert!(["invalid_utf8", "bad_request"].contains(&code.as_str()), "{answer}");
    }
    assert_unharmed(&running, &client);
}

#[test]
fn texts_that_crashed_sq_are_served() {
    let running = deployment();
    let client = running.client_of("alice");
    let target = format!("/api/v2/update?{AT}");
    assert_refused(&client.post(&target, b"\xff\xfe\xfd"), "body", Some(0), "ff fe fd");
    assert_unharmed(&running, &client);
    let split_at_32 = format!("{}\u{1f506}", "x".repeat(29));
    assert_eq!(client.post(&target, &split_at_32).ok(), "Updated 33 bytes");
    assert_eq!(client.get(&format!("/api/v2/select?{AT}")).ok(), split_at_32);
}

#[test]
fn a_character_of_four_bytes_survives_at_each_offset() {
    let running = deployment();
    let client = running.client_of("alice");
    let target = format!("/api/v2/update?{AT}");
    for offset in 0..=64 {
        let text = format!("{}\u{1f506}end", "x".repeat(offset));
        let updated = format!("Updated {} bytes", text.len());
        assert_eq!(client.post(&target, &text).ok(), updated);
        assert_eq!(client.get(&format!("/api/v2/select?{AT}")).ok(), text);
        let by_query = format!("{target}&s={}", percent_encoded(&text));
        assert_eq!(client.get(&by_query).ok(), updated);
        assert_eq!(client.get(&format!("/api/v2/get?{AT}")).ok(), text);
    }
}

#[test]
fn a_character_that_two_chunks_share_is_stored_whole() {
    let running = deployment();
    let client = running.client_of("alice");
    let target = format!("/api/v2/update?{AT}");
    let text = "a\u{e4}\u{20ac}\u{1f506}\u{0}\u{7f}\u{fffd}\u{10ffff}\r\n\tz";
    for split in 1..text.len() {
        let parts = [&text.as_bytes()[..split], &text.as_bytes()[split..]];
        client.get(&format!("/api/v2/delete?{AT}")).ok();
        client.post_chunks(&target, &parts).ok();
        assert_eq!(client.get(&format!("/api/v2/select?{AT}")).ok(), text);
        client.get(&format!("/api/v2/delete?{AT}")).ok();
        client.post_writes(&target, &parts).ok();
        assert_eq!(client.get(&format!("/api/v2/select?{AT}")).ok(), text);
    }
}

#[test]
fn the_worker_refuses_it_too() {
    let running = deployment();
    let slot = running.slot(1341, Some(&sq_tests::setup::key_of("alice")));
    for (what, bad) in ILL_FORMED {
        assert_refused(&slot.post(&format!("/api/v2/insert?{AT}"), bad), "body", Some(0), what);
        let query = format!("/api/v2/insert?{AT}&s={}", percent_encoded(bad));
        assert_refused(&slot.get(&query), "query", None, what);
    }
    assert_unharmed(&running, &running.client_of("alice"));
}

/// What a shell user types after `s=`, without percent-encoding.
#[test]
fn raw_target_is_used_unchanged() {
    let running = deployment();
    let client = running.client_of("alice");
    let text = "<\u{e9}\u{1f506}>|^\\\"`{}[]~'";
    assert_eq!(
        client.get(&format!("/api/v2/update?{AT}&s={text}")).ok(),
        format!("Updated {} bytes", text.len())
    );
    assert_eq!(client.get(&format!("/api/v2/select?{AT}")).ok(), text);
    client.get(&format!("/api/v2/select?{AT}#fragment")).refused(400, "invalid_coordinate");
}

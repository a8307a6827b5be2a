//! Where we differ from `sq` on purpose, one test per row of the table in `docs/api.md`, asserted on both sides.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sq_tests::peers::Server;
use sq_tests::tree;

use super::{Pair, get, post};

#[test]
fn text_that_is_not_utf8_differs() {
    let Some(pair) = Pair::start("sq and text that is not UTF-8") else { return };
    let target = "/api/v2/update?p=notes&c=1.1.1/1.1.1/1.1.1";
    let select = "/api/v2/select?p=notes&c=1.1.1/1.1.1/1.1.1";
    pair.peer.client.post(target, b"\xff\xfe\xfd").ok();
    assert_eq!(pair.peer.client.get(select).ok(), "\u{fffd}\u{fffd}\u{fffd}");
    pair.ours.client.post(target, b"\xff\xfe\xfd").refused(400, "invalid_utf8");
    assert_eq!(pair.ours.client.get(select).ok(), "");
}

#[test]
fn invalid_coordinates_differ() {
    let Some(pair) = Pair::start("sq and malformed coordinates") else { return };
    for (phext, c) in [("one", "c=garbage"), ("two", "c="), ("three", "unused=1")] {
        pair.peer.client.get(&format!("/api/v2/update?p={phext}&{c}&s=x")).ok();
        assert_eq!(pair.peer.client.get(&format!("/api/v2/select?p={phext}&c=1.1.1/1.1.1/1.1.1")).ok(), "x");
        let ours = pair.ours.client.get(&format!("/api/v2/update?p={phext}&{c}&s=x"));
        ours.refused(400, if c == "unused=1" { "missing_parameter" } else { "invalid_coordinate" });
        assert!(!pair.file("ours", phext).exists());
    }
}

#[test]
fn a_break_inside_a_scroll_differs() {
    let Some(pair) = Pair::start("sq and a break inside a scroll") else { return };
    let target = "/api/v2/update?p=notes&c=1.1.1/1.1.1/1.1.1";
    pair.peer.client.post(target, "a\u{17}b").ok();
    assert_eq!(pair.peer.client.get("/api/v2/get?p=notes").ok(), "a\u{17}b");
    pair.ours.client.post(target, "a\u{17}b").refused(400, "break_in_scroll");
    assert!(!pair.file("ours", "notes").exists());
}

#[test]
fn reading_what_does_not_exist_differs() {
    let Some(pair) = Pair::start("sq and phexts that do not exist") else { return };
    let files = |side: &str| {
        tree::files(&pair.folder.path().join(side).join("data")).into_iter().filter(is_phext).count()
    };
    let reads = ["select", "toc", "get", "delta"];
    for (number, command) in reads.iter().enumerate() {
        pair.assert_same(&get(format!("/api/v2/{command}?p=none{number}&c=1.1.1/1.1.1/1.1.1")));
    }
    assert_eq!((files("peer"), files("ours")), (reads.len(), 0));
}

fn is_phext(path: &PathBuf) -> bool {
    Path::new(path).extension().is_some_and(|end| end == "phext")
}

#[test]
fn names_with_paths_differ() {
    let Some(pair) = Pair::start("sq and the paths that it tells") else { return };
    pair.assert_same(&get("/api/v2/update?p=notes&c=1.1.1/1.1.1/1.1.1&s=x".to_owned()));
    let (peer, ours) = pair.ask(&get("/api/v2/load?p=notes".to_owned()));
    assert!(peer.starts_with("Loaded /") && peer.ends_with("/data/notes.phext"), "{peer}");
    assert_eq!(ours, "Loaded notes.phext");
    let (peer, ours) = pair.ask(&get("/api/v2/status?p=notes".to_owned()));
    assert!(peer.starts_with("Hosting: /"), "{peer}");
    let lines: Vec<&str> = ours.lines().collect();
    assert!(lines[0].starts_with("Hosting: notes") && lines[1].starts_with("Connection ID: "), "{ours}");
    assert_eq!((lines[2], lines[3], lines.len()), ("Phext Size: 1", "Scrolls: 1", 4));
}

#[test]
fn the_export_differs() {
    let Some(pair) = Pair::start("the export of sq") else { return };
    let scroll = "a \"quote\"\\ and\ttab\n";
    for at in ["1.1.1/1.1.1/1.1.2", "1.1.1/1.1.1/1.1.1", "2.1.1/1.1.1/1.1.1"] {
        pair.assert_same(&post(format!("/api/v2/update?p=notes&c={at}"), scroll.to_owned()));
    }
    let export = |server: &Server| server.client.get("/api/v2/json-export?p=notes");
    assert!(serde_json::from_slice::<Value>(&export(&pair.peer).body).is_err(), "sq escapes by now");
    let ours = export(&pair.ours).json();
    let rows: Vec<_> = ours
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["coord"].as_str().unwrap(), row["scroll"].as_str().unwrap()))
        .collect();
    assert_eq!(
        rows,
        [("1.1.1/1.1.1/1.1.1", scroll), ("1.1.1/1.1.1/1.1.2", scroll), ("2.1.1/1.1.1/1.1.1", scroll)]
    );
    let files = |side: &str| tree::files(&pair.folder.path().join(side).join("data"));
    let is_export = |path: &PathBuf| path.extension().is_some_and(|end| end == "json");
    assert!(files("peer").iter().any(is_export) && !files("ours").iter().any(is_export));
}

#[test]
fn routes_and_methods_differ() {
    let Some(pair) = Pair::start("the routes of sq") else { return };
    pair.assert_same(&get("/api/v2/update?p=notes&c=1.1.1/1.1.1/1.1.1&s=gone".to_owned()));
    let delete = "/api/v2/delete?p=notes&c=1.1.1/1.1.1/1.1.1";
    assert_eq!(pair.peer.client.post(delete, "").status, 404);
    assert_eq!(pair.ours.client.post(delete, "").ok(), "Removed 4 bytes");
    assert_eq!(pair.peer.client.get("/api/v2/selectx?p=notes&c=1.1.1/1.1.1/1.1.1").ok(), "gone");
    pair.ours.client.get("/api/v2/selectx?p=notes&c=1.1.1/1.1.1/1.1.1").refused(404, "unknown_route");
    assert_ne!(pair.ours.client.get("/api/v2/version").ok(), "0.6.0");
}

/// The peer's phext after it has written its file and read it again.
fn settled_toc(server: &Server, phext: &str) -> String {
    server.client.get(&format!("/api/v2/load?p={phext}")).ok();
    server.client.get(&format!("/api/v2/toc?p={phext}")).ok().to_owned()
}

#[test]
fn short_coordinates_are_filled_up_and_the_last_number_differs() {
    let Some(pair) = Pair::start("sq and short coordinates") else { return };
    for (number, c) in [
        "7.1.1/3.1.1",
        "8.1.1",
        "+1.2.3/4.5.6/7.8.9+",
        "01.002.3/4.5.6/7.8.9",
        "1.2.3;4.5.6;7.8.9",
        "1.2.3.4.5.6.7.8.9",
    ]
    .iter()
    .enumerate()
    {
        pair.assert_same(&get(format!("/api/v2/update?p=short{number}&c={c}&s=x")));
        pair.assert_same(&get(format!("/api/v2/toc?p=short{number}")));
        pair.assert_same(&get(format!("/api/v2/select?p=short{number}&c={c}")));
    }
    for (number, c, theirs, ours) in [
        (1, "7.1.2", "7.1.1/1.1.1/1.1.2", "7.1.2/1.1.1/1.1.1"),
        (2, "1.2.3/4.5.6", "1.2.3/4.5.1/1.1.6", "1.2.3/4.5.6/1.1.1"),
    ] {
        let (peer, own) = pair.ask(&get(format!("/api/v2/update?p=last{number}&c={c}&s=x")));
        assert_eq!(own, peer);
        let toc = get(format!("/api/v2/toc?p=last{number}"));
        assert_eq!(pair.ask(&toc), (format!("* {theirs}: x\n"), format!("* {ours}: x\n")));
    }
    for (number, c, theirs) in [
        (1, "7.1", "7.1.1/1.1.1/1.1.1"),
        (2, "1.2.3.4.5", "1.2.3/4.1.1/1.1.5"),
        (3, "1.2.3/4.5.6/7.8", "1.2.3/4.5.6/7.1.8"),
    ] {
        let target = format!("/api/v2/update?p=other{number}&c={c}&s=x");
        pair.peer.client.get(&target).ok();
        assert_eq!(settled_toc(&pair.peer, &format!("other{number}")), format!("* {theirs}: x\n"));
        pair.ours.client.get(&target).refused(400, "invalid_coordinate");
    }
}

#[test]
fn without_a_name_both_have_the_unnamed_phext() {
    let Some(pair) = Pair::start("sq and requests without p") else { return };
    for operation in [
        get("/api/v2/update?c=1.1.1/1.1.1/1.1.1&s=x".to_owned()),
        post("/api/v2/insert?p=&c=1.1.1/1.1.1/1.1.1".to_owned(), "y".to_owned()),
        get("/api/v2/select?c=1.1.1/1.1.1/1.1.1".to_owned()),
        get("/api/v2/toc".to_owned()),
        get("/api/v2/get?p=".to_owned()),
        get("/api/v2/checksum".to_owned()),
    ] {
        pair.assert_same(&operation);
    }
    let (peer, ours) = pair.ask(&get("/api/v2/status".to_owned()));
    assert!(peer.contains("/data/.phext\n") && ours.starts_with("Hosting: \n"), "{peer} {ours}");
    let written = |side: &str| fs::read(pair.file(side, "")).unwrap();
    assert_eq!(written("ours"), written("peer"));
}

#[test]
fn far_scrolls_differ() {
    let Some(pair) = Pair::start("sq and scrolls beyond 999") else { return };
    let far = ["\x17".repeat(999), "a\x17b".to_owned()].concat();
    for side in ["peer", "ours"] {
        fs::write(pair.file(side, "far"), &far).unwrap();
    }
    // Both are at 999 there, and the last one remains.
    assert_eq!(settled_toc(&pair.peer, "far"), "* 1.1.1/1.1.1/1.1.999: b\n");
    assert_eq!(settled_toc(&pair.ours, "far"), "* 1.1.1/1.1.1/1.1.1000: a\n* 1.1.1/1.1.1/1.1.1001: b\n");
    for target in ["/api/v2/update?p=date&c=2025.7.1&s=a", "/api/v2/update?p=date&c=2026.7.1&s=b"] {
        let (peer, ours) = pair.ask(&get(target.to_owned()));
        assert_eq!(peer, ours);
    }
    assert_eq!(settled_toc(&pair.peer, "date"), "* 999.7.1/1.1.1/1.1.1: b\n");
    assert_eq!(settled_toc(&pair.ours, "date"), "* 2025.7.1/1.1.1/1.1.1: a\n* 2026.7.1/1.1.1/1.1.1: b\n");
}

#[test]
fn the_whole_phext_is_the_file_there_and_canonical_here() {
    let Some(pair) = Pair::start("sq and breaks that lead to nothing") else { return };
    let text = "\x17\x18a\x18\x17\x17b\x19\x18";
    for side in ["peer", "ours"] {
        fs::write(pair.file(side, "text"), text).unwrap();
    }
    let (peer, ours) = pair.ask(&get("/api/v2/get?p=text".to_owned()));
    assert_eq!((peer.as_str(), ours.as_str()), (text, "\x18a\x18\x17\x17b"));
    pair.assert_same(&get("/api/v2/toc?p=text".to_owned()));
    pair.assert_same(&get("/api/v2/checksum?p=text".to_owned()));
}

#[test]
fn sq_follows_links_that_we_refuse() {
    let Some(pair) = Pair::start("sq and links") else { return };
    for side in ["peer", "ours"] {
        fs::write(pair.file(side, "real"), "text").unwrap();
        fs::write(pair.folder.path().join("outside.phext"), "outside").unwrap();
        let folder = pair.file(side, "real").with_file_name("folder");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("kept.phext"), "kept").unwrap();
        symlink("folder/kept.phext", pair.file(side, "month")).unwrap();
        symlink("real.phext", pair.file(side, "link")).unwrap();
        symlink("../../outside.phext", pair.file(side, "out")).unwrap();
        // No file can be created there.
        symlink("missing/lost.phext", pair.file(side, "lost")).unwrap();
    }
    for link in ["link", "month"] {
        pair.assert_same(&get(format!("/api/v2/select?p={link}&c=1.1.1/1.1.1/1.1.1")));
        pair.assert_same(&get(format!("/api/v2/update?p={link}&c=1.1.1/1.1.1/1.1.1&s=through")));
        pair.assert_same(&get(format!("/api/v2/select?p={link}&c=1.1.1/1.1.1/1.1.1")));
    }
    pair.assert_same(&get("/api/v2/select?p=real&c=1.1.1/1.1.1/1.1.1".to_owned()));
    assert!(pair.file("ours", "link").symlink_metadata().unwrap().is_symlink());
    let out = "/api/v2/select?p=out&c=1.1.1/1.1.1/1.1.1";
    assert_eq!(pair.peer.client.get(out).ok(), "outside");
    pair.ours.client.get(out).refused(503, "worker_unavailable");
    let write = "/api/v2/update?p=lost&c=1.1.1/1.1.1/1.1.1&s=lost";
    assert_eq!(pair.peer.client.get(write).ok(), "Updated 4 bytes", "sq tells of a save that fails by now");
    pair.ours.client.get(write).refused(503, "worker_unavailable");
}

#[test]
fn a_write_without_text_differs() {
    let Some(pair) = Pair::start("sq and writes without text") else { return };
    let target = "/api/v2/update?p=notes&c=1.1.1/1.1.1/1.1.1";
    pair.assert_same(&get(format!("{target}&s=text")));
    let empty = |server: &Server, fields: &str| server.client.request("POST", target, fields, Some(b""));
    empty(&pair.ours, "").refused(400, "missing_parameter");
    assert_eq!(pair.ours.client.get("/api/v2/get?p=notes").ok(), "text");
    let typed = "Content-Type: application/phext\r\n";
    assert_eq!(empty(&pair.ours, typed).ok(), empty(&pair.peer, typed).ok());
    pair.assert_same(&get("/api/v2/get?p=notes".to_owned()));
    pair.assert_same(&get(format!("{target}&s=text")));
    assert_eq!(empty(&pair.peer, "").ok(), "Updated 0 bytes");
    // Until the next load, it also counts the empty scroll.
    let scrolls =
        |server: &Server| server.client.get("/api/v2/status?p=notes").ok().lines().last().unwrap().to_owned();
    let (before, _) = (scrolls(&pair.peer), settled_toc(&pair.peer, "notes"));
    assert_eq!(before, "Scrolls: 1");
    pair.ours.client.get(&format!("{target}&s=")).ok();
    assert_eq!(scrolls(&pair.ours), "Scrolls: 0");
}

#[test]
fn invalid_parameters_differ() {
    let Some(pair) = Pair::start("sq and malformed parameters") else { return };
    let text = "a text that is longer than the limits";
    let ask = |server: &Server, query: &str| server.client.post(&format!("/api/v2/where?{query}"), text);
    for (query, plain) in
        [("algo=none&limit=9", "algo=xor&limit=9"), ("algo=xor&limit=many", "algo=xor&limit=100")]
    {
        assert_eq!(ask(&pair.peer, query).ok(), ask(&pair.peer, plain).ok(), "{query}");
        ask(&pair.ours, query).refused(400, "invalid_parameter");
    }
    pair.assert_same(&get("/api/v2/update?p=notes&c=1.1.1/1.1.1/1.1.1&s=x".to_owned()));
    let delta = |server: &Server| server.client.post("/api/v2/delta?p=notes", "this is no line");
    assert_eq!(delta(&pair.peer).ok(), "x");
    delta(&pair.ours).refused(400, "invalid_parameter");
}

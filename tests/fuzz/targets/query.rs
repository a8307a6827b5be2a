//! Paths and queries: the gateway refuses exactly what does not decode to UTF-8, and what it lets pass the worker
//! reads as the plain definition of SQ's decoding does.

use percent_encoding::percent_decode;
use sq_gateway::proxy::target::{origin_form, split_target};
use sq_gateway::proxy::utf8::check_target;
use sq_worker::api::params::Params;

/// Every name that a command reads.
const NAMES: [&str; 9] = ["p", "c", "s", "content", "from", "to", "set", "limit", "algo"];

pub(crate) fn check(data: &[u8]) {
    let (path, query) = split_target(origin_form(data));
    let verdict = check_target(path, query).map_err(|error| (error.part, error.offset));
    let first_bad = |part, bytes| {
        let decoded: Vec<u8> = percent_decode(bytes).collect();
        std::str::from_utf8(&decoded).map(drop).map_err(|error| (part, error.valid_up_to() as u64))
    };
    assert_eq!(verdict, first_bad("path", path).and(first_bad("query", query)));
    // The edge lets no raw bytes pass that are not UTF-8.
    let Ok(query) = std::str::from_utf8(query) else { return };
    match Params::parse(query) {
        Ok(params) => {
            let expected = by_definition(query);
            for name in NAMES {
                let last = expected.iter().rev().find(|(known, _)| known == name);
                assert_eq!(params.get(name), last.map(|(_, value)| value.as_str()), "{name} in {query:?}");
            }
        }
        Err(error) => {
            let gateway = check_target(b"/", query.as_bytes()).expect_err("the gateway let it pass");
            assert_eq!(gateway.offset, error.offset as u64, "{query:?}");
        }
    }
}

fn by_definition(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| {
        let spaced: Vec<u8> = text.bytes().map(|byte| if byte == b'+' { b' ' } else { byte }).collect();
        percent_decode(&spaced).decode_utf8().expect("checked").into_owned()
    };
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (decode(name), decode(value))).collect()
}

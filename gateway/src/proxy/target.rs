//! Splits a request's target, and shortens it for logs.

/// The path and query of a target, without the scheme and authority of an absolute form (`http://host/path`).
pub fn origin_form(target: &[u8]) -> &[u8] {
    let authority = [&b"http://"[..], b"https://"].into_iter().find_map(|scheme| {
        let (front, rest) = target.split_at_checked(scheme.len())?;
        front.eq_ignore_ascii_case(scheme).then_some(rest)
    });
    let Some(authority) = authority else { return target };
    match authority.iter().position(|byte| matches!(byte, b'/' | b'?')) {
        Some(end) => authority.get(end..).unwrap_or(b"/"),
        None => b"/",
    }
}

/// Splits a target into path and query.
pub fn split_target(target: &[u8]) -> (&[u8], &[u8]) {
    match target.iter().position(|byte| *byte == b'?') {
        Some(mark) => (target.get(..mark).unwrap_or_default(), target.get(mark + 1..).unwrap_or_default()),
        None => (target, b""),
    }
}

/// The number of characters of a path in a log: enough for the longest route with a name and a key's id.
const LOGGED_PATH_CHARACTERS: usize = 128;

/// The number of bytes of a method in a log: enough for every registered one.
const LOGGED_METHOD_BYTES: usize = 20;

/// A path for a log, shortened: a client can make it as long as a head may be.
pub fn logged_path(path: &str) -> String {
    path.chars().take(LOGGED_PATH_CHARACTERS).collect()
}

/// A method for a log, shortened: a client can send any token.
pub fn logged_method(method: &http::Method) -> &str {
    let method = method.as_str();
    method.get(..LOGGED_METHOD_BYTES).unwrap_or(method)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absolute_target_becomes_path_and_query() {
        assert_eq!(origin_form(b"/a?b"), b"/a?b");
        assert_eq!(origin_form(b"http://h/a?b"), b"/a?b");
        assert_eq!(origin_form(b"HTTP://h?b"), b"?b");
        assert_eq!(origin_form(b"http://h"), b"/");
        assert_eq!(split_target(b"/a?b?c"), (&b"/a"[..], &b"b?c"[..]));
    }

    #[test]
    fn what_is_logged_is_shortened() {
        let path = |characters: usize| "/\u{e4}".repeat(characters / 2);
        assert_eq!(logged_path(&path(128)), path(128));
        assert_eq!(logged_path(&path(130)), path(128));
        let method = |characters: usize| http::Method::from_bytes(&vec![b'M'; characters]).unwrap();
        assert_eq!(logged_method(&method(20)).len(), 20);
        assert_eq!(logged_method(&method(21)).len(), 20);
    }
}

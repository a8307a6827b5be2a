//! A request's target, cut into what the steps look at.

/// Path and query of a target; an absolute form (`http://host/path`) loses its front.
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

/// Path and query apart.
pub fn split_target(target: &[u8]) -> (&[u8], &[u8]) {
    match target.iter().position(|byte| *byte == b'?') {
        Some(mark) => (target.get(..mark).unwrap_or_default(), target.get(mark + 1..).unwrap_or_default()),
        None => (target, b""),
    }
}

/// A path in a log has no more characters: enough for the longest route with a name and a key's id.
const LOGGED_PATH_CHARACTERS: usize = 128;

/// A method in a log has no more characters: enough for every registered one.
const LOGGED_METHOD_CHARACTERS: usize = 20;

/// What a log line has of a path, which a client makes as long as a head may be.
pub fn logged_path(path: &str) -> String {
    path.chars().take(LOGGED_PATH_CHARACTERS).collect()
}

/// What a log line has of a method, which may be any word.
pub fn logged_method(method: &http::Method) -> String {
    method.as_str().chars().take(LOGGED_METHOD_CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_lose_their_front() {
        assert_eq!(origin_form(b"/a?b"), b"/a?b");
        assert_eq!(origin_form(b"http://h/a?b"), b"/a?b");
        assert_eq!(origin_form(b"HTTP://h?b"), b"?b");
        assert_eq!(origin_form(b"http://h"), b"/");
        assert_eq!(split_target(b"/a?b?c"), (&b"/a"[..], &b"b?c"[..]));
    }

    #[test]
    fn what_is_logged_has_a_length() {
        let path = |characters: usize| "/\u{e4}".repeat(characters / 2);
        assert_eq!(logged_path(&path(128)), path(128));
        assert_eq!(logged_path(&path(130)), path(128));
        let method = |characters: usize| http::Method::from_bytes(&vec![b'M'; characters]).unwrap();
        assert_eq!(logged_method(&method(20)).len(), 20);
        assert_eq!(logged_method(&method(21)).len(), 20);
    }
}

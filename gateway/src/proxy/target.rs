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
}

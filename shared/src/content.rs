//! Refuses bodies that are not plain text. A compressed body, or a form with files, would be stored with its
//! wrapping; it is refused before it is read.

use http::{HeaderMap, Method, header};

use crate::form::media_types;
use crate::problem::{Code, Problem};
use crate::route::Route;

/// Why a body is refused, whatever it contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnsupportedContent {
    /// It has a content coding.
    #[error(
        "the body has a Content-Encoding, and a scroll is text: send it as it is, without Content-Encoding or with \
         Content-Encoding: identity"
    )]
    Encoding,
    /// It is a form with parts.
    #[error(
        "a form of type multipart/form-data would be stored with its boundaries: send the text itself as the body, a \
         file with curl --data-binary @file instead of -F"
    )]
    Multipart,
}

impl UnsupportedContent {
    /// The refusal.
    pub fn problem(self) -> Problem {
        let code = match self {
            Self::Encoding => Code::UnsupportedEncoding,
            Self::Multipart => Code::UnsupportedMediaType,
        };
        Problem::new(code, self.to_string())
    }
}

/// Checks what the head says of the body, where a route takes one.
pub fn check(route: Route, method: &Method, headers: &HeaderMap) -> Result<(), UnsupportedContent> {
    if !route.takes_body() || !(method == Method::POST || announces_body(headers)) {
        return Ok(());
    }
    let codings = headers.get_all(header::CONTENT_ENCODING).iter();
    let is_plain = |list: &[u8]| {
        list.split(|byte| *byte == b',')
            .map(<[u8]>::trim_ascii)
            .all(|coding| coding.is_empty() || coding.eq_ignore_ascii_case(b"identity"))
    };
    if !codings.into_iter().all(|list| is_plain(list.as_bytes())) {
        return Err(UnsupportedContent::Encoding);
    }
    if media_types(headers).any(|media_type| media_type.eq_ignore_ascii_case(b"multipart/form-data")) {
        return Err(UnsupportedContent::Multipart);
    }
    Ok(())
}

fn announces_body(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0")
        || headers.contains_key(header::TRANSFER_ENCODING)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn checked(
        route: Route,
        method: Method,
        fields: &[(&'static str, &'static str)],
    ) -> Result<(), UnsupportedContent> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        check(route, &method, &headers)
    }

    #[test]
    fn a_coding_is_refused_however_it_is_spelled() {
        let post = |fields: &[(&'static str, &'static str)]| checked(Route::Update, Method::POST, fields);
        for coding in ["gzip", "GZip", "x-gzip", "br", "identity, gzip", "gzip;q=1", "aes128gcm"] {
            assert_eq!(post(&[("content-encoding", coding)]), Err(UnsupportedContent::Encoding), "{coding}");
        }
        let two = [("content-encoding", "identity"), ("content-encoding", "deflate")];
        assert_eq!(post(&two), Err(UnsupportedContent::Encoding));
        for coding in ["identity", "Identity", "", "identity , identity"] {
            assert_eq!(post(&[("content-encoding", coding)]), Ok(()), "{coding}");
        }
    }

    #[test]
    fn a_form_with_parts_is_refused_where_there_may_be_a_body() {
        let form = ("content-type", "Multipart/Form-Data ; boundary=x");
        for (route, method) in [
            (Route::Insert, Method::POST),
            (Route::Delete, Method::POST),
            (Route::Query, Method::POST),
            (Route::Where, Method::POST),
        ] {
            assert_eq!(checked(route, method, &[form]), Err(UnsupportedContent::Multipart), "{route:?}");
        }
        let with_body = [form, ("content-length", "5")];
        assert_eq!(checked(Route::Insert, Method::GET, &with_body), Err(UnsupportedContent::Multipart));
        assert_eq!(checked(Route::Insert, Method::GET, &[form]), Ok(()));
        assert_eq!(checked(Route::Select, Method::GET, &with_body), Ok(()));
        let text = [("content-type", "text/plain"), ("content-type", "multipart/form-data")];
        assert_eq!(checked(Route::Insert, Method::POST, &text), Err(UnsupportedContent::Multipart));
        assert_eq!(checked(Route::Insert, Method::POST, &[("content-type", "multipart/mixed")]), Ok(()));
    }
}

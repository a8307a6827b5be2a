//! Checks the key again: reaching a worker's port is not enough to be served.

use hyper::header::HeaderMap;
use sq_shared::clock::now_s;
use sq_shared::credential::{self, CredentialError};
use sq_shared::problem::{Code, Problem};
use sq_shared::registry::{Key, Scope};
use sq_shared::route::Route;

use crate::server::worker::Access;

/// Requires a key that permits the route.
pub(super) fn check(access: &Access, route: Route, headers: &HeaderMap) -> Result<(), Problem> {
    let Access::Keys(keys) = access else { return Ok(()) };
    // Digests are compared in constant time. Stopping at the match tells the position of a key only to its holder.
    let digest = credential::read(headers).map_err(CredentialError::problem)?.digest();
    let key = keys
        .iter()
        .find(|key| key.sha256 == digest)
        .ok_or_else(|| Problem::new(Code::InvalidKey, "the key is not one of this tenant's: check it"))?;
    permit(key, route, now_s)
}

/// Reads the clock only for a key that expires.
fn permit(key: &Key, route: Route, now_s: impl FnOnce() -> i64) -> Result<(), Problem> {
    if key.expires_s.is_some() && !key.is_valid_at(now_s()) {
        return Err(Problem::new(Code::ExpiredKey, "the key has expired: ask the operator for a new one"));
    }
    if route.writes() && key.scope == Scope::Read {
        return Err(Problem::new(
            Code::ReadOnlyKey,
            "the key may only read: write with a key of scope write",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;
    use sq_shared::token::BearerToken;

    use super::*;

    fn key(text: &str, scope: Scope, expires_s: Option<i64>) -> Key {
        let sha256 = BearerToken::parse(text.as_bytes()).unwrap().digest();
        Key { id: "k1".into(), sha256, scope, expires_s }
    }

    fn checked(fields: &[(&'static str, &'static str)]) -> Result<(), Code> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let access = Access::Keys(vec![key("right", Scope::Write, None)]);
        check(&access, Route::Update, &headers).map_err(|problem| problem.code)
    }

    #[test]
    fn only_the_tenants_own_key_is_accepted() {
        assert_eq!(checked(&[("authorization", "Bearer right")]), Ok(()));
        assert_eq!(checked(&[("x-sq-api-key", "right")]), Ok(()));
        assert_eq!(
            checked(&[("authorization", "Bearer right"), ("x-sq-api-key", "other")]),
            Err(Code::BadRequest)
        );
        assert_eq!(checked(&[]), Err(Code::MissingKey));
        for wrong in ["wrong", "Bearer wrong", "Basic right", "Bearer right right"] {
            assert_eq!(checked(&[("authorization", wrong)]), Err(Code::InvalidKey), "{wrong:?}");
        }
    }

    #[test]
    fn an_expired_key_and_a_write_with_a_read_only_key_are_refused() {
        let code = |key: &Key, route, now_s| permit(key, route, || now_s).map_err(|problem| problem.code);
        let expiring = key("k", Scope::Write, Some(100));
        assert_eq!(code(&expiring, Route::Update, 99), Ok(()));
        assert_eq!(code(&expiring, Route::Update, 100), Err(Code::ExpiredKey));
        let reader = key("k", Scope::Read, None);
        for route in Route::ALL {
            let permitted = permit(&reader, route, || unreachable!("this key needs no clock"));
            assert_eq!(permitted.is_err(), route.writes(), "{route:?}");
        }
    }
}

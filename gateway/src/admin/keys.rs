//! `/admin/tenants/{name}/keys`: adds, replaces and revokes keys.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use sq_shared::clock::{now_s, parse_rfc3339};
use sq_shared::registry::Scope;
use utoipa::ToSchema;

use super::Admin;
use super::body::JsonBody;
use super::refusal::Refusal;
use super::tenants::{IssuedKey, TenantPath};
use crate::tenants::keys::{self, Rotation};
use crate::tenants::keys_file::KeysOut;

/// The scope and expiry of a new key, or the key that it replaces.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
// Generated clients know it by this name.
#[schema(as = KeyTerms)]
pub(super) struct KeyOptions {
    /// `write` (and read), which is the default, or `read`.
    #[schema(value_type = Option<String>, pattern = "^(read|write)$", example = "write")]
    scope: Option<Scope>,
    /// When the key expires: a date with time and zone (RFC 3339).
    #[serde(default, deserialize_with = "seconds_since_1970")]
    #[schema(value_type = Option<String>, format = DateTime, example = "2027-01-01T00:00:00Z")]
    expires: Option<i64>,
    /// The id of a key that the new one replaces; the new one gets its scope and expiry.
    #[schema(example = json!(null))]
    replaces: Option<String>,
    /// How many seconds the replaced key stays valid, but never past its own expiry. Without it, or with 0, that key is
    /// revoked at once.
    #[schema(example = json!(null))]
    grace_s: Option<u64>,
}

fn seconds_since_1970<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| parse_rfc3339(&text)).transpose().map_err(D::Error::custom)
}

/// Adds a key to a tenant, or replaces one in a single step.
#[utoipa::path(post, path = "/admin/tenants/{name}/keys", operation_id = "add_key", tag = "keys", params(("name" = String, Path, example = "carol")),
    request_body = Option<KeyOptions>, responses(
    (status = 201, description = "The key is valid at once. This is the only time that it is shown.", body = IssuedKey),
    (status = 404, description = "`unknown_tenant`, or `unknown_key` if `replaces` names no key."),
    (status = 409, description = "`too_many_keys`."),
))]
pub(super) async fn add(
    State(admin): State<Admin>,
    TenantPath(name): TenantPath,
    JsonBody(options): JsonBody<Option<KeyOptions>>,
) -> Result<impl IntoResponse, Refusal> {
    let options = options.unwrap_or_default();
    let now_s = now_s();
    options.check(now_s)?;
    let key = admin.run(move |reloader| {
        let config = reloader.config()?;
        let key = match &options.replaces {
            Some(id) => {
                let grace = options.grace_s.filter(|seconds| *seconds > 0).map(Duration::from_secs);
                keys::rotate(&config, &name, Rotation { key: Some(id), grace }, now_s, &KeysOut::Caller)
            }
            None => {
                let scope = options.scope.unwrap_or(Scope::Write);
                keys::add(&config, &name, scope, options.expires, &KeysOut::Caller)
            }
        }?;
        reloader.apply_change();
        Ok(key)
    });
    Ok((StatusCode::CREATED, Json(IssuedKey::from(key.await?))))
}

/// Revokes a key, and removes it from the registry.
#[utoipa::path(delete, path = "/admin/tenants/{name}/keys/{id}", operation_id = "revoke_key", tag = "keys",
    params(("name" = String, Path, example = "carol"), ("id" = String, Path, example = "k1")), responses(
    (status = 204, description = "The key is revoked."),
    (status = 404, description = "`unknown_tenant` or `unknown_key`."),
))]
pub(super) async fn revoke(
    State(admin): State<Admin>,
    TenantPath(name): TenantPath,
    Path(mut parameters): Path<BTreeMap<String, String>>,
) -> Result<StatusCode, Refusal> {
    let id = parameters.remove("id").unwrap_or_default();
    let revoked = admin.run(move |reloader| {
        keys::revoke(&reloader.config()?, &name, &id)?;
        reloader.apply_change();
        Ok(StatusCode::NO_CONTENT)
    });
    revoked.await
}

impl KeyOptions {
    fn check(&self, now_s: i64) -> Result<(), Refusal> {
        if self.expires.is_some_and(|expires_s| expires_s <= now_s) {
            return Err(Refusal::invalid(
                "expires",
                "this time is in the past: the key would never be valid",
            ));
        }
        let inherited = "a key that replaces another inherits its scope and expiry; leave this out";
        match (&self.replaces, self.scope, self.expires, self.grace_s) {
            (Some(_), Some(_), _, _) => Err(Refusal::invalid("scope", inherited)),
            (Some(_), _, Some(_), _) => Err(Refusal::invalid("expires", inherited)),
            (None, _, _, Some(_)) => {
                Err(Refusal::invalid("grace_s", "this is only for a key that replaces another"))
            }
            _ => Ok(()),
        }
    }
}

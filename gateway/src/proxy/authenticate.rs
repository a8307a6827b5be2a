//! Turns a key into an [`AuthenticatedTenant`], the permit that forwarding needs and only this module can create.

use std::sync::Arc;

use sq_shared::clock::now_s;
use sq_shared::registry::{Scope, TenantState};
use sq_shared::token::BearerToken;

use crate::directory::{Directory, DirectoryTenant};

/// Proof that the request's key is valid and its tenant is active.
pub(crate) struct AuthenticatedTenant {
    tenant: Arc<DirectoryTenant>,
    key_index: usize,
    scope: Scope,
    token: BearerToken,
}

/// Why a key is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AuthenticateError {
    #[error("unknown key")]
    Unknown,
    #[error("expired key")]
    Expired,
    #[error("tenant suspended")]
    Suspended,
    /// Its tenant is not active yet.
    #[error("tenant reserved")]
    Reserved,
}

pub(super) fn authenticate(
    token: BearerToken,
    directory: &Directory,
) -> Result<AuthenticatedTenant, AuthenticateError> {
    let (tenant, key_index) = directory.find(&token.digest()).ok_or(AuthenticateError::Unknown)?;
    let key = tenant.keys.get(key_index).ok_or(AuthenticateError::Unknown)?;
    // The clock is read only for a key that can expire.
    if key.expires_s.is_some() && !key.is_valid_at(now_s()) {
        return Err(AuthenticateError::Expired);
    }
    match tenant.state {
        TenantState::Suspended => Err(AuthenticateError::Suspended),
        TenantState::Reserved => Err(AuthenticateError::Reserved),
        TenantState::Active => {
            Ok(AuthenticatedTenant { tenant: Arc::clone(tenant), key_index, scope: key.scope, token })
        }
    }
}

impl AuthenticatedTenant {
    pub(crate) fn tenant(&self) -> &DirectoryTenant {
        &self.tenant
    }

    pub(crate) fn name(&self) -> &str {
        self.tenant.name.as_str()
    }

    pub(crate) fn key_id(&self) -> &str {
        self.tenant.keys.get(self.key_index).map_or("", |key| &key.id)
    }

    /// Whether the key has expired by now.
    pub(crate) fn has_expired(&self) -> bool {
        self.tenant.keys.get(self.key_index).is_some_and(|key| !key.is_valid_at(now_s()))
    }

    pub(crate) fn may_write(&self) -> bool {
        self.scope == Scope::Write
    }

    /// The key itself, which the worker checks again.
    pub(crate) fn token(&self) -> &BearerToken {
        &self.token
    }
}

//! A key becomes an [`AuthenticatedTenant`]: the permit without which nothing can be forwarded, and which
//! nothing but this module can make.

use std::sync::Arc;

use sq_shared::clock::now_s;
use sq_shared::registry::{Scope, TenantState};
use sq_shared::token::BearerToken;

use crate::directory::{Directory, DirectoryTenant};

/// Proof that the request's key is a valid one of this tenant, and the tenant is served.
pub struct AuthenticatedTenant {
    tenant: Arc<DirectoryTenant>,
    key_index: usize,
    scope: Scope,
    token: BearerToken,
}

/// Why a key opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthenticateError {
    /// Nobody's.
    #[error("unknown key")]
    Unknown,
    /// It was somebody's.
    #[error("expired key")]
    Expired,
    /// The tenant is not served any more.
    #[error("tenant suspended")]
    Suspended,
    /// The tenant is not served yet.
    #[error("tenant reserved")]
    Reserved,
}

/// Looks a key up.
///
/// # Errors
/// It is unknown or has expired, or its tenant is not served.
pub fn authenticate(
    token: BearerToken,
    directory: &Directory,
) -> Result<AuthenticatedTenant, AuthenticateError> {
    let (tenant, key_index) = directory.find(&token.digest()).ok_or(AuthenticateError::Unknown)?;
    let key = tenant.key(key_index).ok_or(AuthenticateError::Unknown)?;
    // The clock is read only for a key that has an end.
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
    /// Whose key it is.
    pub fn tenant(&self) -> &DirectoryTenant {
        &self.tenant
    }

    /// Which of the tenant's keys.
    pub fn key_id(&self) -> &str {
        self.tenant.key(self.key_index).map_or("", |key| &key.id)
    }

    /// Whether the key has expired since it was looked up.
    pub fn has_expired(&self) -> bool {
        self.tenant.key(self.key_index).is_some_and(|key| !key.is_valid_at(now_s()))
    }

    /// Whether the key may write.
    pub fn may_write(&self) -> bool {
        self.scope == Scope::Write
    }

    /// The key itself, for the worker to check again.
    pub fn token(&self) -> &BearerToken {
        &self.token
    }
}

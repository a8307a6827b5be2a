//! How much one client address and one tenant may ask, and how a request stands with that.

mod address_store;
mod client;
mod in_flight;
mod standing;
mod tenant;

pub use client::ClientLimits;
pub use in_flight::Permit;
pub use standing::{Standing, rate_limit_fields};
pub use tenant::TenantLimiter;

/// Which limit a request ran into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// The client address's rate.
    #[error("rate of the address, {0:?}")]
    PerIp(Standing),
    /// The tenant's rate.
    #[error("rate of the tenant, {0:?}")]
    PerTenant(Standing),
    /// The client address's wrong keys.
    #[error("wrong keys of the address, {0:?}")]
    FailedKeys(Standing),
    /// The tenant's requests at once.
    #[error("{0} requests of the tenant in flight")]
    InFlight(usize),
}

impl LimitError {
    /// How the refused request stands; `None` when it was no rate that refused it.
    pub fn standing(self) -> Option<Standing> {
        match self {
            Self::PerIp(standing) | Self::PerTenant(standing) | Self::FailedKeys(standing) => Some(standing),
            Self::InFlight(_) => None,
        }
    }
}

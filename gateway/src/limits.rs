//! Rate limits by client address and by tenant, and the tenant's in-flight limit.

mod address_store;
mod client;
mod rate_status;
mod tenant;

use sq_shared::problem::{Code, Problem};

pub(crate) use client::ClientLimits;
pub(crate) use rate_status::{RateStatus, rate_limit_fields};
pub(crate) use tenant::{Permit, TenantLimiter};

/// The limit that a request exceeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LimitError {
    #[error("rate limit of the address, {0:?}")]
    PerIp(RateStatus),
    #[error("rate limit of the tenant, {0:?}")]
    PerTenant(RateStatus),
    #[error("wrong keys from the address, {0:?}")]
    FailedKeys(RateStatus),
    #[error("{0} requests of the tenant are in flight")]
    InFlight(usize),
}

impl LimitError {
    /// The status of the exceeded rate; `None` for the in-flight limit.
    pub(crate) fn rate_status(self) -> Option<RateStatus> {
        match self {
            Self::PerIp(status) | Self::PerTenant(status) | Self::FailedKeys(status) => Some(status),
            Self::InFlight(_) => None,
        }
    }

    pub(crate) fn problem(self) -> Problem {
        let over = |code, whose: &str, status: RateStatus| {
            let detail = format!("{whose} {}. Try again in {} s.", status.rate, status.reset_s);
            Problem::new(code, detail).retry_after_s(status.reset_s)
        };
        match self {
            Self::PerIp(status) => over(Code::RateLimitedIp, "One address may send", status),
            Self::PerTenant(status) => over(Code::RateLimitedTenant, "This tenant may send", status),
            Self::FailedKeys(status) => {
                over(Code::TooManyFailedKeys, "One address may try wrong keys at", status)
            }
            Self::InFlight(count) => {
                let detail =
                    format!("This tenant may have {count} requests in flight. Wait for an answer first.");
                Problem::new(Code::TooManyInFlight, detail).retry_after_s(1)
            }
        }
    }
}

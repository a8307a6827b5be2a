//! Maps every error of the admin API to a problem. The texts are for HTTP clients; the errors' own texts are for the
//! commands.

use std::borrow::Cow;
use std::error::Error;
use std::fmt::Display;
use std::io;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use sq_shared::limits::{KEY_NUMBER, KEYS_PER_TENANT};
use sq_shared::problem::{Code, Problem};
use sq_shared::registry::edit::EditError;
use sq_shared::toml_reader::{Mistake, Mistakes};
use tokio::task::JoinError;

use crate::tenants::ChangeError;

/// `Retry-After` for errors that an operator has to fix, or that pass.
const RETRY_S: u64 = 5;

/// The problem that answers a refused request.
#[derive(Debug, Clone)]
pub(super) struct Refusal(pub(super) Problem);

impl Refusal {
    pub(super) fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self(Problem::new(code, detail))
    }

    pub(super) fn unknown_route() -> Self {
        Self::new(Code::UnknownRoute, "GET /admin/openapi.json lists the routes")
    }

    /// axum sets `Allow`.
    pub(super) fn method_not_allowed() -> Self {
        Self::new(Code::MethodNotAllowed, "The header Allow lists the methods of this route")
    }

    pub(super) fn unknown_tenant() -> Self {
        Self::new(
            Code::UnknownTenant,
            "There is no tenant of this name; GET /admin/tenants lists all tenants",
        )
    }

    fn unknown_key() -> Self {
        let detail = "The tenant has no key of this id; GET /admin/tenants/{name} lists its keys";
        Self::new(Code::UnknownTenantKey, detail)
    }

    /// A field of the body or the query is wrong.
    pub(super) fn invalid(field: &str, what: impl Display) -> Self {
        Self(Problem::new(Code::InvalidParameter, format!("{field}: {what}")).with("field", field))
    }

    pub(super) fn missing(field: &str, what: impl Display) -> Self {
        Self(Problem::new(Code::MissingParameter, format!("{field} is missing: {what}")).with("field", field))
    }

    /// A defect. The cause is only logged.
    pub(super) fn internal(error: &dyn Error, what: &str) -> Self {
        tracing::error!(%error, "{what}");
        Self::new(Code::Internal, "This is a defect; see the gateway's log")
    }

    /// The work panicked, or the gateway is stopping.
    pub(super) fn not_finished(error: &JoinError) -> Self {
        if error.is_panic() {
            return Self::internal(error, "a request to the admin API panicked");
        }
        Self(Problem::new(Code::ShuttingDown, "The gateway is stopping. Try again").retry_after_s(RETRY_S))
    }

    /// `text` names the file, and is only logged.
    fn io(error: &io::Error, text: &str, done: &str) -> Self {
        tracing::error!(error = text, "the admin API failed to read or write a file: {done}");
        if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return Self::new(Code::DiskFull, format!("The disk is full, and {done}"));
        }
        let detail = format!("A file cannot be read or written, and {done}: see the gateway's log");
        Self(Problem::new(Code::FilesUnavailable, detail).retry_after_s(RETRY_S))
    }
}

impl IntoResponse for Refusal {
    /// `middleware` adds the body, which contains the request's id.
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Mistakes> for Refusal {
    fn from(mistakes: Mistakes) -> Self {
        let shown = |mistake: &Mistake| {
            let (line, column) = mistake.position.unzip();
            json!({"file": mistake.file, "line": line, "column": column, "message": mistake.message})
        };
        let list: Vec<_> = mistakes.0.iter().map(shown).collect();
        let detail = "Fix the listed mistakes; nothing was changed, and the previous files still apply";
        Self(Problem::new(Code::InvalidFiles, detail).with("mistakes", list))
    }
}

impl From<ChangeError> for Refusal {
    fn from(error: ChangeError) -> Self {
        let text = error.to_string();
        match error {
            ChangeError::Edit(error) | ChangeError::DeadKeys(_, error) => error.into(),
            ChangeError::NoRegistry(file) | ChangeError::LostRegistry(file, _) => {
                Mistakes::about(&file, "the registry does not exist").into()
            }
            ChangeError::Exists(name) => {
                Self::new(Code::TenantExists, format!("Tenant {name} already exists; use another name"))
            }
            ChangeError::NoFreeSlot { slots, .. } => {
                let (first, last) = (slots.start(), slots.end());
                let detail = format!(
                    "Each of the slots {first}-{last} has a tenant; remove one, or widen gateway.slots"
                );
                Self::new(Code::NoFreeSlot, detail)
            }
            ChangeError::UsedDirectory { name, .. } => Self::new(
                Code::DirectoryInUse,
                format!(
                    "The directory of the name {name} holds phexts, which the new tenant could read: move it \
                     away, or give it to the tenant with `sq-gateway tenants add {name} --adopt`"
                ),
            ),
            ChangeError::DirectoryTakenAgain(_) => Self::new(
                Code::DirectoryInUse,
                "The tenant is removed, but its directory belongs to a tenant again; it was left as it is",
            ),
            ChangeError::WorkerStillRuns(_) => Self::new(
                Code::WorkerTimeout,
                "The tenant is removed, but its worker still runs; its directory was left as it is",
            ),
            ChangeError::WhichKey(ids) => {
                Self::missing("replaces", format!("name one of the keys {}", ids.join(", ")))
            }
            ChangeError::KeyExpired(_) => Self::invalid(
                "replaces",
                "this key has expired, and the new one would inherit that; leave replaces out to add a key",
            ),
            ChangeError::TooFarAhead => Self::invalid("grace_s", "that is after the year 9999"),
            ChangeError::DataRoot(_) => {
                tracing::error!(
                    error = text,
                    "the admin API failed to use the data root: nothing was changed"
                );
                let detail = "The data root is missing: is its disk mounted? Nothing was changed; see the gateway's log";
                Self::new(Code::DataRootMissing, detail)
            }
            ChangeError::Directories(_, error)
            | ChangeError::UnusableDirectory(_, error)
            | ChangeError::UnreadableDirectory(_, error)
            | ChangeError::KeysOut(_, error)
            | ChangeError::UnknownMounts(error)
            | ChangeError::NoRandomNumbers(error) => Self::io(&error, &text, "nothing was changed"),
            ChangeError::WouldNotBePurged(..) => Self::new(Code::DirectoryInUse, text),
            ChangeError::NotPurged(_, error) => Self::io(
                &error,
                &text,
                "the tenant is removed, but not all of its directory could be deleted",
            ),
            ChangeError::Directory(_, error) => {
                Self::io(&error, &text, "the tenant is removed, but its directory was left as it is")
            }
        }
    }
}

impl From<EditError> for Refusal {
    fn from(error: EditError) -> Self {
        match error {
            EditError::Mistakes(mistakes) => mistakes.into(),
            EditError::OldFormat(file) => {
                let message = "the registry is in an old format: run `sq-gateway import` on it first, and name the new \
                               file in gateway.toml";
                Mistakes::about(&file, message).into()
            }
            EditError::NoSuchTenant(_) => Self::unknown_tenant(),
            EditError::NoSuchKey(..) => Self::unknown_key(),
            EditError::TooManyKeys(name) => Self::new(
                Code::TooManyKeys,
                format!("Tenant {name} has {KEYS_PER_TENANT} keys, and may have no more; revoke some"),
            ),
            EditError::NoMoreIds(name) => Self::new(
                Code::TooManyKeys,
                format!("Tenant {name} has had key k{KEY_NUMBER}, and no number comes after it"),
            ),
            error @ EditError::ReadsOtherwise(_) => {
                tracing::error!(%error, "the admin API failed to change the registry");
                let detail = "This edit would not be read back as it was meant, and nothing was changed";
                Self::new(Code::Internal, detail)
            }
            error @ EditError::WrongUser(_) => {
                tracing::error!(%error, "the admin API failed to change the registry");
                let detail =
                    "The registry belongs to another user, and nothing was changed: see the gateway's log";
                Self::new(Code::FilesUnavailable, detail)
            }
            error @ (EditError::Locked(_) | EditError::Moved(_)) => {
                tracing::error!(%error, "the admin API failed to change the registry");
                let detail =
                    "Another process holds the registry, and nothing was changed: see the gateway's log";
                Self(Problem::new(Code::FilesUnavailable, detail).retry_after_s(RETRY_S))
            }
            EditError::Io(path, error) => {
                Self::io(&error, &format!("{}: {error}", path.display()), "nothing was changed")
            }
            EditError::NotSynced(path, error) => Self::io(
                &error,
                &format!("{}: {error}", path.display()),
                "the change is made, but a power cut may undo it",
            ),
        }
    }
}

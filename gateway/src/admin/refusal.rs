//! Every error of the admin API becomes an answer here. Its texts say what to do over HTTP; those of the commands
//! stand with the errors.

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

/// After how many seconds an operator may have mended a file or a disk.
const RETRY_S: u64 = 5;

/// Why a request is not served.
#[derive(Debug, Clone)]
pub(super) struct Refusal(pub(super) Problem);

impl Refusal {
    pub(super) fn unknown_route() -> Self {
        Self(Problem::new(Code::UnknownRoute, "GET /admin/openapi.json lists the routes"))
    }

    /// axum says which methods there are.
    pub(super) fn method_not_allowed() -> Self {
        Self(Problem::new(Code::MethodNotAllowed, "The header Allow lists the methods of this route"))
    }

    pub(super) fn unknown_tenant() -> Self {
        Self(Problem::new(
            Code::UnknownTenant,
            "There is no tenant of this name; GET /admin/tenants lists those there are",
        ))
    }

    fn unknown_key() -> Self {
        let detail = "The tenant has no key of this id; GET /admin/tenants/{name} lists its keys";
        Self(Problem::new(Code::UnknownTenantKey, detail))
    }

    /// A field of the body or the query is wrong.
    pub(super) fn invalid(field: &str, what: impl std::fmt::Display) -> Self {
        Self(Problem::new(Code::InvalidParameter, format!("{field}: {what}")).with("field", field))
    }

    /// A field is not there.
    pub(super) fn missing(field: &str, what: impl std::fmt::Display) -> Self {
        Self(Problem::new(Code::MissingParameter, format!("{field} is missing: {what}")).with("field", field))
    }

    /// The work panicked, which is a defect, or the gateway stops.
    pub(super) fn not_done(error: &JoinError) -> Self {
        if error.is_panic() {
            tracing::error!(%error, "a request to the admin API was not finished");
            return Self(Problem::new(Code::Internal, "This is a defect; see the gateway's log"));
        }
        Self(Problem::new(Code::ShuttingDown, "The gateway is stopping. Try again").retry_after_s(RETRY_S))
    }

    /// `what` names the file, for the log alone.
    fn io(error: &io::Error, what: &str, done: &str) -> Self {
        tracing::error!(error = what, "the admin API cannot work on a file: {done}");
        if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return Self(Problem::new(Code::DiskFull, format!("The disk is full, and {done}")));
        }
        let detail = format!("A file cannot be read or written, and {done}: see the gateway's log");
        Self(Problem::new(Code::FilesUnavailable, detail).retry_after_s(RETRY_S))
    }
}

impl IntoResponse for Refusal {
    /// The body comes in `envelope`, which knows the request's id.
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
        let detail = "Mend what mistakes lists; nothing was changed, and what was in force goes on";
        Self(Problem::new(Code::InvalidFiles, detail).with("mistakes", list))
    }
}

impl From<ChangeError> for Refusal {
    fn from(error: ChangeError) -> Self {
        let conflict = |code, detail: String| Self(Problem::new(code, detail));
        let what = error.to_string();
        match error {
            ChangeError::Edit(error) | ChangeError::DeadKeys(_, error) => error.into(),
            ChangeError::NoRegistry(file) | ChangeError::LostRegistry(file, _) => {
                Mistakes::about(&file, "the registry is not there").into()
            }
            ChangeError::Exists(name) => {
                conflict(Code::TenantExists, format!("There is a tenant {name} already; take another name"))
            }
            ChangeError::NoFreeSlot { slots, .. } => {
                let (first, last) = (slots.start(), slots.end());
                let detail = format!(
                    "Each of the slots {first}-{last} has a tenant; remove one, or widen gateway.slots"
                );
                conflict(Code::NoFreeSlot, detail)
            }
            ChangeError::UsedDirectory { name, .. } => conflict(
                Code::DirectoryInUse,
                format!(
                    "The directory of the name {name} holds phexts, which would be the new tenant's to read: move it \
                     away, or give it to the tenant with `sq-gateway tenants add {name} --adopt`"
                ),
            ),
            ChangeError::DirectoryTakenAgain(_) => conflict(
                Code::DirectoryInUse,
                "The tenant is removed, but its directory is a tenant's again; it was left as it is"
                    .to_owned(),
            ),
            ChangeError::WorkerStillRuns(_) => Self(Problem::new(
                Code::WorkerTimeout,
                "The tenant is removed, but its worker still runs; its directory was left as it is",
            )),
            ChangeError::WhichKey(ids) => {
                Self::missing("replaces", format!("name one of the keys {}", ids.join(", ")))
            }
            ChangeError::KeyExpired(_) => Self::invalid(
                "replaces",
                "this key has expired, and the new one would have too; leave replaces out for a key of its own",
            ),
            ChangeError::TooFarAhead => Self::invalid("grace_s", "that is after the year 9999"),
            ChangeError::DataRoot(_) => {
                tracing::error!(error = what, "the admin API cannot use the data root: nothing was changed");
                let detail = "The data root is missing: is its disk mounted? Nothing was changed; see the gateway's log";
                conflict(Code::DataRootMissing, detail.to_owned())
            }
            ChangeError::Directories(_, error)
            | ChangeError::UnusableDirectory(_, error)
            | ChangeError::UnreadableDirectory(_, error)
            | ChangeError::KeysOut(_, error)
            | ChangeError::UnknownMounts(error)
            | ChangeError::NoRandomNumbers(error) => Self::io(&error, &what, "nothing was changed"),
            ChangeError::WouldNotBePurged(..) => conflict(Code::DirectoryInUse, what),
            ChangeError::NotPurged(_, error) => Self::io(
                &error,
                &what,
                "the tenant is removed, but not all of its directory could be deleted",
            ),
            ChangeError::Directory(_, error) => {
                Self::io(&error, &what, "the tenant is removed, but its directory was left as it is")
            }
        }
    }
}

impl From<EditError> for Refusal {
    fn from(error: EditError) -> Self {
        let too_many = |detail: String| Self(Problem::new(Code::TooManyKeys, detail));
        match error {
            EditError::Mistakes(mistakes) => mistakes.into(),
            EditError::OldFormat(file) => {
                let message = "the registry is in an old format: run `sq-gateway import` on it first, and name the new \
                               file in gateway.toml";
                Mistakes::about(&file, message).into()
            }
            EditError::NoSuchTenant(_) => Self::unknown_tenant(),
            EditError::NoSuchKey(..) => Self::unknown_key(),
            EditError::TooManyKeys(name) => too_many(format!(
                "Tenant {name} has {KEYS_PER_TENANT} keys, and may have no more; take some out"
            )),
            EditError::NoMoreIds(name) => {
                too_many(format!("Tenant {name} has had key k{KEY_NUMBER}, and no number comes after it"))
            }
            error @ EditError::ReadsOtherwise(_) => {
                tracing::error!(%error, "the admin API cannot change the registry");
                let detail = "This edit would not be read back as it was meant, and nothing was changed";
                Self(Problem::new(Code::Internal, detail))
            }
            error @ EditError::WrongUser(_) => {
                tracing::error!(%error, "the admin API cannot change the registry");
                let detail = "The registry is another user's, and nothing was changed: see the gateway's log";
                Self(Problem::new(Code::FilesUnavailable, detail))
            }
            error @ (EditError::Locked(_) | EditError::Moved(_)) => {
                tracing::error!(%error, "the admin API cannot change the registry");
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
                "the change is made, but a power cut may take it back",
            ),
        }
    }
}

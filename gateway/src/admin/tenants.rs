//! `/admin/tenants`: lists, adds, shows, changes and removes tenants.

use std::collections::BTreeMap;
use std::path::PathBuf;

use axum::Json;
use axum::extract::{FromRequestParts, Path, RawQuery, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use sq_shared::clock::now_s;
use sq_shared::config::Config;
use sq_shared::registry::TenantState;
use sq_shared::tenant::TenantName;
use utoipa::ToSchema;

use super::Admin;
use super::body::{JsonBody, from_str, nullable};
use super::refusal::Refusal;
use crate::tenants::change::{self, Change};
use crate::tenants::keys_file::{KeysOut, NewKey};
use crate::tenants::new_tenants::TenantSettings;
use crate::tenants::remove::{self, Disposal, Removed};
use crate::tenants::view::TenantView;

/// The path for adding a tenant. It is also the path of a tenant called `add`.
pub(super) const ADD_PATH: &str = "/admin/tenants/add";

/// The path of one tenant.
pub(super) const TENANT_PATH: &str = "/admin/tenants/{name}";

/// The largest quota, 1 PiB: more than a host's disks hold.
const QUOTA_MIB_MAX: u64 = 1 << 30;

/// The tenant's name in the path.
pub(super) struct TenantPath(pub(super) TenantName);

impl<S: Send + Sync> FromRequestParts<S> for TenantPath {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let parameters = Path::<BTreeMap<String, String>>::from_request_parts(parts, state).await;
        let Path(parameters) = parameters.map_err(|_| Refusal::unknown_tenant())?;
        // Only `ADD_PATH` has no parameter.
        let name = parameters.get("name").map_or("add", String::as_str);
        name.parse().map(Self).map_err(|_| Refusal::unknown_tenant())
    }
}

/// All tenants.
#[derive(Serialize, ToSchema)]
pub(super) struct TenantList {
    /// In the order of the registry.
    tenants: Vec<TenantView>,
}

/// A tenant to be added.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewTenant {
    /// A letter a-z, then up to 62 of a-z, 0-9 and '-'.
    #[schema(value_type = String, required = true, pattern = "^[a-z][a-z0-9-]{0,62}$", example = "carol")]
    name: Option<TenantName>,
    /// One of the plans of the config.
    #[schema(example = "founding")]
    plan: Option<String>,
    /// Its quota in MiB, instead of the plan's.
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 1_073_741_824, example = 500)]
    quota_mb: Option<QuotaMib>,
}

/// A change of a tenant; what is left out stays as it is.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(min_properties = 1)]
pub(super) struct TenantChange {
    /// `active`, `reserved` or `suspended`.
    #[serde(default, deserialize_with = "from_str")]
    #[schema(value_type = String, required = false, pattern = "^(active|reserved|suspended)$", example = "suspended")]
    state: Option<TenantState>,
    /// One of the plans of the config; null removes it.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>, example = "founding")]
    plan: Option<Option<String>>,
    /// Its quota in MiB; null removes it, and the plan's applies.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 1_073_741_824, example = 500)]
    quota_mb: Option<Option<QuotaMib>>,
}

/// A quota, which requests give in MiB.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "u64")]
struct QuotaMib {
    bytes: u64,
}

impl TryFrom<u64> for QuotaMib {
    type Error = String;

    fn try_from(mebibytes: u64) -> Result<Self, String> {
        if (1..=QUOTA_MIB_MAX).contains(&mebibytes) {
            return Ok(Self { bytes: mebibytes << 20 });
        }
        Err(format!("a whole number of MiB from 1 to {QUOTA_MIB_MAX}"))
    }
}

/// A new key. It is not stored, and never shown again.
#[derive(Serialize, ToSchema)]
pub(super) struct IssuedKey {
    /// The tenant's name.
    #[schema(example = "carol")]
    name: String,
    /// The tenant's slot.
    #[schema(example = 1343)]
    port: Option<u16>,
    /// The key's id in logs and commands.
    #[schema(example = "k1")]
    key_id: String,
    /// The key.
    #[schema(example = "pmb-v1-00112233445566778899aabbccddeeff")]
    key: String,
}

impl From<NewKey> for IssuedKey {
    fn from(new: NewKey) -> Self {
        Self { name: new.tenant, port: new.port, key_id: new.key_id, key: new.token.expose().to_owned() }
    }
}

/// A removed tenant, and what happened to its directory.
#[derive(Serialize, ToSchema)]
pub(super) struct RemovedTenant {
    /// The tenant's name.
    #[schema(example = "carol")]
    name: String,
    /// `archived`, `purged`, `left` where it was, or `none` if there was none.
    #[schema(example = "archived")]
    directory: &'static str,
    /// Where it was, with links resolved.
    #[schema(example = "/srv/sq/data/carol")]
    path: String,
    /// Where the archive is.
    #[schema(example = "/srv/sq/data/.archive/carol-1798761600")]
    archive: Option<String>,
    /// Why it was left.
    why_left: Option<String>,
    /// A link that led to it, left because it is outside the data root.
    left_link: Option<String>,
}

/// All tenants, with the ids of their keys and their effective limits.
#[utoipa::path(get, path = "/admin/tenants", operation_id = "list_tenants", tag = "tenants",
    responses((status = 200, description = "All tenants.", body = TenantList)))]
pub(super) async fn list(State(admin): State<Admin>) -> Json<TenantList> {
    let (directory, now_s) = (admin.directory.load_full(), now_s());
    let tenants = directory.registry.tenants.iter();
    Json(TenantList {
        tenants: tenants.map(|tenant| TenantView::new(tenant, &directory.config, now_s)).collect(),
    })
}

/// Adds a tenant on the lowest free slot, with a directory and a key.
#[utoipa::path(post, path = "/admin/tenants/add", operation_id = "add_tenant", tag = "tenants", request_body = NewTenant, responses(
    (status = 201, description = "The tenant is added, and its key is valid at once. This is the only time that the key is shown.",
     body = IssuedKey, headers(("Location" = String, description = "The tenant's path."))),
    (status = 409, description = "`tenant_exists`, `no_free_slot` or `directory_in_use`."),
))]
pub(super) async fn add(
    State(admin): State<Admin>,
    JsonBody(new): JsonBody<NewTenant>,
) -> Result<impl IntoResponse, Refusal> {
    let name = new.name.ok_or_else(|| Refusal::missing("name", "send {\"name\": \"carol\"}"))?;
    let location = format!("/admin/tenants/{name}");
    let key = admin.run(move |reloader| {
        let config = reloader.config()?;
        check_plan(&config, new.plan.as_deref())?;
        let quota_bytes = new.quota_mb.map(|quota| quota.bytes);
        let settings = TenantSettings { state: TenantState::Active, plan: new.plan, quota_bytes };
        let key = change::add(&config, name, &settings, false, &KeysOut::Caller)?;
        reloader.apply_change();
        Ok(key)
    });
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(IssuedKey::from(key.await?))))
}

/// One tenant.
#[utoipa::path(get, path = "/admin/tenants/{name}", operation_id = "show_tenant", tag = "tenants", params(("name" = String, Path, example = "carol")),
    responses((status = 200, description = "The tenant.", body = TenantView), (status = 404, description = "`unknown_tenant`.")))]
pub(super) async fn show(
    State(admin): State<Admin>,
    TenantPath(name): TenantPath,
) -> Result<Json<TenantView>, Refusal> {
    let directory = admin.directory.load_full();
    let tenant = directory.registry.find(&name).ok_or_else(Refusal::unknown_tenant)?;
    Ok(Json(TenantView::new(tenant, &directory.config, now_s())))
}

/// Changes a tenant's state, plan and quota: the whole change or none of it.
#[utoipa::path(patch, path = "/admin/tenants/{name}", operation_id = "change_tenant", tag = "tenants", params(("name" = String, Path, example = "carol")),
    request_body = TenantChange, responses(
    (status = 200, description = "The changed tenant. The change is applied.", body = TenantView),
    (status = 404, description = "`unknown_tenant`."),
))]
pub(super) async fn change(
    State(admin): State<Admin>,
    TenantPath(name): TenantPath,
    JsonBody(wanted): JsonBody<TenantChange>,
) -> Result<Json<TenantView>, Refusal> {
    let quota_bytes = wanted.quota_mb.map(|quota| quota.map(|quota| quota.bytes));
    let wanted = Change { state: wanted.state, plan: wanted.plan, quota_bytes };
    if wanted == Change::default() {
        return Err(Refusal::missing("state", "send what is to change: state, plan or quota_mb"));
    }
    let view = admin.run(move |reloader| {
        let config = reloader.config()?;
        check_plan(&config, wanted.plan.as_ref().and_then(Option::as_deref))?;
        let tenant = change::change(&config, &name, &wanted)?;
        reloader.apply_change();
        Ok(TenantView::new(&tenant, &config, now_s()))
    });
    Ok(Json(view.await?))
}

/// Removes a tenant, and waits until its worker has finished the requests in flight. Then the directory is moved to the
/// archive; a directory outside the data root is left.
#[utoipa::path(delete, path = "/admin/tenants/{name}", operation_id = "remove_tenant", tag = "tenants",
    params(("name" = String, Path, example = "carol"), ("purge" = Option<bool>, Query, description = "Delete the directory instead.")),
    responses(
    (status = 200, description = "The tenant is removed.", body = RemovedTenant),
    (status = 404, description = "`unknown_tenant`."),
    (status = 409, description = "`directory_in_use`: the tenant is removed, but its directory has been given to a tenant again."),
    (status = 504, description = "`worker_timeout`: the tenant is removed, but its worker still runs; its directory was left as it is."),
))]
pub(super) async fn remove(
    State(admin): State<Admin>,
    TenantPath(name): TenantPath,
    RawQuery(query): RawQuery,
) -> Result<Json<RemovedTenant>, Refusal> {
    let purge = match query.as_deref() {
        None | Some("" | "purge=false") => false,
        Some("purge=true") => true,
        Some(_) => return Err(Refusal::invalid("purge", "the query is purge=true, purge=false or nothing")),
    };
    let removed = admin.run(move |reloader| {
        let config = reloader.config()?;
        let tenant = remove::remove_from_registry(&config, &name)?;
        reloader.apply_change();
        // Only the command takes a directory outside the data root: there the operator sees the path and confirms it.
        let disposal = Disposal { purge, take_foreign: false };
        Ok(removed_tenant(&name, remove::dispose_of_directory(&config, &tenant, disposal)?))
    });
    Ok(Json(removed.await?))
}

fn removed_tenant(name: &TenantName, removed: Removed) -> RemovedTenant {
    let shown = |path: PathBuf| path.to_string_lossy().into_owned();
    let (directory, path, archive, why_left, link) = match removed {
        Removed::NoDirectory(path) => ("none", path, None, None, None),
        Removed::Purged(path, link) => ("purged", path, None, None, link),
        Removed::Archived { from, to, left_link } => ("archived", from, Some(shown(to)), None, left_link),
        Removed::Left(path, why) => ("left", path, None, Some(why.to_string()), None),
    };
    RemovedTenant {
        name: name.to_string(),
        directory,
        path: shown(path),
        archive,
        why_left,
        left_link: link.map(shown),
    }
}

/// The registry's check would also find an unknown plan, but would not name the field.
fn check_plan(config: &Config, plan: Option<&str>) -> Result<(), Refusal> {
    match plan {
        Some(plan) if !config.plans.contains_key(plan) => {
            let known: Vec<&str> = config.plans.keys().map(String::as_str).collect();
            Err(Refusal::invalid(
                "plan",
                format!("the config has no such plan; it has: {}", known.join(", ")),
            ))
        }
        _ => Ok(()),
    }
}

//! `sq-gateway tenants`: the registry from the command line. `read` lists and shows, `change` edits.

mod change;
mod read;

use std::time::Duration;

use sq_shared::clock::parse_rfc3339;
use sq_shared::config::units::{parse_duration, parse_size};
use sq_shared::process::failure::Failure;
use sq_shared::registry::{Scope, TenantState};
use sq_shared::tenant::TenantName;

use super::root::RootOptions;

/// Options of `tenants`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  sq-gateway tenants add carol --root /srv/sq")]
pub struct Options {
    #[command(subcommand)]
    action: Action,
}

/// What to do with tenants.
#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List every tenant.
    #[command(after_help = "Example:\n  sq-gateway tenants list --json")]
    List(Listing),
    /// Show one tenant with its keys' ids; the keys themselves are stored nowhere.
    #[command(after_help = "Example:\n  sq-gateway tenants show alice")]
    Show(Showing),
    /// Add a tenant on the lowest free slot, and print its key once.
    #[command(after_help = "Example:\n  sq-gateway tenants add carol --plan founding")]
    Add(Adding),
    /// Serve a reserved or suspended tenant.
    #[command(after_help = "Example:\n  sq-gateway tenants activate carol")]
    Activate(Named),
    /// Stop serving a tenant; its data stays.
    #[command(after_help = "Example:\n  sq-gateway tenants suspend carol")]
    Suspend(Named),
    /// Make an empty directory for a tenant whose own is gone for good. What is there stays as it is.
    ///
    /// A directory that was there and is missing is never made by itself: the tenant's requests are answered 503
    /// data_root_missing until its disk is mounted, or it is restored. This command says that neither will be.
    #[command(
        after_help = "Examples:\n  sq-gateway tenants make-directory carol --root /srv/sq\n  sq-gateway tenants make-directory --all --root /srv/sq"
    )]
    MakeDirectory(MakingDirectories),
    /// Take a tenant out; its directory goes to the archive in the data root, unless it is outside that.
    #[command(after_help = "Example:\n  sq-gateway tenants remove carol")]
    Remove(Removing),
    /// Give a tenant one more key, and print it once.
    #[command(after_help = "Example:\n  sq-gateway tenants add-key carol --scope read --expires-in 30d")]
    AddKey(AddingKey),
    /// Replace a key by a new one, and print it once. The old one is refused from now on, or after a grace time.
    #[command(after_help = "Example:\n  sq-gateway tenants rotate-key carol --grace 24h")]
    RotateKey(Rotating),
    /// Refuse a key from now on, and take it out of the registry.
    #[command(after_help = "Example:\n  sq-gateway tenants revoke-key carol k1")]
    RevokeKey(Revoking),
}

#[derive(Debug, clap::Args)]
struct Listing {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    root: RootOptions,
}

#[derive(Debug, clap::Args)]
struct Showing {
    /// The tenant.
    name: TenantName,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    root: RootOptions,
}

#[derive(Debug, clap::Args)]
struct Adding {
    /// Its name: a letter, then at most 62 of a-z, 0-9 and '-'.
    name: TenantName,
    /// Its plan, one of those in the config.
    #[arg(long, value_name = "NAME")]
    plan: Option<String>,
    /// A quota of its own, before the plan's, such as 5GiB.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    quota: Option<u64>,
    /// Keep the slot, and serve it only after `activate`.
    #[arg(long)]
    reserved: bool,
    /// Give it the directory of its name even when that holds phexts already.
    #[arg(long)]
    adopt: bool,
    #[command(flatten)]
    root: RootOptions,
}

#[derive(Debug, clap::Args)]
struct Named {
    /// The tenant.
    name: TenantName,
    #[command(flatten)]
    root: RootOptions,
}

#[derive(Debug, clap::Args)]
struct MakingDirectories {
    /// The tenants.
    #[arg(value_name = "NAME", required_unless_present = "all")]
    names: Vec<TenantName>,
    /// Every tenant whose directory is missing.
    #[arg(long, conflicts_with = "names")]
    all: bool,
    #[command(flatten)]
    root: RootOptions,
}

#[derive(Debug, clap::Args)]
struct Removing {
    /// The tenant.
    name: TenantName,
    /// Delete its directory instead of archiving it.
    #[arg(long)]
    purge: bool,
    /// Archive or delete its directory even when it is outside the data root.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    root: RootOptions,
}

#[derive(Debug, clap::Args)]
struct AddingKey {
    /// The tenant.
    name: TenantName,
    /// What it may do: write (and read), or read.
    #[arg(long, value_name = "SCOPE", default_value = "write")]
    scope: Scope,
    /// Refuse it from this time on, such as 2027-01-01T00:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = parse_rfc3339, conflicts_with = "expires_in")]
    expires: Option<i64>,
    /// Refuse it after this time, such as 12h or 30d.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    expires_in: Option<Duration>,
    #[command(flatten)]
    root: RootOptions,
}

#[derive(Debug, clap::Args)]
struct Rotating {
    /// The tenant.
    name: TenantName,
    /// Which key is replaced; may be left out when only one is valid.
    #[arg(long, value_name = "ID")]
    key: Option<String>,
    /// Take the old key for so long, such as 24h or 7d. (Never longer than it was to be taken anyway.)
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    grace: Option<Duration>,
    #[command(flatten)]
    root: RootOptions,
}

#[derive(Debug, clap::Args)]
struct Revoking {
    /// The tenant.
    name: TenantName,
    /// The key's id, as `tenants show` lists it.
    #[arg(required_unless_present = "expired")]
    key: Option<String>,
    /// Take out all its keys that have expired.
    #[arg(long, conflicts_with = "key")]
    expired: bool,
    #[command(flatten)]
    root: RootOptions,
}

/// Does it.
///
/// # Errors
/// There is no such tenant or key, or a file cannot be read or written.
pub fn run(options: &Options) -> Result<(), Failure> {
    match &options.action {
        Action::List(listing) => read::list(listing),
        Action::Show(showing) => read::show(showing),
        Action::Add(adding) => change::add(adding),
        Action::Activate(named) => change::set_state(named, TenantState::Active),
        Action::Suspend(named) => change::set_state(named, TenantState::Suspended),
        Action::MakeDirectory(making) => change::make_directories(making),
        Action::Remove(removing) => change::remove(removing),
        Action::AddKey(adding) => change::add_key(adding),
        Action::RotateKey(rotating) => change::rotate_key(rotating),
        Action::RevokeKey(revoking) => change::revoke_key(revoking),
    }
}

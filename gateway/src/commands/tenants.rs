//! `sq-gateway tenants`: reads and changes the registry.

mod read;
mod change;

use std::time::Duration;

use sq_shared::clock::parse_rfc3339;
use sq_shared::config::units::{parse_duration, parse_size};
use sq_shared::process::failure::Failure;
use sq_shared::registry::{Scope, TenantState};
use sq_shared::tenant::TenantName;

use super::system::SystemOptions;

/// Options of `tenants`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  sq-gateway tenants add carol --root /srv/sq")]
pub struct Options {
    #[command(subcommand)]
    action: Action,
}

/// The subcommands of `tenants`.
#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List all tenants.
    #[command(after_help = "Example:\n  sq-gateway tenants list --json")]
    List(ListArgs),
    /// Show one tenant, with the ids of its keys; the keys themselves are not stored.
    #[command(after_help = "Example:\n  sq-gateway tenants show alice")]
    Show(ShowArgs),
    /// Add a tenant on the lowest free slot, and print its key once.
    #[command(after_help = "Example:\n  sq-gateway tenants add carol --plan founding")]
    Add(AddArgs),
    /// Serve a reserved or suspended tenant.
    #[command(after_help = "Example:\n  sq-gateway tenants activate carol")]
    Activate(NameArgs),
    /// Stop serving a tenant; its data stays.
    #[command(after_help = "Example:\n  sq-gateway tenants suspend carol")]
    Suspend(NameArgs),
    /// Create an empty directory for a tenant whose directory is lost for good. An existing one is left as it is.
    ///
    /// A missing directory is never replaced automatically: the tenant's requests are answered with 503
    /// data_root_missing until its disk is mounted or the directory is restored. Use this command if neither is possible.
    #[command(
        after_help = "Examples:\n  sq-gateway tenants make-directory carol --root /srv/sq\n  sq-gateway tenants make-directory --all --root /srv/sq"
    )]
    MakeDirectory(MakeDirectoryArgs),
    /// Remove a tenant; its directory is moved to the data root's archive, unless it is outside the data root.
    #[command(after_help = "Example:\n  sq-gateway tenants remove carol")]
    Remove(RemoveArgs),
    /// Add a key to a tenant, and print it once.
    #[command(after_help = "Example:\n  sq-gateway tenants add-key carol --scope read --expires-in 30d")]
    AddKey(AddKeyArgs),
    /// Replace a key with a new one, and print it once. The old one stops working at once, or after a grace period.
    #[command(after_help = "Example:\n  sq-gateway tenants rotate-key carol --grace 24h")]
    RotateKey(RotateKeyArgs),
    /// Revoke a key: it stops working, and is removed from the registry.
    #[command(after_help = "Example:\n  sq-gateway tenants revoke-key carol k1")]
    RevokeKey(RevokeKeyArgs),
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    system: SystemOptions,
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// The tenant.
    name: TenantName,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    system: SystemOptions,
}

#[derive(Debug, clap::Args)]
struct AddArgs {
    /// Its name: a letter, then up to 62 of a-z, 0-9 and '-'.
    name: TenantName,
    /// Its plan, one of those in the config.
    #[arg(long, value_name = "NAME")]
    plan: Option<String>,
    /// Its quota, such as 5GiB, instead of the plan's.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    quota: Option<u64>,
    /// Reserve the slot; the tenant is served only after `activate`.
    #[arg(long)]
    reserved: bool,
    /// Give it the directory of its name even if that holds phexts already.
    #[arg(long)]
    adopt: bool,
    #[command(flatten)]
    system: SystemOptions,
}

#[derive(Debug, clap::Args)]
struct NameArgs {
    /// The tenant.
    name: TenantName,
    #[command(flatten)]
    system: SystemOptions,
}

#[derive(Debug, clap::Args)]
struct MakeDirectoryArgs {
    /// The tenants.
    #[arg(value_name = "NAME", required_unless_present = "all")]
    names: Vec<TenantName>,
    /// Every tenant whose directory is missing.
    #[arg(long, conflicts_with = "names")]
    all: bool,
    #[command(flatten)]
    system: SystemOptions,
}

#[derive(Debug, clap::Args)]
struct RemoveArgs {
    /// The tenant.
    name: TenantName,
    /// Delete its directory instead of archiving it.
    #[arg(long)]
    purge: bool,
    /// Archive or delete its directory even if it is outside the data root.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    system: SystemOptions,
}

#[derive(Debug, clap::Args)]
struct AddKeyArgs {
    /// The tenant.
    name: TenantName,
    /// What the key may do: write (and read), or read.
    #[arg(long, value_name = "SCOPE", default_value = "write")]
    scope: Scope,
    /// When the key expires, such as 2027-01-01T00:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = parse_rfc3339, conflicts_with = "expires_in")]
    expires: Option<i64>,
    /// How long the key is valid, such as 12h or 30d.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    expires_in: Option<Duration>,
    #[command(flatten)]
    system: SystemOptions,
}

#[derive(Debug, clap::Args)]
struct RotateKeyArgs {
    /// The tenant.
    name: TenantName,
    /// The key to replace; optional if only one is valid.
    #[arg(long, value_name = "ID")]
    key: Option<String>,
    /// How long the old key stays valid, such as 24h or 7d, but never past its own expiry.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    grace: Option<Duration>,
    #[command(flatten)]
    system: SystemOptions,
}

#[derive(Debug, clap::Args)]
struct RevokeKeyArgs {
    /// The tenant.
    name: TenantName,
    /// The key's id, as `tenants show` lists it.
    #[arg(required_unless_present = "expired")]
    key: Option<String>,
    /// Remove all its expired keys.
    #[arg(long, conflicts_with = "key")]
    expired: bool,
    #[command(flatten)]
    system: SystemOptions,
}

/// Runs the subcommand.
///
/// # Errors
/// There is no such tenant or key, or a file cannot be read or written.
pub fn run(options: &Options) -> Result<(), Failure> {
    match &options.action {
        Action::List(args) => read::list(args),
        Action::Show(args) => read::show(args),
        Action::Add(args) => change::add(args),
        Action::Activate(args) => change::set_state(args, TenantState::Active),
        Action::Suspend(args) => change::set_state(args, TenantState::Suspended),
        Action::MakeDirectory(args) => change::make_directories(args),
        Action::Remove(args) => change::remove(args),
        Action::AddKey(args) => change::add_key(args),
        Action::RotateKey(args) => change::rotate_key(args),
        Action::RevokeKey(args) => change::revoke_key(args),
    }
}

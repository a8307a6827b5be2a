//! `sq-gateway provision`: many tenants at once.

use std::ffi::OsString;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use sq_shared::process::failure::Failure;
use sq_shared::process::output::{confirm, note};
use sq_shared::process::telemetry;
use sq_shared::registry::TenantState;
use sq_shared::registry::edit::RegistryEdit;
use sq_shared::tenant::TenantName;

use super::root::RootOptions;
use crate::tenants::keys_file::KeysOut;
use crate::tenants::new_tenants::{NewTenants, Terms};
use crate::tenants::{ChangeError, is_there, refuse_lost};

/// Options of `provision`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  sq-gateway provision --slots 500 --root /srv/sq")]
pub struct Options {
    /// How many tenants there shall be; those there already count.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    slots: u16,
    /// What their names begin with; a number of at least three digits follows.
    #[arg(long, default_value = "slot-")]
    prefix: String,
    /// Their plan, one of those in the config.
    #[arg(long, value_name = "NAME")]
    plan: Option<String>,
    /// Whether they are served at once: active or reserved.
    #[arg(long, default_value = "active", value_parser = parse_state)]
    state: TenantState,
    /// Where the new keys go, `-` for standard output; without it, to keys.csv beside the config.
    #[arg(long, value_name = "FILE")]
    keys_out: Option<OsString>,
    #[command(flatten)]
    root: RootOptions,
}

fn parse_state(text: &str) -> Result<TenantState, String> {
    match text.parse()? {
        TenantState::Suspended => Err("one of active, reserved".to_owned()),
        state => Ok(state),
    }
}

/// Adds what is missing.
///
/// # Errors
/// The slots do not suffice, or something cannot be written.
pub fn run(options: &Options) -> Result<(), Failure> {
    let started = Instant::now();
    let keys_out = options.keys_out.clone().map(KeysOut::from);
    if let Some(out) = &keys_out {
        options.root.act_for_its_user()?;
        out.check().map_err(|error| ChangeError::KeysOut(out.clone(), error))?;
    }
    let system = options.root.open_or_create()?;
    if !is_there(&system.config)? {
        refuse_lost(&system.config, &system.keys_file)?;
    }
    let registry =
        RegistryEdit::open(&system.config.gateway.tenants, &system.config).map_err(Failure::from_error)?;
    let names = missing_names(options, &registry)?;
    let keys_out = keys_out.unwrap_or(KeysOut::File(system.keys_file));
    let progress = progress_bar(names.len() as u64);
    let terms = Terms { state: options.state, plan: options.plan.clone(), quota_bytes: None };
    let mut tenants = NewTenants::new(&system.config, registry);
    tenants.add(names, &terms)?;
    tenants.refuse_used_directories()?;
    let made = tenants.commit(&keys_out, || progress.inc(1))?.len();
    progress.finish_and_clear();
    let there = usize::from(options.slots) - made;
    let seconds = started.elapsed().as_secs_f32();
    let result = format!("provisioned {made} tenants ({there} were there) in {seconds:.2} s");
    match keys_out {
        KeysOut::File(file) if made > 0 => {
            confirm(format_args!("{result}; their keys are in {}", file.display()))
        }
        KeysOut::File(_) => confirm(result),
        // Nothing but keys goes there.
        KeysOut::StandardOutput | KeysOut::Screen | KeysOut::Caller => {
            note(result);
            Ok(())
        }
    }
}

fn missing_names(options: &Options, registry: &RegistryEdit) -> Result<Vec<TenantName>, Failure> {
    let mut names = Vec::new();
    for number in 1..=options.slots {
        let name = format!("{}{number:03}", options.prefix);
        let name: TenantName = name.parse().map_err(|error| Failure::Usage(format!("--prefix: {error}")))?;
        if registry.registry().find(&name).is_none() {
            names.push(name);
        }
    }
    Ok(names)
}

/// A bar on a terminal that can draw one, nothing elsewhere.
fn progress_bar(length: u64) -> ProgressBar {
    if !telemetry::can_redraw() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("provisioning {wide_bar} {pos}/{len} slots {eta}");
    ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

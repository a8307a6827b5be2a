//! `sq-gateway provision`: creates many tenants at once.

use std::ffi::OsString;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use sq_shared::process::failure::Failure;
use sq_shared::process::output::{confirm, note};
use sq_shared::process::telemetry;
use sq_shared::registry::TenantState;
use sq_shared::registry::edit::RegistryEdit;
use sq_shared::tenant::TenantName;

use super::system::SystemOptions;
use crate::tenants::find_registry;
use crate::tenants::keys_file::KeysOut;
use crate::tenants::new_tenants::{NewTenants, TenantSettings};

/// Options of `provision`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  sq-gateway provision --slots 500 --root /srv/sq")]
pub struct Options {
    /// How many tenants there should be, including those that exist.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    slots: u16,
    /// The beginning of their names; a number of at least three digits follows.
    #[arg(long, default_value = "slot-")]
    prefix: String,
    /// Their plan, one of those in the config.
    #[arg(long, value_name = "NAME")]
    plan: Option<String>,
    /// Whether they are served at once: active or reserved.
    #[arg(long, default_value = "active", value_parser = parse_state)]
    state: TenantState,
    /// Where to write the new keys, `-` for standard output. Default: keys.csv beside the config.
    #[arg(long, value_name = "FILE")]
    keys_out: Option<OsString>,
    #[command(flatten)]
    system: SystemOptions,
}

fn parse_state(text: &str) -> Result<TenantState, String> {
    match text.parse()? {
        TenantState::Suspended => Err("one of active, reserved".to_owned()),
        state => Ok(state),
    }
}

/// Adds the missing tenants.
///
/// # Errors
/// There are not enough free slots, or something cannot be written.
pub fn run(options: &Options) -> Result<(), Failure> {
    let started = Instant::now();
    let keys_out = options.keys_out.clone().map(KeysOut::from);
    if let Some(out) = &keys_out {
        options.system.act_as_owner()?;
        out.check()?;
    }
    let system = options.system.open_or_create()?;
    find_registry(&system.config, &system.keys_file)?;
    let registry =
        RegistryEdit::open(&system.config.gateway.tenants, &system.config).map_err(Failure::from_error)?;
    let names = missing_names(options, &registry)?;
    let keys_out = keys_out.unwrap_or(KeysOut::File(system.keys_file));
    let progress = progress_bar(names.len() as u64);
    let settings = TenantSettings { state: options.state, plan: options.plan.clone(), quota_bytes: None };
    let mut tenants = NewTenants::new(&system.config, registry);
    let keys = tenants.add(names, &settings)?;
    tenants.refuse_used_directories()?;
    tenants.commit(&keys, &keys_out, || progress.inc(1))?;
    progress.finish_and_clear();
    let (added, existing) = (keys.len(), usize::from(options.slots) - keys.len());
    let seconds = started.elapsed().as_secs_f32();
    let result = format!("provisioned {added} tenants ({existing} were there) in {seconds:.2} s");
    match keys_out {
        KeysOut::File(file) if added > 0 => {
            confirm(format_args!("{result}; their keys are in {}", file.display()))
        }
        KeysOut::File(_) => confirm(result),
        // Standard output is for the keys alone.
        KeysOut::CsvToStdout | KeysOut::TextToStdout | KeysOut::Caller => {
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

/// Hidden unless the terminal can redraw it.
fn progress_bar(length: u64) -> ProgressBar {
    if !telemetry::can_redraw() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("provisioning {wide_bar} {pos}/{len} slots {eta}");
    ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

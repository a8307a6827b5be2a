//! `sq-gateway import`: converts a registry from one of the old formats.

use std::path::PathBuf;

use sq_shared::process::failure::Failure;
use sq_shared::process::output::{confirm, note, say};
use sq_shared::process::service_user;
use sq_shared::registry::edit::render;
use sq_shared::registry::{Format, Registry};
use sq_shared::secret_file::Replacement;

use super::system::SystemOptions;

/// Options of `import`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  sq-gateway import tenants.json --root /srv/sq")]
pub struct Options {
    /// The old registry: of `sq host`, of `sq route`, or of the Python gateway.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where to write the new registry, instead of the path in the config.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    system: SystemOptions,
}

/// Converts the registry, and prints what it changes.
///
/// # Errors
/// The old registry has mistakes, or there is a new one already.
pub fn run(options: &Options) -> Result<(), Failure> {
    let system = options.system.open_or_create()?;
    let file = std::path::absolute(&options.file).map_err(Failure::from_error)?;
    let loaded = service_user::as_owner_of(&file, || Registry::load(&file, &system.config));
    let loaded = loaded.map_err(Failure::from_error)?.map_err(Failure::from_error)?;
    if loaded.format == Format::Native {
        return Err(Failure::Failed(format!("{} is not in an old format", options.file.display())));
    }
    let out = options.out.as_ref().unwrap_or(&system.config.gateway.tenants);
    if out.exists() {
        return Err(Failure::Failed(format!(
            "{} already exists and would be overwritten: move it away, or name another file with --out",
            out.display()
        )));
    }
    let text = format!("# Imported from {}.\n{}", options.file.display(), render(&loaded.registry));
    let read_back =
        Registry::parse(&std::path::absolute(out).map_err(Failure::from_error)?, &text, &system.config);
    if read_back.map_err(Failure::from_error)?.registry != loaded.registry {
        let message = "the imported registry would not be read back as it was meant; nothing was written";
        return Err(Failure::Failed(message.to_owned()));
    }
    let failed = |error| Failure::Failed(format!("failed to write {}: {error}", out.display()));
    let imported = service_user::as_owner_of(out, || {
        let registry = Replacement::write(out, text.as_bytes()).map_err(failed)?;
        // Customers must be told of a new name or port, so the changes are printed before the registry is published.
        loaded.changes.iter().try_for_each(say)?;
        registry.publish().map_err(|error| failed(error.into()))
    });
    imported.map_err(Failure::from_error)??;
    for tenant in &loaded.registry.tenants {
        if let Some(directory) = tenant.data_dir.as_ref().filter(|directory| !directory.exists()) {
            note(format_args!(
                "{}: its directory {} does not exist: mount its disk first, or the first request creates an empty one",
                tenant.name,
                directory.display()
            ));
        }
    }
    if system.is_new {
        let (config, keys) = (system.config.path.display(), system.keys_file.display());
        note(format_args!("created {config}; the key of its admin API is in {keys}"));
    }
    confirm(format_args!("imported {} tenants to {}", loaded.registry.tenants.len(), out.display()))
}

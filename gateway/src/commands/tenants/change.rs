//! The subcommands that change the registry. The gateway and the pool notice the new file.

use std::path::PathBuf;

use sq_shared::clock::{self, later_s, now_s, rfc3339};
use sq_shared::process::failure::Failure;
use sq_shared::process::output::{confirm, note};
use sq_shared::registry::TenantState;
use sq_shared::tenant::TenantName;

use super::{AddArgs, AddKeyArgs, MakeDirectoryArgs, NameArgs, RemoveArgs, RevokeKeyArgs, RotateKeyArgs};
use crate::tenants::change::Change;
use crate::tenants::keys::{self, Rotation};
use crate::tenants::keys_file::KeysOut;
use crate::tenants::new_tenants::TenantSettings;
use crate::tenants::remove::{Disposal, Removed};
use crate::tenants::{ChangeError, change, directories, remove};

fn note_key() {
    note("This is the only time that the key is shown. A running gateway accepts it within a second.");
}

pub(super) fn add(args: &AddArgs) -> Result<(), Failure> {
    let config = args.system.open()?;
    let state = if args.reserved { TenantState::Reserved } else { TenantState::Active };
    let settings = TenantSettings { state, plan: args.plan.clone(), quota_bytes: args.quota };
    change::add(&config, args.name.clone(), &settings, args.adopt, &KeysOut::TextToStdout)?;
    note_key();
    Ok(())
}

pub(super) fn set_state(args: &NameArgs, state: TenantState) -> Result<(), Failure> {
    let config = args.system.open()?;
    change::change(&config, &args.name, &Change { state: Some(state), ..Change::default() })?;
    confirm(format_args!("tenant {} is {}", args.name, state.as_str()))
}

pub(super) fn add_key(args: &AddKeyArgs) -> Result<(), Failure> {
    let now_s = now_s();
    let expires_s = match args.expires_in {
        Some(duration) => {
            // With a wrong clock, the key might have expired by the time that the clock is set.
            clock::check()?;
            Some(later_s(now_s, duration).ok_or(ChangeError::TooFarAhead)?)
        }
        None => args.expires,
    };
    if let Some(expires_s) = expires_s.filter(|expires_s| *expires_s <= now_s) {
        let shown = rfc3339(expires_s).unwrap_or_default();
        return Err(Failure::Usage(format!("{shown} is in the past: the key would never be valid")));
    }
    let config = args.system.open()?;
    keys::add(&config, &args.name, args.scope, expires_s, &KeysOut::TextToStdout)?;
    note_key();
    Ok(())
}

pub(super) fn rotate_key(args: &RotateKeyArgs) -> Result<(), Failure> {
    let config = args.system.open()?;
    if args.grace.is_some() {
        clock::check()?;
    }
    let rotation = Rotation { key: args.key.as_deref(), grace: args.grace };
    keys::rotate(&config, &args.name, rotation, now_s(), &KeysOut::TextToStdout)?;
    note_key();
    Ok(())
}

pub(super) fn revoke_key(args: &RevokeKeyArgs) -> Result<(), Failure> {
    let config = args.system.open()?;
    let ids = match &args.key {
        Some(id) => keys::revoke(&config, &args.name, id).map(|()| vec![id.clone()]),
        None => keys::revoke_expired(&config, &args.name, now_s()),
    };
    let line = |id: String| format!("key {id} of tenant {} is revoked", args.name);
    let lines: Vec<String> = ids?.into_iter().map(line).collect();
    confirm(if lines.is_empty() {
        format!("tenant {} has no expired key", args.name)
    } else {
        lines.join("\n")
    })
}

pub(super) fn make_directories(args: &MakeDirectoryArgs) -> Result<(), Failure> {
    let config = args.system.open()?;
    let names = (!args.all).then_some(args.names.as_slice());
    let created = directories::create_missing(&config, names)?;
    let line = |(tenant, directory): &(TenantName, PathBuf)| {
        let is_empty = directory.read_dir().is_ok_and(|mut files| files.next().is_none());
        let directory = directory.display();
        if is_empty {
            format!("tenant {tenant} has a new, empty directory {directory}")
        } else {
            format!("{directory}, with its contents, is now the directory of tenant {tenant}")
        }
    };
    let lines: Vec<String> = created.iter().map(line).collect();
    confirm(if lines.is_empty() { "nothing is missing".to_owned() } else { lines.join("\n") })
}

pub(super) fn remove(args: &RemoveArgs) -> Result<(), Failure> {
    let config = args.system.open()?;
    let name = &args.name;
    let disposal = Disposal { purge: args.purge, take_foreign: args.yes };
    let result = match remove::remove(&config, name, disposal)? {
        Removed::NoDirectory(path) => format!(
            "there is no directory {} (if its disk is not mounted, the files on it are untouched)",
            path.display()
        ),
        Removed::Purged(path, link) => format!("its directory {} is deleted{}", path.display(), left(link)),
        Removed::Archived { from, to, left_link } => {
            format!("its directory {} is now {}{}", from.display(), to.display(), left(left_link))
        }
        Removed::Left(path, why) => {
            format!("its directory {} was left as it is, because {why}", path.display())
        }
    };
    confirm(format_args!("tenant {name} is removed; {result}"))
}

fn left(link: Option<PathBuf>) -> String {
    let shown = |link: PathBuf| {
        format!("; the link {} is outside the data root, and was left as it is", link.display())
    };
    link.map(shown).unwrap_or_default()
}

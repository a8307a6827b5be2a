//! The commands that edit the registry. Gateway and pool notice the new file by themselves.

use std::path::PathBuf;
use std::time::Duration;

use sq_shared::clock::{self, later_s, now_s, rfc3339};
use sq_shared::process::failure::Failure;
use sq_shared::process::output::{confirm, note};
use sq_shared::registry::TenantState;
use sq_shared::tenant::TenantName;

use super::{Adding, AddingKey, MakingDirectories, Named, Removing, Revoking, Rotating};
use crate::tenants::change::Change;
use crate::tenants::keys::{self, Rotation};
use crate::tenants::keys_file::KeysOut;
use crate::tenants::new_tenants::Terms;
use crate::tenants::remove::{Disposal, LeftLink, Removed};
use crate::tenants::{ChangeError, change, directories, remove};

fn note_key() {
    note("This is the only time that the key is shown. A running gateway takes it within a second.");
}

pub(super) fn add(options: &Adding) -> Result<(), Failure> {
    let config = options.root.open()?.config;
    let state = if options.reserved { TenantState::Reserved } else { TenantState::Active };
    let terms = Terms { state, plan: options.plan.clone(), quota_bytes: options.quota };
    change::add(&config, options.name.clone(), &terms, options.adopt, &KeysOut::Screen)?;
    note_key();
    Ok(())
}

pub(super) fn set_state(options: &Named, state: TenantState) -> Result<(), Failure> {
    let config = options.root.open()?.config;
    change::change(&config, &options.name, &Change { state: Some(state), ..Change::default() })?;
    confirm(format_args!("tenant {} is {state}", options.name))
}

pub(super) fn add_key(options: &AddingKey) -> Result<(), Failure> {
    let now_s = now_s();
    let expires_s = match options.expires_in {
        Some(duration) => Some(later(now_s, duration)?),
        None => options.expires,
    };
    if let Some(expires_s) = expires_s.filter(|expires_s| *expires_s <= now_s) {
        let shown = rfc3339(expires_s).unwrap_or_default();
        return Err(Failure::Usage(format!("{shown} is over: such a key would never be taken")));
    }
    let config = options.root.open()?.config;
    keys::add(&config, &options.name, options.scope, expires_s, &KeysOut::Screen)?;
    note_key();
    Ok(())
}

pub(super) fn rotate_key(options: &Rotating) -> Result<(), Failure> {
    let config = options.root.open()?.config;
    if options.grace.is_some() {
        clock::check()?;
    }
    let rotation = Rotation { key: options.key.as_deref(), grace: options.grace };
    keys::rotate(&config, &options.name, rotation, now_s(), &KeysOut::Screen)?;
    note_key();
    Ok(())
}

/// The time so long after now. (On a wrong clock it would be over by the time that the clock is right.)
fn later(now_s: i64, duration: Duration) -> Result<i64, Failure> {
    clock::check()?;
    Ok(later_s(now_s, duration).ok_or(ChangeError::TooFarAhead)?)
}

pub(super) fn revoke_key(options: &Revoking) -> Result<(), Failure> {
    let config = options.root.open()?.config;
    let ids = match &options.key {
        Some(id) => keys::revoke(&config, &options.name, id).map(|()| vec![id.clone()]),
        None => keys::revoke_expired(&config, &options.name, now_s()),
    };
    let line = |id: String| format!("key {id} of tenant {} is revoked", options.name);
    let lines: Vec<String> = ids?.into_iter().map(line).collect();
    confirm(if lines.is_empty() {
        format!("tenant {} has no expired key", options.name)
    } else {
        lines.join("\n")
    })
}

pub(super) fn make_directories(options: &MakingDirectories) -> Result<(), Failure> {
    let config = options.root.open()?.config;
    let names = (!options.all).then_some(options.names.as_slice());
    let made = directories::make(&config, names)?;
    let line = |(tenant, directory): &(TenantName, PathBuf)| {
        let is_empty = directory.read_dir().is_ok_and(|mut files| files.next().is_none());
        let directory = directory.display();
        if is_empty {
            format!("tenant {tenant} has a new, empty directory {directory}")
        } else {
            format!("{directory} is tenant {tenant}'s directory from now on, with what is in it")
        }
    };
    let lines: Vec<String> = made.iter().map(line).collect();
    confirm(if lines.is_empty() { "nothing is missing".to_owned() } else { lines.join("\n") })
}

pub(super) fn remove(options: &Removing) -> Result<(), Failure> {
    let config = options.root.open()?.config;
    let name = &options.name;
    let disposal = Disposal { purges: options.purge, takes_foreign: options.yes };
    let became = match remove::remove(&config, name, disposal)? {
        Removed::WithoutDirectory(path) => format!(
            "there is no directory {} (what it had is untouched if its disk is not mounted)",
            path.display()
        ),
        Removed::Purged(path, link) => format!("its directory {} is deleted{}", path.display(), left(link)),
        Removed::Archived { from, to, link } => {
            format!("its directory {} is now {}{}", from.display(), to.display(), left(link))
        }
        Removed::Left(path, why) => {
            format!("its directory {} was left as it is, because {why}", path.display())
        }
    };
    confirm(format_args!("tenant {name} is removed; {became}"))
}

fn left(link: Option<LeftLink>) -> String {
    let told = |LeftLink(path): LeftLink| {
        format!("; the link {} is outside the data root, and was left as it is", path.display())
    };
    link.map(told).unwrap_or_default()
}

//! `sq-worker fsck`: what a tenant's directory holds, and whether all of it can be read.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sq_shared::access::{self, Denied};
use sq_shared::failure::Failure;
use sq_shared::output::{note, say};
use sq_shared::{service_user, visible};

use crate::store::fsck::{self, Checked, Finding, Origin};
use crate::store::{BadLink, Damage, JournalDamage, TextDamage};

/// Options of `fsck`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sq-worker fsck ./sq-data/data/alice

It only reads, so a worker may serve the directory meanwhile. It exits with 1 when a file is damaged.")]
pub struct Options {
    /// The tenant's directory.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Prints a line a file, and a last one with all of them together.
///
/// # Errors
/// The directory cannot be read, or a file in it is damaged.
pub fn run(options: &Options) -> Result<(), Failure> {
    let report = fsck::check(&options.dir).map_err(Failure::from_error)?;
    if report.is_in_use {
        let dir = options.dir.display().to_string();
        let dir = visible::line(&dir);
        note(format_args!(
            "sq-worker: a worker has {dir} open: what it is writing now may look unfinished, or like another program's"
        ));
    }
    if report.files.is_empty() {
        let dir = options.dir.display().to_string();
        let dir = visible::line(&dir);
        note(format_args!("sq-worker: {dir} has no phexts: give the directory of one tenant"));
    }
    let names: Vec<_> = report.files.iter().map(|file| visible::line(&file.name)).collect();
    let name_width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let bytes_width = report.files.iter().map(|file| file.bytes.to_string().len()).max().unwrap_or(0);
    for (name, Checked { bytes, finding, .. }) in names.iter().zip(&report.files) {
        let (state, text) = (state(finding), describe(finding));
        say(format_args!("{name:<name_width$}  {state:<7}  {bytes:>bytes_width$}  {text}"))?;
    }
    let totals = Totals::of(&report.files);
    say(totals.line())?;
    let denied = denied(&options.dir);
    denied.iter().try_for_each(say)?;
    let mut wrong = Vec::new();
    if totals.bad > 0 {
        wrong.push(format!("{} damaged or unreadable", count(totals.bad, "file")));
    }
    if !denied.is_empty() {
        let files = count(denied.len() as u64, "path");
        wrong.push(format!("{files} that the directory's owner may not use"));
    }
    if wrong.is_empty() { Ok(()) } else { Err(Failure::Failed(wrong.join(", "))) }
}

/// What the directory's owner, as whom a worker serves it, may not use. Another user than that one and root cannot tell; nor
/// can root in a container that may not act as others.
fn denied(dir: &Path) -> Vec<Denied> {
    let me = rustix::process::geteuid().as_raw();
    let is_mine = dir.metadata().is_ok_and(|found| found.uid() == me);
    let looked = match me {
        0 => service_user::as_owner_of_directory(dir, || access::tenant_directory(dir)),
        _ if is_mine => Ok(access::tenant_directory(dir)),
        _ => Err(io::Error::other("it is another user's: run this as that user, or as root")),
    };
    looked.unwrap_or_else(|why| {
        let dir = dir.display();
        note(format_args!("sq-worker: {dir}: whether its owner may use all files was not looked at: {why}"));
        Vec::new()
    })
}

fn is_bad(finding: &Finding) -> bool {
    matches!(finding, Finding::Damaged(_) | Finding::Unreadable(_))
}

fn state(finding: &Finding) -> &'static str {
    if is_bad(finding) { "DAMAGED" } else { "ok" }
}

fn describe(finding: &Finding) -> String {
    match finding {
        Finding::Phext { scrolls, origin } => {
            let origin = match origin {
                Origin::Known => "",
                Origin::Foreign => {
                    ", written by another program; unsaved writes of its journal that are older do not count"
                }
                Origin::Unknown => "; its journal cannot say what is missing in it",
            };
            format!("{}{origin}", count(*scrolls as u64, "scroll"))
        }
        Finding::Link { target } => format!("a link to {target}.phext"),
        Finding::Journal { records, unsaved, torn_bytes, is_file_gone } => {
            let mut text = count(*records, "record");
            text += &match unsaved {
                Some(0) => String::new(),
                Some(unsaved) => format!(", {} not in the file yet", count(*unsaved, "write")),
                None => ", of which nobody can say what is in the file".to_owned(),
            };
            if *is_file_gone {
                text += ", and another program took the phext's file away";
            }
            if *torn_bytes > 0 {
                text += &format!(
                    ", {} at the end that are no whole write: one that was not finished, or a file cut short",
                    count(*torn_bytes, "byte")
                );
            }
            text
        }
        Finding::Keys { keys } => {
            format!("{} of writes that may come again, of phexts without a journal", count(*keys, "key"))
        }
        Finding::Reserve => "room that is kept for a full disk".to_owned(),
        Finding::Leftover => "left by a worker that was killed; the next one removes it".to_owned(),
        Finding::Damaged(damage) => format!("{}: {}", place(damage), remedy(damage)),
        Finding::Unreadable(error) => format!("it cannot be read: {error}"),
    }
}

/// What is wrong, without the words that say in which file.
fn place(damage: &Damage) -> String {
    match damage {
        Damage::Text(damage) => damage.to_string(),
        Damage::Journal(JournalDamage::Header) | Damage::Keys(JournalDamage::Header) => {
            "its header is damaged, at byte 0".to_owned()
        }
        Damage::Journal(damage) | Damage::Keys(damage) => damage.to_string(),
        Damage::Link(why) => format!("it is a link that {why}"),
        Damage::LargerThanQuota { .. } => damage.to_string(),
        Damage::InTheWay { .. } => "it is not a plain file, and is in the way of the next save".to_owned(),
    }
}

fn remedy(damage: &Damage) -> &'static str {
    match damage {
        Damage::Text(TextDamage::NotAFile)
        | Damage::Journal(JournalDamage::NotAFile)
        | Damage::Keys(JournalDamage::NotAFile)
        | Damage::InTheWay { .. } => "move it out of the directory",
        Damage::Link(BadLink::BesideJournal) => "or remove the journal, if none of its writes counts",
        Damage::Link(_) => {
            "let it lead to a .phext file of the same directory, or put that file in its place"
        }
        Damage::Text(_) => "mend it there with an editor, or put a good copy in its place",
        Damage::Journal(_) => {
            "stop the worker, then take phext and journal from a backup, or move the journal out of the \
             directory, which loses the writes that are only in it"
        }
        Damage::Keys(_) => {
            "take it from a backup, or move it out of the directory: then a write that a client sends again may be made \
             twice"
        }
        Damage::LargerThanQuota { .. } => "raise the quota",
    }
}

/// All files together.
#[derive(Default)]
struct Totals {
    phexts: u64,
    scrolls: u64,
    journals: u64,
    unsaved: u64,
    bad: u64,
}

impl Totals {
    fn of(files: &[Checked]) -> Self {
        let mut totals = Self::default();
        for file in files {
            match &file.finding {
                Finding::Phext { scrolls, .. } => {
                    totals.phexts += 1;
                    totals.scrolls += *scrolls as u64;
                }
                Finding::Journal { unsaved, .. } => {
                    totals.journals += 1;
                    totals.unsaved += unsaved.unwrap_or(0);
                }
                Finding::Link { .. } | Finding::Keys { .. } | Finding::Reserve | Finding::Leftover => {}
                Finding::Damaged(_) | Finding::Unreadable(_) => totals.bad += 1,
            }
        }
        totals
    }

    fn line(&self) -> String {
        format!(
            "{} with {}, {} with {} not in the files yet, {} damaged",
            count(self.phexts, "phext"),
            count(self.scrolls, "scroll"),
            count(self.journals, "journal"),
            count(self.unsaved, "write"),
            self.bad
        )
    }
}

/// A number with its noun.
fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

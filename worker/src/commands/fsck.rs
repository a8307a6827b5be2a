//! `sq-worker fsck`: lists and verifies the files of one tenant, or of every tenant.

mod directories;

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sq_shared::access::{self, Denied};
use sq_shared::process::failure::Failure;
use sq_shared::process::output::{note, say};
use sq_shared::process::service_user;
use sq_shared::{layout, visible};

use crate::store::fsck::{self, Checked, Finding, Origin, Report};
use crate::store::{BadLink, Damage, JournalDamage, TextDamage};
use directories::TenantDirectory;

#[derive(Debug, clap::Args)]
#[command(
    override_usage = "sq-worker fsck <DIR>\n       sq-worker fsck --root <DIR>\n       sq-worker fsck --config <FILE>"
)]
#[command(after_help = "\
Examples:
  sq-worker fsck ./sq-data/data/alice
  sq-worker fsck ./sq-data/data
  sq-worker fsck --root ./sq-data

It only reads, so workers may serve the directories meanwhile. It exits with 1 if a file is damaged.")]
pub(crate) struct Options {
    /// A tenant's directory, or a data root: the folder with all tenants' directories.
    #[arg(value_name = "DIR", required_unless_present_any = ["root", "config"], conflicts_with_all = ["root", "config"])]
    dir: Option<PathBuf>,
    /// Verify every tenant of the system in this folder, each at the directory in the registry.
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    root: Option<PathBuf>,
    /// Verify every tenant of the system with this config.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Prints one line per file, and a last one with the totals. With several tenants, each line begins with the tenant.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let of_root = options.root.as_deref().map(layout::config_file);
    if let Some(config_file) = options.config.clone().or(of_root) {
        return check_all(&directories::from_registry(&config_file)?);
    }
    let dir = options.dir.as_deref().unwrap_or(Path::new("."));
    let config_file = layout::config_file(dir);
    if config_file.is_file() {
        return check_all(&directories::from_registry(&config_file)?);
    }
    if let Some(contents) = directories::from_data_root(dir)? {
        for stray in &contents.stray {
            remark(format_args!("{} belongs to no tenant; not verified", stray.display()));
        }
        return check_all(&contents.tenants);
    }
    let report = fsck::check(dir).map_err(Failure::from_error)?;
    if report.files.is_empty() {
        let dir = dir.display();
        remark(format_args!("{dir} has no phexts: give the directory of one tenant, or the data root"));
    }
    note_use(&report, dir);
    print(&report.files, None)?;
    let mut totals = Totals::default();
    totals.add(&report.files);
    say(totals.line())?;
    totals.denied += print_denied(dir)?;
    totals.result(0)
}

fn check_all(directories: &[TenantDirectory]) -> Result<(), Failure> {
    let (mut totals, mut unreadable) = (Totals::default(), 0);
    for TenantDirectory { tenant, dir, gone } in directories {
        if let Some(why) = gone {
            unreadable += 1;
            say(format_args!("{tenant}/  DAMAGED  the directory {}: {why}", dir.display()))?;
            continue;
        }
        if !dir.exists() {
            remark(format_args!("tenant {tenant} has no directory {}", dir.display()));
            continue;
        }
        match fsck::check(dir) {
            Ok(report) => {
                note_use(&report, dir);
                print(&report.files, Some(tenant))?;
                totals.add(&report.files);
                totals.denied += print_denied(dir)?;
            }
            Err(error) => {
                unreadable += 1;
                say(format_args!("{tenant}/  DAMAGED  {error}"))?;
            }
        }
    }
    let tenants = count(directories.len() as u64, "tenant");
    let unread = if unreadable == 0 { String::new() } else { format!(" ({unreadable} not read)") };
    say(format_args!("{tenants}{unread}: {}", totals.line()))?;
    totals.result(unreadable)
}

/// Prints one line per file.
fn print(files: &[Checked], tenant: Option<&str>) -> Result<(), Failure> {
    let shown = |file: &Checked| match tenant {
        Some(tenant) => visible::line(&format!("{tenant}/{}", file.name)).into_owned(),
        None => visible::line(&file.name).into_owned(),
    };
    let names: Vec<_> = files.iter().map(shown).collect();
    let name_width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let bytes_width = files.iter().map(|file| file.bytes.to_string().len()).max().unwrap_or(0);
    names.iter().zip(files).try_for_each(|(name, Checked { bytes, finding, .. })| {
        let (state, text) = (state(finding), describe(finding));
        say(format_args!("{name:<name_width$}  {state:<7}  {bytes:>bytes_width$}  {text}"))
    })
}

fn note_use(report: &Report, dir: &Path) {
    if report.is_in_use {
        remark(format_args!(
            "a worker has {} open: its writes in progress may look unfinished, or like another program's",
            dir.display()
        ));
    }
}

/// Prints one line per path that the directory's owner may not use; returns their number.
fn print_denied(dir: &Path) -> Result<u64, Failure> {
    let denied = denied(dir);
    denied.iter().try_for_each(say)?;
    Ok(denied.len() as u64)
}

/// What the directory's owner, as whom a worker runs, may not use. Only that user can tell, and root where it may act as
/// others, which it may not in every container.
fn denied(dir: &Path) -> Vec<Denied> {
    let me = rustix::process::geteuid().as_raw();
    let is_mine = dir.metadata().is_ok_and(|found| found.uid() == me);
    let checked = match me {
        0 => service_user::as_owner_of_directory(dir, || access::tenant_directory(dir)),
        _ if is_mine => Ok(access::tenant_directory(dir)),
        _ => Err(io::Error::other("it is another user's: run this as that user, or as root")),
    };
    checked.unwrap_or_else(|why| {
        let dir = dir.display();
        remark(format_args!("{dir}: did not check whether its owner may use all files: {why}"));
        Vec::new()
    })
}

/// Prints a remark, which is not part of the result, to standard error.
fn remark(line: impl fmt::Display) {
    note(format_args!("sq-worker: {}", visible::line(&line.to_string())));
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
                    ", written by another program; older unsaved writes in its journal do not count"
                }
                Origin::Unknown => "; its journal does not show whether writes are missing in it",
            };
            format!("{}{origin}", count(*scrolls as u64, "scroll"))
        }
        Finding::Link { target } => format!("a link to {}", visible::line(&format!("{target}.phext"))),
        Finding::Journal { records, unsaved, torn_bytes, is_file_gone } => {
            let mut text = count(*records, "record");
            text += &match unsaved {
                Some(0) => String::new(),
                Some(unsaved) => format!(", {} not in the file yet", count(*unsaved, "write")),
                None => ", and it is unknown which of them are in the file".to_owned(),
            };
            if *is_file_gone {
                text += ", and another program removed the phext's file";
            }
            if *torn_bytes > 0 {
                text += &format!(
                    ", {} at the end that are not a whole write: an unfinished one, or the file was cut short",
                    count(*torn_bytes, "byte")
                );
            }
            text
        }
        Finding::Keys { keys } => {
            format!("{} of writes that may be repeated, of phexts without a journal", count(*keys, "key"))
        }
        Finding::Reserve => "space reserved for a full disk".to_owned(),
        Finding::Leftover => "left by a worker that was killed; the next one removes it".to_owned(),
        Finding::Damaged(damage) => format!("{}: {}", place(damage), remedy(damage)),
        Finding::Unreadable(error) => format!("failed to read it: {error}"),
    }
}

/// What is wrong, without the name of the file.
fn place(damage: &Damage) -> String {
    match damage {
        Damage::Text(damage) => damage.to_string(),
        Damage::Journal(JournalDamage::Header) | Damage::Keys(JournalDamage::Header) => {
            "its header is damaged, at byte 0".to_owned()
        }
        Damage::Journal(damage) | Damage::Keys(damage) => damage.to_string(),
        Damage::Link(why) => format!("it is a link that {why}"),
        Damage::LargerThanQuota { .. } => damage.to_string(),
        Damage::InTheWay { .. } => "it is not a plain file, and blocks the next save".to_owned(),
    }
}

fn remedy(damage: &Damage) -> &'static str {
    match damage {
        Damage::Text(TextDamage::NotAFile)
        | Damage::Journal(JournalDamage::NotAFile)
        | Damage::Keys(JournalDamage::NotAFile)
        | Damage::InTheWay { .. } => "move it out of the directory",
        Damage::Link(BadLink::BesideJournal) => "or remove the journal, if none of its writes counts",
        Damage::Link(BadLink::Missing) => {
            "mount its disk, or put the file back; an empty file begins a new phext, where there is no journal"
        }
        Damage::Link(BadLink::Mounted) => "keep the phext on the disk of the tenant's directory",
        Damage::Link(_) => "point it to a .phext file within the directory, or replace it with that file",
        Damage::Text(_) => "repair it there with an editor, or replace it with a good copy",
        Damage::Journal(_) => {
            "stop the worker, then restore phext and journal from a backup, or move the journal out of the \
             directory, which loses the writes that are only in it"
        }
        Damage::Keys(_) => {
            "restore it from a backup, or move it out of the directory: then a write that a client repeats may be applied \
             twice"
        }
        Damage::LargerThanQuota { .. } => "raise the quota",
    }
}

/// The totals of all files.
#[derive(Default)]
struct Totals {
    phexts: u64,
    scrolls: u64,
    journals: u64,
    unsaved: u64,
    bad: u64,
    /// Paths that the directory's owner may not use.
    denied: u64,
}

impl Totals {
    fn add(&mut self, files: &[Checked]) {
        for file in files {
            match &file.finding {
                Finding::Phext { scrolls, .. } => {
                    self.phexts += 1;
                    self.scrolls += *scrolls as u64;
                }
                Finding::Journal { unsaved, .. } => {
                    self.journals += 1;
                    self.unsaved += unsaved.unwrap_or(0);
                }
                Finding::Link { .. } | Finding::Keys { .. } | Finding::Reserve | Finding::Leftover => {}
                Finding::Damaged(_) | Finding::Unreadable(_) => self.bad += 1,
            }
        }
    }

    /// Fails if a file is bad, or if any directory was unreadable.
    fn result(&self, unreadable: u64) -> Result<(), Failure> {
        let mut bad = Vec::from([(self.bad, "file"), (unreadable, "tenant")]);
        bad.retain(|(number, _)| *number > 0);
        let bad: Vec<_> = bad.into_iter().map(|(number, noun)| count(number, noun)).collect();
        let mut wrong = Vec::new();
        if !bad.is_empty() {
            wrong.push(format!("{} damaged or unreadable", bad.join(" and ")));
        }
        if self.denied > 0 {
            wrong.push(format!("{} that the directory's owner may not use", count(self.denied, "path")));
        }
        if wrong.is_empty() { Ok(()) } else { Err(Failure::Failed(wrong.join(", "))) }
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

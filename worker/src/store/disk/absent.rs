//! The disk of a worker whose tenant's directory is missing: nothing is there, and nothing can be created.

use std::ffi::OsStr;
use std::io;

use sq_shared::phext_name::PhextName;

use crate::store::links::Followed;

use super::{Disk, DiskFile, FileName, Identity};

/// No directory.
#[derive(Debug)]
pub(in crate::store) struct AbsentDisk;

fn absent<T>() -> io::Result<T> {
    Err(io::ErrorKind::NotFound.into())
}

impl Disk for AbsentDisk {
    fn identity(&self, _: &FileName) -> io::Result<Option<Identity>> {
        absent()
    }

    fn follow(&self, _: &PhextName) -> io::Result<Followed> {
        absent()
    }

    fn open(&self, _: &FileName) -> io::Result<Option<Box<dyn DiskFile>>> {
        absent()
    }

    fn create(&self, _: &FileName) -> io::Result<Box<dyn DiskFile>> {
        absent()
    }

    fn rename(&self, _: &FileName, _: &FileName) -> io::Result<()> {
        absent()
    }

    fn remove(&self, _: &FileName) -> io::Result<()> {
        absent()
    }

    fn is_removed(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn sync_directory(&self) -> io::Result<()> {
        absent()
    }

    fn sync_name(&self, _: &FileName) -> io::Result<()> {
        absent()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        absent()
    }

    fn visit(&self, _: &mut dyn FnMut(&OsStr)) -> io::Result<()> {
        absent()
    }
}

//! A disk in memory that behaves as badly as a real one may: it loses, tears and reorders what was not synced, fills up,
//! and fails on demand.
//!
//! Everything random comes from a seed, so a run with one thread can be repeated.

use std::ffi::OsStr;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::io::Errno;

use self::faults::Faults;
use self::state::SimState;
use sq_shared::phext_name::PhextName;
use sq_tests::random::Random;

use crate::store::links::Followed;

use super::{Disk, DiskFile, FileName, Identity, path_of};

mod fate;
mod faults;
mod inode;
mod names;
mod state;
mod tests;

pub(in crate::store) use self::faults::{Operation, is_stopped};

/// A tenant's directory in memory. A clone is the same disk: a test keeps one to reach into it.
#[derive(Debug, Clone)]
pub(in crate::store) struct SimDisk(Arc<Mutex<SimState>>);

/// An open file, whatever happens to its name.
#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    inode: u64,
    _handle: Arc<()>,
}

impl SimDisk {
    /// An empty directory without limits or faults.
    pub(in crate::store) fn new(seed: u64) -> Self {
        Self::from_state(SimState::new(seed))
    }

    fn from_state(state: SimState) -> Self {
        Self(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, SimState> {
        self.0.lock().unwrap()
    }

    /// The disk that a worker opens after a power cut now. What was synced is there:
    ///
    /// - Of the bytes that were not, each write is there, is lost, or is torn at sectors of 512 bytes, independent
    ///   of the writes before it. The length of the file is any that it had since the sync; where the
    ///   bytes are missing there are zeros.
    /// - Of the names, the first few changes since the directory was synced are there, and no others.
    /// - The times of a file are those of its last `sync_all` or those before the cut.
    ///
    /// Limits stay, faults do not. Like [`OsDisk::lock`](super::os::OsDisk::lock), this removes temporary files and makes
    /// the names durable.
    pub(in crate::store) fn crash(&self, seed: u64) -> Self {
        let mut state = self.state().clone();
        state.crash(Random::new(seed));
        Self::from_state(state)
    }

    /// The disk that a worker opens after the last one was killed now: the kernel has everything that was written, but no
    /// more of it is durable than before. Otherwise like [`SimDisk::crash`].
    pub(in crate::store) fn kill(&self) -> Self {
        let mut state = self.state().clone();
        state.reopen();
        Self::from_state(state)
    }

    /// Lets the `nth` operation of a kind fail, 1 being the next. A failed write may have written some of its bytes. What a
    /// failed sync should have made durable may be lost, and no later sync makes it durable. Any other operation has no
    /// effect.
    pub(in crate::store) fn fail(&self, operation: Operation, nth: u64, error: Errno) {
        self.state().faults.schedule(operation, nth, error);
    }

    /// Lets one in so many operations fail, with `EIO`, or `ENOSPC` if it may take space; `None` heals the disk.
    pub(in crate::store) fn fail_one_in(&self, operations: Option<usize>) {
        self.state().faults.one_in = operations;
    }

    /// How many operations have changed something, syncs included: the points at which a crash makes a difference.
    pub(in crate::store) fn changes(&self) -> u64 {
        self.state().faults.changes
    }

    /// Lets so many more changes happen. Then the process is gone: every operation fails with its own error (see
    /// [`is_stopped`]) and has no effect, except that the write at that point may have written some of its bytes.
    pub(in crate::store) fn stop_after(&self, changes: u64) {
        let faults: &mut Faults = &mut self.state().faults;
        faults.stop_at = Some(faults.changes + changes);
    }

    /// The capacity in bytes. Open files count even if they have no name any more.
    pub(in crate::store) fn set_capacity_bytes(&self, capacity_bytes: Option<u64>) {
        self.state().capacity_bytes = capacity_bytes.map(|bytes| usize::try_from(bytes).unwrap());
    }

    /// Another program replaces one of the store's files, and syncs everything.
    pub(in crate::store) fn replace_behind_our_back(&self, file: &FileName, bytes: &[u8]) {
        self.state().replace_durably(file, bytes);
    }

    /// The contents of a file; this is not an operation.
    pub(in crate::store) fn bytes(&self, file: &FileName) -> Option<Vec<u8>> {
        self.state().bytes(file)
    }

    fn file(&self, (inode, handle): (u64, Arc<()>)) -> Box<dyn DiskFile> {
        Box::new(SimFile { disk: self.clone(), inode, _handle: handle })
    }
}

impl Disk for SimDisk {
    fn identity(&self, file: &FileName) -> io::Result<Option<Identity>> {
        let mut state = self.state();
        state.inject(Operation::Identity)?;
        Ok(state.names.cached.get(file).map(|inode| state.identity(*inode)))
    }

    /// It has no links.
    fn follow(&self, _: &PhextName) -> io::Result<Followed> {
        Ok(Followed::NoLink)
    }

    fn open(&self, file: &FileName) -> io::Result<Option<Box<dyn DiskFile>>> {
        let mut state = self.state();
        state.inject(Operation::Open)?;
        Ok(state.open(file).map(|opened| self.file(opened)))
    }

    fn create(&self, file: &FileName) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.inject(Operation::Create)?;
        Ok(self.file(state.create(file)))
    }

    fn rename(&self, from: &FileName, to: &FileName) -> io::Result<()> {
        let mut state = self.state();
        state.inject(Operation::Rename)?;
        state.rename(from, to)
    }

    fn remove(&self, file: &FileName) -> io::Result<()> {
        let mut state = self.state();
        state.inject(Operation::Remove)?;
        state.remove(file);
        Ok(())
    }

    fn is_removed(&self) -> io::Result<bool> {
        Ok(false)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.state().sync_directory()
    }

    fn sync_name(&self, _: &FileName) -> io::Result<()> {
        self.state().sync_directory()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let mut state = self.state();
        state.inject(Operation::Identity)?;
        Ok(state.free_bytes())
    }

    fn visit(&self, found: &mut dyn FnMut(&OsStr)) -> io::Result<()> {
        let names: Vec<FileName> = {
            let mut state = self.state();
            state.inject(Operation::List)?;
            state.names.cached.keys().cloned().collect()
        };
        names.iter().for_each(|file| found(path_of(file).as_os_str()));
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn identity(&self) -> io::Result<Identity> {
        let mut state = self.disk.state();
        state.inject(Operation::Identity)?;
        Ok(state.identity(self.inode))
    }

    fn is_writable(&self) -> bool {
        true
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.state().read(self.inode, buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.state().write(self.inode, bytes, usize::try_from(offset).unwrap())
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        self.disk.state().set_length(self.inode, usize::try_from(bytes).unwrap())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.disk.state().allocate(self.inode, usize::try_from(bytes).unwrap())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.state().sync(self.inode, Operation::SyncData)
    }

    fn sync_all(&self) -> io::Result<()> {
        self.disk.state().sync(self.inode, Operation::SyncAll)
    }
}

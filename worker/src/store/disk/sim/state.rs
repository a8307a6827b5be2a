//! All of the simulated disk, behind its lock.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use rustix::io::Errno;

use super::faults::{Faults, Operation};
use super::inode::Inode;
use super::names::Names;
use crate::store::disk::{FileName, Identity};
use sq_tests::random::Random;

const NS_PER_S: i64 = 1_000_000_000;

#[derive(Debug, Clone)]
pub(super) struct SimState {
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    pub(super) names: Names,
    /// Advances with each operation, so that no two have the same time.
    clock_ns: i64,
    pub(super) capacity_bytes: Option<usize>,
    pub(super) faults: Faults,
    random: Random,
}

/// Whether a worker removes the file when it opens the directory.
pub(super) fn is_temporary(file: &FileName) -> bool {
    file.is_temporary()
}

impl SimState {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            inodes: BTreeMap::new(),
            next_inode: 1,
            names: Names::default(),
            clock_ns: 1_700_000_000 * NS_PER_S,
            capacity_bytes: None,
            faults: Faults::default(),
            random: Random::new(seed),
        }
    }

    pub(super) fn inject(&mut self, operation: Operation) -> io::Result<()> {
        self.clock_ns += 1;
        self.faults.inject(operation, &mut self.random)
    }

    /// Open files are kept, so the number of an open file is always valid.
    fn inode(&mut self, number: u64) -> &mut Inode {
        self.inodes.get_mut(&number).unwrap()
    }

    pub(super) fn identity(&self, number: u64) -> Identity {
        let inode = &self.inodes[&number];
        Identity {
            inode: number,
            modified_s: inode.times.modified_ns / NS_PER_S,
            modified_ns: inode.times.modified_ns % NS_PER_S,
            changed_s: inode.times.changed_ns / NS_PER_S,
            changed_ns: inode.times.changed_ns % NS_PER_S,
            bytes: u64::try_from(inode.cached.len()).unwrap(),
            is_file: true,
        }
    }

    pub(super) fn bytes(&self, file: &FileName) -> Option<Vec<u8>> {
        self.names.cached.get(file).map(|inode| self.inodes[inode].cached.clone())
    }

    pub(super) fn open(&mut self, file: &FileName) -> Option<(u64, Arc<()>)> {
        let number = *self.names.cached.get(file)?;
        Some((number, self.inode(number).handle()))
    }

    /// The name is removed first and set again: a power cut may come in between.
    pub(super) fn create(&mut self, file: &FileName) -> (u64, Arc<()>) {
        self.remove(file);
        let number = self.next_inode;
        self.next_inode += 1;
        let inode = Inode::new(self.clock_ns);
        let handle = inode.handle();
        self.inodes.insert(number, inode);
        self.names.set(file, number);
        (number, handle)
    }

    pub(super) fn remove(&mut self, file: &FileName) {
        if let Some(number) = self.names.cached.get(file).copied() {
            self.names.remove(file);
            self.touch(number);
        }
    }

    pub(super) fn rename(&mut self, from: &FileName, to: &FileName) -> io::Result<()> {
        let number = *self.names.cached.get(from).ok_or(Errno::NOENT)?;
        self.names.rename(from, to, number);
        self.touch(number);
        Ok(())
    }

    /// A change of a file's name changes its ctime.
    fn touch(&mut self, number: u64) {
        let now_ns = self.clock_ns;
        self.inode(number).times.changed_ns = now_ns;
    }

    pub(super) fn sync_directory(&mut self) -> io::Result<()> {
        self.inject(Operation::SyncDirectory)?;
        self.names.sync();
        Ok(())
    }

    /// Sometimes reads fewer bytes than asked for, as the kernel may.
    pub(super) fn read(&mut self, number: u64, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inject(Operation::Read)?;
        let asked =
            if self.random.one_in(4) { self.random.below(buffer.len() + 1).max(1) } else { buffer.len() };
        let content = &self.inode(number).cached;
        let rest = usize::try_from(offset).ok().and_then(|offset| content.get(offset..)).unwrap_or_default();
        let count = rest.len().min(asked).min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    pub(super) fn write(&mut self, number: u64, bytes: &[u8], offset: usize) -> io::Result<()> {
        let was_stopped = self.faults.is_stopped;
        let injected = self.inject(Operation::Write);
        if was_stopped {
            return injected;
        }
        let space = self.space_for(number).saturating_sub(offset).min(bytes.len());
        let error = match injected {
            Ok(()) if space == bytes.len() => None,
            Ok(()) => Some(Errno::NOSPC.into()),
            Err(error) => Some(error),
        };
        let count = if error.is_some() { self.random.below(space + 1) } else { bytes.len() };
        if count > 0 {
            let now_ns = self.clock_ns;
            self.inode(number).write(offset, &bytes[..count], now_ns);
        }
        error.map_or(Ok(()), Err)
    }

    /// How long a file can be before the disk is full.
    fn space_for(&self, number: u64) -> usize {
        let Some(capacity) = self.capacity_bytes else { return usize::MAX };
        let others = self.used_bytes(|other| other != number);
        capacity.saturating_sub(others).max(self.inodes[&number].space_bytes)
    }

    pub(super) fn free_bytes(&self) -> u64 {
        let free = self.capacity_bytes.map(|capacity| capacity.saturating_sub(self.used_bytes(|_| true)));
        free.map_or(u64::MAX, |bytes| bytes as u64)
    }

    /// The space of the chosen files that have a name or are open.
    fn used_bytes(&self, is_chosen: impl Fn(u64) -> bool) -> usize {
        let takes_space = |number: &u64, inode: &Inode| {
            inode.is_open() || self.names.cached.values().any(|named| named == number)
        };
        let chosen =
            self.inodes.iter().filter(|(number, inode)| is_chosen(**number) && takes_space(number, inode));
        chosen.map(|(_, inode)| inode.space_bytes).sum()
    }

    pub(super) fn set_length(&mut self, number: u64, length: usize) -> io::Result<()> {
        self.inject(Operation::SetBytes)?;
        let now_ns = self.clock_ns;
        self.inode(number).set_length(length, now_ns);
        Ok(())
    }

    pub(super) fn allocate(&mut self, number: u64, bytes: usize) -> io::Result<()> {
        self.inject(Operation::Allocate)?;
        if bytes > self.space_for(number) {
            return Err(Errno::NOSPC.into());
        }
        let now_ns = self.clock_ns;
        let inode = self.inode(number);
        if bytes > inode.cached.len() {
            inode.set_length(bytes, now_ns);
        }
        inode.space_bytes = inode.space_bytes.max(bytes);
        Ok(())
    }

    pub(super) fn sync(&mut self, number: u64, operation: Operation) -> io::Result<()> {
        let injected = self.inject(operation);
        let is_stopped = self.faults.is_stopped;
        let inode = self.inodes.get_mut(&number).unwrap();
        match (&injected, operation) {
            (Ok(()), Operation::SyncData) => inode.sync_data(),
            (Ok(()), _) => inode.sync_all(),
            (Err(_), _) if is_stopped => {}
            (Err(_), _) => inode.fail_sync(&mut self.random),
        }
        injected
    }

    pub(super) fn replace_durably(&mut self, file: &FileName, bytes: &[u8]) {
        self.clock_ns += 1;
        let now_ns = self.clock_ns;
        let (number, _) = self.create(file);
        let inode = self.inode(number);
        inode.write(0, bytes, now_ns);
        inode.sync_all();
        self.names.sync();
    }

    pub(super) fn crash(&mut self, mut random: Random) {
        self.names.crash(&mut random);
        for inode in self.inodes.values_mut() {
            inode.crash(&mut random);
        }
        self.random = random;
        self.clock_ns += NS_PER_S;
        self.reopen();
    }

    /// What opening a directory does.
    pub(super) fn reopen(&mut self) {
        self.faults = Faults::default();
        let leftovers: Vec<FileName> =
            self.names.cached.keys().filter(|file| is_temporary(file)).cloned().collect();
        for leftover in &leftovers {
            self.names.remove(leftover);
        }
        self.names.sync();
        let names = &self.names;
        self.inodes.retain(|number, _| names.cached.values().any(|named| named == number));
        self.inodes.values_mut().for_each(Inode::close);
    }
}

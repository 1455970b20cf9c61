//! Files under one directory, reached without following any symbolic link.
//!
//! In: a root and a [`RepoPath`]. Out: bytes, or a whole new file in the place of the old one.
//! Never: leaves the root, whatever links appear on the way, also between a check and its use.
//! Source: openat(2), O_NOFOLLOW; every component is opened relative to the one before.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::repo::RepoPath;

/// An open directory.
pub(crate) struct Folder(OwnedFd);

/// What must survive when a file's content is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rights {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

impl Folder {
    /// Opens the directory that holds `path`.
    pub(crate) fn holding(root: &Path, path: &RepoPath) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut folder = rustix::fs::openat(CWD, root, flags, Mode::empty())?;
        for dir in path.split().0 {
            folder = rustix::fs::openat(&folder, dir, flags | OFlags::NOFOLLOW, Mode::empty()).map_err(
                |errno| {
                    // Systems differ in what they call a link that should be a folder.
                    if matches!(errno, Errno::LOOP | Errno::MLINK) { Errno::NOTDIR } else { errno }
                },
            )?;
        }
        Ok(Self(folder))
    }

    /// Returns a regular file's bytes and rights; none if it is a link or something else.
    pub(crate) fn read(&self, name: &str) -> io::Result<Option<(Vec<u8>, Rights)>> {
        // NONBLOCK: opening a FIFO that nobody writes to would wait forever.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(&self.0, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            // A link; a socket.
            Err(Errno::LOOP | Errno::MLINK | Errno::NXIO) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let stat = rustix::fs::fstat(&fd)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        File::from(fd).read_to_end(&mut bytes)?;
        let rights = Rights { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid };
        Ok(Some((bytes, rights)))
    }

    /// Writes a new file, to the disk's own memory, and closes it; fails if the name is taken.
    pub(crate) fn create(&self, name: &str, bytes: &[u8], rights: Rights) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(&self.0, name, flags, Mode::from_raw_mode(0o600))?);
        let written = (|| {
            file.write_all(bytes)?;
            // Only root may give a file away; another's file that we may replace becomes ours, as with git.
            let (uid, gid) = (rustix::fs::Uid::from_raw(rights.uid), rustix::fs::Gid::from_raw(rights.gid));
            let _not_ours = rustix::fs::fchown(&file, Some(uid), Some(gid));
            rustix::fs::fchmod(&file, Mode::from_raw_mode(rights.mode as rustix::fs::RawMode))?;
            file.sync_all()
        })();
        if written.is_err() {
            let _already_failing = self.remove(name);
        }
        written
    }

    /// Puts the file `from` in the place of `to`, at once.
    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.0, from, &self.0, to)?)
    }

    /// Removes a file; it is no failure if there is none or a directory has the name.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.0, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT | Errno::ISDIR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends the directory's entries to the disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        match rustix::fs::fsync(&self.0) {
            // Some network file systems cannot do this for directories.
            Ok(()) | Err(Errno::INVAL | Errno::NOTSUP) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests;

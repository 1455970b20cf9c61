//! Memory that is mapped: a file read-only, and huge pages for what is read at every step.
//!
//! In: a path, or a size. Out: the file's bytes, paged in by the operating system when they are first read; or zeros to
//! be written. Never: a write to a file, or a copy of it.
//! Thread: any; the bytes of a file never change through its map.

#![expect(unsafe_code, reason = "mapping a file is unsafe; this module is the only place that does it")]

use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut};
use std::path::Path;

/// The bytes of a file, mapped read-only.
///
/// The file must keep its length and content while it is mapped. `agent models` keeps to that: a
/// pull writes to a temporary name and renames, so a mapped file's bytes stay on the disk even
/// when its name is removed or given to a newer file. If another program shortens the file in
/// place, reading past its new end kills the process with SIGBUS; if it rewrites the file in
/// place, the model computes with the new bytes, and every length was checked against the old.
#[derive(Debug)]
pub struct Mmap {
    map: memmap2::Mmap,
}

impl Mmap {
    /// Maps the whole file at `path`.
    ///
    /// # Errors
    /// Whatever opening, or mapping, the file gave; an empty file is `InvalidData`, because it
    /// cannot be mapped on every system and is never a model.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "this is not a regular file"));
        }
        if metadata.len() == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is empty"));
        }
        // SAFETY: the map is private to this value, read-only and as long as the file was when it
        // was mapped (memmap2 asks for the length itself). That no other process shortens or
        // rewrites the file in place cannot be checked from here: it is the documented condition
        // of this type, which the model store keeps by writing new files under new names only.
        let map = unsafe { memmap2::Mmap::map(&file)? };
        Ok(Self { map })
    }

    /// Says that `part` of the file is not needed soon: it no longer counts as this process's memory, and comes back
    /// from the file when it is read again.
    pub(crate) fn forget(&self, part: &[u8]) {
        #[cfg(unix)]
        if let Some(at) = (part.as_ptr() as usize).checked_sub(self.map.as_ptr() as usize) {
            if part.len() > self.map.len() || at > self.map.len() - part.len() {
                return;
            }
            // SAFETY: the part lies in the map, which is of a file and never written, so that a page read again has the
            // same bytes. Where the advice is refused nothing is lost.
            let _ = unsafe {
                self.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, at, part.len())
            };
        }
        #[cfg(not(unix))]
        let _ = part;
    }
}

impl Deref for Mmap {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

/// Memory of zeros, in huge pages where the system has them.
///
/// All weights are read for every token. In pages of 4 KiB the processor looks up so many of them that two cores of a
/// Sapphire Rapids read 55 GB/s; in pages of 2 MiB they read 90.
#[derive(Debug)]
pub(crate) struct Pages {
    map: memmap2::MmapMut,
    n_bytes: usize,
}

impl Pages {
    /// Returns `n_bytes` of zeros.
    ///
    /// # Errors
    /// When there is no memory.
    pub(crate) fn new(n_bytes: usize) -> io::Result<Self> {
        let map = memmap2::MmapMut::map_anon(n_bytes.max(1))?;
        // Advice: where it is refused, pages are small.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Self { map, n_bytes })
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map[..self.n_bytes]
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.map[..self.n_bytes]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_file_reads_as_its_bytes_even_after_its_name_is_gone() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("bytes");
        std::fs::write(&path, b"0123456789").expect("the file is written");
        let mmap = Mmap::open(&path).expect("the file maps");
        #[cfg(unix)]
        std::fs::remove_file(&path).expect("the name is removed");
        assert_eq!(&*mmap, b"0123456789");
    }

    #[test]
    fn an_empty_file_a_folder_and_a_missing_file_are_errors() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let empty = dir.path().join("empty");
        std::fs::write(&empty, b"").expect("the file is written");
        let kind = |path: &Path| Mmap::open(path).expect_err("must not map").kind();
        assert_eq!(kind(&empty), io::ErrorKind::InvalidData);
        assert_eq!(kind(&dir.path().join("missing")), io::ErrorKind::NotFound);
        #[cfg(unix)]
        assert_eq!(kind(dir.path()), io::ErrorKind::InvalidInput);
    }
}

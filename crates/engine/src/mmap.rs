//! A file mapped read-only into memory.
//!
//! In: a path. Out: the file's bytes, paged in by the operating system when they are first read.
//! Never: a write, or a copy of the file.
//! Thread: any; the bytes never change through this map.

#![expect(unsafe_code, reason = "mapping a file is unsafe; this module is the only place that does it")]

use std::fs::File;
use std::io;
use std::ops::Deref;
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
}

impl Deref for Mmap {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
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

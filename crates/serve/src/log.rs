//! The server's log: a file that never grows beyond a bound.
//!
//! In: lines. Out: a file of at most half the bound, and the one before it, with `.old` at its name's end.
//! Never: an error: a full disk must not end a server that serves. Opening is where trouble is told.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::Error;

/// Most bytes of both files together.
const N_MAX_BYTES: u64 = 2 << 20;

/// A log file with a bound.
#[derive(Debug)]
pub struct BoundedLog {
    path: PathBuf,
    file: File,
    n_bytes: u64,
    n_max_bytes: u64,
}

impl BoundedLog {
    /// Opens the file, or makes it and its folder.
    ///
    /// # Errors
    /// [`Error::Io`]: the user makes room, or mends the rights.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::with_bound(path, N_MAX_BYTES)
    }

    fn with_bound(path: &Path, n_max_bytes: u64) -> Result<Self, Error> {
        let io = |action| move |source| Error::Io { action, path: path.to_owned(), source };
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(io("make the folder of"))?;
        }
        let mut file = append(path).map_err(io("open"))?;
        // A full disk opens files but takes no byte: better said now than never.
        file.write_all(b"\n").map_err(io("write to"))?;
        let n_bytes = file.metadata().map_err(io("look at"))?.len();
        Ok(Self { path: path.to_owned(), file, n_bytes, n_max_bytes })
    }

    fn turn_over(&mut self) -> io::Result<()> {
        fs::rename(&self.path, old(&self.path))?;
        self.file = append(&self.path)?;
        self.n_bytes = 0;
        Ok(())
    }
}

impl Write for BoundedLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.n_bytes + bytes.len() as u64 > self.n_max_bytes / 2 && self.turn_over().is_err() {
            // It cannot be bounded any more, so nothing is added.
            return Ok(bytes.len());
        }
        if self.file.write_all(bytes).is_ok() {
            self.n_bytes += bytes.len() as u64;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).open(path)
}

fn old(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".old");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_files_hold_the_newest_lines_within_the_bound() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("logs/serve.log");
        let mut log = BoundedLog::with_bound(&path, 200).expect("it can be made");
        for n in 0..100 {
            writeln!(log, "line {n:03}").expect("it never fails");
        }
        let text = |path: &Path| fs::read_to_string(path).expect("it is there");
        let (new, before) = (text(&path), text(&old(&path)));
        assert!(new.ends_with("line 099\n"), "{new}");
        assert!(new.len() <= 100 && before.len() <= 100, "{} and {}", new.len(), before.len());
        assert!(format!("{before}{new}").lines().count() > 10);
    }

    #[test]
    fn a_place_that_takes_nothing_is_told_at_once() {
        let error = BoundedLog::open(Path::new("/dev/full")).expect_err("it is full");
        assert_eq!(error.to_string(), "cannot write to /dev/full");
        assert!(
            error.hint().is_some_and(|hint| hint.contains("make room on the disk")),
            "{:?}",
            error.hint()
        );
    }
}

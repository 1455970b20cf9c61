//! What was known of a file when it was last hashed, so that a start need not hash it again.
//!
//! In, out: `record.toml` beside an installed model; one file a path for the user's own models.
//! Never: believed when size or modification time differ.

use std::fs::{self, Metadata};
use std::io::{self, Write};
use std::path::Path;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use crate::{Error, Sha256};

/// A file's size, modification time and sha256 at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) bytes: u64,
    pub(crate) mtime_ns: i64,
    pub(crate) sha256: Sha256,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordFile {
    /// For whoever reads the file: nothing depends on it.
    file: String,
    bytes: u64,
    mtime_ns: i64,
    sha256: String,
}

impl Record {
    pub(crate) fn new(metadata: &Metadata, sha256: Sha256) -> Self {
        Self { bytes: metadata.len(), mtime_ns: mtime_ns(metadata), sha256 }
    }

    /// Returns whether the file still has the size and time it had when it was hashed.
    pub(crate) fn is_of(&self, metadata: &Metadata) -> bool {
        self.bytes == metadata.len() && self.mtime_ns == mtime_ns(metadata)
    }

    /// Returns the record at `path`; one that cannot be read costs only another hash.
    pub(crate) fn read(path: &Path) -> Option<Self> {
        let file: RecordFile = toml::from_str(&fs::read_to_string(path).ok()?).ok()?;
        Some(Self { bytes: file.bytes, mtime_ns: file.mtime_ns, sha256: file.sha256.parse().ok()? })
    }

    /// Writes the record of `file` to `path`, whole or not at all.
    pub(crate) fn write(&self, path: &Path, file: &Path) -> Result<(), Error> {
        let wire = RecordFile {
            file: file.display().to_string(),
            bytes: self.bytes,
            mtime_ns: self.mtime_ns,
            sha256: self.sha256.to_string(),
        };
        write_toml(path, &wire)
    }
}

/// Writes a small TOML file so that a reader or a crash sees the old one or the new one.
pub(crate) fn write_toml(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let failed = |error: io::Error| Error::io("write", path)(error);
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(Error::io("make", folder))?;
    let text = toml::to_string(value).map_err(|error| failed(io::Error::other(error)))?;
    let mut file = tempfile::Builder::new()
        .prefix(".writing-")
        .tempfile_in(folder)
        .map_err(Error::io("write in", folder))?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

/// Nanoseconds since 1970: a coarser unit would miss a file changed within the same second.
fn mtime_ns(metadata: &Metadata) -> i64 {
    let since = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.and_then(|since| i64::try_from(since.as_nanos()).ok()).unwrap_or(0)
}

//! `models.lock.toml`: the sha256 of models that no catalogue pins, as first seen, and the first default that was used.
//!
//! In: the lock file in the data directory. Out: the pin of a name at a source; the default's name.
//! Never: a pin changed once it is there: only the user removes one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::Error as _;
use serde::{Deserialize, Serialize};

use crate::lock::NameLock;
use crate::{CancelFlag, Entry, Error, Sha256, record};

/// No model can have this name, so no pull contends for it.
const LOCK_NAME: &str = ".pins";

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PinFile {
    /// The model first used because nobody asked for another. A later Tandem may have another default; who has one that
    /// works keeps it.
    #[serde(skip_serializing_if = "Option::is_none")]
    default: Option<String>,
    #[serde(default)]
    model: Vec<PinTable>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PinTable {
    name: String,
    source: String,
    bytes: u64,
    sha256: String,
}

/// Returns where the pins are.
pub(crate) fn path(data: &Path) -> PathBuf {
    data.join("models.lock.toml")
}

/// Returns what the entry's file was when it was first pulled from its source.
pub(crate) fn read(data: &Path, entry: &Entry) -> Result<Option<Sha256>, Error> {
    let path = path(data);
    let source = entry.source.to_string();
    let pins = read_file(&path)?;
    let pin = pins.model.iter().find(|pin| pin.name == entry.name && pin.source == source);
    let sha256 = pin.map(|pin| pin.sha256.parse()).transpose();
    sha256.map_err(|reason| broken(&path, toml::de::Error::custom(reason)))
}

/// Returns the name of the default that was first used, if one was.
pub(crate) fn read_default(data: &Path) -> Result<Option<String>, Error> {
    Ok(read_file(&path(data))?.default)
}

/// Notes the name of the default that is used from here on, unless one is noted.
pub(crate) fn add_default(data: &Path, models: &Path, name: &str) -> Result<(), Error> {
    let path = path(data);
    let _lock = NameLock::acquire(models, LOCK_NAME, &mut || (), &CancelFlag::new())?;
    let mut pins = read_file(&path)?;
    if pins.default.is_some() {
        return Ok(());
    }
    pins.default = Some(name.to_owned());
    record::write_toml(&path, &pins)
}

/// Pins the entry's file to what was seen.
pub(crate) fn add(
    data: &Path,
    models: &Path,
    entry: &Entry,
    (bytes, sha256): (u64, Sha256),
) -> Result<(), Error> {
    let path = path(data);
    let _lock = NameLock::acquire(models, LOCK_NAME, &mut || (), &CancelFlag::new())?;
    let mut pins = read_file(&path)?;
    // A pin of the same name for another source is of an entry that the user has since changed.
    pins.model.retain(|pin| pin.name != entry.name);
    pins.model.push(PinTable {
        name: entry.name.clone(),
        source: entry.source.to_string(),
        bytes,
        sha256: sha256.to_string(),
    });
    record::write_toml(&path, &pins)
}

fn read_file(path: &Path) -> Result<PinFile, Error> {
    match fs::read_to_string(path) {
        Ok(text) => toml::from_str(&text).map_err(|error| broken(path, error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(PinFile::default()),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

fn broken(path: &Path, error: toml::de::Error) -> Error {
    Error::LockFile { path: path.to_owned(), source: Box::new(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_file_that_cannot_be_read_may_be_deleted() {
        let data = tempfile::tempdir().expect("a temp folder");
        let mut entry = Entry::local(Path::new("m"));
        let source = "hf:o/r/x.gguf@v1";
        entry.source = source.parse().expect("sound");
        let pin = format!("[[model]]\nname = \"m\"\nsource = \"{source}\"\nbytes = 1\n");
        for text in ["[[model]\n", &pin, &format!("{pin}sha256 = \"12\"\n")] {
            fs::write(path(data.path()), text).expect("written");
            let error = read(data.path(), &entry).expect_err("broken");
            assert!(error.to_string().contains("models.lock.toml"), "{error}");
            let hint = error.hint().expect("its user can delete it");
            assert!(hint.contains("delete") && hint.contains("models.lock.toml"), "{hint}");
        }
    }
}

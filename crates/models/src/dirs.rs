//! Where Tandem keeps its data and where the user keeps settings.
//!
//! In: `TANDEM_DATA_DIR`, `TANDEM_CONFIG_DIR`, else the XDG base directories.
//! Out: absolute paths; nothing is created here.
//! Source: XDG Base Directory Specification 0.8.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;

use crate::Error;

/// The data and the config directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dirs {
    data: PathBuf,
    config: PathBuf,
}

impl Dirs {
    /// Returns directories at the given places, whatever the environment says.
    #[must_use]
    pub fn new(data: impl Into<PathBuf>, config: impl Into<PathBuf>) -> Self {
        Self { data: data.into(), config: config.into() }
    }

    /// Returns the directories that the environment asks for.
    ///
    /// # Errors
    /// [`Error::NoHome`] when neither the variables nor a home directory are set: the user sets one.
    pub fn from_env() -> Result<Self, Error> {
        Self::from_variables(
            std::env::var_os("TANDEM_DATA_DIR").as_deref(),
            std::env::var_os("TANDEM_CONFIG_DIR").as_deref(),
        )
    }

    /// Returns the data directory.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Returns the config directory.
    #[must_use]
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Returns the path of the user's own catalogue, which need not exist.
    #[must_use]
    pub fn user_catalogue(&self) -> PathBuf {
        self.config.join("models.toml")
    }

    fn from_variables(data: Option<&OsStr>, config: Option<&OsStr>) -> Result<Self, Error> {
        let base = || etcetera::choose_base_strategy().map_err(|_| Error::NoHome);
        Ok(Self {
            data: place(data, || Ok(base()?.data_dir()))?,
            config: place(config, || Ok(base()?.config_dir()))?,
        })
    }
}

/// A variable set to nothing counts as unset, as the XDG specification says of its own.
fn place(variable: Option<&OsStr>, xdg: impl FnOnce() -> Result<PathBuf, Error>) -> Result<PathBuf, Error> {
    match variable {
        Some(dir) if !dir.is_empty() => std::path::absolute(dir).map_err(Error::io("find", Path::new(dir))),
        _ => Ok(xdg()?.join("tandem")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_wins_over_the_home_directory_and_becomes_absolute() {
        let dirs =
            Dirs::from_variables(Some("there/data".as_ref()), Some("/c".as_ref())).expect("both are set");
        assert!(dirs.data().is_absolute() && dirs.data().ends_with("there/data"));
        assert_eq!(dirs.user_catalogue(), Path::new("/c/models.toml"));
    }

    #[test]
    fn an_empty_variable_counts_as_unset() {
        let dirs = Dirs::from_variables(Some("".as_ref()), None).expect("a home is set in tests");
        assert!(dirs.data().ends_with("tandem"));
    }
}

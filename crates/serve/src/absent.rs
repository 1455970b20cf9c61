//! Where there are no Unix sockets yet: the same names, and each says so.
//!
//! Out: [`Error::NotYet`], after which the model is loaded in the process that wants it.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use engine::Engine;

use crate::{Error, HttpOptions, ModelFile};

/// Where a model's server would listen; there is none.
#[derive(Clone, Debug)]
pub struct Address(Infallible);

impl Address {
    /// Returns no address.
    ///
    /// # Errors
    /// [`Error::NotYet`].
    pub fn of(_: &ModelFile, _: Option<&OsStr>, _: &Path) -> Result<Self, Error> {
        Err(Error::NotYet)
    }

    /// Returns the model's short name.
    pub fn tag(&self) -> &str {
        match self.0 {}
    }
}

/// The right to serve a model; there is none.
#[derive(Debug)]
pub struct Claim(Infallible);

impl Claim {
    /// Takes nothing.
    ///
    /// # Errors
    /// [`Error::NotYet`].
    pub fn take(_: &Address) -> Result<Self, Error> {
        Err(Error::NotYet)
    }
}

/// What a server is started with.
#[expect(missing_docs, reason = "as where there are Unix sockets")]
pub struct ServeOptions {
    pub engine: Engine,
    pub model: ModelFile,
    pub claim: Option<Claim>,
    pub idle: Option<Duration>,
    pub http: Option<HttpOptions>,
}

/// Tells a server to leave; there is none.
#[derive(Clone, Debug, Default)]
pub struct StopFlag;

impl StopFlag {
    /// Returns a flag that is down.
    pub fn new() -> Self {
        Self
    }

    /// Raises the flag.
    pub fn raise(&self) {}
}

/// How a model's server is found, or started.
#[expect(missing_docs, reason = "as where there are Unix sockets")]
#[derive(Clone, Debug)]
pub struct Starter {
    pub model: ModelFile,
    pub address: Address,
    pub program: PathBuf,
    pub args: Vec<OsString>,
}

/// Serves nothing.
///
/// # Errors
/// [`Error::NotYet`].
pub fn serve(_: ServeOptions, _: &mut dyn FnMut(Option<SocketAddr>), _: &StopFlag) -> Result<(), Error> {
    Err(Error::NotYet)
}

/// Connects to nothing.
///
/// # Errors
/// [`Error::NotYet`].
pub fn connect_or_start(_: Starter) -> Result<Engine, Error> {
    Err(Error::NotYet)
}

/// Asks nobody.
///
/// # Errors
/// [`Error::NotYet`].
pub fn ask_status(_: &Address) -> Result<serde_json::Value, Error> {
    Err(Error::NotYet)
}

/// Stops nobody.
///
/// # Errors
/// [`Error::NotYet`].
pub fn ask_to_stop(_: &Address) -> Result<(), Error> {
    Err(Error::NotYet)
}

/// Detaches nothing.
///
/// # Errors
/// [`Error::NotYet`].
pub fn become_detached() -> Result<(), Error> {
    Err(Error::NotYet)
}

/// Returns no program.
///
/// # Errors
/// [`Error::NotYet`].
pub fn program_of_this_process() -> Result<PathBuf, Error> {
    Err(Error::NotYet)
}

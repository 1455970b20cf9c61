//! A model's name becomes a pinned file on disk; the only crate that fetches anything.
//!
//! In: a name (or a path), the catalogue and the user's `models.toml`.
//! Out: [`Installed`]: a file whose sha256 is known.
//! Never: a file under its final name whose size and sha256 were not checked; a fetch when
//! [`Fetch::Offline`] was asked for.
//! Thread: any; pulls of one model exclude each other across threads and processes.
//!
//! ```no_run
//! use models::{CancelFlag, Catalogue, Dirs, Fetch, Store, ensure};
//!
//! let dirs = Dirs::from_env()?;
//! let catalogue = Catalogue::load(&dirs)?;
//! let entry = catalogue.default_entry();
//! let store = Store::new(&dirs);
//! let installed = ensure(&store, entry, Fetch::Allowed, &mut |_| {}, &CancelFlag::new())?;
//! println!("{} {}", installed.sha256, installed.path.display());
//! # Ok::<(), models::Error>(())
//! ```

#![forbid(unsafe_code)]

mod adapter;
mod catalogue;
mod dirs;
mod entry;
mod error;
mod fetch;
mod lock;
mod pin;
mod progress;
mod record;
mod sha256;
mod source;
mod store;

pub use catalogue::Catalogue;
pub use dirs::Dirs;
pub use entry::{AdapterOf, Entry, FimTokens, Origin};
pub use error::Error;
pub use fetch::Tools;
pub use progress::{CancelFlag, Progress};
pub use sha256::Sha256;
pub use source::Source;
pub use store::{Fetch, Installed, Removed, Store, ensure};

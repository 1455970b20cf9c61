//! The folders of the workspace, and which settings count in them.
//!
//! In: what the editor says of its folders and settings, the `tandem.toml` of each folder. Out: the [`Settings`] of a
//! document; a sentence for what of them cannot be.
//! Never: reads what is not a file, or a file too large to be one of ours. Says the same twice.
//! Thread: main. It reads a file of a few lines when a session begins and when the file has changed.
//!
//! The editor's word counts more than the file's, and that more than the default. A document outside of all folders has the
//! editor's word alone.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::from_proto;
use crate::settings::{Layer, Settings};

/// The file's name; it lies in a folder's root.
pub(crate) const FILE: &str = "tandem.toml";
/// More than any `tandem.toml` has.
const N_MAX_FILE_BYTES: u64 = 256 << 10;

/// The folders.
#[derive(Default)]
pub(crate) struct Folders {
    /// What the editor said when the session began.
    begun_with: Layer,
    /// What the editor says everywhere.
    editor: Layer,
    /// What counts outside of all folders.
    outside: Settings,
    folders: Vec<Folder>,
    warnings: Warnings,
}

struct Folder {
    uri: String,
    path: PathBuf,
    editor: Layer,
    file: Layer,
    settings: Settings,
}

/// What cannot be, for the user, and what was said before of the same source.
#[derive(Default)]
struct Warnings {
    unsaid: Vec<String>,
    said: Vec<(String, String)>,
}

impl Folders {
    /// The editor has these folders from now on, too. One that is none of the machine's files has no settings of its own.
    pub(crate) fn add(&mut self, uris: &[String]) {
        for uri in uris {
            let Some(path) = from_proto::path(uri) else { continue };
            self.remove(std::slice::from_ref(uri));
            let mut folder = Folder {
                uri: uri.clone(),
                path,
                editor: Layer::default(),
                file: Layer::default(),
                settings: Settings::default(),
            };
            folder.read(&mut self.warnings);
            self.folders.push(folder);
        }
        self.count();
    }

    pub(crate) fn remove(&mut self, uris: &[String]) {
        self.folders.retain(|folder| !uris.contains(&folder.uri));
    }

    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.folders.iter().map(|folder| folder.path.clone()).collect()
    }

    pub(crate) fn uris(&self) -> Vec<String> {
        self.folders.iter().map(|folder| folder.uri.clone()).collect()
    }

    /// What the editor said when the session began; it may say more later, which counts more.
    pub(crate) fn begin(&mut self, options: &Value) {
        let (layer, wrongs) = Layer::from_editor(options);
        self.begun_with = layer;
        self.warnings.add("the editor's `initializationOptions`", &wrongs.join("; "));
        self.count();
    }

    /// The editor's settings are these from now on: everywhere, and in folders.
    pub(crate) fn configure(&mut self, everywhere: &Value, by_folder: &[(String, Value)]) {
        let mut wrongs = Vec::new();
        let mut read = |value: &Value| {
            let (layer, wrong) = Layer::from_editor(value);
            wrongs.extend(wrong);
            layer
        };
        self.editor = read(everywhere);
        for folder in &mut self.folders {
            let own = by_folder.iter().find(|(uri, _)| *uri == folder.uri);
            folder.editor = own.map(|(_, value)| read(value)).unwrap_or_default();
        }
        // What is said everywhere is said of each folder again.
        wrongs.sort();
        wrongs.dedup();
        self.warnings.add("the editor's settings", &wrongs.join("; "));
        self.count();
    }

    /// Reads the settings of the folders again whose file this is.
    pub(crate) fn file_changed(&mut self, uri: &str) {
        let path = from_proto::path(uri);
        for folder in &mut self.folders {
            if path.as_ref() == Some(&folder.path.join(FILE)) {
                folder.read(&mut self.warnings);
            }
        }
        self.count();
    }

    /// Returns what counts for a document.
    pub(crate) fn settings(&self, path: &Path) -> &Settings {
        let holds = self.folders.iter().filter(|folder| path.starts_with(&folder.path));
        let innermost = holds.max_by_key(|folder| folder.path.as_os_str().len());
        innermost.map_or(&self.outside, |folder| &folder.settings)
    }

    /// Returns whether ghost text is nowhere allowed.
    pub(crate) fn are_off(&self) -> bool {
        match self.folders.as_slice() {
            [] => !self.outside.enable,
            folders => folders.iter().all(|folder| !folder.settings.enable),
        }
    }

    /// Returns what the user should hear that was not said before.
    pub(crate) fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings.unsaid)
    }

    fn count(&mut self) {
        let everywhere = self.editor.clone().over(self.begun_with.clone());
        self.outside = everywhere.clone().settings();
        for folder in &mut self.folders {
            let layers = folder.editor.clone().over(everywhere.clone()).over(folder.file.clone());
            folder.settings = layers.settings();
        }
    }
}

impl Folder {
    /// Reads its file. One that cannot be read changes nothing: it may be half written.
    fn read(&mut self, warnings: &mut Warnings) {
        let path = self.path.join(FILE);
        let text = match read(&path) {
            Ok(text) => text.unwrap_or_default(),
            Err(error) => {
                return warnings.add(&path.display().to_string(), &format!("it cannot be read: {error}"));
            }
        };
        match Layer::from_toml(&text) {
            Ok((layer, wrongs)) => {
                self.file = layer;
                warnings.add(&path.display().to_string(), &wrongs.join("; "));
            }
            Err(error) => warnings.add(&path.display().to_string(), &format!("it is not TOML: {error}")),
        }
    }
}

impl Warnings {
    /// Takes what is wrong with a source; nothing, if all is well now.
    fn add(&mut self, source: &str, wrong: &str) {
        if self.said.iter().any(|(of, said)| of == source && said == wrong) {
            return;
        }
        self.said.retain(|(of, _)| of != source);
        if !wrong.is_empty() {
            self.said.push((source.to_owned(), wrong.to_owned()));
            self.unsaid.push(format!("{source}: {wrong}. That is left out; the rest counts."));
        }
    }
}

/// Returns a file's text, or nothing where there is none.
fn read(path: &Path) -> Result<Option<String>, std::io::Error> {
    use std::io::{Error, ErrorKind};

    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // Who opens a named pipe may wait for ever.
    if !metadata.is_file() {
        return Err(Error::other("it is not a file"));
    }
    let mut text = String::new();
    std::fs::File::open(path)?.take(N_MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > N_MAX_FILE_BYTES {
        return Err(Error::other("it is too long"));
    }
    Ok(Some(text))
}

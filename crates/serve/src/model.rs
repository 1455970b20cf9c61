//! Which model a server runs: a file, as the file system knows it.
//!
//! In: a path. Out: [`ModelFile`]: the same for every name of one file, another once the file is replaced.
//! Never: reads the file; hashing it is `models`' business.

use std::path::{Path, PathBuf};

use engine::KvType;

use crate::Error;

/// A model's file, its weights and how it is to be run.
#[derive(Clone, Debug)]
pub struct ModelFile {
    path: PathBuf,
    name: String,
    identity: String,
    n_ctx: Option<usize>,
    kv: KvType,
}

impl ModelFile {
    /// Returns what is known of the file at `path`, called `name` by humans.
    ///
    /// # Errors
    /// [`Error::Io`] when there is no such file: the user fixes the path.
    pub fn at(path: &Path, name: &str) -> Result<Self, Error> {
        let io = |source| Error::Io { action: "find", path: path.to_owned(), source };
        let path = path.canonicalize().map_err(io)?;
        let metadata = path.metadata().map_err(io)?;
        Ok(Self {
            identity: identity(&path, &metadata),
            path,
            name: name.to_owned(),
            n_ctx: None,
            kv: KvType::default(),
        })
    }

    /// Says how many tokens a sequence may have, where that is not the engine's default.
    #[must_use]
    pub fn with_n_ctx(self, n_ctx: Option<usize>) -> Self {
        Self { n_ctx, ..self }
    }

    /// Says how keys and values are stored, where that is not the engine's default.
    #[must_use]
    pub fn with_kv(self, kv: KvType) -> Self {
        Self { kv, ..self }
    }

    /// Returns the file's absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the name humans use.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns what tells this file, in this state, from every other on this machine.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Returns the most tokens a sequence may have, if it was said.
    pub fn n_ctx(&self) -> Option<usize> {
        self.n_ctx
    }

    /// Returns a short name of the file and of how it is run: two models mean two servers.
    pub(crate) fn tag(&self) -> String {
        let n_ctx = self.n_ctx.map_or_else(|| "default".to_owned(), |n| n.to_string());
        format!("{:016x}-{n_ctx}-{}", fnv1a(self.identity.as_bytes()), self.kv.name())
    }
}

#[cfg(unix)]
fn identity(_: &Path, metadata: &std::fs::Metadata) -> String {
    use std::os::unix::fs::MetadataExt as _;
    let (seconds, nanos) = (metadata.mtime(), metadata.mtime_nsec());
    format!("{}:{}:{}:{seconds}.{nanos:09}", metadata.dev(), metadata.ino(), metadata.len())
}

/// The standard library does not tell a file's number on Windows yet, so there a hard link is another model.
#[cfg(windows)]
fn identity(path: &Path, metadata: &std::fs::Metadata) -> String {
    use std::os::windows::fs::MetadataExt as _;
    let (created, written) = (metadata.creation_time(), metadata.last_write_time());
    format!("{}:{}:{created}:{written}", path.display(), metadata.len())
}

/// FNV-1a, 64 bits: the same in every build of every version, unlike the standard library's hasher. Nobody but the
/// owner can put a file into the folder where it matters.
/// Source: draft-eastlake-fnv, section 2.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_fnv_1a() {
        // The draft's test vectors.
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[cfg(unix)]
    #[test]
    fn every_name_of_a_file_means_the_same_model_and_a_replaced_file_another() {
        let dir = tempfile::tempdir().expect("a folder");
        let [file, link] = ["a.gguf", "b.gguf"].map(|name| dir.path().join(name));
        std::fs::write(&file, "weights").expect("written");
        std::os::unix::fs::symlink(&file, &link).expect("linked");
        let tag = |path: &Path| ModelFile::at(path, "m").expect("it is there").tag();
        let before = tag(&file);
        assert_eq!(before, tag(&link));
        std::fs::write(dir.path().join("new"), "WEIGHTS").expect("written");
        std::fs::rename(dir.path().join("new"), &file).expect("moved");
        assert_ne!(before, tag(&file));
        let wide = ModelFile::at(&file, "m").expect("it is there").with_n_ctx(Some(64));
        assert_ne!(wide.tag(), tag(&file));
    }
}

//! The work tree becomes a copy.
//!
//! In: the files that matter. Out: the same files elsewhere, and the ids of their bytes as copied.
//! Never: follows a link, or makes one that leads out of the copy.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, FileTimes, Metadata, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path};

use rustix::fs::OFlags;

use super::BaseFile;
use crate::Error;
use crate::error::io_error;
use crate::repo::{BlobId, FileKind, Repo, RepoPath};

/// Most files copied; a larger tree has something generated in it that should be ignored.
const MAX_FILES: usize = 200_000;
/// Most bytes copied.
const MAX_BYTES: u64 = 4 << 30;
/// Largest file a candidate may change; larger ones are copied but are no part of the base.
const MAX_BASE_FILE_BYTES: u64 = 8 << 20;

/// Copies what [`Repo::list_files`] names to `tree`, without what lies in `scratch`.
pub(super) fn copy_tree(
    repo: &Repo,
    scratch: &Path,
    tree: &Path,
) -> Result<BTreeMap<RepoPath, BaseFile>, Error> {
    let paths = repo.list_files()?;
    let too_large = Error::TooLarge { n_files: MAX_FILES, n_bytes: MAX_BYTES };
    if paths.len() > MAX_FILES {
        return Err(too_large);
    }
    let mut files = BTreeMap::new();
    let mut n_bytes = 0;
    for path in &paths {
        let from = repo.root().join(path);
        // A cache folder inside the work tree must not be copied into itself.
        if from.starts_with(scratch) {
            continue;
        }
        // The user may delete a file between the listing and here.
        let Ok(meta) = from.symlink_metadata() else {
            continue;
        };
        n_bytes += meta.len();
        if n_bytes > MAX_BYTES {
            return Err(too_large);
        }
        let to = tree.join(path);
        let folder = to.parent().unwrap_or(tree);
        fs::create_dir_all(folder).map_err(io_error("create", folder))?;
        match copy_one(&from, &to, path, &meta) {
            Ok(Some(file)) => {
                if let Some(path) = path.to_str().and_then(|path| RepoPath::new(path).ok()) {
                    files.insert(path, file);
                }
            }
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => {
                return Err(Error::Io { action: "copy", path: from, source });
            }
        }
    }
    Ok(files)
}

fn copy_one(from: &Path, to: &Path, path: &Path, meta: &Metadata) -> io::Result<Option<BaseFile>> {
    if meta.is_symlink() {
        let target = fs::read_link(from)?;
        if stays_inside(path, &target) {
            symlink(target, to)?;
        }
        return Ok(None);
    }
    if !meta.is_file() {
        return Ok(None);
    }
    let mode = meta.permissions().mode();
    let file = if meta.len() > MAX_BASE_FILE_BYTES {
        fs::copy(from, to)?;
        None
    } else {
        // Read first and hash what was read: the user may be typing.
        let bytes = read_no_follow(from)?;
        fs::write(to, &bytes)?;
        let kind = if mode & 0o100 == 0 { FileKind::Regular } else { FileKind::Executable };
        Some(BaseFile { blob: BlobId::of(&bytes), kind, n_bytes: bytes.len() as u64 })
    };
    // Read-only files become writable here: the rights that matter are on the user's own.
    fs::set_permissions(to, Permissions::from_mode(mode & 0o777 | 0o600))?;
    if let Ok(modified) = meta.modified() {
        File::options().write(true).open(to)?.set_times(FileTimes::new().set_modified(modified))?;
    }
    Ok(file)
}

fn read_no_follow(path: &Path) -> io::Result<Vec<u8>> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut file = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Returns whether a link at `path` with this target cannot lead out of the tree.
///
/// `..` is taken at the start only: after a name, it is the parent of what that name leads to, which may be a link.
fn stays_inside(path: &Path, target: &Path) -> bool {
    let mut depth = path.components().count().saturating_sub(1);
    let mut names: Vec<OsString> =
        path.parent().unwrap_or(Path::new("")).iter().map(OsString::from).collect();
    let mut has_name = false;
    for component in target.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if has_name || depth == 0 => return false,
            Component::ParentDir => {
                depth -= 1;
                names.pop();
            }
            Component::Normal(name) => {
                has_name = true;
                names.push(name.to_owned());
            }
            Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    // Nothing under .git is copied, and a link there would dangle.
    names.first().is_none_or(|name| !name.eq_ignore_ascii_case(".git"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_links_that_cannot_leave_are_kept() {
        for (path, target, expect) in [
            ("link", "src/a.py", true),
            ("a/b/link", "../../c", true),
            ("a/link", "./b", true),
            ("link", "/etc/passwd", false),
            ("link", "../x", false),
            ("a/link", "../../x", false),
            ("link", "dir/../x", false),
            ("link", ".git/config", false),
        ] {
            assert_eq!(stays_inside(Path::new(path), Path::new(target)), expect, "{path} -> {target}");
        }
    }
}

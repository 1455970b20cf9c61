//! Where a model's server listens: a socket in a folder that only its owner can open.
//!
//! In: a model's file, `XDG_RUNTIME_DIR`, the data directory. Out: paths of the socket and of its lock.
//! Never: a folder that others can open, however it came to be. On Windows that is one outside the user's profile; what
//! is in there Windows lets the user and its own administrators open, unless the user shares it.
//! Source: XDG Base Directory Specification 0.8 (`$XDG_RUNTIME_DIR`).

use std::ffi::OsStr;
use std::fs::{DirBuilder, Metadata};
use std::path::{Path, PathBuf};

use crate::{Error, ModelFile};

/// The paths that belong to the server of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    dir: PathBuf,
    tag: String,
}

impl Address {
    /// Returns the address of the model's server, and makes the folder if there is none.
    ///
    /// `runtime_dir` is `XDG_RUNTIME_DIR`; without one that is usable the folder is in `data_dir`.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::NotPrivate`]: the user fixes rights or room.
    pub fn of(model: &ModelFile, runtime_dir: Option<&OsStr>, data_dir: &Path) -> Result<Self, Error> {
        let runtime_dir = runtime_dir.map(Path::new).filter(|dir| dir.is_absolute() && is_ours(dir));
        let dir = match runtime_dir {
            Some(dir) => dir.join("tandem"),
            None => data_dir.join("run"),
        };
        make_private(&dir)?;
        Ok(Self { dir, tag: model.tag() })
    }

    /// Returns the socket's path.
    pub fn socket(&self) -> PathBuf {
        self.dir.join(format!("{}.sock", self.tag))
    }

    /// Returns the path of the file that the server holds locked while it lives.
    pub(crate) fn lock(&self) -> PathBuf {
        self.dir.join(format!("{}.lock", self.tag))
    }

    /// Returns the path of the file that names the server's process. Not the lock itself: what is locked, Windows lets
    /// nobody else read.
    pub(crate) fn pid(&self) -> PathBuf {
        self.dir.join(format!("{}.pid", self.tag))
    }

    /// Returns the model's short name, for a log file.
    pub fn tag(&self) -> &str {
        &self.tag
    }
}

fn make_private(dir: &Path) -> Result<(), Error> {
    let io = |action| move |source| Error::Io { action, path: dir.to_owned(), source };
    if let Some(parent) = dir.parent() {
        DirBuilder::new().recursive(true).create(parent).map_err(io("make"))?;
    }
    #[cfg(unix)]
    let made = std::os::unix::fs::DirBuilderExt::mode(&mut DirBuilder::new(), 0o700).create(dir);
    #[cfg(windows)]
    let made = DirBuilder::new().create(dir);
    match made {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(io("make")(error)),
        _ => {}
    }
    // Not followed: a link of another's making could point anywhere.
    let metadata = dir.symlink_metadata().map_err(io("look at"))?;
    let is_private = metadata.is_dir() && is_private(dir, &metadata);
    if is_private { Ok(()) } else { Err(Error::NotPrivate { dir: dir.to_owned() }) }
}

#[cfg(unix)]
fn is_private(_: &Path, metadata: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    metadata.uid() == own_uid() && metadata.mode() & 0o077 == 0
}

#[cfg(windows)]
fn is_private(dir: &Path, _: &Metadata) -> bool {
    let profile = std::env::home_dir().and_then(|profile| profile.canonicalize().ok());
    // Where it really is: on the way there may be a link.
    profile.zip(dir.canonicalize().ok()).is_some_and(|(profile, dir)| dir.starts_with(profile))
}

/// Returns whether it is a folder that this user may be given; what is made in it is judged by itself.
fn is_ours(dir: &Path) -> bool {
    #[cfg(unix)]
    let is_owner = |metadata: &Metadata| std::os::unix::fs::MetadataExt::uid(metadata) == own_uid();
    #[cfg(windows)]
    let is_owner = |_: &Metadata| true;
    dir.metadata().is_ok_and(|metadata| metadata.is_dir() && is_owner(&metadata))
}

/// Returns the user this process works for.
#[cfg(unix)]
pub(crate) fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(dir: &Path) -> ModelFile {
        let file = dir.join("m.gguf");
        std::fs::write(&file, "weights").expect("written");
        ModelFile::at(&file, "m").expect("it is there")
    }

    #[cfg(unix)]
    #[test]
    fn the_folder_is_the_owners_alone_and_one_that_is_not_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("a folder");
        let model = model(dir.path());
        let address = Address::of(&model, None, &dir.path().join("data")).expect("it can be made");
        let folder = address.socket().parent().expect("it has one").to_owned();
        assert_eq!(folder.metadata().expect("it is there").permissions().mode() & 0o777, 0o700);
        assert_eq!(folder, dir.path().join("data/run"));

        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
        let refused = Address::of(&model, None, &dir.path().join("data"));
        assert!(matches!(refused, Err(Error::NotPrivate { .. })));
    }

    /// The temporary folder is in the user's profile; the folder that Windows shares between all users is not.
    #[cfg(windows)]
    #[test]
    fn the_folder_is_in_the_profile_and_one_that_is_not_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let model = model(dir.path());
        let address = Address::of(&model, None, &dir.path().join("data")).expect("it can be made");
        assert_eq!(address.socket().parent(), Some(&*dir.path().join("data").join("run")));

        let public = tempfile::tempdir_in(std::env::var_os("ProgramData").expect("there is one"));
        let refused = Address::of(&model, None, public.expect("all may write there").path());
        assert!(matches!(refused, Err(Error::NotPrivate { .. })), "{refused:?}");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_in_place_of_the_folder_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let model = model(dir.path());
        std::fs::create_dir(dir.path().join("elsewhere")).expect("made");
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), dir.path().join("tandem")).expect("linked");
        let runtime = Some(dir.path().as_os_str());
        assert!(matches!(Address::of(&model, runtime, dir.path()), Err(Error::NotPrivate { .. })));
    }

    #[test]
    fn the_runtime_folder_comes_first_and_one_that_is_not_there_is_passed_over() {
        let dir = tempfile::tempdir().expect("a folder");
        let model = model(dir.path());
        let [runtime, data] = ["runtime", "data"].map(|name| dir.path().join(name));
        let parent = |runtime: &Path| {
            let address = Address::of(&model, Some(runtime.as_os_str()), &data).expect("it can be made");
            address.socket().parent().expect("it has one").to_owned()
        };
        assert_eq!(parent(&runtime), data.join("run"));
        assert_eq!(parent(Path::new("relative")), data.join("run"));
        std::fs::create_dir(&runtime).expect("made");
        assert_eq!(parent(&runtime), runtime.join("tandem"));
    }
}

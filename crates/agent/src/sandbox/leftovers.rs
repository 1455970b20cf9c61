//! Sandboxes whose process died without removing them.
//!
//! In: the folder all sandboxes are in. Out: the same without dead ones.
//! Never: removes a sandbox whose lock is held; follows a link.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use super::processes;

/// The file in a sandbox that its process holds a lock on.
pub(super) const LOCK: &str = "lock";

/// A folder without a lock file may belong to a process that is just making it; after this it is dead.
const MAKING: Duration = Duration::from_secs(60);

/// Removes the sandboxes below `scratch` that no living process holds, and kills what they left running.
///
/// Returns how many it removed; what cannot be removed is left for the next time.
pub fn sweep(scratch: &Path) -> usize {
    let Ok(entries) = fs::read_dir(scratch) else {
        return 0;
    };
    let mut n_removed = 0;
    for entry in entries.flatten() {
        let folder = entry.path();
        if !is_sandbox_name(&entry.file_name()) || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        // Held until the folder is gone, so that two sweeps do not meet in it.
        let Some(_lock) = lock_if_dead(&folder) else {
            continue;
        };
        processes::kill_marked(&folder);
        match remove_tree(&folder) {
            Ok(()) => n_removed += 1,
            Err(error) => tracing::warn!(folder = %folder.display(), %error, "dead sandbox not removed"),
        }
    }
    n_removed
}

/// Returns whether this is a name `make_folder` gives: the user may have pointed us at a folder with other things.
fn is_sandbox_name(name: &OsStr) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    name.to_str()
        .and_then(|name| name.split_once('-'))
        .is_some_and(|(pid, time)| is_number(pid) && is_number(time))
}

/// Returns the lock, or nothing to lock where there is none, if the folder's process is dead.
fn lock_if_dead(folder: &Path) -> Option<Option<File>> {
    match File::open(folder.join(LOCK)) {
        Ok(lock) => match lock.try_lock() {
            Ok(()) => Some(Some(lock)),
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => None,
        },
        Err(_) => {
            let age = folder.metadata().and_then(|meta| meta.modified()).ok()?.elapsed().ok()?;
            (age > MAKING).then_some(None)
        }
    }
}

/// Removes a folder with all in it, also where a command took away the right to.
pub(super) fn remove_tree(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(_) => {
            make_removable(folder)?;
            fs::remove_dir_all(folder)
        }
    }
}

fn make_removable(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            make_removable(&entry.path())?;
        }
    }
    Ok(())
}

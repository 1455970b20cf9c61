//! Every process of a sandbox, also those that left their group.
//!
//! In: a sandbox's folder, which all its processes carry in their environment. Out: none of them is left.
//! Never: kills by a number alone; a process is held by a descriptor and looked at again before it is killed.
//! Source: pidfd_open(2); proc(5) on `environ`. Other systems than Linux kill the process group only.

use std::path::Path;

/// Kills the processes that carry this sandbox's mark.
#[cfg(target_os = "linux")]
pub(super) fn kill_marked(folder: &Path) {
    // A process may fork while we look: look again until nobody is found, but not forever.
    for _ in 0..20 {
        if kill_round(folder) == 0 {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    tracing::warn!(folder = %folder.display(), "processes of a sandbox keep coming back");
}

/// Other systems do not show a process's environment.
#[cfg(not(target_os = "linux"))]
pub(super) fn kill_marked(_folder: &Path) {}

#[cfg(target_os = "linux")]
fn kill_round(folder: &Path) -> usize {
    use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

    let Ok(entries) = std::fs::read_dir("/proc") else {
        return 0;
    };
    let mut n_killed = 0;
    for entry in entries.flatten() {
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let Some(pid) = (number > 0).then(|| Pid::from_raw(number)).flatten() else {
            continue;
        };
        if !is_marked(number, folder) {
            continue;
        }
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else {
            continue;
        };
        // The number may have gone to another process before the descriptor was opened.
        if is_marked(number, folder) && pidfd_send_signal(&process, Signal::KILL).is_ok() {
            n_killed += 1;
        }
    }
    n_killed
}

#[cfg(target_os = "linux")]
fn is_marked(number: i32, folder: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;

    // Empty for the dead and unreadable for other users' processes.
    let Ok(environ) = std::fs::read(format!("/proc/{number}/environ")) else {
        return false;
    };
    environ.split(|byte| *byte == 0).any(|variable| {
        let value = variable
            .strip_prefix(super::environment::MARK.as_bytes())
            .and_then(|rest| rest.strip_prefix(b"="));
        value == Some(folder.as_os_str().as_bytes())
    })
}

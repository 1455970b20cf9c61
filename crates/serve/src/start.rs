//! Finds the server of a model, or starts it.
//!
//! In: an address and how to start the program. Out: an open connection, an [`Engine`] over it.
//! Never: waits for ever; hands the server this process's terminal, open files, or the HTTP key. (On Windows it inherits
//! the handles that this process inherited, until `CommandExt::inherit_handles` is stable: rust-lang/rust#146407.)
//! Thread: the caller's; `reap` waits for a started server, so that it leaves no zombie.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use engine::Engine;
use serde_json::Value;

use crate::client::{Client, Connection};
use crate::socket::{self, Socket};
use crate::wire::{Ask, Call, Reply, Tell};
use crate::{Address, Error, ModelFile, frame};

/// How long a server may take to load its model: the largest take a minute from a slow disk.
const START_TIMEOUT: Duration = Duration::from_secs(180);
/// How often a server that is being started is looked for.
const POLL: Duration = Duration::from_millis(10);
/// A server that has just left, or lost a race, is started this often at most.
const N_MAX_STARTS: usize = 3;
/// Most bytes kept of what a server says that does not start.
const N_MAX_REASON_BYTES: usize = 4096;

/// Variables a server needs: to find its files, its libraries and its language. `TANDEM_*` but the key come too.
/// Windows opens no socket without `SYSTEMROOT`.
const KEPT_VARIABLES: &[&str] = &[
    "APPDATA",
    "HOME",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "LOCALAPPDATA",
    "PATH",
    "RUST_BACKTRACE",
    "SYSTEMDRIVE",
    "SYSTEMROOT",
    "TEMP",
    "TMP",
    "TMPDIR",
    "USER",
    "USERNAME",
    "USERPROFILE",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
];
/// The variable that holds the HTTP key, which a server without HTTP has no use for.
const KEY_VARIABLE: &str = "TANDEM_API_KEY";

/// How a model's server is found, or started.
#[derive(Clone, Debug)]
pub struct Starter {
    /// The model.
    pub model: ModelFile,
    /// Where its server listens.
    pub address: Address,
    /// The program that serves it.
    pub program: PathBuf,
    /// What the program is started with; it must end up in [`serve`](crate::serve), detached.
    pub args: Vec<OsString>,
}

/// Returns an engine whose model a server runs: the one that is there, or a new one.
///
/// # Errors
/// [`Error::Version`], [`Error::OtherUser`], [`Error::Start`], [`Error::Slow`] and [`Error::Io`], with hints for the
/// user; [`Error::Engine`] for a model file that cannot be used.
pub fn connect_or_start(starter: Starter) -> Result<Engine, Error> {
    let connection = starter.reach()?;
    let (path, n_ctx) = (starter.model.path().to_owned(), connection.welcome.n_ctx);
    let client = Client::new(starter, connection);
    Ok(Engine::linked(&path, n_ctx, Arc::new(client))?)
}

/// Returns what the server says about itself.
///
/// # Errors
/// [`Error::NotServed`] when there is none; [`Error::Lost`].
pub fn ask_status(address: &Address) -> Result<Value, Error> {
    match ask(address, Ask::Status)? {
        Tell::Status(status) => Ok(status),
        _ => Err(Error::Lost { reason: "it did not tell its status".to_owned() }),
    }
}

/// Tells the server to leave, whatever its version; what it works on is cancelled.
///
/// # Errors
/// As [`ask_status`].
pub fn ask_to_stop(address: &Address) -> Result<(), Error> {
    ask(address, Ask::Shutdown).map(|_| ())
}

/// Makes this process the leader of its own session, so that a closed terminal or editor does not end it. On Windows
/// whoever started it has seen to that.
///
/// # Errors
/// [`Error::Start`] when it is the leader of a process group already.
pub fn become_detached() -> Result<(), Error> {
    #[cfg(unix)]
    rustix::process::setsid().map_err(|errno| Error::Start { reason: io::Error::from(errno).to_string() })?;
    Ok(())
}

/// Returns the running program, even if its file has been replaced since: client and server are of one version.
///
/// # Errors
/// [`Error::Io`] where the system does not tell.
pub fn program_of_this_process() -> Result<PathBuf, Error> {
    let path = Path::new("/proc/self/exe");
    // Not where anybody could make such a file: on Windows it would be one of the current drive.
    if cfg!(target_os = "linux") && path.exists() {
        return Ok(path.to_owned());
    }
    std::env::current_exe().map_err(|source| Error::Io { action: "find", path: path.to_owned(), source })
}

impl Starter {
    /// Returns a connection to the model's server, which is started if there is none.
    pub(crate) fn reach(&self) -> Result<Connection, Error> {
        let started_at = Instant::now();
        let deadline = started_at + START_TIMEOUT;
        let mut n_starts = 0;
        let mut ended: Option<Receiver<String>> = None;
        loop {
            if let Some(stream) = call(&self.address)? {
                match Connection::open(stream, &self.model, deadline) {
                    // It was just leaving, or could not load its model.
                    Err(Error::Lost { .. }) if Instant::now() < deadline => {}
                    result => return result,
                }
            } else if ended.is_none() && n_starts < N_MAX_STARTS {
                n_starts += 1;
                ended = Some(self.start()?);
            }
            match ended.as_ref().map(Receiver::try_recv) {
                // It found that another serves already.
                Some(Ok(reason)) if reason.is_empty() && n_starts < N_MAX_STARTS => ended = None,
                Some(Ok(reason)) => return Err(Error::Start { reason }),
                Some(Err(_)) | None => {}
            }
            if Instant::now() >= deadline {
                return Err(Error::Slow { waited: started_at.elapsed() });
            }
            std::thread::sleep(POLL);
        }
    }

    /// Starts the program. The channel tells how it ended, should it end: nothing where it has no complaint.
    fn start(&self) -> Result<Receiver<String>, Error> {
        let io = |source| Error::Io { action: "start", path: self.program.clone(), source };
        let mut command = Command::new(&self.program);
        command.args(&self.args).current_dir("/");
        detach(&mut command);
        // What it says is read here for as long as it starts: a pipe of its own, never our terminal.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.env_clear().envs(std::env::vars_os().filter(|(name, _)| is_kept(name)));
        let child = command.spawn().map_err(io)?;
        tracing::info!(pid = child.id(), "the engine's process was started");
        let (sender, receiver) = crossbeam_channel::bounded(1);
        std::thread::Builder::new()
            .name("reap".to_owned())
            .spawn(move || {
                // It fails only when nobody waits any more.
                let _ = sender.send(reason_of_end(child));
            })
            .map_err(io)?;
        Ok(receiver)
    }
}

/// On Unix the program detaches itself ([`become_detached`]), and is called by its name, not by a path in `/proc`.
#[cfg(unix)]
fn detach(command: &mut Command) {
    use std::os::unix::process::CommandExt as _;
    command.arg0("agent");
}

/// It gets a console of its own that nobody sees, so that a closed terminal does not end it.
/// Source: "Process Creation Flags" of the Windows API.
#[cfg(windows)]
fn detach(command: &mut Command) {
    use std::os::windows::process::CommandExt as _;
    const CREATE_NEW_PROCESS_GROUP: u32 = 0x200;
    const CREATE_NO_WINDOW: u32 = 0x0800_0000;
    command.creation_flags(CREATE_NEW_PROCESS_GROUP | CREATE_NO_WINDOW);
}

fn is_kept(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    // Windows writes its own as `Path` and `SystemRoot`, and finds them in any case.
    let name = if cfg!(windows) { name.to_ascii_uppercase() } else { name.to_owned() };
    KEPT_VARIABLES.contains(&&*name) || name.starts_with("TANDEM_") && name != KEY_VARIABLE
}

/// Waits for a server's end and returns its complaint.
fn reason_of_end(mut child: Child) -> String {
    let mut said = Vec::new();
    if let Some(mut stderr) = child.stderr.take() {
        // Whatever it says is read, so that it never waits for us; the end of it is kept.
        let mut buffer = [0; 1024];
        while let Ok(n_read @ 1..) = stderr.read(&mut buffer) {
            said.extend_from_slice(&buffer[..n_read]);
            let n_over = said.len().saturating_sub(N_MAX_REASON_BYTES);
            said.drain(..n_over);
        }
    }
    match child.wait() {
        Ok(status) if status.success() => String::new(),
        Ok(status) if said.trim_ascii().is_empty() => status.to_string(),
        Ok(_) => String::from_utf8_lossy(&said).trim().trim_start_matches("error: ").to_owned(),
        Err(error) => error.to_string(),
    }
}

/// Calls at an address; `None` when nobody is there.
fn call(address: &Address) -> Result<Option<Socket>, Error> {
    let socket = address.socket();
    let stream = match socket::connect(&socket) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(source) => return Err(Error::Io { action: "call", path: socket, source }),
    };
    #[cfg(target_os = "linux")]
    {
        let listener = rustix::net::sockopt::socket_peercred(&stream);
        if !listener.is_ok_and(|listener| listener.uid.as_raw() == crate::address::own_uid()) {
            return Err(Error::OtherUser { path: socket });
        }
    }
    Ok(Some(stream))
}

/// Asks one thing that needs no hello.
fn ask(address: &Address, ask: Ask) -> Result<Tell, Error> {
    let lost = |error: io::Error| Error::Lost { reason: error.to_string() };
    let mut stream = call(address)?.ok_or(Error::NotServed)?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(lost)?;
    frame::write(&mut stream, &Call { id: 1, ask }).map_err(lost)?;
    match frame::read::<Reply>(&mut stream).map_err(lost)? {
        Some(reply) => Ok(reply.tell),
        None => Err(Error::Lost { reason: "it ended".to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_gets_what_it_needs_and_not_the_key() {
        for (name, expected) in [
            ("PATH", true),
            ("TANDEM_ISA", true),
            ("TANDEM_API_KEY", false),
            ("AWS_SECRET_ACCESS_KEY", false),
            ("SSH_AUTH_SOCK", false),
            ("Path", cfg!(windows)),
            ("SystemRoot", cfg!(windows)),
            ("Tandem_Api_Key", false),
        ] {
            assert_eq!(is_kept(OsStr::new(name)), expected, "{name}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_server_that_does_not_start_tells_why_and_one_that_is_not_needed_nothing() {
        let check = |script: &str, expected: &str| {
            let child = Command::new("sh").args(["-c", script]).stderr(Stdio::piped()).spawn();
            assert_eq!(reason_of_end(child.expect("there is a shell")), expected, "{script}");
        };
        check("exit 0", "");
        check("echo 'error: no room' >&2; exit 7", "no room");
        check("exit 7", "exit status: 7");
        check("kill -9 $$", "signal: 9 (SIGKILL)");
    }
}

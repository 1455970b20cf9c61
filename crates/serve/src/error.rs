//! What keeps a client from a server, or a server from its work, one variant per thing a caller can do about it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A failure of the server or on the way to it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused a file, a folder or a socket; the user can fix rights or room.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was being done, as a verb.
        action: &'static str,
        /// The file, folder or socket.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Others than the user can reach the folder of the sockets; the user can change its rights.
    #[error("{} must be a folder that only you can open", dir.display())]
    NotPrivate {
        /// The folder.
        dir: PathBuf,
    },
    /// Whoever listens, or calls, is not the user.
    #[error("the other end of {} belongs to another user", path.display())]
    OtherUser {
        /// The socket.
        path: PathBuf,
    },
    /// The server is of another version; the user can stop it.
    #[error("the server (process {pid}) is Tandem {theirs}, this is Tandem {ours}")]
    Version {
        /// The server's version and protocol.
        theirs: String,
        /// This program's.
        ours: String,
        /// The server's process.
        pid: u32,
    },
    /// The server could not start; its own words say why.
    #[error("the server did not start: {reason}")]
    Start {
        /// The server's own words, or how it ended.
        reason: String,
    },
    /// The server did not get ready in time; it may still be loading.
    #[error("the server was not ready after {} s", waited.as_secs())]
    Slow {
        /// How long it was waited for.
        waited: Duration,
    },
    /// The connection ended, or what came was no frame of the protocol.
    #[error("the connection to the server was lost: {reason}")]
    Lost {
        /// What happened.
        reason: String,
    },
    /// An address others could reach; the user can name one on loopback.
    #[error("{0} is not a loopback address")]
    NotLoopback(SocketAddr),
    /// HTTP is to be served without a key, or with one nobody could send.
    #[error("HTTP needs a key of 1 to 256 visible ASCII characters")]
    NoKey,
    /// A server runs for this model already.
    #[error("process {pid} serves this model already")]
    Served {
        /// The server's process.
        pid: u32,
    },
    /// A line of a trace cannot be used.
    #[error("{}, line {line}: {reason}", path.display())]
    Trace {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// No server runs for this model.
    #[error("no server runs for this model")]
    NotServed,
    /// The model's file cannot be used; its own error says who can fix it.
    #[error(transparent)]
    Engine(#[from] engine::Error),
}

impl Error {
    /// Returns what the user can do about it, if anything.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Io { source, .. } => match source.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                    Some("make room on the disk, or set TANDEM_DATA_DIR to another one")
                }
                std::io::ErrorKind::AddrInUse => {
                    Some("another program uses this address; choose another port")
                }
                std::io::ErrorKind::InvalidInput => {
                    Some("the path may be too long for a socket: set XDG_RUNTIME_DIR to a short one")
                }
                std::io::ErrorKind::NotFound => Some("check the path"),
                _ => Some("check the rights of the folder; `--in-process` does without a server"),
            },
            Self::NotPrivate { .. } if cfg!(windows) => Some(
                "set XDG_RUNTIME_DIR to a folder in your user profile; `--in-process` does without a server",
            ),
            Self::NotPrivate { .. } => Some("`chmod 700` it, or remove it: it is made anew"),
            Self::OtherUser { .. } => {
                Some("remove the socket, or set XDG_RUNTIME_DIR to a folder of your own")
            }
            Self::Version { .. } => {
                Some("`agent serve --stop` ends the other one, and this one takes over at its next start")
            }
            Self::Start { .. } | Self::Slow { .. } => {
                Some("`agent serve` in a terminal shows what happens; `--in-process` does without a server")
            }
            Self::NotLoopback(_) => {
                Some("use 127.0.0.1:PORT or [::1]:PORT; for other machines put a proxy of your own before it")
            }
            Self::NoKey => Some("set TANDEM_API_KEY, or say `--api-key KEY`"),
            Self::Trace { .. } => Some("the lines before it are sound: `head -n` cuts the trace off there"),
            Self::NotServed => Some("`agent serve` starts one"),
            Self::Engine(source) => source.hint(),
            Self::Lost { .. } | Self::Served { .. } => None,
        }
    }
}

//! The right to serve a model: one process at a time, taken over safely from one that died.
//!
//! In: an address. Out: [`Claim`]: a lock held for life and the listener, gone when it is dropped.
//! Never: removes a socket whose server lives: only who holds the lock touches the socket.
//! Thread: any; of two processes that claim at once, one wins.

use std::fs::{self, File, TryLockError};

use crate::socket::{self, Socket};
use crate::{Address, Error};

/// The right to serve, and the socket clients call at.
#[derive(Debug)]
pub struct Claim {
    address: Address,
    listener: Socket,
    /// Locked until this process ends, however it ends.
    _lock: File,
}

impl Claim {
    /// Takes the address, or says who has it.
    ///
    /// # Errors
    /// [`Error::Served`] when another process has it; [`Error::Io`] when the system refuses: rights, room, or a path
    /// too long for a socket.
    pub fn take(address: &Address) -> Result<Self, Error> {
        let io = |action, path| move |source| Error::Io { action, path, source };
        let path = address.lock();
        // Never removed: a lock on a file that another process has unlinked would exclude nobody.
        let mut options = File::options();
        options.create(true).write(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let lock = options.open(&path).map_err(io("open", path.clone()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Served { pid: pid_of_server(address) }),
            Err(TryLockError::Error(source)) => return Err(io("lock", path)(source)),
        }
        fs::write(address.pid(), std::process::id().to_string()).map_err(io("write", address.pid()))?;

        let socket = address.socket();
        // Whoever made it is dead: its lock is ours.
        match fs::remove_file(&socket) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io("remove", socket)(error));
            }
            _ => {}
        }
        let listener = socket::listen(&socket).map_err(io("listen at", socket.clone()))?;
        #[cfg(unix)]
        fs::set_permissions(&socket, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .map_err(io("protect", socket))?;
        Ok(Self { address: address.clone(), listener, _lock: lock })
    }

    /// Returns the socket's listener.
    pub(crate) fn listener(&self) -> &Socket {
        &self.listener
    }

    /// Returns what was claimed.
    pub fn address(&self) -> &Address {
        &self.address
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Before the lock goes: afterwards the socket may be another's.
        let _ = fs::remove_file(self.address.socket());
    }
}

/// It says so for a human only; 0 while the other has not written it yet.
fn pid_of_server(address: &Address) -> u32 {
    fs::read_to_string(address.pid()).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ModelFile;

    fn address(dir: &std::path::Path) -> Address {
        fs::write(dir.join("m.gguf"), "weights").expect("written");
        let model = ModelFile::at(&dir.join("m.gguf"), "m").expect("it is there");
        Address::of(&model, None, &dir.join("data")).expect("it can be made")
    }

    #[test]
    fn one_process_has_it_and_the_next_gets_it_when_it_is_gone() {
        let dir = tempfile::tempdir().expect("a folder");
        let address = address(dir.path());
        let first = Claim::take(&address).expect("nobody has it");
        let second = Claim::take(&address);
        assert!(matches!(second, Err(Error::Served { pid }) if pid == std::process::id()), "{second:?}");
        assert!(socket::connect(&address.socket()).is_ok(), "the loser left the winner's socket alone");
        drop(first);
        assert!(!address.socket().exists());
        Claim::take(&address).expect("it is free again");
    }

    #[test]
    fn a_socket_that_a_dead_server_left_is_taken_over() {
        let dir = tempfile::tempdir().expect("a folder");
        let address = address(dir.path());
        // A killed process leaves the file; closing the listener does not remove it.
        drop(socket::listen(&address.socket()).expect("it can be bound"));
        assert!(socket::connect(&address.socket()).is_err(), "it is stale");
        let _claim = Claim::take(&address).expect("the stale socket is no obstacle");
        socket::connect(&address.socket()).expect("it is alive now");
    }
}

//! A Unix socket, which Windows has too (since its version 1803): bytes both ways between two processes of one machine.
//!
//! In: a path. Out: [`Socket`], which one thread reads while another writes or shuts it down.
//! Never: anything of the network: I-13 is kept here by naming one domain.
//! Source: `AF_UNIX` of Windows: there as on Unix, who cannot open the folder cannot call.

use std::io;
use std::path::Path;

pub(crate) use socket2::Socket;
use socket2::{Domain, SockAddr, Type};

/// Most callers that wait to be taken. The system lets fewer wait where its own bound is lower (`somaxconn`).
const N_MAX_WAITING: i32 = 4096;

/// Makes a socket at `path`, where there is no file yet, and listens at it.
pub(crate) fn listen(path: &Path) -> io::Result<Socket> {
    let socket = new()?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(N_MAX_WAITING)?;
    Ok(socket)
}

/// Calls who listens at `path`. That nobody does is `NotFound` or `ConnectionRefused`.
pub(crate) fn connect(path: &Path) -> io::Result<Socket> {
    let socket = new()?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket)
}

fn new() -> io::Result<Socket> {
    // No program started later inherits it.
    Socket::new(Domain::UNIX, Type::STREAM, None)
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read as _, Write as _};
    use std::net::Shutdown;

    use super::*;

    #[test]
    fn one_thread_reads_while_another_writes_and_shuts_it_down() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("s");
        let listener = listen(&path).expect("it is free");
        let mut caller = connect(&path).expect("somebody listens");
        let (mut called, _) = listener.accept().expect("somebody called");
        let mut reader = caller.try_clone().expect("a second handle");
        let reading = std::thread::Builder::new().name("reader".to_owned()).spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).map(|_| text)
        });
        // Answered by what is read meanwhile: were the reader in the way of the writer, this would stand still.
        caller.write_all(b"ping").expect("it is open");
        let mut heard = [0; 4];
        called.read_exact(&mut heard).expect("it was sent");
        called.write_all(&heard).expect("it is open");
        called.shutdown(Shutdown::Both).expect("it is open");
        let read = reading.expect("a thread").join().expect("no panic");
        assert_eq!(read.expect("an end is no error"), "ping");
    }

    #[test]
    fn that_nobody_listens_is_told_by_its_kind() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("s");
        let check = |case: &str| {
            let kind = connect(&path).expect_err("nobody is there").kind();
            assert!(matches!(kind, ErrorKind::NotFound | ErrorKind::ConnectionRefused), "{case}: {kind:?}");
        };
        check("no file");
        drop(listen(&path).expect("it is free"));
        check("a file whose process is gone");
        let long = dir.path().join("s".repeat(200));
        assert_eq!(listen(&long).expect_err("too long").kind(), ErrorKind::InvalidInput);
    }
}

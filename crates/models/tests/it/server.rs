//! A small HTTP server on loopback that serves byte ranges, and stalls when told to.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

/// What the server was asked for: a path and the first byte wanted.
pub(crate) type Asked = (String, Option<usize>);

#[derive(Default)]
struct State {
    files: HashMap<String, Vec<u8>>,
    /// Bytes of a body after which the server sends nothing more, but keeps the line open.
    stall_after: Option<usize>,
    /// Bytes of a body after which the server hangs up.
    cut_after: Option<usize>,
    asked: Vec<Asked>,
    n_stalled: usize,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// Serves until the test's process ends.
pub(crate) struct Server {
    shared: Arc<Shared>,
    pub(crate) url: String,
}

impl Server {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let shared = Arc::new(Shared::default());
        let served = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&served);
                // An error here is a client that left, as killed ones do.
                std::thread::spawn(move || serve(&stream, &shared));
            }
        });
        Self { shared, url }
    }

    pub(crate) fn put(&self, path: &str, bytes: &[u8]) {
        self.state().files.insert(path.to_owned(), bytes.to_owned());
    }

    /// From now on a body stops after so many bytes; `None` also lets the stalled ones go on.
    pub(crate) fn stall_after(&self, n_bytes: Option<usize>) {
        self.state().stall_after = n_bytes;
        self.shared.changed.notify_all();
    }

    /// From now on the server hangs up after so many bytes of a body.
    pub(crate) fn cut_after(&self, n_bytes: usize) {
        self.state().cut_after = Some(n_bytes);
    }

    /// Waits until some body has stalled.
    pub(crate) fn wait_for_stall(&self) {
        let timeout = std::time::Duration::from_secs(60);
        let is_moving = |state: &mut State| state.n_stalled == 0;
        let (_state, waited) =
            self.shared.changed.wait_timeout_while(self.state(), timeout, is_moving).expect("no panic");
        assert!(!waited.timed_out(), "nobody downloads");
    }

    /// Returns what was asked for among paths that end so.
    pub(crate) fn asked(&self, suffix: &str) -> Vec<Asked> {
        self.state().asked.iter().filter(|(path, _)| path.ends_with(suffix)).cloned().collect()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.state.lock().expect("no panic while locked")
    }
}

fn serve(stream: &TcpStream, shared: &Shared) -> Option<()> {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next()?.ok()?;
    let path = request.split(' ').nth(1)?.to_owned();
    let mut range = None;
    for line in lines.map_while(Result::ok).take_while(|line| !line.is_empty()) {
        let line = line.to_lowercase();
        if let Some(asked) = line.strip_prefix("range: bytes=") {
            let (start, end) = asked.split_once('-')?;
            range = Some((start.parse::<usize>().ok()?, end.parse::<usize>().ok()));
        }
    }
    let file = {
        let mut state = shared.state.lock().expect("no panic while locked");
        state.asked.push((path.clone(), range.map(|(start, _)| start)));
        state.files.get(&path).cloned()
    };
    let mut out = stream;
    let Some(file) = file else {
        return out
            .write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            .ok();
    };
    let start = range.map_or(0, |(start, _)| start);
    if start >= file.len() {
        return out
            .write_all(
                b"HTTP/1.1 416 Range Not Satisfiable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            )
            .ok();
    }
    let end = range.and_then(|(_, end)| end).map_or(file.len(), |end| (end + 1).min(file.len()));
    let body = file.get(start..end)?;
    let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
    let kind = if path.ends_with('/') { "text/html" } else { "application/octet-stream" };
    let etag = file.iter().fold(7_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\ncontent-range: bytes \
         {start}-{}/{}\r\netag: \"{etag:x}\"\r\nx-repo-commit: 0123abcd\r\nconnection: close\r\n\r\n",
        body.len(),
        end - 1,
        file.len(),
    );
    out.write_all(head.as_bytes()).ok()?;
    let mut state = shared.state.lock().expect("no panic while locked");
    if let Some(n_bytes) = state.cut_after.filter(|n_bytes| *n_bytes < body.len()) {
        drop(state);
        return out.write_all(body.get(..n_bytes)?).ok();
    }
    if let Some(n_bytes) = state.stall_after.filter(|n_bytes| *n_bytes < body.len()) {
        drop(state);
        out.write_all(body.get(..n_bytes)?).ok()?;
        state = shared.state.lock().expect("no panic while locked");
        state.n_stalled += 1;
        shared.changed.notify_all();
        state = shared.changed.wait_while(state, |state| state.stall_after.is_some()).ok()?;
        state.n_stalled -= 1;
        drop(state);
        return out.write_all(body.get(n_bytes..)?).ok();
    }
    drop(state);
    out.write_all(body).ok()
}

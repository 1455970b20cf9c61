//! Writes a trace while requests end.
//!
//! In: requests that have ended, from any thread. Out: whole lines in a file, within a bound.
//! Never: lets a request wait for the disk: what comes faster than it can be written is dropped and counted; fails one
//! because the disk is full.
//! Thread: `trace` writes.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, TrySendError};
use engine::{Ended, Recorder};

use super::{Line, TraceEnd, TraceHeader, TracedRequest};
use crate::Error;

/// Most requests that wait to be written.
const N_MAX_WAITING: usize = 256;
/// Bytes kept free for the last line.
const N_END_BYTES: u64 = 512;

/// A trace that is being written; its last line comes when it is [finished](TraceWriter::finish) or dropped.
#[derive(Debug)]
pub struct TraceWriter {
    began: Instant,
    to_write: Sender<Message>,
    n_dropped: Arc<AtomicU64>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

enum Message {
    Request(Box<TracedRequest>),
    End,
}

impl TraceWriter {
    /// Writes the first line to an empty file, which is to be its owner's alone; it will have `n_max_bytes` at most.
    ///
    /// # Errors
    /// [`Error::Io`]: the user makes room, or names another file.
    pub fn start(file: File, path: &Path, header: TraceHeader, n_max_bytes: u64) -> Result<Self, Error> {
        let io = |action| move |source| Error::Io { action, path: path.to_owned(), source };
        let n_dropped = Arc::<AtomicU64>::default();
        let mut sink = Sink {
            path: path.to_owned(),
            file,
            n_bytes: 0,
            n_max_bytes,
            end: TraceEnd::default(),
            n_dropped: Arc::clone(&n_dropped),
        };
        sink.write(&Line::Header(header)).map_err(io("write the trace"))?;
        let (to_write, messages) = crossbeam_channel::bounded(N_MAX_WAITING);
        let thread = std::thread::Builder::new()
            .name("trace".to_owned())
            .spawn(move || sink.run(&messages))
            .map_err(io("start the thread of"))?;
        Ok(Self { began: Instant::now(), to_write, n_dropped, thread: Mutex::new(Some(thread)) })
    }

    /// Writes what waits and the last line. Requests that end later are not in the trace.
    pub fn finish(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // It fails where the thread has ended, which is as good.
            let _ = self.to_write.send(Message::End);
            let _ = thread.join();
        }
    }
}

impl Drop for TraceWriter {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Recorder for TraceWriter {
    fn record(&self, ended: Ended<'_>) {
        let request = Box::new(TracedRequest::new(ended, self.began));
        if let Err(TrySendError::Full(_)) = self.to_write.try_send(Message::Request(request)) {
            self.n_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The file, and how far it is.
struct Sink {
    path: PathBuf,
    file: File,
    n_bytes: u64,
    n_max_bytes: u64,
    end: TraceEnd,
    n_dropped: Arc<AtomicU64>,
}

impl Sink {
    fn run(mut self, messages: &Receiver<Message>) {
        while let Ok(Message::Request(request)) = messages.recv() {
            self.add(*request);
        }
        self.end.n_dropped = self.n_dropped.load(Ordering::Relaxed);
        let end = Line::End(self.end.clone());
        // A disk that was full has been warned of.
        if let Err(error) = self.write(&end) {
            tracing::debug!(%error, "the trace has no last line");
        }
    }

    fn add(&mut self, request: TracedRequest) {
        if self.end.stopped.is_some() {
            self.end.n_left_out += 1;
            return;
        }
        let written = self.write(&Line::Request(Box::new(request.into())));
        let Err(error) = written else {
            self.end.n_requests += 1;
            return;
        };
        self.end.n_left_out += 1;
        tracing::warn!(path = %self.path.display(), %error, "the trace ends here; requests go on without it");
        self.end.stopped = Some(error.to_string());
    }

    /// Writes one line, or nothing of it.
    fn write(&mut self, line: &Line) -> std::io::Result<()> {
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        let n_kept = if matches!(line, Line::Request(_)) { N_END_BYTES } else { 0 };
        let n_bytes = self.n_bytes + bytes.len() as u64;
        if n_bytes + n_kept > self.n_max_bytes {
            return Err(std::io::Error::other(format!("the limit of {} bytes is reached", self.n_max_bytes)));
        }
        if let Err(error) = self.file.write_all(&bytes) {
            // A part of a line would make the whole trace unreadable.
            let _ = self.file.set_len(self.n_bytes);
            let _ = std::io::Seek::seek(&mut self.file, std::io::SeekFrom::End(0));
            return Err(error);
        }
        self.n_bytes = n_bytes;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use engine::{Asked, Outcome, Priority, ScoreRequest};

    use super::super::Trace;
    use super::super::tests::{ended, header, two_answers};
    use super::*;

    fn score() -> Asked {
        let tokens = vec![engine::TokenId(1)];
        Asked::Score(ScoreRequest {
            tokens,
            from: 1,
            n_top: 0,
            asked: Default::default(),
            priority: Priority::Background,
        })
    }

    #[test]
    fn what_ends_after_a_trace_is_not_in_it_and_does_not_wait() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a.trace");
        let writer = start(&path, 10_000);
        writer.record(ended(Outcome::Scored(None), score(), Instant::now()));
        writer.finish();
        writer.record(ended(Outcome::Scored(None), score(), Instant::now()));
        drop(writer);
        let trace = Trace::read(&path).expect("it is whole");
        assert_eq!(trace.requests.len(), 1);
        assert_eq!(trace.end, Some(TraceEnd { n_requests: 1, ..TraceEnd::default() }));
    }

    #[test]
    fn a_trace_ends_at_its_limit_with_whole_lines_and_says_so() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a.trace");
        let n_max_bytes = 3000;
        let writer = start(&path, n_max_bytes);
        for _ in 0..100 {
            writer.to_write.send(Message::Request(Box::new(two_answers()))).expect("it is there");
        }
        drop(writer);
        assert!(path.metadata().expect("it is there").len() <= n_max_bytes);
        let trace = Trace::read(&path).expect("its lines are whole");
        let end = trace.end.expect("it has its end");
        assert_eq!(end.n_requests, trace.requests.len() as u64);
        assert_eq!((end.n_requests > 0, end.n_requests + end.n_left_out), (true, 100));
        assert_eq!(end.stopped.as_deref(), Some("the limit of 3000 bytes is reached"));
    }

    #[test]
    fn what_cannot_be_taken_at_once_is_dropped_and_counted() {
        // Nobody writes, so nothing is taken.
        let (to_write, messages) = crossbeam_channel::bounded(N_MAX_WAITING);
        let n_dropped = Arc::<AtomicU64>::default();
        let writer = TraceWriter {
            began: Instant::now(),
            to_write,
            n_dropped: Arc::clone(&n_dropped),
            thread: Mutex::default(),
        };
        for _ in 0..N_MAX_WAITING + 3 {
            writer.record(ended(Outcome::Scored(None), score(), Instant::now()));
        }
        drop(writer);
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a.trace");
        sink(&path, File::create(&path).expect("it can be made"), n_dropped).run(&messages);
        let text = std::fs::read_to_string(&path).expect("it is there");
        let end = text.lines().last().expect("it has its end");
        assert_eq!(end, "{\"end\":{\"n_requests\":256,\"n_dropped\":3,\"n_left_out\":0,\"stopped\":null}}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_ends_the_trace_and_no_request() {
        let path = Path::new("/dev/full");
        let file = File::options().write(true).open(path).expect("it is there");
        let mut sink = sink(path, file, Arc::default());
        for _ in 0..3 {
            sink.add(two_answers());
        }
        assert_eq!((sink.n_bytes, sink.end.n_requests, sink.end.n_left_out), (0, 0, 3));
        assert!(sink.end.stopped.as_ref().is_some_and(|why| why.contains("No space left")), "{:?}", sink.end);
    }

    fn start(path: &Path, n_max_bytes: u64) -> TraceWriter {
        let file = File::create(path).expect("it can be made");
        TraceWriter::start(file, path, header(), n_max_bytes).expect("it takes a line")
    }

    fn sink(path: &Path, file: File, n_dropped: Arc<AtomicU64>) -> Sink {
        let end = TraceEnd::default();
        Sink { path: path.to_owned(), file, n_bytes: 0, n_max_bytes: 1 << 20, end, n_dropped }
    }
}

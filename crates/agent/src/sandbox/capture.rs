//! A command's output, however long, in bounded memory.
//!
//! In: bytes as they come. Out: the first and the last of them as text.
//! Thread: one that reads, one that looks.

use std::collections::VecDeque;
use std::io::{PipeReader, Read};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Kept from the start: what the command is and its first failure.
const HEAD_BYTES: usize = 16 << 10;
/// Kept from the end: summaries and tracebacks.
const TAIL_BYTES: usize = 48 << 10;

/// What is kept of the output so far.
#[derive(Default)]
pub(super) struct Capture {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    n_dropped: usize,
}

/// A thread that reads a pipe to its end.
pub(super) struct Reading {
    capture: Arc<Mutex<Capture>>,
    ended: Receiver<()>,
}

impl Reading {
    /// Starts to read.
    pub(super) fn start(mut pipe: PipeReader) -> std::io::Result<Self> {
        let capture = Arc::new(Mutex::new(Capture::default()));
        let (end, ended) = channel();
        let shared = Arc::clone(&capture);
        std::thread::Builder::new().name("test-output".to_owned()).spawn(move || {
            let mut buffer = vec![0; 16 << 10];
            loop {
                match pipe.read(&mut buffer) {
                    Ok(0) | Err(_) => break,
                    Ok(n_read) => {
                        shared.lock().unwrap_or_else(PoisonError::into_inner).push(&buffer[..n_read])
                    }
                }
            }
            let _nobody_waits = end.send(());
        })?;
        Ok(Self { capture, ended })
    }

    /// Returns the text; waits for the pipe's end at most so long, for someone else may hold it open.
    pub(super) fn finish(self, patience: Duration) -> String {
        let _ended_or_not = self.ended.recv_timeout(patience);
        self.capture.lock().unwrap_or_else(PoisonError::into_inner).text()
    }
}

impl Capture {
    fn push(&mut self, bytes: &[u8]) {
        let n_head = bytes.len().min(HEAD_BYTES - self.head.len());
        let (head, rest) = bytes.split_at(n_head);
        self.head.extend_from_slice(head);
        self.tail.extend(rest);
        let n_over = self.tail.len().saturating_sub(TAIL_BYTES);
        self.tail.drain(..n_over);
        self.n_dropped += n_over;
    }

    fn text(&self) -> String {
        let mut bytes = self.head.clone();
        if self.n_dropped > 0 {
            bytes.extend_from_slice(format!("\n[{} bytes left out]\n", self.n_dropped).as_bytes());
        }
        let (front, back) = self.tail.as_slices();
        bytes.extend_from_slice(front);
        bytes.extend_from_slice(back);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_output_keeps_its_start_and_its_end() {
        let mut capture = Capture::default();
        capture.push(b"start");
        for _ in 0..100 {
            capture.push(&[b'x'; 3000]);
        }
        capture.push(b"end");
        let text = capture.text();
        assert!(text.starts_with("startxxx") && text.ends_with("xxxend"), "both ends are kept");
        assert!(text.len() < HEAD_BYTES + TAIL_BYTES + 64, "{} bytes", text.len());
        let n_dropped = 300_008 - HEAD_BYTES - TAIL_BYTES;
        assert!(text.contains(&format!("[{n_dropped} bytes left out]")));
    }

    #[test]
    fn short_output_is_kept_whole() {
        let mut capture = Capture::default();
        capture.push("ü\n".as_bytes());
        capture.push(b"\xff");
        assert_eq!(capture.text(), "ü\n\u{fffd}");
    }
}

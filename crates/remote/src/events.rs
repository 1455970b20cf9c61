//! Server-sent events, read as they arrive.
//!
//! In: bytes, cut anywhere. Out: the data of each event.
//! Never: keeps more than a bound of an event that does not end.
//! Source: the HTML standard, 9.2.6, "Interpreting an event stream"; `event`, `id` and `retry` mean nothing here.

/// Largest event: an answer's piece is a few hundred bytes.
const N_MAX_BYTES: usize = 1 << 20;

/// Reads one stream.
#[derive(Default)]
pub(crate) struct Events {
    /// The line that has not ended yet.
    line: Vec<u8>,
    /// The last byte was a CR, so a LF now belongs to it.
    after_cr: bool,
    data: String,
    has_data: bool,
}

/// An event has no end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Endless;

impl Events {
    /// Takes more bytes and returns the data of the events that end in them.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Vec<String>, Endless> {
        let mut events = Vec::new();
        for &byte in bytes {
            let is_line_end = match byte {
                b'\n' if self.after_cr => false,
                b'\n' | b'\r' => true,
                _ => {
                    self.line.push(byte);
                    false
                }
            };
            self.after_cr = byte == b'\r';
            if is_line_end {
                self.end_line(&mut events);
            }
            if self.line.len() + self.data.len() > N_MAX_BYTES {
                return Err(Endless);
            }
        }
        Ok(events)
    }

    /// Takes the stream's end; an event that lacks only its empty line is one, since some servers leave that out.
    pub(crate) fn finish(mut self) -> Option<String> {
        let mut events = Vec::new();
        self.end_line(&mut events);
        self.end_event(&mut events);
        events.pop()
    }

    fn end_line(&mut self, events: &mut Vec<String>) {
        let line = String::from_utf8_lossy(&self.line).into_owned();
        self.line.clear();
        if line.is_empty() {
            self.end_event(events);
        } else if let Some(data) = line.strip_prefix("data:") {
            if self.has_data {
                self.data.push('\n');
            }
            self.data.push_str(data.strip_prefix(' ').unwrap_or(data));
            self.has_data = true;
        }
    }

    fn end_event(&mut self, events: &mut Vec<String>) {
        if std::mem::take(&mut self.has_data) {
            events.push(std::mem::take(&mut self.data));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], n_at_once: usize) -> Vec<String> {
        let mut reader = Events::default();
        let mut events: Vec<String> =
            bytes.chunks(n_at_once).flat_map(|chunk| reader.push(chunk).expect("short")).collect();
        events.extend(reader.finish());
        events
    }

    #[test]
    fn events_are_the_same_however_they_are_cut() {
        let check = |stream: &str, expected: &[&str]| {
            for n_at_once in [1, 2, 3, 7, 1000] {
                assert_eq!(read(stream.as_bytes(), n_at_once), expected, "{stream:?} by {n_at_once}");
            }
        };
        check("data: {\"a\":1}\n\ndata: [DONE]\n\n", &["{\"a\":1}", "[DONE]"]);
        check("data:a\r\n\r\ndata:  b\r\n\r\n", &["a", " b"]);
        check("data: a\r\rdata: b\r\r", &["a", "b"]);
        check(": a comment\nevent: x\nid: 1\ndata: one\ndata: two\n\n\n\n", &["one\ntwo"]);
        check("data: é\n\n", &["é"]);
        check("data: no empty line", &["no empty line"]);
        check("nonsense\n\n", &[]);
        check("", &[]);
    }

    #[test]
    fn an_event_without_an_end_is_given_up() {
        let mut reader = Events::default();
        let chunk = vec![b'x'; 1 << 16];
        let n_pushed = (0..64).take_while(|_| reader.push(&chunk).is_ok()).count();
        assert!(n_pushed <= N_MAX_BYTES >> 16);
        let mut reader = Events::default();
        let lines = "data: x\n".repeat(1 << 13);
        assert!((0..64).any(|_| reader.push(lines.as_bytes()).is_err()), "many lines are one event too");
    }
}

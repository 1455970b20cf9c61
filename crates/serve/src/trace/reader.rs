//! Reads a trace whole.
//!
//! In: a file. Out: [`Trace`], or the line that is wrong and why.
//! Never: quotes the file in an error, which may hold source text; trusts a line's length.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

use engine::Asked;
use serde_json::Value;

use super::{FORMAT, Line, TraceEnd, TraceHeader, TracedRequest};
use crate::Error;

/// Most bytes of a line: what a frame may have.
const N_MAX_LINE_BYTES: u64 = 64 << 20;

/// A trace.
#[derive(Clone, Debug)]
pub struct Trace {
    /// What it was recorded with.
    pub header: TraceHeader,
    /// Its requests with the line each stands in, in the order in which they came.
    pub requests: Vec<(usize, TracedRequest)>,
    /// How it ended; `None` where its process was killed.
    pub end: Option<TraceEnd>,
}

impl Trace {
    /// Reads a trace.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Trace`]: the user names another file, or cuts it off before the line that is named.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let io = |source| Error::Io { action: "read the trace", path: path.to_owned(), source };
        let wrong = |line, reason: String| Error::Trace { path: path.to_owned(), line, reason };
        let mut file = BufReader::new(File::open(path).map_err(io)?);
        let (mut header, mut requests, mut end) = (None, Vec::new(), None);
        let mut bytes = Vec::new();
        for line_no in 1.. {
            bytes.clear();
            let n_read =
                file.by_ref().take(N_MAX_LINE_BYTES).read_until(b'\n', &mut bytes).map_err(io)? as u64;
            if n_read == 0 {
                break;
            }
            let line = parse(&bytes).map_err(|reason| wrong(line_no, reason))?;
            match (line, &header) {
                (Line::Header(line), None) => header = Some(line),
                (_, None) => return Err(wrong(line_no, "a trace begins with its header".to_owned())),
                (Line::Header(_), Some(_)) => return Err(wrong(line_no, "a second header".to_owned())),
                (_, Some(_)) if end.is_some() => {
                    return Err(wrong(line_no, "something after the trace's end".to_owned()));
                }
                (Line::End(line), Some(_)) => end = Some(line),
                (Line::Request(line), Some(_)) => {
                    let request = TracedRequest::from(*line);
                    check(&request).map_err(|reason| wrong(line_no, reason))?;
                    requests.push((line_no, request));
                }
            }
        }
        let header = header.ok_or_else(|| wrong(1, "the file is empty".to_owned()))?;
        requests.sort_by_key(|(_, request)| request.arrived);
        Ok(Self { header, requests, end })
    }
}

/// Returns a line, or what is wrong with it.
fn parse(bytes: &[u8]) -> Result<Line, String> {
    if !bytes.ends_with(b"\n") {
        return Err(if bytes.len() as u64 == N_MAX_LINE_BYTES {
            format!("the line is longer than {N_MAX_LINE_BYTES} bytes")
        } else {
            "the line is cut short".to_owned()
        });
    }
    let line = serde_json::from_slice::<Line>(bytes);
    let line = line.map_err(|error| match other_format(bytes) {
        Some(format) => format!("a trace of format {format}; this program reads format {FORMAT}"),
        // serde_json's words may quote the line: its place says enough.
        None => format!("not understood at byte {}", error.column()),
    })?;
    match line {
        Line::Header(header) if header.format != FORMAT => {
            Err(format!("a trace of format {}; this program reads format {FORMAT}", header.format))
        }
        line => Ok(line),
    }
}

/// Returns the format that a header names which is not ours.
fn other_format(bytes: &[u8]) -> Option<u64> {
    let line: Value = serde_json::from_slice(bytes).ok()?;
    line["header"]["format"].as_u64().filter(|format| *format != u64::from(FORMAT))
}

/// Says what would make no sense to run.
fn check(request: &TracedRequest) -> Result<(), String> {
    match &request.asked {
        Asked::Generate { n_answers, .. } if request.enough_after.len() != *n_answers => {
            Err(format!("{n_answers} answers, of which {} had a reader", request.enough_after.len()))
        }
        Asked::Generate { .. } | Asked::Score(_) => Ok(()),
    }
}

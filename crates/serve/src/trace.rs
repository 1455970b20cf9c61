//! A record of requests that can be run again: what was asked, when, and what came of it.
//!
//! In: requests that have ended. Out: a file, a JSON object a line; the same requests, read back.
//! Never: unless its user asks for it: a trace holds the source text of every prompt and answer, as ids and as text
//! (I-9). Nobody but its owner may read the file.
//!
//! The first line is `{"header": …}`, each further one `{"request": …}`, the last one `{"end": …}` unless the process
//! was killed. Requests and answers stand there as they stand in frames; all times are microseconds.

mod reader;
mod writer;

use std::time::{Duration, Instant};

use engine::{Asked, Ended, Engine, Generation, KvType, Outcome};
use serde::{Deserialize, Serialize};

use crate::model::fnv1a;
use crate::wire::{self, from_wire, micros, to_wire};

pub use reader::Trace;
pub use writer::TraceWriter;

/// The version of the form; another one is not understood.
const FORMAT: u32 = 1;

/// What a trace was recorded with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceHeader {
    format: u32,
    /// The program's version.
    pub version: String,
    /// The model's name.
    pub model: String,
    /// The sha256 of its file, in hex.
    pub sha256: String,
    /// The size of its file.
    pub n_bytes: u64,
    /// The instructions that computed.
    pub isa: String,
    /// How keys and values were stored, by [`KvType::name`].
    pub kv: String,
    /// Most tokens of a sequence.
    pub n_ctx: usize,
}

impl TraceHeader {
    /// Returns the header for requests to an engine that has loaded the model with this name, sha256 and size.
    pub fn new(engine: &Engine, kv: KvType, model: &str, sha256: String, n_bytes: u64) -> Self {
        Self {
            format: FORMAT,
            version: wire::VERSION.to_owned(),
            model: model.to_owned(),
            sha256,
            n_bytes,
            isa: engine::isa_name().to_owned(),
            kv: kv.name().to_owned(),
            n_ctx: engine.n_ctx(),
        }
    }
}

/// A request of a trace.
#[derive(Clone, Debug)]
pub struct TracedRequest {
    /// When it came, from the trace's beginning.
    pub arrived: Duration,
    /// When it ended, from the trace's beginning.
    pub ended: Duration,
    /// How long after it came it was cancelled, if it was.
    pub cancelled_after: Option<Duration>,
    /// How many bytes of each answer its caller had seen when it had enough, if it had.
    pub enough_after: Vec<Option<usize>>,
    /// What was asked.
    pub asked: Asked,
    /// What came of it.
    pub outcome: TracedOutcome,
    /// Pre-emptions until then, since the engine's start.
    pub n_overtaken: u64,
}

/// What came of a request.
#[derive(Clone, Debug)]
pub enum TracedOutcome {
    /// Answers, in their order.
    Generated(Vec<Generation>),
    /// A hash of all scores' bits; none when cancelled.
    Scored(Option<String>),
    /// No answer; the error's words.
    Failed(String),
}

impl TracedRequest {
    /// Returns a request that has ended in a trace that began at `began`.
    fn new(ended: Ended<'_>, began: Instant) -> Self {
        Self {
            arrived: ended.arrived.saturating_duration_since(began),
            ended: began.elapsed(),
            cancelled_after: ended.cancelled.map(|at| at.saturating_duration_since(ended.arrived)),
            enough_after: ended.enough_after,
            asked: ended.asked,
            outcome: TracedOutcome::new(ended.outcome),
            n_overtaken: ended.n_overtaken,
        }
    }
}

impl TracedOutcome {
    /// Returns what came of a request, to keep or to compare.
    pub fn new(outcome: Outcome<'_>) -> Self {
        match outcome {
            Outcome::Generated(answers) => Self::Generated(answers.to_vec()),
            Outcome::Scored(scores) => Self::Scored(scores.map(hash)),
            Outcome::Failed(error) => Self::Failed(error.to_string()),
        }
    }
}

/// Returns a hash in which every bit of the scores counts.
fn hash(scores: &[engine::Score]) -> String {
    let mut bytes = Vec::new();
    let mut push = |bits: u32| bytes.extend(bits.to_le_bytes());
    for score in scores {
        push(score.token.0);
        push(score.logprob.to_bits());
        score
            .top
            .iter()
            .for_each(|(token, logprob)| [token.0, logprob.to_bits()].into_iter().for_each(&mut push));
        score.asked.iter().for_each(|logprob| push(logprob.to_bits()));
    }
    format!("{:016x}", fnv1a(&bytes))
}

/// How a trace ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceEnd {
    /// Requests in the trace.
    pub n_requests: u64,
    /// Requests that ended faster than they could be written.
    pub n_dropped: u64,
    /// Requests that came after the trace had stopped.
    pub n_left_out: u64,
    /// Why it stopped before its time, if it did.
    pub stopped: Option<String>,
}

/// A line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Header(TraceHeader),
    Request(Box<RequestLine>),
    End(TraceEnd),
}

#[derive(Debug, Serialize, Deserialize)]
struct RequestLine {
    arrived_us: u64,
    ended_us: u64,
    cancelled_after_us: Option<u64>,
    enough_after: Vec<Option<usize>>,
    asked: AskedLine,
    outcome: OutcomeLine,
    n_overtaken: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum AskedLine {
    Generate(Box<wire::Generate>),
    Score(wire::Score),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OutcomeLine {
    Generated(Vec<wire::Generated>),
    Scored(Option<String>),
    Failed(String),
}

impl From<TracedRequest> for RequestLine {
    fn from(request: TracedRequest) -> Self {
        Self {
            arrived_us: micros(request.arrived),
            ended_us: micros(request.ended),
            cancelled_after_us: request.cancelled_after.map(micros),
            enough_after: request.enough_after,
            asked: match request.asked {
                Asked::Generate { request, n_answers } => {
                    AskedLine::Generate(Box::new(to_wire::generate(*request, n_answers)))
                }
                Asked::Score(request) => AskedLine::Score(to_wire::score(request)),
            },
            outcome: match request.outcome {
                TracedOutcome::Generated(answers) => {
                    OutcomeLine::Generated(answers.into_iter().map(to_wire::generated).collect())
                }
                TracedOutcome::Scored(hash) => OutcomeLine::Scored(hash),
                TracedOutcome::Failed(error) => OutcomeLine::Failed(error),
            },
            n_overtaken: request.n_overtaken,
        }
    }
}

impl From<RequestLine> for TracedRequest {
    fn from(line: RequestLine) -> Self {
        Self {
            arrived: Duration::from_micros(line.arrived_us),
            ended: Duration::from_micros(line.ended_us),
            cancelled_after: line.cancelled_after_us.map(Duration::from_micros),
            enough_after: line.enough_after,
            asked: match line.asked {
                AskedLine::Generate(request) => Asked::Generate {
                    n_answers: request.n_answers,
                    request: Box::new(from_wire::generate(*request)),
                },
                AskedLine::Score(request) => Asked::Score(from_wire::score(request)),
            },
            outcome: match line.outcome {
                OutcomeLine::Generated(answers) => {
                    TracedOutcome::Generated(answers.into_iter().map(from_wire::generated).collect())
                }
                OutcomeLine::Scored(hash) => TracedOutcome::Scored(hash),
                OutcomeLine::Failed(error) => TracedOutcome::Failed(error),
            },
            n_overtaken: line.n_overtaken,
        }
    }
}

#[cfg(test)]
mod tests;

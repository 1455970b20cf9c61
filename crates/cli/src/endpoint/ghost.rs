//! Ghost text from an endpoint's model, for who says so: `agent lsp --endpoint URL`, `agent complete --endpoint URL`.
//!
//! In: the two flags, and the key from the environment. Out: [`EndpointModel`], and the limits that suit it.
//! Never: an endpoint from a variable or a file. Ghost text sends source text while its user types, and a variable set for
//! `agent fix` must not turn the keys of an editor into traffic.
//! Thread: the completion thread, or the command's.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use clap::Args;
use complete::text_model::{Continuation, End, Question, TextModel, Unavailable};
use complete::{Options, Statistics};
use engine::{CancelToken, Sampling};
use remote::{Answer, Client, CompletionRequest, Endpoint, Error, InfillRequest, Limits, Stop};

use super::{READABLE, variable, with_key};
use crate::failure::Failure;

/// Most bytes before the cursor that are sent: about 2000 tokens, of which a server with a prefix cache reads the last few.
const N_MAX_PREFIX_BYTES: usize = 8192;
/// Most bytes after it. They stand behind the cursor's line in most prompts, and so are read again with every key.
const N_MAX_AFTER_BYTES: usize = 1024;
/// How long nobody types before an endpoint elsewhere is asked: most keys come sooner after the last one. It is not felt
/// beside the way there and back.
const PAUSE: Duration = Duration::from_millis(75);

/// Which endpoint, and which of its models.
#[derive(Args, Clone, Debug)]
pub(crate) struct GhostEndpointArgs {
    /// Take ghost text from an OpenAI-compatible endpoint with /v1/completions, and load no model: the source text around
    /// the cursor goes there. Only this flag says so, TANDEM_ENDPOINT does not; the key comes from TANDEM_ENDPOINT_KEY
    #[arg(long, value_name = "URL", conflicts_with_all = ["model", "kv", "in_process"])]
    endpoint: Option<String>,
    /// Model of the endpoint, if it serves several
    #[arg(long, value_name = "NAME", requires = "endpoint")]
    endpoint_model: Option<String>,
}

impl GhostEndpointArgs {
    /// Returns the endpoint's model, if one is wanted; nothing is sent yet.
    pub(crate) fn choose(&self) -> Result<Option<EndpointModel>, Failure> {
        let Some(url) = &self.endpoint else { return Ok(None) };
        let endpoint = with_key(Endpoint::parse(url)?, &variable)?;
        Ok(Some(EndpointModel::new(endpoint, self.endpoint_model.clone())))
    }
}

/// An endpoint's model as one that goes on with a text.
pub(crate) struct EndpointModel {
    client: Client,
    /// As named, else found out when it is first asked.
    model: RefCell<Option<String>>,
    form: Cell<Form>,
    reach: Cell<Reach>,
}

impl EndpointModel {
    fn new(endpoint: Endpoint, model: Option<String>) -> Self {
        // Whoever types on has no use for an answer that is late, and the next key asks again.
        let limits = Limits {
            connect: Duration::from_secs(3),
            first_byte: Duration::from_secs(20),
            idle: Duration::from_secs(5),
            n_max_bytes: 1 << 20,
            n_tries: 1,
            ..Limits::default()
        };
        Self {
            client: Client::new(endpoint, limits),
            model: RefCell::new(model),
            form: Cell::new(Form::Infill),
            reach: Cell::default(),
        }
    }

    /// Returns its URL, without a key.
    pub(crate) fn url(&self) -> &str {
        self.client.endpoint().url()
    }

    /// Returns the model's name, if it is known by now.
    pub(crate) fn name(&self) -> Option<String> {
        self.model.borrow().clone()
    }

    /// Returns the limits of a completion that suit it.
    pub(crate) fn options(&self) -> Options {
        let is_local = self.client.endpoint().is_local();
        let default = Options::default();
        Options {
            n_max_prefix_bytes: N_MAX_PREFIX_BYTES,
            n_max_after_bytes: N_MAX_AFTER_BYTES,
            // Elsewhere somebody pays for what is written ahead and never wanted.
            n_lines_ahead: if is_local { default.n_lines_ahead } else { 0 },
            pause: if is_local { Duration::ZERO } else { PAUSE },
            ..default
        }
    }

    /// Returns the sentence that says where source text goes.
    pub(crate) fn where_text_goes(&self) -> String {
        let (endpoint, url) = (self.client.endpoint(), self.url());
        if endpoint.is_local() {
            return format!("ghost text comes from {url}, a server on this machine");
        }
        let mut text = format!("ghost text comes from {url}: the source text around the cursor goes there");
        if endpoint.is_readable_on_the_way() {
            text.push_str(READABLE);
        }
        text
    }

    /// Asks, in the form that the endpoint understands.
    pub(super) fn ask(
        &self,
        question: &Question<'_>,
        on_text: &mut dyn FnMut(&str) -> bool,
        cancel: &CancelToken,
    ) -> Result<Continuation, Error> {
        let Some(model) = self.choose_model(cancel)? else {
            return Ok(continuation(End::Cancelled, Vec::new(), Statistics::default()));
        };
        let (mut asked, mut first) = (Instant::now(), None);
        let answer = loop {
            let form = self.form.get();
            let mut hear = |text: &str| {
                first.get_or_insert_with(|| asked.elapsed());
                on_text(text)
            };
            match self.ask_in(form, &model, question, &mut hear, cancel) {
                Err(error) if first.is_none() && form.is_refused_by(&error) => {
                    tracing::debug!(?form, "the endpoint does not fill in so");
                    self.form.set(form.next());
                    asked = Instant::now();
                }
                // What comes next is shorter; this one gets no answer.
                Err(Error::TooLong { .. }) if self.shorten() => {
                    return Ok(continuation(End::Cut, Vec::new(), Statistics::default()));
                }
                result => break result?,
            }
        };
        let time = first.unwrap_or_else(|| asked.elapsed());
        // A question given up early says nothing of the server's speed.
        if first.is_some() || time > SLOW {
            self.reach.set(self.reach.get().saw(time));
        }
        Ok(from_answer(answer))
    }

    fn ask_in(
        &self,
        form: Form,
        model: &str,
        question: &Question<'_>,
        on_text: &mut dyn FnMut(&str) -> bool,
        cancel: &CancelToken,
    ) -> Result<Answer, Error> {
        let stop: Vec<String> = question.stop.map(str::to_owned).into_iter().collect();
        let n_max_tokens = u32::try_from(question.n_max_tokens).unwrap_or(u32::MAX);
        if form == Form::Infill {
            let n_prefix = question.before.rfind('\n').map_or(0, |at| at + 1);
            let (prefix, head) = question.before.split_at(n_prefix);
            let request =
                InfillRequest { model, prefix, head, suffix: question.after, stop: &stop, n_max_tokens };
            return self.client.infill(&request, on_text, cancel);
        }
        let has_suffix = form == Form::Suffix && !question.after.trim().is_empty();
        let request = CompletionRequest {
            model,
            prompt: question.before,
            suffix: has_suffix.then_some(question.after),
            stop: &stop,
            sampling: Sampling::greedy(),
            n_max_tokens: Some(n_max_tokens),
            wants_logprobs: true,
        };
        self.client.complete(&request, on_text, cancel)
    }

    fn choose_model(&self, cancel: &CancelToken) -> Result<Option<String>, Error> {
        if let Some(model) = self.name() {
            return Ok(Some(model));
        }
        let model = self.client.choose_model(None, cancel)?;
        self.model.borrow_mut().clone_from(&model);
        Ok(model)
    }

    fn shorten(&self) -> bool {
        let shorter = self.reach.get().shorter();
        let is_shorter = shorter.n_max_bytes < self.reach.get().n_max_bytes;
        self.reach.set(shorter);
        is_shorter
    }
}

impl TextModel for EndpointModel {
    fn n_max_prefix_bytes(&self) -> usize {
        self.reach.get().n_max_bytes
    }

    fn continue_text(
        &self,
        question: &Question<'_>,
        on_text: &mut dyn FnMut(&str) -> bool,
        cancel: &CancelToken,
    ) -> Result<Continuation, Unavailable> {
        self.ask(question, on_text, cancel).map_err(|error| Unavailable::Failed(Box::new(error)))
    }
}

fn continuation(end: End, logprobs: Vec<f32>, statistics: Statistics) -> Continuation {
    Continuation { end, logprobs, statistics }
}

fn from_answer(answer: Answer) -> Continuation {
    let end = match answer.stop {
        Stop::End => End::Whole,
        Stop::Length => End::Cut,
        Stop::Enough => End::Enough,
        Stop::Cancelled => End::Cancelled,
    };
    let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let usage = answer.usage.unwrap_or_default();
    let statistics = Statistics {
        n_prompt: count(usage.n_prompt),
        n_reused: count(usage.n_reused.min(usage.n_prompt)),
        n_generated: count(usage.n_answer),
        ..Statistics::default()
    };
    continuation(end, answer.logprobs, statistics)
}

/// How an endpoint is told what stands after the cursor, in the order in which that is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// By llama.cpp's `/infill`, for a model that fills in; `agent serve` has it for any. It comes first because llama.cpp's
    /// server takes a `suffix` too and overlooks it.
    Infill,
    /// By OpenAI's `suffix`: ollama and others, for a model that fills in.
    Suffix,
    /// Not at all.
    Prefix,
}

impl Form {
    /// Returns whether an error says that the endpoint, or its model, cannot be asked so.
    fn is_refused_by(self, error: &Error) -> bool {
        match self {
            // Who knows only what stands under `/v1` may say anything to another call, with status 200 even; the next form
            // asks again there.
            Self::Infill => matches!(
                error,
                Error::NotFound { .. }
                    | Error::Denied { .. }
                    | Error::Refused { .. }
                    | Error::Lacks { .. }
                    | Error::Redirected { .. }
                    | Error::WebPage { .. }
                    | Error::Malformed { .. }
                    | Error::Failed { status: 200 | 501, .. }
            ),
            Self::Suffix => matches!(error, Error::Lacks { feature: "suffix", .. }),
            Self::Prefix => false,
        }
    }

    fn next(self) -> Self {
        match self {
            Self::Infill => Self::Suffix,
            Self::Suffix | Self::Prefix => Self::Prefix,
        }
    }
}

/// An answer that begins later than this comes too late for who types.
const SLOW: Duration = Duration::from_millis(800);
/// So many late answers in a row are no accident: a server reads a new file from its beginning once.
const N_SLOW: u32 = 4;
/// Less than this is not worth asking with.
const N_MIN_PREFIX_BYTES: usize = 1024;

/// How much before the cursor the endpoint reads in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reach {
    n_max_bytes: usize,
    /// Late answers in a row.
    n_slow: u32,
}

impl Default for Reach {
    fn default() -> Self {
        Self { n_max_bytes: N_MAX_PREFIX_BYTES, n_slow: 0 }
    }
}

impl Reach {
    fn saw(self, first_text: Duration) -> Self {
        match self.n_slow + 1 {
            _ if first_text <= SLOW => Self { n_slow: 0, ..self },
            N_SLOW => self.shorter(),
            n_slow => Self { n_slow, ..self },
        }
    }

    fn shorter(self) -> Self {
        Self { n_max_bytes: (self.n_max_bytes / 2).max(N_MIN_PREFIX_BYTES), n_slow: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_endpoint_is_sent_less_and_one_that_was_slow_by_accident_is_not() {
        let saw = |times: &[u64]| {
            let reach =
                times.iter().fold(Reach::default(), |reach, ms| reach.saw(Duration::from_millis(*ms)));
            reach.n_max_bytes
        };
        assert_eq!(saw(&[5000, 900, 900, 100, 900, 900, 900]), 8192);
        assert_eq!(saw(&[900; 4]), 4096);
        assert_eq!(saw(&[900; 100]), N_MIN_PREFIX_BYTES);
    }

    #[test]
    fn an_endpoint_elsewhere_is_asked_less_and_where_the_text_goes_is_said() {
        let check = |url: &str, pause: Duration, n_lines_ahead: usize, said: &str, not: &str| {
            let model = EndpointModel::new(Endpoint::parse(url).expect("sound"), None);
            let options = model.options();
            assert_eq!((options.pause, options.n_lines_ahead), (pause, n_lines_ahead), "{url}");
            let text = model.where_text_goes();
            assert!(text.contains(said) && !text.contains(not), "{text}");
        };
        check("http://127.0.0.1:8080", Duration::ZERO, 2, "on this machine", "around the cursor");
        check("https://a.example", PAUSE, 0, "around the cursor goes there", "warning");
        check("http://10.0.0.7:8000", PAUSE, 0, "warning", "on this machine");
    }

    #[test]
    fn only_what_cannot_be_asked_so_is_asked_otherwise() {
        let url = || "http://host/v1".to_owned();
        let lacks = |feature| Error::Lacks { url: url(), feature, said: String::new() };
        let failed = |status| Error::Failed { url: url(), status, said: String::new() };
        let not_found = Error::NotFound { url: url(), call: "infill", status: 404, said: String::new() };
        let check = |form: Form, error: &Error, expected| {
            assert_eq!(form.is_refused_by(error), expected, "{form:?} {error:?}");
        };
        check(Form::Suffix, &lacks("suffix"), true);
        check(Form::Suffix, &lacks("stop"), false);
        check(Form::Suffix, &not_found, false);
        check(Form::Infill, &not_found, true);
        check(Form::Infill, &failed(501), true);
        check(Form::Infill, &failed(500), false);
        // LM Studio says `{"error": "Unexpected endpoint or method. (POST /infill)"}` so, a gateway what it likes.
        let malformed = Error::Malformed { url: url(), what: String::new() };
        check(Form::Infill, &failed(200), true);
        check(Form::Infill, &malformed, true);
        check(Form::Suffix, &failed(200), false);
        check(Form::Suffix, &malformed, false);
        check(Form::Prefix, &not_found, false);
        let tried = [Form::Infill.next(), Form::Suffix.next(), Form::Prefix.next()];
        assert_eq!(tried, [Form::Suffix, Form::Prefix, Form::Prefix]);
    }
}

//! `/v1/completions`: OpenAI's way to continue a text.
//!
//! In: prompts and how to sample. Out: one object, or a stream of them.
//! Never: a special token from a prompt's text (I-3); a caller that wants one gives token ids.
//! Source: OpenAI API reference, "Create completion".

mod logprobs;
mod params;

use axum::Json;
use axum::extract::{Request, State as Extract};
use axum::response::{IntoResponse as _, Response};
use engine::{Engine, GrammarSpec, TokenId};
use serde_json::{Value, json};

use super::answer::{Answer, Answers, AsItIs, Event, Wish, prepare};
use super::envelope::{Envelope, Usage, finish_reason};
use super::options::N_MAX_CHOICES;
use super::refusal::Refusal;
use super::{State, body, sse};
use params::Params;

/// Answers `POST /v1/completions`.
pub(super) async fn handle(Extract(state): Extract<State>, request: Request) -> Result<Response, Refusal> {
    let params: Params = body::read(request).await?;
    let (stream, include_usage) = (params.options.stream, params.options.stream_options.include_usage);
    let making = state.clone();
    let job = prepare(move || Job::new(&making, params)).await?;
    let mut answers = Answers::start(&state, job.wishes())?;
    if stream {
        answers.begin().await?;
        let dress = Dress { usage: job.usage(), job, include_usage };
        return Ok(sse::response(answers, dress));
    }
    let answers = answers.all(job.n_choices()).await?;
    Ok(Json(job.whole(&answers)).into_response())
}

/// A request that has been understood.
struct Job {
    engine: Engine,
    envelope: Envelope,
    prompts: Vec<Prompt>,
    n: usize,
    echo: bool,
    n_top: Option<usize>,
    sampling: engine::Sampling,
    stop: engine::StopRules,
    grammar: Option<GrammarSpec>,
}

/// A prompt as it was given and as the model gets it.
struct Prompt {
    tokens: Vec<TokenId>,
    text: String,
}

impl Job {
    fn new(state: &State, params: Params) -> Result<Self, Refusal> {
        params.check()?;
        let (sampling, stop, n) = (params.options.sampling(), params.stop_rules(), params.options.n());
        let prompts = params.prompt.into_prompts(state.engine.tokenizer())?;
        if prompts.len() * n > N_MAX_CHOICES {
            return Err(Refusal::of("n", format!("at most {N_MAX_CHOICES} answers at once")));
        }
        Ok(Self {
            engine: state.engine.clone(),
            envelope: Envelope::new(state, "cmpl"),
            prompts,
            n,
            echo: params.echo,
            n_top: params.logprobs,
            sampling,
            stop,
            grammar: params.formats.into_spec(&state.engine)?,
        })
    }

    fn n_choices(&self) -> usize {
        self.prompts.len() * self.n
    }

    fn prompt_of(&self, idx: usize) -> &Prompt {
        &self.prompts[idx / self.n]
    }

    fn wishes(&self) -> Vec<Wish> {
        let wish = |idx: usize| {
            let mut sampling = self.sampling;
            // Each further answer has numbers of its own, and the same ones the next time.
            sampling.seed = sampling.seed.wrapping_add((idx % self.n) as u64);
            Wish {
                request: engine::GenerateRequest {
                    prompt: self.prompt_of(idx).tokens.clone(),
                    healed: Vec::new(),
                    grammar: self.grammar.clone(),
                    shown: Vec::new(),
                    sampling,
                    stop: self.stop.clone(),
                    drafting: engine::Drafting::default(),
                    n_top: self.n_top.filter(|_| !self.echo).unwrap_or(0),
                    priority: engine::Priority::Background,
                },
                n_top_of_all: self.n_top.filter(|_| self.echo),
                shape: Box::new(AsItIs),
            }
        };
        (0..self.n_choices()).map(wish).collect()
    }

    /// Returns the one object of an answer that is not streamed.
    fn whole(&self, answers: &[Answer]) -> Value {
        let choices = answers.iter().enumerate().map(|(idx, answer)| {
            let prompt = self.prompt_of(idx);
            let text =
                if self.echo { format!("{}{}", prompt.text, answer.text) } else { answer.text.clone() };
            json!({"index": idx, "text": text, "logprobs": self.logprobs(idx, answer),
                "finish_reason": finish_reason(&answer.generation)})
        });
        let choices: Vec<Value> = choices.collect();
        let mut object = self.object(&choices);
        let mut usage = self.usage();
        answers.iter().for_each(|answer| usage.add(&answer.generation));
        object["usage"] = usage.json();
        object
    }

    fn object(&self, choices: &[Value]) -> Value {
        self.envelope.object("text_completion", choices)
    }

    /// Returns the usage before any answer.
    fn usage(&self) -> Usage {
        Usage::of_prompt(self.prompts.iter().map(|prompt| prompt.tokens.len()).sum())
    }

    fn logprobs(&self, idx: usize, answer: &Answer) -> Value {
        let (Some(n_top), Some(scores)) = (self.n_top, &answer.scores) else { return Value::Null };
        let prompt = self.prompt_of(idx);
        let first = self.echo.then_some(prompt.tokens.first()).flatten().copied();
        let n_before = if self.echo { 0 } else { prompt.text.chars().count() };
        logprobs::object(self.engine.tokenizer(), first, scores, n_top, n_before)
    }
}

/// Dresses events as chunks.
struct Dress {
    job: Job,
    include_usage: bool,
    usage: Usage,
}

impl Dress {
    fn chunk(&self, idx: usize, text: &str, logprobs: Value, finish_reason: Option<&str>) -> String {
        let mut chunk = self.job.object(&[
            json!({"index": idx, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}),
        ]);
        if self.include_usage {
            chunk["usage"] = Value::Null;
        }
        chunk.to_string()
    }
}

impl sse::Dress for Dress {
    fn event(&mut self, event: Event) -> Vec<String> {
        match event {
            Event::Text { idx, text } => vec![self.chunk(idx, &text, Value::Null, None)],
            Event::Done { idx, result } => match *result {
                Ok(answer) => {
                    self.usage.add(&answer.generation);
                    // Probabilities are known when the text is: they all come with the end.
                    let logprobs = self.job.logprobs(idx, &answer);
                    vec![self.chunk(idx, "", logprobs, Some(finish_reason(&answer.generation)))]
                }
                Err(error) => vec![Refusal::from(error).json().to_string()],
            },
        }
    }

    fn end(&mut self) -> Vec<String> {
        let mut events = Vec::new();
        if self.include_usage {
            let mut object = self.job.object(&[]);
            object["usage"] = self.usage.json();
            events.push(object.to_string());
        }
        events.push("[DONE]".to_owned());
        events
    }
}

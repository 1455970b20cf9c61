//! `/v1/completions`: OpenAI's way to continue a text.
//!
//! In: prompts and how to sample. Out: one object, or a stream of them.
//! Never: a special token from a prompt's text (I-3); a caller that wants one gives token ids.
//! Source: OpenAI API reference, "Create completion".

mod logprobs;
mod params;

use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::{Request, State as Extract};
use axum::response::{IntoResponse as _, Response};
use engine::{StopReason, TokenId};
use serde_json::{Value, json};

use super::answer::{Answer, Answers, AsItIs, Event, ScoreWish, Wish};
use super::refusal::Refusal;
use super::{State, body, sse};
use params::Params;

/// Answers `POST /v1/completions`.
pub(super) async fn handle(Extract(state): Extract<State>, request: Request) -> Result<Response, Refusal> {
    let params: Params = body::read(request).await?;
    let (stream, include_usage) = (params.stream, params.stream_options.include_usage);
    let job = Job::new(&state, params)?;
    let mut answers = Answers::start(&state, job.wishes())?;
    if stream {
        answers.begin().await?;
        let dress = Dress { job, include_usage, n_completion: 0, n_reused: 0 };
        return Ok(sse::response(answers, dress));
    }
    let answers = answers.all(job.n_choices()).await?;
    Ok(Json(job.whole(&answers)).into_response())
}

/// A request that has been understood.
struct Job {
    state: State,
    id: String,
    created: u64,
    prompts: Vec<Prompt>,
    n: usize,
    echo: bool,
    n_top: Option<usize>,
    sampling: engine::Sampling,
    stop: engine::StopRules,
}

/// A prompt as it was given and as the model gets it.
struct Prompt {
    tokens: Vec<TokenId>,
    text: String,
}

impl Job {
    fn new(state: &State, params: Params) -> Result<Self, Refusal> {
        params.check()?;
        let (sampling, stop) = (params.sampling(), params.stop_rules());
        let prompts = params.prompt.into_prompts(state.engine.tokenizer())?;
        if prompts.len() * params.n > params::N_MAX_CHOICES {
            return Err(Refusal::of("n", format!("at most {} answers at once", params::N_MAX_CHOICES)));
        }
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Ok(Self {
            state: state.clone(),
            id: format!("cmpl-{:016x}", params::random()),
            created,
            prompts,
            n: params.n,
            echo: params.echo,
            n_top: params.logprobs,
            sampling,
            stop,
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
                    grammar: None,
                    shown: Vec::new(),
                    sampling,
                    stop: self.stop.clone(),
                    drafting: engine::Drafting::default(),
                    n_top: 0,
                    priority: engine::Priority::Background,
                },
                scores: self.n_top.map(|n_top| ScoreWish { n_top, with_prompt: self.echo }),
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
                "finish_reason": finish_reason(answer)})
        });
        let choices: Vec<Value> = choices.collect();
        let n_completion = answers.iter().map(|answer| answer.generation.tokens.len()).sum();
        let n_reused = answers.iter().map(|answer| answer.generation.n_reused).sum();
        let mut object = self.object(choices);
        object["usage"] = self.usage(n_completion, n_reused);
        object
    }

    fn object(&self, choices: Vec<Value>) -> Value {
        json!({"id": self.id, "object": "text_completion", "created": self.created,
            "model": self.state.model_name, "system_fingerprint": concat!("tandem-", env!("CARGO_PKG_VERSION")),
            "choices": choices})
    }

    fn usage(&self, n_completion: usize, n_reused: usize) -> Value {
        let n_prompt: usize = self.prompts.iter().map(|prompt| prompt.tokens.len()).sum();
        json!({"prompt_tokens": n_prompt, "completion_tokens": n_completion,
            "total_tokens": n_prompt + n_completion, "prompt_tokens_details": {"cached_tokens": n_reused}})
    }

    fn logprobs(&self, idx: usize, answer: &Answer) -> Value {
        let (Some(n_top), Some(scores)) = (self.n_top, &answer.scores) else { return Value::Null };
        let prompt = self.prompt_of(idx);
        let first = self.echo.then_some(prompt.tokens.first()).flatten().copied();
        let n_before = if self.echo { 0 } else { prompt.text.chars().count() };
        logprobs::object(self.state.engine.tokenizer(), first, scores, n_top, n_before)
    }
}

fn finish_reason(answer: &Answer) -> &'static str {
    match answer.generation.stop {
        StopReason::EndOfGeneration | StopReason::StopText => "stop",
        StopReason::MaxTokens | StopReason::Time | StopReason::Enough | StopReason::Cancelled => "length",
    }
}

/// Dresses events as chunks.
struct Dress {
    job: Job,
    include_usage: bool,
    n_completion: usize,
    n_reused: usize,
}

impl Dress {
    fn chunk(&self, idx: usize, text: &str, logprobs: Value, finish_reason: Option<&str>) -> String {
        let mut chunk = self.job.object(vec![
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
                    self.n_completion += answer.generation.tokens.len();
                    self.n_reused += answer.generation.n_reused;
                    // Probabilities are known when the text is: they all come with the end.
                    let logprobs = self.job.logprobs(idx, &answer);
                    vec![self.chunk(idx, "", logprobs, Some(finish_reason(&answer)))]
                }
                Err(error) => vec![Refusal::from(error).json().to_string()],
            },
        }
    }

    fn end(&mut self) -> Vec<String> {
        let mut events = Vec::new();
        if self.include_usage {
            let mut object = self.job.object(Vec::new());
            object["usage"] = self.job.usage(self.n_completion, self.n_reused);
            events.push(object.to_string());
        }
        events.push("[DONE]".to_owned());
        events
    }
}

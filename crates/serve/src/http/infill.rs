//! `/infill`: fill in the middle, as llama.cpp's server speaks it.
//!
//! In: what stands before and after the cursor, and extra texts. Out: the middle, with the fields llama.vim reads.
//! A model without FIM tokens continues the text before the cursor, and the answer says `"fim": false`.
//! Never: an error for a sampler it does not have: llama.vim sends the same list to every server.
//! Source: llama.cpp, `tools/server/README.md`, "POST /infill"; llama.vim, `autoload/llama.vim`.

mod indent;
mod prompt;

use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State as Extract};
use axum::response::{IntoResponse as _, Response};
use engine::{GenerateRequest, Priority, Sampling, StopReason, StopRules};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::answer::{Answer, Answers, Event, Wish};
use super::refusal::Refusal;
use super::{State, body, sse};
use indent::Indent;
use prompt::Prompt;

/// Most tokens generated when the caller says no number, or -1: more than ghost text is ever long.
const N_DEFAULT_PREDICT: usize = 128;

/// The body of a request. What is not named here (`samplers`, `cache_prompt`, `t_max_prompt_ms`) changes nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Params {
    input_prefix: String,
    input_suffix: String,
    input_extra: Vec<Extra>,
    prompt: String,
    n_predict: Option<i64>,
    n_indent: usize,
    t_max_predict_ms: u64,
    temperature: Option<f32>,
    top_k: Option<i64>,
    top_p: Option<f32>,
    seed: Option<i64>,
    stop: Vec<String>,
    stream: bool,
    response_fields: Vec<String>,
}

/// A text of another place.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Extra {
    filename: String,
    text: String,
}

/// Answers `POST /infill`.
pub(super) async fn handle(Extract(state): Extract<State>, request: Request) -> Result<Response, Refusal> {
    let params: Params = body::read(request).await?;
    let n_predict = n_predict(&params, state.engine.n_ctx());
    let prompt = prompt::build(state.engine.tokenizer(), &params, state.engine.n_ctx(), n_predict);
    let dress = Dress {
        fields: params.response_fields.clone(),
        model: state.model_name.clone(),
        about: About::of(&params, &prompt),
    };
    let (stream, wish) = (params.stream, wish(params, prompt, n_predict));
    let mut answers = Answers::start(&state, vec![wish])?;
    if stream {
        answers.begin().await?;
        return Ok(sse::response(answers, dress));
    }
    let answers = answers.all(1).await?;
    let whole = answers.first().map(|answer| dress.whole(answer, &answer.text));
    Ok(Json(whole).into_response())
}

fn n_predict(params: &Params, n_ctx: usize) -> usize {
    let asked = params.n_predict.and_then(|n| usize::try_from(n).ok()).unwrap_or(N_DEFAULT_PREDICT);
    asked.min(n_ctx / 2)
}

fn wish(params: Params, prompt: Prompt, n_predict: usize) -> Wish {
    // llama.vim names no temperature: ghost text that is the same for the same place is what an editor wants.
    let sampling = Sampling {
        temperature: params.temperature.unwrap_or(0.0),
        top_k: params.top_k.and_then(|n| usize::try_from(n).ok()).unwrap_or(0),
        top_p: params.top_p.unwrap_or(1.0),
        seed: params.seed.map_or(0, i64::cast_unsigned),
    };
    Wish {
        request: GenerateRequest {
            prompt: prompt.tokens,
            healed: prompt.healed,
            grammar: None,
            shown: Vec::new(),
            sampling,
            // With 0 the caller wants the prompt in the KV cache; the one token is not shown.
            stop: StopRules {
                n_max_tokens: n_predict.max(1),
                texts: params.stop.into_iter().filter(|stop| !stop.is_empty()).collect(),
                decode_time: None,
            },
            drafting: engine::Drafting::default(),
            n_top: 0,
            priority: Priority::Interactive,
        },
        n_top_of_all: None,
        shape: Box::new(Indent::new(
            params.n_indent,
            (params.t_max_predict_ms > 0).then(|| Duration::from_millis(params.t_max_predict_ms)),
            n_predict > 0,
        )),
    }
}

/// What the answer says of the request.
struct About {
    is_fim: bool,
    is_truncated: bool,
    settings: Value,
}

impl About {
    fn of(params: &Params, prompt: &Prompt) -> Self {
        let settings = json!({"n_predict": params.n_predict, "n_indent": params.n_indent,
            "temperature": params.temperature.unwrap_or(0.0), "top_k": params.top_k, "top_p": params.top_p,
            "seed": params.seed, "stop": params.stop, "stream": params.stream});
        Self { is_fim: prompt.is_fim, is_truncated: prompt.is_truncated, settings }
    }
}

/// Dresses events as llama.cpp's server does.
struct Dress {
    fields: Vec<String>,
    model: String,
    about: About,
}

impl Dress {
    /// Returns the last object, or the only one; a stream has shown its text already.
    fn whole(&self, answer: &Answer, text: &str) -> Value {
        let generation = &answer.generation;
        let mut object = json!({
            "index": 0,
            "content": text,
            "tokens": [],
            "id_slot": 0,
            "stop": true,
            "model": self.model,
            "tokens_predicted": generation.tokens.len(),
            "tokens_evaluated": generation.n_prompt,
            "tokens_cached": generation.n_prompt + generation.tokens.len(),
            "generation_settings": self.about.settings,
            "has_new_line": answer.text.contains('\n'),
            "truncated": self.about.is_truncated,
            "stop_type": stop_type(answer),
            "stopping_word": "",
            "timings": timings(answer),
            "fim": self.about.is_fim,
        });
        if !self.about.is_fim {
            object["warning"] =
                json!("the model has no FIM tokens: this continues the prefix and does not see the suffix");
        }
        if self.fields.is_empty() { object } else { chosen(&object, &self.fields) }
    }
}

impl sse::Dress for Dress {
    fn event(&mut self, event: Event) -> Vec<String> {
        let object = match event {
            Event::Text { text, .. } => json!({"index": 0, "content": text, "tokens": [], "stop": false}),
            Event::Done { result, .. } => match *result {
                Ok(answer) => self.whole(&answer, ""),
                Err(error) => Refusal::from(error).json(),
            },
        };
        vec![object.to_string()]
    }

    fn end(&mut self) -> Vec<String> {
        Vec::new()
    }
}

fn stop_type(answer: &Answer) -> &'static str {
    match answer.generation.stop {
        _ if answer.is_cut => "limit",
        StopReason::EndOfGeneration => "eos",
        StopReason::StopText => "word",
        StopReason::MaxTokens | StopReason::Time | StopReason::Enough => "limit",
        StopReason::Cancelled => "none",
    }
}

fn timings(answer: &Answer) -> Value {
    let generation = &answer.generation;
    let pace = |n: usize, time: Duration| {
        let ms = time.as_secs_f64() * 1e3;
        let (each, per_second) =
            if n == 0 || ms == 0.0 { (0.0, 0.0) } else { (ms / n as f64, n as f64 * 1e3 / ms) };
        (ms, each, per_second)
    };
    let n_prefilled = generation.n_prompt.saturating_sub(generation.n_reused);
    let n_predicted = generation.tokens.len();
    let (prompt_ms, prompt_each, prompt_rate) = pace(n_prefilled, generation.timings.prefill);
    let (predicted_ms, predicted_each, predicted_rate) = pace(n_predicted, generation.timings.decode);
    json!({
        "cache_n": generation.n_reused,
        "prompt_n": n_prefilled,
        "prompt_ms": prompt_ms,
        "prompt_per_token_ms": prompt_each,
        "prompt_per_second": prompt_rate,
        "predicted_n": n_predicted,
        "predicted_ms": predicted_ms,
        "predicted_per_token_ms": predicted_each,
        "predicted_per_second": predicted_rate,
    })
}

/// Returns only the fields asked for, flat, under the paths they were asked by: `timings/prompt_n`.
fn chosen(object: &Value, fields: &[String]) -> Value {
    let found = fields.iter().filter_map(|path| {
        let value = path.split('/').try_fold(object, |value, name| value.get(name))?;
        Some((path.clone(), value.clone()))
    });
    Value::Object(found.collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_chosen_by_their_paths_and_what_is_not_there_is_left_out() {
        let object = json!({"content": "x", "timings": {"prompt_n": 3}, "stop": true});
        let fields = ["content", "timings/prompt_n", "timings/nothing", "no/where"].map(str::to_owned);
        assert_eq!(chosen(&object, &fields), json!({"content": "x", "timings/prompt_n": 3}));
    }
}

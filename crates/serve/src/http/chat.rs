//! `/v1/chat/completions`: OpenAI's way to continue a conversation.
//!
//! In: messages, tools, what the answer must be. Out: one message, or a stream of its parts.
//! Never: a special token from anything a caller says (I-3): only the model's own template writes them.
//! Source: OpenAI API reference, "Create chat completion"; `reasoning_content` as DeepSeek and llama.cpp have it.

mod dress;
mod logprobs;
mod messages;
mod params;
mod tools;

use axum::Json;
use axum::extract::{Request, State as Extract};
use axum::response::{IntoResponse as _, Response};
use engine::{
    AnswerRule, CallRule, ChatDelta, ChatError, ChatParser, ChatRequest, Engine, Generation, Prompt, Tool,
    ToolCall, answer_grammar,
};
use serde_json::{Value, json};

use super::answer::{Answer, Answers, AsItIs, Wish, prepare};
use super::envelope::{Envelope, Usage, finish_reason, now};
use super::refusal::Refusal;
use super::{State, body, sse};
use dress::Dress;
use params::Params;

/// Answers `POST /v1/chat/completions`.
pub(super) async fn handle(Extract(state): Extract<State>, request: Request) -> Result<Response, Refusal> {
    let params: Params = body::read(request).await?;
    let (stream, include_usage) = (params.options.stream, params.options.stream_options.include_usage);
    let making = state.clone();
    let job = prepare(move || Job::new(&making, params)).await?;
    let mut answers = Answers::start(&state, job.wishes())?;
    if stream {
        answers.begin().await?;
        return Ok(sse::response(answers, Dress::new(job, include_usage)));
    }
    let answers = answers.all(job.n).await?;
    Ok(Json(job.whole(&answers)).into_response())
}

/// A request that has been understood.
struct Job {
    engine: Engine,
    envelope: Envelope,
    prompt: Prompt,
    tools: Vec<Tool>,
    n: usize,
    /// How many of the likeliest tokens are wanted beside each; `None` if no probabilities are.
    n_top: Option<usize>,
    request: engine::GenerateRequest,
}

impl Job {
    fn new(state: &State, params: Params) -> Result<Self, Refusal> {
        params.check()?;
        let (engine, n) = (&state.engine, params.options.n());
        let template = state.chat.as_ref().as_ref().map_err(refused)?;
        let (sampling, mut stop) = (params.options.sampling(), params.stop_rules(engine.n_ctx()));
        let n_top = params.n_top();
        let (enable_thinking, variables) = (params.enable_thinking(), params.variables());
        let offer =
            tools::Offer::read(params.tools, params.tool_choice.as_ref(), params.parallel_tool_calls)?;
        let callable = offer.callable(engine)?;
        let rule = AnswerRule { calls: offer.rule, content: params.formats.into_spec(engine)? };
        let tools = if offer.rule == CallRule::Never { Vec::new() } else { offer.tools };
        let conversation = ChatRequest {
            tools: tools.clone(),
            enable_thinking,
            variables,
            now: now(),
            ..ChatRequest::new(messages::read(params.messages)?)
        };
        let prompt = template.prompt(engine.tokenizer(), &conversation).map_err(|error| refused(&error))?;
        stop.texts.extend(prompt.stop_texts.iter().cloned());
        let request = engine::GenerateRequest {
            prompt: prompt.tokens.clone(),
            healed: Vec::new(),
            grammar: answer_grammar(&prompt, &callable, &rule, engine.tokenizer()),
            shown: prompt.shown.clone(),
            sampling,
            stop,
            drafting: engine::Drafting::default(),
            n_top: n_top.unwrap_or(0),
            priority: engine::Priority::Background,
        };
        let envelope = Envelope::new(state, "chatcmpl");
        Ok(Self { engine: engine.clone(), envelope, prompt, tools, n, n_top, request })
    }

    fn wishes(&self) -> Vec<Wish> {
        let wish = |idx: usize| {
            let mut request = self.request.clone();
            // Each further answer has numbers of its own, and the same ones the next time.
            request.sampling.seed = request.sampling.seed.wrapping_add(idx as u64);
            Wish { request, n_top_of_all: None, shape: Box::new(AsItIs) }
        };
        (0..self.n).map(wish).collect()
    }

    fn parser(&self) -> ChatParser {
        ChatParser::new(&self.prompt, &self.tools)
    }

    /// Returns the one object of an answer that is not streamed.
    fn whole(&self, answers: &[Answer]) -> Value {
        let choices = answers.iter().enumerate().map(|(idx, answer)| {
            let mut parser = self.parser();
            let mut said = Said::default();
            said.add(parser.push(&answer.text));
            said.add(parser.finish());
            json!({"index": idx, "logprobs": self.logprobs(answer),
                "finish_reason": chat_finish_reason(&answer.generation, said.calls.len()), "message": said.message()})
        });
        let choices: Vec<Value> = choices.collect();
        let mut usage = self.usage();
        answers.iter().for_each(|answer| usage.add(&answer.generation));
        let mut object = self.envelope.object("chat.completion", &choices);
        object["usage"] = usage.json();
        object
    }

    /// Returns the usage before any answer.
    fn usage(&self) -> Usage {
        Usage::of_prompt(self.prompt.tokens.len())
    }

    fn logprobs(&self, answer: &Answer) -> Value {
        match self.n_top {
            Some(_) => logprobs::object(self.engine.tokenizer(), &self.prompt.shown, answer),
            None => Value::Null,
        }
    }
}

/// Returns the refusal of a conversation that cannot become a prompt.
fn refused(error: &ChatError) -> Refusal {
    let refusal = Refusal::of("messages", format!("{error} ({})", error.hint()));
    if matches!(error, ChatError::NoTemplate) { refusal.code("no_chat_template") } else { refusal }
}

fn chat_finish_reason(generation: &Generation, n_calls: usize) -> &'static str {
    match finish_reason(generation) {
        "stop" if n_calls > 0 => "tool_calls",
        reason => reason,
    }
}

/// A whole answer, taken apart.
#[derive(Default)]
struct Said {
    content: String,
    reasoning: String,
    calls: Vec<ToolCall>,
}

impl Said {
    fn add(&mut self, deltas: Vec<ChatDelta>) {
        for delta in deltas {
            match delta {
                ChatDelta::Reasoning(text) => self.reasoning.push_str(&text),
                ChatDelta::Content(text) => self.content.push_str(&text),
                ChatDelta::ToolCall(call) => self.calls.push(call),
            }
        }
    }

    fn message(self) -> Value {
        let is_null = self.content.is_empty() && !self.calls.is_empty();
        let content = if is_null { Value::Null } else { self.content.into() };
        let mut message = json!({"role": "assistant", "content": content, "refusal": null});
        if !self.reasoning.is_empty() {
            message["reasoning_content"] = self.reasoning.into();
        }
        if !self.calls.is_empty() {
            message["tool_calls"] = self.calls.iter().map(call_object).collect();
        }
        message
    }
}

fn call_object(call: &ToolCall) -> Value {
    json!({"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_has_no_template_is_refused_with_a_hint() {
        let error = refused(&ChatError::NoTemplate).json()["error"].clone();
        assert_eq!((&error["code"], &error["param"]), (&json!("no_chat_template"), &json!("messages")));
        assert!(error["message"].as_str().is_some_and(|told| told.contains("--model")), "{error}");
    }
}

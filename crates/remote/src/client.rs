//! The calls: which models there are, a chat, a completion.
//!
//! In: what is asked. Out: the answer, handed on as it grows.
//! Never: asks again once a part of the answer has been handed on; logs a text.
//! Thread: the caller's, until the answer is whole, the caller cancels or has seen enough.

use std::collections::BTreeSet;
use std::sync::Mutex;

use engine::{CancelToken, Message, Sampling};
use serde_json::{Value, json};

use crate::answer::{Answer, Growing, Stop};
use crate::events::Events;
use crate::exchange::Exchange;
use crate::retry::Backoff;
use crate::said::{self, OPTIONAL};
use crate::{Endpoint, Error, Limits};

/// A client of one endpoint.
#[derive(Debug)]
pub struct Client {
    endpoint: Endpoint,
    limits: Limits,
    /// Fields this endpoint does not know, found out by asking.
    unknown: Mutex<BTreeSet<&'static str>>,
}

/// A conversation to be continued.
#[derive(Clone, Debug)]
pub struct ChatRequest<'a> {
    /// The model.
    pub model: &'a str,
    /// The conversation, the oldest message first; only role and content are sent.
    pub messages: &'a [Message],
    /// How tokens are chosen; `top_k` is not sent, since the API has none.
    pub sampling: Sampling,
    /// Most tokens of the answer; the endpoint's own bound when not set.
    pub n_max_tokens: Option<u32>,
}

/// A text to be continued.
#[derive(Clone, Debug)]
pub struct CompletionRequest<'a> {
    /// The model.
    pub model: &'a str,
    /// What stands before.
    pub prompt: &'a str,
    /// What stands behind, for endpoints that fill in.
    pub suffix: Option<&'a str>,
    /// Texts that end the answer.
    pub stop: &'a [String],
    /// As in [`ChatRequest`].
    pub sampling: Sampling,
    /// Most tokens of the answer; the endpoint's own bound, often 16, when not set.
    pub n_max_tokens: Option<u32>,
    /// Whether [`Answer::logprobs`] are wanted; an endpoint that has none is asked without.
    pub wants_logprobs: bool,
}

/// A middle to be filled in, as llama.cpp's server does it.
#[derive(Clone, Debug)]
pub struct InfillRequest<'a> {
    /// The model, for a server of several.
    pub model: &'a str,
    /// What stands before the line to be gone on with.
    pub prefix: &'a str,
    /// The beginning of that line: the model sees it last, so that typing there leaves the rest of the prompt as it is.
    pub head: &'a str,
    /// What stands behind.
    pub suffix: &'a str,
    /// Texts that end the answer.
    pub stop: &'a [String],
    /// Most tokens of the answer.
    pub n_max_tokens: u32,
}

impl Client {
    /// Returns a client; nothing is sent yet.
    pub fn new(endpoint: Endpoint, limits: Limits) -> Self {
        Self { endpoint, limits, unknown: Mutex::default() }
    }

    /// Returns whom it asks.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Returns the names of the models served, or `None` when cancelled.
    ///
    /// # Errors
    /// Those of the way there and of the server, [`Error::Malformed`] if its answer is no list.
    pub fn models(&self, cancel: &CancelToken) -> Result<Option<Vec<String>>, Error> {
        // Whoever has just typed a URL waits for the answer: try again once, not four times.
        let limits = Limits { n_tries: self.limits.n_tries.min(2), ..self.limits.clone() };
        let mut backoff = Backoff::new(&limits);
        loop {
            match self.models_once(cancel) {
                Err(error) if error.is_transient() => {
                    if !backoff.wait(error.retry_after(), cancel) {
                        return if cancel.is_cancelled() { Ok(None) } else { Err(error) };
                    }
                }
                result => return result,
            }
        }
    }

    /// Returns the model to ask: the named one, else the only one there is; `None` when cancelled.
    ///
    /// An endpoint that lists no models is believed to have the named one, and one that is not listed may still be
    /// an alias.
    ///
    /// # Errors
    /// As [`Client::models`]; [`Error::NotOneModel`].
    pub fn choose_model(&self, named: Option<&str>, cancel: &CancelToken) -> Result<Option<String>, Error> {
        match (self.models(cancel), named) {
            (Ok(None), _) => Ok(None),
            (Ok(Some(_)) | Err(Error::NotFound { .. } | Error::Malformed { .. }), Some(named)) => {
                Ok(Some(named.to_owned()))
            }
            (Ok(Some(mut served)), None) if served.len() == 1 => Ok(served.pop()),
            (Ok(Some(served)), None) => {
                Err(Error::NotOneModel { url: self.endpoint.url().to_owned(), served })
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Continues a conversation. `on_text` hears each new piece and returns whether it wants more.
    ///
    /// A cancelled call returns what had come, with [`Stop::Cancelled`].
    ///
    /// # Errors
    /// Any of [`Error`]'s but those of reading a URL; [`Error::CutOff`] once a part has been handed on means that
    /// the part is worthless.
    pub fn chat(
        &self,
        request: &ChatRequest<'_>,
        on_text: &mut dyn FnMut(&str) -> bool,
        cancel: &CancelToken,
    ) -> Result<Answer, Error> {
        let messages: Vec<Value> = request
            .messages
            .iter()
            .map(|message| json!({"role": message.role.name(), "content": message.content}))
            .collect();
        let mut body = json!({"model": request.model, "messages": messages});
        sampled(&mut body, &request.sampling, request.n_max_tokens);
        self.answer("chat/completions", body, on_text, cancel)
    }

    /// Continues a text, as [`Client::chat`] does a conversation.
    ///
    /// # Errors
    /// As [`Client::chat`].
    pub fn complete(
        &self,
        request: &CompletionRequest<'_>,
        on_text: &mut dyn FnMut(&str) -> bool,
        cancel: &CancelToken,
    ) -> Result<Answer, Error> {
        let mut body = json!({"model": request.model, "prompt": request.prompt});
        sampled(&mut body, &request.sampling, request.n_max_tokens);
        if let Some(suffix) = request.suffix {
            body["suffix"] = json!(suffix);
        }
        if !request.stop.is_empty() {
            body["stop"] = json!(request.stop);
        }
        if request.wants_logprobs {
            body["logprobs"] = json!(1);
        }
        self.answer("completions", body, on_text, cancel)
    }

    /// Fills in a middle, greedily, by the call `/infill` of llama.cpp's server, which is none of OpenAI's.
    ///
    /// # Errors
    /// As [`Client::chat`]; a server without the call, or a model that cannot do it, is [`Error::NotFound`],
    /// [`Error::Refused`] or [`Error::Failed`] with status 501.
    pub fn infill(
        &self,
        request: &InfillRequest<'_>,
        on_text: &mut dyn FnMut(&str) -> bool,
        cancel: &CancelToken,
    ) -> Result<Answer, Error> {
        let body = json!({
            "model": request.model,
            "input_prefix": request.prefix,
            "prompt": request.head,
            "input_suffix": request.suffix,
            "stop": request.stop,
            "n_predict": request.n_max_tokens,
            "temperature": 0.0,
            "stream": true,
        });
        self.answer(INFILL, body, on_text, cancel)
    }

    fn answer(
        &self,
        call: &'static str,
        mut body: Value,
        on_text: &mut dyn FnMut(&str) -> bool,
        cancel: &CancelToken,
    ) -> Result<Answer, Error> {
        let mut backoff = Backoff::new(&self.limits);
        loop {
            if let Some(fields) = body.as_object_mut() {
                let unknown = self.unknown.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                fields.retain(|field, _| !unknown.contains(field.as_str()));
            }
            let mut is_handed_on = false;
            let mut hand_on = |text: &str| {
                is_handed_on = true;
                on_text(text)
            };
            match self.answer_once(call, &body, &mut hand_on, cancel) {
                Err(error) if is_handed_on => return Err(error),
                Err(Error::Lacks { feature, .. }) if OPTIONAL.contains(&feature) => {
                    tracing::debug!(feature, "the endpoint does without");
                    self.unknown.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(feature);
                }
                Err(Error::UnknownModel { url, model, .. }) => {
                    let served = self.models(cancel).ok().flatten().unwrap_or_default();
                    return Err(Error::UnknownModel { url, model, served });
                }
                Err(error) if error.is_transient() => {
                    if !backoff.wait(error.retry_after(), cancel) {
                        let cancelled = || Ok(Growing::default().stopped(Stop::Cancelled));
                        return if cancel.is_cancelled() { cancelled() } else { Err(error) };
                    }
                }
                result => return result,
            }
        }
    }

    fn answer_once(
        &self,
        call: &'static str,
        body: &Value,
        on_text: &mut dyn FnMut(&str) -> bool,
        cancel: &CancelToken,
    ) -> Result<Answer, Error> {
        let mut growing = Growing::default();
        let sent = body.to_string().into_bytes();
        let n_sent = sent.len();
        let mut exchange = Exchange::begin(&self.endpoint, &self.limits, call, Some(sent))?;
        let Some(head) = exchange.head(cancel)? else {
            return Ok(growing.stopped(Stop::Cancelled));
        };
        tracing::debug!(call, status = head.status, n_bytes = n_sent, "answered");
        let is_page = head.content_type.contains("html");
        if head.status != 200 || is_page {
            let Some(response) = exchange.body(cancel)? else {
                return Ok(growing.stopped(Stop::Cancelled));
            };
            return Err(said::error(&self.endpoint, call, &head, &response, Some(body)));
        }
        if head.content_type.contains("json") {
            // It does not stream.
            let Some(response) = exchange.body(cancel)? else {
                return Ok(growing.stopped(Stop::Cancelled));
            };
            self.take(&mut growing, &String::from_utf8_lossy(&response), on_text)?;
            return Ok(growing.end());
        }
        let mut events = Events::default();
        loop {
            let Some(bytes) = exchange.bytes(cancel)? else {
                return Ok(growing.stopped(Stop::Cancelled));
            };
            let is_end = bytes.is_empty();
            let mut data = events.push(&bytes).map_err(|_| self.malformed("an event has no end"))?;
            if is_end {
                data.extend(std::mem::take(&mut events).finish());
            }
            for data in data {
                if data == "[DONE]" {
                    return Ok(growing.end());
                }
                if !self.take(&mut growing, &data, on_text)? {
                    return Ok(growing.stopped(Stop::Enough));
                }
            }
            if is_end && growing.is_whole() {
                return Ok(growing.end());
            }
            if is_end {
                return Err(Error::CutOff { url: self.endpoint.url().to_owned(), source: None });
            }
        }
    }

    /// Takes a piece of an answer and returns whether the caller wants more.
    fn take(
        &self,
        growing: &mut Growing,
        data: &str,
        on_text: &mut dyn FnMut(&str) -> bool,
    ) -> Result<bool, Error> {
        let value: Value = serde_json::from_str(data).map_err(|_| self.malformed("it is not JSON"))?;
        if let Some(error) = said::error_within(&self.endpoint, &value) {
            return Err(error);
        }
        let text = growing.push(&value).ok_or_else(|| self.malformed("it has no `choices`"))?;
        Ok(text.is_empty() || on_text(text))
    }

    fn models_once(&self, cancel: &CancelToken) -> Result<Option<Vec<String>>, Error> {
        let mut exchange = Exchange::begin(&self.endpoint, &self.limits, "models", None)?;
        let Some(head) = exchange.head(cancel)? else {
            return Ok(None);
        };
        let Some(response) = exchange.body(cancel)? else {
            return Ok(None);
        };
        if head.status != 200 || head.content_type.contains("html") {
            return Err(said::error(&self.endpoint, "models", &head, &response, None));
        }
        let value: Value = serde_json::from_slice(&response).map_err(|_| self.malformed("it is not JSON"))?;
        let models = value["data"].as_array().ok_or_else(|| self.malformed("it is no list of models"))?;
        Ok(Some(models.iter().filter_map(|model| model["id"].as_str()).map(str::to_owned).collect()))
    }

    fn malformed(&self, what: &str) -> Error {
        Error::Malformed { url: self.endpoint.url().to_owned(), what: what.to_owned() }
    }
}

/// The one call that does not stand under the API's version.
pub(crate) const INFILL: &str = "infill";

/// Adds what all answers have: streaming, and how tokens are chosen.
fn sampled(body: &mut Value, sampling: &Sampling, n_max_tokens: Option<u32>) {
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    body["temperature"] = json!(sampling.temperature);
    if sampling.temperature > 0.0 {
        body["top_p"] = json!(sampling.top_p);
        // Servers keep seeds in 32 bits, some of them signed.
        body["seed"] = json!(sampling.seed & 0x7FFF_FFFF);
    }
    if let Some(n_max_tokens) = n_max_tokens {
        body["max_tokens"] = json!(n_max_tokens);
    }
}

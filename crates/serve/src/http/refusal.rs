//! Errors as HTTP tells them, in the shape that OpenAI's clients read.
//!
//! In: what went wrong. Out: a status and `{"error": {"message", "type", "param", "code"}}`.
//! Source: OpenAI API reference, "Error codes".

use axum::Json;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use engine::GrammarError;
use serde_json::{Value, json};

/// An error on its way to the caller.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    message: String,
    param: Option<&'static str>,
    code: Option<&'static str>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code: None }
    }

    /// Returns the refusal of a parameter the caller can change.
    pub(super) fn of(param: &'static str, message: impl Into<String>) -> Self {
        Self { param: Some(param), ..Self::new(StatusCode::BAD_REQUEST, message) }
    }

    /// Returns the refusal as that of a parameter.
    pub(super) fn about(self, param: &'static str) -> Self {
        Self { param: Some(param), ..self }
    }

    /// Returns the refusal with the place that it is about before its words.
    pub(super) fn within(self, place: &str) -> Self {
        Self { message: format!("{place}: {}", self.message), ..self }
    }

    pub(super) fn code(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }

    #[cfg(test)]
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns what stands in the body, or in an event of a stream that had begun.
    pub(super) fn json(&self) -> Value {
        let kind = match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::NOT_IMPLEMENTED => "not_supported_error",
            StatusCode::SERVICE_UNAVAILABLE => "overloaded_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        json!({"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}})
    }
}

impl From<engine::Error> for Refusal {
    fn from(error: engine::Error) -> Self {
        use engine::Error as E;
        let (status, code) = match &error {
            E::PromptTooLong { .. } => (StatusCode::BAD_REQUEST, Some("context_length_exceeded")),
            E::EmptyPrompt | E::UnknownToken(_) => (StatusCode::BAD_REQUEST, None),
            E::Grammar(GrammarError::Failed(_)) => (StatusCode::INTERNAL_SERVER_ERROR, None),
            E::Grammar(_) => (StatusCode::BAD_REQUEST, Some("invalid_grammar")),
            E::Busy { .. } | E::KvFull(_) => (StatusCode::SERVICE_UNAVAILABLE, Some("busy")),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, None),
        };
        let told = match &error {
            E::Grammar(error) => error.to_string(),
            error => error.to_string(),
        };
        let message = match error.hint() {
            Some(hint) => format!("{told} ({hint})"),
            None => told,
        };
        Self { status, message, param: None, code }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.json())).into_response();
        let mut set = |name, value| response.headers_mut().insert(name, HeaderValue::from_static(value));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            set(header::RETRY_AFTER, "1");
        }
        if self.status == StatusCode::UNAUTHORIZED {
            set(header::WWW_AUTHENTICATE, "Bearer");
        }
        response
    }
}

pub(super) async fn no_such_route(uri: Uri) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, format!("there is no {}", uri.path())).code("unknown_url")
}

pub(super) async fn wrong_method(method: Method, uri: Uri) -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not take {method}", uri.path()))
}

//! `/v1/chat/completions`: said not to be there yet, in words a client shows.
//!
//! The engine has what it takes: `ChatTemplate` turns messages into a prompt, `ChatParser` an answer into a message
//! (issue 4, "Chat"). What is missing is this handler: it will build [`Wish`](super::answer::Wish)es as `completions` does
//! and dress the answers as messages.

use axum::http::StatusCode;

use super::refusal::Refusal;

pub(super) async fn handle() -> Refusal {
    Refusal::new(
        StatusCode::NOT_IMPLEMENTED,
        "chat is not supported yet; /v1/completions takes a prompt in the model's own format",
    )
    .code("not_implemented")
}

//! `/v1/chat/completions`: said not to be there yet, in words a client shows.
//!
//! What is missing is the template that turns messages into a prompt (issue 4, "Chat"). With it this handler builds
//! [`Wish`](super::answer::Wish)es as `completions` does and dresses the answers as messages.

use axum::http::StatusCode;

use super::refusal::Refusal;

pub(super) async fn handle() -> Refusal {
    Refusal::new(
        StatusCode::NOT_IMPLEMENTED,
        "chat is not supported yet; /v1/completions takes a prompt in the model's own format",
    )
    .code("not_implemented")
}

//! A request's body: JSON, whole, and bounded.
//!
//! In: a body. Out: the value it says, or a refusal that names what is wrong with it.
//! Never: reads more than a bound, or for longer than a time.

use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::StatusCode;
use serde::de::DeserializeOwned;

use super::refusal::Refusal;

/// Most bytes of a body: a whole context's text, escaped, and a ring of extra files.
const N_MAX_BYTES: usize = 8 << 20;
/// How long a caller may take to send it.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Returns what the body says.
pub(super) async fn read<T: DeserializeOwned>(request: Request) -> Result<T, Refusal> {
    let too_large =
        || Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a body has {N_MAX_BYTES} bytes at most"));
    let said = request.headers().get(axum::http::header::CONTENT_LENGTH);
    let n_said = said.and_then(|length| length.to_str().ok()).and_then(|length| length.parse::<u64>().ok());
    if n_said.is_some_and(|n| n > N_MAX_BYTES as u64) {
        return Err(too_large());
    }
    let bytes = match tokio::time::timeout(TIMEOUT, to_bytes(request.into_body(), N_MAX_BYTES)).await {
        Ok(Ok(bytes)) => bytes,
        // With a length that fits it can only have broken off.
        Ok(Err(_)) if n_said.is_some() => {
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "the body broke off"));
        }
        Ok(Err(_)) => return Err(too_large()),
        Err(_) => return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")),
    };
    serde_json::from_slice(&bytes).map_err(|error| {
        Refusal::new(StatusCode::BAD_REQUEST, format!("the body is not understood: {error}"))
    })
}

//! What the server says about itself: whether it lives, which model it has, what it has done.
//!
//! Source: OpenAI API reference, "List models"; llama.cpp's server, `GET /health`.

use axum::Json;
use axum::extract::State as Extract;
use axum::http::header;
use axum::response::IntoResponse;
use serde_json::{Value, json};

use super::State;

pub(super) async fn health() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

pub(super) async fn metrics(Extract(state): Extract<State>) -> impl IntoResponse {
    let form = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, form)], state.metrics.text(state.gauges(), &state.engine))
}

pub(super) async fn models(Extract(state): Extract<State>) -> Json<Value> {
    let spec = state.engine.spec();
    Json(json!({
        "object": "list",
        "data": [{
            "id": state.model_name,
            "object": "model",
            "created": 0,
            "owned_by": "tandem",
            "meta": {
                "n_ctx": state.engine.n_ctx(),
                "n_ctx_train": spec.n_ctx,
                "n_vocab": spec.n_vocab,
                "n_embd": spec.n_embd,
            },
        }],
    }))
}

//! Server-sent events: an answer's parts as they come.
//!
//! In: answers on their way and how each event is dressed. Out: a response whose body is `data: …` lines.
//! Source: HTML Living Standard, "Server-sent events".

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;

use super::answer::{Answers, Event};

/// How a kind of request dresses its events.
pub(super) trait Dress: Send + 'static {
    /// Returns the data of the events for one of ours.
    fn event(&mut self, event: Event) -> Vec<String>;
    /// Returns the data of the events that end the stream.
    fn end(&mut self) -> Vec<String>;
}

/// Returns the response that streams the answers.
pub(super) fn response(answers: Answers, dress: impl Dress) -> Response {
    let flow = Flow { answers: Some(answers), dress, ready: VecDeque::new() };
    let chunks = stream::unfold(flow, |mut flow| async {
        let data = flow.next().await?;
        Some((Ok::<_, Infallible>(format!("data: {data}\n\n")), flow))
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(chunks)).into_response()
}

struct Flow<D> {
    /// Nothing once the answers have ended.
    answers: Option<Answers>,
    dress: D,
    ready: VecDeque<String>,
}

impl<D: Dress> Flow<D> {
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(data) = self.ready.pop_front() {
                return Some(data);
            }
            match self.answers.as_mut()?.next().await {
                Some(event) => self.ready.extend(self.dress.event(event)),
                None => {
                    self.answers = None;
                    self.ready.extend(self.dress.end());
                }
            }
        }
    }
}

//! What a server means when it refuses.
//!
//! In: a status and a body, in one of the forms that servers have for errors. Out: an [`Error`].
//! Never: the key, or a control character, in a message.

use serde_json::Value;

use crate::exchange::Head;
use crate::{Endpoint, Error};

/// Longest quotation of a server.
const N_MAX_CHARS: usize = 300;

/// Fields of a request that it can do without, should a server not know them.
pub(crate) const OPTIONAL: [&str; 5] = ["stream_options", "seed", "top_p", "temperature", "logprobs"];

/// Returns the error that a response with this head and body is. `body` is what was sent, to tell what was refused.
pub(crate) fn error(
    endpoint: &Endpoint,
    call: &'static str,
    head: &Head,
    response: &[u8],
    body: Option<&Value>,
) -> Error {
    let url = endpoint.url().to_owned();
    let status = head.status;
    let is_page = head.content_type.contains("html");
    let text = String::from_utf8_lossy(response);
    let value: Value = serde_json::from_str(&text).unwrap_or_default();
    let said = match message(&value) {
        Some(message) => message,
        None if is_page || value != Value::Null => String::new(),
        None => text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned(),
    };
    let said = clean(endpoint, &said);
    if (300..400).contains(&status)
        && let Some(to) = &head.location
    {
        return Error::Redirected { url, to: clean(endpoint, to) };
    }
    match status {
        401 | 403 => return Error::Denied { url, status, said },
        408 | 429 | 503 => return Error::Busy { url, status, said, retry_after: head.retry_after },
        413 => return Error::TooLong { url, said },
        _ => {}
    }
    let lower = said.to_lowercase();
    let code = code(&value);
    if is_about_length(&lower, code) {
        return Error::TooLong { url, said };
    }
    if let Some(model) = body.and_then(|body| body["model"].as_str())
        && (400..500).contains(&status)
        && is_about_model(&lower, code)
    {
        return Error::UnknownModel { url, model: model.to_owned(), served: Vec::new() };
    }
    let is_sent = |feature: &&str| body.is_some_and(|body| body.get(*feature).is_some());
    // llama.cpp's server has failed, and its Python sister fails, with 500 at the two that they have no way to do.
    // Any failure may name a field, so it must say as well that there is no way.
    let says_why = ["support", "not implemented", "logits"].iter().any(|words| lower.contains(words));
    let is_of_500 = |feature: &&str| status != 500 || says_why && ["suffix", "logprobs"].contains(feature);
    if matches!(status, 400 | 422 | 500)
        && let Some(feature) = OPTIONAL
            .into_iter()
            .chain(["suffix", "stream", "max_tokens", "stop"])
            .filter(is_sent)
            .filter(is_of_500)
            .find(|feature| lower.contains(feature))
    {
        return Error::Lacks { url, feature, said };
    }
    match status {
        404 | 405 => Error::NotFound { url, call, status, said },
        500.. => Error::Failed { url, status, said },
        _ if is_page => Error::WebPage { url },
        _ => Error::Refused { url, status, said },
    }
}

/// Returns the error that a value within a stream reports, if it is one.
pub(crate) fn error_within(endpoint: &Endpoint, value: &Value) -> Option<Error> {
    if value.get("error").is_none_or(Value::is_null) && value["object"] != "error" {
        return None;
    }
    let url = endpoint.url().to_owned();
    let said = clean(endpoint, &message(value).unwrap_or_default());
    let is_long = is_about_length(&said.to_lowercase(), code(value));
    Some(if is_long { Error::TooLong { url, said } } else { Error::Failed { url, status: 200, said } })
}

/// Returns the message in an error, in OpenAI's form, ollama's, vLLM's or FastAPI's.
fn message(value: &Value) -> Option<String> {
    let found = ["/error/message", "/error", "/message", "/detail/0/msg", "/detail"]
        .into_iter()
        .filter_map(|place| value.pointer(place)?.as_str());
    let message = found.map(str::to_owned).next()?;
    // FastAPI names the field beside the message.
    let field = value.pointer("/detail/0/loc").and_then(|loc| loc.as_array()?.last()?.as_str());
    Some(match field {
        Some(field) => format!("{field}: {message}"),
        None => message,
    })
}

fn code(value: &Value) -> &str {
    ["/error/code", "/error/type", "/code"]
        .into_iter()
        .find_map(|place| value.pointer(place)?.as_str())
        .unwrap_or_default()
}

fn is_about_length(said: &str, code: &str) -> bool {
    code.contains("context_length")
        || code.contains("context_size")
        || ["context length", "context window", "context size", "prompt is too long", "prompt too long"]
            .iter()
            .any(|words| said.contains(words))
}

fn is_about_model(said: &str, code: &str) -> bool {
    code == "model_not_found"
        || said.contains("model")
            && ["not found", "does not exist", "not exist", "unknown model", "invalid model", "no model"]
                .iter()
                .any(|words| said.contains(words))
}

fn clean(endpoint: &Endpoint, said: &str) -> String {
    let said: String = said.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let said = endpoint.key().map_or(said.clone(), |key| key.blot(&said));
    let mut short: String = said.trim().chars().take(N_MAX_CHARS).collect();
    if short.len() < said.trim().len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Key;

    fn head(status: u16, content_type: &str) -> Head {
        Head { status, content_type: content_type.into(), retry_after: None, location: None }
    }

    #[test]
    fn every_servers_way_of_refusing_is_understood() {
        let endpoint = Endpoint::parse("http://host").expect("sound");
        let sent = json!({"model": "m", "seed": 1, "stream_options": {}, "temperature": 0.8, "suffix": "x"});
        let check = |status: u16, body: Value, expected: &str| {
            let error = error(
                &endpoint,
                "chat/completions",
                &head(status, "application/json"),
                body.to_string().as_bytes(),
                Some(&sent),
            );
            let shown = format!("{error:?}");
            assert!(shown.starts_with(expected), "{status} {body}: {shown}");
            assert!(error.hint().is_some());
        };
        check(401, json!({"error": {"message": "Incorrect API key", "code": "invalid_api_key"}}), "Denied");
        check(
            429,
            json!({"error": {"message": "Rate limit reached: 3 tokens exceed context window"}}),
            "Busy",
        );
        check(503, json!({"error": {"message": "Loading model", "code": 503}}), "Busy");
        check(
            404,
            json!({"error": {"message": "The model `m` does not exist.", "code": 404}}),
            "UnknownModel",
        );
        check(404, json!({"error": {"message": "x", "code": "model_not_found"}}), "UnknownModel");
        check(404, json!({"error": "model \"m\" not found, try pulling it first"}), "UnknownModel");
        check(404, json!({"detail": "Not Found"}), "NotFound");
        check(405, json!({"detail": "Method Not Allowed"}), "NotFound");
        check(413, json!({}), "TooLong");
        check(
            400,
            json!({"object": "error", "message": "This model's maximum context length is 4096 tokens."}),
            "TooLong",
        );
        check(
            400,
            json!({"error": {"message": "exceeds the available", "type": "exceed_context_size_error"}}),
            "TooLong",
        );
        check(
            500,
            json!({"error": {"message": "Requested tokens (9) exceed context window of 8"}}),
            "TooLong",
        );
        check(
            400,
            json!({"error": {"message": "Unrecognized request argument supplied: stream_options"}}),
            "Lacks { url: \"http://host/v1\", feature: \"stream_options\"",
        );
        check(
            422,
            json!({"detail": [{"loc": ["body", "seed"], "msg": "extra fields not permitted"}]}),
            "Lacks { url: \"http://host/v1\", feature: \"seed\"",
        );
        check(400, json!({"error": {"message": "messages must not be empty"}}), "Refused");
        check(418, json!({}), "Refused");
        check(500, json!({"error": {"message": "boom"}}), "Failed");
        check(500, json!({"error": {"message": "temperature too high"}}), "Failed");
        check(500, json!({"error": {"message": "Unsupported param: logprobs"}}), "Failed");
        check(
            500,
            json!({"error": {"message": "Unsupported param: suffix"}}),
            "Lacks { url: \"http://host/v1\", feature: \"suffix\"",
        );
        check(500, json!({"error": {"message": "cuda error at logprobs.cu:7, suffix_array"}}), "Failed");
        check(501, json!({"error": {"message": "Infill is not supported by this model"}}), "Failed");
        check(502, json!("bad gateway"), "Failed");
    }

    #[test]
    fn pages_and_redirects_are_told_from_answers() {
        let endpoint = Endpoint::parse("http://host").expect("sound");
        let page = b"<html><body>secret</body></html>";
        let of = |head: Head| error(&endpoint, "models", &head, page, None);
        assert!(matches!(of(head(200, "text/html; charset=utf-8")), Error::WebPage { .. }));
        assert!(matches!(of(head(404, "text/html")), Error::NotFound { said, .. } if said.is_empty()));
        assert!(matches!(of(head(502, "text/html")), Error::Failed { said, .. } if said.is_empty()));
        let to = Head { location: Some("https://elsewhere/\u{1b}[2J".into()), ..head(307, "text/html") };
        assert!(matches!(of(to), Error::Redirected { to, .. } if to == "https://elsewhere/ [2J"));
    }

    #[test]
    fn a_quotation_is_short_and_has_neither_the_key_nor_control_characters() {
        let key = Key::new("sk-hunter2").expect("sendable");
        let endpoint = Endpoint::parse("http://host").expect("sound").with_key(key);
        let said = clean(&endpoint, "no\u{1b}[31m such key: sk-hunter2\n");
        assert_eq!(said, "no [31m such key: …");
        assert_eq!(clean(&endpoint, &"é".repeat(1000)).chars().count(), N_MAX_CHARS + 1);
    }
}

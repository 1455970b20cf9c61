//! Bytes to messages and back.
//!
//! In: the editor's byte stream. Out: its requests to the service, in order; what comes back to the editor.
//! Never: waits for an answer before it reads on, so a `$/cancelRequest` or a `didChange` is never held up.
//! Thread: the transport's task reads and calls the service; a task for each message waits for its answer; one writes.
//! Source: LSP 3.17, "Base Protocol"; JSON-RPC 2.0.
//!
//! tower-lsp's own `Server` (0.23.0) is not used: it polls four handlers at a time and stops reading when a hundred
//! more wait, cancellations included; one message that is no JSON ends its session, because the stream under its codec
//! ends after an error (`tests/order.rs` shows both); and at the end of its input it waits for all open handlers.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, Sink, SinkExt, StreamExt};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::{Notify, mpsc};
use tower::Service;
use tower_lsp::jsonrpc::{Error, ErrorCode, Id, Request, Response};
use tower_lsp::{ClientSocket, ExitedError};

use crate::{from_proto, to_proto};

/// Longest message: four times what VS Code keeps in sync with a server (files to 50 MiB), with room for escapes.
const N_MAX_BODY_BYTES: u64 = 256 << 20;
/// Longest header; ours and all known editors' are under 100 bytes.
const N_MAX_HEADER_BYTES: u64 = 8 << 10;
/// Messages that wait for the editor to read. Beyond, only the tasks that answer wait.
const N_MAX_OUTGOING: usize = 256;
/// How long the last answers may take to get out when the session is over.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why the transport stopped reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InputEnd {
    /// The editor said `exit`.
    Exit,
    /// The input was closed.
    Closed,
    /// The input lost its frames: where the next message begins is unknown.
    Garbled,
    /// The editor's process is gone, or does not read any more.
    Gone,
}

/// What goes to the editor.
enum Outgoing {
    Response(Response),
    Request(Request),
}

/// Carries a session's messages until one side ends it.
///
/// `on_lost` is called with the reason for each message that may have been a change of a document and cannot be read;
/// `on_end` is called once, to have all open requests answered.
pub(crate) async fn run<I, O, S>(
    input: I,
    output: O,
    mut service: S,
    socket: ClientSocket,
    gone: Arc<Notify>,
    on_lost: impl Fn(String),
    on_end: impl FnOnce(),
) -> InputEnd
where
    I: AsyncRead + Unpin,
    O: AsyncWrite + Unpin + Send + 'static,
    S: Service<Request, Response = Option<Response>, Error = ExitedError>,
    S::Future: Send + 'static,
{
    let (outgoing, incoming) = mpsc::channel(N_MAX_OUTGOING);
    let writer_gone = Arc::clone(&gone);
    let mut writer = tokio::spawn(async move {
        if let Err(error) = write(output, incoming).await {
            tracing::warn!(%error, "cannot write to the editor");
            writer_gone.notify_one();
        }
    });
    let (mut ours, mut theirs) = socket.split();
    let asked = outgoing.clone();
    let asking = tokio::spawn(async move {
        while let Some(request) = ours.next().await {
            if asked.send(Outgoing::Request(request)).await.is_err() {
                break;
            }
        }
    });

    let end = read_all(input, &mut service, &mut theirs, &outgoing, &gone, on_lost).await;

    on_end();
    asking.abort();
    drop(outgoing);
    // The writer ends by itself when the last answer is out. An editor that does not read must not keep us alive.
    if tokio::time::timeout(LAST_WORDS, &mut writer).await.is_err() {
        tracing::warn!("the editor does not read the last answers");
        writer.abort();
    }
    end
}

/// Hands every message on in the order of arrival, until the input ends or `gone` says that the editor has.
async fn read_all<S>(
    input: impl AsyncRead + Unpin,
    service: &mut S,
    theirs: &mut (impl Sink<Response> + Unpin),
    outgoing: &mpsc::Sender<Outgoing>,
    gone: &Notify,
    on_lost: impl Fn(String),
) -> InputEnd
where
    S: Service<Request, Response = Option<Response>, Error = ExitedError>,
    S::Future: Send + 'static,
{
    let mut input = BufReader::new(input);
    loop {
        let message = tokio::select! {
            biased;
            () = gone.notified() => break InputEnd::Gone,
            message = read(&mut input) => message,
        };
        match message {
            Ok(Incoming::Request(request)) => {
                let is_exit = request.method() == "exit";
                let id = request.id().cloned();
                if std::future::poll_fn(|cx| service.poll_ready(cx)).await.is_ok() {
                    // Here is the order: the call itself enqueues, only its answer is waited for elsewhere.
                    tokio::spawn(answer(id, service.call(request), outgoing.clone()));
                }
                if is_exit {
                    break InputEnd::Exit;
                }
            }
            Ok(Incoming::Response(response)) => {
                // It fails only after `exit`, when nobody waits for it.
                let _ = theirs.send(response).await;
            }
            Ok(Incoming::Refused { response, lost }) => {
                tracing::warn!(id = %response.id(), "a message of the editor is not JSON-RPC");
                if let Some(reason) = lost {
                    on_lost(reason);
                }
                let _ = outgoing.send(Outgoing::Response(response)).await;
            }
            Ok(Incoming::End) => break InputEnd::Closed,
            Err(garbled) => {
                tracing::error!(reason = %garbled, "the editor's messages cannot be told apart any more");
                let refusal = to_proto::error(ErrorCode::ParseError, garbled);
                let _ = outgoing.send(Outgoing::Response(Response::from_error(Id::Null, refusal))).await;
                break InputEnd::Garbled;
            }
        }
    }
}

/// Waits for a message's answer and sends it; a panic costs this message only.
async fn answer<F>(id: Option<Id>, future: F, outgoing: mpsc::Sender<Outgoing>)
where
    F: Future<Output = Result<Option<Response>, ExitedError>>,
{
    let response = match AssertUnwindSafe(future).catch_unwind().await {
        Ok(Ok(response)) => response,
        Ok(Err(ExitedError { .. })) => None,
        Err(_) => id.map(|id| Response::from_error(id, Error::internal_error())),
    };
    if let Some(response) = response {
        // It fails only when the editor is gone.
        let _ = outgoing.send(Outgoing::Response(response)).await;
    }
}

/// One message of the editor.
enum Incoming {
    Request(Request),
    Response(Response),
    /// The frame was whole but not a message.
    Refused {
        /// What to answer.
        response: Response,
        /// Why it cannot be read, if it may have been a change of a document.
        lost: Option<String>,
    },
    End,
}

/// Reads one message.
///
/// The error says why the frames are lost; after a body that cannot be understood the next message is still found.
async fn read<I: AsyncRead + Unpin>(input: &mut BufReader<I>) -> Result<Incoming, String> {
    let Some(n_body_bytes) = read_header(input).await? else {
        return Ok(Incoming::End);
    };
    // Memory grows with what arrives, not with what the header promises.
    let mut body = Vec::new();
    let n_read =
        (&mut *input).take(n_body_bytes).read_to_end(&mut body).await.map_err(|error| error.to_string())?;
    if (n_read as u64) < n_body_bytes {
        tracing::warn!(n_body_bytes, n_read, "the input ended inside a message");
        return Ok(Incoming::End);
    }
    Ok(parse(&body))
}

/// Returns the body's length, or `None` at the end of the input.
async fn read_header<I: AsyncRead + Unpin>(input: &mut BufReader<I>) -> Result<Option<u64>, String> {
    let mut n_left = N_MAX_HEADER_BYTES;
    let mut n_body_bytes = None;
    loop {
        let mut line = Vec::new();
        let n_read = (&mut *input)
            .take(n_left)
            .read_until(b'\n', &mut line)
            .await
            .map_err(|error| error.to_string())?;
        n_left -= n_read as u64;
        if !line.ends_with(b"\n") {
            if n_left == 0 {
                return Err(format!("a header is longer than {N_MAX_HEADER_BYTES} bytes"));
            }
            return Ok(None);
        }
        let line = String::from_utf8_lossy(&line);
        let line = line.trim();
        if line.is_empty() {
            let missing = || "a header lacks `Content-Length`".to_owned();
            return n_body_bytes.ok_or_else(missing).map(Some);
        }
        // `Content-Type` and what may come are read over: the only charset LSP knows is UTF-8.
        if let Some((name, value)) = line.split_once(':')
            && name.trim().eq_ignore_ascii_case("content-length")
        {
            n_body_bytes = Some(parse_length(value.trim())?);
        }
    }
}

fn parse_length(value: &str) -> Result<u64, String> {
    match value.parse() {
        Ok(n) if n <= N_MAX_BODY_BYTES => Ok(n),
        Ok(n) => Err(format!("`Content-Length: {n}` is over the limit of {N_MAX_BODY_BYTES} bytes")),
        Err(_) => Err("`Content-Length` is not a number of bytes".to_owned()),
    }
}

/// Returns what a body says. It is UTF-8 or no JSON at all.
fn parse(body: &[u8]) -> Incoming {
    let value = serde_json::from_slice(body).or_else(|_| serde_json::from_slice(&mend_surrogates(body)));
    let value: Value = match value {
        Ok(value) => value,
        // The message of serde_json gives line and column, not the text (I-9).
        Err(error) => {
            let reason = format!("not JSON: {error}");
            return refused(Id::Null, ErrorCode::ParseError, reason, true);
        }
    };
    let id = value.get("id").cloned().and_then(|id| serde_json::from_value(id).ok()).unwrap_or(Id::Null);
    let method = value.get("method").and_then(Value::as_str);
    let is_request = method.is_some();
    // LSP knows no batches, but one may hold anything.
    let may_be_text = method.is_some_and(from_proto::is_text) || value.is_array();
    let is_response = value.get("result").is_some() || value.get("error").is_some();
    let message = if is_request {
        serde_json::from_value(value).map(Incoming::Request)
    } else if is_response {
        serde_json::from_value(value).map(Incoming::Response)
    } else {
        let reason = "neither `method` nor `result` nor `error`".to_owned();
        return refused(id, ErrorCode::InvalidRequest, reason, may_be_text);
    };
    message.unwrap_or_else(|error| {
        let reason = format!("not a JSON-RPC 2.0 message: {error}");
        refused(id, ErrorCode::InvalidRequest, reason, may_be_text)
    })
}

fn refused(id: Id, code: ErrorCode, reason: String, may_be_text: bool) -> Incoming {
    let lost = may_be_text.then(|| reason.clone());
    let response = Response::from_error(id, to_proto::error(code, reason));
    Incoming::Refused { response, lost }
}

/// Returns a JSON text with `\ufffd` for each escape that is half of a surrogate pair.
///
/// A string of JavaScript may hold such a half, `JSON.stringify` writes it as an escape, and to serde_json it is an
/// error. U+FFFD, too, is one unit in UTF-16 and three bytes in UTF-8, so all columns stay.
fn mend_surrogates(body: &[u8]) -> Vec<u8> {
    let mut mended = Vec::with_capacity(body.len());
    let mut rest = body;
    while let Some(at) = rest.iter().position(|&byte| byte == b'\\') {
        let (plain, escape) = rest.split_at(at);
        mended.extend_from_slice(plain);
        let (n_escape_bytes, is_half) = match (escaped_unit(escape, 0), escaped_unit(escape, 6)) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => (12, false),
            (Some(unit), _) => (6, (0xD800..=0xDFFF).contains(&unit)),
            (None, _) => (2, false),
        };
        let (escape, after) = escape.split_at(n_escape_bytes.min(escape.len()));
        mended.extend_from_slice(if is_half { br"\ufffd" } else { escape });
        rest = after;
    }
    mended.extend_from_slice(rest);
    mended
}

/// Returns the unit of UTF-16 that an escape `\uXXXX` at `at` stands for.
fn escaped_unit(text: &[u8], at: usize) -> Option<u16> {
    let digits = text.get(at..at + 6)?.strip_prefix(br"\u")?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Writes messages until nobody can send one any more.
async fn write<O: AsyncWrite + Unpin>(
    mut output: O,
    mut incoming: mpsc::Receiver<Outgoing>,
) -> std::io::Result<()> {
    while let Some(message) = incoming.recv().await {
        let body = match &message {
            Outgoing::Response(response) => serde_json::to_vec(response),
            Outgoing::Request(request) => serde_json::to_vec(request),
        };
        let body = body.map_err(std::io::Error::other)?;
        let mut frame = format!("Content-Length: {}\r\n\r\n", body.len()).into_bytes();
        frame.extend_from_slice(&body);
        output.write_all(&frame).await?;
        output.flush().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escaped_half_of_a_surrogate_pair_is_one_unknown_character() {
        let check = |text: &str, expect: &str| {
            let body = format!(r#"{{"jsonrpc":"2.0","method":"m","params":["{text}"]}}"#);
            let Incoming::Request(request) = parse(body.as_bytes()) else {
                panic!("{text} is refused");
            };
            assert_eq!(request.params().map(|params| &params[0]), Some(&expect.into()), "{text}");
        };
        check(r"a\ud83db", "a\u{fffd}b");
        check(r"\uDE00", "\u{fffd}");
        check(r"\ud83d\ud83d\ude00\ude00", "\u{fffd}😀\u{fffd}");
        check(r"\ud83d\u0041\n\ud83d", "\u{fffd}A\n\u{fffd}");
        // No escapes: a backslash stands ahead of the `u`.
        check(r"\\ud83d \\\ud83d \ud83d\\ude00", "\\ud83d \\\u{fffd} \u{fffd}\\ude00");
    }

    #[test]
    fn a_message_that_cannot_be_read_is_lost_if_it_may_have_been_a_change() {
        let check = |body: &[u8], expect: bool| {
            let Incoming::Refused { lost, .. } = parse(body) else {
                panic!("{} is not refused", String::from_utf8_lossy(body));
            };
            assert_eq!(lost.is_some(), expect, "{}", String::from_utf8_lossy(body));
        };
        check(b"{\"text\":\"\xED\xA0\xBD\"}", true);
        check(br#"{"text":"\ud8"}"#, true);
        check(br#"{"text":"\"#, true);
        check(br#"[{"jsonrpc":"2.0","method":"textDocument/didChange"}]"#, true);
        check(br#"{"jsonrpc":"1.0","method":"textDocument/didChange"}"#, true);
        check(br#"{"jsonrpc":"1.0","method":"textDocument/hover"}"#, false);
        check(br#"{"jsonrpc":"2.0"}"#, false);
    }
}

//! Our answers to LSP's messages.
//!
//! In: [`Answer`]. Out: JSON-RPC responses and errors.
//! Source: LSP 3.18, "Inline Completion Request".

use serde_json::json;
use text::{Position, PositionEncoding};
use tower_lsp::jsonrpc::{Error, ErrorCode, Id, Response};
use tower_lsp::ls_types::{self as lsp, InlineCompletionItem, InlineCompletionList, PositionEncodingKind};

use crate::from_proto::ACCEPTED;
use crate::main_loop::{Answer, Shown};

/// Returns the one response to a request.
pub(crate) fn response(id: Id, answer: Answer) -> Response {
    let result = match answer {
        Answer::Ghost(shown) => Ok(json!(InlineCompletionList { items: vec![item(shown)] })),
        Answer::Nothing => Ok(serde_json::Value::Null),
        Answer::Text { text, version, is_in_sync } => {
            Ok(json!({ "text": text, "version": version, "isInSync": is_in_sync }))
        }
        Answer::Why(record) => Ok(record),
        Answer::Cancelled => Err(Error::request_cancelled()),
        Answer::Refused(reason) => Err(Error::invalid_params(reason)),
        Answer::Duplicate => {
            Err(error(ErrorCode::InvalidRequest, "a request with this id is not answered yet".to_owned()))
        }
        Answer::Failed(reason) => Err(error(ErrorCode::InternalError, reason)),
    };
    Response::from_parts(id, result)
}

/// Returns an error of JSON-RPC.
pub(crate) fn error(code: ErrorCode, message: String) -> Error {
    Error { code, message: message.into(), data: None }
}

/// Returns LSP's name of an encoding.
pub(crate) fn encoding(encoding: PositionEncoding) -> PositionEncodingKind {
    match encoding {
        PositionEncoding::Utf8 => PositionEncodingKind::UTF8,
        PositionEncoding::Utf16 => PositionEncodingKind::UTF16,
        PositionEncoding::Utf32 => PositionEncodingKind::UTF32,
    }
}

/// No `insertTextFormat`: the default is plain text, so that a `$` of the model is a `$`.
fn item(shown: Shown) -> InlineCompletionItem {
    let range = lsp::Range { start: position(shown.start), end: position(shown.end) };
    InlineCompletionItem {
        insert_text: shown.insert,
        filter_text: None,
        range: Some(range),
        command: Some(lsp::Command {
            title: "Tandem: accepted".to_owned(),
            command: ACCEPTED.to_owned(),
            arguments: Some(vec![shown.id.into()]),
        }),
        insert_text_format: None,
    }
}

fn position(position: Position) -> lsp::Position {
    lsp::Position { line: position.line, character: position.character }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ghost_text_becomes_a_list_with_a_range_and_plain_text() {
        let at = Position { line: 1, character: 2 };
        let answer =
            Answer::Ghost(Shown { id: "1-2".to_owned(), insert: "f($1)".to_owned(), start: at, end: at });
        let response = serde_json::to_value(response(Id::Number(7), answer)).expect("JSON");
        let at = json!({ "line": 1, "character": 2 });
        let command = json!({ "title": "Tandem: accepted", "command": ACCEPTED, "arguments": ["1-2"] });
        let range = json!({ "start": at, "end": at });
        let items = json!([{ "insertText": "f($1)", "range": range, "command": command }]);
        assert_eq!(response, json!({ "jsonrpc": "2.0", "id": 7, "result": { "items": items } }));
    }

    #[test]
    fn no_ghost_text_is_null_and_cancelled_is_an_error() {
        let nothing = serde_json::to_value(response(Id::Number(1), Answer::Nothing)).expect("JSON");
        assert_eq!(nothing, json!({ "jsonrpc": "2.0", "id": 1, "result": null }));
        let cancelled = serde_json::to_value(response(Id::Number(1), Answer::Cancelled)).expect("JSON");
        assert_eq!(cancelled["error"]["code"], -32800);
    }
}

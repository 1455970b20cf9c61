//! LSP's messages to ours; below this module nothing names an LSP type.
//!
//! In: JSON-RPC requests. Out: [`Told`], [`Asked`], [`Client`], or why they cannot be understood.
//! Source: LSP 3.17, "Text Document Synchronization", "Cancellation Support"; 3.18, "Inline Completion Request".

use std::path::PathBuf;
use std::time::Duration;

use complete::Trigger;
use serde::de::DeserializeOwned;
use text::{ContentChange, Document, Position, PositionEncoding};
use tower_lsp::jsonrpc::{Id, Request};
use tower_lsp::ls_types::{
    self as lsp, DidChangeTextDocumentParams, DidCloseTextDocumentParams, DidOpenTextDocumentParams,
    InitializeParams, InlineCompletionParams, InlineCompletionTriggerKind, PositionEncodingKind,
};

use crate::editor::Can;

/// A custom request that returns a document as the server has it, for tests and bug reports.
pub(crate) const DOCUMENT_TEXT: &str = "tandem/documentText";
/// A custom request that tells how the last inline completion of a document was answered.
pub(crate) const WHY: &str = "tandem/why";
/// The command that each item of ghost text carries, with its id: the editor runs it when its user accepts the item.
pub(crate) const ACCEPTED: &str = "tandem.accepted";
/// The command that keeps the server silent for so many minutes, except to who asks.
const SNOOZE: &str = "tandem.snooze";
const UNSNOOZE: &str = "tandem.unsnooze";
/// All commands.
pub(crate) const COMMANDS: &[&str] = &[ACCEPTED, SNOOZE, UNSNOOZE];
/// Where an editor keeps our settings.
pub(crate) const SECTION: &str = "tandem";
/// A custom request that tells what the server is about, and what is allowed in a document.
pub(crate) const STATUS: &str = "tandem/status";
/// The request of editors that know no ghost text.
const COMPLETION: &str = "textDocument/completion";
const DID_SHOW: &str = "textDocument/didShowCompletion";
const DID_PARTIALLY_ACCEPT: &str = "textDocument/didPartiallyAcceptCompletion";
const EXECUTE: &str = "workspace/executeCommand";
const INLINE_COMPLETION: &str = "textDocument/inlineCompletion";

/// What `initialize` says about the editor.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Client {
    /// Name and version, for the log.
    pub(crate) name: String,
    pub(crate) encoding: PositionEncoding,
    pub(crate) supports_progress: bool,
    pub(crate) process_id: Option<u32>,
    pub(crate) can: Can,
    /// The workspace's folders, by their URIs.
    pub(crate) folders: Vec<String>,
    /// Settings, or nothing.
    pub(crate) options: serde_json::Value,
}

/// A notification the main loop hears.
#[derive(Debug)]
pub(crate) enum Told {
    Initialized,
    Opened {
        uri: String,
        language_id: String,
        document: Document,
    },
    Changed {
        uri: String,
        version: i32,
        changes: Vec<ContentChange>,
    },
    Closed {
        uri: String,
    },
    /// What the editor did to a document could not be understood; without a URI it may have been any document.
    Lost {
        uri: Option<String>,
        reason: String,
    },
    Cancelled(Id),
    FoldersChanged {
        added: Vec<String>,
        removed: Vec<String>,
    },
    /// The editor's settings are others now; it may say which.
    ConfigurationChanged(serde_json::Value),
    /// Files have changed that the server asked to be told of, by their URIs.
    FilesChanged(Vec<(String, FileChange)>),
    /// An item of ghost text is before the user's eyes.
    Showed {
        item: String,
    },
    /// A part of an item was accepted.
    PartlyAccepted {
        item: String,
        /// UTF-16 units of the item's text that stand in the document, whatever characters are counted in else.
        n_utf16: usize,
    },
}

/// What happened to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileChange {
    Created,
    Changed,
    Deleted,
}

/// A request the main loop answers.
#[derive(Debug)]
pub(crate) enum Asked {
    InlineCompletion(Cursor),
    /// For the editor's own list.
    Completion(Cursor),
    Status {
        uri: Option<String>,
    },
    DocumentText {
        uri: String,
    },
    Why {
        uri: String,
    },
    Execute(Command),
}

/// What an editor has the server do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// An item of ghost text was accepted.
    Accepted { item: String },
    /// Stay silent for so long; for no time, speak again.
    Snooze(Duration),
}

/// A place where ghost text is wanted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) uri: String,
    pub(crate) position: Position,
    pub(crate) trigger: Trigger,
    /// What the editor's own completion list would put there.
    pub(crate) selected: Option<Selected>,
}

/// The item selected in the editor's completion list: ghost text must begin with it and replace its range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selected {
    pub(crate) start: Position,
    pub(crate) end: Position,
    pub(crate) text: String,
}

/// Returns what `initialize` says, if it can be understood.
pub(crate) fn client(params: Option<&serde_json::Value>) -> Option<Client> {
    let params: InitializeParams = serde_json::from_value(params?.clone()).ok()?;
    let info = params.client_info.as_ref();
    let (can, folders) = (can(&params), folders(&params));
    let name = info.map(|info| format!("{} {}", info.name, info.version.as_deref().unwrap_or_default()));
    Some(Client {
        name: name.unwrap_or_default(),
        encoding: encoding(&params),
        supports_progress: params.capabilities.window.as_ref().and_then(|window| window.work_done_progress)
            == Some(true),
        process_id: params.process_id,
        can,
        folders,
        options: params.initialization_options.unwrap_or_default(),
    })
}

/// Returns whether the editor knows ghost text.
pub(crate) fn knows_ghost_text(params: &InitializeParams) -> bool {
    params.capabilities.text_document.as_ref().is_some_and(|can| can.inline_completion.is_some())
}

fn can(params: &InitializeParams) -> Can {
    let Some(can) = &params.capabilities.workspace else { return Can::default() };
    let settings = can.did_change_configuration.as_ref().and_then(|can| can.dynamic_registration);
    let files = can.did_change_watched_files.as_ref().and_then(|can| can.dynamic_registration);
    Can {
        configuration: can.configuration == Some(true),
        register_configuration: settings == Some(true),
        register_files: files == Some(true),
    }
}

fn folders(params: &InitializeParams) -> Vec<String> {
    if let Some(folders) = &params.workspace_folders {
        return folders.iter().map(|folder| folder.uri.as_str().to_owned()).collect();
    }
    #[expect(deprecated, reason = "older editors have one folder, and say it so")]
    let root = params.root_uri.as_ref();
    root.map(|uri| uri.as_str().to_owned()).into_iter().collect()
}

/// Returns the path of a file's URI.
pub(crate) fn path(uri: &str) -> Option<PathBuf> {
    let uri: lsp::Uri = uri.parse().ok().filter(|_| uri.starts_with("file:"))?;
    uri.to_file_path().map(std::borrow::Cow::into_owned)
}

/// Returns the encoding to count characters in: UTF-8 where offered, else the first the editor prefers and we know.
pub(crate) fn encoding(params: &InitializeParams) -> PositionEncoding {
    let offered =
        params.capabilities.general.as_ref().and_then(|general| general.position_encodings.as_deref());
    let offered = offered.unwrap_or_default();
    if offered.contains(&PositionEncodingKind::UTF8) {
        return PositionEncoding::Utf8;
    }
    let known = |kind: &PositionEncodingKind| match kind.as_str() {
        "utf-16" => Some(PositionEncoding::Utf16),
        "utf-32" => Some(PositionEncoding::Utf32),
        _ => None,
    };
    offered.iter().find_map(known).unwrap_or_default()
}

/// Returns whether a notification is the main loop's.
pub(crate) fn is_told(method: &str) -> bool {
    matches!(
        method,
        "initialized"
            | "textDocument/didOpen"
            | "textDocument/didChange"
            | "textDocument/didClose"
            | "$/cancelRequest"
            | "workspace/didChangeWorkspaceFolders"
            | "workspace/didChangeConfiguration"
            | "workspace/didChangeWatchedFiles"
            | DID_SHOW
            | DID_PARTIALLY_ACCEPT
    )
}

/// Returns whether a request is the main loop's.
pub(crate) fn is_asked(method: &str) -> bool {
    matches!(method, INLINE_COMPLETION | COMPLETION | DOCUMENT_TEXT | WHY | STATUS | EXECUTE)
}

/// Returns whether a notification carries a document's text or a change of it: without it our text is wrong (I-8).
pub(crate) fn is_text(method: &str) -> bool {
    matches!(method, "textDocument/didOpen" | "textDocument/didChange")
}

/// Returns a notification of [`is_told`]; one of [`is_text`] that cannot be understood is [`Told::Lost`].
///
/// # Errors
/// Why it cannot be understood; it names no part of the parameters, which may hold source text (I-9).
pub(crate) fn told(request: &Request) -> Result<Told, String> {
    match understood(request) {
        Err(reason) if is_text(request.method()) => {
            let uri = request.params().and_then(|params| params["textDocument"]["uri"].as_str());
            Ok(Told::Lost { uri: uri.map(str::to_owned), reason })
        }
        told => told,
    }
}

fn understood(request: &Request) -> Result<Told, String> {
    Ok(match request.method() {
        "initialized" => Told::Initialized,
        "textDocument/didOpen" => {
            let DidOpenTextDocumentParams { text_document: item } = params(request)?;
            Told::Opened {
                uri: item.uri.as_str().to_owned(),
                language_id: item.language_id.clone(),
                document: Document::open(&item.text, item.version),
            }
        }
        "textDocument/didChange" => {
            let DidChangeTextDocumentParams { text_document, content_changes } = params(request)?;
            let changes = content_changes.into_iter().map(|change| ContentChange {
                range: change.range.map(|range| (position(range.start), position(range.end))),
                text: change.text,
            });
            Told::Changed {
                uri: text_document.uri.as_str().to_owned(),
                version: text_document.version,
                changes: changes.collect(),
            }
        }
        "textDocument/didClose" => {
            let DidCloseTextDocumentParams { text_document } = params(request)?;
            Told::Closed { uri: text_document.uri.as_str().to_owned() }
        }
        // Not LSP's own type: its numbers are 32 bits, those of JSON-RPC ids are not.
        "$/cancelRequest" => {
            let id = request.params().and_then(|params| params.get("id")).cloned();
            let id = id.and_then(|id| serde_json::from_value(id).ok());
            Told::Cancelled(id.ok_or("it names no request")?)
        }
        "workspace/didChangeWorkspaceFolders" => {
            let lsp::DidChangeWorkspaceFoldersParams { event } = params(request)?;
            let uris = |folders: Vec<lsp::WorkspaceFolder>| {
                folders.iter().map(|folder| folder.uri.as_str().to_owned()).collect()
            };
            Told::FoldersChanged { added: uris(event.added), removed: uris(event.removed) }
        }
        "workspace/didChangeConfiguration" => {
            let settings = request.params().and_then(|params| params.get("settings")).cloned();
            Told::ConfigurationChanged(settings.unwrap_or_default())
        }
        "workspace/didChangeWatchedFiles" => {
            let lsp::DidChangeWatchedFilesParams { changes } = params(request)?;
            let change = |event: &lsp::FileEvent| match event.typ {
                lsp::FileChangeType::CREATED => FileChange::Created,
                lsp::FileChangeType::DELETED => FileChange::Deleted,
                _ => FileChange::Changed,
            };
            let changes = changes.iter().map(|event| (event.uri.as_str().to_owned(), change(event)));
            Told::FilesChanged(changes.collect())
        }
        DID_SHOW => Told::Showed { item: item(request)? },
        DID_PARTIALLY_ACCEPT => {
            let n_utf16 = request.params().and_then(|params| params["acceptedLength"].as_u64());
            let n_utf16 = n_utf16.ok_or("`acceptedLength` is missing")?;
            let n_utf16 = usize::try_from(n_utf16).unwrap_or(usize::MAX);
            Told::PartlyAccepted { item: item(request)?, n_utf16 }
        }
        _ => return Err("it is not known here".to_owned()),
    })
}

/// Returns a request of [`is_asked`].
///
/// # Errors
/// Why it cannot be understood, for the editor.
pub(crate) fn asked(request: &Request) -> Result<Asked, String> {
    if matches!(request.method(), DOCUMENT_TEXT | WHY) {
        let uri = request.params().and_then(|params| params["textDocument"]["uri"].as_str());
        let uri = uri.ok_or("`textDocument.uri` is missing")?.to_owned();
        let is_why = request.method() == WHY;
        return Ok(if is_why { Asked::Why { uri } } else { Asked::DocumentText { uri } });
    }
    if request.method() == STATUS {
        let uri = request.params().and_then(|params| params["textDocument"]["uri"].as_str());
        return Ok(Asked::Status { uri: uri.map(str::to_owned) });
    }
    if request.method() == COMPLETION {
        let lsp::CompletionParams { text_document_position: at, .. } = params(request)?;
        return Ok(Asked::Completion(Cursor {
            uri: at.text_document.uri.as_str().to_owned(),
            position: position(at.position),
            // Editors say `Invoked` for each letter of a word.
            trigger: Trigger::Automatic,
            selected: None,
        }));
    }
    if request.method() == EXECUTE {
        return command(request).map(Asked::Execute);
    }
    let InlineCompletionParams { text_document_position: at, context, .. } = params(request)?;
    let trigger = match context.trigger_kind {
        InlineCompletionTriggerKind::INVOKED => Trigger::Invoked,
        _ => Trigger::Automatic,
    };
    let selected = context.selected_completion_info.map(|info| Selected {
        start: position(info.range.start),
        end: position(info.range.end),
        text: info.text,
    });
    Ok(Asked::InlineCompletion(Cursor {
        uri: at.text_document.uri.as_str().to_owned(),
        position: position(at.position),
        trigger,
        selected,
    }))
}

/// Returns the id of the item that a notification is about.
fn item(request: &Request) -> Result<String, String> {
    let id = request.params().and_then(|params| params["item"]["command"]["arguments"][0].as_str());
    id.map(str::to_owned).ok_or_else(|| "its item lacks its command, or that its id".to_owned())
}

fn command(request: &Request) -> Result<Command, String> {
    let lsp::ExecuteCommandParams { command, arguments, .. } = params(request)?;
    match command.as_str() {
        ACCEPTED => {
            let item = arguments.first().and_then(serde_json::Value::as_str);
            let item = item.ok_or_else(|| format!("`{ACCEPTED}` lacks the item's id"))?;
            Ok(Command::Accepted { item: item.to_owned() })
        }
        SNOOZE => {
            let minutes = arguments.first().map(|argument| argument.get("minutes").unwrap_or(argument));
            let minutes = minutes.and_then(serde_json::Value::as_u64);
            let minutes = minutes.ok_or_else(|| format!("`{SNOOZE}` lacks a whole number of minutes"))?;
            Ok(Command::Snooze(Duration::from_secs(minutes.saturating_mul(60))))
        }
        UNSNOOZE => Ok(Command::Snooze(Duration::ZERO)),
        _ => Err("there is no such command".to_owned()),
    }
}

fn params<P: DeserializeOwned>(request: &Request) -> Result<P, String> {
    let params = request.params().ok_or_else(|| format!("`{}` lacks its parameters", request.method()))?;
    P::deserialize(params).map_err(|error| {
        tracing::trace!(method = request.method(), %error, "parameters");
        format!("the parameters are not those of `{}`", request.method())
    })
}

fn position(position: lsp::Position) -> Position {
    Position { line: position.line, character: position.character }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_position_encoding_is_utf8_where_offered_else_the_editors_first() {
        let check = |offered: serde_json::Value, expected: PositionEncoding| {
            let params = json!({ "capabilities": { "general": { "positionEncodings": offered } } });
            assert_eq!(client(Some(&params)).map(|client| client.encoding), Some(expected), "{offered}");
        };
        check(json!(["utf-16", "utf-8"]), PositionEncoding::Utf8);
        check(json!(["utf-16"]), PositionEncoding::Utf16);
        check(json!(["utf-32", "utf-16"]), PositionEncoding::Utf32);
        check(json!(["utf-16", "utf-32"]), PositionEncoding::Utf16);
        check(json!(["utf-7"]), PositionEncoding::Utf16);
        check(json!([]), PositionEncoding::Utf16);
        let nothing_said = json!({ "capabilities": {} });
        assert_eq!(client(Some(&nothing_said)).map(|client| client.encoding), Some(PositionEncoding::Utf16));
    }

    #[test]
    fn a_message_that_cannot_be_understood_is_refused_without_its_text() {
        let request =
            |method: &'static str, params: serde_json::Value| Request::build(method).params(params).finish();
        let refused = asked(&request("textDocument/inlineCompletion", json!({ "position": "SECRET" })))
            .expect_err("refused");
        assert!(!refused.contains("SECRET"), "{refused}");
        assert!(told(&Request::build("textDocument/didClose").finish()).is_err());
        assert!(told(&request("$/cancelRequest", json!({ "id": 1.5 }))).is_err());
        assert!(asked(&request(DOCUMENT_TEXT, json!([]))).is_err());
    }

    #[test]
    fn a_text_that_cannot_be_understood_is_lost_and_its_document_named_where_it_can_be() {
        let check = |method: &'static str, params: Option<serde_json::Value>, expected: Option<&str>| {
            let mut request = Request::build(method);
            if let Some(params) = params {
                request = request.params(params);
            }
            let Ok(Told::Lost { uri, reason }) = told(&request.finish()) else {
                panic!("{method} is not lost");
            };
            assert_eq!(uri.as_deref(), expected);
            assert!(reason.contains(method) && !reason.contains("SECRET"), "{reason}");
        };
        let item = json!({ "uri": "file:///a", "languageId": "x", "version": "SECRET", "text": "" });
        check("textDocument/didOpen", Some(json!({ "textDocument": item })), Some("file:///a"));
        let no_uri = json!({ "uri": "no SECRET uri", "version": 2 });
        let params = json!({ "textDocument": no_uri, "contentChanges": [] });
        check("textDocument/didChange", Some(params), Some("no SECRET uri"));
        let document = json!({ "uri": "file:///a", "version": 2 });
        let at = json!({ "line": -1, "character": 0 });
        let changes = json!([{ "text": "SECRET", "range": { "start": at, "end": at } }]);
        let params = json!({ "textDocument": document, "contentChanges": changes });
        check("textDocument/didChange", Some(params), Some("file:///a"));
        check("textDocument/didChange", Some(json!({ "textDocument": 5 })), None);
        check("textDocument/didChange", Some(json!([])), None);
        check("textDocument/didChange", None, None);
    }

    #[test]
    fn a_cancelled_id_may_be_a_word_or_a_long_number() {
        let check = |id: serde_json::Value, expected: Id| {
            let request = Request::build("$/cancelRequest").params(json!({ "id": id })).finish();
            assert!(matches!(told(&request), Ok(Told::Cancelled(id)) if id == expected));
        };
        check(json!("a"), Id::String("a".to_owned()));
        check(json!(1_i64 << 40), Id::Number(1 << 40));
    }
}

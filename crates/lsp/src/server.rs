//! A session from its first byte to its exit code.
//!
//! In: two streams and a way to get a model. Out: [`SessionEnd`].
//! Thread: the caller's runs the transport; it starts `main`, which starts `completion`.
//! Source: LSP 3.17, "Server lifecycle".

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tower_lsp::jsonrpc::Result as Answer;
use tower_lsp::ls_types::{
    CompletionOptions, DidSaveTextDocumentParams, ExecuteCommandOptions, InitializeParams, InitializeResult,
    OneOf, ServerCapabilities, ServerInfo, TextDocumentSyncCapability, TextDocumentSyncKind,
    TextDocumentSyncOptions, TextDocumentSyncSaveOptions, WillSaveTextDocumentParams,
    WorkspaceFoldersServerCapabilities, WorkspaceServerCapabilities,
};
use tower_lsp::{LanguageServer, LspService};

use crate::fate::OnFate;
use crate::from_proto::Told;
use crate::main_loop::{Event, MainLoop};
use crate::memory::Remembering;
use crate::service::{Ordered, Phase};
use crate::transport::{self, InputEnd};
use crate::{Error, LoadModel, from_proto, progress, to_proto};

/// How long what is remembered may take to be written at the end.
const LAST_WRITE: Duration = Duration::from_secs(2);

/// What a session is started with.
pub struct ServerOptions {
    /// Gets the model; called once, after the editor's `initialized`.
    pub load_model: LoadModel,
    /// Limits of a completion.
    pub complete: complete::Options,
    /// The file in which what became of ghost text is remembered, if it is to be.
    pub memory: Option<PathBuf>,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// As LSP says: `shutdown`, then `exit` or the end of the input.
    Clean,
    /// `exit` without `shutdown`.
    NotShutDown,
    /// The input ended without `shutdown`.
    InputClosed,
    /// The input could not be told apart into messages any more.
    Garbled,
    /// The editor's process is gone, or does not read.
    EditorGone,
}

impl SessionEnd {
    /// Returns the process's exit code: 0 after `shutdown`, 1 without, as LSP wants it.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        u8::from(self != Self::Clean)
    }
}

/// Runs a session over stdin and stdout; nothing else may be written to stdout (I-12).
///
/// # Errors
/// [`Error::Start`] if the system gives us no runtime or no thread.
pub fn serve(options: ServerOptions) -> Result<SessionEnd, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let end = runtime.block_on(serve_on(tokio::io::stdin(), tokio::io::stdout(), options));
    // A read of stdin cannot be stopped; the editor may leave it open after `exit`.
    runtime.shutdown_background();
    end
}

/// Runs a session over any two streams, inside a tokio runtime.
///
/// # Errors
/// [`Error::Start`] if the system gives us no thread.
pub async fn serve_on<I, O>(input: I, output: O, options: ServerOptions) -> Result<SessionEnd, Error>
where
    I: AsyncRead + Unpin,
    O: AsyncWrite + Unpin + Send + 'static,
{
    serve_with(input, output, options, Box::new(|_| {})).await
}

/// Runs a session; `on_fate` hears on the main loop what becomes of ghost text.
pub(crate) async fn serve_with<I, O>(
    input: I,
    output: O,
    options: ServerOptions,
    on_fate: OnFate,
) -> Result<SessionEnd, Error>
where
    I: AsyncRead + Unpin,
    O: AsyncWrite + Unpin + Send + 'static,
{
    let (events, event_queue) = crossbeam_channel::unbounded();
    let (progress, teller) = progress::channel();
    let ServerOptions { load_model, complete, memory } = options;
    let hearing = events.clone();
    let on_calibration = move |calibration| {
        // It fails only when the session is over.
        let _ = hearing.send(Event::Calibrated(calibration));
    };
    let memory = memory.map(|path| Remembering::start(path, on_calibration)).transpose()?;
    let main_loop = MainLoop::new(load_model, complete, memory, on_fate, events.clone(), progress.clone());
    let main =
        std::thread::Builder::new().name("main".to_owned()).spawn(move || main_loop.run(&event_queue))?;

    let mut client = None;
    let (inner, socket) = LspService::new(|ours| {
        client = Some(ours);
        Backend
    });
    let telling = client.map(|client| tokio::spawn(teller.run(client, events.clone())));
    let gone = Arc::new(Notify::new());
    let phase = Arc::new(Phase::default());
    let service = Ordered::new(inner, Arc::clone(&phase), events.clone(), progress, Arc::clone(&gone));
    let on_lost = |reason| {
        // It fails only if the main loop panicked.
        let _ = events.send(Event::Told(Told::Lost { uri: None, reason }));
    };
    let on_end = || {
        // It fails only if the main loop panicked.
        let _ = events.send(Event::End);
    };
    let end = transport::run(input, output, service, socket, gone, on_lost, on_end).await;
    if let Some(telling) = telling {
        telling.abort();
    }
    // What became of ghost text is still to be written.
    let written = tokio::task::spawn_blocking(move || main.join());
    if tokio::time::timeout(LAST_WRITE, written).await.is_err() {
        tracing::warn!("the session's end could not be waited for");
    }
    let end = match end {
        InputEnd::Exit | InputEnd::Closed if phase.is_shut_down() => SessionEnd::Clean,
        InputEnd::Exit => SessionEnd::NotShutDown,
        InputEnd::Closed => SessionEnd::InputClosed,
        InputEnd::Garbled => SessionEnd::Garbled,
        InputEnd::Gone => SessionEnd::EditorGone,
    };
    tracing::info!(?end, "session over");
    Ok(end)
}

/// What needs no order, and so is tower-lsp's.
///
/// The empty handlers are for what editors send unasked; tower-lsp's own log a warning each time.
struct Backend;

impl LanguageServer for Backend {
    async fn initialize(&self, params: InitializeParams) -> Answer<InitializeResult> {
        let sync = TextDocumentSyncOptions {
            open_close: Some(true),
            change: Some(TextDocumentSyncKind::INCREMENTAL),
            save: Some(TextDocumentSyncSaveOptions::Supported(true)),
            ..TextDocumentSyncOptions::default()
        };
        let folders = WorkspaceFoldersServerCapabilities {
            supported: Some(true),
            change_notifications: Some(OneOf::Left(true)),
        };
        // An editor that knows ghost text would show the same twice.
        let is_list = !from_proto::knows_ghost_text(&params);
        Ok(InitializeResult {
            capabilities: ServerCapabilities {
                position_encoding: Some(to_proto::encoding(from_proto::encoding(&params))),
                text_document_sync: Some(TextDocumentSyncCapability::Options(sync)),
                inline_completion_provider: Some(OneOf::Left(true)),
                completion_provider: is_list.then(CompletionOptions::default),
                workspace: Some(WorkspaceServerCapabilities {
                    workspace_folders: Some(folders),
                    file_operations: None,
                }),
                execute_command_provider: Some(ExecuteCommandOptions {
                    commands: from_proto::COMMANDS.iter().map(|&name| name.to_owned()).collect(),
                    ..ExecuteCommandOptions::default()
                }),
                ..ServerCapabilities::default()
            },
            server_info: Some(ServerInfo {
                name: "tandem".to_owned(),
                version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            }),
            offset_encoding: None,
        })
    }

    async fn shutdown(&self) -> Answer<()> {
        Ok(())
    }

    async fn did_save(&self, _: DidSaveTextDocumentParams) {}

    async fn will_save(&self, _: WillSaveTextDocumentParams) {}
}

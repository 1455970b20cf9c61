//! `agent lsp`: the language server, over stdin and stdout.
//!
//! In: an editor's messages. Out: the server's; the exit code LSP asks for.
//! Never: prints; stdout is the protocol's (I-12), and what a human should know goes to the editor.
//! Thread: the caller's serves; the model is fetched, and the engine's process reached, on the server's completion
//! thread.

use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use ::models::{CancelFlag, Catalogue, Dirs, Progress};
use clap::Args;
use complete::{Model, Options};
use lsp::{LoadPhase, LoadStep, ServerOptions};

use crate::endpoint::{EndpointModel, GhostEndpointArgs, Patient};
use crate::failure::{Failure, code};
use crate::model::{EngineArgs, share_or_load};
use crate::models::{announcement, chosen, ensure};
use crate::stats;

/// Serve an editor: ghost text over the Language Server Protocol
#[derive(Args, Debug)]
pub(crate) struct LspArgs {
    /// Talk over stdin and stdout, as happens without it too: many editors say it
    #[arg(long)]
    stdio: bool,
    /// Remember nothing of what becomes of ghost text
    #[arg(long, hide = true)]
    no_memory: bool,
    #[command(flatten)]
    endpoint: GhostEndpointArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

/// How long a fetch that nobody waits for any more may take to stop.
const STOP_FETCH: Duration = Duration::from_secs(2);

/// Runs `agent lsp` until its editor ends it.
pub(crate) fn run(args: &LspArgs) -> Result<u8, Failure> {
    let cancel = Arc::new(CancelFlag::new());
    let (working, stopped) = mpsc::channel::<()>();
    let (engine_args, flag) = (args.engine.clone(), Arc::clone(&cancel));
    let chosen = args.endpoint.choose();
    let endpoint = chosen.as_ref().ok().and_then(Option::as_ref);
    let complete = endpoint.map_or_else(Options::default, EndpointModel::options);
    let memory = if args.no_memory { None } else { memory_of(args, endpoint) };
    let load_model = Box::new(move |hear: &mut dyn FnMut(LoadStep)| {
        let _working = working;
        // An editor shows what keeps the model away, but not what a server says that does not start.
        let model = match chosen {
            Ok(Some(model)) => Ok(from_endpoint(model, hear)),
            Ok(None) => load(&engine_args, hear, &flag),
            Err(failure) => Err(failure),
        };
        model.map_err(|failure| for_editor(&failure))
    });
    let options = ServerOptions { load_model, complete, memory };
    let end = lsp::serve(options).map_err(|error| Failure::new(code::INTERNAL, &error))?;
    // The fetch runs in a child process, which must not outlive us.
    cancel.cancel();
    let _ = stopped.recv_timeout(STOP_FETCH);
    Ok(end.exit_code())
}

/// Returns the file that remembers what becomes of the model's ghost text, if it can have one.
fn memory_of(args: &LspArgs, endpoint: Option<&EndpointModel>) -> Option<PathBuf> {
    let dirs = Dirs::from_env().ok()?;
    let name = match endpoint {
        Some(model) => model.url().to_owned(),
        None => chosen(&Catalogue::load(&dirs).ok()?, args.engine.model.model.as_deref()).ok()?.name,
    };
    Some(stats::file_of(&dirs, &name))
}

/// Returns an endpoint's model, once its user has been told where the text goes.
fn from_endpoint(model: EndpointModel, hear: &mut dyn FnMut(LoadStep)) -> Model {
    hear(LoadStep::Announce(format!("Tandem: {}", model.where_text_goes())));
    Model::Text(Box::new(Patient::new(model)))
}

fn load(args: &EngineArgs, hear: &mut dyn FnMut(LoadStep), cancel: &CancelFlag) -> Result<Model, Failure> {
    let dirs = Dirs::from_env()?;
    let mut on_event = |event: Progress<'_>| {
        if let Some(step) = step(event) {
            hear(step);
        }
    };
    let (name, offline) = (args.model.model.as_deref(), args.model.offline);
    let installed = ensure(&dirs, name, offline, &mut on_event, cancel)?;
    let mut progress = |fraction| hear(LoadStep::Progress { phase: LoadPhase::Loading, fraction });
    let (engine, remark) = share_or_load(args, &installed, &mut progress)?;
    if let Some(remark) = remark {
        tracing::warn!(remark, "not the engine that was asked for");
        hear(LoadStep::Announce(format!("Tandem: {remark}")));
    }
    Ok(Model::Engine(engine))
}

/// Returns what the editor hears of a pull's event.
fn step(event: Progress<'_>) -> Option<LoadStep> {
    let progress = |phase, done: u64, total: u64| {
        let fraction = if total == 0 { 0.0 } else { done as f32 / total as f32 };
        Some(LoadStep::Progress { phase, fraction })
    };
    match event {
        Progress::Starting { entry } => Some(LoadStep::Announce(format!("Tandem: {}", announcement(entry)))),
        Progress::Downloading { done, total } => progress(LoadPhase::Fetching, done, total.unwrap_or(0)),
        Progress::Unpacking { done, total } => progress(LoadPhase::Unpacking, done, total),
        Progress::Checking { done, total } => progress(LoadPhase::Checking, done, total),
        Progress::FirstUse { sha256 } => Some(LoadStep::Announce(format!(
            "Tandem: the catalogue names no sha256 for this model; {sha256} is required from here on"
        ))),
        _ => None,
    }
}

/// Returns a failure as one line: an editor shows it in a box.
fn for_editor(failure: &Failure) -> String {
    match &failure.hint {
        Some(hint) => format!("no model, so no ghost text: {} ({hint})", failure.message),
        None => format!("no model, so no ghost text: {}", failure.message),
    }
}

//! `agent lsp`: the language server, over stdin and stdout.
//!
//! In: an editor's messages. Out: the server's; the exit code LSP asks for.
//! Never: prints; stdout is the protocol's (I-12), and what a human should know goes to the editor.
//! Thread: the caller's serves; the model is fetched and loaded on the server's completion thread.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use ::models::{CancelFlag, Catalogue, Dirs, Fetch, Progress, Store};
use clap::Args;
use engine::{Engine, EngineOptions};
use lsp::{LoadPhase, LoadStep, ServerOptions};

use crate::failure::{Failure, code};
use crate::model::ModelArgs;
use crate::models::{announcement, chosen};

/// Serve an editor: ghost text over the Language Server Protocol
#[derive(Args, Debug)]
pub(crate) struct LspArgs {
    /// Talk over stdin and stdout, as happens without it too: many editors say it
    #[arg(long)]
    stdio: bool,
    #[command(flatten)]
    model: ModelArgs,
}

/// How long a fetch that nobody waits for any more may take to stop.
const STOP_FETCH: Duration = Duration::from_secs(2);

/// Runs `agent lsp` until its editor ends it.
pub(crate) fn run(args: &LspArgs) -> Result<u8, Failure> {
    let cancel = Arc::new(CancelFlag::new());
    let (working, stopped) = mpsc::channel::<()>();
    let (model, flag) = (args.model.clone(), Arc::clone(&cancel));
    let load_model = Box::new(move |hear: &mut dyn FnMut(LoadStep)| {
        let _working = working;
        load(&model, hear, &flag).map_err(|failure| for_editor(&failure))
    });
    let options = ServerOptions { load_model, complete: complete::Options::default() };
    let end = lsp::serve(options).map_err(|error| Failure::new(code::INTERNAL, &error))?;
    // The fetch runs in a child process, which must not outlive us.
    cancel.cancel();
    let _ = stopped.recv_timeout(STOP_FETCH);
    Ok(end.exit_code())
}

fn load(args: &ModelArgs, hear: &mut dyn FnMut(LoadStep), cancel: &CancelFlag) -> Result<Engine, Failure> {
    let kv = args.kv_type()?;
    let dirs = Dirs::from_env()?;
    let entry = chosen(&Catalogue::load(&dirs)?, args.model.as_deref())?;
    let fetch = if args.offline { Fetch::Offline } else { Fetch::Allowed };
    let mut on_event = |event: Progress<'_>| {
        if let Some(step) = step(event) {
            hear(step);
        }
    };
    let installed = ::models::ensure(&Store::new(&dirs), &entry, fetch, &mut on_event, cancel)?;
    let mut progress = |fraction| hear(LoadStep::Progress { phase: LoadPhase::Loading, fraction });
    Ok(Engine::load(&installed.path, EngineOptions { kv, ..EngineOptions::default() }, &mut progress)?)
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

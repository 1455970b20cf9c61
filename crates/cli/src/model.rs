//! The model a command runs on: chosen, fetched if need be, loaded.

use std::io::{IsTerminal as _, Write as _};

use clap::Args;
use engine::{Engine, EngineOptions};
use models::Installed;

use crate::failure::Failure;
use crate::models::ensure_with_progress;

/// Which model, and whether it may be fetched.
#[derive(Args, Clone, Debug)]
pub(crate) struct ModelArgs {
    /// Model to use: a name of `agent models list` or the path of a GGUF file; TANDEM_MODEL does the same
    #[arg(long, value_name = "NAME")]
    pub(crate) model: Option<String>,
    /// Never fetch anything
    #[arg(long)]
    pub(crate) offline: bool,
}

/// Returns the engine with the chosen model, fetching the file first if it is missing and that is allowed.
pub(crate) fn load(args: &ModelArgs) -> Result<(Engine, Installed), Failure> {
    let installed = ensure_with_progress(args.model.as_deref(), args.offline)?;
    let mut stderr = std::io::stderr();
    // Loading takes a moment only for large models: say something where somebody looks.
    let is_seen = stderr.is_terminal() && installed.path.metadata().is_ok_and(|file| file.len() > 1 << 30);
    let mut progress = |share: f32| {
        if is_seen {
            let _ = write!(stderr, "\rloading {} {:3.0} %", installed.entry.name, share * 100.0);
        }
    };
    let engine = Engine::load(&installed.path, EngineOptions::default(), &mut progress)?;
    if is_seen {
        say!();
    }
    Ok((engine, installed))
}

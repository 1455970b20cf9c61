//! The model a command runs on: chosen, fetched if need be, loaded.
//!
//! In: `--model`, `--kv`, and the variables that stand in for them. Out: the engine.

use std::ffi::OsStr;
use std::io::{IsTerminal as _, Write as _};

use clap::Args;
use engine::{Engine, EngineOptions, KvType};
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
    /// How the KV cache stores numbers: f16, or q8_0 in half the memory; TANDEM_KV does the same
    #[arg(long, value_name = "TYPE")]
    kv: Option<KvType>,
}

impl ModelArgs {
    /// Returns how the KV cache stores numbers: as said, else as `TANDEM_KV` says, else f16.
    pub(crate) fn kv_type(&self) -> Result<KvType, Failure> {
        choose_kv(self.kv, std::env::var_os("TANDEM_KV").as_deref())
    }
}

fn choose_kv(named: Option<KvType>, variable: Option<&OsStr>) -> Result<KvType, Failure> {
    match (named, variable.filter(|variable| !variable.is_empty())) {
        (Some(kv_type), _) => Ok(kv_type),
        (None, Some(variable)) => (variable.to_string_lossy().parse())
            .map_err(|error| Failure::usage(format!("TANDEM_KV is wrong: {error}"))),
        (None, None) => Ok(KvType::default()),
    }
}

/// Returns the engine with the chosen model, fetching the file first if it is missing and that is allowed.
pub(crate) fn load(args: &ModelArgs) -> Result<(Engine, Installed), Failure> {
    let kv = args.kv_type()?;
    let installed = ensure_with_progress(args.model.as_deref(), args.offline)?;
    let mut stderr = std::io::stderr();
    // Loading takes a moment only for large models: say something where somebody looks.
    let is_seen = stderr.is_terminal() && installed.path.metadata().is_ok_and(|file| file.len() > 1 << 30);
    let mut progress = |share: f32| {
        if is_seen {
            let _ = write!(stderr, "\rloading {} {:3.0} %", installed.entry.name, share * 100.0);
        }
    };
    let options = EngineOptions { kv, ..EngineOptions::default() };
    let engine = Engine::load(&installed.path, options, &mut progress)?;
    if is_seen {
        say!();
    }
    Ok((engine, installed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::code;

    #[test]
    fn the_kv_type_is_the_one_named_else_the_variables_else_f16() {
        let check = |named, variable: Option<&str>, expect| {
            assert_eq!(choose_kv(named, variable.map(OsStr::new)).expect("sound"), expect);
        };
        check(Some(KvType::F16), Some("q8_0"), KvType::F16);
        check(Some(KvType::Q8_0), Some("nonsense"), KvType::Q8_0);
        check(None, Some("q8_0"), KvType::Q8_0);
        check(None, Some(""), KvType::F16);
        check(None, None, KvType::F16);
        let failure = choose_kv(None, Some(OsStr::new("q8"))).expect_err("no type");
        assert_eq!(failure.code, code::USAGE);
        assert!(failure.message.contains("TANDEM_KV") && failure.message.contains("q8_0"));
    }
}

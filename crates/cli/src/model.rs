//! The model a command runs on: chosen, fetched if need be, and run by the server that all share, or in this process.
//!
//! In: `--model`, `--kv`, `--draft-model`, `--device`, `--in-process`, and the variables that stand in for them. Out: the engine.

use std::ffi::OsStr;
use std::io::{IsTerminal as _, Write as _};

use ::models::{Dirs, Origin};
use ::serve::{Address, ModelFile, Starter};
use clap::Args;
use engine::{Device, Engine, EngineOptions, KvType, LoadProgress};
use models::Installed;

use crate::failure::Failure;
use crate::models::ensure_with_progress;
use crate::trace::record_in_process;

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
    /// Smaller model with the same vocabulary that drafts for it where that pays, the path of a GGUF file or the name of
    /// an installed model; the answers are the same. TANDEM_DRAFT_MODEL does the same
    #[arg(long, value_name = "FILE")]
    pub(crate) draft_model: Option<String>,
    /// Where the model runs: auto, cpu, cuda or metal; TANDEM_DEVICE does the same
    #[arg(long, value_name = "DEVICE")]
    device: Option<Device>,
}

impl ModelArgs {
    /// Returns how the model is loaded in this process.
    ///
    /// A draft model is not fetched: what only saves time should not begin with a download.
    pub(crate) fn engine_options(&self) -> Result<EngineOptions, Failure> {
        let draft_model = match self.named_draft_model() {
            Some(name) => Some(ensure_with_progress(Some(&name), true)?.path),
            None => None,
        };
        Ok(EngineOptions { n_ctx: None, kv: self.kv_type()?, draft_model, device: self.device()? })
    }

    /// Returns where the model runs: as said, else as `TANDEM_DEVICE` says, else on a GPU if there is one.
    pub(crate) fn device(&self) -> Result<Device, Failure> {
        let variable = std::env::var_os("TANDEM_DEVICE").filter(|name| !name.is_empty());
        match (self.device, variable) {
            (Some(device), _) => Ok(device),
            (None, Some(name)) => (name.to_string_lossy().parse())
                .map_err(|error| Failure::usage(format!("TANDEM_DEVICE is wrong: {error}"))),
            (None, None) => Ok(Device::default()),
        }
    }

    /// Returns the draft model as said, else as `TANDEM_DRAFT_MODEL` says.
    fn named_draft_model(&self) -> Option<String> {
        let variable = || std::env::var("TANDEM_DRAFT_MODEL").ok().filter(|name| !name.is_empty());
        self.draft_model.clone().or_else(variable)
    }

    /// Returns how the KV cache stores numbers: as said, else as `TANDEM_KV` says, else f16.
    pub(crate) fn kv_type(&self) -> Result<KvType, Failure> {
        Ok(self.named_kv_type()?.unwrap_or_default())
    }

    /// Returns how the KV cache stores numbers, if that was said.
    pub(crate) fn named_kv_type(&self) -> Result<Option<KvType>, Failure> {
        choose_kv(self.kv, std::env::var_os("TANDEM_KV").as_deref())
    }
}

fn choose_kv(named: Option<KvType>, variable: Option<&OsStr>) -> Result<Option<KvType>, Failure> {
    match (named, variable.filter(|variable| !variable.is_empty())) {
        (Some(kv_type), _) => Ok(Some(kv_type)),
        (None, Some(variable)) => (variable.to_string_lossy().parse().map(Some))
            .map_err(|error| Failure::usage(format!("TANDEM_KV is wrong: {error}"))),
        (None, None) => Ok(None),
    }
}

/// Which model, and where it runs.
#[derive(Args, Clone, Debug)]
pub(crate) struct EngineArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Load the model in this process and share it with no other; TANDEM_IN_PROCESS=1 does the same
    #[arg(long)]
    in_process: bool,
}

impl EngineArgs {
    /// Returns whether the command line names a model of this machine, or how it is run.
    #[cfg_attr(windows, expect(dead_code, reason = "`fix` alone asks"))]
    pub(crate) fn is_named(&self) -> bool {
        self.model.model.is_some()
            || self.model.kv.is_some()
            || self.model.draft_model.is_some()
            || self.model.device.is_some()
            || self.in_process
    }

    fn is_in_process(&self) -> bool {
        let variable = std::env::var_os("TANDEM_IN_PROCESS").unwrap_or_default();
        self.in_process || !["", "0"].map(OsStr::new).contains(&variable.as_os_str())
    }
}

/// Returns the engine with the chosen model, fetching the file first if it is missing and that is allowed.
pub(crate) fn load(args: &EngineArgs) -> Result<(Engine, Installed), Failure> {
    let installed = ensure_with_progress(args.model.model.as_deref(), args.model.offline)?;
    let mut stderr = std::io::stderr();
    // Loading takes a moment only for large models: say something where somebody looks.
    let is_seen = stderr.is_terminal() && installed.path.metadata().is_ok_and(|file| file.len() > 1 << 30);
    let mut progress = |share: f32| {
        if is_seen {
            let _ = write!(stderr, "\rloading {} {:3.0} %", installed.entry.name, share * 100.0);
        }
    };
    let (engine, remark) = share_or_load(args, &installed, &mut progress)?;
    if is_seen {
        say!();
    }
    if let Some(remark) = remark {
        say!("{remark}");
    }
    Ok((engine, installed))
}

/// Returns the engine of the model's server, or else one in this process, and what is not as it was asked for.
pub(crate) fn share_or_load(
    args: &EngineArgs,
    installed: &Installed,
    progress: LoadProgress<'_>,
) -> Result<(Engine, Option<String>), Failure> {
    let options = args.model.engine_options()?;
    let kv = options.kv;
    let unshared = if args.is_in_process() {
        None
    } else {
        match share(installed, &options) {
            Ok((engine, remark)) => return Ok((engine, remark)),
            Err(failure) => Some(failure),
        }
    };
    let engine = Engine::load(&installed.path, options, progress)?;
    let engine = record_in_process(engine, installed, kv);
    let why = unshared.map(|failure| {
        let hint = failure.hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
        format!("the model is loaded in this process and not shared: {}{hint}", failure.message)
    });
    let remarks: Vec<String> = why.into_iter().chain(engine.remark().map(str::to_owned)).collect();
    let remark = (!remarks.is_empty()).then(|| remarks.join("\n"));
    Ok((engine, remark))
}

/// Returns the engine of the model's server, which is started if there is none, and what is not as it was asked for.
pub(crate) fn share(
    installed: &Installed,
    options: &EngineOptions,
) -> Result<(Engine, Option<String>), Failure> {
    let kv = options.kv;
    let (model, address) = find(installed, kv)?;
    // By the name where it has one: its file has been checked under it.
    let name = match installed.entry.origin {
        Origin::CommandLine => std::path::absolute(&installed.path)?.into(),
        Origin::BuiltIn | Origin::User => installed.entry.name.clone().into(),
    };
    let mut args = ["serve", "--detached", "--offline", "--model"].map(Into::into).to_vec();
    args.push(name);
    args.extend(["--kv".into(), kv.name().into()]);
    if options.device != Device::default() {
        args.extend(["--device".into(), options.device.name().into()]);
    }
    if let Some(path) = &options.draft_model {
        args.extend(["--draft-model".into(), std::path::absolute(path)?.into()]);
    }
    let program = ::serve::program_of_this_process()?;
    let engine = ::serve::connect_or_start(Starter { model, address: address.clone(), program, args })?;
    let remark = match &options.draft_model {
        Some(_) if !has_draft_model(&address) => {
            Some("the server that runs has no draft model; `agent serve --stop` ends it".to_owned())
        }
        _ => None,
    };
    Ok((engine, remark))
}

/// Returns whether the server there has some draft model. One that has another is as good: the answers are the same.
fn has_draft_model(address: &Address) -> bool {
    let status = ::serve::ask_status(address).unwrap_or_default();
    status["draft_weights_bytes"].as_u64().is_some_and(|n_bytes| n_bytes > 0)
}

/// Returns the installed file and where its server listens.
pub(crate) fn find(installed: &Installed, kv: KvType) -> Result<(ModelFile, Address), Failure> {
    let model = ModelFile::at(&installed.path, &installed.entry.name)?.with_kv(kv);
    let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR");
    let address = Address::of(&model, runtime_dir.as_deref(), Dirs::from_env()?.data())?;
    Ok((model, address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::code;

    #[test]
    fn the_kv_type_is_the_one_named_else_the_variables() {
        let check = |named, variable: Option<&str>, expect| {
            assert_eq!(choose_kv(named, variable.map(OsStr::new)).expect("sound"), expect);
        };
        check(Some(KvType::F16), Some("q8_0"), Some(KvType::F16));
        check(Some(KvType::Q8_0), Some("nonsense"), Some(KvType::Q8_0));
        check(None, Some("q8_0"), Some(KvType::Q8_0));
        check(None, Some(""), None);
        check(None, None, None);
        let failure = choose_kv(None, Some(OsStr::new("q8"))).expect_err("no type");
        assert_eq!(failure.code, code::USAGE);
        assert!(failure.message.contains("TANDEM_KV") && failure.message.contains("q8_0"));
    }
}

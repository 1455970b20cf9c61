//! Where requests are recorded so that `agent bench replay` can run them again, if anywhere.
//!
//! In: `--trace`, or `TANDEM_TRACE`. Out: an engine that is recorded.
//! Never: records what nobody asked to be recorded: a trace holds source text (I-9).

use std::ffi::OsString;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::serve::{TraceHeader, TraceWriter};
use clap::Args;
use engine::{Engine, KvType};
use models::Installed;

use crate::failure::Failure;

/// Where to record, and how much.
#[derive(Args, Clone, Debug)]
pub(crate) struct TraceArgs {
    /// Record every request and answer, source text included, in a new file that `agent bench replay` can run again;
    /// TANDEM_TRACE does the same, also for commands that load the model themselves
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Most bytes of that file: what comes then is not recorded
    #[arg(long, value_name = "BYTES", default_value_t = DEFAULT_LIMIT)]
    trace_limit: u64,
}

/// A day of typing has some thousand requests of some 10 KiB.
const DEFAULT_LIMIT: u64 = 1 << 30;

impl TraceArgs {
    /// Returns whether a trace was asked for by name.
    pub(crate) fn is_named(&self) -> bool {
        self.trace.is_some()
    }

    /// Returns the engine, recorded if that was asked for, and the trace.
    pub(crate) fn record(
        &self,
        engine: Engine,
        installed: &Installed,
        kv: KvType,
    ) -> Result<(Engine, Option<Arc<TraceWriter>>), Failure> {
        match &self.trace {
            Some(path) => record(engine, path, self.trace_limit, installed, kv),
            None => Ok(record_by_variable(engine, self.trace_limit, installed, kv)),
        }
    }
}

/// Returns an engine of this process, recorded if `TANDEM_TRACE` asks for it.
pub(crate) fn record_in_process(engine: Engine, installed: &Installed, kv: KvType) -> Engine {
    record_by_variable(engine, DEFAULT_LIMIT, installed, kv).0
}

/// A variable stays set: that its file is there already is no reason not to work, only not to record.
fn record_by_variable(
    engine: Engine,
    n_max_bytes: u64,
    installed: &Installed,
    kv: KvType,
) -> (Engine, Option<Arc<TraceWriter>>) {
    let Some(path) = variable(std::env::var_os("TANDEM_TRACE")) else { return (engine, None) };
    let recorded = path.and_then(|path| record(engine.clone(), &path, n_max_bytes, installed, kv));
    recorded.unwrap_or_else(|failure| {
        let hint = failure.hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
        let why = failure.message;
        tracing::info!(why, "nothing is recorded, although TANDEM_TRACE is set");
        say!("nothing is recorded, although TANDEM_TRACE is set: {why}{hint}");
        (engine, None)
    })
}

fn variable(value: Option<OsString>) -> Option<Result<PathBuf, Failure>> {
    let path = PathBuf::from(value.filter(|value| !value.is_empty())?);
    // A server that is started on demand is somewhere else.
    Some(if path.is_absolute() {
        Ok(path)
    } else {
        Err(Failure::usage(format!("{} is not an absolute path", path.display())))
    })
}

fn record(
    engine: Engine,
    path: &Path,
    n_max_bytes: u64,
    installed: &Installed,
    kv: KvType,
) -> Result<(Engine, Option<Arc<TraceWriter>>), Failure> {
    let sha256 = installed.sha256.to_string();
    let header = TraceHeader::new(&engine, kv, &installed.entry.name, sha256, installed.bytes);
    let writer = Arc::new(TraceWriter::start(create(path)?, path, header, n_max_bytes)?);
    tracing::info!(path = %path.display(), "every request is recorded, source text included");
    let readers = if cfg!(unix) { "only you" } else { "whoever can open its folder" };
    say!("every request is recorded in {}, source text included; {readers} can read it", path.display());
    Ok((engine.with_recorder(Arc::<TraceWriter>::clone(&writer)), Some(writer)))
}

/// Makes a file that nobody but its owner can open; on Windows, nobody who cannot open what else is in its folder.
fn create(path: &Path) -> Result<File, Failure> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => Failure::usage(format!("{} exists already", path.display()))
            .hint("a trace is never overwritten: name another file, or remove this one"),
        _ => Failure::usage(format!("cannot make the trace {}: {error}", path.display()))
            .hint("name a file in a folder that you can write to"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_its_owners_and_is_never_overwritten() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a.trace");
        create(&path).expect("it is new");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = path.metadata().expect("it is there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let again = create(&path).expect_err("it is there");
        assert_eq!(again.message, format!("{} exists already", path.display()));
        let nowhere = create(&dir.path().join("no/a.trace")).expect_err("no folder");
        assert!(nowhere.message.contains("cannot make the trace") && nowhere.hint.is_some());
    }

    #[test]
    fn a_variable_names_an_absolute_path_or_nothing() {
        let path = |value: Option<&str>| variable(value.map(OsString::from));
        assert!(path(None).is_none() && path(Some("")).is_none());
        assert_eq!(path(Some("/a/b")).expect("one").expect("absolute"), Path::new("/a/b"));
        let failure = path(Some("b")).expect("one").expect_err("relative");
        assert!(failure.message.contains("absolute"), "{}", failure.message);
    }
}

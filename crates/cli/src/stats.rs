//! `agent stats`: what became of ghost text on this machine.
//!
//! In: what language servers have remembered, a file for each model. Out: a table, or JSON.
//! Never: sends anything anywhere; there is no text and no file's name in it.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use ::models::Dirs;
use clap::Args;
use lsp::{Counts, Memory, Still};
use serde_json::json;

use crate::failure::{Failure, code};

/// Print what became of ghost text: shown, accepted, kept; nothing of it leaves this machine
#[derive(Args, Debug)]
pub(crate) struct StatsArgs {
    /// Count the last so many days, today included
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    days: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Forget all of it, and what was learnt of how sure an answer is
    #[arg(long, conflicts_with_all = ["days", "json"])]
    reset: bool,
    /// Forget what was learnt of how sure an answer is, and keep the counts
    #[arg(long, conflicts_with_all = ["days", "json", "reset"])]
    reset_calibration: bool,
}

/// Returns the file in which a model's ghost text is remembered.
pub(crate) fn file_of(dirs: &Dirs, model: &str) -> PathBuf {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '_' };
    let name: String = model.chars().map(plain).collect();
    folder(dirs).join(format!("{}.json", name.trim_start_matches('.')))
}

fn folder(dirs: &Dirs) -> PathBuf {
    dirs.data().join("ghost")
}

pub(crate) fn run(args: &StatsArgs) -> Result<u8, Failure> {
    let dirs = Dirs::from_env()?;
    let files = files(&folder(&dirs))?;
    if args.reset || args.reset_calibration {
        for (model, path) in files {
            let reset = if args.reset { Memory::forget(&path) } else { Memory::forget_calibration(&path) };
            reset.map_err(|error| cannot("reset", &path, &error))?;
            say!(
                "{model}: {}",
                if args.reset { "forgotten" } else { "the calibration is as it was at first" }
            );
        }
        return Ok(code::OK);
    }
    let mut stdout = io::stdout().lock();
    let mut all = serde_json::Map::new();
    for (model, path) in files {
        let memory = Memory::read(&path).map_err(|error| cannot("read", &path, &error))?;
        let counts = memory.last(args.days);
        if args.json {
            let learnt = memory.calibration.n_learnt();
            all.insert(model, json!({"days": args.days, "languages": counts, "n_learnt": learnt}));
        } else {
            write!(stdout, "{}", table(&model, args.days, &counts, memory.calibration.n_learnt()))?;
        }
    }
    if args.json {
        writeln!(stdout, "{}", serde_json::Value::Object(all))?;
    } else {
        say!("It is in {} and goes nowhere.", folder(&dirs).display());
    }
    Ok(code::OK)
}

/// Returns the files there are, by their models.
fn files(folder: &Path) -> Result<BTreeMap<String, PathBuf>, Failure> {
    let entries = match folder.read_dir() {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(cannot("read", folder, &error)),
    };
    let mut files = BTreeMap::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            files.insert(path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), path);
        }
    }
    Ok(files)
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::usage(format!("cannot {what} {}: {error}", path.display()))
        .hint("`agent stats --reset` begins anew; nothing but these counts is lost")
}

fn table(model: &str, n_days: u64, counts: &BTreeMap<String, Counts>, n_learnt: u64) -> String {
    let heads = [
        "",
        "shown",
        "accepted",
        "in part",
        "turned down",
        "chars saved",
        "kept 30 s",
        "kept 300 s",
        "engine s/kept char",
    ];
    let mut all = Counts::default();
    counts.values().for_each(|one| all.add(one));
    let rows: Vec<[String; 9]> =
        counts.iter().map(|(language, one)| row(language, one)).chain([row("all", &all)]).collect();
    let widths: Vec<usize> = (0..heads.len())
        .map(|column| {
            rows.iter().map(|row| row[column].chars().count()).chain([heads[column].len()]).max().unwrap_or(0)
        })
        .collect();
    let line = |cells: &[&str]| {
        let cells = std::iter::zip(cells, &widths).enumerate().map(|(column, (cell, width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        format!("  {}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    let mut text = format!(
        "{model}, the last {n_days} days; how sure an answer is was learnt from {n_learnt} of them\n"
    );
    text += &line(&heads);
    for row in &rows {
        text += &line(&row.each_ref().map(String::as_str));
    }
    text
}

fn row(language: &str, counts: &Counts) -> [String; 9] {
    let share = |part: u64, whole: u64| match whole {
        0 => "-".to_owned(),
        _ => format!("{:.0} %", 100.0 * part as f64 / whole as f64),
    };
    let still = |still: &Still| share(still.n_kept, still.n_looked);
    let n_kept = counts.kept_30_s.n_chars_kept;
    let per_char =
        if n_kept == 0 { "-".to_owned() } else { format!("{:.3}", counts.engine_s / n_kept as f64) };
    [
        language.to_owned(),
        counts.n_shown.to_string(),
        format!("{} {}", counts.n_accepted, share(counts.n_accepted, counts.n_shown)),
        counts.n_partly.to_string(),
        counts.n_rejected.to_string(),
        counts.n_chars_saved.to_string(),
        still(&counts.kept_30_s),
        still(&counts.kept_300_s),
        per_char,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_has_a_file_of_its_own_in_the_folder() {
        let dirs = Dirs::new("/data", "/config");
        for (model, expected) in
            [("smollm2-135m", "smollm2-135m"), ("../a b", "_a_b"), ("https://h/v1 m", "https___h_v1_m")]
        {
            let file = file_of(&dirs, model);
            assert_eq!(file, Path::new("/data/ghost").join(format!("{expected}.json")), "{model}");
        }
    }

    #[test]
    fn the_table_has_a_row_for_each_language_and_one_for_all() {
        let python = Counts {
            n_shown: 8,
            n_accepted: 2,
            n_chars_saved: 31,
            kept_30_s: Still { n_looked: 2, n_kept: 1, n_chars_kept: 20 },
            engine_s: 0.5,
            ..Counts::default()
        };
        let counts = BTreeMap::from([("python".to_owned(), python), ("rust".to_owned(), Counts::default())]);
        let text = table("m", 7, &counts, 5);
        let cells = |idx: usize| {
            text.lines()
                .nth(idx)
                .expect("a line")
                .split("  ")
                .map(str::trim)
                .filter(|cell| !cell.is_empty())
                .collect::<Vec<_>>()
        };
        assert!(text.starts_with("m, the last 7 days; how sure an answer is was learnt from 5 of them\n"));
        assert_eq!(cells(2), ["python", "8", "2 25 %", "0", "0", "31", "50 %", "-", "0.025"]);
        assert_eq!(cells(3), ["rust", "0", "0 -", "0", "0", "0", "-", "-", "-"]);
        assert_eq!(cells(4), ["all", "8", "2 25 %", "0", "0", "31", "50 %", "-", "0.025"]);
    }
}

//! `agent bench replay`: a recorded trace is run again, on this build and this machine.
//!
//! In: a trace and its model. Out: what was recorded beside what each run gave; with `--check`, whether every answer
//! is the same.
//! Never: prints a word of a prompt or an answer.

mod check;
mod measures;
mod timeline;

use std::io::Write as _;
use std::path::PathBuf;
use std::str::FromStr;

use ::serve::{Trace, TraceHeader};
use clap::Args;
use engine::{Engine, EngineOptions, KvType};
use models::Installed;
use serde_json::{Map, Value, json};

use super::Format;
use crate::failure::{Failure, code};
use crate::model::ModelArgs;
use crate::models::ensure_with_progress;
use check::Checked;
use measures::{Measure, measures};

/// Run a recorded trace again and compare: times, tokens, answers
#[derive(Args, Debug)]
pub(crate) struct ReplayArgs {
    /// What `agent serve --trace` wrote
    trace: PathBuf,
    /// How fast requests come: 1.0 as recorded, 2.0 twice as fast, `max` as soon as those have ended that had ended
    #[arg(long, value_name = "FACTOR", default_value = "1.0")]
    speed: Speed,
    /// How often, each time on a freshly loaded engine
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// Compare the answers too, and exit with 1 unless they are token for token those recorded
    #[arg(long)]
    check: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    model: ModelArgs,
}

/// How fast recorded time passes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Speed {
    Times(f64),
    Max,
}

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<f64>() {
            _ if text == "max" => Ok(Self::Max),
            Ok(factor) if factor.is_finite() && factor > 0.0 => Ok(Self::Times(factor)),
            _ => Err("a speed is a number above 0, or `max`".to_owned()),
        }
    }
}

/// One run of the trace.
struct Run {
    measures: Vec<Measure>,
    checked: Checked,
}

pub(super) fn run(args: &ReplayArgs) -> Result<u8, Failure> {
    let trace = Trace::read(&args.trace)?;
    let kv = kv_type(args, &trace.header)?;
    let installed = ensure_with_progress(args.model.model.as_deref(), args.model.offline)?;
    check_model(&trace.header, &installed)?;
    tell_what_is_missing(&trace);
    let mut runs = Vec::new();
    for _ in 0..args.runs {
        // Afresh: what one run leaves in the KV cache must not help the next one.
        let n_ctx = Some(trace.header.n_ctx);
        let options = EngineOptions { n_ctx, kv, ..args.model.engine_options()? };
        let engine = Engine::load(&installed.path, options, &mut |_| {})?;
        let (replayed, wall) = timeline::run(&engine, &trace.requests, args.speed)?;
        let n_overtaken =
            engine.metrics().map_or(0, |metrics| metrics.n_given_up(engine::GivenUp::Overtaken));
        let all = trace.requests.iter().map(|(_, request)| &request.asked).zip(&replayed);
        runs.push(Run {
            measures: measures(all, n_overtaken, wall),
            checked: Checked::new(&trace.requests, &replayed),
        });
    }
    print(args, &trace, kv, &runs)?;
    let is_same = runs.iter().all(|run| run.checked.different.is_empty());
    Ok(if args.check && !is_same { code::INTERNAL } else { code::OK })
}

fn kv_type(args: &ReplayArgs, header: &TraceHeader) -> Result<KvType, Failure> {
    let recorded: KvType = header.kv.parse().map_err(|error| Failure::new(code::USAGE, &error))?;
    let kv = args.model.named_kv_type()?.unwrap_or(recorded);
    if args.check && kv != recorded {
        let message =
            format!("the trace was recorded with a KV cache of {recorded}, whose answers {kv} need not give");
        return Err(Failure::usage(message).hint(format!("say `--kv {recorded}`, or leave `--check` out")));
    }
    Ok(kv)
}

fn check_model(header: &TraceHeader, installed: &Installed) -> Result<(), Failure> {
    if header.sha256 == installed.sha256.to_string() && header.n_bytes == installed.bytes {
        return Ok(());
    }
    let message = format!(
        "the trace was recorded with {} (sha256 {}), not with {} (sha256 {})",
        header.model, header.sha256, installed.entry.name, installed.sha256
    );
    Err(Failure::usage(message).hint("name its model with `--model`"))
}

/// A trace with gaps still runs, but it is not the whole story.
fn tell_what_is_missing(trace: &Trace) {
    match &trace.end {
        None => say!("the trace has no end: the process that wrote it was killed"),
        Some(end) if end.n_dropped + end.n_left_out > 0 => {
            let why = end.stopped.as_deref().unwrap_or("they came faster than they could be written");
            say!("{} requests are not in the trace: {why}", end.n_dropped + end.n_left_out);
        }
        Some(_) => {}
    }
}

fn recorded(trace: &Trace) -> Vec<Measure> {
    let requests = || trace.requests.iter().map(|(_, request)| request);
    let n_overtaken = requests().map(|request| request.n_overtaken).max().unwrap_or(0);
    let first = requests().map(|request| request.arrived).min().unwrap_or_default();
    let last = requests().map(|request| request.ended).max().unwrap_or_default();
    let all = requests().map(|request| (&request.asked, &request.outcome));
    measures(all, n_overtaken, last.saturating_sub(first))
}

fn print(args: &ReplayArgs, trace: &Trace, kv: KvType, runs: &[Run]) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    let recorded = recorded(trace);
    match args.format {
        Format::Text => {
            let TraceHeader { version, model, isa, .. } = &trace.header;
            writeln!(out, "recorded by Tandem {version} with {model} on {isa}, {}", trace.header.kv)?;
            writeln!(out, "run by Tandem {} on {}, {kv}", env!("CARGO_PKG_VERSION"), engine::isa_name())?;
            let columns: String =
                (1..=runs.len()).map(|run| format!(" {:>10}", format!("run {run}"))).collect();
            writeln!(out, "{:32} {:>10}{columns}", "", "recorded")?;
            for (idx, measure) in recorded.iter().enumerate() {
                let columns: String =
                    runs.iter().map(|run| format!(" {:>10}", run.measures[idx].text())).collect();
                writeln!(out, "{:32} {:>10}{columns}", measure.name, measure.text())?;
            }
            for (idx, run) in runs.iter().enumerate().filter(|_| args.check) {
                run.checked.write(&mut out, &format!("run {}", idx + 1))?;
            }
        }
        Format::Json => {
            let object = |measures: &[Measure]| -> Value {
                measures
                    .iter()
                    .map(|measure| (measure.name.clone(), json!(measure.value)))
                    .collect::<Map<_, _>>()
                    .into()
            };
            let runs = runs.iter().map(|run| {
                let mut value = object(&run.measures);
                if args.check {
                    value["check"] = run.checked.to_json();
                }
                value
            });
            let runs: Vec<Value> = runs.collect();
            let TraceHeader { version, model, isa, .. } = &trace.header;
            let told = json!({"model": model, "recorded": {"version": version, "isa": isa, "kv": trace.header.kv,
                "measures": object(&recorded)}, "isa": engine::isa_name(), "kv": kv.name(), "runs": runs});
            writeln!(out, "{told:#}")?;
        }
        Format::Csv => {
            writeln!(out, "measure,run,value")?;
            let all = [("recorded".to_owned(), &recorded)].into_iter();
            let all =
                all.chain(runs.iter().enumerate().map(|(idx, run)| ((idx + 1).to_string(), &run.measures)));
            for (run, measures) in all {
                for measure in measures {
                    let value = measure.value.map(|value| value.to_string()).unwrap_or_default();
                    writeln!(out, "{},{run},{value}", measure.name)?;
                }
            }
            if args.check {
                for (idx, run) in runs.iter().enumerate() {
                    writeln!(out, "n_answers_different,{},{}", idx + 1, run.checked.different.len())?;
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_is_a_factor_or_max() {
        for (text, expected) in [
            ("1.0", Some(Speed::Times(1.0))),
            ("20", Some(Speed::Times(20.0))),
            ("max", Some(Speed::Max)),
            ("0", None),
            ("-1", None),
            ("inf", None),
            ("fast", None),
        ] {
            assert_eq!(text.parse::<Speed>().ok(), expected, "{text}");
        }
    }
}

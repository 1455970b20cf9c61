//! `agent bench`: how fast a model runs on this machine.
//!
//! In: a model, token counts, depths. Out: medians in tokens per second on stdout, or every run as JSON or CSV.

#[cfg(feature = "cuda")]
mod gpu;
mod replay;
mod riders;

use std::io::Write as _;
use std::num::NonZero;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand, ValueEnum};
use engine::{Bench, Engine, EngineOptions, KvType};
use serde_json::{Value, json};

use crate::failure::{Failure, code};
use crate::model::ModelArgs;
use crate::models::ensure_with_progress;

/// Measure prefill, decoding and verifying; the median of several runs
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    command: Option<BenchCommand>,
    /// Tokens of a prefill
    #[arg(long, value_name = "N", default_value_t = 512)]
    pp: usize,
    /// Tokens decoded
    #[arg(long, value_name = "N", default_value_t = 64)]
    tg: usize,
    /// Rows of one verifying step: T(1) to T(N) are measured; 0 for none
    #[arg(long, value_name = "N", default_value_t = 8)]
    rows: usize,
    /// Tokens that stand before
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "0")]
    depth: Vec<usize>,
    /// Runs of each measurement, after one that does not count
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    repeat: u16,
    /// Threads that compute; one for each core if not given
    #[arg(long, value_name = "N")]
    threads: Option<NonZero<usize>>,
    /// Measure instead what a keystroke and an agent cost each other on one engine, and what drafts save
    #[arg(long)]
    riders: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    model: ModelArgs,
}

#[derive(Subcommand, Debug)]
enum BenchCommand {
    Replay(replay::ReplayArgs),
    #[cfg(feature = "cuda")]
    Gpu(gpu::GpuArgs),
}

#[derive(Clone, Copy, Debug, ValueEnum, PartialEq)]
enum Format {
    Text,
    Json,
    Csv,
}

/// One measurement: its name, the tokens of a run, and every run.
struct Measured {
    name: String,
    depth: usize,
    n_tokens: usize,
    runs: Vec<Duration>,
}

pub(crate) fn run(args: &BenchArgs) -> Result<u8, Failure> {
    match &args.command {
        Some(BenchCommand::Replay(args)) => return replay::run(args),
        #[cfg(feature = "cuda")]
        Some(BenchCommand::Gpu(args)) => return gpu::run(args),
        None => {}
    }
    let (kv_type, device) = (args.model.kv_type()?, args.model.device()?);
    let installed = ensure_with_progress(args.model.model.as_deref(), args.model.offline)?;
    if args.model.draft_model.is_some() && !args.riders {
        return Err(Failure::usage("a draft model has no part in what is measured")
            .hint("`agent bench --riders` measures what drafts save"));
    }
    if args.riders {
        let options = EngineOptions { kv: KvType::F16, ..args.model.engine_options()? };
        let engine = Engine::load(&installed.path, options, &mut |_| {})?;
        riders::run(&engine, &installed.path, device)?;
        return Ok(code::OK);
    }
    let deepest = args.depth.iter().max().copied().unwrap_or(0);
    let started = Instant::now();
    let n_max_tokens = deepest + args.pp.max(args.tg).max(args.rows);
    let mut bench = Bench::load(&installed.path, n_max_tokens, args.threads, kv_type, device)?;
    let mut all = Vec::new();
    all.push(Measured { name: "load".into(), depth: 0, n_tokens: 0, runs: vec![started.elapsed()] });
    if bench.read_weights().is_some() {
        // Often enough to find a moment when nobody else reads.
        let runs = (0..args.repeat.max(9)).filter_map(|_| bench.read_weights()).collect();
        all.push(Measured { name: "read".into(), depth: 0, n_tokens: 0, runs });
    }
    for &depth in &args.depth {
        let mut measure =
            |name: String, n_tokens: usize, run: &mut dyn FnMut() -> Result<Duration, engine::Error>| {
                if n_tokens == 0 {
                    return Ok(());
                }
                run()?;
                let runs = (0..args.repeat).map(|_| run()).collect::<Result<_, _>>()?;
                all.push(Measured { name, depth, n_tokens, runs });
                Ok::<(), engine::Error>(())
            };
        measure(format!("pp{}", args.pp), args.pp, &mut || bench.prefill(args.pp, depth))?;
        measure(format!("tg{}", args.tg), args.tg, &mut || bench.decode(args.tg, depth))?;
        for n_rows in 1..=args.rows {
            measure(format!("T({n_rows})"), n_rows, &mut || bench.verify(n_rows, depth))?;
        }
    }
    print(args, &installed.path.display().to_string(), &bench, &all)?;
    Ok(code::OK)
}

fn print(args: &BenchArgs, path: &str, bench: &Bench, all: &[Measured]) -> Result<(), Failure> {
    let mut stdout = std::io::stdout();
    let n_bytes = bench.n_weight_bytes();
    let (kv, kv_bytes) = (bench.kv_type().name(), bench.kv_bytes_per_token());
    match args.format {
        Format::Text => {
            writeln!(
                stdout,
                "{:.1} MB of weights; load and read are of all of them, once",
                n_bytes as f64 / 1e6
            )?;
            writeln!(stdout, "{kv_bytes} bytes of KV cache for each token, as {kv}")?;
            writeln!(stdout, "{:8} {:>6} {:>10} {:>10} {:>10}", "", "depth", "tokens/s", "ms", "worst ms")?;
            for measured in all {
                let (median, worst) =
                    (measured.median(), measured.runs.iter().max().copied().unwrap_or_default());
                writeln!(
                    stdout,
                    "{:8} {:>6} {:>10} {:>10.2} {:>10.2}",
                    measured.name,
                    measured.depth,
                    measured.rate().map_or("-".into(), |rate| format!("{rate:.1}")),
                    ms(median),
                    ms(worst)
                )?;
            }
        }
        Format::Json => {
            let values: Vec<Value> = all.iter().map(Measured::to_json).collect();
            writeln!(
                stdout,
                "{:#}",
                json!({"model": path, "weight_bytes": n_bytes, "kv": kv, "kv_bytes_per_token": kv_bytes,
                    "peak_memory_bytes": peak_memory(), "measured": values})
            )?;
        }
        Format::Csv => {
            writeln!(stdout, "name,depth,tokens,run,ms")?;
            for measured in all {
                for (idx, run) in measured.runs.iter().enumerate() {
                    let Measured { name, depth, n_tokens, .. } = measured;
                    writeln!(stdout, "{name},{depth},{n_tokens},{},{:.4}", idx + 1, ms(*run))?;
                }
            }
        }
    }
    Ok(())
}

/// Returns the most memory this process ever had, where the system says it.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

impl Measured {
    fn median(&self) -> Duration {
        let mut runs = self.runs.clone();
        runs.sort();
        runs[runs.len() / 2]
    }

    /// Returns tokens per second.
    fn rate(&self) -> Option<f64> {
        (self.n_tokens > 0).then(|| self.n_tokens as f64 / self.median().as_secs_f64())
    }

    fn to_json(&self) -> Value {
        let runs: Vec<f64> = self.runs.iter().copied().map(ms).collect();
        json!({"name": self.name, "depth": self.depth, "n_tokens": self.n_tokens, "ms": ms(self.median()), "runs_ms": runs,
            "tokens_per_second": self.rate()})
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

//! `agent bench gpu`: whether a GPU computes what the CPU does, and how fast.
//!
//! In: a model file. Out: lines on stdout as they are measured, and all of them as JSON in a file.
//! Never: lets one stage end the others: each is a process of its own with a time of its own.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use engine::{Bench, Bits, Device, Engine, EngineOptions, KvType, ModelSpec, RopePairing, RopeSpec};
use serde_json::{Value, json};

use super::{ms, riders};
use crate::failure::{Failure, code};

/// Sequences that decode at once, steps of each, and tokens that stand before.
const BATCHES: [usize; 3] = [1, 8, 32];
const N_STEPS: usize = 48;
const DEPTH: usize = 128;
/// Tokens of a prompt.
const PROMPTS: [usize; 2] = [512, 2048];
/// Answers in the background of keystrokes, and how many of these.
const N_BACKGROUND: usize = 8;
const N_KEYS: usize = 60;

/// Measure a GPU: its agreement with the CPU, decoding, prompts, drafts, keystrokes beside an agent
#[derive(Args, Debug)]
pub(crate) struct GpuArgs {
    /// A GGUF file
    model: PathBuf,
    /// Where all measurements go, as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Only one stage, in this process
    #[arg(long, value_enum)]
    stage: Option<Stage>,
    /// Tokens after which logits are compared
    #[arg(long, value_name = "N", default_value_t = 2000)]
    compared: usize,
    /// Seconds that a stage may take
    #[arg(long, value_name = "N", default_value_t = 30)]
    seconds: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Stage {
    /// Logits beside the CPU's
    Agreement,
    /// The model given
    Given,
    /// Drafts, and keystrokes beside an agent
    Riders,
    /// A model of 1.5 billion weights of 16 bits
    #[value(name = "1.5b-16")]
    Small16,
    /// The same of 4 bits
    #[value(name = "1.5b-4")]
    Small4,
    /// A model of 7 billion weights of 16 bits
    #[value(name = "7b-16")]
    Large16,
    /// The same of 4 bits
    #[value(name = "7b-4")]
    Large4,
}

/// The most important first: what is not reached is not known.
const STAGES: [Stage; 7] = [
    Stage::Agreement,
    Stage::Large16,
    Stage::Given,
    Stage::Riders,
    Stage::Large4,
    Stage::Small16,
    Stage::Small4,
];

pub(super) fn run(args: &GpuArgs) -> Result<u8, Failure> {
    match args.stage {
        Some(stage) => {
            run_stage(args, stage)?;
            Ok(code::OK)
        }
        None => run_all(args),
    }
}

/// Runs each stage in a process of its own.
fn run_all(args: &GpuArgs) -> Result<u8, Failure> {
    let mut stdout = std::io::stdout();
    let mut measured: Vec<Value> = Vec::new();
    let mut n_failed = 0;
    for stage in STAGES {
        let name = stage.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        let started = Instant::now();
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["bench", "gpu", "--stage", &name, "--compared", &args.compared.to_string()])
            .arg(&args.model)
            .stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let (send, lines) = mpsc::channel();
        let from = child.stdout.take();
        std::thread::Builder::new().name("lines".into()).spawn(move || {
            let lines = from.into_iter().flat_map(|from| BufReader::new(from).lines());
            lines.map_while(Result::ok).for_each(|line| drop(send.send(line)));
        })?;
        let end = started + Duration::from_secs(args.seconds);
        while let Ok(line) = lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            writeln!(stdout, "{line}")?;
            if let Ok(value) = serde_json::from_str(&line) {
                measured.push(value);
            }
        }
        let is_late = child.try_wait()?.is_none() && Instant::now() >= end;
        if is_late {
            child.kill()?;
        }
        let status = child.wait()?;
        let line = json!({"stage": name, "seconds": started.elapsed().as_secs_f64(), "status": status.code(), "late": is_late});
        writeln!(stdout, "{line}")?;
        n_failed += usize::from(!status.success());
        measured.push(line);
        if let Some(path) = &args.report {
            std::fs::write(path, format!("{:#}\n", json!({"measured": measured})))?;
        }
    }
    Ok(if n_failed == 0 { code::OK } else { code::INTERNAL })
}

fn run_stage(args: &GpuArgs, stage: Stage) -> Result<(), Failure> {
    match stage {
        Stage::Agreement => agreement(args),
        Stage::Given => {
            let n_tokens = n_max_tokens();
            let bench = Bench::load(&args.model, n_tokens, None, KvType::F16, Device::Cuda)?;
            speed("given", bench)
        }
        Stage::Riders => riders(args),
        Stage::Small16 => speed("1.5b-16", Bench::random(&small(), Bits::Sixteen, n_max_tokens())?),
        Stage::Small4 => speed("1.5b-4", Bench::random(&small(), Bits::Four, n_max_tokens())?),
        Stage::Large16 => speed("7b-16", Bench::random(&large(), Bits::Sixteen, n_max_tokens())?),
        Stage::Large4 => speed("7b-4", Bench::random(&large(), Bits::Four, n_max_tokens())?),
    }
}

fn n_max_tokens() -> usize {
    let most = BATCHES.iter().max().copied().unwrap_or(1);
    most * (DEPTH + 2 * N_STEPS + 32) + PROMPTS.iter().max().copied().unwrap_or(0)
}

fn say(value: &Value) -> Result<(), Failure> {
    writeln!(std::io::stdout(), "{value}")?;
    Ok(())
}

fn agreement(args: &GpuArgs) -> Result<(), Failure> {
    let engine = Engine::load(
        &args.model,
        EngineOptions { device: Device::Cpu, ..EngineOptions::default() },
        &mut |_| {},
    )?;
    let n = args.compared.min(engine.n_ctx());
    let tokens = riders::source(&engine)[..n].to_vec();
    drop(engine);
    let agreements = Bench::agreement(&args.model, &tokens)?;
    for (of, agreement) in ["a prompt", "an answer"].iter().zip(agreements) {
        let share = agreement.n_equal as f64 / agreement.n_rows as f64;
        say(&json!({"agreement_of": of, "nmse": agreement.nmse, "n_equal": agreement.n_equal,
            "n_tokens": agreement.n_rows, "share_equal": share}))?;
    }
    Ok(())
}

/// Measures decoding, prompts and the card's own copying.
fn speed(model: &str, mut bench: Bench) -> Result<(), Failure> {
    let Some((gpu, has_cublas, n_read_bytes)) = bench.gpu() else {
        return Err(engine::Error::NoGpu("the CPU runs the model".into()).into());
    };
    let copy_rate = bench.copy_rate()?;
    say(&json!({"model": model, "gpu": gpu, "cublas": has_cublas, "read_bytes": n_read_bytes,
        "weight_bytes": bench.n_weight_bytes(), "copy_bytes_per_second": copy_rate}))?;
    for n_sequences in BATCHES {
        let times = bench.decode_together(n_sequences, N_STEPS, DEPTH)?;
        let [with_logits, best_only] = times.map(|time| time.as_secs_f64() / N_STEPS as f64);
        let floor = n_read_bytes as f64 / copy_rate;
        say(&json!({"model": model, "decode_batch": n_sequences, "depth": DEPTH,
            "ms_per_step": 1e3 * best_only, "ms_per_step_with_logits": 1e3 * with_logits,
            "tokens_per_second": n_sequences as f64 / best_only,
            "tokens_per_second_with_logits": n_sequences as f64 / with_logits,
            "share_of_bandwidth_floor": floor / best_only}))?;
    }
    for n_tokens in PROMPTS {
        bench.prefill(n_tokens, 0)?;
        let mut times = (0..3).map(|_| bench.prefill(n_tokens, 0)).collect::<Result<Vec<_>, _>>()?;
        times.sort();
        say(&json!({"model": model, "prefill": n_tokens, "ms": ms(times[1]),
            "tokens_per_second": n_tokens as f64 / times[1].as_secs_f64()}))?;
    }
    Ok(())
}

/// Measures what drafts save, and what keystrokes and an agent cost each other.
fn riders(args: &GpuArgs) -> Result<(), Failure> {
    let options = EngineOptions { device: Device::Cuda, ..EngineOptions::default() };
    let engine = Engine::load(&args.model, options, &mut |_| {})?;
    if let Some(remark) = engine.remark() {
        return Err(engine::Error::NoGpu(remark.into()).into());
    }
    let (n_tokens, gain) = riders::rewriting_gain(&engine, &args.model, Device::Cuda)?;
    say(&json!({"rewriting": n_tokens, "gain_of_drafts": gain}))?;
    let tokens = riders::source(&engine);
    let alone = riders::keystrokes(&engine, &tokens, N_KEYS)?;
    let during = || riders::keystrokes(&engine, &tokens, N_KEYS);
    let (rate, beside) = riders::background_rate(&engine, &tokens, N_BACKGROUND, Some(&during))?;
    let at = |times: &[Duration], share| ms(riders::quantile(times, share));
    say(&json!({"keystrokes": N_KEYS, "background": N_BACKGROUND, "background_tokens_per_second": rate,
        "ttft_ms_alone": [at(&alone, 0.5), at(&alone, 0.95)], "ttft_ms_beside": [at(&beside, 0.5), at(&beside, 0.95)]}))?;
    Ok(())
}

/// The shape of Qwen2-1.5B.
fn small() -> ModelSpec {
    shape(1536, 8960, 12, 2)
}

/// The shape of Qwen2-7B.
fn large() -> ModelSpec {
    shape(3584, 18944, 28, 4)
}

fn shape(n_embd: usize, n_ff: usize, n_heads: usize, n_kv_heads: usize) -> ModelSpec {
    ModelSpec {
        architecture: "qwen2".into(),
        name: "random".into(),
        n_vocab: 151_936,
        n_ctx: 32_768,
        n_embd,
        n_ff,
        experts: None,
        n_layers: 28,
        n_heads,
        n_kv_heads,
        head_dim: 128,
        norm_eps: 1e-6,
        has_qkv_bias: true,
        has_qk_norm: false,
        rope: RopeSpec {
            theta: 1e6,
            n_dims: 128,
            position_divisor: 1.0,
            pairing: RopePairing::Neox,
            ..RopeSpec::default()
        },
    }
}

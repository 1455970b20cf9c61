use super::*;
use crate::gguf::test_file::test_model_path;
use crate::{CpuBackend, KvType, Sequence, TokenId, top_tokens};
use std::path::{Path, PathBuf};

/// Most by which a row's logits may differ where candle multiplies numbers: both round keys and values to f16, and ours
/// activations to 14 bits.
const MAX_NMSE: f64 = 2e-5;
/// The same where it multiplies codes: it rounds activations to 8 bits.
const MAX_NMSE_OF_CODES: f64 = 2e-2;

/// Makes numbers of a matrix.
fn as_numbers(matrix: QTensor) -> candle_core::Result<QMatMul> {
    Ok(QMatMul::Tensor(matrix.dequantize(&matrix.device())?))
}

/// One backend, its pool and sequences.
struct Runner {
    backend: Box<dyn Backend>,
    kv: KvPool,
    sequences: Vec<Sequence>,
}

impl Runner {
    /// Returns our own kernels and candle's, on one model.
    fn both_of(path: &Path, make_matrix: MakeMatrix) -> Option<[Self; 2]> {
        let gguf = Gguf::open(path).expect("a model");
        let spec = ModelSpec::from_gguf(&gguf).expect("a known family");
        let cpu = CpuBackend::load(&gguf, &spec, None, &mut |_| {}).expect("a model of ours");
        let loaded = CandleBackend::load_on(Device::Cpu, make_matrix, &gguf, &spec, 320, &mut |_| {});
        if spec.experts.is_some() {
            let error = loaded.err().expect("no mixtures on a device");
            assert!(error.to_string().contains("a mixture of experts on a GPU"), "{error}");
            return None;
        }
        let (candle, pool) = loaded.expect("a model of candle's");
        let runner = |backend, kv| Self { backend, kv, sequences: Vec::new() };
        let cpu = runner(Box::new(cpu) as Box<dyn Backend>, KvPool::new(&spec, 320, KvType::F16));
        Some([cpu, runner(Box::new(candle), pool)])
    }

    /// Computes more tokens of some sequences in one step, with logits for all that `wanted` names.
    fn step(&mut self, parts: &[(usize, &[TokenId])], wanted: &[usize]) -> Vec<Vec<f32>> {
        for &(idx, tokens) in parts {
            self.sequences.resize_with(self.sequences.len().max(idx + 1), Sequence::default);
            self.kv.reserve(&mut self.sequences[idx], tokens.len()).expect("room");
        }
        let spans: Vec<RowSpan<'_>> = parts
            .iter()
            .map(|&(idx, tokens)| RowSpan {
                blocks: self.sequences[idx].blocks(),
                start: self.sequences[idx].tokens().len(),
                n_tokens: tokens.len(),
            })
            .collect();
        let tokens: Vec<TokenId> = parts.iter().flat_map(|(_, tokens)| *tokens).copied().collect();
        let batch = StepBatch { tokens: &tokens, spans: &spans, logits: wanted };
        let mut logits = Logits::default();
        let control = StepControl { should_stop: &|| false };
        let end = self.backend.forward(&batch, &mut self.kv, &mut logits, &control).expect("a step");
        assert_eq!(end, StepEnd::Done);
        for &(idx, tokens) in parts {
            self.sequences[idx].commit(tokens);
        }
        (0..wanted.len()).map(|idx| logits.row(idx).to_vec()).collect()
    }
}

fn check(name: &str, runners: &mut [Runner; 2], parts: &[(usize, &[TokenId])], wanted: &[usize]) {
    let [want, got] = runners.each_mut().map(|runner| runner.step(parts, wanted));
    compare(name, &got, &want, MAX_NMSE);
}

fn compare(name: &str, got: &[Vec<f32>], want: &[Vec<f32>], max_nmse: f64) {
    for (got, want) in got.iter().zip(want) {
        let error: f64 = got.iter().zip(want).map(|(got, want)| f64::from(got - want).powi(2)).sum();
        let nmse = error / want.iter().map(|want| f64::from(*want).powi(2)).sum::<f64>();
        println!("{name}: NMSE {nmse:.2e}");
        assert!(nmse < max_nmse, "{name}: NMSE {nmse}");
        assert_eq!(top_tokens(got, 1)[0].0, top_tokens(want, 1)[0].0, "{name}");
    }
}

/// The default model, and a tiny one of every family.
fn models() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/families");
    let files = std::fs::read_dir(dir).expect("the fixtures").map(|entry| entry.expect("a file").path());
    files
        .filter(|path| path.extension().is_some_and(|ext| ext == "gguf"))
        .chain([test_model_path()])
        .collect()
}

#[test]
fn candles_tensors_give_the_logits_of_our_kernels() {
    let models = models();
    assert!(models.len() >= 8, "{models:?}");
    for path in models {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let Some(mut both) = Runner::both_of(&path, as_numbers) else { continue };
        let all: Vec<TokenId> = (0..100).map(|idx| TokenId(idx * 37 % 256)).collect();
        check(&name, &mut both, &[(0, &all[..70]), (1, &all[80..85])], &[0, 33, 69, 74]);
        check(&name, &mut both, &[(0, &all[70..74]), (1, &all[85..86])], &[0, 1, 2, 3, 4]);
        check(&name, &mut both, &[(1, &all[86..87])], &[0]);
        for runner in &mut both {
            let fork = runner.kv.fork(&runner.sequences[0], 73);
            runner.sequences.push(fork);
            let mut last = runner.sequences.remove(1);
            runner.kv.truncate(&mut last, 3);
            runner.sequences.insert(1, last);
        }
        // The fork writes into a block that it shares, so it takes a copy first.
        check(&name, &mut both, &[(2, &all[90..93]), (0, &all[74..75]), (1, &all[5..7])], &[2, 3, 5]);
        check(&name, &mut both, &[(2, &all[93..94]), (0, &all[75..76])], &[0, 1]);
        check(&name, &mut both, &[], &[]);
    }
}

/// As a Mac runs it, but for the device.
#[test]
fn candles_own_kernels_give_nearly_the_same() {
    let mut both = Runner::both_of(&test_model_path(), QMatMul::from_qtensor).expect("no mixture");
    let all: Vec<TokenId> = (0..40).map(|idx| TokenId(500 + idx * 37 % 256)).collect();
    for part in [&all[..30], &all[30..31], &all[31..40]] {
        let [want, got] = both.each_mut().map(|runner| runner.step(&[(0, part)], &[0]));
        compare("in its format", &got, &want, MAX_NMSE_OF_CODES);
    }
}

#[test]
fn a_step_is_given_up_between_two_layers() {
    let [_, mut candle] = Runner::both_of(&test_model_path(), as_numbers).expect("no mixture");
    let mut sequence = Sequence::default();
    candle.kv.reserve(&mut sequence, 2).expect("room");
    let span = RowSpan { blocks: sequence.blocks(), start: 0, n_tokens: 2 };
    let batch = StepBatch { tokens: &[TokenId(1), TokenId(2)], spans: &[span], logits: &[] };
    let n_asked = std::cell::Cell::new(0);
    let should_stop = || n_asked.replace(n_asked.get() + 1) == 1;
    let control = StepControl { should_stop: &should_stop };
    let end = candle.backend.forward(&batch, &mut candle.kv, &mut Logits::default(), &control);
    assert_eq!(end.expect("a step"), StepEnd::Stopped);
    assert_eq!(n_asked.get(), 2);
}

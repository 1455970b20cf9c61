//! A row's logits depend on its sequence only: the same bits however a sequence is cut into steps, on any number of
//! threads, beside whatever other sequences.

use std::num::NonZero;

use engine::{
    Backend, CpuBackend, Gguf, KvPool, KvType, Logits, ModelSpec, RowSpan, Sequence, StepBatch, StepControl,
    StepEnd, TokenId,
};

use crate::{Random, model_path};

const N_SEQUENCES: usize = 25;
const N_CASES: usize = 1_000;
/// Most rows of a step: decoding, verifying, and a little more than a tile of prefill.
const N_MAX_ROWS: usize = 18;

struct Runner {
    backend: CpuBackend,
    kv: KvPool,
    logits: Logits,
}

impl Runner {
    fn new(gguf: &Gguf, spec: &ModelSpec, n_threads: usize) -> Self {
        let backend = CpuBackend::load(gguf, spec, NonZero::new(n_threads), &mut |_| {}).unwrap();
        Self { backend, kv: KvPool::new(spec, 512, KvType::F16), logits: Logits::default() }
    }

    /// Computes `n_rows[s]` more tokens of each sequence in one step; returns every row's logits as bits.
    fn step(&mut self, sequences: &mut [(Sequence, &[TokenId])], n_rows: &[usize]) -> Vec<Vec<Vec<u32>>> {
        let mut tokens = Vec::new();
        for ((sequence, all), &n) in sequences.iter_mut().zip(n_rows) {
            let done = sequence.tokens().len();
            tokens.extend_from_slice(&all[done..done + n]);
            self.kv.reserve(sequence, n).unwrap();
        }
        let spans: Vec<RowSpan<'_>> = (sequences.iter().zip(n_rows))
            .map(|((sequence, _), &n_tokens)| RowSpan {
                blocks: sequence.blocks(),
                start: sequence.tokens().len(),
                n_tokens,
            })
            .collect();
        let wanted: Vec<usize> = (0..tokens.len()).collect();
        let batch = StepBatch { tokens: &tokens, spans: &spans, logits: &wanted };
        let control = StepControl { should_stop: &|| false };
        let end = self.backend.forward(&batch, &mut self.kv, &mut self.logits, &control).unwrap();
        assert_eq!(end, StepEnd::Done);
        let mut row_idx = 0;
        let mut all_rows = Vec::new();
        for ((sequence, all), &n) in sequences.iter_mut().zip(n_rows) {
            let done = sequence.tokens().len();
            sequence.commit(&all[done..done + n]);
            let bits = |row_idx| self.logits.row(row_idx).iter().map(|logit| logit.to_bits()).collect();
            all_rows.push((row_idx..row_idx + n).map(bits).collect());
            row_idx += n;
        }
        all_rows
    }
}

#[test]
fn i_7_a_thousand_ways_to_cut_give_the_same_bits() {
    let gguf = Gguf::open(&model_path()).unwrap();
    let spec = ModelSpec::from_gguf(&gguf).unwrap();
    let mut whole = Runner::new(&gguf, &spec, 1);
    let mut runners: Vec<Runner> = [1, 2, 3].map(|n| Runner::new(&gguf, &spec, n)).into();
    let mut random = Random(20_261_126);
    for sequence_idx in 0..N_SEQUENCES {
        // Every third time in bytes: what is written in a step must be read in it as in any later one.
        let kv_type = if sequence_idx % 3 == 2 { KvType::Q8_0 } else { KvType::F16 };
        for runner in runners.iter_mut().chain([&mut whole]) {
            runner.kv = KvPool::new(&spec, 512, kv_type);
        }
        let texts: [Vec<TokenId>; 2] = std::array::from_fn(|_| {
            let n_tokens = 2 + random.below(16);
            (0..n_tokens).map(|_| TokenId(random.below(spec.n_vocab) as u32)).collect()
        });
        // Each alone, in one step, on one thread.
        let expected: [Vec<Vec<u32>>; 2] = std::array::from_fn(|idx| {
            let mut one = [(Sequence::default(), &texts[idx][..])];
            let rows = whole.step(&mut one, &[texts[idx].len()]).remove(0);
            one.into_iter().for_each(|(sequence, _)| whole.kv.release(sequence));
            rows
        });
        for case in 0..N_CASES / N_SEQUENCES {
            // Alone or together, with any number of rows in a step.
            let mut sequences: Vec<(Sequence, &[TokenId])> =
                texts.iter().take(1 + random.below(2)).map(|text| (Sequence::default(), &text[..])).collect();
            let runner = &mut runners[case % 3];
            let mut got: Vec<Vec<Vec<u32>>> = vec![Vec::new(); sequences.len()];
            let mut cut = Vec::new();
            while got.iter().zip(&sequences).any(|(rows, (_, text))| rows.len() < text.len()) {
                let n_most = 1 + random.below(N_MAX_ROWS);
                let n_rows: Vec<usize> = (got.iter().zip(&sequences))
                    .map(|(rows, (_, text))| (text.len() - rows.len()).min(1 + random.below(n_most)))
                    .collect();
                for (got, rows) in got.iter_mut().zip(runner.step(&mut sequences, &n_rows)) {
                    got.extend(rows);
                }
                cut.push(n_rows);
            }
            sequences.into_iter().for_each(|(sequence, _)| runner.kv.release(sequence));
            for (got, expected) in got.iter().zip(&expected) {
                assert!(got == expected, "{kv_type} cut into {cut:?} on {} threads", case % 3 + 1);
            }
        }
    }
}

//! Attention against f64 over what the cache holds, and against itself however it is computed.

use super::*;
use crate::kernel::lanes::Portable;
use crate::{KvType, Sequence};

const TYPES: [KvType; 2] = [KvType::F16, KvType::Q8_0];
/// More than a chunk and two blocks, the last one not full.
const N_POSITIONS: usize = CHUNK_BLOCKS * BLOCK_TOKENS + 43;
/// Whole groups of 32; then ends of 16, of 8, and of 16 and 4.
const DIMS: [usize; 5] = [64, 32, 80, 40, 20];

fn values(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed | 1;
    let value = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(value).take(n).collect()
}

struct Case {
    spec: ModelSpec,
    kv: KvPool,
    sequence: Sequence,
    q: Vec<f32>,
}

fn case(kv_type: KvType, head_dim: usize) -> Case {
    let spec = ModelSpec { n_layers: 1, n_heads: 6, n_kv_heads: 2, head_dim, ..ModelSpec::default() };
    let mut kv = KvPool::new(&spec, N_POSITIONS + 64, kv_type);
    let mut sequence = Sequence::default();
    kv.reserve(&mut sequence, N_POSITIONS).expect("the pool is large enough");
    for position in 0..N_POSITIONS {
        let [k, v] = [1, 2].map(|kind| values(0x9e37 * (position as u64 * 3 + kind), 2 * head_dim));
        kv.write(0, sequence.blocks(), position, &k, &v);
    }
    let q = values(77, N_POSITIONS * 6 * head_dim).into_iter().map(|x| 4.0 * x).collect();
    Case { spec, kv, sequence, q }
}

impl Case {
    /// Answers some rows' queries, as this machine does or with plain code.
    fn answers(&self, rows: std::ops::Range<usize>, n_threads: usize, is_plain: bool) -> Vec<f32> {
        let pool = Pool::new(n_threads).expect("threads start");
        let width = self.spec.n_heads * self.spec.head_dim;
        let q = &self.q[rows.start * width..rows.end * width];
        let mut out = vec![f32::NAN; q.len()];
        let spans = [RowSpan { blocks: self.sequence.blocks(), start: rows.start, n_tokens: rows.len() }];
        match self.kv.layers() {
            Layers::F16(layers) if is_plain => {
                share_out(&pool, &self.spec, (layers, 0), &spans, q, &mut out, answer::<Portable, f16>);
            }
            Layers::Q8_0(layers) if is_plain => {
                share_out(&pool, &self.spec, (layers, 0), &spans, q, &mut out, answer::<Portable, i8>);
            }
            _ => attend(&pool, &self.spec, &self.kv, 0, &spans, q, &mut out),
        }
        out
    }

    /// Answers one query in f64.
    fn expected(&self, row_idx: usize, head_idx: usize) -> Vec<f64> {
        let dim = self.spec.head_dim;
        let q = &self.q[(row_idx * self.spec.n_heads + head_idx) * dim..][..dim];
        let mut answer = vec![0.0; dim];
        let mut sum = 0.0;
        for position in 0..=row_idx {
            let [key, value] = self.kv.read(0, self.sequence.blocks(), position, head_idx / 3);
            let dot: f64 = q.iter().zip(&key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
            let weight = (dot / (dim as f64).sqrt()).exp();
            sum += weight;
            answer.iter_mut().zip(&value).for_each(|(answer, v)| *answer += weight * f64::from(*v));
        }
        answer.iter().map(|answer| answer / sum).collect()
    }
}

#[test]
fn attention_is_that_of_f64_over_what_the_cache_holds() {
    for (kv_type, dim) in TYPES.into_iter().flat_map(|kv_type| DIMS.map(|dim| (kv_type, dim))) {
        let case = case(kv_type, dim);
        let got = case.answers(0..N_POSITIONS, 1, false);
        for (idx, got) in got.chunks(dim).enumerate().step_by(7) {
            for (got, expected) in got.iter().zip(case.expected(idx / 6, idx % 6)) {
                let error = (f64::from(*got) - expected).abs();
                assert!(error < 2e-6, "{kv_type} of {dim} dimensions: {got} {expected}");
            }
        }
    }
}

#[test]
fn attention_has_the_same_bits_with_any_instructions_rows_and_threads() {
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    for (kv_type, dim) in TYPES.into_iter().flat_map(|kv_type| DIMS.map(|dim| (kv_type, dim))) {
        let case = case(kv_type, dim);
        let expected = bits(case.answers(0..N_POSITIONS, 1, true));
        for (n_rows, n_threads) in
            [(1, 1), (1, 2), (2, 3), (3, 1), (5, 2), (8, 1), (11, 2), (43, 2), (N_POSITIONS, 3)]
        {
            let mut got = Vec::new();
            for start in (0..N_POSITIONS).step_by(n_rows) {
                let rows = start..(start + n_rows).min(N_POSITIONS);
                got.extend(bits(case.answers(rows, n_threads, false)));
            }
            assert!(got == expected, "{kv_type} of {dim} dimensions, {n_rows} rows on {n_threads} threads");
        }
    }
}

#[test]
fn sequences_in_one_step_share_blocks_and_get_what_each_gets_alone() {
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    for kv_type in TYPES {
        let dim = 64;
        let mut case = case(kv_type, dim);
        case.sequence.commit(&vec![crate::TokenId(0); N_POSITIONS]);
        // The one goes on in the second chunk, the other in the first.
        for n_shared in [CHUNK_BLOCKS * BLOCK_TOKENS + 5, 21] {
            let mut fork = case.kv.fork(&case.sequence, n_shared);
            case.kv.reserve(&mut fork, 3).expect("the pool is large enough");
            for position in n_shared..n_shared + 3 {
                let [k, v] = [5, 6].map(|kind| values(0x51ed * (position as u64 * 7 + kind), 2 * dim));
                case.kv.write(0, fork.blocks(), position, &k, &v);
            }
            let spans = [
                RowSpan { blocks: case.sequence.blocks(), start: N_POSITIONS - 2, n_tokens: 2 },
                RowSpan { blocks: fork.blocks(), start: n_shared, n_tokens: 3 },
            ];
            let width = case.spec.n_heads * dim;
            let answer = |spans: &[RowSpan<'_>], q: &[f32], n_threads: usize| {
                let pool = Pool::new(n_threads).expect("threads start");
                let mut out = vec![f32::NAN; q.len()];
                attend(&pool, &case.spec, &case.kv, 0, spans, q, &mut out);
                out
            };
            let q = &case.q[..5 * width];
            let (of_first, of_fork) = q.split_at(2 * width);
            let alone = [answer(&spans[..1], of_first, 1), answer(&spans[1..], of_fork, 1)].concat();
            for n_threads in [1, 2, 3] {
                assert_eq!(bits(&answer(&spans, q, n_threads)), bits(&alone), "{kv_type}, {n_shared} shared");
            }
            case.kv.release(fork);
        }
    }
}

#[test]
fn a_query_that_is_no_number_gets_no_number_and_not_what_was_there() {
    let mut case = case(KvType::F16, 64);
    let width = case.spec.n_heads * 64;
    case.q[..64].fill(f32::NAN);
    for n_threads in [1, 2] {
        let pool = Pool::new(n_threads).expect("threads start");
        let mut out = vec![7.0; width];
        let start = N_POSITIONS - 1;
        let spans = [RowSpan { blocks: case.sequence.blocks(), start, n_tokens: 1 }];
        attend(&pool, &case.spec, &case.kv, 0, &spans, &case.q[..width], &mut out);
        assert!(out[..64].iter().all(|x| x.is_nan()) && out[64..].iter().all(|x| x.is_finite()), "{out:?}");
    }
}

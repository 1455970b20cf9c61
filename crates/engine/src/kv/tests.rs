//! Blocks that are shared, copied and used again keep what was written, in either type.

use super::*;

const TYPES: [KvType; 2] = [KvType::F16, KvType::Q8_0];

/// One whole group of dimensions and a shorter one.
const DIM: usize = 40;

fn spec() -> ModelSpec {
    ModelSpec { n_layers: 2, n_kv_heads: 2, head_dim: DIM, ..ModelSpec::default() }
}

fn append(pool: &mut KvPool, sequence: &mut Sequence, ids: &[u32]) {
    pool.reserve(sequence, ids.len()).expect("the pool is large enough");
    for (i, &id) in ids.iter().enumerate() {
        let position = sequence.tokens().len() + i;
        for layer_idx in 0..2 {
            let value = [id as f32; 2 * DIM];
            pool.write(layer_idx, &sequence.blocks, position, &value, &value);
        }
    }
    sequence.commit(&ids.iter().copied().map(TokenId).collect::<Vec<_>>());
}

/// Reads back through the pool what `append` wrote.
fn contents(pool: &KvPool, sequence: &Sequence) -> Vec<u32> {
    let read = |position: usize| {
        let [key, value] = pool.read(1, sequence.blocks(), position, 1);
        assert_eq!(key, value);
        assert!(key.iter().all(|x| *x == key[0]));
        key[0].round() as u32
    };
    (0..sequence.tokens().len()).map(read).collect()
}

#[test]
fn a_fork_shares_blocks_until_one_side_writes() {
    // One block in a segment, and many.
    let of_many_layers = ModelSpec { n_layers: 4_096, ..spec() };
    for (kv_type, spec) in
        TYPES.into_iter().flat_map(|kv_type| [(kv_type, spec()), (kv_type, of_many_layers.clone())])
    {
        let mut pool = KvPool::new(&spec, 1024, kv_type);
        let mut first = Sequence::default();
        append(&mut pool, &mut first, &(0..20).collect::<Vec<_>>());
        let mut second = pool.fork(&first, 18);
        assert_eq!(pool.n_used_blocks(), 2);
        append(&mut pool, &mut second, &[100, 101]);
        append(&mut pool, &mut first, &[20]);
        assert_eq!(pool.n_used_blocks(), 3);
        assert_eq!(contents(&pool, &first), (0..21).collect::<Vec<_>>());
        assert_eq!(contents(&pool, &second), (0..18).chain([100, 101]).collect::<Vec<_>>());
    }
}

#[test]
fn truncate_gives_blocks_back_and_the_sequence_can_grow_again() {
    for kv_type in TYPES {
        let mut pool = KvPool::new(&spec(), 48, kv_type);
        let mut sequence = Sequence::default();
        append(&mut pool, &mut sequence, &(0..48).collect::<Vec<_>>());
        assert_eq!(pool.reserve(&mut sequence, 1), Err(KvFull { n_blocks: 3 }));
        pool.truncate(&mut sequence, 5);
        assert_eq!(pool.n_used_blocks(), 1);
        append(&mut pool, &mut sequence, &[77; 30]);
        assert_eq!(contents(&pool, &sequence), (0..5).chain([77; 30]).collect::<Vec<_>>());
        pool.release(sequence);
        assert_eq!(pool.n_used_blocks(), 0);
    }
}

#[test]
fn a_block_used_again_is_empty_and_no_value_is_infinite() {
    for kv_type in TYPES {
        let mut pool = KvPool::new(&spec(), 16, kv_type);
        let mut first = Sequence::default();
        pool.reserve(&mut first, 2).expect("the pool is large enough");
        for position in 0..2 {
            let value = [-1e9, f32::NAN][position];
            pool.write(0, first.blocks(), position, &[1e9; 2 * DIM], &[value; 2 * DIM]);
        }
        let largest = f16::MAX.to_f32_const();
        let [_, value] = pool.read(0, first.blocks(), 0, 0);
        assert!(value.iter().all(|x| (x + largest).abs() <= largest / 1024.0), "{value:?}");
        assert!(pool.read(0, first.blocks(), 1, 0)[1].iter().all(|x| x.is_nan()));
        pool.release(first);
        let mut second = Sequence::default();
        pool.reserve(&mut second, 1).expect("the pool is large enough");
        for (position, head_idx) in (0..BLOCK_TOKENS).flat_map(|position| [(position, 0), (position, 1)]) {
            assert_eq!(pool.read(0, second.blocks(), position, head_idx), [[0.0; DIM]; 2]);
        }
    }
}

#[test]
fn a_truncated_fork_never_writes_into_the_original() {
    for kv_type in TYPES {
        let mut pool = KvPool::new(&spec(), 1024, kv_type);
        let mut first = Sequence::default();
        append(&mut pool, &mut first, &(0..32).collect::<Vec<_>>());
        let mut second = pool.fork(&first, 32);
        pool.truncate(&mut second, 7);
        append(&mut pool, &mut second, &[9; 20]);
        assert_eq!(contents(&pool, &first), (0..32).collect::<Vec<_>>());
    }
}

/// Keys and values that no two places have in common, of sizes that differ between groups and positions.
fn written(layer_idx: usize, position: usize) -> [Vec<f32>; 2] {
    [0.9, -1.1].map(|kind| {
        let value = |idx: usize| kind * (1 + idx) as f32 * (1 + position + 32 * layer_idx) as f32;
        (0..2 * DIM).map(value).collect()
    })
}

#[test]
fn every_number_comes_back_from_its_own_place() {
    for kv_type in TYPES {
        let mut pool = KvPool::new(&spec(), 32, kv_type);
        let mut sequence = Sequence::default();
        pool.reserve(&mut sequence, 32).expect("the pool is large enough");
        let places = || (0..2).flat_map(|layer_idx| (0..32).map(move |position| (layer_idx, position)));
        for (layer_idx, position) in places() {
            let [k, v] = written(layer_idx, position);
            pool.write(layer_idx, sequence.blocks(), position, &k, &v);
        }
        for (layer_idx, position) in places() {
            for (kind_idx, wanted) in written(layer_idx, position).iter().enumerate() {
                for (head_idx, wanted) in wanted.chunks(DIM).enumerate() {
                    let got = pool.read(layer_idx, sequence.blocks(), position, head_idx);
                    for (got, wanted) in got[kind_idx].chunks(GROUP).zip(wanted.chunks(GROUP)) {
                        let largest = wanted.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
                        for (got, wanted) in got.iter().zip(wanted) {
                            assert!((got - wanted).abs() <= 0.51 / 127.0 * largest, "{got} {wanted}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn q8_0_takes_little_more_than_half_the_memory_of_f16() {
    // The default model, and a head whose last group is shorter.
    for (spec, f16_bytes, q8_0_bytes) in [
        (ModelSpec { n_layers: 30, n_kv_heads: 3, head_dim: 64, ..ModelSpec::default() }, 23_040, 12_240),
        (spec(), 640, 352),
    ] {
        for (kv_type, n_bytes) in [(KvType::F16, f16_bytes), (KvType::Q8_0, q8_0_bytes)] {
            assert_eq!(kv_type.n_bytes_per_token(&spec), n_bytes);
            let mut pool = KvPool::new(&spec, 1024, kv_type);
            assert_eq!((pool.n_bytes(), pool.kv_type()), (0, kv_type));
            let mut sequence = Sequence::default();
            pool.reserve(&mut sequence, 3 * BLOCK_TOKENS).expect("the pool is large enough");
            assert_eq!(pool.n_bytes(), 3 * BLOCK_TOKENS * n_bytes);
        }
    }
}

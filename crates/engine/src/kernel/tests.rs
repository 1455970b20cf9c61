//! Every variant against the specification, and the specification against f64.

use half::f16;

use super::activations::MAX_QUANT;
use super::*;

const ALL: [Format; 11] = [
    Format::Q4_0,
    Format::Q4_1,
    Format::Q5_0,
    Format::Q5_1,
    Format::Q8_0,
    Format::Q4K,
    Format::Q5K,
    Format::Q6K,
    Format::F16,
    Format::BF16,
    Format::F32,
];

fn bytes(seed: u64, n: usize) -> Vec<u8> {
    let mut state = seed | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    })
    .take(n)
    .collect()
}

/// Random rows as a file has them, with scales that a model could have.
fn file_rows(format: Format, n_blocks: usize, seed: u64) -> Vec<u8> {
    let mut rows = bytes(seed, n_blocks / format.n_blocks_per_super() * format.file_bytes());
    for (idx, block) in rows.chunks_exact_mut(format.file_bytes()).enumerate() {
        let scale = [0.0, 6e-8, 0.01, -3.0][(idx + seed as usize) % 4];
        match format {
            Format::F32 => set_numbers::<4>(block, |byte| (f32::from(byte) * scale).to_le_bytes()),
            Format::F16 => {
                set_numbers::<2>(block, |byte| f16::from_f32(f32::from(byte) * scale).to_le_bytes())
            }
            Format::BF16 => {
                set_numbers::<2>(block, |byte| half::bf16::from_f32(f32::from(byte) * scale).to_le_bytes());
            }
            _ => {
                let at = if format == Format::Q6K { 208 } else { 0 };
                block[at..at + 2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
                if format.has_min() {
                    block[2..4].copy_from_slice(&f16::from_f32(-8.0 * scale).to_le_bytes());
                }
            }
        }
    }
    rows
}

/// Replaces random bytes by numbers made of them.
fn set_numbers<const B: usize>(block: &mut [u8], number: impl Fn(i8) -> [u8; B]) {
    block.as_chunks_mut::<B>().0.iter_mut().for_each(|bytes| *bytes = number(bytes[0].cast_signed()));
}

fn panels(format: Format, rows: &[u8], n_out: usize, n_in: usize) -> Panels {
    let mut packer = Packer::default();
    let panels = packer.add(format, rows, n_out, n_in);
    packer.pack(&pool(1), |_| {}).expect("memory for a test");
    panels
}

fn pool(n_threads: usize) -> Pool {
    Pool::new(n_threads).expect("threads start")
}

/// Rows with zeros, denormals and large numbers among ordinary ones.
fn values(n_rows: usize, n_in: usize, seed: u64) -> Vec<f32> {
    let value = |(idx, byte): (usize, u8)| {
        let is_zero = idx / BLOCK % 5 == 3;
        if is_zero { 0.0 } else { (f32::from(byte) - 128.0) * [1e-9, 0.1, 900.0, 1e-40][idx / BLOCK % 4] }
    };
    bytes(seed, n_rows * n_in).into_iter().enumerate().map(value).collect()
}

fn quantised(x: &[f32], n_in: usize) -> Activations {
    let mut activations = Activations::default();
    activations.resize(x.len() / n_in, n_in);
    activations.groups_mut().zip(x.chunks(N_GROUPED * n_in)).for_each(|(group, x)| {
        group.x.copy_from_slice(x);
        group.quantise();
    });
    activations
}

fn product(isa: Isa, x: &Activations, weights: &Panels) -> Vec<f32> {
    let mut y = vec![f32::NAN; x.n_rows() * weights.n_out()];
    multiply_with(isa, &pool(2), &mut [Product { weights, x, y: &mut y }]);
    y
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn i_11_every_kernel_variant_agrees_with_scalar_and_with_itself_at_any_number_of_rows() {
    let mut seed = 0;
    for format in ALL {
        let n_per_super = format.n_blocks_per_super();
        for n_blocks in [1, 2, 3, 18, 48].map(|n: usize| n.next_multiple_of(n_per_super)) {
            for n_out in [1, 15, 16, 17, 40] {
                seed += 1;
                let n_in = n_blocks * BLOCK;
                let weights = panels(format, &file_rows(format, n_out * n_blocks, seed), n_out, n_in);
                let x = values(35, n_in, seed + 1);
                let expected = product(Isa::Scalar, &quantised(&x, n_in), &weights);
                for isa in isa::available() {
                    for n_rows in [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 35] {
                        let got = product(isa, &quantised(&x[..n_rows * n_in], n_in), &weights);
                        let expected = &expected[..n_rows * n_out];
                        assert_eq!(
                            bits(&got),
                            bits(expected),
                            "{isa:?} {format:?} {n_blocks} {n_out} {n_rows}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn products_agree_with_f64_over_the_dequantised_weights() {
    for format in ALL {
        let (n_rows, n_out, n_blocks) = (3, 20, 8);
        let n_in = n_blocks * BLOCK;
        let weights = panels(format, &file_rows(format, n_out * n_blocks, 5), n_out, n_in);
        let x = values(n_rows, n_in, 6);
        let y = product(isa(), &quantised(&x, n_in), &weights);
        for out_idx in 0..n_out {
            let mut w = Vec::new();
            weights.dequantise_row(out_idx, &mut w);
            for row_idx in 0..n_rows {
                let x = &x[row_idx * n_in..(row_idx + 1) * n_in];
                let expected: f64 = x.iter().zip(&w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                // Half a quant for each value.
                let error: f64 = (x.chunks(BLOCK).zip(w.chunks(BLOCK)))
                    .map(|(x, w)| {
                        let max = x.iter().fold(0.0f32, |max, x| max.max(x.abs()));
                        let w: f64 = w.iter().map(|w| f64::from(w.abs())).sum();
                        f64::from(max / MAX_QUANT) * w
                    })
                    .sum();
                let got = f64::from(y[row_idx * n_out + out_idx]);
                let tolerance = error + 1e-5 * expected.abs() + 1e-9;
                assert!((got - expected).abs() <= tolerance, "{format:?}: {got} {expected} {tolerance}");
            }
        }
    }
}

#[test]
fn rows_come_back_as_candle_dequantises_them() {
    use candle_core::quantized::GgmlDType;
    for (format, dtype) in ALL.into_iter().zip([
        GgmlDType::Q4_0,
        GgmlDType::Q4_1,
        GgmlDType::Q5_0,
        GgmlDType::Q5_1,
        GgmlDType::Q8_0,
        GgmlDType::Q4K,
        GgmlDType::Q5K,
        GgmlDType::Q6K,
        GgmlDType::F16,
        GgmlDType::BF16,
        GgmlDType::F32,
    ]) {
        let (n_out, n_blocks) = (18, 16);
        let rows = file_rows(format, n_out * n_blocks, 11);
        let weights = panels(format, &rows, n_out, n_blocks * BLOCK);
        let mut got = Vec::new();
        (0..n_out).for_each(|row_idx| weights.dequantise_row(row_idx, &mut got));
        let theirs = dtype.from_data(rows.into()).dequantize(got.len()).expect("sound blocks");
        assert_eq!(theirs.as_slice::<f32>().expect("f32 values"), got, "{format:?}");
    }
}

#[test]
fn the_extremes_do_not_overflow() {
    for format in Format::QUANTISED {
        for code_bytes in [0x00, 0xff, 0x80, 0x7f] {
            let mut rows = vec![code_bytes; format.file_bytes()];
            let at = if format == Format::Q6K { 208 } else { 0 };
            rows[at..at + 2].copy_from_slice(&f16::ONE.to_le_bytes());
            if format.has_min() {
                rows[2..4].copy_from_slice(&f16::from_f32(0.5).to_le_bytes());
            }
            let n_in = format.row_multiple();
            let weights = panels(format, &rows, 1, n_in);
            let mut w = Vec::new();
            weights.dequantise_row(0, &mut w);
            for sign in [1.0f32, -1.0] {
                for n_rows in [1, 8, 16] {
                    let x = quantised(&vec![sign * 127.0; n_rows * n_in], n_in);
                    let expected = sign * 127.0 * w.iter().sum::<f32>();
                    let size = 127.0 * w.iter().map(|w| w.abs()).sum::<f32>();
                    for isa in isa::available() {
                        for got in product(isa, &x, &weights) {
                            let error = (got - expected).abs();
                            assert!(error <= 1e-5 * size, "{isa:?} {format:?}: {got} {expected}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn products_that_share_activations_are_those_of_each_alone() {
    let n_in = 4 * BLOCK;
    let weights: Vec<Panels> = [(Format::Q4_1, 33), (Format::Q8_0, 2000)]
        .map(|(f, n)| panels(f, &file_rows(f, n * 4, 9), n, n_in))
        .into();
    let x = quantised(&values(9, n_in, 3), n_in);
    let mut together: Vec<Vec<f32>> = weights.iter().map(|w| vec![0.0; 9 * w.n_out()]).collect();
    let mut products: Vec<Product<'_>> =
        weights.iter().zip(&mut together).map(|(weights, y)| Product { weights, x: &x, y }).collect();
    multiply(&pool(2), &mut products);
    for (weights, together) in weights.iter().zip(together) {
        assert_eq!(bits(&product(isa(), &x, weights)), bits(&together));
    }
}

#[test]
fn rows_that_are_no_whole_blocks_keep_their_values() {
    let mut activations = Activations::default();
    activations.resize(3, 172);
    activations.groups_mut().for_each(|group| {
        group.x.fill(1.5);
        group.quantise();
    });
    assert!(activations.x.len() == 3 * 172 && activations.x.iter().all(|x| *x == 1.5));
    assert_eq!(activations.n_blocks(), 0);
}

#[test]
fn what_is_no_number_makes_its_row_none_whatever_the_instructions() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for place in [0, 8, 15, 16, 24, 31, 40] {
            let n_in = 2 * BLOCK;
            let mut x = values(3, n_in, 7);
            let sound = x.clone();
            x[n_in + place] = bad;
            let weights = panels(Format::Q4_1, &file_rows(Format::Q4_1, 20 * 2, 3), 20, n_in);
            for isa in isa::available() {
                let (got, expected) = (
                    product(isa, &quantised(&x, n_in), &weights),
                    product(isa, &quantised(&sound, n_in), &weights),
                );
                assert!(got[20..40].iter().all(|y| y.is_nan()), "{isa:?} {bad} at {place}");
                assert_eq!(bits(&got[..20]), bits(&expected[..20]));
                assert_eq!(bits(&got[40..]), bits(&expected[40..]));
            }
        }
    }
}

//! 200 broken copies of the real model: each a clear error and its exit code, never a panic.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use e2e::{Home, model_path, run, text};

/// Bytes at the start of the real file that hold counts, keys and value types, before the vocabulary.
const N_STRUCTURE_BYTES: u64 = 400;

fn patch(path: &Path, at: u64, bytes: &[u8]) -> Vec<u8> {
    let mut file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut old = vec![0; bytes.len()];
    file.seek(SeekFrom::Start(at)).unwrap();
    file.read_exact(&mut old).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(bytes).unwrap();
    old
}

/// Runs a completion on the file; returns whether it was refused as it should be.
fn is_refused(home: &Home, model: &Path, what: &str) {
    let source = home.path().join("x.py");
    std::fs::write(&source, "x = 1\n").unwrap();
    let output =
        run(home.agent().arg("complete").arg("--model").arg(model).arg(format!("{}:1:6", source.display())));
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{what}: {stderr}");
    assert!(stderr.starts_with("error: ") && stderr.contains("hint: "), "{what}: {stderr}");
    assert!(!stderr.contains("panicked"), "{what}: {stderr}");
}

#[test]
fn truncated_flipped_and_oversized_files_are_refused() {
    let home = Home::new();
    let whole = std::fs::metadata(model_path()).unwrap().len();
    let model = home.path().join("broken.gguf");
    std::fs::copy(model_path(), &model).unwrap();

    // 60 oversized: every count and length of the header set to something huge.
    for (nth, (at, width)) in [(8, 8), (16, 8), (24, 8)].into_iter().cycle().take(60).enumerate() {
        let huge = u64::MAX >> (nth % 20);
        let old = patch(&model, at, &huge.to_le_bytes()[..width]);
        is_refused(&home, &model, &format!("{huge:#x} at byte {at}"));
        patch(&model, at, &old);
    }
    // 60 flips: magic, version, counts, and the dimensions, types and offsets of tensors.
    let tensors = tensor_fields(&model);
    for nth in 0..60u64 {
        let at = if nth < 24 { nth } else { tensors[(nth as usize * 37) % tensors.len()] };
        let byte = patch(&model, at, &[0])[0];
        patch(&model, at, &[byte ^ (1 << (nth % 8))]);
        is_refused(&home, &model, &format!("bit {} of byte {at} flipped", nth % 8));
        patch(&model, at, &[byte]);
    }
    // 80 truncations, the longest first, at every part of the file.
    let mut lengths: Vec<u64> = (0..40).map(|nth| whole * nth / 40).collect();
    lengths.extend((0..20).map(|nth| N_STRUCTURE_BYTES * nth / 20 + 1));
    lengths.extend((0..20).map(|nth| whole - 1 - nth * 997));
    lengths.sort_unstable_by(|a, b| b.cmp(a));
    assert_eq!(lengths.len(), 80);
    for length in lengths {
        File::options().write(true).open(&model).unwrap().set_len(length).unwrap();
        is_refused(&home, &model, &format!("cut to {length} bytes"));
    }
}

/// Returns the places of the bytes in the tensor table that no flip may leave unnoticed.
fn tensor_fields(model: &Path) -> Vec<u64> {
    let mut head = vec![0; 4 << 20];
    let n = File::open(model).unwrap().read(&mut head).unwrap();
    head.truncate(n);
    let mut fields = Vec::new();
    for name in ["blk.0.attn_q.weight", "blk.7.ffn_down.weight", "blk.29.attn_k.weight", "token_embd.weight"]
    {
        let at = head.windows(name.len()).position(|window| window == name.as_bytes()).unwrap() + name.len();
        // n_dims u32, two dims u64, type u32, offset u64.
        fields.extend((at..at + 4 + 16 + 4 + 8).map(|at| at as u64));
    }
    fields
}

//! Makes a model out of another, of whose bytes an adapter says which are different.
//!
//! In: an adapter that is compiled in, the file of its base. Out: [`Fetched`], the file it was made to give.
//! Never: a file out of another base than the adapter's.
//!
//! An adapter is a zip. `patch.json` tells what the result is made of, in its order: bytes of the base, bytes that are
//! new, and blocks of Q4_1 whose sixteenths, or scales too, differ. So the result is as large and as fast as its base, and a file like
//! any other. `training/patch.py` makes them.

use std::fs::File;
use std::io::{Cursor, Read as _};
use std::path::Path;

use serde::Deserialize;
use zip::ZipArchive;

use crate::fetch::Fetched;
use crate::sha256::{CopyError, copy_and_hash};
use crate::{CancelFlag, Entry, Error, Progress};

/// The adapters that come with Tandem, by name.
const BUILT_IN: &[(&str, &[u8])] =
    &[("smollm2-135m-fim", include_bytes!("../adapters/smollm2-135m-fim.patch"))];

/// A block of Q4_1: two f16 and 32 numbers of four bits.
const N_BLOCK_BYTES: usize = 20;
const N_SCALE_BYTES: usize = 4;
/// Most bytes of `patch.json`.
const N_MAX_PLAN_BYTES: u64 = 4 << 20;
/// Most bytes a part of an adapter may unpack to.
const N_MAX_PART_BYTES: u64 = 1 << 30;

/// An adapter, opened.
pub(crate) struct Adapter {
    name: String,
    archive: ZipArchive<Cursor<&'static [u8]>>,
    plan: Plan,
}

#[derive(Deserialize)]
struct Plan {
    format: u32,
    base_sha256: String,
    base_bytes: u64,
    ops: Vec<Op>,
}

/// A part of the result. Offsets and lengths are in bytes of the base.
#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum Op {
    /// Bytes of the base.
    Copy { offset: u64, len: u64 },
    /// The next `len` bytes of `insert.bin`.
    Insert { len: u64 },
    /// Blocks of Q4_1: the base's scales, and its numbers plus the next ones of `nibbles.bin`, modulo 16.
    Nibbles { offset: u64, n_blocks: u64 },
    /// Blocks of Q4_1 likewise, whose scales move too, by the next numbers of `scales.bin`: for all blocks' first scale,
    /// then for their second one, a plane of low bytes and one of high bytes. Each is folded: 0, 1, 2, 3, … stand for
    /// 0, -1, 1, -2, … to be added to the bits.
    Blocks { offset: u64, n_blocks: u64 },
    /// Bytes of the base, each xor the next one of `xor.bin`.
    Xor { offset: u64, len: u64 },
}

impl Adapter {
    /// Opens an adapter that comes with Tandem.
    pub(crate) fn built_in(name: &str) -> Result<Self, Error> {
        match BUILT_IN.iter().find(|(known, _)| *known == name) {
            Some((_, bytes)) => Self::open(name, bytes),
            None => Err(refused(name, "none of this name comes with Tandem")),
        }
    }

    fn open(name: &str, bytes: &'static [u8]) -> Result<Self, Error> {
        let unreadable =
            |error: &dyn std::fmt::Display| refused(name, &format!("it cannot be read: {error}"));
        let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|error| unreadable(&error))?;
        let plan = archive.by_name("patch.json").map_err(|error| unreadable(&error))?;
        let plan: Plan =
            serde_json::from_reader(plan.take(N_MAX_PLAN_BYTES)).map_err(|error| unreadable(&error))?;
        if plan.format != 1 {
            return Err(refused(name, &format!("its format is {}, and 1 is known", plan.format)));
        }
        Ok(Self { name: name.to_owned(), archive, plan })
    }

    /// Returns the entry of the model that the adapter changes, in all but its name like `entry`.
    pub(crate) fn base_of(&self, entry: &Entry) -> Result<Entry, Error> {
        let sha256 = self.plan.base_sha256.parse().map_err(|reason: String| refused(&self.name, &reason))?;
        Ok(Entry { bytes: Some(self.plan.base_bytes), sha256: Some(sha256), ..entry.clone() })
    }

    /// Writes the model that the adapter makes of its base into `folder`.
    pub(crate) fn apply(
        mut self,
        base: &Path,
        folder: &Path,
        progress: &mut dyn FnMut(Progress<'_>),
        cancel: &CancelFlag,
    ) -> Result<Fetched, Error> {
        let base = std::fs::read(base).map_err(Error::io("read", base))?;
        let result = self.result(&base)?;
        let path = folder.join("adapted");
        let mut file = File::create(&path).map_err(Error::io("make", &path))?;
        let total = result.len() as u64;
        let mut on_bytes = |done| progress(Progress::Unpacking { done, total });
        let copied = copy_and_hash(&mut &result[..], &mut file, total, &mut on_bytes, cancel);
        let (bytes, sha256) = copied.map_err(|error| match error {
            CopyError::Cancelled => Error::Cancelled,
            CopyError::Read(error) | CopyError::Write(error) => Error::io("write", &path)(error),
        })?;
        file.sync_all().map_err(Error::io("write", &path))?;
        Ok(Fetched { path, bytes, sha256 })
    }

    /// Returns the bytes of the model that the adapter makes of a base's.
    fn result(&mut self, base: &[u8]) -> Result<Vec<u8>, Error> {
        let parts = ["insert.bin", "nibbles.bin", "scales.bin", "xor.bin"].map(|part| self.part(part));
        let [insert, nibbles, scales, xor] = parts;
        let (insert, nibbles, scales, xor) = (insert?, nibbles?, scales?, xor?);
        let (mut insert, mut nibbles, mut scales, mut xor) =
            (&insert[..], &nibbles[..], &scales[..], &xor[..]);
        let mut result = Vec::with_capacity(base.len());
        for op in &self.plan.ops {
            let is_within = match *op {
                Op::Copy { offset, len } => copy(&mut result, base, offset, len),
                Op::Insert { len } => insert_next(&mut result, &mut insert, len),
                Op::Nibbles { offset, n_blocks } => {
                    add_to_numbers(&mut result, base, offset, n_blocks, &mut nibbles)
                }
                Op::Blocks { offset, n_blocks } => {
                    add_to_numbers(&mut result, base, offset, n_blocks, &mut nibbles)
                        .and_then(|()| add_to_scales(&mut result, n_blocks, &mut scales))
                }
                Op::Xor { offset, len } => xor_next(&mut result, base, offset, len, &mut xor),
            };
            if is_within.is_none() {
                return Err(refused(&self.name, "it goes beyond the end of its base or of its own parts"));
            }
        }
        Ok(result)
    }

    /// Returns a part; one that no operation needs need not be there.
    fn part(&mut self, part: &str) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        if let Ok(entry) = self.archive.by_name(part) {
            let read = entry.take(N_MAX_PART_BYTES).read_to_end(&mut bytes);
            read.map_err(|error| refused(&self.name, &format!("`{part}` cannot be read: {error}")))?;
        }
        Ok(bytes)
    }
}

fn copy(result: &mut Vec<u8>, base: &[u8], offset: u64, len: u64) -> Option<()> {
    result.extend_from_slice(within(base, offset, len)?);
    Some(())
}

fn insert_next(result: &mut Vec<u8>, insert: &mut &[u8], len: u64) -> Option<()> {
    result.extend_from_slice(insert.split_off(..usize::try_from(len).ok()?)?);
    Some(())
}

fn add_to_numbers(
    result: &mut Vec<u8>,
    base: &[u8],
    offset: u64,
    n_blocks: u64,
    nibbles: &mut &[u8],
) -> Option<()> {
    let blocks = blocks(base, offset, n_blocks)?;
    for block in blocks.chunks_exact(N_BLOCK_BYTES) {
        let (scales, numbers) = block.split_at(N_SCALE_BYTES);
        let deltas = nibbles.split_off(..numbers.len())?;
        result.extend_from_slice(scales);
        result.extend(numbers.iter().zip(deltas).map(|(number, delta)| {
            let low = (number & 15).wrapping_add(delta & 15) & 15;
            let high = (number >> 4).wrapping_add(delta >> 4) & 15;
            high << 4 | low
        }));
    }
    Some(())
}

/// Moves the scales of the last `n_blocks` blocks of the result.
fn add_to_scales(result: &mut [u8], n_blocks: u64, scales: &mut &[u8]) -> Option<()> {
    let n_blocks = usize::try_from(n_blocks).ok()?;
    let start = result.len().checked_sub(n_blocks.checked_mul(N_BLOCK_BYTES)?)?;
    for at in [0, 2] {
        let (low, high) = (scales.split_off(..n_blocks)?, scales.split_off(..n_blocks)?);
        let folded = low.iter().zip(high).map(|(low, high)| u16::from_le_bytes([*low, *high]));
        for (block, folded) in result[start..].chunks_exact_mut(N_BLOCK_BYTES).zip(folded) {
            let moved = if folded % 2 == 0 { folded / 2 } else { !(folded / 2) };
            let bits = u16::from_le_bytes([block[at], block[at + 1]]).wrapping_add(moved);
            block[at..at + 2].copy_from_slice(&bits.to_le_bytes());
        }
    }
    Some(())
}

fn blocks(base: &[u8], offset: u64, n_blocks: u64) -> Option<&[u8]> {
    within(base, offset, n_blocks.checked_mul(N_BLOCK_BYTES as u64)?)
}

fn xor_next(result: &mut Vec<u8>, base: &[u8], offset: u64, len: u64, xor: &mut &[u8]) -> Option<()> {
    let bytes = within(base, offset, len)?;
    let others = xor.split_off(..bytes.len())?;
    result.extend(bytes.iter().zip(others).map(|(byte, other)| byte ^ other));
    Some(())
}

fn within(base: &[u8], offset: u64, len: u64) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    base.get(start..start.checked_add(usize::try_from(len).ok()?)?)
}

fn refused(name: &str, reason: &str) -> Error {
    Error::Adapter { name: name.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use zip::write::SimpleFileOptions;

    use super::*;

    fn adapter(plan: &str, parts: &[(&str, &[u8])]) -> Result<Adapter, Error> {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in [("patch.json", plan.as_bytes())].iter().chain(parts) {
            zip.start_file(*name, SimpleFileOptions::default()).expect("started");
            zip.write_all(bytes).expect("memory");
        }
        let bytes = zip.finish().expect("finished").into_inner();
        Adapter::open("tried", bytes.leak())
    }

    fn plan(ops: &str) -> String {
        format!(r#"{{"format": 1, "base_sha256": "", "base_bytes": 0, "ops": [{ops}]}}"#)
    }

    #[test]
    fn the_result_is_made_of_its_base_in_the_order_of_the_plan() {
        let base: Vec<u8> = (0..44).collect();
        let ops = r#"{"op": "insert", "len": 2}, {"op": "nibbles", "offset": 4, "n_blocks": 2},
            {"op": "copy", "offset": 1, "len": 3}, {"op": "xor", "offset": 40, "len": 2},
            {"op": "insert", "len": 1}"#;
        let deltas = [[0x10; 16], [0x0f; 16]].concat();
        let parts: [(&str, &[u8]); 3] =
            [("insert.bin", b"abc"), ("nibbles.bin", &deltas), ("xor.bin", b"\xff\x01")];
        let result = adapter(&plan(ops), &parts).expect("sound").result(&base).expect("within");
        // Of a byte 0x1f, the lower four bits less one are 0x1e and the higher four and one 0x2f.
        let first = (8..24).map(|byte: u8| byte + 0x10);
        let second = (28..44).map(|byte: u8| (byte & 0xf0) | (byte.wrapping_sub(1) & 15));
        let expected: Vec<u8> = [b'a', b'b', 4, 5, 6, 7]
            .into_iter()
            .chain(first)
            .chain(24..28)
            .chain(second)
            .chain([1, 2, 3, 40 ^ 0xff, 41 ^ 1, b'c'])
            .collect();
        assert_eq!(result, expected);
    }

    #[test]
    fn scales_move_by_folded_numbers_in_planes() {
        let mut base = vec![7; 40];
        for (scale, at) in [(0x00ff_u16, 0), (0x1000, 2), (5, 20), (0xffff, 22)] {
            base[at..at + 2].copy_from_slice(&scale.to_le_bytes());
        }
        // +1 and -3 for the first scales, +256 and +2 for the second ones.
        let scales = [2, 5, 0, 0, 0, 4, 2, 0];
        let parts: [(&str, &[u8]); 2] = [("nibbles.bin", &[0; 32]), ("scales.bin", &scales)];
        let op = r#"{"op": "blocks", "offset": 0, "n_blocks": 2}"#;
        let result = adapter(&plan(op), &parts).expect("sound").result(&base).expect("within");
        let scale = |at: usize| u16::from_le_bytes([result[at], result[at + 1]]);
        assert_eq!([0, 2, 20, 22].map(scale), [0x0100, 0x1100, 2, 1]);
        assert_eq!((&result[4..20], &result[24..]), (&[7; 16][..], &[7; 16][..]));
    }

    #[test]
    fn what_goes_beyond_an_end_is_refused() {
        for (op, parts) in [
            (r#"{"op": "copy", "offset": 1, "len": 20}"#, vec![]),
            (r#"{"op": "copy", "offset": 18446744073709551615, "len": 2}"#, vec![]),
            (r#"{"op": "nibbles", "offset": 0, "n_blocks": 922337203685477581}"#, vec![]),
            (r#"{"op": "nibbles", "offset": 0, "n_blocks": 1}"#, vec![("nibbles.bin", &[0; 15][..])]),
            (
                r#"{"op": "blocks", "offset": 0, "n_blocks": 1}"#,
                vec![("nibbles.bin", &[0; 16][..]), ("scales.bin", &[0; 3][..])],
            ),
            (r#"{"op": "xor", "offset": 0, "len": 2}"#, vec![("xor.bin", &[0][..])]),
            (r#"{"op": "insert", "len": 1}"#, vec![]),
        ] {
            let error = adapter(&plan(op), &parts).expect("a plan").result(&[0; 20]).expect_err(op);
            assert!(matches!(&error, Error::Adapter { name, .. } if name == "tried"), "{error}");
            assert!(error.hint().is_some());
        }
    }

    #[test]
    fn what_is_no_adapter_is_refused() {
        assert!(matches!(Adapter::open("no zip", b"PK, almost"), Err(Error::Adapter { .. })));
        assert!(matches!(adapter("{}", &[]), Err(Error::Adapter { .. })));
        let newer = plan("").replace(": 1", ": 2");
        assert!(
            matches!(adapter(&newer, &[]), Err(Error::Adapter { reason, .. }) if reason.contains("is 2"))
        );
        assert!(matches!(Adapter::built_in("other"), Err(Error::Adapter { name, .. }) if name == "other"));
    }
}

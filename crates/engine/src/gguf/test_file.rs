//! GGUF files for tests: a small writer, and the way to the real default model.
//!
//! Out: bytes of a valid file, and where each of its counts and lengths lies.

use std::path::PathBuf;

/// Returns the default model's file, which `cargo xtask ci` names in `TANDEM_TEST_MODEL`.
pub(crate) fn test_model_path() -> PathBuf {
    std::env::var_os("TANDEM_TEST_MODEL")
        .map(PathBuf::from)
        .expect("TANDEM_TEST_MODEL is not set: `cargo xtask model` fetches the model and prints its path")
}

/// A GGUF file being written.
#[derive(Clone)]
pub(crate) struct GgufWriter {
    pub(crate) version: u32,
    alignment: usize,
    n_entries: u64,
    entries: Written,
    n_tensors: u64,
    records: Written,
    data: Vec<u8>,
}

/// Bytes, and the positions of the 64-bit counts and lengths among them.
#[derive(Clone, Default)]
pub(crate) struct Written {
    pub(crate) bytes: Vec<u8>,
    pub(crate) counts: Vec<usize>,
    /// Where the tensors' data begin.
    pub(crate) n_header_bytes: usize,
}

impl Written {
    fn count(&mut self, count: u64) {
        self.counts.push(self.bytes.len());
        self.bytes.extend(count.to_le_bytes());
    }

    fn string(&mut self, string: &[u8]) {
        self.count(string.len() as u64);
        self.bytes.extend(string);
    }

    fn u32(&mut self, number: u32) {
        self.bytes.extend(number.to_le_bytes());
    }

    fn append(&mut self, other: &Self) {
        let start = self.bytes.len();
        self.counts.extend(other.counts.iter().map(|at| start + at));
        self.bytes.extend(&other.bytes);
    }
}

impl GgufWriter {
    pub(crate) fn new() -> Self {
        Self {
            version: 3,
            alignment: 32,
            n_entries: 0,
            entries: Written::default(),
            n_tensors: 0,
            records: Written::default(),
            data: Vec::new(),
        }
    }

    /// Adds a key whose value has GGUF's type `id` and is `bytes`.
    pub(crate) fn raw(mut self, key: &str, id: u32, bytes: &[u8]) -> Self {
        self.key(key, id);
        self.entries.bytes.extend(bytes);
        self
    }

    fn key(&mut self, key: &str, id: u32) {
        self.n_entries += 1;
        self.entries.string(key.as_bytes());
        self.entries.u32(id);
    }

    pub(crate) fn u32(self, key: &str, number: u32) -> Self {
        self.raw(key, 4, &number.to_le_bytes())
    }

    pub(crate) fn bool(self, key: &str, flag: bool) -> Self {
        self.raw(key, 7, &[u8::from(flag)])
    }

    pub(crate) fn str(mut self, key: &str, string: &str) -> Self {
        self.key(key, 8);
        self.entries.string(string.as_bytes());
        self
    }

    pub(crate) fn strs<S: AsRef<[u8]>>(mut self, key: &str, strings: &[S]) -> Self {
        self.key(key, 9);
        self.entries.u32(8);
        self.entries.count(strings.len() as u64);
        for string in strings {
            self.entries.string(string.as_ref());
        }
        self
    }

    pub(crate) fn i32s(mut self, key: &str, numbers: &[i32]) -> Self {
        self.key(key, 9);
        self.entries.u32(5);
        self.entries.count(numbers.len() as u64);
        self.entries.bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        self
    }

    pub(crate) fn f32s(mut self, key: &str, numbers: &[f32]) -> Self {
        self.key(key, 9);
        self.entries.u32(6);
        self.entries.count(numbers.len() as u64);
        self.entries.bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        self
    }

    /// Adds arrays in arrays, `depth` deep, around one empty array of bytes.
    pub(crate) fn nested(mut self, key: &str, depth: usize) -> Self {
        self.key(key, 9);
        for _ in 1..depth {
            self.entries.u32(9);
            self.entries.count(1);
        }
        self.entries.u32(0);
        self.entries.count(0);
        self
    }

    pub(crate) fn alignment(mut self, alignment: u32) -> Self {
        self.alignment = alignment as usize;
        self.u32("general.alignment", alignment)
    }

    /// Adds a tensor whose data follow those before it on the next aligned place.
    pub(crate) fn tensor(mut self, name: &str, shape: &[u64], id: u32, data: &[u8]) -> Self {
        let offset = self.data.len().next_multiple_of(self.alignment);
        self.data.resize(offset, 0);
        self.data.extend(data);
        self.record(name, shape, id, offset as u64)
    }

    /// Adds a tensor's record alone.
    pub(crate) fn record(mut self, name: &str, shape: &[u64], id: u32, offset: u64) -> Self {
        self.n_tensors += 1;
        self.records.string(name.as_bytes());
        self.records.u32(shape.len() as u32);
        for dim in shape {
            self.records.count(*dim);
        }
        self.records.u32(id);
        self.records.bytes.extend(offset.to_le_bytes());
        self
    }

    pub(crate) fn write(&self) -> Written {
        let mut file = Written::default();
        file.bytes.extend(b"GGUF");
        file.u32(self.version);
        file.count(self.n_tensors);
        file.count(self.n_entries);
        file.append(&self.entries);
        file.append(&self.records);
        file.bytes.resize(file.bytes.len().next_multiple_of(self.alignment), 0);
        file.n_header_bytes = file.bytes.len();
        file.bytes.extend(&self.data);
        file
    }
}

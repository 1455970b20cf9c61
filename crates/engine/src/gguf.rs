//! A GGUF model file, mapped and checked from end to end before anything is read from it.
//!
//! In: a path. Out: typed metadata, and tensors as slices of the mapped file (no copy).
//! Never: trusts a count, a length or an offset of the file, or allocates by one; what opening
//! keeps on the heap is the names and positions of what is really there, under 20 MiB.
//! Thread: any; a `Gguf` does not change after it is opened.
//! Source: the GGUF specification in ggml's `docs/gguf.md`, versions 2 and 3.

mod error;
mod header;
#[cfg(test)]
pub(crate) mod test_file;
#[cfg(test)]
mod tests;
mod value;

use std::path::{Path, PathBuf};

pub use error::Error;
use header::{Header, TensorInfo};
pub use value::{GgmlType, StrArray, Value, ValueKind};

use crate::mmap::Mmap;

/// The bytes behind a [`Gguf`].
enum Bytes {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl Bytes {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Mapped(mmap) => mmap,
            Self::Owned(bytes) => bytes,
        }
    }
}

/// An opened GGUF file: every length and offset in its header has been checked.
pub struct Gguf {
    path: PathBuf,
    bytes: Bytes,
    // INVARIANT: every range in `header` lies within `bytes`; `header::read` has checked it.
    header: Header,
}

/// One tensor of the file.
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'g> {
    /// Name of the tensor.
    pub name: &'g str,
    /// Lengths in GGUF's order: the first dimension is the contiguous one.
    pub shape: &'g [u64],
    /// Type of the elements.
    pub dtype: GgmlType,
    /// The elements as the file has them, `n_elements` in blocks of `dtype.block_len()`.
    pub data: &'g [u8],
}

impl TensorView<'_> {
    /// Returns how many elements the tensor has.
    pub fn n_elements(&self) -> u64 {
        self.shape.iter().product()
    }
}

impl Gguf {
    /// Maps the file at `path` and checks its whole header.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be mapped; any other variant when it is not a whole and
    /// honest GGUF file of version 2 or 3.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let mmap = Mmap::open(path).map_err(Error::Io)?;
        Self::new(path.to_path_buf(), Bytes::Mapped(mmap))
    }

    /// Checks a GGUF file that is in memory already.
    ///
    /// # Errors
    /// As [`Gguf::open`], but for [`Error::Io`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, Error> {
        Self::new(PathBuf::from("<memory>"), Bytes::Owned(bytes))
    }

    fn new(path: PathBuf, bytes: Bytes) -> Result<Self, Error> {
        let header = header::read(bytes.as_slice())?;
        Ok(Self { path, bytes, header })
    }

    /// Says that `data`, of a tensor of this file, is not needed soon.
    pub(crate) fn forget(&self, data: &[u8]) {
        if let Bytes::Mapped(mmap) = &self.bytes {
            mmap.forget(data);
        }
    }

    /// Returns the path the file was opened from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the file's length in bytes.
    pub fn n_bytes(&self) -> u64 {
        self.bytes.as_slice().len() as u64
    }

    /// Returns the version of the format the file is written in.
    pub fn version(&self) -> u32 {
        self.header.version
    }

    /// Returns the metadata keys in alphabetical order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &str> {
        self.header.entries.iter().map(|entry| &*entry.key)
    }

    /// Returns whether the metadata has `key`.
    pub fn contains(&self, key: &str) -> bool {
        self.header.entry(key).is_some()
    }

    /// Returns the value of `key`, if the metadata has it.
    pub fn get(&self, key: &str) -> Option<Value<'_>> {
        let entry = self.header.entry(key)?;
        Some(Value::read(entry.kind, &self.bytes.as_slice()[entry.value.clone()]))
    }

    /// Returns the integer `key`, of any integer type whose value fits.
    ///
    /// # Errors
    /// [`Error::Missing`] without the key, [`Error::Type`] when it is not such an integer.
    pub fn u32(&self, key: &str) -> Result<u32, Error> {
        required(key, self.opt_u32(key))
    }

    /// Returns the integer `key`, or `None` without the key.
    ///
    /// # Errors
    /// [`Error::Type`] when it is not an integer from 0 to `u32::MAX`.
    pub fn opt_u32(&self, key: &str) -> Result<Option<u32>, Error> {
        self.opt(key, "an unsigned 32-bit integer", |value| value.as_int()?.try_into().ok())
    }

    /// Returns the integer `key`, of any integer type whose value fits.
    ///
    /// # Errors
    /// [`Error::Missing`] without the key, [`Error::Type`] when it is not such an integer.
    pub fn u64(&self, key: &str) -> Result<u64, Error> {
        required(key, self.opt_u64(key))
    }

    /// Returns the integer `key`, or `None` without the key.
    ///
    /// # Errors
    /// [`Error::Type`] when it is not an integer from 0 to `u64::MAX`.
    pub fn opt_u64(&self, key: &str) -> Result<Option<u64>, Error> {
        self.opt(key, "an unsigned 64-bit integer", |value| value.as_int()?.try_into().ok())
    }

    /// Returns the number `key`; an f64 is rounded to f32.
    ///
    /// # Errors
    /// [`Error::Missing`] without the key, [`Error::Type`] when it is not a finite float.
    pub fn f32(&self, key: &str) -> Result<f32, Error> {
        required(key, self.opt_f32(key))
    }

    /// Returns the number `key`, or `None` without the key.
    ///
    /// # Errors
    /// [`Error::Type`] when it is not a finite float.
    pub fn opt_f32(&self, key: &str) -> Result<Option<f32>, Error> {
        self.opt(key, "a finite float", |value| value.as_f32().filter(|number| number.is_finite()))
    }

    /// Returns the flag `key`.
    ///
    /// # Errors
    /// [`Error::Missing`] without the key, [`Error::Type`] when it is not a bool.
    pub fn bool(&self, key: &str) -> Result<bool, Error> {
        required(key, self.opt_bool(key))
    }

    /// Returns the flag `key`, or `None` without the key.
    ///
    /// # Errors
    /// [`Error::Type`] when it is not a bool.
    pub fn opt_bool(&self, key: &str) -> Result<Option<bool>, Error> {
        self.opt(key, "a bool", |value| match value {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        })
    }

    /// Returns the text `key`.
    ///
    /// # Errors
    /// [`Error::Missing`] without the key, [`Error::Type`] when it is not a UTF-8 string.
    pub fn str(&self, key: &str) -> Result<&str, Error> {
        required(key, self.opt_str(key))
    }

    /// Returns the text `key`, or `None` without the key.
    ///
    /// # Errors
    /// [`Error::Type`] when it is not a UTF-8 string.
    pub fn opt_str(&self, key: &str) -> Result<Option<&str>, Error> {
        self.opt(key, "a UTF-8 string", |value| match value {
            Value::Str(bytes) => str::from_utf8(bytes).ok(),
            _ => None,
        })
    }

    /// Returns the strings of the array `key` as bytes, straight from the file.
    ///
    /// # Errors
    /// [`Error::Missing`] without the key, [`Error::Type`] when it is not an array of strings.
    pub fn str_array(&self, key: &str) -> Result<StrArray<'_>, Error> {
        required(key, self.opt(key, "an array of strings", |value| value.as_array()?.strings()))
    }

    /// Returns the integers of the array `key`.
    ///
    /// # Errors
    /// [`Error::Missing`] without the key, [`Error::Type`] when it is not an array of i32 or u32,
    /// or when one of its elements does not fit an i32.
    pub fn i32_array(&self, key: &str) -> Result<Vec<i32>, Error> {
        required(key, self.opt(key, "an array of 32-bit integers", |value| value.as_array()?.ints()))
    }

    /// Returns the numbers of the array `key`.
    ///
    /// # Errors
    /// [`Error::Missing`] without the key, [`Error::Type`] when it is not an array of f32.
    pub fn f32_array(&self, key: &str) -> Result<Vec<f32>, Error> {
        required(key, self.opt(key, "an array of floats", |value| value.as_array()?.floats()))
    }

    /// Returns how many tensors the file has.
    pub fn n_tensors(&self) -> usize {
        self.header.tensors.len()
    }

    /// Returns the tensors in alphabetical order of their names.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = TensorView<'_>> {
        self.header.tensors.iter().map(|info| self.view(info))
    }

    /// Returns the tensor called `name`.
    ///
    /// # Errors
    /// [`Error::NoTensor`] when the file has none of that name.
    pub fn tensor(&self, name: &str) -> Result<TensorView<'_>, Error> {
        self.opt_tensor(name).ok_or_else(|| Error::NoTensor { name: name.to_owned() })
    }

    /// Returns the tensor called `name`, if the file has one.
    pub fn opt_tensor(&self, name: &str) -> Option<TensorView<'_>> {
        self.header.tensor(name).map(|info| self.view(info))
    }

    fn view<'g>(&'g self, info: &'g TensorInfo) -> TensorView<'g> {
        TensorView {
            name: &info.name,
            shape: info.shape(),
            dtype: info.dtype,
            data: &self.bytes.as_slice()[info.data.clone()],
        }
    }

    fn opt<'g, T>(
        &'g self,
        key: &str,
        expected: &'static str,
        read: impl FnOnce(&Value<'g>) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match read(&value) {
            Some(found) => Ok(Some(found)),
            None => Err(Error::Type { key: key.to_owned(), expected, found: value.to_string() }),
        }
    }
}

fn required<T>(key: &str, found: Result<Option<T>, Error>) -> Result<T, Error> {
    found?.ok_or_else(|| Error::Missing { key: key.to_owned() })
}

impl std::fmt::Debug for Gguf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gguf")
            .field("path", &self.path)
            .field("n_bytes", &self.n_bytes())
            .field("n_keys", &self.header.entries.len())
            .field("n_tensors", &self.header.tensors.len())
            .finish()
    }
}

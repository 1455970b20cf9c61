//! Why a file is not a usable GGUF.
//!
//! Out: one variant for each way a header can be wrong; each names the place or the key.

use std::io;

/// A failure to open a GGUF file, or to find something in it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened or mapped; the user can fix the path or its rights.
    #[error("the file cannot be read")]
    Io(#[source] io::Error),
    /// The file begins with something else than `GGUF`; it is another kind of file.
    #[error("it begins with {found:02x?}, not with `GGUF`")]
    NotGguf {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// The file is written in a version of the format this engine does not read.
    #[error("it is GGUF version {0}; versions 2 and 3 can be read")]
    Version(u32),
    /// The file is written for big-endian machines.
    #[error("it is a big-endian GGUF file; only little-endian files can be read")]
    BigEndian,
    /// The file ends before something its header announces.
    #[error("{what} at byte {offset} needs {need} bytes, and {have} are left")]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// Where it begins.
        offset: u64,
        /// How long it says it is.
        need: u64,
        /// How many bytes the file still has from there.
        have: u64,
    },
    /// A count is larger than the rest of the file, or than any model has.
    #[error("{what} at byte {offset} is {count}; at most {most} are possible")]
    Count {
        /// What is counted.
        what: &'static str,
        /// Where the count is.
        offset: u64,
        /// The count.
        count: u64,
        /// The most there can be.
        most: u64,
    },
    /// A key or a tensor's name is empty, too long, or not UTF-8.
    #[error("the {what} at byte {offset} is empty, longer than 65535 bytes, or not UTF-8")]
    Name {
        /// What is named.
        what: &'static str,
        /// Where the name is.
        offset: u64,
    },
    /// Two keys, or two tensors, have the same name.
    #[error("the {what} `{name}` is there twice")]
    Duplicate {
        /// What is named.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A metadata value has a type that does not exist.
    #[error("the value of `{key}` has the unknown type {id}")]
    ValueType {
        /// The key.
        key: String,
        /// The number in the file.
        id: u32,
    },
    /// A bool is neither 0 nor 1.
    #[error("the bool `{key}` is {found}")]
    Bool {
        /// The key.
        key: String,
        /// The byte in the file.
        found: u8,
    },
    /// Arrays lie in arrays, deeper than any model has them.
    #[error("the arrays of `{key}` are nested too deep")]
    Nested {
        /// The key.
        key: String,
    },
    /// The metadata lack a key.
    #[error("`{key}` is missing")]
    Missing {
        /// The key.
        key: String,
    },
    /// A metadata value is not what the key needs.
    #[error("`{key}` must be {expected}, and is {found}")]
    Type {
        /// The key.
        key: String,
        /// What was asked for.
        expected: &'static str,
        /// What the file has.
        found: String,
    },
    /// `general.alignment` is not a power of two, or too small or too large.
    #[error("`general.alignment` is {0}, which is not a power of two from 8 to 65536")]
    Alignment(u64),
    /// A tensor has no dimension or too many, an empty one, or more elements than a file can hold.
    #[error("tensor `{tensor}` has the impossible shape {shape}")]
    Shape {
        /// The tensor.
        tensor: String,
        /// What the file says.
        shape: String,
    },
    /// A tensor's type is not known to this engine.
    #[error("tensor `{tensor}` has the type {id}, which this version does not know")]
    Dtype {
        /// The tensor.
        tensor: String,
        /// ggml's number of the type.
        id: u32,
    },
    /// A tensor's rows cannot be cut in blocks of its type.
    #[error("tensor `{tensor}` is {dtype}, and its rows of {row_len} are no multiple of {block_len}")]
    Block {
        /// The tensor.
        tensor: String,
        /// Its type.
        dtype: &'static str,
        /// Its first dimension.
        row_len: u64,
        /// Elements in a block of that type.
        block_len: u64,
    },
    /// A tensor's data do not begin on the file's alignment.
    #[error("tensor `{tensor}` begins at {offset}, which is no multiple of {alignment}")]
    Misaligned {
        /// The tensor.
        tensor: String,
        /// Where its data begin, from the beginning of all data.
        offset: u64,
        /// The file's alignment.
        alignment: u64,
    },
    /// A tensor's data end after the file does: the file is incomplete.
    #[error("tensor `{tensor}` ends at byte {end}, and the file at {n_bytes}")]
    PastEnd {
        /// The tensor.
        tensor: String,
        /// Where its data end.
        end: u64,
        /// The file's length.
        n_bytes: u64,
    },
    /// Two tensors share bytes.
    #[error("tensors `{first}` and `{second}` overlap")]
    Overlap {
        /// The tensor that begins first.
        first: String,
        /// The tensor that begins inside it.
        second: String,
    },
    /// The file has no tensor of that name.
    #[error("the tensor `{name}` is missing")]
    NoTensor {
        /// The name asked for.
        name: String,
    },
}

impl Error {
    /// Returns what the user can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Io(_) => "check the path and its rights; `agent models list` shows what is installed",
            Self::NotGguf { .. } => "give the path of a .gguf file",
            Self::Version(_) | Self::BigEndian => "get a newer, little-endian conversion of the model",
            Self::Truncated { .. } | Self::PastEnd { .. } => {
                "the file is incomplete: `agent models verify`, then `agent models pull`"
            }
            Self::Dtype { .. } => "get the model in another quantisation, such as Q4_0, Q4_K_M or Q8_0",
            Self::Missing { .. } | Self::Type { .. } | Self::NoTensor { .. } => {
                "the file is not a model this engine can run; `agent models list` shows those known to work"
            }
            Self::Count { .. }
            | Self::Name { .. }
            | Self::Duplicate { .. }
            | Self::ValueType { .. }
            | Self::Bool { .. }
            | Self::Nested { .. }
            | Self::Alignment(_)
            | Self::Shape { .. }
            | Self::Block { .. }
            | Self::Misaligned { .. }
            | Self::Overlap { .. } => "the file is damaged: `agent models verify`, then `agent models pull`",
        }
    }
}

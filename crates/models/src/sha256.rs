//! The sha256 that pins a model, and reading a file through it.
//!
//! In: a file or a stream. Out: its length and [`Sha256`].
//! Source: FIPS 180-4.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::str::FromStr;

use sha2::Digest;

use crate::{CancelFlag, Error};

/// 1 MiB: large enough that the calls around a block cost nothing, small enough for a smooth bar.
const N_BLOCK_BYTES: usize = 1 << 20;

/// The sha256 of a file, written as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sha256([u8; 32]);

impl Sha256 {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Sha256 {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("a sha256 is 64 hex digits, not `{text}`");
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(refused());
        }
        let mut bytes = [0; 32];
        for (byte_idx, byte) in bytes.iter_mut().enumerate() {
            let digits = text.get(2 * byte_idx..2 * byte_idx + 2).ok_or_else(refused)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| refused())?;
        }
        Ok(Self(bytes))
    }
}

/// Which side of a copy failed: the caller names the file on that side.
pub(crate) enum CopyError {
    Read(io::Error),
    Write(io::Error),
    Cancelled,
}

/// Copies `from` to `to` until its end, or until more than `n_bytes_max` were read, and hashes.
pub(crate) fn copy_and_hash(
    from: &mut dyn Read,
    to: &mut dyn Write,
    n_bytes_max: u64,
    on_bytes: &mut dyn FnMut(u64),
    cancel: &CancelFlag,
) -> Result<(u64, Sha256), CopyError> {
    let mut hasher = sha2::Sha256::new();
    let mut block = vec![0; N_BLOCK_BYTES];
    let mut n_bytes = 0;
    while n_bytes <= n_bytes_max {
        if cancel.is_cancelled() {
            return Err(CopyError::Cancelled);
        }
        let n_read = match from.read(&mut block) {
            Ok(0) => break,
            Ok(n_read) => n_read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(CopyError::Read(error)),
        };
        let bytes = block.get(..n_read).unwrap_or_default();
        hasher.update(bytes);
        to.write_all(bytes).map_err(CopyError::Write)?;
        n_bytes += n_read as u64;
        on_bytes(n_bytes);
    }
    Ok((n_bytes, Sha256(hasher.finalize().into())))
}

/// Returns the length and the sha256 of the file at `path`.
pub(crate) fn hash_file(
    path: &Path,
    on_bytes: &mut dyn FnMut(u64),
    cancel: &CancelFlag,
) -> Result<(u64, Sha256), Error> {
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    copy_and_hash(&mut file, &mut io::sink(), u64::MAX - 1, on_bytes, cancel).map_err(|error| match error {
        CopyError::Cancelled => Error::Cancelled,
        CopyError::Read(error) | CopyError::Write(error) => Error::io("read", path)(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_comes_back_as_the_same_value() {
        // FIPS 180-4's example "abc".
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Sha256::of(b"abc").to_string(), text);
        assert_eq!(text.to_uppercase().parse(), Ok(Sha256::of(b"abc")));
    }

    #[test]
    fn what_is_not_64_hex_digits_is_refused() {
        for text in ["", "ba78", &"g".repeat(64), &"é".repeat(32), &"+f".repeat(32)] {
            assert!(text.parse::<Sha256>().is_err(), "{text}");
        }
    }
}

//! Frames: a length and that many bytes of JSON.
//!
//! In: a stream. Out: one message at a time.
//! Never: trusts a length: memory grows with what has really arrived.

use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Most bytes of a frame: far above a whole context's ids with the likeliest tokens of each.
pub(crate) const N_MAX_BYTES: u32 = 64 << 20;

/// Returns the next message, or `None` at the end of the stream.
///
/// An error of kind `InvalidData` means that what came is no frame of ours; what follows cannot be trusted either.
pub(crate) fn read<T: DeserializeOwned>(stream: &mut impl Read) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    let n_read = read_up_to(stream, &mut length)?;
    if n_read == 0 {
        return Ok(None);
    }
    if n_read < length.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let n_bytes = u32::from_le_bytes(length);
    if n_bytes > N_MAX_BYTES {
        return Err(invalid(format!("a frame of {n_bytes} bytes; {N_MAX_BYTES} is the most")));
    }
    let mut bytes = Vec::new();
    stream.take(n_bytes.into()).read_to_end(&mut bytes)?;
    if bytes.len() < n_bytes as usize {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // serde_json's words may quote the frame, which may hold source text: its place says enough.
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| invalid(format!("a frame that is not understood at byte {}", error.column())))
}

/// Writes one message in a single call, so that it is one packet where it fits.
pub(crate) fn write(stream: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let n_bytes = u32::try_from(bytes.len() - 4).ok().filter(|n| *n <= N_MAX_BYTES);
    let n_bytes = n_bytes.ok_or_else(|| invalid(format!("a message of {} bytes", bytes.len())))?;
    bytes[..4].copy_from_slice(&n_bytes.to_le_bytes());
    stream.write_all(&bytes)
}

fn read_up_to(stream: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut n_read = 0;
    while n_read < buffer.len() {
        match stream.read(&mut buffer[n_read..]) {
            Ok(0) => break,
            Ok(n) => n_read += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(n_read)
}

fn invalid(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(bytes: &[u8], expected: Result<Option<Value>, io::ErrorKind>) {
        let read = read::<Value>(&mut &bytes[..]).map_err(|error| error.kind());
        assert_eq!(read, expected, "{bytes:?}");
    }

    #[test]
    fn a_frame_comes_back_as_it_went() {
        let mut bytes = Vec::new();
        for message in [json!({"a": "é"}), json!([])] {
            write(&mut bytes, &message).expect("memory takes it");
        }
        let mut stream = &bytes[..];
        assert_eq!(read(&mut stream).expect("whole"), Some(json!({"a": "é"})));
        assert_eq!(read(&mut stream).expect("whole"), Some(json!([])));
        assert_eq!(read::<Value>(&mut stream).expect("the end"), None);
    }

    #[test]
    fn what_is_no_frame_is_refused_before_memory_is_given_to_it() {
        check(b"", Ok(None));
        check(b"\x01", Err(io::ErrorKind::UnexpectedEof));
        check(b"\x05\0\0\0{}", Err(io::ErrorKind::UnexpectedEof));
        check(b"\x02\0\0\0{]", Err(io::ErrorKind::InvalidData));
        check(b"\0\0\0\0", Err(io::ErrorKind::InvalidData));
        check(b"\xff\xff\xff\xff", Err(io::ErrorKind::InvalidData));
        // 64 MiB are promised and 2 bytes come.
        check(b"\0\0\0\x04{}", Err(io::ErrorKind::UnexpectedEof));
    }
}

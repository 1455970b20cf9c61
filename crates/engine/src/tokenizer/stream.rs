//! Turns tokens into text while they arrive.
//!
//! In: tokens' bytes, one token at a time. Out: whole characters, each as soon as its last byte is there.

/// Holds back the bytes of a character that is not whole yet.
///
/// Whatever the tokens, all that [`push`](Self::push) and [`finish`](Self::finish) return is,
/// joined, what `String::from_utf8_lossy` makes of all the bytes.
#[derive(Debug, Default, Clone)]
pub struct StreamDecoder {
    // INVARIANT: empty, or the beginning of one character.
    pending: Vec<u8>,
    text: String,
}

impl StreamDecoder {
    /// Takes a token's bytes and returns the characters they complete.
    ///
    /// Bytes that can no longer become a character come out as U+FFFD.
    pub fn push(&mut self, bytes: &[u8]) -> &str {
        self.text.clear();
        self.pending.extend_from_slice(bytes);
        let mut n_done = 0;
        for chunk in self.pending.utf8_chunks() {
            self.text.push_str(chunk.valid());
            n_done += chunk.valid().len();
            if chunk.invalid().is_empty() {
                continue;
            }
            let is_cut_short = std::str::from_utf8(chunk.invalid())
                .is_err_and(|error| error.error_len().is_none())
                && n_done + chunk.invalid().len() == self.pending.len();
            if !is_cut_short {
                self.text.push(char::REPLACEMENT_CHARACTER);
                n_done += chunk.invalid().len();
            }
        }
        self.pending.drain(..n_done);
        &self.text
    }

    /// Returns what is left at the end: U+FFFD if a character was begun and never finished.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.pending).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_gives_what_the_whole_gives_however_it_is_cut() {
        let texts: [&[u8]; 7] = [
            "aé🦀\u{fffd}𝄞".as_bytes(),
            b"\xf0\x9f\xa6 x\xf0\x9f\xa6\x80",
            b"\xff\xfe\xc3",
            b"\xe2\x82",
            b"\xe2\x82\xe2\x82\xac\xc3\xa9\x80",
            b"\xf0\x9f\xf0\x9f\xa6\x80",
            b"",
        ];
        for bytes in texts {
            for step in 1..=bytes.len().max(1) {
                let mut decoder = StreamDecoder::default();
                let mut text = String::new();
                for chunk in bytes.chunks(step) {
                    text.push_str(decoder.push(chunk));
                    assert!(decoder.pending.len() < 4);
                }
                text.push_str(&decoder.finish());
                assert_eq!(text, String::from_utf8_lossy(bytes), "cut every {step} bytes");
            }
        }
    }

    #[test]
    fn a_character_comes_with_its_last_byte_and_not_before() {
        let mut decoder = StreamDecoder::default();
        assert_eq!(decoder.push(b"a\xf0\x9f"), "a");
        assert_eq!(decoder.push(b"\xa6"), "");
        assert_eq!(decoder.push(b"\x80b"), "🦀b");
        assert_eq!(decoder.finish(), "");
    }
}

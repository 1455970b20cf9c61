//! Byte-level BPE, as GPT-2 has it: a text is cut into pieces, and within each its bytes are merged.
//!
//! In: text. Out: token ids.
//! Never: knows a token that is not text (I-3).
//! Source: `llm_tokenizer_bpe` in llama.cpp's `src/llama-vocab.cpp`, merges by `tokenizers`.

use std::collections::HashSet;

use tokenizers::Model;
use tokenizers::models::bpe::{BPE, Merges, Vocab};

use super::load::Tokens;
use super::{ByteTokens, Error, Splitter, TokenId, special};
use crate::gguf::Gguf;

/// A byte-level BPE, as one model file describes it.
pub(super) struct ByteLevel {
    splitter: Splitter,
    alphabet: Alphabet,
    // INVARIANT I-3: both know only tokens that are text.
    pub(super) bpe: BPE,
    pub(super) bytes: ByteTokens,
}

impl ByteLevel {
    /// Reads the merges, and marks as special those of `tokens` that some conversions forget to.
    pub(super) fn read<'g>(gguf: &'g Gguf, tokens: &mut Tokens<'g>) -> Result<Self, Error> {
        let splitter = Splitter::named(gguf.str("tokenizer.ggml.pre")?)?;
        let merges = read_merges(gguf, tokens)?;
        let bpe = build_bpe(tokens, merges, splitter.ignore_merges);
        let alphabet = Alphabet::new();
        let bytes =
            Box::new(std::array::from_fn(|byte| tokens.text_id(&alphabet.char(byte as u8).to_string())));
        Ok(Self { splitter, alphabet, bpe, bytes })
    }

    /// Returns whether a prompt begins with the BOS token when the metadata do not say.
    pub(super) fn adds_bos(&self) -> bool {
        self.splitter.adds_bos
    }

    /// Writes the bytes that a token's text stands for behind `to`.
    pub(super) fn write_bytes(&self, text: &str, to: &mut Vec<u8>) {
        self.alphabet.write(text, to);
    }

    /// Writes the tokens of `text` behind `tokens`.
    pub(super) fn encode(&self, text: &str, tokens: &mut Vec<TokenId>) {
        let mut written = String::new();
        self.splitter.split(text, |piece| self.encode_piece(piece, &mut written, tokens));
    }

    fn encode_piece(&self, piece: &str, written: &mut String, tokens: &mut Vec<TokenId>) {
        if let [byte] = piece.as_bytes() {
            tokens.extend(self.bytes[usize::from(*byte)]);
            return;
        }
        written.clear();
        for byte in piece.bytes() {
            if self.bytes[usize::from(byte)].is_some() {
                written.push(self.alphabet.char(byte));
            } else {
                // llama.cpp merges nothing across a byte it leaves out.
                self.merge(written, tokens);
                written.clear();
            }
        }
        self.merge(written, tokens);
    }

    fn merge(&self, written: &str, tokens: &mut Vec<TokenId>) {
        let merged = self.bpe.tokenize(written);
        let merged = merged.expect("BPE fails only for a missing unknown token, and has none");
        tokens.extend(merged.iter().map(|token| TokenId(token.id)));
    }
}

/// Returns the merges whose three tokens are text, in order of rank, the first of equal ones.
///
/// Marks as special the tokens that some conversions forget to: they have a name that is known for
/// a role, and no merge makes them, as one would if they were text.
fn read_merges<'g>(gguf: &'g Gguf, tokens: &mut Tokens<'g>) -> Result<Vec<(&'g str, &'g str)>, Error> {
    let mut merges = Vec::new();
    let mut seen = HashSet::new();
    let mut made = HashSet::new();
    let mut joined = String::new();
    for (idx, bytes) in gguf.str_array("tokenizer.ggml.merges")?.enumerate() {
        let error = || Error::Merge { idx, merge: String::from_utf8_lossy(bytes).into_owned() };
        let (left, right) = str::from_utf8(bytes).ok().and_then(split_merge).ok_or_else(error)?;
        joined.clear();
        joined.push_str(left);
        joined.push_str(right);
        let id = |text: &str| tokens.ids.get(text).copied().ok_or_else(error);
        let (left_id, right_id, joined_id) = (id(left)?, id(right)?, id(&joined)?);
        made.insert(joined_id);
        if seen.insert((left_id, right_id))
            && [left_id, right_id, joined_id].iter().all(|id| !tokens.is_special[*id as usize])
        {
            merges.push((left, right));
        }
    }
    for (id, text) in (0..).zip(&tokens.texts) {
        if special::is_known_name(text) && !made.contains(&id) {
            tokens.is_special[id as usize] = true;
        }
    }
    Ok(merges)
}

/// Splits a merge at the blank between its two texts; the first text may begin with one.
fn split_merge(merge: &str) -> Option<(&str, &str)> {
    let (at, _) = merge.char_indices().skip(1).find(|(_, c)| *c == ' ')?;
    let (left, right) = (&merge[..at], &merge[at + 1..]);
    (!right.is_empty()).then_some((left, right))
}

fn build_bpe(tokens: &Tokens<'_>, merges: Vec<(&str, &str)>, ignore_merges: bool) -> BPE {
    let vocab: Vocab = (0..)
        .zip(tokens.iter_text())
        .filter_map(|(id, text)| Some((text?.to_owned(), id)))
        .filter(|(text, _)| !text.is_empty())
        .collect();
    let merges: Merges =
        merges.into_iter().map(|(left, right)| (left.to_owned(), right.to_owned())).collect();
    BPE::builder()
        .vocab_and_merges(vocab, merges)
        .ignore_merges(ignore_merges)
        .build()
        .expect("`read_merges` keeps only merges of three tokens that are text")
}

/// GPT-2's byte-level alphabet: each byte has a printable character of its own.
///
/// Source: `bytes_to_unicode` in GPT-2's `encoder.py`.
#[derive(Debug)]
pub(super) struct Alphabet {
    chars: [char; 256],
    bytes: [Option<u8>; N_CODES],
}

/// One more than the last character of the alphabet: 256 and 68 bytes that are not printable.
const N_CODES: usize = 0x100 + 68;

impl Alphabet {
    pub(super) fn new() -> Self {
        let mut alphabet = Self { chars: ['\0'; 256], bytes: [None; N_CODES] };
        let mut shifted = 0x100..N_CODES;
        for byte in 0..=u8::MAX {
            let code = match byte {
                b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => usize::from(byte),
                _ => shifted.next().expect("68 bytes are not printable"),
            };
            alphabet.bytes[code] = Some(byte);
            alphabet.chars[usize::from(byte)] =
                char::from_u32(code as u32).expect("all codes are below the surrogates");
        }
        alphabet
    }

    /// Returns the character of `byte`.
    pub(super) fn char(&self, byte: u8) -> char {
        self.chars[usize::from(byte)]
    }

    /// Returns the byte of `c`, if it is a character of the alphabet.
    fn byte(&self, c: char) -> Option<u8> {
        *self.bytes.get(c as usize)?
    }

    /// Writes the bytes that a token's text stands for behind `to`.
    ///
    /// A text with a character outside the alphabet was not written in it: it stands for itself,
    /// as in the `ByteLevel` decoder of `tokenizers`.
    fn write(&self, text: &str, to: &mut Vec<u8>) {
        let start = to.len();
        for c in text.chars() {
            let Some(byte) = self.byte(c) else {
                to.truncate(start);
                to.extend_from_slice(text.as_bytes());
                return;
            };
            to.push(byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_gives_every_byte_a_character_and_takes_it_back() {
        let alphabet = Alphabet::new();
        for byte in 0..=u8::MAX {
            assert_eq!(alphabet.byte(alphabet.char(byte)), Some(byte));
        }
        assert_eq!(alphabet.char(b' '), 'Ġ');
        assert_eq!(alphabet.char(b'\n'), 'Ċ');
        assert_eq!(alphabet.char(0xad), 'Ń');
        assert_eq!(alphabet.byte('ń'), None);
        assert_eq!(alphabet.byte(' '), None);
    }
}

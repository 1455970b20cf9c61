//! The bytes each token stands for, and the tokens that can begin a given run of bytes.
//!
//! In: token texts in GPT-2's byte-level alphabet. Out: bytes by id, ids by bytes.

use super::TokenId;

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
}

/// Bytes of every token, by id, with an index by bytes over those that are text.
#[derive(Debug)]
pub(super) struct Vocabulary {
    bytes: Vec<u8>,
    /// `n_tokens + 1` positions in `bytes`: token `id` lies between `starts[id]` and the next.
    starts: Vec<usize>,
    /// Ids of the tokens with bytes, in the order of these and, among equals, of the ids.
    by_bytes: Vec<TokenId>,
}

impl Vocabulary {
    /// Builds the table from each token's text; `None` is a token that stands for no text, unless it is one of `literals`,
    /// which stand in the order of their ids.
    pub(super) fn new<'t>(
        texts: impl Iterator<Item = Option<&'t str>>,
        literals: &[(&str, TokenId)],
        alphabet: &Alphabet,
    ) -> Self {
        let mut literals = literals.iter().peekable();
        let mut table = Self { bytes: Vec::new(), starts: vec![0], by_bytes: Vec::new() };
        for (id, text) in (0..).zip(texts) {
            let start = table.bytes.len();
            match literals.next_if(|(_, literal)| literal.0 == id) {
                Some((literal, _)) => table.bytes.extend_from_slice(literal.as_bytes()),
                None => table.push(text.unwrap_or_default(), alphabet),
            }
            table.starts.push(table.bytes.len());
            if table.bytes.len() > start {
                table.by_bytes.push(TokenId(id));
            }
        }
        let mut by_bytes = std::mem::take(&mut table.by_bytes);
        by_bytes.sort_by(|a, b| (table.get(*a), a).cmp(&(table.get(*b), b)));
        table.by_bytes = by_bytes;
        table
    }

    /// A text with a character outside the alphabet was not written in it: it stands for itself,
    /// as in the `ByteLevel` decoder of `tokenizers`.
    fn push(&mut self, text: &str, alphabet: &Alphabet) {
        let start = self.bytes.len();
        for c in text.chars() {
            let Some(byte) = alphabet.byte(c) else {
                self.bytes.truncate(start);
                self.bytes.extend_from_slice(text.as_bytes());
                return;
            };
            self.bytes.push(byte);
        }
    }

    /// Returns how many tokens there are.
    pub(super) fn n_tokens(&self) -> usize {
        self.starts.len() - 1
    }

    /// Returns the bytes of `id`; none for a token that is not text or not there.
    pub(super) fn get(&self, id: TokenId) -> &[u8] {
        let idx = id.0 as usize;
        match self.starts.get(idx..=idx.saturating_add(1)) {
            Some([start, end]) => &self.bytes[*start..*end],
            _ => &[],
        }
    }

    /// Returns the tokens whose bytes begin with `need`.
    pub(super) fn beginning_with(&self, need: &[u8]) -> &[TokenId] {
        let from = self.by_bytes.partition_point(|id| self.get(*id) < need);
        let rest = &self.by_bytes[from..];
        &rest[..rest.partition_point(|id| self.get(*id).starts_with(need))]
    }

    /// Returns the tokens whose bytes are exactly `bytes`.
    pub(super) fn equal_to(&self, bytes: &[u8]) -> &[TokenId] {
        let rest = self.beginning_with(bytes);
        &rest[..rest.partition_point(|id| self.get(*id).len() == bytes.len())]
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

    #[test]
    fn tokens_are_found_by_their_first_bytes() {
        let texts = [None, Some("ab"), Some("a"), Some("Ġa"), Some("b"), Some("abc"), Some(""), Some("a｜b")];
        let table = Vocabulary::new(texts.into_iter(), &[], &Alphabet::new());
        let ids = |found: &[TokenId]| found.iter().map(|id| id.0).collect::<Vec<_>>();
        assert_eq!(table.n_tokens(), 8);
        assert_eq!(ids(table.beginning_with(b"a")), [2, 1, 5, 7]);
        assert_eq!(ids(table.beginning_with(b"ab")), [1, 5]);
        assert_eq!(ids(table.beginning_with(b"")), [3, 2, 1, 5, 7, 4]);
        assert_eq!(ids(table.beginning_with(b"zz")), [] as [u32; 0]);
        assert_eq!(ids(table.equal_to(b"ab")), [1]);
        assert_eq!(ids(table.equal_to(b"")), [] as [u32; 0]);
        assert_eq!(table.get(TokenId(7)), "a｜b".as_bytes());
        assert_eq!(table.get(TokenId(3)), b" a");
        assert_eq!(table.get(TokenId(0)), b"");
        assert_eq!(table.get(TokenId(8)), b"");
        assert_eq!(table.get(TokenId(u32::MAX)), b"");
    }
}

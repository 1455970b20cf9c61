//! SentencePiece's byte-pair encoding: of all neighbours in a text, the two with the best score become one, again and again.
//!
//! In: text. Out: token ids.
//! Never: knows a token that is not text (I-3).
//! Source: `llm_tokenizer_spm` in llama.cpp's `src/llama-vocab.cpp`.
//!
//! A piece may reach over words, so a text is cut only at characters that are in no piece but their own: a line's end, in
//! most vocabularies. The vocabulary writes a blank as `▁`; here a piece is what it stands for, so that a `▁` in a text is no
//! blank: that is bytes, where SentencePiece would lose it.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap, HashSet};

use super::load::Tokens;
use super::{ByteTokens, Error, TokenId, special};
use crate::gguf::Gguf;

/// What a blank is written as.
const BLANK: char = '▁';

/// The pieces of one model file.
pub(super) struct SentencePiece {
    // INVARIANT I-3: they are text.
    by_text: HashMap<String, (TokenId, f32)>,
    /// The characters that are in pieces with others.
    joined: HashSet<char>,
    /// Those that stand for a byte, for what no piece is in.
    pub(super) bytes: ByteTokens,
    /// Whether a text that begins anew begins with a blank.
    pub(super) adds_blank: bool,
}

impl SentencePiece {
    /// Reads the scores, and marks as special those of `tokens` that have a name which is known for a role.
    pub(super) fn read(gguf: &Gguf, tokens: &mut Tokens<'_>) -> Result<Self, Error> {
        let scores = gguf.f32_array("tokenizer.ggml.scores")?;
        let n_tokens = tokens.texts.len();
        if scores.len() != n_tokens {
            return Err(Error::ScoreCount { n_scores: scores.len(), n_tokens });
        }
        let adds_blank = gguf.opt_bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
        let (by_text, joined) = (HashMap::new(), HashSet::new());
        let mut read = Self { by_text, joined, bytes: Box::new([None; 256]), adds_blank };
        for (id, score) in (0..).zip(scores) {
            let (idx, text) = (id as usize, tokens.texts[id as usize]);
            if tokens.is_byte(id) {
                let byte = byte_of(text).ok_or_else(|| Error::ByteToken { id, text: text.to_owned() })?;
                read.bytes[usize::from(byte)].get_or_insert(TokenId(id));
                tokens.is_special[idx] = false;
            } else if special::is_known_name(text) {
                tokens.is_special[idx] = true;
            } else if !tokens.is_special[idx] && !text.is_empty() {
                if !score.is_finite() {
                    return Err(Error::Score { id, score });
                }
                let text = text_of(text).into_owned();
                if text.chars().nth(1).is_some() {
                    read.joined.extend(text.chars());
                }
                // Of the two zeros neither is the greater score.
                read.by_text.insert(text, (TokenId(id), score + 0.0));
            }
        }
        let has_token = |c: &char| {
            read.by_text.contains_key(c.encode_utf8(&mut [0])) || read.bytes[*c as usize].is_some()
        };
        match ['\n', '\t'].into_iter().chain(' '..='~').find(|c| !has_token(c)) {
            Some(c) => Err(Error::NoToken(c)),
            None => Ok(read),
        }
    }

    /// Writes the tokens of `text` behind `tokens`.
    pub(super) fn encode(&self, text: &str, tokens: &mut Vec<TokenId>) {
        let mut start = 0;
        for (at, c) in text.char_indices().filter(|(_, c)| !self.joined.contains(c)) {
            self.encode_run(&text[start..at], tokens);
            start = at + c.len_utf8();
            self.push(&text[at..start], tokens);
        }
        self.encode_run(&text[start..], tokens);
    }

    /// Joins what can be joined in a part of a text.
    fn encode_run(&self, text: &str, tokens: &mut Vec<TokenId>) {
        let mut parts = Parts::of(text);
        let mut pairs = BinaryHeap::with_capacity(parts.0.len());
        for left in 1..parts.0.len() {
            pairs.extend(self.pair(text, &parts, left - 1));
        }
        while let Some(pair) = pairs.pop() {
            if let Some(before) = parts.join(&pair) {
                pairs.extend(before.and_then(|before| self.pair(text, &parts, before)));
                pairs.extend(self.pair(text, &parts, pair.left));
            }
        }
        for part in parts.0.iter().filter(|part| part.start < part.end) {
            self.push(&text[part.start..part.end], tokens);
        }
    }

    /// Writes the token of a part behind `tokens`, or those of its bytes.
    fn push(&self, part: &str, tokens: &mut Vec<TokenId>) {
        match self.by_text.get(part) {
            Some((id, _)) => tokens.push(*id),
            None => tokens.extend(part.bytes().filter_map(|byte| self.bytes[usize::from(byte)])),
        }
    }

    /// Returns a part and the next one as a pair, if together they are a piece.
    fn pair(&self, text: &str, parts: &Parts, left: usize) -> Option<Pair> {
        let right = parts.0[left].next?;
        let (start, end) = (parts.0[left].start, parts.0[right].end);
        let (_, score) = self.by_text.get(&text[start..end])?;
        Some(Pair { score: *score, left, end })
    }
}

/// Returns what a token's text stands for.
pub(super) fn text_of(text: &str) -> Cow<'_, str> {
    if text.contains(BLANK) { text.replace(BLANK, " ").into() } else { text.into() }
}

/// Returns the byte that a token such as `<0x0A>` stands for.
pub(super) fn byte_of(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let is_number = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_number.then(|| u8::from_str_radix(digits, 16).ok())?
}

/// A text in parts: at first its characters.
struct Parts(Vec<PartOf>);

/// A part that was joined to the one before it is empty.
struct PartOf {
    start: usize,
    end: usize,
    previous: Option<usize>,
    next: Option<usize>,
}

impl Parts {
    fn of(text: &str) -> Self {
        let n_parts = text.chars().count();
        let part = |(idx, (start, c)): (usize, (usize, char))| PartOf {
            start,
            end: start + c.len_utf8(),
            previous: idx.checked_sub(1),
            next: (idx + 1 < n_parts).then_some(idx + 1),
        };
        Self(text.char_indices().enumerate().map(part).collect())
    }

    /// Makes one part of a pair, and returns the part before it; nothing if one of the two has changed since.
    fn join(&mut self, pair: &Pair) -> Option<Option<usize>> {
        let right = self.0[pair.left].next?;
        if self.0[pair.left].start == self.0[pair.left].end || self.0[right].end != pair.end {
            return None;
        }
        let after = self.0[right].next;
        self.0[right].start = self.0[right].end;
        self.0[pair.left].end = pair.end;
        self.0[pair.left].next = after;
        if let Some(after) = after {
            self.0[after].previous = Some(pair.left);
        }
        Some(self.0[pair.left].previous)
    }
}

/// Two neighbours that are a piece together; the greatest is to be joined first.
struct Pair {
    score: f32,
    /// The first of them.
    left: usize,
    /// Where the second ends.
    end: usize,
}

impl Ord for Pair {
    /// By score; among equal ones the first in the text.
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then_with(|| other.left.cmp(&self.left))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Pair {}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Tokenizer;
    use crate::gguf::test_file::GgufWriter;

    fn trained() -> Tokenizer {
        let file = include_bytes!("../../../../tests/fixtures/sentencepiece.gguf");
        let gguf = Gguf::from_bytes(file.to_vec()).expect("a valid file");
        Tokenizer::from_gguf(&gguf).expect("a valid vocabulary")
    }

    fn ids(tokens: &[TokenId]) -> Vec<u32> {
        tokens.iter().map(|id| id.0).collect()
    }

    #[test]
    fn the_tokens_are_those_of_sentencepiece() {
        let tokenizer = trained();
        let expected: serde_json::Value =
            serde_json::from_str(include_str!("../../../../tests/fixtures/sentencepiece.json"))
                .expect("JSON");
        let rows = expected["texts"].as_array().expect("rows");
        assert!(rows.len() > 10);
        for row in rows {
            let text = row["text"].as_str().expect("a text");
            let tokens = tokenizer.encode(text);
            assert_eq!(json!(ids(&tokenizer.encode_first(text))), row["first"], "{text:?}");
            assert_eq!(json!(ids(&tokens)), row["plain"], "{text:?}");
            assert_eq!(tokenizer.decode(&tokens), text.as_bytes(), "{text:?}");
        }
        assert!(tokenizer.specials().add_bos);
    }

    #[test]
    fn a_text_comes_back_whatever_it_says_and_names_no_special_token() {
        let tokenizer = trained();
        let parts =
            ["<s>", "</s>", "<unk>", "<0x0A>", "▁", " ", "\n", "x", "é", "🦀", "return", "\0", "    "];
        let mut seed = 7_usize;
        for _ in 0..2000 {
            let mut text = String::new();
            for _ in 0..seed % 9 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                text += parts[(seed >> 33) % parts.len()];
            }
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let tokens = tokenizer.encode(&text);
            assert!(tokens.iter().all(|id| !tokenizer.is_special(*id)), "{text:?}");
            assert_eq!(String::from_utf8_lossy(&tokenizer.decode(&tokens)), text);
        }
        assert_eq!(tokenizer.special("<s>"), tokenizer.specials().bos);
        assert_eq!(tokenizer.token_bytes(tokenizer.encode_bytes(b"\xff")[0]), b"\xff");
    }

    #[test]
    fn the_best_pair_comes_first_and_of_equal_ones_the_first_in_the_text() {
        let tokens = [("aa", -0.0, 1), ("ab", -2.0, 1), ("ba", 0.0, 1)];
        let tokenizer = open(&tokens, without_bos).expect("a valid vocabulary");
        let (a, b, c) = (byte(b'a'), byte(b'b'), byte(b'c'));
        let check =
            |text: &str, expected: &[u32]| assert_eq!(ids(&tokenizer.encode(text)), expected, "{text}");
        check("aba", &[a, 2]);
        check("aaa", &[0, a]);
        check("baa", &[2, a]);
        check("aab", &[0, b]);
        check("abab", &[a, 2, b]);
        check("abcaa", &[1, c, 0]);
        assert_eq!(ids(&tokenizer.encode_first("aa")), [byte(b' '), 0]);
    }

    #[test]
    fn blanks_added_by_hand_are_text_and_what_has_a_known_name_is_not() {
        let tokens = [("▁▁▁", 0.0, 4), ("▁<PRE>", 0.0, 1), ("<0xFF>", 0.0, 1), ("<y>", 0.0, 4)];
        let more = |file: GgufWriter| without_bos(file).bool("tokenizer.ggml.add_space_prefix", false);
        let tokenizer = open(&tokens, more).expect("a valid vocabulary");
        let (x, blank, end) = (byte(b'x'), byte(b' '), byte(b'\n'));
        assert_eq!(ids(&tokenizer.encode_first("x    x\n")), [x, 0, blank, x, end]);
        assert_eq!(ids(&tokenizer.encode("<y>")), b"<y>".map(byte));
        assert_eq!(ids(&tokenizer.encode("<0xFF>")), b"<0xFF>".map(byte), "no pairs make it");
        assert_eq!(tokenizer.decode(&[TokenId(0), TokenId(end), TokenId(2)]), b"   \n<0xFF>");
        assert_eq!(tokenizer.specials().fim_prefix, Some(TokenId(1)));
        assert!(tokenizer.is_special(TokenId(3)) && !tokenizer.is_special(TokenId(0)));
    }

    #[test]
    fn where_the_file_does_not_say_it_a_prompt_begins_with_token_1_and_a_text_ends_with_2() {
        let tokens = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)];
        let specials = open(&tokens, |file| file).expect("a valid vocabulary").specials().clone();
        assert_eq!((specials.bos, specials.eos), (Some(TokenId(1)), Some(TokenId(2))));
        assert!(specials.add_bos && specials.is_end(TokenId(2)));
        let refused = open(&[("x", 0.0, 3), ("y", 0.0, 1)], |file| file);
        assert!(matches!(refused, Err(Error::NoBos)), "what is text begins nothing");
    }

    #[test]
    fn a_vocabulary_that_contradicts_itself_is_refused() {
        let check = |tokens: &[(&str, f32, i32)], expected: &str| {
            let error = open(tokens, |file| file).expect_err("must be refused");
            assert_eq!(error.to_string(), expected);
            assert!(!error.hint().is_empty());
        };
        check(&[("ab", f32::NAN, 1)], "the score of token 0 is NaN");
        check(&[("ab", f32::INFINITY, 1)], "the score of token 0 is inf");
        for text in ["<0x>", "<0x+1>", "<0x0AB>", "0x0A", "<0xé>"] {
            let expected = format!("token 0, `{text}`, is said to be a byte, and does not name one");
            check(&[(text, 0.0, 6)], &expected);
        }
        let of = |scores: &[f32]| {
            let file = file(&[("a", 1)]).f32s("tokenizer.ggml.scores", scores);
            let gguf = Gguf::from_bytes(file.write().bytes).expect("a valid file");
            Tokenizer::from_gguf(&gguf).expect_err("must be refused").to_string()
        };
        assert_eq!(of(&[]), "there are 0 token scores for 1 tokens");
        assert_eq!(of(&[0.0]), "the vocabulary has no token for '\\n'");
    }

    /// What stands before the bytes in what [`open`] makes.
    const N_OWN: usize = 4;

    fn byte(byte: u8) -> u32 {
        N_OWN as u32 + u32::from(byte)
    }

    /// A vocabulary of at most [`N_OWN`] tokens, each with its score and type, and then all bytes.
    fn open(
        tokens: &[(&str, f32, i32)],
        more: impl Fn(GgufWriter) -> GgufWriter,
    ) -> Result<Tokenizer, Error> {
        let unused = ["[0]", "[1]", "[2]", "[3]"].map(|text| (text, 0.0, 5));
        let bytes: Vec<String> = (0..=u8::MAX).map(|byte| format!("<0x{byte:02x}>")).collect();
        let bytes = bytes.iter().map(|text| (text.as_str(), 0.0, 6));
        let own = tokens.iter().copied().chain(unused).take(N_OWN);
        let (scores, types): (Vec<f32>, Vec<(&str, i32)>) =
            own.chain(bytes).map(|(text, score, kind)| (score, (text, kind))).unzip();
        let file = more(file(&types).f32s("tokenizer.ggml.scores", &scores));
        Tokenizer::from_gguf(&Gguf::from_bytes(file.write().bytes).expect("a valid file"))
    }

    fn without_bos(file: GgufWriter) -> GgufWriter {
        file.bool("tokenizer.ggml.add_bos_token", false)
    }

    fn file(tokens: &[(&str, i32)]) -> GgufWriter {
        let (texts, types): (Vec<&str>, Vec<i32>) = tokens.iter().copied().unzip();
        GgufWriter::new()
            .str("tokenizer.ggml.model", "llama")
            .strs("tokenizer.ggml.tokens", &texts)
            .i32s("tokenizer.ggml.token_type", &types)
    }
}

//! Cuts a text into the pieces that byte-pair merges stay within.
//!
//! In: text. Out: pieces in order; joined they are the text, byte for byte.
//! Source: `llama_tokenizer_bpe` in llama.cpp's `src/llama-vocab.cpp`, by `tokenizer.ggml.pre`.

use std::ops::Range;

use regex::Regex;

use super::Error;

/// GPT-2's pattern.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+";
/// Llama 3's: numbers in groups of three, and a line's end stays with what is before it.
const LLAMA3: &str = r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";
/// Qwen 2's: as Llama 3's, with each digit alone.
const QWEN2: &str = r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";
/// Mistral's Tekken, as its `tokenizer.json` has it. llama.cpp writes the two runs of letters in
/// another way, which differs outside ASCII only; this is what the models were trained with.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+";

/// DeepSeek-Coder's, each applied to what those before it have left.
const DEEPSEEK_CODER: &[&str] = &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+", r"\p{N}"];
/// DeepSeek-LLM's: the letters are those with upper and lower case.
const DEEPSEEK_LLM: &[&str] = &[
    r"[\r\n]",
    r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+",
    r"\s?[!-/:-~！-／：-～‘-‟　-。]+",
    r"\s+$",
    r"[一-龥ࠀ-一가-퟿]+",
    r"\p{N}+",
];
/// Digits, one by one.
const DIGITS: &[&str] = &[r"\p{N}"];

/// The rule for cutting text into pieces that a model's vocabulary was made with.
#[derive(Debug)]
pub(super) struct Splitter {
    /// What is cut out first, in this order; the rest is between.
    first: Vec<Regex>,
    /// Cuts the rest; without it that is a piece.
    pattern: Option<Regex>,
    /// Blanks up to a line's end are one piece, also before a word (`\s*[\r\n]+`).
    keeps_line_ends: bool,
    /// A whole piece that is in the vocabulary is that token, whatever the merges make of it.
    pub(super) ignore_merges: bool,
    /// Whether a prompt begins with the BOS token when the metadata do not say.
    pub(super) adds_bos: bool,
}

impl Splitter {
    /// Returns the rule called `pre` in `tokenizer.ggml.pre`.
    pub(super) fn named(pre: &str) -> Result<Self, Error> {
        let (first, pattern, is_llama3): (&[&str], _, _) = match pre {
            "gpt-2" => (&[], Some(GPT2), false),
            "smollm" | "starcoder" | "refact" => (DIGITS, Some(GPT2), false),
            "llama3" | "llama-v3" | "llama-bpe" => (&[], Some(LLAMA3), true),
            "qwen2" | "deepseek-r1-qwen" => (&[], Some(QWEN2), false),
            "tekken" => (&[], Some(TEKKEN), true),
            "deepseek-coder" => (DEEPSEEK_CODER, None, false),
            "deepseek-llm" => (DEEPSEEK_LLM, None, false),
            _ => return Err(Error::UnknownPre(pre.to_owned())),
        };
        let regex =
            |pattern: &str| Regex::new(pattern).expect("the patterns above are valid; a test makes each");
        Ok(Self {
            first: first.iter().map(|pattern| regex(pattern)).collect(),
            pattern: pattern.map(regex),
            keeps_line_ends: pattern.is_some_and(|pattern| pattern.contains(r"\s*[\r\n]+")),
            ignore_merges: is_llama3,
            adds_bos: is_llama3,
        })
    }

    /// Calls `piece` with each piece of `text`, in order.
    pub(super) fn split<'t>(&self, text: &'t str, mut piece: impl FnMut(&'t str)) {
        self.cut(&self.first, text, &mut piece);
    }

    /// Cuts what `first` finds out of a text, and all else by what comes after.
    fn cut<'t>(&self, first: &[Regex], text: &'t str, piece: &mut dyn FnMut(&'t str)) {
        let Some((pattern, others)) = first.split_first() else {
            return match &self.pattern {
                Some(pattern) => self.split_run(pattern, text, piece),
                None if text.is_empty() => (),
                None => piece(text),
            };
        };
        let mut start = 0;
        for found in pattern.find_iter(text) {
            self.cut(others, &text[start..found.start()], piece);
            piece(found.as_str());
            start = found.end();
        }
        self.cut(others, &text[start..], piece);
    }

    fn split_run<'t>(&self, pattern: &Regex, text: &'t str, piece: &mut dyn FnMut(&'t str)) {
        let mut start = 0;
        while let Some(found) = pattern.find_at(text, start) {
            if found.start() > start {
                // The patterns leave no gap; if one did, its text must not be lost.
                piece(&text[start..found.start()]);
            }
            let end = self.end_of(text, found.range());
            piece(&text[found.start()..end]);
            start = end;
        }
        if start < text.len() {
            piece(&text[start..]);
        }
    }

    /// Returns where a match ends when the final `\s+` is read as `\s+(?!\S)|\s+`: blanks before
    /// a word leave their last one to it. `regex` has no lookahead, and is linear in the text.
    fn end_of(&self, text: &str, found: Range<usize>) -> usize {
        let end = found.end;
        let matched = &text[found];
        let Some(last) = matched.chars().next_back() else {
            return end;
        };
        if end == text.len() || !last.is_whitespace() || matched.len() == last.len_utf8() {
            return end;
        }
        if self.keeps_line_ends && matches!(last, '\r' | '\n') {
            return end;
        }
        if matched.chars().all(char::is_whitespace) { end - last.len_utf8() } else { end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pre: &str, text: &str, expect: &[&str]) {
        let splitter = Splitter::named(pre).expect("a known rule");
        let mut pieces = Vec::new();
        splitter.split(text, |piece| pieces.push(piece));
        assert_eq!(pieces, expect, "{pre}");
        assert_eq!(pieces.concat(), text, "{pre}");
    }

    #[test]
    fn a_word_takes_the_blank_before_it_and_leaves_the_others() {
        for pre in ["gpt-2", "smollm", "llama-bpe", "qwen2", "tekken"] {
            check(pre, "let   x", &["let", "  ", " x"]);
            check(pre, "a \t", &["a", " \t"]);
            check(pre, "  ", &["  "]);
            check(pre, "", &[]);
            check(
                pre,
                "  é\u{301}",
                if pre == "tekken" { &[" ", " é\u{301}"] } else { &[" ", " é", "\u{301}"] },
            );
        }
        check("gpt-2", "\tx", &["\t", "x"]);
        check("llama3", "\tx", &["\tx"]);
    }

    #[test]
    fn line_ends_stay_together_where_the_rule_says_so() {
        check("gpt-2", "a;\n\n\n  b", &["a", ";", "\n\n\n ", " b"]);
        check("gpt-2", "a\n\n\nb", &["a", "\n\n", "\n", "b"]);
        for pre in ["llama-bpe", "qwen2", "tekken"] {
            check(pre, "a;\n\n\n  b", &["a", ";\n\n\n", " ", " b"]);
            check(pre, "a  \n\n\nb", &["a", "  \n\n\n", "b"]);
            check(pre, "a\r\n\r\n\tb", &["a", "\r\n\r\n", "\tb"]);
            check(pre, "}\u{a0}\u{a0}b", &["}", "\u{a0}", "\u{a0}b"]);
        }
        check("tekken", "a //\n/x", &["a", " //\n/", "x"]);
        check("qwen2", "a //\n/x", &["a", " //\n", "/x"]);
    }

    #[test]
    fn digits_are_grouped_as_each_rule_says() {
        check("gpt-2", "x 1234½", &["x", " 1234½"]);
        check("smollm", "x  123½ y", &["x", "  ", "1", "2", "3", "½", " y"]);
        check("llama3", "x 1234", &["x", " ", "123", "4"]);
        check("deepseek-r1-qwen", "x 12", &["x", " ", "1", "2"]);
        check("tekken", "x٣٤", &["x", "٣", "٤"]);
    }

    #[test]
    fn each_rule_of_several_cuts_what_those_before_it_have_left() {
        check(
            "deepseek-coder",
            "let x12 = 漢字;\n\ty",
            &["let", " x", "1", "2", " =", " 漢字", ";", "\n", "\ty"],
        );
        check("deepseek-llm", "let x12 = 漢字;  ", &["let", " x", "12", " =", " ", "漢字", ";", "  "]);
    }

    #[test]
    fn contractions_are_cut_in_both_cases_only_where_the_rule_says_so() {
        check("smollm", "it's IT'S", &["it", "'s", " IT", "'", "S"]);
        check("llama3", "it's IT'S", &["it", "'s", " IT", "'S"]);
        check("tekken", "it's HTTPServer", &["it", "'s", " HTTPServer"]);
        check("tekken", "myHTTPServer", &["my", "HTTPServer"]);
    }

    /// The rules as their makers wrote them, with lookahead, run by the engine in `tokenizers`.
    fn original(pre: &str) -> tokenizers::utils::SysRegex {
        let end = r"|\s+(?!\S)|\s+";
        let contractions = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])";
        let pattern = match pre {
            "gpt-2" => format!(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+{end}"),
            "llama3" => format!(
                r"{contractions}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+{end}"
            ),
            "qwen2" => format!(
                r"{contractions}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+{end}"
            ),
            _ => TEKKEN.replace(r"|\s+", end),
        };
        tokenizers::utils::SysRegex::new(&pattern).expect("a valid pattern")
    }

    #[test]
    fn without_lookahead_the_pieces_are_those_of_the_original_patterns() {
        let parts = [
            "a",
            "Zy",
            "é",
            "e\u{301}",
            "漢",
            "ǅ",
            "1",
            "23",
            "½",
            "٣",
            " ",
            "  ",
            "\t",
            "\n",
            "\r\n",
            "\u{a0}",
            "\u{2028}",
            "\u{3000}",
            "'s",
            "'RE",
            "'",
            "//",
            "_",
            "(",
            "🦀",
            "\u{200d}",
            "\0",
            "<|im_start|>",
        ];
        let mut state = 1u64;
        for pre in ["gpt-2", "llama3", "qwen2", "tekken"] {
            let (splitter, original) = (Splitter::named(pre).expect("a known rule"), original(pre));
            for _ in 0..2_000 {
                let mut text = String::new();
                for _ in 0..12 {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    text.push_str(parts[(state >> 33) as usize % parts.len()]);
                }
                let mut pieces = Vec::new();
                splitter.split(&text, |piece| pieces.push(piece));
                let expect: Vec<&str> =
                    original.find_iter(&text).map(|(start, end)| &text[start..end]).collect();
                assert_eq!(pieces, expect, "{pre}: {text:?}");
            }
        }
    }

    #[test]
    fn an_unknown_rule_is_refused_by_name() {
        for pre in ["default", "", "SmolLM"] {
            let error = Splitter::named(pre).expect_err("must be refused");
            assert!(matches!(error, Error::UnknownPre(name) if name == pre));
        }
    }
}

//! Tests of the tokenizer on the real default model, and on small vocabularies that lie.

use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;

use super::*;
use crate::gguf::test_file::{GgufWriter, test_model_path};

fn real() -> Tokenizer {
    let gguf = Gguf::open(&test_model_path()).expect("the default model");
    Tokenizer::from_gguf(&gguf).expect("the default model's tokenizer")
}

/// A vocabulary of all bytes, then `tokens` with their types, and `merges`.
#[derive(Clone)]
struct Small {
    pre: &'static str,
    tokens: Vec<(String, i32)>,
    merges: Vec<&'static str>,
    more: fn(GgufWriter) -> GgufWriter,
}

fn small(tokens: &[(&str, i32)], merges: &[&'static str]) -> Small {
    let alphabet = byte_level::Alphabet::new();
    let bytes = (0..=u8::MAX).map(|byte| (alphabet.char(byte).to_string(), 1));
    let tokens = tokens.iter().map(|(text, token_type)| ((*text).to_owned(), *token_type));
    Small { pre: "smollm", tokens: bytes.chain(tokens).collect(), merges: merges.to_vec(), more: |file| file }
}

impl Small {
    fn gguf(&self) -> Gguf {
        let (texts, types): (Vec<&str>, Vec<i32>) =
            self.tokens.iter().map(|(text, token_type)| (text.as_str(), *token_type)).unzip();
        let file = GgufWriter::new()
            .str("tokenizer.ggml.model", "gpt2")
            .str("tokenizer.ggml.pre", self.pre)
            .strs("tokenizer.ggml.tokens", &texts)
            .i32s("tokenizer.ggml.token_type", &types)
            .strs("tokenizer.ggml.merges", &self.merges);
        Gguf::from_bytes((self.more)(file).write().bytes).expect("a valid file")
    }

    fn open(&self) -> Result<Tokenizer, Error> {
        Tokenizer::from_gguf(&self.gguf())
    }
}

fn ids(tokens: &[TokenId]) -> Vec<u32> {
    tokens.iter().map(|id| id.0).collect()
}

const TEXTS: [&str; 9] = [
    "",
    "fn main() {\r\n    println!(\"héllo, 世界 🦀👩‍👩‍👧\");\r\n}\r\n",
    "def f(x):\n\treturn x  +   1234567890.5  # it's IT'S we'll\n\n\n\n    pass\n",
    "<|im_start|>user\nhello<|im_end|>\n<|endoftext|><repo_name><file_sep><empty_output>",
    " <|im_start|> x<|im_end|>x  <|endoftext|>\t<filename>",
    "\u{feff}\u{a0}\u{3000}\u{2028}e\u{301} ½ ٣٤ \u{7f}\u{1b}[0m\0",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "= = == === ==== ================================================================",
    "𝄞\u{10ffff}\u{e000} \u{fffd}",
];

/// I-3, on the real vocabulary: every special's name, alone and in company.
#[test]
fn i_3_a_special_token_never_comes_from_text() {
    let tokenizer = real();
    let mut texts: Vec<String> = TEXTS.map(str::to_owned).to_vec();
    assert_eq!(tokenizer.special_ids.len(), 17);
    for name in tokenizer.special_ids.keys() {
        texts.extend([name.clone(), format!(" {name}"), format!("{name}{name}\n{name}x")]);
    }
    for text in &texts {
        let tokens = tokenizer.encode(text);
        assert!(tokens.iter().all(|id| !tokenizer.is_special(*id)), "{text:?}: {tokens:?}");
        assert_eq!(tokenizer.decode(&tokens), text.as_bytes(), "the names of specials are text too");
    }
}

/// I-3 where the vocabulary tempts: a special that is a whole piece, and one that a merge makes.
#[test]
fn i_3_neither_a_whole_piece_nor_a_merge_makes_a_special_token() {
    for pre in ["smollm", "llama3"] {
        for token_type in [2, 3, 4, 5, 6] {
            let mut file =
                small(&[("ab", token_type), ("cd", 1), ("abcd", 1), ("Ġab", 4)], &["a b", "c d", "ab cd"]);
            file.pre = pre;
            file.more = |file| file.bool("tokenizer.ggml.add_bos_token", false);
            let tokenizer = file.open().expect("a valid vocabulary");
            let (a, b) = (u32::from(b'a'), u32::from(b'b'));
            assert_eq!(ids(&tokenizer.encode("ab")), [a, b], "{pre}");
            assert_eq!(ids(&tokenizer.encode(" ab")), [u32::from(b' '), a, b]);
            // A whole piece is a token under Llama 3's rule, whatever the merges make of it.
            let expect = if pre == "llama3" { vec![258] } else { vec![a, b, 257] };
            assert_eq!(ids(&tokenizer.encode("abcd")), expect, "{pre}");
            assert_eq!(tokenizer.special("ab"), Some(TokenId(256)));
            assert_eq!(tokenizer.special("cd"), None);
            assert_eq!(tokenizer.token_bytes(TokenId(256)), b"");
        }
    }
}

#[test]
fn a_control_token_marked_as_text_is_found_by_its_name_unless_merges_make_it() {
    let file = small(&[("<|im_end|>", 1), ("</", 1), ("s>", 1), ("</s>", 1)], &["< /", "s >", "</ s>"]);
    let tokenizer = file.open().expect("a valid vocabulary");
    assert!(tokenizer.is_special(TokenId(256)));
    assert_eq!(tokenizer.specials().end_of_generation, [TokenId(256)]);
    assert!(!tokenizer.is_special(TokenId(259)), "`</s>` is markup in this vocabulary");
}

#[test]
fn every_text_comes_back_whole_but_for_bytes_that_have_no_token() {
    let tokenizer = real();
    for text in TEXTS {
        assert_eq!(tokenizer.decode(&tokenizer.encode(text)), text.as_bytes());
    }
    let lost: Vec<u8> =
        (0..=0x7f).filter(|byte| tokenizer.byte_tokens()[usize::from(*byte)].is_none()).collect();
    assert_eq!(lost, [0x04, 0x06, 0x13, 0x14, 0x16, 0x1d]);
    assert_eq!(tokenizer.decode(&tokenizer.encode("a(\u{4})b")), b"a()b");
    assert_eq!(tokenizer.encode("(\u{4})").len(), 2, "nothing merges across a byte that is left out");
}

#[test]
fn the_tokens_are_those_of_the_whole_tokenizers_pipeline() {
    let tokenizer = real();
    let Encoder::ByteLevel(bytes) = &tokenizer.encoder else {
        panic!("the default model's is a byte-level BPE")
    };
    let mut whole = tokenizers::Tokenizer::new(bytes.bpe.clone());
    whole.with_pre_tokenizer(Some(Sequence::new(vec![
        Digits::new(true).into(),
        ByteLevel::new(false, true, true).into(),
    ])));
    let sources = [include_str!("../tokenizer.rs"), include_str!("special.rs"), include_str!("tests.rs")];
    for text in TEXTS.iter().chain(&sources) {
        let expect = whole.encode_fast(*text, false).expect("text encodes");
        assert_eq!(ids(&tokenizer.encode(text)), expect.get_ids());
    }
}

#[test]
fn the_real_models_special_tokens_have_their_roles() {
    let tokenizer = real();
    let id = |name: &str| tokenizer.special(name);
    let expect = SpecialTokens {
        bos: id("<|im_start|>"),
        eos: id("<|im_end|>"),
        eot: id("<|im_end|>"),
        repo_name: id("<repo_name>"),
        file_sep: id("<file_sep>"),
        add_bos: false,
        end_of_generation: [0, 2, 3, 5].map(TokenId).to_vec(),
        ..SpecialTokens::default()
    };
    assert_eq!(*tokenizer.specials(), expect);
    assert_eq!((id("<|im_start|>"), id("<|im_end|>")), (Some(TokenId(1)), Some(TokenId(2))));
    assert_eq!((id("the"), id("")), (None, None));
    assert!(tokenizer.specials().is_end(TokenId(0)) && !tokenizer.specials().is_end(TokenId(1)));
    assert_eq!((tokenizer.n_vocab(), tokenizer.pre()), (49_152, "smollm"));
    assert!(tokenizer.chat_template().is_some_and(|template| template.contains("<|im_start|>")));
    assert!(tokenizer.is_special(TokenId(49_152)), "no id beyond the vocabulary is text");
    assert_eq!(tokenizer.token_bytes(TokenId(49_152)), b"");
}

#[test]
fn roles_come_from_the_metadata_first_and_then_from_names() {
    let mut file = small(
        &[("<|fim_prefix|>", 4), ("<fim_suffix>", 3), ("<x>", 3), ("<｜fim▁end｜>", 3), ("<eos>", 3)],
        &[],
    );
    file.more = |file| {
        file.u32("tokenizer.ggml.fim_suf_token_id", 258)
            .u32("tokenizer.ggml.bos_token_id", 258)
            .bool("tokenizer.ggml.add_bos_token", true)
            .str("tandem.fim_order", "spm")
    };
    let tokenizer = file.open().expect("a valid vocabulary");
    let specials = tokenizer.specials();
    assert_eq!(specials.fim_order, FimOrder::SuffixFirst);
    assert_eq!(real().specials().fim_order, FimOrder::PrefixFirst);
    assert_eq!(specials.fim_prefix, Some(TokenId(256)));
    assert_eq!(specials.fim_suffix, Some(TokenId(258)));
    assert_eq!(specials.fim_middle, Some(TokenId(259)));
    assert_eq!((specials.bos, specials.add_bos), (Some(TokenId(258)), true));
    assert_eq!(specials.end_of_generation, [TokenId(260)]);
}

#[test]
fn the_tokens_that_fit_typed_bytes_are_those_a_search_through_all_finds() {
    let tokenizer = real();
    let needs: [&[u8]; 10] =
        [b"", b" ", b"pri", b"print(", b"    re", b"\n\n", b"\xf0\x9f", "é世".as_bytes(), b"\x04", b"zqxj"];
    for need in needs {
        let mut mask = vec![true; tokenizer.n_vocab() + 7];
        let n_allowed = tokenizer.allowed_by_prefix(need, &mut mask);
        let expect: Vec<bool> = (0..mask.len() as u32)
            .map(|id| tokenizer.token_bytes(TokenId(id)))
            .map(|bytes| !bytes.is_empty() && (bytes.starts_with(need) || need.starts_with(bytes)))
            .collect();
        assert!(mask == expect, "{need:?}");
        assert_eq!(n_allowed, expect.iter().filter(|is_allowed| **is_allowed).count());
    }
}

#[test]
fn tokens_stream_as_text() {
    let tokenizer = real();
    let text = TEXTS[1];
    let mut decoder = StreamDecoder::default();
    let mut streamed = String::new();
    for id in tokenizer.encode(text) {
        streamed.push_str(decoder.push(tokenizer.token_bytes(id)));
        assert_eq!(decoder.push(tokenizer.token_bytes(TokenId(1))), "", "a special token is no text");
    }
    streamed.push_str(&decoder.finish());
    assert_eq!(streamed, text);
}

#[test]
fn metadata_that_contradict_themselves_are_refused() {
    #[track_caller]
    fn check(file: &Small, expect: &str) {
        let error = file.open().expect_err("must be refused");
        let mut message = error.to_string();
        if let Error::Metadata(source) = &error {
            message = source.to_string();
        }
        assert_eq!(message, expect);
        assert!(!error.hint().is_empty());
    }
    let merges = |merges: &[&'static str]| small(&[("ab", 1)], merges);
    let with = |more| Small { more, ..merges(&[]) };
    check(&Small { pre: "default", ..merges(&[]) }, "the pre-tokenizer `default` is not known");
    check(&merges(&["ab"]), "merge 0, `ab`, does not join two tokens of the vocabulary to a third");
    check(&merges(&["a b", "a "]), "merge 1, `a `, does not join two tokens of the vocabulary to a third");
    check(&merges(&["a xy"]), "merge 0, `a xy`, does not join two tokens of the vocabulary to a third");
    check(&merges(&["b a"]), "merge 0, `b a`, does not join two tokens of the vocabulary to a third");
    check(&small(&[("ab", 1), ("ab", 3)], &[]), "tokens 256 and 257 are both `ab`");
    check(&small(&[("ab", 0)], &[]), "token 256 has the unknown type 0");
    check(&small(&[("ab", 7)], &[]), "token 256 has the unknown type 7");
    check(
        &with(|file| file.u32("tokenizer.ggml.eos_token_id", 257)),
        "`tokenizer.ggml.eos_token_id` is 257, and the vocabulary has 257 tokens",
    );
    check(
        &with(|file| file.u32("tokenizer.ggml.eos_token_id", 10)),
        "the eos token is 10, which is ordinary text",
    );
    check(
        &with(|file| file.bool("tokenizer.ggml.add_bos_token", true)),
        "prompts must begin with a BOS token, and `tokenizer.ggml.bos_token_id` is missing",
    );
    check(
        &with(|file| file.str("tandem.fim_order", "mps")),
        "`tandem.fim_order` is `mps`; `spm` and `psm` are known",
    );
    check(
        &with(|file| file.u32("tokenizer.ggml.add_bos_token", 1)),
        "`tokenizer.ggml.add_bos_token` must be a bool, and is the integer 1",
    );
}

#[test]
fn other_kinds_of_tokenizers_and_missing_parts_are_refused() {
    let open = |file: GgufWriter| {
        let gguf = Gguf::from_bytes(file.write().bytes).expect("a valid file");
        Tokenizer::from_gguf(&gguf).expect_err("must be refused")
    };
    let model =
        |model| GgufWriter::new().str("tokenizer.ggml.model", model).str("tokenizer.ggml.pre", "smollm");
    assert!(matches!(open(GgufWriter::new()), Error::Metadata(_)));
    assert!(matches!(open(model("t5")), Error::Model(name) if name == "t5"));
    assert!(matches!(open(model("llama")), Error::Metadata(_)));
    assert!(matches!(open(model("gpt2")), Error::Metadata(_)));
    let no_tokens: [&str; 0] = [];
    let vocabulary = |tokens: &[&[u8]], types: &[i32]| {
        model("gpt2")
            .strs("tokenizer.ggml.tokens", tokens)
            .i32s("tokenizer.ggml.token_type", types)
            .strs("tokenizer.ggml.merges", &no_tokens)
    };
    assert!(matches!(open(vocabulary(&[], &[])), Error::Size(0)));
    assert!(matches!(open(vocabulary(&[b"a", b"b"], &[1])), Error::TypeCount { n_types: 1, n_tokens: 2 }));
    assert!(matches!(open(vocabulary(&[b"a", b"\xff"], &[1, 1])), Error::NotUtf8 { id: 1 }));
}

#[test]
fn a_character_or_blanks_added_by_hand_are_text_and_found_first() {
    let tokens = [("漢", 4), ("   ", 4), ("    ", 4), ("<x>", 4), ("ĠĠ", 1)];
    let tokenizer = small(&tokens, &["Ġ Ġ"]).open().expect("a valid vocabulary");
    let text = "a漢      ";
    let got = tokenizer.encode(text);
    assert_eq!(ids(&got), [u32::from(b'a'), 256, 258, 260]);
    assert_eq!(tokenizer.decode(&got), text.as_bytes());
    assert_eq!(ids(&tokenizer.encode("<x>")), b"<x>".map(u32::from), "markup is no text");
    assert_eq!(tokenizer.special("漢"), None);
    assert_eq!(tokenizer.special("<x>"), Some(TokenId(259)));
    assert!(!tokenizer.is_special(TokenId(256)) && tokenizer.is_special(TokenId(259)));
    let mut mask = vec![false; tokenizer.n_vocab()];
    assert_eq!(tokenizer.allowed_by_prefix("漢".as_bytes(), &mut mask), 2);
    assert!(mask[256] && mask[usize::from("漢".as_bytes()[0])]);
}

#[test]
fn a_vocabulary_of_literals_alone_is_refused() {
    let letters: Vec<String> =
        (0..1025).map(|idx| char::from_u32(0x4e00 + idx).expect("a letter").into()).collect();
    let tokens: Vec<(&str, i32)> = letters.iter().map(|text| (text.as_str(), 4)).collect();
    assert!(matches!(small(&tokens, &[]).open(), Err(Error::Literals(1025))));
    assert!(small(&tokens[1..], &[]).open().is_ok());
    let long = " ".repeat(65);
    let tokenizer = small(&[(&long, 4)], &[]).open().expect("a valid vocabulary");
    assert!(tokenizer.is_special(TokenId(256)), "too long to be looked for");
}

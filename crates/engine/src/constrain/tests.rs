//! Tests of constraints on the real default model's vocabulary.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::json;

use super::*;
use crate::gguf::Gguf;
use crate::gguf::test_file::test_model_path;

fn tokenizer() -> &'static Arc<Tokenizer> {
    static TOKENIZER: OnceLock<Arc<Tokenizer>> = OnceLock::new();
    TOKENIZER.get_or_init(|| {
        let gguf = Gguf::open(&test_model_path()).expect("the default model");
        Arc::new(Tokenizer::from_gguf(&gguf).expect("the default model's tokenizer"))
    })
}

fn compile(spec: &GrammarSpec) -> Result<Grammar, GrammarError> {
    static VOCABULARY: OnceLock<GrammarVocabulary> = OnceLock::new();
    VOCABULARY.get_or_init(|| GrammarVocabulary::new(Arc::clone(tokenizer()))).compile(spec)
}

fn regex(text: &str) -> GrammarSpec {
    GrammarSpec::Regex(text.to_owned())
}

fn lark(text: &str) -> GrammarSpec {
    GrammarSpec::Lark(text.to_owned())
}

/// Grammars with what they are made of: forced text, free strings, numbers, a choice, recursion, other letters.
fn specs() -> [GrammarSpec; 5] {
    let schema = json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "maxLength": 12 },
            "kind": { "enum": ["bug", "feature", "béta"] },
            "lines": { "type": "array", "items": { "type": "integer", "minimum": 1, "maximum": 999 }, "maxItems": 3 },
        },
        "required": ["name", "kind", "lines"],
        "additionalProperties": false,
    });
    [
        GrammarSpec::JsonSchema(schema),
        GrammarSpec::JsonObject,
        regex(r"(fn|let) [a-z_]{1,20}: (日本|é)+;"),
        lark("start: sum\nsum: NUMBER | \"(\" sum \" + \" sum \")\"\nNUMBER: /[0-9]{1,3}/"),
        lark("start: \"call \" <|im_start|> /[a-z]{1,5}/ <|im_start|> \"!\""),
    ]
}

/// xorshift64, so that a failure comes again.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % n
    }
}

/// Returns the tokens that `constraint` lets come next.
fn allowed(constraint: &mut dyn Constraint) -> Vec<TokenId> {
    let mut logits = vec![0.0; tokenizer().n_vocab()];
    constraint.mask(&mut logits).expect("a mask");
    (0..).zip(logits).filter(|(_, logit)| *logit == 0.0).map(|(id, _)| TokenId(id)).collect()
}

/// Walks through a grammar at random; `visit` sees the constraint, what may come next, and what was chosen before.
fn walk(
    spec: &GrammarSpec,
    seed: u64,
    mut visit: impl FnMut(&mut dyn Constraint, &[TokenId], &[TokenId]),
) -> Vec<TokenId> {
    let mut random = Random(seed);
    let mut grammar = compile(spec).expect("a grammar");
    let mut tokens = Vec::new();
    while !grammar.is_complete() && tokens.len() < 60 {
        let allowed = allowed(&mut grammar);
        visit(&mut grammar, &allowed, &tokens);
        let token = allowed[random.below(allowed.len())];
        if tokenizer().specials().is_end(token) && grammar.may_end() {
            break;
        }
        grammar.advance(token).expect("an allowed token");
        tokens.push(token);
    }
    tokens
}

#[test]
fn a_cheap_check_says_what_the_mask_says_of_every_token() {
    for (seed, spec) in (1..).zip(specs()) {
        walk(&spec, seed, |grammar, allowed, tokens| {
            if tokens.len() > 12 {
                return;
            }
            for id in (0..tokenizer().n_vocab() as u32 + 2).map(TokenId) {
                let is_allowed = allowed.binary_search(&id).is_ok();
                assert_eq!(grammar.allows(id), is_allowed, "{id:?} after {tokens:?} in {spec:?}");
            }
        });
    }
}

#[test]
fn forced_tokens_are_the_ones_a_mask_leaves_cut_as_the_tokenizer_cuts() {
    let mut n_forced = 0;
    for (seed, spec) in (1..).zip(specs()) {
        walk(&spec, seed, |grammar, allowed, tokens| {
            let forced = grammar.forced(16);
            n_forced += forced.len();
            if let Some(first) = forced.first() {
                assert_eq!(allowed, [*first], "after {tokens:?} in {spec:?}");
                assert_eq!(grammar.n_allowed(&forced), forced.len());
                for token in &forced {
                    assert!(grammar.allows(*token), "{token:?} of {forced:?}");
                    grammar.advance(*token).expect("a forced token");
                }
                grammar.truncate(tokens.len()).expect("a grammar that goes back");
            }
        });
    }
    assert!(n_forced > 50, "{n_forced} tokens were forced");
    let mut grammar = compile(&regex("const MAXIMUM_LENGTH: usize = [0-9]+;")).expect("a grammar");
    let forced = grammar.forced(usize::MAX);
    let whole = tokenizer().encode("const MAXIMUM_LENGTH: usize = ");
    assert!(forced.len() > 5 && whole.starts_with(&forced), "{forced:?} of {whole:?}");
}

#[test]
fn a_grammar_that_went_back_is_where_it_was() {
    for (seed, spec) in (1..).zip(specs()) {
        let mut seen: Vec<Vec<TokenId>> = Vec::new();
        let tokens = walk(&spec, seed, |_, allowed, _| seen.push(allowed.to_vec()));
        let mut grammar = compile(&spec).expect("a grammar");
        let mut random = Random(seed);
        let mut n_tokens = 0;
        for _ in 0..20 {
            while n_tokens < tokens.len() && random.below(4) > 0 {
                grammar.advance(tokens[n_tokens]).expect("a token of the walk");
                n_tokens += 1;
            }
            n_tokens = random.below(n_tokens + 1);
            grammar.truncate(n_tokens).expect("a grammar that goes back");
            if let Some(expected) = seen.get(n_tokens) {
                assert_eq!(allowed(&mut grammar), *expected, "{n_tokens} tokens of {spec:?}");
            }
        }
    }
}

#[test]
fn a_grammar_that_went_back_and_took_another_way_forgets_the_first() {
    let mut grammar = compile(&lark("start: \"a\" X \"1\" | \"b\" X \"2\"\nX: /x+/")).expect("a grammar");
    let id = |text: &str| tokenizer().encode(text)[0];
    let mut check = |way: &str, may_come: &str, may_not: &str| {
        for letter in [way, "x"] {
            grammar.advance(id(letter)).expect("an allowed token");
        }
        let allowed = allowed(&mut grammar);
        assert!(allowed.contains(&id(may_come)) && !allowed.contains(&id(may_not)), "after {way}x");
        grammar.truncate(0).expect("a grammar that goes back");
    };
    check("a", "1", "2");
    check("b", "2", "1");
}

#[test]
fn what_comes_after_forced_tokens_is_looked_at_and_gone_back_from() {
    let mut grammar = compile(&regex("return [0-9]{2};")).expect("a grammar");
    let forced = grammar.forced(16);
    let number = tokenizer().encode("42;");
    assert!(!forced.is_empty());
    assert_eq!(grammar.n_allowed_after(&forced, &number), number.len());
    assert_eq!(grammar.n_allowed_after(&forced, &tokenizer().encode("4x")), 1);
    assert_eq!(grammar.n_allowed_after(&[], &number), 0);
    assert_eq!(grammar.forced(16), forced);
    let mut no_way_back =
        compile(&lark("start: \"return \" number\nnumber[max_tokens=3]: /[0-9]+/")).expect("a grammar");
    let forced = no_way_back.forced(16);
    assert_eq!(no_way_back.n_allowed_after(&forced, &number), 0);
    assert_eq!(allowed(&mut no_way_back), forced[..1]);
}

#[test]
fn i_3_a_special_token_is_no_part_of_text_and_an_end_comes_where_the_grammar_may_end() {
    let check = |spec: GrammarSpec| {
        for seed in 1..6 {
            walk(&spec, seed, |grammar, allowed, tokens| {
                let may_end = grammar.may_end();
                for &token in allowed.iter().filter(|&&token| tokenizer().is_special(token)) {
                    let is_end = tokenizer().specials().is_end(token);
                    assert!(is_end && may_end, "{token:?} after {tokens:?} in {spec:?}");
                }
                let ends = &tokenizer().specials().end_of_generation;
                let n_ends = ends.iter().filter(|end| allowed.contains(end)).count();
                assert_eq!(n_ends, if may_end { ends.len() } else { 0 }, "after {tokens:?} in {spec:?}");
            });
        }
    };
    check(GrammarSpec::JsonSchema(json!({ "type": "string" })));
    check(GrammarSpec::JsonSchema(json!({ "enum": ["<|im_start|>user", "<|im_end|>", "<|endoftext|>"] })));
    check(GrammarSpec::JsonObject);
    check(regex(r"(?s).*"));
    check(regex(r"<\|im_start\|>[a-z]{1,3}<\|im_end\|>"));
    check(lark("start: \"<|im_start|>\" /(?s).{1,5}/"));
    // A program may name one in Lark.
    let named = tokenizer().special("<|im_start|>").expect("the model's");
    let mut grammar = compile(&lark("start: <|im_start|> /[a-z]+/")).expect("a grammar");
    assert_eq!(allowed(&mut grammar), [named]);
    let invalid = lark("%llguidance { \"allow_invalid_utf8\": true }\nstart: /(?s-u:.)+/");
    assert!(matches!(compile(&invalid).err(), Some(GrammarError::Unsupported(_))));
}

#[test]
fn a_grammar_that_is_done_lets_only_ends_come() {
    let mut grammar = compile(&regex("ab")).expect("a grammar");
    assert!(!grammar.may_end());
    for token in tokenizer().encode("ab") {
        assert!(!grammar.is_complete());
        grammar.advance(token).expect("an allowed token");
    }
    assert!(grammar.is_complete() && grammar.may_end());
    assert_eq!(allowed(&mut grammar), tokenizer().specials().end_of_generation);
    assert!(grammar.forced(4).is_empty());
    assert!(!grammar.allows(tokenizer().encode("a")[0]));
    grammar.truncate(0).expect("a grammar that goes back");
    assert!(!grammar.is_complete());
    assert!(matches!(grammar.advance(tokenizer().encode("z")[0]), Err(GrammarError::Failed(_))));
}

#[test]
fn a_healed_answer_begins_with_what_is_owed_and_the_grammar_follows() {
    let check = |owed: &str, spec: GrammarSpec, fits: &dyn Fn(&str) -> bool| {
        for seed in 1..12 {
            let grammar = compile(&spec).expect("a grammar");
            let mut both =
                constraint(tokenizer(), owed.as_bytes().to_vec(), Some(grammar)).expect("a constraint");
            let mut random = Random(seed);
            let mut seen = Vec::new();
            let mut tokens = Vec::new();
            while !both.is_complete() && tokens.len() < 80 {
                let allowed = allowed(&mut *both);
                seen.push(allowed.clone());
                let token = allowed[random.below(allowed.len())];
                if tokenizer().specials().is_end(token) {
                    break;
                }
                both.advance(token).expect("an allowed token");
                tokens.push(token);
            }
            let text = String::from_utf8(tokenizer().decode(&tokens)).expect("text");
            let answer = text.strip_prefix(owed).expect("the bytes owed");
            assert!(fits(answer), "{answer:?} after {owed:?}");
            for n_tokens in (0..seen.len().min(tokens.len())).rev() {
                both.truncate(n_tokens).expect("a constraint that goes back");
                assert_eq!(allowed(&mut *both), seen[n_tokens], "{n_tokens} tokens of {text:?}");
            }
        }
    };
    let is_number = |text: &str| text.len() == 4 && text.bytes().all(|byte| byte.is_ascii_digit());
    check("year = ", regex("[0-9]{4}"), &is_number);
    check("é🦀", regex("[0-9]{4}"), &is_number);
    // " ret" and "urn" are tokens, and so is " return": one of them pays what is owed and begins the grammar.
    check(" ret", regex("urn [ab];"), &|text| ["urn a;", "urn b;"].contains(&text));
    check("x = {", GrammarSpec::JsonSchema(json!({ "enum": [1, "a"] })), &|text| {
        ["1", "\"a\""].contains(&text)
    });
    let mut both =
        constraint(tokenizer(), b" ret".to_vec(), compile(&regex("urn None;\n")).ok()).expect("both");
    let whole = tokenizer().encode(" return")[0];
    assert!(allowed(&mut *both).contains(&whole));
    both.advance(whole).expect("an allowed token");
    assert_eq!(both.forced(1), tokenizer().encode(" None"), "the grammar has had \"urn\"");
}

#[test]
fn what_is_wrong_with_a_grammar_is_said() {
    let check = |spec: GrammarSpec, expected: fn(String) -> GrammarError, words: &str| {
        let error = compile(&spec).err().unwrap_or_else(|| panic!("{spec:?} compiles"));
        let message = error.to_string();
        assert_eq!(
            std::mem::discriminant(&error),
            std::mem::discriminant(&expected(String::new())),
            "{error:?}"
        );
        assert!(message.contains(words) && !message.contains('\n'), "{message:?} has no {words:?}");
        assert!(error.hint().is_some());
    };
    let schema = GrammarSpec::JsonSchema;
    check(regex("(a"), GrammarError::Syntax, "unclosed group");
    check(lark("start: foo"), GrammarError::Syntax, "unknown name: \"foo\"");
    check(lark("begin: \"a\""), GrammarError::Syntax, "start");
    check(schema(json!(7)), GrammarError::Syntax, "a schema is an object");
    check(schema(json!({ "type": "frob" })), GrammarError::Syntax, "Invalid type: frob");
    check(schema(json!({ "$ref": "#/nope" })), GrammarError::Syntax, "'nope' not found");
    check(schema(json!({ "type": "string", "pattern": "(a" })), GrammarError::Syntax, "unclosed group");
    check(schema(json!({ "not": {} })), GrammarError::Unsupported, "\"not\"");
    check(
        schema(json!({ "type": "array", "uniqueItems": true })),
        GrammarError::Unsupported,
        "\"uniqueItems\"",
    );
    check(schema(json!({ "format": "frob" })), GrammarError::Unsupported, "frob");
    check(schema(json!({ "$ref": "schema.json#/a" })), GrammarError::Unsupported, "schema.json");
    let overlapping = json!({ "oneOf": [{ "type": "integer" }, { "type": "number" }] });
    check(schema(overlapping), GrammarError::Unsupported, "oneOf");
    let backwards = json!({ "type": "integer", "minimum": 5, "maximum": 3 });
    check(schema(backwards), GrammarError::Unsatisfiable, "minimum (5) is greater than maximum (3)");
    check(schema(json!({ "enum": [] })), GrammarError::Unsatisfiable, "empty");
}

#[test]
fn a_grammar_that_costs_too_much_is_refused_or_followed_within_a_second() {
    let check = |spec: GrammarSpec, is_refused: bool| {
        let started = Instant::now();
        let result = compile(&spec).and_then(|mut grammar| {
            grammar.forced(16);
            grammar.mask(&mut vec![0.0; tokenizer().n_vocab()])
        });
        let elapsed = started.elapsed();
        let mut name = format!("{spec:?}");
        name.truncate(60);
        println!("{elapsed:?} {result:?} {name}");
        let refused = matches!(result, Err(GrammarError::TooExpensive(_)));
        assert_eq!(refused, is_refused, "{result:?} of {name}");
        assert!(elapsed < Duration::from_secs(1), "{elapsed:?} for {name}");
    };
    let deep = |n| "(".repeat(n) + "a" + &")".repeat(n);
    let mut nested = json!({ "type": "integer" });
    for _ in 0..200 {
        nested = json!({ "items": nested });
    }
    let crossed: Vec<_> = (0..12)
        .map(|row| (0..8).map(|n| json!({ "properties": { format!("p{row}_{n}"): {} } })).collect::<Vec<_>>())
        .map(|alternatives| json!({ "anyOf": alternatives }))
        .collect();
    // On the smallest stack a thread gets.
    std::thread::scope(|scope| {
        let run = || {
            check(regex("a{1000000000}"), true);
            check(regex("((a{100}b){100}){100}"), true);
            check(lark("start: A\nA: B{1000}\nB: C{1000}\nC: \"ab\""), true);
            let many = "(a{1000}){1000}";
            check(GrammarSpec::JsonSchema(json!({ "items": { "type": "string", "pattern": many } })), true);
            check(GrammarSpec::JsonSchema(json!({ "patternProperties": { many: {} } })), true);
            check(lark(&format!("start: %json {{\"type\": \"string\", \"pattern\": \"{many}\"}}")), true);
            check(regex(&deep(100_000)), true);
            check(lark(&format!("start: {}", deep(100_000))), true);
            check(regex(&"a".repeat(300_000)), true);
            check(GrammarSpec::JsonSchema(nested), true);
            check(GrammarSpec::JsonSchema(json!({ "allOf": crossed })), true);
            check(regex("x{0,1000000000}"), false);
            check(regex(r"(\d{4}-\d{2}-\d{2}T[0-9:]{8}\n){100}"), false);
            check(regex("(a|b|ab){1,500}c"), false);
            check(regex("(?s).*a.{30}"), false);
            check(regex(r"\p{L}{1,5000}"), false);
            check(lark("start: \"a\"{1000}"), false);
            check(lark("start: start start | \"a\""), false);
            check(GrammarSpec::JsonSchema(json!({ "maxLength": 1_000_000_000 })), false);
            check(GrammarSpec::JsonSchema(json!({ "minItems": 100_000, "items": { "const": "x" } })), false);
        };
        let thread = std::thread::Builder::new().name("small stack".into()).stack_size(2 << 20);
        thread.spawn_scoped(scope, run).expect("a thread").join().expect("no panic");
    });
}

#[test]
fn a_fault_in_a_schema_is_told_with_its_place() {
    let check = |schema: serde_json::Value, place: &str| {
        let error = compile(&GrammarSpec::JsonSchema(schema)).err().expect("it is refused");
        let told = error.to_string();
        let found = told.split_once(", at `").map_or("", |(_, rest)| rest.trim_end_matches('`'));
        assert_eq!(found, place, "{told}");
    };
    let wrong = || json!({ "type": "strin" });
    check(json!({ "properties": { "ok": {}, "a/b": { "items": wrong() } } }), "/properties/a~1b/items");
    check(json!({ "anyOf": [{ "type": "null" }, wrong()] }), "/anyOf/1");
    check(json!({ "properties": { "a": { "not": {} } } }), "/properties/a");
    let used = json!({ "properties": { "ok": {}, "a": { "$ref": "#/$defs/x" } }, "$defs": { "x": wrong() } });
    check(used, "/properties/a");
    check(wrong(), "");
    // What is wrong with another part is not to blame.
    let none = json!({ "type": "integer", "minimum": 3, "maximum": 2 });
    let two = json!({ "properties": { "a": none, "b": wrong() }, "required": ["b"] });
    check(two, "/properties/b");
}

#[test]
fn pieces_of_sentencepiece_and_single_bytes_make_what_a_grammar_wants() {
    let file = include_bytes!("../../../../tests/fixtures/sentencepiece.gguf");
    let gguf = Gguf::from_bytes(file.to_vec()).expect("a valid file");
    let tokenizer = Arc::new(Tokenizer::from_gguf(&gguf).expect("a valid vocabulary"));
    let vocabulary = GrammarVocabulary::new(Arc::clone(&tokenizer));
    let schema = json!({
        "type": "object",
        "properties": { "kind": { "enum": ["a b", "日本"] }, "text": { "type": "string", "maxLength": 9 } },
        "required": ["kind", "text"],
        "additionalProperties": false,
    });
    for seed in 1..40 {
        let mut random = Random(seed);
        let mut grammar = vocabulary.compile(&GrammarSpec::JsonSchema(schema.clone())).expect("a grammar");
        let mut tokens = Vec::new();
        while !grammar.is_complete() {
            let mut logits = vec![0.0; tokenizer.n_vocab()];
            grammar.mask(&mut logits).expect("a mask");
            let allowed: Vec<usize> = (0..logits.len()).filter(|&id| logits[id] == 0.0).collect();
            let token = TokenId(allowed[random.below(allowed.len())] as u32);
            if tokenizer.specials().is_end(token) {
                break;
            }
            grammar.advance(token).expect("an allowed token");
            tokens.push(token);
        }
        let text = String::from_utf8(tokenizer.decode(&tokens)).expect("UTF-8");
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert!(["a b", "日本"].contains(&value["kind"].as_str().unwrap_or_default()), "{text}");
    }
}

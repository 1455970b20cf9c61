//! Answers that follow a grammar, whatever the model would rather say.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use engine::{
    CancelToken, DraftExtent, Engine, Error, GenerateRequest, Generation, GrammarError, GrammarSpec,
    Sampling, ScoreRequest, StopReason, TokenId,
};
use serde_json::{Value, json};

use crate::{engine, greedy};

/// Samples of the schema test: as many as the acceptance line says where they are fast.
const N_SAMPLES: u64 = if cfg!(debug_assertions) { 40 } else { 500 };

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "title": { "type": "string", "minLength": 1, "maxLength": 24 },
            "severity": { "enum": ["low", "high", "say \"when\""] },
            "line": { "type": "integer", "minimum": 1, "maximum": 9999 },
            "is_regression": { "type": "boolean" },
            "owner": {
                "type": "object",
                "properties": { "name": { "type": "string", "maxLength": 12 }, "id": { "type": ["integer", "null"], "minimum": -50, "maximum": 50 } },
                "required": ["name", "id"],
                "additionalProperties": false,
            },
            "tags": {
                "type": "array",
                "items": { "type": "string", "pattern": "^[a-z]{2,8}$" },
                "minItems": 1,
                "maxItems": 3,
            },
        },
        "required": ["title", "severity", "line", "owner", "tags"],
        "additionalProperties": false,
    })
}

/// Returns why `text` does not fit [`schema`].
fn misfit(text: &str) -> Option<String> {
    let value: Value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(error) => return Some(error.to_string()),
    };
    let has = |value: &Value, keys: &[&str], others: &[&str]| {
        value.as_object().is_some_and(|object| {
            keys.iter().all(|key| object.contains_key(*key))
                && object.keys().all(|key| keys.contains(&key.as_str()) || others.contains(&key.as_str()))
        })
    };
    let is_text = |value: &Value, least: usize, most: usize| {
        value.as_str().is_some_and(|text| (least..=most).contains(&text.chars().count()))
    };
    let is_tag = |tag: &Value| {
        is_text(tag, 2, 8) && tag.as_str().is_some_and(|tag| tag.bytes().all(|b| b.is_ascii_lowercase()))
    };
    let owner = &value["owner"];
    let checks = [
        ("keys", has(&value, &["title", "severity", "line", "owner", "tags"], &["is_regression"])),
        ("title", is_text(&value["title"], 1, 24)),
        ("severity", ["low", "high", "say \"when\""].iter().any(|level| value["severity"] == *level)),
        ("line", value["line"].as_u64().is_some_and(|line| (1..=9999).contains(&line))),
        ("is_regression", value.get("is_regression").is_none_or(Value::is_boolean)),
        ("owner", has(owner, &["name", "id"], &[]) && is_text(&owner["name"], 0, 12)),
        ("id", owner["id"].is_null() || owner["id"].as_i64().is_some_and(|id| (-50..=50).contains(&id))),
        (
            "tags",
            value["tags"]
                .as_array()
                .is_some_and(|tags| (1..=3).contains(&tags.len()) && tags.iter().all(is_tag)),
        ),
    ];
    checks.iter().find(|(_, fits)| !fits).map(|(what, _)| format!("{what} of {text}"))
}

fn request(prompt: &str, grammar: GrammarSpec, seed: u64) -> GenerateRequest {
    let mut request = greedy(engine().tokenizer().encode(prompt), 400);
    request.grammar = Some(grammar);
    if seed > 0 {
        request.sampling = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, seed };
    }
    request
}

fn run(engine: &Engine, request: GenerateRequest) -> Generation {
    engine.generate(request, &mut |_| true, &CancelToken::new()).unwrap()
}

const REPORT: &str = "A bug report as JSON, about a parser that hangs on line 12:\n";

#[test]
fn json_at_temperature_one_always_fits_its_schema() {
    let (mut n_tokens, mut n_kept, mut decode) = (0, 0, Duration::ZERO);
    let mut answers = std::collections::HashSet::new();
    for seed in 1..=N_SAMPLES {
        let generation = run(engine(), request(REPORT, GrammarSpec::JsonSchema(schema()), seed));
        assert_eq!(generation.stop, StopReason::EndOfGeneration, "{:?}", generation.text);
        assert_eq!(misfit(&generation.text), None, "seed {seed}");
        n_tokens += generation.tokens.len();
        n_kept += generation.n_kept;
        decode += generation.timings.decode;
        answers.insert(generation.text);
    }
    println!("{N_SAMPLES} samples, {n_tokens} tokens, {n_kept} of them forced, {decode:?}");
    assert_eq!(answers.len() as u64, N_SAMPLES, "a sample came twice");
    assert!(n_kept > 0, "no forced token was drafted");
}

#[test]
fn i_7_a_grammar_gives_the_same_answer_with_and_without_drafts() {
    let prompt = format!("{REPORT}{{\"title\": \"parser hangs\", \"severity\": \"high\", \"line\": 12}}\n");
    let specs = [
        GrammarSpec::JsonSchema(schema()),
        GrammarSpec::Regex("(parser|lexer) (hangs|stops) on line [0-9]{1,3}( again){0,3}\\.".into()),
        GrammarSpec::JsonObject,
    ];
    let mut n_kept = 0;
    for spec in specs {
        for seed in 0..4 {
            let mut request = request(&prompt, spec.clone(), seed);
            request.stop.n_max_tokens = 60;
            let drafted = run(engine(), request.clone());
            request.drafting.extent = DraftExtent::Off;
            let plain = run(engine(), request);
            assert_eq!(plain.n_drafted, 0);
            assert_eq!(
                (&plain.tokens, &plain.logprobs),
                (&drafted.tokens, &drafted.logprobs),
                "{spec:?}, {seed}"
            );
            assert_eq!((plain.stop, &plain.text), (drafted.stop, &drafted.text));
            n_kept += drafted.n_kept;
        }
    }
    assert!(n_kept > 0, "no draft was ever kept, so the test shows little");
}

/// To draw from all tokens and draw again where the grammar says no would favour what is drawn first.
#[test]
fn a_grammar_keeps_the_odds_of_what_it_allows() {
    const N_DRAWS: u64 = 400;
    let tokenizer = engine().tokenizer();
    let prompt = tokenizer.encode("Q: Is the sky blue on a clear day?\nA:");
    let tokens = [prompt.clone(), vec![prompt[0]]].concat();
    let mut score = ScoreRequest {
        tokens,
        from: prompt.len(),
        n_top: 12,
        asked: BTreeMap::new(),
        priority: engine::Priority::Background,
    };
    let top = engine().score(score.clone(), &CancelToken::new()).unwrap().unwrap().remove(0).top;
    // The likeliest, and one less likely that begins otherwise.
    let bytes = |(token, _): &(TokenId, f32)| tokenizer.token_bytes(*token).to_vec();
    let likely = bytes(&top[0]);
    let other = top[1..].iter().map(bytes).find(|other| other[1] != likely[1]).unwrap();
    let pays = |id: TokenId| {
        let bytes = tokenizer.token_bytes(id);
        !bytes.is_empty() && (likely.starts_with(bytes) || other.starts_with(bytes))
    };
    let fitting: Vec<TokenId> = (0..tokenizer.n_vocab() as u32).map(TokenId).filter(|id| pays(*id)).collect();
    score.asked.insert(prompt.len(), fitting.clone());
    let asked = engine().score(score, &CancelToken::new()).unwrap().unwrap().remove(0).asked;
    let odds: Vec<f64> = asked.iter().map(|logprob| f64::from(*logprob).exp()).collect();
    let allowed: f64 = odds.iter().sum();
    let expected = odds[fitting.iter().position(|id| *id == top[0].0).unwrap()] / allowed;
    assert!((0.15..0.85).contains(&allowed), "{allowed} of all is allowed, so the test shows little");

    let texts = [&likely, &other].map(|bytes| regex::escape(std::str::from_utf8(bytes).unwrap()));
    let spec = GrammarSpec::Regex(texts.join("|"));
    let draw = |seed: u64| {
        let mut request = request("", spec.clone(), seed);
        request.prompt = prompt.clone();
        request.stop.n_max_tokens = 1;
        run(engine(), request).tokens[0] == top[0].0
    };
    let got = (1..=N_DRAWS).filter(|seed| draw(*seed)).count() as f64 / N_DRAWS as f64;
    let sigma = (expected * (1.0 - expected) / N_DRAWS as f64).sqrt();
    println!("{expected} expected, got {got}; {allowed} of all is allowed; sigma {sigma}");
    assert!((got - expected).abs() < 4.0 * sigma, "{expected} expected, got {got}");
}

#[test]
fn a_regex_and_a_lark_grammar_are_followed_to_their_end() {
    let check = |spec: GrammarSpec, fits: &dyn Fn(&str) -> bool| {
        for seed in 0..6 {
            let generation = run(engine(), request("The date is ", spec.clone(), seed));
            assert_eq!(generation.stop, StopReason::EndOfGeneration);
            assert!(fits(&generation.text), "{:?} for {spec:?}", generation.text);
        }
    };
    let date = regex::Regex::new(r"^\d{4}-(0[1-9]|1[0-2])-[0-3][0-9]$").unwrap();
    check(GrammarSpec::Regex(r"[0-9]{4}-(0[1-9]|1[0-2])-[0-3][0-9]".into()), &|text| date.is_match(text));
    let sum = "start: sum\nsum: NUMBER | \"(\" sum (\" + \" | \" - \") sum \")\"\nNUMBER: /[1-9][0-9]{0,2}/";
    check(GrammarSpec::Lark(format!("{sum}\n")), &|text| {
        let depth = text.bytes().try_fold(0i32, |depth, byte| match byte {
            b'(' => Some(depth + 1),
            b')' => Some(depth - 1).filter(|&depth| depth >= 0),
            b'0'..=b'9' | b' ' | b'+' | b'-' => Some(depth),
            _ => None,
        });
        depth == Some(0) && text.bytes().any(|byte| byte.is_ascii_digit())
    });
}

#[test]
fn a_complete_answer_ends_also_where_its_tokens_run_out() {
    let spec = GrammarSpec::Regex("yes|no".into());
    let mut asked = request("Is it so? ", spec.clone(), 0);
    asked.stop.n_max_tokens = run(engine(), asked.clone()).tokens.len();
    assert_eq!(run(engine(), asked.clone()).stop, StopReason::EndOfGeneration);
    asked.grammar = Some(GrammarSpec::Regex("[a-z]{300}".into()));
    assert_eq!(run(engine(), asked).stop, StopReason::MaxTokens);
}

#[test]
fn the_grammar_begins_after_the_healed_bytes() {
    let engine = engine();
    for seed in 0..6 {
        let mut prompt = engine.tokenizer().encode("def is_empty(items) -> bool:\n    retur");
        let healed = engine.tokenizer().decode(&prompt.split_off(prompt.len() - 2));
        let mut request = request("", GrammarSpec::Regex("n (not items|len\\(items\\) == 0)\n".into()), seed);
        request.prompt = prompt;
        request.healed = healed.clone();
        let generation = run(engine, request);
        assert_eq!(generation.stop, StopReason::EndOfGeneration);
        assert!(
            ["n not items\n", "n len(items) == 0\n"].contains(&generation.text.as_str()),
            "{generation:?}"
        );
        let whole = engine.tokenizer().decode(&generation.tokens);
        assert_eq!(whole, [healed.as_slice(), generation.text.as_bytes()].concat());
        let word = engine.tokenizer().encode(" return")[0];
        assert_eq!(generation.tokens[0], word, "one token pays what is owed and begins the grammar");
    }
}

#[test]
fn i_3_the_name_of_a_special_token_in_a_json_string_is_text() {
    let name = "<|im_end|>";
    let spec = GrammarSpec::JsonSchema(json!({ "enum": [format!("a{name}b<|im_start|>")] }));
    let generation = run(engine(), request("Say it: ", spec, 1));
    assert_eq!(generation.text, format!("\"a{name}b<|im_start|>\""));
    assert!(generation.tokens.iter().all(|&token| !engine().tokenizer().is_special(token)));
}

#[test]
fn a_special_token_stands_in_the_text_only_where_it_is_to_be_shown() {
    let tokenizer = engine().tokenizer();
    let special = tokenizer.special("<|im_start|>").unwrap();
    let mut asked = request("Say it: ", GrammarSpec::Lark("start: \"a\" <|im_start|> \"b\"".into()), 0);
    let mut say = |shown: Vec<TokenId>| {
        asked.shown = shown;
        let mut heard = String::new();
        let mut on_text = |text: &str| {
            heard.push_str(text);
            true
        };
        let generation = engine().generate(asked.clone(), &mut on_text, &CancelToken::new()).unwrap();
        assert_eq!(generation.text, heard);
        assert!(generation.tokens.contains(&special));
        heard
    };
    assert_eq!(say(Vec::new()), "ab");
    assert_eq!(say(vec![special]), "a<|im_start|>b");
    assert_eq!(say(vec![TokenId(special.0 + 1)]), "ab");
}

#[test]
fn a_grammar_that_cannot_be_used_is_an_error_with_a_hint() {
    let check = |spec: GrammarSpec, is_expected: fn(&GrammarError) -> bool| {
        let started = Instant::now();
        let request = request("x", spec, 0);
        let error = engine().generate(request, &mut |_| true, &CancelToken::new()).unwrap_err();
        assert!(error.hint().is_some() && started.elapsed() < Duration::from_secs(5), "{error:?}");
        assert!(matches!(&error, Error::Grammar(error) if is_expected(error)), "{error:?}");
    };
    check(GrammarSpec::Regex("(".into()), |error| matches!(error, GrammarError::Syntax(_)));
    check(GrammarSpec::Regex("a{9999999}".into()), |error| matches!(error, GrammarError::TooExpensive(_)));
    check(GrammarSpec::JsonSchema(json!({ "not": {} })), |error| {
        matches!(error, GrammarError::Unsupported(_))
    });
    check(GrammarSpec::JsonSchema(json!({ "enum": [] })), |error| {
        matches!(error, GrammarError::Unsatisfiable(_))
    });
    // SmolLM2's vocabulary has no token for U+0004.
    check(GrammarSpec::Regex("a\u{4}b".into()), |error| matches!(error, GrammarError::DeadEnd));
}

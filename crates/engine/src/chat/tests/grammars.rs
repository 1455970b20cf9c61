//! Grammars of answers, as `llguidance` follows them.

use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::GrammarSpec;
use crate::constrain::{Constraint as _, GrammarVocabulary};

fn tools() -> Vec<Tool> {
    let list = json!({
        "type": "object",
        "properties": {
            "path": {"type": "string"},
            "depth": {"type": "integer"},
            "kind": {"type": "string", "enum": ["file", "dir \"x\""]},
            "by": {"$ref": "#/$defs/key"},
        },
        "required": ["path", "by"],
        "additionalProperties": false,
        "$defs": {"key": {"type": "array", "items": {"type": "string"}}},
    });
    let nothing = json!({"type": "object", "properties": {}, "additionalProperties": false});
    let tool =
        |name: &str, parameters| Tool { name: name.to_owned(), description: "d".to_owned(), parameters };
    vec![tool("list", list), tool("stop", nothing)]
}

/// A model and what its answers must be.
struct Case {
    tokenizer: Arc<Tokenizer>,
    prompt: Prompt,
    rule: AnswerRule,
}

impl Case {
    /// Returns one of a model whose special tokens are `names`; they are told from text in answers.
    fn new(tools: Option<ToolFormat>, names: &[&str], calls: CallRule) -> Self {
        let prompt = Prompt {
            tokens: Vec::new(),
            starts_in_reasoning: false,
            adds_blank: false,
            stop_texts: Vec::new(),
            shown: Vec::new(),
            format: ChatFormat { tools, reasoning: None },
            n_calls: 0,
        };
        let names = [&["<s>", "</s>"], names].concat();
        Self { tokenizer: Arc::new(vocabulary(&names)), prompt, rule: AnswerRule { calls, content: None } }
    }

    fn thinking(mut self, starts_in_reasoning: bool) -> Self {
        self.prompt.format.reasoning = Some(super::super::format::THINK);
        self.prompt.starts_in_reasoning = starts_in_reasoning;
        self
    }

    fn saying(mut self, content: GrammarSpec) -> Self {
        self.rule.content = Some(content);
        self
    }

    /// Asserts which answers the grammar takes as they are, and which not.
    #[track_caller]
    fn check(&self, taken: &[&str], refused: &[&str]) {
        let spec = answer_grammar(&self.prompt, &tools(), &self.rule, &self.tokenizer).expect("a grammar");
        let vocabulary = GrammarVocabulary::new(Arc::clone(&self.tokenizer));
        for (text, is_taken) in taken.iter().map(|t| (t, true)).chain(refused.iter().map(|t| (t, false))) {
            let mut grammar = vocabulary.compile(&spec).unwrap_or_else(|error| panic!("{error} in {spec:?}"));
            let is_whole = self.tokens(text).into_iter().all(|token| {
                let is_allowed = grammar.allows(token);
                is_allowed && grammar.advance(token).is_ok()
            });
            assert_eq!(is_whole && grammar.may_end(), is_taken, "{text:?} in {spec:?}");
        }
    }

    fn tokens(&self, mut text: &str) -> Vec<TokenId> {
        let mut tokens = Vec::new();
        while let Some((range, token)) = self.tokenizer.find_special(text) {
            tokens.extend(self.tokenizer.encode(&text[..range.start]));
            tokens.push(token);
            text = &text[range.end..];
        }
        tokens.extend(self.tokenizer.encode(text));
        tokens
    }
}

const MARKERS: [&str; 8] = [
    "<tool_call>",
    "</tool_call>",
    "[TOOL_CALLS]",
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁sep｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁calls▁end｜>",
];

/// Checks a format whose markers are special tokens, and the same one where they are text.
fn check_format(format: ToolFormat, list: &str, stop: &str, wrong: &[&str], both: &str) {
    for names in [&MARKERS[..], &[]] {
        let case = |calls| Case::new(Some(format), names, calls);
        let wrong: Vec<&str> = wrong.iter().copied().chain(["", "hello"]).collect();
        case(CallRule::Must(CallCount::Many)).check(&[list, stop, both], &wrong);
        let one = [&wrong[..], &[both]].concat();
        case(CallRule::Must(CallCount::One)).check(&[list, stop], &one);

        let said = |call: &str| format!("Let me see.\n{call}");
        let (said_list, said_both) = (said(list), said(both));
        let free = ["", "hello", "a {b} <c> [d]\nü", list, both, &said_list, &said_both];
        let wrong: Vec<String> = wrong.iter().filter(|text| text.len() > 5).map(|text| said(text)).collect();
        let wrong: Vec<&str> = wrong.iter().map(String::as_str).collect();
        case(CallRule::May(CallCount::Many)).check(&free, &wrong);
        let more = [&wrong[..], &[both, &said_both]].concat();
        case(CallRule::May(CallCount::One)).check(&["hello", list, &said_list], &more);
    }
}

#[test]
fn each_format_takes_calls_of_the_tools_on_offer_and_text_before_them_where_it_is_free() {
    let list = r#"<tool_call>
{"name": "list", "arguments": {"path": "src", "depth": 2, "kind": "dir \"x\"", "by": ["a", "b"]}}
</tool_call>"#;
    let stop = "<tool_call>\n{\"name\": \"stop\", \"arguments\": {}}\n</tool_call>";
    let (unknown, missing) = (list.replace("list", "lost"), list.replace("\"path\": \"src\", ", ""));
    let (text, no_list) = (list.replace('2', "\"2\""), list.replace("[\"a\", \"b\"]", "\"a\""));
    let wrong: [&str; 5] = [&unknown, &missing, &text, &no_list, &list[..list.len() - 3]];
    check_format(ToolFormat::Hermes, list, stop, &wrong, &format!("{list}\n{stop}"));

    let list = r#"[TOOL_CALLS][{"name": "list", "arguments": {"path": "src", "by": []}, "id": "abc123XYZ"}]"#;
    let stop = r#"[TOOL_CALLS][{"name": "stop", "arguments": {}, "id": "abc123XYZ"}]"#;
    let both = format!("{}, {}", &list[..list.len() - 1], &stop["[TOOL_CALLS][".len()..]);
    let wrong = [&list.replace("list", "lost"), &list.replace("XYZ", "XY"), &list.replace("src\"", "src")];
    check_format(ToolFormat::Mistral, list, stop, &wrong.map(|text| &text[..]), &both);

    let call = |name: &str, arguments: &str| {
        format!(
            "<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n{arguments}\n```<｜tool▁call▁end｜>"
        )
    };
    let all = |calls: &str| format!("<｜tool▁calls▁begin｜>{calls}<｜tool▁calls▁end｜>");
    let (list, stop) = (call("list", r#"{"path": "src", "by": ["a"]}"#), call("stop", "{}"));
    let wrong = [all(&list.replace("list", "lost")), all(&call("stop", "{\"a\": 1}")), all("")];
    let both = all(&format!("{list}\n{stop}"));
    check_format(ToolFormat::DeepSeek, &all(&list), &all(&stop), &wrong.each_ref().map(|t| &t[..]), &both);

    let list = "<tool_call>\n<function=list>\n<parameter=path>\na <b>\n\n</parameter>\n<parameter=depth>\n2\n\
                </parameter>\n<parameter=kind>\ndir \"x\"\n</parameter>\n<parameter=by>\n[\"a\"]\n</parameter>\n\
                </function>\n</tool_call>";
    let stop = "<tool_call>\n<function=stop>\n</function>\n</tool_call>";
    let wrong =
        [&list.replace("=list", "=lost"), &list.replace("\n2\n", "\ntwo\n"), &list.replace("=by", "=bi")];
    check_format(ToolFormat::QwenXml, list, stop, &wrong.map(|text| &text[..]), &format!("{list}\n{stop}"));
}

#[test]
fn llamas_calls_are_objects_and_nothing_tells_them_from_text_before() {
    let list = r#"{"name": "list", "parameters": {"path": "src", "by": []}}"#;
    let case = |rule| Case::new(Some(ToolFormat::Llama3), &[], rule);
    let wrong = [&list.replace("list", "lost"), "hello", ""];
    case(CallRule::Must(CallCount::Many)).check(&[list], &wrong);
    let free = case(CallRule::May(CallCount::Many));
    assert_eq!(answer_grammar(&free.prompt, &tools(), &free.rule, &free.tokenizer), None);
}

#[test]
fn a_model_may_think_before_it_says_what_it_must() {
    let object = || GrammarSpec::JsonObject;
    let call = "<tool_call>\n{\"name\": \"stop\", \"arguments\": {}}\n</tool_call>";
    for names in [&["<think>", "</think>", "<tool_call>", "</tool_call>"][..], &[]] {
        let case = |calls| Case::new(Some(ToolFormat::Hermes), names, calls);
        // It has begun to.
        let begun = case(CallRule::Never).thinking(true).saying(object());
        begun.check(&["so </think>{}", "</think>\n\n{\"a\": [1]}"], &["{}", "so", "so </think>so"]);
        let begun = case(CallRule::Must(CallCount::One)).thinking(true);
        begun.check(&[&format!("hm\n</think>\n\n{call}")], &[call, "hm</think>hm"]);
        let begun = case(CallRule::May(CallCount::One)).thinking(true);
        begun.check(
            &[&format!("hm</think>Now {call}"), "hm</think>Now."],
            &["hm", call, "hm</think><tool_call>no"],
        );
        // It may or not.
        let free = case(CallRule::Never).thinking(false).saying(object());
        free.check(&["{}", "<think>so </think>{}"], &["so", "<think>{}"]);
        let free = case(CallRule::May(CallCount::One)).thinking(false);
        free.check(
            &[call, &format!("<think>so </think>Now {call}"), "Now."],
            &["<think>so</think><tool_call>no"],
        );
    }
}

#[test]
fn content_of_every_kind_can_stand_beside_calls() {
    let call = "<tool_call>\n{\"name\": \"stop\", \"arguments\": {}}\n</tool_call>";
    let case = |content| {
        Case::new(Some(ToolFormat::Hermes), &MARKERS, CallRule::May(CallCount::Many)).saying(content)
    };
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]});
    case(GrammarSpec::JsonSchema(schema)).check(&["{\"a\": 1}", call], &["{}", "a"]);
    case(GrammarSpec::JsonSchema(json!(true))).check(&["[1, 2]", call], &["a"]);
    case(GrammarSpec::Regex(r"a/b\/c\\+".to_owned())).check(&[r"a/b/c\\", call], &["ab", r"a/b/c"]);
    case(GrammarSpec::Regex("a\nb".to_owned())).check(&["a\nb", call], &["a", "anb"]);
    let lark = "start: calls \"!\"\ncalls: \"yes\" | \"no\"";
    case(GrammarSpec::Lark(lark.to_owned())).check(&["yes!", call], &["yes", "maybe!"]);
    let must = Case::new(Some(ToolFormat::Hermes), &MARKERS, CallRule::Must(CallCount::One));
    must.saying(GrammarSpec::JsonObject).check(&[call], &["{}"]);
}

#[test]
fn where_nothing_is_ruled_or_nothing_offered_there_is_no_grammar() {
    let offered = Case::new(Some(ToolFormat::Hermes), &[], CallRule::Never);
    assert_eq!(answer_grammar(&offered.prompt, &tools(), &offered.rule, &offered.tokenizer), None);
    let none = Case::new(None, &[], CallRule::Must(CallCount::One));
    assert_eq!(answer_grammar(&none.prompt, &[], &none.rule, &none.tokenizer), None);
    let regex = || GrammarSpec::Regex("a".to_owned());
    let plain = Case::new(None, &[], CallRule::Never).saying(regex());
    assert_eq!(answer_grammar(&plain.prompt, &[], &plain.rule, &plain.tokenizer), Some(regex()));
}

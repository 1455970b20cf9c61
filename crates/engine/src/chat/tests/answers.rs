//! Answers, in every wire format, cut anywhere.

use serde_json::json;

use super::*;

/// An answer as it was read: thoughts, words and calls, in their order.
#[derive(Debug, PartialEq, Eq, Default)]
struct Answer {
    reasoning: String,
    content: String,
    calls: Vec<(String, String)>,
}

fn tools() -> Vec<Tool> {
    let properties = json!({"path": {"type": "string"}, "n": {"type": "integer"}, "all": {"type": "boolean"}, "list": {"type": "array"}});
    let parameters = json!({"type": "object", "properties": properties});
    ["read", "f"]
        .map(|name| Tool {
            name: name.to_owned(),
            description: String::new(),
            parameters: parameters.clone(),
        })
        .to_vec()
}

fn parser(format: Option<ToolFormat>, starts_in_reasoning: bool, tokenizer: &Tokenizer) -> ChatParser {
    let format = ChatFormat { tools: format, reasoning: Some(super::super::format::THINK) };
    let prompt = Prompt {
        tokens: Vec::new(),
        starts_in_reasoning,
        adds_blank: false,
        stop_texts: Vec::new(),
        shown: format.markers().into_iter().filter_map(|name| tokenizer.special(name)).collect(),
        format,
        n_calls: 0,
    };
    ChatParser::new(&prompt, &tools())
}

#[test]
fn the_blank_that_a_vocabulary_puts_before_an_answer_is_not_said() {
    for (adds_blank, content) in [(true, "Hello you\n  x"), (false, " Hello you\n  x")] {
        let prompt = Prompt {
            tokens: Vec::new(),
            starts_in_reasoning: false,
            adds_blank,
            stop_texts: Vec::new(),
            shown: Vec::new(),
            format: ChatFormat::default(),
            n_calls: 0,
        };
        let mut parser = ChatParser::new(&prompt, &[]);
        let mut deltas: Vec<ChatDelta> =
            [" ", "Hello", " you\n  x"].into_iter().flat_map(|text| parser.push(text)).collect();
        deltas.extend(parser.finish());
        assert_eq!(joined(deltas).content, content);
    }
}

fn joined(deltas: impl IntoIterator<Item = ChatDelta>) -> Answer {
    let mut answer = Answer::default();
    for delta in deltas {
        match delta {
            ChatDelta::Reasoning(text) => answer.reasoning.push_str(&text),
            ChatDelta::Content(text) => answer.content.push_str(&text),
            ChatDelta::ToolCall(call) => answer.calls.push((call.name, call.arguments)),
        }
    }
    answer
}

/// Reads `text` whole, a character at a time, cut at random, and as tokens of which the markers are special.
#[track_caller]
fn check_all(format: Option<ToolFormat>, starts_in_reasoning: bool, text: &str) -> Answer {
    let tokenizer = vocabulary(&NAMES);
    let read = |cuts: &[&str]| {
        let mut parser = parser(format, starts_in_reasoning, &tokenizer);
        let mut deltas: Vec<ChatDelta> = cuts.iter().flat_map(|cut| parser.push(cut)).collect();
        assert!(deltas.iter().all(
            |delta| !matches!(delta, ChatDelta::Content(text) | ChatDelta::Reasoning(text) if text.is_empty())
        ));
        deltas.extend(parser.finish());
        joined(deltas)
    };
    let whole = read(&[text]);
    let chars: Vec<&str> = text.split_inclusive(|_: char| true).collect();
    assert_eq!(read(&chars), whole, "one character at a time: {text:?}");
    let mut state = 1_u64;
    for n_most in (1..20).chain([3; 30]) {
        let mut cuts = Vec::new();
        let mut rest = chars.as_slice();
        while !rest.is_empty() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (cut, after) = rest.split_at(rest.len().min(1 + (state >> 33) as usize % n_most));
            cuts.push(cut.concat());
            rest = after;
        }
        let cuts: Vec<&str> = cuts.iter().map(String::as_str).collect();
        assert_eq!(read(&cuts), whole, "{cuts:?}");
    }
    let mut by_token = parser(format, starts_in_reasoning, &tokenizer);
    let mut rest = text;
    let mut deltas = Vec::new();
    while !rest.is_empty() {
        let special = NAMES.iter().find(|name| rest.starts_with(**name) && by_token.shows(&tokenizer, name));
        let n_bytes = special.map_or(rest.chars().next().map_or(0, char::len_utf8), |name| name.len());
        let (token, after) = rest.split_at(n_bytes);
        let ids = tokenizer
            .special(token)
            .filter(|_| special.is_some())
            .map_or_else(|| tokenizer.encode(token), |id| vec![id]);
        deltas.extend(ids.into_iter().flat_map(|id| by_token.push_token(&tokenizer, id)));
        rest = after;
    }
    deltas.extend(by_token.finish());
    assert_eq!(joined(deltas), whole, "as tokens: {text:?}");
    check_nothing_lost(text, &whole);
    whole
}

/// Every letter of an answer comes back somewhere, but for markup that was understood.
#[track_caller]
fn check_nothing_lost(text: &str, answer: &Answer) {
    if answer.calls.is_empty() {
        let visible = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
        let found = visible(&answer.reasoning) + &visible(&answer.content);
        let without_tags = visible(text).replace("<think>", "").replace("</think>", "");
        assert!(found == visible(text) || found.len() >= without_tags.len(), "{text:?} became {answer:?}");
    }
}

#[track_caller]
fn check(format: ToolFormat, text: &str, content: &str, calls: &[(&str, Value)]) {
    let answer = check_all(Some(format), false, text);
    let found: Vec<(&str, Value)> = answer
        .calls
        .iter()
        .map(|(name, arguments)| (name.as_str(), serde_json::from_str(arguments).expect("JSON")))
        .collect();
    assert_eq!((answer.content.as_str(), found.as_slice()), (content, calls), "{text:?}");
    assert_eq!(answer.reasoning, "");
}

/// What `text` says is all content.
#[track_caller]
fn check_text(format: ToolFormat, text: &str) {
    check(format, text, text, &[]);
}

#[test]
fn thoughts_are_told_from_words() {
    let check = |starts_in_reasoning: bool, text: &str, reasoning: &str, content: &str| {
        for format in [None, Some(ToolFormat::Hermes), Some(ToolFormat::Llama3)] {
            let answer = check_all(format, starts_in_reasoning, text);
            assert_eq!(
                (answer.reasoning.as_str(), answer.content.as_str()),
                (reasoning, content),
                "{text:?}"
            );
        }
    };
    check(false, "<think>\na b\n</think>\n\nc\n", "a b", "c\n");
    check(true, "a b\n</think>\n\nc d", "a b", "c d");
    check(true, "\n<think>\na</think>c", "a", "c");
    check(false, " \n<think>a</think></think>c", "a", "</think>c");
    check(false, "a <think>b</think>", "", "a <think>b</think>");
    check(false, "  plain\n\n", "", "  plain\n\n");
    check(true, "never ends </thin", "never ends </thin", "");
    check(false, "<thin", "", "<thin");
    check(false, "<think></think>", "", "");
    check(true, "</think>", "", "");
    check(false, "", "", "");
    check(
        true,
        "<tool_call>{\"name\": \"f\"}</tool_call> thought</think>x",
        "<tool_call>{\"name\": \"f\"}</tool_call> thought",
        "x",
    );
}

#[test]
fn hermes_calls_are_read_and_broken_ones_are_said() {
    let one = r#"<tool_call>
{"name": "read", "arguments": {"path": "a</tool_call>\"}.rs", "n": 1}}
</tool_call>"#;
    let value = json!({"path": "a</tool_call>\"}.rs", "n": 1});
    let format = ToolFormat::Hermes;
    check(format, one, "", &[("read", value.clone())]);
    check(
        format,
        &format!("Let me see.\n\n{one}\n{one}\n"),
        "Let me see.",
        &[("read", value.clone()), ("read", value.clone())],
    );
    check(format, &format!("{one}\n\nand so on "), "and so on ", &[("read", value.clone())]);
    check(format, &one.replace("\n</tool_call>", ""), "", &[("read", value.clone())]);
    check(
        format,
        &one.replace("</tool_call>\\\"}.rs", "x\\\"}.rs").replace("</tool_call>", "</tool_ca"),
        "",
        &[("read", json!({"path": "ax\"}.rs", "n": 1}))],
    );
    check(
        format,
        r#"<tool_call>{"name": "x", "arguments": "{\"a\": 1}"}</tool_call>"#,
        "",
        &[("x", json!({"a": 1}))],
    );
    check(
        format,
        r#"<tool_call>{"name": "x"}<tool_call>{"name": "y"}</tool_call>"#,
        "",
        &[("x", json!({})), ("y", json!({}))],
    );
    check(format, &format!("<tool_call> no {one}"), "<tool_call> no", &[("read", value)]);
    for text in [
        "a <tool_call>",
        "<tool_call>{\"name\": \"read\"",
        "<tool_call>{\"name\": 1}</tool_call>",
        "<tool_call>{\"name\": \"f\", \"arguments\": [1]}</tool_call> b",
        "<tool_call>{name: 'f'}</tool_call>",
        "<tool_call>[}</tool_call>",
        "<tool_call><function=f></function></tool_call>",
        "a < b, <tool>, <tool_cal",
        "{\"name\": \"f\", \"parameters\": {}}",
    ] {
        check_text(format, text);
    }
}

#[test]
fn qwen_xml_calls_are_read_with_the_types_of_their_schemas() {
    let format = ToolFormat::QwenXml;
    let one = "<tool_call>\n<function=read>\n<parameter=path>\n1\n</parameter>\n<parameter=n>\n2\n</parameter>\n<parameter=all>\nTrue\n</parameter>\n<parameter=list>\n[1, \"a\"]\n</parameter>\n<parameter=odd>\nx y\n</parameter>\n</function>\n</tool_call>";
    let value = json!({"path": "1", "n": 2, "all": true, "list": [1, "a"], "odd": "x y"});
    check(format, one, "", &[("read", value.clone())]);
    let bare = one.trim_start_matches("<tool_call>\n");
    check(format, &format!("I will.\n{bare}"), "I will.", &[("read", value.clone())]);
    check(format, &bare.replace("\n</tool_call>", ""), "", &[("read", value)]);
    let code = "<function=f><parameter=path>\n  a\n</parameter> <parameter>\n<function=x>\n\n</parameter>\n</function>";
    check(format, code, "", &[("f", json!({"path": "  a\n</parameter> <parameter>\n<function=x>\n"}))]);
    check(format, "<function=f></function>", "", &[("f", json!({}))]);
    for text in [
        "<function=f>",
        "<function=f><parameter=a>1",
        "<function=f><parameter=a>1</parameter>",
        "<tool_call>{\"name\": \"f\"}</tool_call>",
        "<tool_call>\n<function=f> text</function>",
        "<function",
    ] {
        check_text(format, text);
    }
    check_text(format, &format!("<function={}>", "x".repeat(300)));
}

#[test]
fn deepseek_calls_are_read() {
    let format = ToolFormat::DeepSeek;
    let call = |name: &str| {
        format!(
            "<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n{{\"path\": \"```\"}}\n```<｜tool▁call▁end｜>"
        )
    };
    let value = json!({"path": "```"});
    let two = format!("So.\n<｜tool▁calls▁begin｜>{}\n{}<｜tool▁calls▁end｜>", call("read"), call("f"));
    check(format, &two, "So.", &[("read", value.clone()), ("f", value.clone())]);
    check(format, &call("f"), "", &[("f", value.clone())]);
    check(
        format,
        &two.replace("<｜tool▁calls▁end｜>", " Done."),
        "So.Done.",
        &[("read", value.clone()), ("f", value)],
    );
    for text in [
        "<｜tool▁calls▁begin｜>",
        "a<｜tool▁calls▁end｜>b",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n{}",
        "<｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n[]\n```<｜tool▁call▁end｜>",
    ] {
        check_text(format, text);
    }
}

#[test]
fn mistral_calls_are_read_with_their_ids() {
    let format = ToolFormat::Mistral;
    let text = r#"[TOOL_CALLS][{"name": "read", "arguments": {"path": "]"}, "id": "abc123def"}, {"name": "f", "arguments": {}}]"#;
    check(format, text, "", &[("read", json!({"path": "]"})), ("f", json!({}))]);
    let mut reader = parser(Some(format), false, &vocabulary(&NAMES));
    let ids: Vec<String> = reader
        .push(text)
        .into_iter()
        .filter_map(|delta| if let ChatDelta::ToolCall(call) = delta { Some(call.id) } else { None })
        .collect();
    assert_eq!(ids, ["abc123def", "call00001"]);
    for text in [
        "[TOOL_CALLS]",
        "[TOOL_CALLS] {}",
        "[TOOL_CALLS][]",
        "[TOOL_CALLS][{\"name\": \"f\"}, 1]",
        "[TOOL_",
        "[1]",
    ] {
        check_text(format, text);
    }
}

#[test]
fn llama_3_calls_are_read_and_json_that_is_none_is_said() {
    let format = ToolFormat::Llama3;
    let f = ("f", json!({"path": "x"}));
    let one = r#"{"name": "f", "parameters": {"path": "x"}}"#;
    check(format, one, "", std::slice::from_ref(&f));
    check(format, &format!(" \n{one}\n"), "", std::slice::from_ref(&f));
    check(format, &format!("{one}; {one}\n{one}"), "", &[f.clone(), f.clone(), f.clone()]);
    check(format, &format!("{{ \"type\": \"function\", {}", &one[1..]), "", std::slice::from_ref(&f));
    check(format, &format!("<|python_tag|>{one}"), "", std::slice::from_ref(&f));
    check(
        format,
        &format!("Now <|python_tag|> {}", one.replace("\"f\"", "\"unknown\"")),
        "Now",
        &[("unknown", f.1.clone())],
    );
    check(
        format,
        "<|python_tag|>search.call(query=\"a, \\\"b\\\")\", n=[1])",
        "",
        &[("search", json!({"query": "a, \"b\")", "n": [1]}))],
    );
    check(format, &format!("{one}; and"), "; and", std::slice::from_ref(&f));
    check(format, &format!("{one};"), ";", std::slice::from_ref(&f));
    check(format, &format!("{one} text {one}"), &format!("text {one}"), std::slice::from_ref(&f));
    for text in [
        "{\"name\": \"unknown\", \"parameters\": {}}",
        "{\"names\": 1}",
        "{\"key\": {",
        "{",
        "{}",
        "Call {\"name\": \"f\", \"parameters\": {}}",
        "<|python_tag|>print(1)\nprint(2)",
        "<|python_tag|>search.call(query=",
        "; x",
        "<tool_call>{\"name\": \"f\"}</tool_call>",
    ] {
        check_text(format, text);
    }
}

/// Answers glued together from parts of markup: nothing panics, hangs, or depends on the cuts.
#[test]
fn answers_of_shuffled_markup_read_the_same_however_they_are_cut() {
    let parts = [
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "\n",
        " ",
        "text",
        "{\"name\": \"f\"",
        ", \"arguments\": {}",
        ", \"parameters\": {}",
        "}",
        "{",
        "<function=f>",
        "</function>",
        "<parameter=path>",
        "</parameter>",
        "[TOOL_CALLS]",
        "[",
        "]",
        "<｜tool▁calls▁begin｜>",
        "<｜tool▁call▁begin｜>function",
        "<｜tool▁sep｜>f\n```json\n{}\n```",
        "<｜tool▁call▁end｜>",
        "<｜tool▁calls▁end｜>",
        "<|python_tag|>",
        "f.call(a=\"b\")",
        ";",
        "\"",
        "\\",
        "<",
        "é",
    ];
    let formats = [
        ToolFormat::Hermes,
        ToolFormat::QwenXml,
        ToolFormat::DeepSeek,
        ToolFormat::Mistral,
        ToolFormat::Llama3,
    ];
    let mut state = 7_u64;
    for round in 0..600 {
        let mut text = String::new();
        for _ in 0..1 + round % 14 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            text.push_str(parts[(state >> 33) as usize % parts.len()]);
        }
        check_all(Some(formats[round % formats.len()]), round % 7 == 0, &text);
    }
}

#[test]
fn text_is_shown_as_soon_as_it_can_be_no_markup() {
    let tokenizer = vocabulary(&NAMES);
    let mut parser = parser(Some(ToolFormat::Hermes), false, &tokenizer);
    let said = |text: &str| vec![ChatDelta::Content(text.to_owned())];
    assert_eq!(parser.push("Hel"), said("Hel"));
    assert_eq!(parser.push("lo <"), said("lo"));
    assert_eq!(parser.push("tool_"), []);
    assert_eq!(parser.push("box> "), said(" <tool_box>"));
    assert_eq!(parser.push("<tool_call>{\"na"), []);
    assert_eq!(parser.push("me\": \"f\"}\n"), []);
    let call = ToolCall { id: "call00000".to_owned(), name: "f".to_owned(), arguments: "{}".to_owned() };
    assert_eq!(parser.push("</tool_call>"), [ChatDelta::ToolCall(call)]);
    assert_eq!(parser.push("\n x"), said("x"));
    assert_eq!(parser.finish(), []);
}

#[test]
fn formats_are_detected_by_their_templates() {
    let check = |name: &str, tools: Option<ToolFormat>, thinks: bool| {
        let found = ChatFormat::detect(source(name));
        assert_eq!((found.tools, found.reasoning.is_some()), (tools, thinks), "{name}");
    };
    check("Qwen-Qwen2.5-7B-Instruct.jinja", Some(ToolFormat::Hermes), false);
    check("Qwen-Qwen3-0.6B.jinja", Some(ToolFormat::Hermes), true);
    check("Qwen3-Coder.jinja", Some(ToolFormat::QwenXml), false);
    check("llama-cpp-deepseek-r1.jinja", Some(ToolFormat::DeepSeek), true);
    check("tandem-deepseek-text.jinja", Some(ToolFormat::DeepSeek), true);
    check("mistralai-Mistral-Nemo-Instruct-2407.jinja", Some(ToolFormat::Mistral), false);
    check("tandem-llama-3.jinja", Some(ToolFormat::Llama3), false);
    check("microsoft-Phi-3.5-mini-instruct.jinja", None, false);
    assert_eq!(ChatFormat::detect("<tool_call>{{ name }}<arg_key>").tools, None);
    assert_eq!(ChatFormat::detect("[TOOL_CALLS]{{ name }}[ARGS]").tools, None);
}

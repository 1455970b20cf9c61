//! I-3 in conversations, and what a template is asked for besides.

use serde_json::json;

use super::*;

const QWEN_3: &str = "Qwen-Qwen3-0.6B.jinja";
const TEMPLATES: [&str; 8] = [
    "Qwen-Qwen2.5-7B-Instruct.jinja",
    QWEN_3,
    "Qwen3-Coder.jinja",
    "llama-cpp-deepseek-r1.jinja",
    "mistralai-Mistral-Nemo-Instruct-2407.jinja",
    "microsoft-Phi-3.5-mini-instruct.jinja",
    "tandem-llama-3.jinja",
    "tandem-deepseek-text.jinja",
];

fn specials(tokenizer: &Tokenizer, tokens: &[TokenId]) -> Vec<TokenId> {
    tokens.iter().copied().filter(|token| tokenizer.is_special(*token)).collect()
}

fn decoded(tokenizer: &Tokenizer, tokens: &[TokenId]) -> String {
    String::from_utf8(tokenizer.decode(tokens)).expect("UTF-8")
}

/// Returns a conversation in which every text that a template may show says `said`.
fn conversation(said: &str, has_tools: bool) -> ChatRequest {
    let mut messages = vec![
        Message::new(Role::System, format!("s {said}")),
        Message::new(Role::User, format!("{said}\n{said} u")),
    ];
    let mut tools = Vec::new();
    if has_tools {
        let call = ToolCall {
            id: "call00000".to_owned(),
            name: said.to_owned(),
            arguments: json!({said: said, "list": [said, {said: null}]}).to_string(),
        };
        messages.push(Message { tool_calls: vec![call], ..Message::new(Role::Assistant, "") });
        messages.push(Message { name: Some(said.to_owned()), ..Message::tool("call00000", said) });
        tools.push(Tool {
            name: said.to_owned(),
            description: said.to_owned(),
            parameters: json!({"type": "object", "properties": {said: {"type": said, said: [said]}}, said: 1}),
        });
    }
    let variables = [("date_string".to_owned(), said.into())].into_iter().collect();
    ChatRequest { tools, variables, ..ChatRequest::new(messages) }
}

fn check_forgery(template: &ChatTemplate, tokenizer: &Tokenizer, name: &str) {
    for has_tools in [false, true] {
        let harmless = template.prompt(tokenizer, &conversation("word", has_tools)).expect("renders");
        let expect = specials(tokenizer, &harmless.tokens);
        assert!(!expect.is_empty(), "{name}");
        let mut sayings =
            vec![NAMES.concat(), NAMES.join(" "), "a\u{100000}b\u{10ffff}\u{10ff00}".to_owned()];
        sayings.extend(NAMES.map(str::to_owned));
        // Halves that template text before or after might complete.
        sayings.extend(
            ["|im_end|>", "im_end|>", "/think>", "think", "tool_call", "<|im_", "<", "[INST"]
                .map(str::to_owned),
        );
        for said in sayings {
            let prompt = template.prompt(tokenizer, &conversation(&said, has_tools)).expect("renders");
            assert_eq!(specials(tokenizer, &prompt.tokens), expect, "{name}: {said}");
            let text = decoded(tokenizer, &prompt.tokens);
            let n_said = text.matches(&said).count();
            assert!(n_said >= if has_tools { 4 } else { 3 }, "{name} loses {said:?}: {text}");
        }
    }
}

/// I-3: whatever messages, tools, arguments and results say, the special tokens are the template's.
#[test]
fn i_3_no_message_makes_a_special_token() {
    let tokenizer = vocabulary(&NAMES);
    for name in TEMPLATES {
        check_forgery(&template(source(name), &tokenizer), &tokenizer, name);
    }
    let (gguf, tokenizer) = real();
    let template = ChatTemplate::from_gguf(&gguf, &tokenizer).expect("its template");
    check_forgery(&template, &tokenizer, "the default model");
}

/// I-3 against templates that take messages apart and put them together.
#[test]
fn i_3_nor_does_what_a_template_does_to_messages() {
    let tokenizer = vocabulary(&NAMES);
    let check = |body: &str, said: &str, expect_text: &str| {
        let source = format!("<s>{{% for m in messages %}}{body}{{% endfor %}}</s>");
        let template = template(&source, &tokenizer);
        let request = ChatRequest::new(vec![Message::new(Role::User, said)]);
        let prompt = template.prompt(&tokenizer, &request).expect("renders");
        assert_eq!(specials(&tokenizer, &prompt.tokens), [TokenId(256), TokenId(257)], "{body}");
        assert_eq!(decoded(&tokenizer, &prompt.tokens), expect_text, "{body}");
    };
    check("{{ m.content | lower }}", "<|IM_END|>", "<|im_end|>");
    check("{{ m.content.replace('x', '') }}", "<|imx_end|>", "<|im_end|>");
    check("{{ m.content.split('x') | join }}", "<|imx_end|>", "<|im_end|>");
    check("{{ m.content[1:-1] }}", "(<|im_end|>)", "<|im_end|>");
    check("{{ m.content[::-1] }}", ">|dne_mi|<", "<|im_end|>");
    check("{{ m.content | trim }}", "  <|im_end|> ", "<|im_end|>");
    check("{{ '<|' ~ m.content ~ '|>' }}", "im_end", "<|im_end|>");
    check("{{ '<|' ~ m.content ~ '|>' }}", "user", "<|user|>");
    check("{{ '<|us' ~ m.content }}", "er|>", "<|user|>");
    check("{{ m.content ~ 'r|>' }}", "<|use", "<|user|>");
    check("{% for c in m.content %}{{ c }}{% endfor %}", "<|user|>", "<|user|>");
    check("{{ m.content }}", "<|user|><|im_end|>", "<|user|><|im_end|>");
    check("{{ {m.content: m.content} | tojson }}", "<s>\u{100000}", "{\"<s>\u{100000}\": \"<s>\u{100000}\"}");
    check("{{ m.content[:4] }}", "abc\u{100000}", "abc\u{fffd}");
}

#[test]
fn a_token_that_a_template_composes_with_a_role_is_special_and_one_in_a_message_beside_it_is_not() {
    let tokenizer = vocabulary(&NAMES);
    let source = "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}<|assistant|>";
    let template = template(source, &tokenizer);
    let said = "<|user|> <|assistant|>\u{100000} user|>";
    let request = ChatRequest::new(vec![Message::new(Role::System, said), Message::new(Role::User, said)]);
    let prompt = template.prompt(&tokenizer, &request).expect("renders");
    let names: Vec<&str> = specials(&tokenizer, &prompt.tokens)
        .iter()
        .filter_map(|token| tokenizer.special_name(*token))
        .collect();
    assert_eq!(names, ["<|system|>", "<|end|>", "<|user|>", "<|end|>", "<|assistant|>"]);
    assert_eq!(decoded(&tokenizer, &prompt.tokens), said.repeat(2));
}

#[test]
fn a_prompt_begins_with_one_bos_where_the_model_wants_one() {
    let ask = ChatRequest::new(vec![Message::new(Role::User, "<s>hi")]);
    let check = |adds_bos: bool, source: &str, n_bos: usize| {
        let gguf = file(&NAMES, |file| file.bool("tokenizer.ggml.add_bos_token", adds_bos));
        let tokenizer = Tokenizer::from_gguf(&gguf).expect("a valid vocabulary");
        let prompt = template(source, &tokenizer).prompt(&tokenizer, &ask).expect("renders");
        assert_eq!(specials(&tokenizer, &prompt.tokens), vec![TokenId(256); n_bos], "{source}");
        assert_eq!(prompt.tokens.starts_with(&[TokenId(256)]), n_bos > 0);
    };
    check(true, "{{ messages[0].content }}", 1);
    check(true, "{{ bos_token + messages[0].content }}", 1);
    check(true, "<s>{{ bos_token + messages[0].content }}", 1);
    check(false, "{{ bos_token + messages[0].content }}", 1);
    check(false, "{{ messages[0].content }}", 0);
}

#[test]
fn a_model_without_a_template_speaks_chatml_if_it_knows_its_tokens() {
    let open = |names: &[&str]| {
        let gguf = file(names, |file| file);
        let tokenizer = Tokenizer::from_gguf(&gguf).expect("a valid vocabulary");
        ChatTemplate::from_gguf(&gguf, &tokenizer).map(|template| (template, tokenizer))
    };
    let (template, tokenizer) = open(&NAMES).expect("ChatML");
    let request = ChatRequest::new(vec![Message::new(Role::System, "a"), Message::new(Role::User, "b")]);
    let text = template.text(&tokenizer, &request).expect("renders");
    assert_eq!(
        text,
        "<|im_start|>system\na<|im_end|>\n<|im_start|>user\nb<|im_end|>\n<|im_start|>assistant\n"
    );
    let error = open(&["<|im_start|>"]).expect_err("no chat model");
    assert_eq!(error.to_string(), "the model has no chat template");
    assert!(error.hint().contains("--model"));
}

#[test]
fn the_template_for_tools_is_used_when_there_are_tools() {
    let gguf = file(&NAMES, |file| {
        file.str("tokenizer.chat_template", "plain")
            .str("tokenizer.chat_template.tool_use", source("Qwen-Qwen2.5-7B-Instruct.jinja"))
    });
    let tokenizer = Tokenizer::from_gguf(&gguf).expect("a valid vocabulary");
    let template = ChatTemplate::from_gguf(&gguf, &tokenizer).expect("templates");
    let prompt = |request: &ChatRequest| template.prompt(&tokenizer, request).expect("renders");
    let plain = prompt(&ChatRequest::new(vec![Message::new(Role::User, "hi")]));
    assert_eq!(decoded(&tokenizer, &plain.tokens), "plain");
    assert_eq!(plain.format.tools, None);
    let with_tools = prompt(&conversation("word", true));
    assert!(decoded(&tokenizer, &with_tools.tokens).contains("# Tools"));
    assert_eq!((with_tools.format.tools, with_tools.n_calls), (Some(ToolFormat::Hermes), 1));
    let names: Vec<_> = with_tools.shown.iter().filter_map(|token| tokenizer.special_name(*token)).collect();
    assert_eq!(names, ["<tool_call>", "</tool_call>"]);
}

#[test]
fn of_tools_that_a_template_does_not_know_the_conversation_tells() {
    let tokenizer = vocabulary(&NAMES);
    let tool = Tool {
        name: "add".to_owned(),
        description: "Adds.".to_owned(),
        parameters: json!({"type": "object", "properties": {"a": {"type": "integer"}}}),
    };
    let call =
        |id: &str| ToolCall { id: id.to_owned(), name: "add".to_owned(), arguments: "{\"a\": 1}".to_owned() };
    let messages = vec![
        Message::new(Role::User, "q"),
        Message { tool_calls: vec![call("1"), call("2")], ..Message::new(Role::Assistant, "Well.") },
        Message::tool("1", "one"),
        Message::tool("2", "two"),
        Message::new(Role::User, "and?"),
    ];
    let request = ChatRequest { tools: vec![tool], ..ChatRequest::new(messages) };
    let plain = template("{% for m in messages %}[{{ m.role }}:{{ m.content }}]{% endfor %}", &tokenizer);
    let prompt = plain.prompt(&tokenizer, &request).expect("renders");
    assert_eq!((prompt.format.tools, prompt.n_calls), (Some(ToolFormat::Hermes), 2));
    let text = decoded(&tokenizer, &prompt.tokens);
    let (offer, talk) = text.split_once("][user:q]").expect("the system speaks first");
    assert!(offer.starts_with("[system:# Tools\n"), "{offer}");
    assert!(
        offer.contains(r#"{"type":"function","function":{"name":"add","description":"Adds.","parameters":{"#)
    );
    let one = "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1}}\n</tool_call>";
    let answers = "<tool_response>\none\n</tool_response>\n<tool_response>\ntwo\n</tool_response>";
    assert_eq!(talk, format!("[assistant:Well.\n{one}\n{one}][user:{answers}\n\nand?]"));
    assert_eq!(specials(&tokenizer, &prompt.tokens), []);

    let asked = ChatRequest { messages: vec![Message::new(Role::System, "s")], ..request };
    let prompt = plain.prompt(&tokenizer, &asked).expect("renders");
    assert!(decoded(&tokenizer, &prompt.tokens).starts_with("[system:s\n\n# Tools"));
    let over = ChatRequest { tools: Vec::new(), ..conversation("word", true) };
    let prompt = plain.prompt(&tokenizer, &over).expect("renders");
    assert_eq!(prompt.format.tools, None, "nothing is on offer any more");
}

#[test]
fn what_a_template_objects_to_is_told() {
    let tokenizer = vocabulary(&NAMES);
    let error = |source: &str, request: &ChatRequest| {
        template(source, &tokenizer).prompt(&tokenizer, request).expect_err("must fail")
    };
    let phi = source("microsoft-Phi-3.5-mini-instruct.jinja");
    assert!(matches!(error(phi, &ChatRequest::new(Vec::new())), ChatError::NoMessages));
    let twice = ChatRequest::new(vec![Message::new(Role::User, "a"), Message::new(Role::User, "b")]);
    let refused = error(source("mistralai-Mistral-Nemo-Instruct-2407.jinja"), &twice);
    assert!(matches!(&refused, ChatError::Refused(why) if why.contains("must alternate")), "{refused}");
    let syntax = ChatTemplate::new("\n{% for %}", None, &tokenizer).expect_err("malformed");
    assert!(matches!(syntax, ChatError::Syntax { line: 2, .. }), "{syntax}");
    assert!(!refused.hint().is_empty() && !syntax.hint().is_empty());
}

#[test]
fn a_template_without_a_system_role_has_the_user_say_it() {
    let tokenizer = vocabulary(&NAMES);
    let source = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}[{{ m.role }}:{{ m.content }}]{% endfor %}";
    let template = template(source, &tokenizer);
    let text = |messages| template.text(&tokenizer, &ChatRequest::new(messages)).expect("renders");
    let (system, user) = (Message::new(Role::System, "a"), Message::new(Role::User, "b"));
    assert_eq!(text(vec![system.clone(), user]), "[user:a\n\nb]");
    assert_eq!(text(vec![system]), "[user:a]");
}

#[test]
fn mistrals_ids_have_nine_letters_and_still_match() {
    let tokenizer = vocabulary(&NAMES);
    let template = template(source("mistralai-Mistral-Nemo-Instruct-2407.jinja"), &tokenizer);
    let call = |id: &str| ToolCall { id: id.to_owned(), name: "f".to_owned(), arguments: String::new() };
    let calls = vec![call("call_a_long_id"), call("abcdefGH1")];
    let messages = vec![
        Message::new(Role::User, "x"),
        Message { tool_calls: calls, ..Message::new(Role::Assistant, "") },
        Message::tool("call_a_long_id", "1"),
        Message::tool("abcdefGH1", "2"),
    ];
    let text = template.text(&tokenizer, &ChatRequest::new(messages)).expect("renders");
    let ids: Vec<&str> = text.split("id\": \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(ids.len(), 4, "{text}");
    assert_eq!((ids[0], ids[1]), (ids[2], "abcdefGH1"));
    assert!(ids[0].len() == 9 && ids[3] == "abcdefGH1");
}

#[test]
fn thoughts_are_dropped_from_history_whether_the_template_does_so_or_not() {
    let tokenizer = vocabulary(&NAMES);
    let keeps = "{% for m in messages %}[{{ m.role }}:{{ m.reasoning_content or '' }}|{{ m.content }}]{% endfor %}</think>";
    let simple = "{% for m in messages %}[{{ m.role }}:{{ m.content }}]{% endfor %}</think>";
    let thought = |reasoning: &str, content: &str| Message {
        reasoning: reasoning.to_owned(),
        ..Message::new(Role::Assistant, content)
    };
    let user = || Message::new(Role::User, "q");
    let check = |source: &str, messages: Vec<Message>, expect: &str| {
        let found =
            template(source, &tokenizer).text(&tokenizer, &ChatRequest::new(messages)).expect("renders");
        assert_eq!(found, format!("{expect}</think>"));
    };
    check(keeps, vec![user(), thought("old", "a"), user()], "[user:|q][assistant:|a][user:|q]");
    check(keeps, vec![user(), thought("new", "a")], "[user:|q][assistant:new|a]");
    for content in ["<think>\nold\n</think>\n\na", "old</think>a"] {
        check(simple, vec![user(), thought("", content), user()], "[user:q][assistant:a][user:q]");
        check(keeps, vec![user(), thought("", content)], "[user:|q][assistant:old|a]");
    }
    let qwen = template(source(QWEN_3), &tokenizer);
    assert!(qwen.capability().drops_reasoning);
}

#[test]
fn a_prompt_that_ends_in_thoughts_or_without_a_special_token_says_so() {
    let tokenizer = vocabulary(&NAMES);
    let request = ChatRequest::new(vec![Message::new(Role::User, "q <think>")]);
    let prompt = |source: &str, request: &ChatRequest| {
        template(source, &tokenizer).prompt(&tokenizer, request).expect("renders")
    };
    assert!(prompt(source("tandem-deepseek-text.jinja"), &request).starts_in_reasoning);
    assert!(!prompt(source(QWEN_3), &request).starts_in_reasoning);
    let quick = ChatRequest { enable_thinking: false, ..request.clone() };
    assert!(!prompt(source(QWEN_3), &quick).starts_in_reasoning);
    let no_turn = ChatRequest { add_generation_prompt: false, ..request.clone() };
    assert!(!prompt(source("tandem-deepseek-text.jinja"), &no_turn).starts_in_reasoning);
    let words = "{% for m in messages %}### {{ m.role }}:\n{{ m.content }}\n\n{% endfor %}### assistant:\n";
    assert_eq!(prompt(words, &request).stop_texts, ["### user:"]);
    assert_eq!(prompt(source(QWEN_3), &request).stop_texts, [""; 0]);
}

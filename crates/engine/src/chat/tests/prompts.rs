//! Prompts, compared with what transformers' Jinja renders and llama.cpp tokenises.

use std::time::Duration;

use super::*;

fn fixture() -> Value {
    serde_json::from_str(include_str!("../../../../../tests/fixtures/chat.json")).expect("JSON")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn message(value: &Value) -> Message {
    let role = [Role::System, Role::User, Role::Assistant, Role::Tool]
        .into_iter()
        .find(|role| value["role"] == role.name())
        .expect("a role");
    let calls = value["tool_calls"].as_array().into_iter().flatten().map(|call| ToolCall {
        id: text(&call["id"]),
        name: text(&call["function"]["name"]),
        arguments: call["function"]["arguments"].to_string(),
    });
    Message {
        reasoning: text(&value["reasoning_content"]),
        tool_calls: calls.collect(),
        tool_call_id: value["tool_call_id"].as_str().map(str::to_owned),
        ..Message::new(role, text(&value["content"]))
    }
}

fn request(case: &Value, now: &Value) -> ChatRequest {
    let flag = |key: &str| case[key].as_bool().unwrap_or(true);
    let tools = case["tools"].as_array().into_iter().flatten().map(|tool| Tool {
        name: text(&tool["function"]["name"]),
        description: text(&tool["function"]["description"]),
        parameters: tool["function"]["parameters"].clone(),
    });
    ChatRequest {
        tools: tools.collect(),
        add_generation_prompt: flag("add_generation_prompt"),
        enable_thinking: flag("enable_thinking"),
        now: Duration::from_secs(now.as_u64().expect("seconds")),
        ..ChatRequest::new(case["messages"].as_array().expect("messages").iter().map(message).collect())
    }
}

#[test]
fn every_template_renders_what_pythons_jinja_renders() {
    let fixture = fixture();
    let tokenizer = vocabulary(&NAMES);
    for (name, cases) in fixture["templates"].as_object().expect("templates") {
        let template = template(source(name), &tokenizer);
        let capability = template.capability();
        let arguments = if capability.arguments_are_text { "text" } else { "object" };
        let content = if capability.content_is_null { "null" } else { "empty" };
        for (case_name, shapes) in cases.as_object().expect("cases") {
            let request = request(&fixture["cases"][case_name], &fixture["now"]);
            let has_calls = request.messages.iter().any(|message| !message.tool_calls.is_empty());
            let shape = if has_calls { format!("{arguments} {content}") } else { "object empty".to_owned() };
            let found = template.text(&tokenizer, &request).ok();
            let expect = shapes.get(&shape).unwrap_or(&shapes["object empty"]);
            assert_eq!(found.as_deref(), expect.as_str(), "{name}, {case_name}, {shape}");
        }
    }
}

#[test]
fn the_default_models_prompts_have_llama_cpps_tokens() {
    let (gguf, tokenizer) = real();
    let template = ChatTemplate::from_gguf(&gguf, &tokenizer).expect("its template");
    let fixture = fixture();
    let cases = fixture["default_model"].as_array().expect("cases");
    assert!(cases.len() > 4);
    for case in cases {
        let request = request(&fixture["cases"][text(&case["case"])], &fixture["now"]);
        assert_eq!(template.text(&tokenizer, &request).expect("renders"), text(&case["text"]));
        let prompt = template.prompt(&tokenizer, &request).expect("renders");
        let ids: Vec<u64> = prompt.tokens.iter().map(|token| u64::from(token.0)).collect();
        assert_eq!(Value::from(ids), case["tokens"], "{}", case["case"]);
        assert!(!prompt.starts_in_reasoning && prompt.stop_texts.is_empty() && prompt.shown.is_empty());
    }
}

//! A conversation with tools, retold for a template that knows none.
//!
//! In: messages, tools. Out: messages that say the same in text: the tools in the system's, calls in the assistant's,
//! their answers in the user's. Never: makes a special token of a tag (I-3).
//! Source: the words of Qwen 2.5's template, after Nous Research's Hermes; more models were trained on them than on others.

use serde_json::{Value, json};

use super::{ChatRequest, Message, Role, Tool, ToolCall, ToolFormat};

/// How the model is told to call.
pub(super) const FORMAT: ToolFormat = ToolFormat::Hermes;

/// Returns the same conversation without tools, calls and tools' messages.
pub(super) fn retell(request: &ChatRequest) -> ChatRequest {
    let mut messages: Vec<Message> = Vec::with_capacity(request.messages.len() + 1);
    // Templates that want turns to alternate get one turn for all that follows a call.
    let mut is_answered = false;
    for message in &request.messages {
        match (message.role, messages.last_mut()) {
            (Role::Tool, Some(last)) if is_answered => {
                last.content.push('\n');
                last.content.push_str(&answer(message));
            }
            (Role::Tool, _) => {
                messages.push(Message::new(Role::User, answer(message)));
                is_answered = true;
            }
            (Role::User, Some(last)) if is_answered => {
                last.content.push_str("\n\n");
                last.content.push_str(&message.content);
                is_answered = false;
            }
            _ => {
                let content =
                    [message.content.clone()].into_iter().chain(message.tool_calls.iter().map(call));
                let content: Vec<String> = content.filter(|part| !part.is_empty()).collect();
                messages.push(Message {
                    content: content.join("\n"),
                    tool_calls: Vec::new(),
                    ..message.clone()
                });
                is_answered = false;
            }
        }
    }
    if !request.tools.is_empty() {
        match messages.first_mut() {
            Some(system) if system.role == Role::System => {
                system.content = format!("{}\n\n{}", system.content, offer(&request.tools));
            }
            _ => messages.insert(0, Message::new(Role::System, offer(&request.tools))),
        }
    }
    ChatRequest { messages, tools: Vec::new(), ..request.clone() }
}

fn offer(tools: &[Tool]) -> String {
    let tools: Vec<String> = tools
        .iter()
        .map(|tool| {
            let function =
                json!({"name": tool.name, "description": tool.description, "parameters": tool.parameters});
            json!({"type": "function", "function": function}).to_string()
        })
        .collect();
    format!(
        "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function \
         signatures within <tools></tools> XML tags:\n<tools>\n{}\n</tools>\n\nFor each function call, return a json \
         object with function name and arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n{{\"name\": \
         <function-name>, \"arguments\": <args-json-object>}}\n</tool_call>",
        tools.join("\n")
    )
}

fn call(call: &ToolCall) -> String {
    let arguments = if call.arguments.trim().is_empty() { "{}" } else { &call.arguments };
    let name = Value::from(call.name.as_str());
    format!("<tool_call>\n{{\"name\": {name}, \"arguments\": {arguments}}}\n</tool_call>")
}

fn answer(message: &Message) -> String {
    format!("<tool_response>\n{}\n</tool_response>", message.content)
}

//! The conversation as a caller writes it.
//!
//! In: OpenAI's messages. Out: the engine's, or a refusal that names the place.
//! Source: OpenAI API reference, "Create chat completion", `messages`.

use engine::{Message, Role, ToolCall};
use serde::Deserialize;
use serde_json::Value;

use crate::http::options::or_default;
use crate::http::refusal::Refusal;

/// One message.
#[derive(Debug, Deserialize)]
pub(super) struct MessageParam {
    role: String,
    content: Option<Content>,
    name: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    tool_calls: Vec<CallParam>,
    tool_call_id: Option<String>,
    reasoning_content: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Debug, Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
}

#[derive(Debug, Deserialize)]
struct CallParam {
    id: Option<String>,
    function: Option<Function>,
}

#[derive(Debug, Deserialize)]
struct Function {
    name: String,
    /// JSON as text; some clients write it as it is.
    arguments: Option<Value>,
}

/// Returns the conversation.
pub(super) fn read(params: Vec<MessageParam>) -> Result<Vec<Message>, Refusal> {
    params.into_iter().enumerate().map(|(idx, param)| message(idx, param)).collect()
}

fn message(idx: usize, param: MessageParam) -> Result<Message, Refusal> {
    let wrong = |what: String| Refusal::of("messages", format!("`messages[{idx}].{what}"));
    let role = match param.role.as_str() {
        // The newer name of the same.
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" => Role::Tool,
        other => {
            let roles = "it is system, developer, user, assistant or tool";
            return Err(wrong(format!("role` cannot be `{other}`: {roles}")));
        }
    };
    if param.content.is_none() && role != Role::Assistant {
        return Err(wrong("content` is missing".to_owned()));
    }
    if !param.tool_calls.is_empty() && role != Role::Assistant {
        return Err(wrong("tool_calls` are an assistant's".to_owned()));
    }
    if param.tool_call_id.is_none() && role == Role::Tool {
        return Err(wrong("tool_call_id` is missing".to_owned()));
    }
    let content = match param.content {
        None => String::new(),
        Some(Content::Text(text)) => text,
        Some(Content::Parts(parts)) => {
            let texts =
                parts.into_iter().enumerate().map(|(at, part)| match (part.kind.as_str(), part.text) {
                    ("text" | "refusal", Some(text)) => Ok(text),
                    (kind, _) => {
                        Err(wrong(format!("content[{at}]` is `{kind}`: this model reads text only")))
                    }
                });
            texts.collect::<Result<Vec<_>, _>>()?.concat()
        }
    };
    let calls = param.tool_calls.into_iter().enumerate().map(|(at, call)| {
        let Some(function) = call.function else {
            return Err(wrong(format!("tool_calls[{at}]` is no call of a function")));
        };
        let arguments = match function.arguments {
            None => String::new(),
            Some(Value::String(text)) => text,
            Some(value) => value.to_string(),
        };
        Ok(ToolCall { id: call.id.unwrap_or_default(), name: function.name, arguments })
    });
    Ok(Message {
        reasoning: param.reasoning_content.unwrap_or_default(),
        tool_calls: calls.collect::<Result<_, _>>()?,
        tool_call_id: param.tool_call_id,
        name: param.name,
        ..Message::new(role, content)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_all(messages: Value) -> Result<Vec<Message>, Refusal> {
        read(serde_json::from_value(messages).expect("messages"))
    }

    #[test]
    fn a_conversation_keeps_all_that_is_text() {
        let found = read_all(json!([
            {"role": "developer", "content": "rules"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": "Eve"},
            {"role": "assistant", "content": null, "reasoning_content": "hm", "refusal": null, "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}},
                {"id": "c2", "type": "function", "function": {"name": "g", "arguments": {"x": 1}}},
            ]},
            {"role": "tool", "tool_call_id": "c1", "content": "1"},
        ]));
        let call = |id: &str, name: &str, arguments: &str| ToolCall {
            id: id.to_owned(),
            name: name.to_owned(),
            arguments: arguments.to_owned(),
        };
        let expected = vec![
            Message::new(Role::System, "rules"),
            Message { name: Some("Eve".to_owned()), ..Message::new(Role::User, "ab") },
            Message {
                reasoning: "hm".to_owned(),
                tool_calls: vec![call("c1", "f", "{\"x\": 1}"), call("c2", "g", "{\"x\":1}")],
                ..Message::new(Role::Assistant, "")
            },
            Message::tool("c1", "1"),
        ];
        assert_eq!(found.expect("a conversation"), expected);
    }

    #[test]
    fn what_is_no_text_is_refused_with_its_place() {
        let check = |message: Value, expected: &str| {
            let refusal = read_all(json!([{"role": "user", "content": "a"}, message])).expect_err("refused");
            let told = refusal.json()["error"]["message"].to_string();
            assert!(told.contains(expected), "{told}");
        };
        let image = json!({"type": "image_url", "image_url": {"url": "data:"}});
        check(json!({"role": "user", "content": [image]}), "`messages[1].content[0]` is `image_url`");
        check(json!({"role": "function", "content": "a"}), "`messages[1].role` cannot be `function`");
        check(json!({"role": "user"}), "`messages[1].content` is missing");
        check(json!({"role": "tool", "content": "a"}), "`messages[1].tool_call_id` is missing");
        let custom = json!([{"id": "c", "type": "custom", "custom": {"name": "f", "input": ""}}]);
        check(json!({"role": "assistant", "tool_calls": custom}), "`messages[1].tool_calls[0]` is no call");
        check(json!({"role": "user", "content": "a", "tool_calls": [{}]}), "`messages[1].tool_calls` are");
    }
}

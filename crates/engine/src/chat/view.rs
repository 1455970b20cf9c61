//! A conversation as values for a template: the shapes of the OpenAI API, which all templates read.
//!
//! In: messages, tools, what the template can say. Out: JSON.
//! Never: passes a text on without hiding what would be a mark in it (I-3).

use serde_json::{Map, Value};

use super::capability::Capability;
use super::{ChatFormat, Message, Role, Tool, ToolCall, ToolFormat};

/// Length of the ids that Mistral's templates take.
const N_ID: usize = 9;

/// A conversation as one template wants to see it.
pub(super) struct View<'v> {
    pub(super) format: ChatFormat,
    /// The template reads what the model thought from `reasoning_content`.
    pub(super) has_reasoning: bool,
    pub(super) capability: &'v Capability,
    /// Applied to every text that is not this program's.
    pub(super) hide: &'v dyn Fn(&str) -> String,
}

impl View<'_> {
    pub(super) fn messages(&self, messages: &[Message]) -> Vec<Value> {
        let last_user = messages.iter().rposition(|message| message.role == Role::User).unwrap_or(0);
        let mut values = Vec::with_capacity(messages.len());
        // What a template without a system role would refuse is said by the user instead.
        let mut system = String::new();
        for (idx, message) in messages.iter().enumerate() {
            let mut message = message.clone();
            if message.role == Role::System && !self.capability.has_system {
                system.push_str(&message.content);
                system.push_str("\n\n");
                continue;
            }
            if message.role == Role::User && !system.is_empty() {
                message.content = std::mem::take(&mut system) + &message.content;
            }
            self.separate_reasoning(&mut message);
            if !self.has_reasoning || (idx <= last_user && !self.capability.drops_reasoning) {
                message.reasoning.clear();
            }
            values.push(self.message(&message));
        }
        if !system.is_empty() {
            values.push(self.message(&Message::new(Role::User, system.trim_end())));
        }
        values
    }

    /// Takes thoughts that a client left in the content out of it.
    fn separate_reasoning(&self, message: &mut Message) {
        let Some(tags) = self.format.reasoning.filter(|_| message.role == Role::Assistant) else {
            return;
        };
        let Some((thought, content)) = message.content.split_once(tags.close) else {
            return;
        };
        let thought = thought.trim();
        let thought = thought.strip_prefix(tags.open).unwrap_or(thought).trim();
        if message.reasoning.is_empty() {
            message.reasoning = thought.to_owned();
        }
        message.content = content.trim_start().to_owned();
    }

    fn message(&self, message: &Message) -> Value {
        let mut value = Map::new();
        let mut put = |key: &str, content: Value| value.insert(key.to_owned(), content);
        put("role", message.role.name().into());
        let is_null =
            self.capability.content_is_null && message.content.is_empty() && !message.tool_calls.is_empty();
        put("content", if is_null { Value::Null } else { self.text(&message.content) });
        if !message.reasoning.is_empty() {
            put("reasoning_content", self.text(&message.reasoning));
        }
        if !message.tool_calls.is_empty() {
            put("tool_calls", message.tool_calls.iter().map(|call| self.call(call)).collect());
        }
        if let Some(id) = &message.tool_call_id {
            put("tool_call_id", self.id(id));
        }
        if let Some(name) = &message.name {
            put("name", self.text(name));
        }
        Value::from(value)
    }

    fn call(&self, call: &ToolCall) -> Value {
        let arguments = if call.arguments.trim().is_empty() { "{}" } else { &call.arguments };
        let object = serde_json::from_str(arguments).ok().filter(|_| !self.capability.arguments_are_text);
        let arguments = object.map_or_else(|| self.text(arguments), |object: Value| self.json(&object));
        let function = [("name".to_owned(), self.text(&call.name)), ("arguments".to_owned(), arguments)];
        let function: Map<String, Value> = function.into_iter().collect();
        let call = [
            ("id".to_owned(), self.id(&call.id)),
            ("type".to_owned(), "function".into()),
            ("function".to_owned(), function.into()),
        ];
        Value::from(Map::from_iter(call))
    }

    pub(super) fn tool(&self, tool: &Tool) -> Value {
        let function = [
            ("name".to_owned(), self.text(&tool.name)),
            ("description".to_owned(), self.text(&tool.description)),
            ("parameters".to_owned(), self.json(&tool.parameters)),
        ];
        let function: Map<String, Value> = function.into_iter().collect();
        Value::from(Map::from_iter([
            ("type".to_owned(), "function".into()),
            ("function".to_owned(), function.into()),
        ]))
    }

    /// Mistral's templates refuse ids that are not nine letters or digits; others take any.
    fn id(&self, id: &str) -> Value {
        let is_short = id.len() == N_ID && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if self.format.tools == Some(ToolFormat::Mistral) && !is_short {
            return short_id(id).into();
        }
        self.text(id)
    }

    fn text(&self, text: &str) -> Value {
        (self.hide)(text).into()
    }

    pub(super) fn json(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => self.text(text),
            Value::Array(items) => items.iter().map(|item| self.json(item)).collect(),
            Value::Object(entries) => {
                Value::from_iter(entries.iter().map(|(key, value)| ((self.hide)(key), self.json(value))))
            }
            other => other.clone(),
        }
    }
}

/// Returns nine digits for an id, the same for the same id: FNV-1a, 64 bits.
fn short_id(id: &str) -> String {
    let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{:09}", hash % 1_000_000_000)
}

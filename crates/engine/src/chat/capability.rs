//! What a template can say, found by rendering small conversations with it.
//!
//! In: a way to render. Out: [`Capability`]. Never: fails; what a template cannot render it cannot say.
//! Source: `caps_get` in llama.cpp's `common/jinja`, which asks templates in the same way.

use serde_json::json;

use super::mark::is_mark;
use super::{ChatError as Error, ChatRequest, Message, Role, Tool, ToolCall};

/// What a template can say, and how its messages must look.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Capability {
    /// It renders a system message.
    pub(super) has_system: bool,
    /// It renders the tools on offer.
    pub(super) has_tools: bool,
    /// It renders an assistant's tool calls.
    pub(super) has_calls: bool,
    /// It wants a call's arguments as text, not as an object.
    pub(super) arguments_are_text: bool,
    /// It wants a message that is only tool calls to have the content null, not empty.
    pub(super) content_is_null: bool,
    /// It leaves out what the model thought before the last question.
    pub(super) drops_reasoning: bool,
    /// The text that begins the user's next turn, if no special token ends the assistant's.
    pub(super) stop_text: Option<String>,
}

const FIRST: &str = "first needle";
const SECOND: &str = "second needle";
const THIRD: &str = "third needle";
const ARGUMENT: &str = "needle_key";

impl Capability {
    /// Asks the template through `render`, which renders a request as for a template of the given capability.
    pub(super) fn probe(render: impl Fn(&Self, ChatRequest) -> Result<String, Error>) -> Self {
        let mut capability = Self { has_system: true, ..Self::default() };
        let says = |capability: &Self, request: ChatRequest, needle: &str| {
            render(capability, request).is_ok_and(|text| text.contains(needle))
        };
        let messages = vec![Message::new(Role::System, FIRST), Message::new(Role::User, SECOND)];
        capability.has_system = says(&capability, ChatRequest::new(messages), FIRST);
        let offer =
            ChatRequest { tools: vec![tool()], ..ChatRequest::new(vec![Message::new(Role::User, FIRST)]) };
        capability.has_tools = says(&capability, offer, SECOND);
        capability.probe_calls(&render);
        capability.drops_reasoning = {
            let thought = Message { reasoning: THIRD.to_owned(), ..Message::new(Role::Assistant, SECOND) };
            let messages = vec![Message::new(Role::User, FIRST), thought, Message::new(Role::User, FIRST)];
            let all = Self { drops_reasoning: true, ..capability.clone() };
            render(&all, ChatRequest::new(messages)).is_ok_and(|text| !text.contains(THIRD))
        };
        capability.stop_text = render(&capability, turns()).ok().as_deref().and_then(stop_text);
        capability
    }

    /// Tries the ways a message with calls can look; the first one that the template shows is its own.
    fn probe_calls(&mut self, render: &impl Fn(&Self, ChatRequest) -> Result<String, Error>) {
        for arguments_are_text in [false, true] {
            let with = |content_is_null| {
                let style = Self { has_calls: true, arguments_are_text, content_is_null, ..self.clone() };
                let text = render(&style, calls()).ok()?;
                let is_shown = text.contains(ARGUMENT)
                    && text.contains(THIRD)
                    && !text.contains(&format!("'{ARGUMENT}'"));
                is_shown.then_some((style, text.matches("None").count()))
            };
            let (null, empty) = (with(true), with(false));
            let n_most = empty.as_ref().map_or(usize::MAX, |(_, n_none)| *n_none);
            let found = null.filter(|(_, n_none)| *n_none <= n_most).or(empty);
            if let Some((style, _)) = found {
                *self = style;
                return;
            }
        }
    }
}

fn tool() -> Tool {
    let properties = json!({ARGUMENT: {"type": "string", "description": "a word"}});
    Tool {
        name: "needle_tool".to_owned(),
        description: SECOND.to_owned(),
        parameters: json!({"type": "object", "properties": properties, "required": [ARGUMENT]}),
    }
}

fn calls() -> ChatRequest {
    let call = ToolCall {
        id: "call00000".to_owned(),
        name: "needle_tool".to_owned(),
        arguments: json!({ARGUMENT: THIRD}).to_string(),
    };
    let asked = Message { tool_calls: vec![call], ..Message::new(Role::Assistant, "") };
    let messages = vec![Message::new(Role::User, FIRST), asked, Message::tool("call00000", FIRST)];
    ChatRequest::new(messages)
}

fn turns() -> ChatRequest {
    let messages = vec![
        Message::new(Role::User, FIRST),
        Message::new(Role::Assistant, SECOND),
        Message::new(Role::User, THIRD),
    ];
    ChatRequest { add_generation_prompt: false, ..ChatRequest::new(messages) }
}

/// Returns what stands between the turns, if it is only text.
fn stop_text(rendered: &str) -> Option<String> {
    let (_, rest) = rendered.split_once(SECOND)?;
    let (between, _) = rest.split_once(THIRD)?;
    let between = between.trim();
    (!between.is_empty() && !between.contains(is_mark)).then(|| between.to_owned())
}

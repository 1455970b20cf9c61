//! Tool calls as models write them.
//!
//! In: text that begins like a call. Out: the call, or that more text must come, or that it is none.
//! Never: changes its mind: what a text's beginning shows is not undone by what follows it, so an
//! answer reads the same however it is cut.
//! Source: the formats, llama.cpp's `common/chat.cpp` and its `models/templates`.

mod cursor;

use cursor::{Cursor, Stop};
use serde_json::{Map, Value};

use super::{Tool, ToolFormat};

/// A call without an id of ours.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RawCall {
    pub(super) id: Option<String>,
    pub(super) name: String,
    /// A JSON object.
    pub(super) arguments: String,
}

/// What text at the place of a call is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// It cannot be told yet.
    More,
    /// Calls, and how many bytes they took.
    Calls(Vec<RawCall>, usize),
    /// So many bytes, at least one, are no part of a call.
    Text(usize),
}

/// What the reader of a text knows of it.
#[derive(Clone, Copy)]
pub(super) struct Context<'c> {
    pub(super) format: ToolFormat,
    pub(super) tools: &'c [Tool],
    /// Nothing follows the text.
    pub(super) is_final: bool,
    /// Nothing but white space and calls stands before it.
    pub(super) is_start: bool,
    /// A call stands before it.
    pub(super) is_after_call: bool,
}

const TOOL_CALL: &str = "<tool_call>";
const TOOL_CALL_END: &str = "</tool_call>";
const FUNCTION: &str = "<function=";
const FUNCTION_END: &str = "</function>";
const PARAMETER: &str = "<parameter=";
const PARAMETER_END: &str = "</parameter>";
const CALLS_BEGIN: &str = "<｜tool▁calls▁begin｜>";
const CALL_BEGIN: &str = "<｜tool▁call▁begin｜>";
const SEPARATOR: &str = "<｜tool▁sep｜>";
const CALL_END: &str = "<｜tool▁call▁end｜>";
const CALLS_END: &str = "<｜tool▁calls▁end｜>";
const TOOL_CALLS: &str = "[TOOL_CALLS]";
const PYTHON_TAG: &str = "<|python_tag|>";
/// Longest name of a tool or a parameter, in bytes; OpenAI allows 64.
const N_MAX_NAME: usize = 256;

impl ToolFormat {
    /// Returns the texts a call can begin with, anywhere in the answer.
    pub(super) fn triggers(self) -> &'static [&'static str] {
        match self {
            Self::Hermes => &[TOOL_CALL],
            Self::QwenXml => &[TOOL_CALL, FUNCTION],
            Self::DeepSeek => &[CALLS_BEGIN, CALL_BEGIN, CALLS_END],
            Self::Mistral => &[TOOL_CALLS],
            Self::Llama3 => &[PYTHON_TAG],
        }
    }
}

/// Reads `text`, which begins with a trigger, or with what [`starts_bare`] has found.
pub(super) fn read(context: Context<'_>, text: &str) -> Read {
    let mut cursor = Cursor::new(text, context.is_final);
    let found = match context.format {
        ToolFormat::Hermes => hermes(&mut cursor).map(|call| vec![call]),
        ToolFormat::QwenXml => qwen_xml(&mut cursor, context.tools).map(|call| vec![call]),
        ToolFormat::DeepSeek => deepseek(&mut cursor, context.is_after_call),
        ToolFormat::Mistral => mistral(&mut cursor),
        ToolFormat::Llama3 => llama3(&mut cursor, context.tools).map(|call| vec![call]),
    };
    match found {
        Ok(calls) => Read::Calls(calls, cursor.at()),
        Err(Stop::More) => Read::More,
        Err(Stop::Bad) => {
            let triggers = context.format.triggers().iter();
            let trigger = triggers.filter(|trigger| text.starts_with(**trigger)).map(|t| t.len()).max();
            Read::Text(trigger.or_else(|| text.chars().next().map(char::len_utf8)).unwrap_or(0))
        }
    }
}

/// Returns where a call without a trigger begins, which only Llama 3.1 writes.
pub(super) fn starts_bare(context: Context<'_>, text: &str) -> Option<usize> {
    if context.format != ToolFormat::Llama3 || !context.is_start {
        return None;
    }
    let rest = text.trim_start();
    let is_one = rest.starts_with('{') || (context.is_after_call && rest.starts_with(';'));
    is_one.then_some(text.len() - rest.len())
}

fn hermes(cursor: &mut Cursor<'_>) -> Result<RawCall, Stop> {
    cursor.literal(TOOL_CALL)?;
    cursor.space();
    let call = call(&cursor.json()?, &["arguments", "parameters"])?;
    close(cursor, TOOL_CALL_END)?;
    Ok(call)
}

/// Takes a closing tag. Models leave it out at the end, and before the next call.
fn close(cursor: &mut Cursor<'_>, tag: &str) -> Result<(), Stop> {
    let before = *cursor;
    cursor.space();
    match cursor.literal(tag) {
        Err(Stop::More) => return Err(Stop::More),
        Err(Stop::Bad) if cursor.is_at_partial(tag) => cursor.take_all(),
        Err(Stop::Bad) => *cursor = before,
        Ok(()) => {}
    }
    Ok(())
}

fn qwen_xml(cursor: &mut Cursor<'_>, tools: &[Tool]) -> Result<RawCall, Stop> {
    if cursor.either(&[TOOL_CALL, FUNCTION])? == 0 {
        cursor.space();
        cursor.literal(FUNCTION)?;
    }
    let name = cursor.until(">", N_MAX_NAME)?.trim().to_owned();
    let schema = tools.iter().find(|tool| tool.name == name).map(|tool| &tool.parameters["properties"]);
    let mut arguments = Map::new();
    loop {
        cursor.space();
        if cursor.either(&[PARAMETER, FUNCTION_END])? == 1 {
            break;
        }
        let parameter = cursor.until(">", N_MAX_NAME)?.trim().to_owned();
        let value = parameter_value(cursor)?;
        let schema = schema.map_or(&Value::Null, |properties| &properties[&parameter]);
        arguments.insert(parameter, typed(value, schema));
    }
    close(cursor, TOOL_CALL_END)?;
    Ok(RawCall { id: None, name, arguments: Value::from(arguments).to_string() })
}

/// Takes a value, which may itself say `</parameter>`: it ends where the markup goes on after that.
fn parameter_value<'t>(cursor: &mut Cursor<'t>) -> Result<&'t str, Stop> {
    let mut ahead = *cursor;
    let start = cursor.at();
    loop {
        ahead.until(PARAMETER_END, usize::MAX)?;
        let end = ahead.at();
        let mut after = ahead;
        after.space();
        match after.either(&[PARAMETER, FUNCTION_END]) {
            Ok(_) => {
                *cursor = ahead;
                let value = cursor.text(start, end - PARAMETER_END.len());
                let value = value.strip_prefix('\n').unwrap_or(value);
                return Ok(value.strip_suffix('\n').unwrap_or(value));
            }
            Err(Stop::More) => return Err(Stop::More),
            Err(Stop::Bad) => {}
        }
    }
}

/// Returns the value that `text` is under the parameter's schema; text where it is nothing else.
fn typed(text: &str, schema: &Value) -> Value {
    if schema["type"] == "string" {
        return text.into();
    }
    // The template shows the model Python's words for these.
    let json = match text.trim() {
        "True" => "true",
        "False" => "false",
        "None" => "null",
        other => other,
    };
    serde_json::from_str(json).unwrap_or_else(|_| text.into())
}

fn deepseek(cursor: &mut Cursor<'_>, is_after_call: bool) -> Result<Vec<RawCall>, Stop> {
    if is_after_call && cursor.literal(CALLS_END).is_ok() {
        return Ok(Vec::new());
    }
    if cursor.either(&[CALLS_BEGIN, CALL_BEGIN])? == 0 {
        cursor.space();
        cursor.literal(CALL_BEGIN)?;
    }
    // The type, which is always `function`.
    cursor.until(SEPARATOR, N_MAX_NAME)?;
    let name = cursor.until("\n", N_MAX_NAME)?.trim().to_owned();
    cursor.space();
    cursor.literal("```json")?;
    cursor.space();
    let arguments = cursor.json()?;
    cursor.space();
    cursor.literal("```")?;
    cursor.space();
    cursor.literal(CALL_END)?;
    Ok(vec![RawCall { id: None, name, arguments: object(&arguments)? }])
}

fn mistral(cursor: &mut Cursor<'_>) -> Result<Vec<RawCall>, Stop> {
    cursor.literal(TOOL_CALLS)?;
    cursor.space();
    match cursor.json()? {
        Value::Array(calls) if !calls.is_empty() => {
            calls.iter().map(|value| call(value, &["arguments"])).collect()
        }
        _ => Err(Stop::Bad),
    }
}

fn llama3(cursor: &mut Cursor<'_>, tools: &[Tool]) -> Result<RawCall, Stop> {
    let is_tagged = match cursor.either(&[PYTHON_TAG, ";", "{"])? {
        2 => {
            cursor.back(1);
            false
        }
        idx => {
            cursor.space();
            idx == 0
        }
    };
    let mut key = *cursor;
    match key.literal("{") {
        Err(Stop::Bad) if is_tagged => return llama3_builtin(cursor),
        found => found?,
    }
    // A user may have asked for JSON: the first key tells it from a call early, the name at the end.
    key.space();
    key.either(&["\"name\"", "\"type\""])?;
    let found = call(&cursor.json()?, &["parameters", "arguments"])?;
    let is_known = tools.iter().any(|tool| tool.name == found.name);
    if is_tagged || is_known { Ok(found) } else { Err(Stop::Bad) }
}

/// Takes `name.call(key="value", …)`, as Llama 3.1 calls the tools it was born with.
fn llama3_builtin(cursor: &mut Cursor<'_>) -> Result<RawCall, Stop> {
    let name = cursor.word()?.to_owned();
    cursor.literal(".call(")?;
    let mut arguments = Map::new();
    loop {
        let key = cursor.word()?.to_owned();
        cursor.literal("=")?;
        let value = cursor.json()?;
        arguments.insert(key, value);
        cursor.space();
        if cursor.either(&[",", ")"])? == 1 {
            return Ok(RawCall { id: None, name, arguments: Value::from(arguments).to_string() });
        }
        cursor.space();
    }
}

/// Returns the call that a JSON object describes, its arguments under one of `keys`.
fn call(value: &Value, keys: &[&str]) -> Result<RawCall, Stop> {
    let name = value["name"].as_str().filter(|name| !name.is_empty()).ok_or(Stop::Bad)?;
    let arguments = keys.iter().find_map(|key| value.get(key));
    let arguments = arguments.map_or_else(|| Ok("{}".to_owned()), object)?;
    let id = value["id"].as_str().filter(|id| !id.is_empty()).map(str::to_owned);
    Ok(RawCall { id, name: name.to_owned(), arguments })
}

/// Returns a JSON object as text; some models write it as a string.
fn object(value: &Value) -> Result<String, Stop> {
    match value {
        Value::Object(_) => Ok(value.to_string()),
        Value::String(text) => match serde_json::from_str(text) {
            Ok(inner @ Value::Object(_)) => Ok(inner.to_string()),
            _ => Err(Stop::Bad),
        },
        _ => Err(Stop::Bad),
    }
}

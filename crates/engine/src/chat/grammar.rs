//! Grammars that make a model's answer a tool call.
//!
//! In: a wire format and the tools on offer. Out: Lark, as llguidance reads it, and what begins a call.
//! Source: llguidance's `docs/syntax.md`; its options for JSON, `JsonCompileOptions`.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{Tool, ToolFormat};
use crate::Tokenizer;

/// What makes an answer one or more calls of the tools on offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolGrammar {
    /// The grammar, in llguidance's Lark; it begins with the trigger.
    pub lark: String,
    /// The text a call begins with, for a caller that constrains only from there on. Where it is a
    /// special token it is one of [`Prompt::shown`](super::Prompt::shown).
    pub trigger: &'static str,
}

/// Returns the grammar of answers that call one or more of `tools`, or `None` without tools.
pub fn tool_call_grammar(format: ToolFormat, tools: &[Tool], tokenizer: &Tokenizer) -> Option<ToolGrammar> {
    if tools.is_empty() {
        return None;
    }
    let mark = |name: &str| marker(tokenizer, name);
    let alternatives: Vec<String> = (0..tools.len()).map(|idx| format!("tool_{idx}")).collect();
    let any = alternatives.join(" | ");
    let (start, trigger) = match format {
        ToolFormat::Hermes => {
            let (open, close) = (mark("<tool_call>"), mark("</tool_call>"));
            (
                format!("start: call (\"\\n\" call)*\ncall: {open} \"\\n\" ({any}) \"\\n\" {close}"),
                "<tool_call>",
            )
        }
        ToolFormat::QwenXml => {
            let (open, close) = (mark("<tool_call>"), mark("</tool_call>"));
            (
                format!("start: call (\"\\n\" call)*\ncall: {open} \"\\n\" ({any}) \"\\n\" {close}"),
                "<tool_call>",
            )
        }
        ToolFormat::DeepSeek => {
            let begin = mark("<｜tool▁calls▁begin｜>");
            let end = mark("<｜tool▁calls▁end｜>");
            let (call, separator) = (mark("<｜tool▁call▁begin｜>"), mark("<｜tool▁sep｜>"));
            let call_end = mark("<｜tool▁call▁end｜>");
            let start = format!(
                "start: {begin} call (\"\\n\" call)* {end}\ncall: {call} \"function\" {separator} ({any}) \"\\n```\" {call_end}"
            );
            (start, "<｜tool▁calls▁begin｜>")
        }
        ToolFormat::Mistral => {
            let open = mark("[TOOL_CALLS]");
            (format!("start: {open} \"[\" call (\", \" call)* \"]\"\ncall: {any}"), "[TOOL_CALLS]")
        }
        ToolFormat::Llama3 => (format!("start: {any}"), "{\"name\": \""),
    };
    let mut lark = format!("%llguidance {{}}\n{start}\n");
    for (idx, tool) in tools.iter().enumerate() {
        write_tool(&mut lark, format, idx, tool);
    }
    Some(ToolGrammar { lark, trigger })
}

/// A marker is a token of its own where the vocabulary has it, and text elsewhere.
fn marker(tokenizer: &Tokenizer, name: &str) -> String {
    tokenizer.special(name).map_or_else(|| quoted(name), |token| format!("<[{}]>", token.0))
}

/// Returns a Lark string that matches `text`.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn write_tool(lark: &mut String, format: ToolFormat, idx: usize, tool: &Tool) {
    let name = json!({"const": tool.name});
    let _ = match format {
        ToolFormat::QwenXml => return write_xml_tool(lark, idx, tool),
        ToolFormat::DeepSeek => {
            let head = quoted(&format!("{}\n```json\n", tool.name));
            writeln!(lark, "tool_{idx}: {head} arguments_{idx}\narguments_{idx}: {}", schema(tool, |own| own))
        }
        ToolFormat::Hermes => {
            let body = schema(tool, |own| object(json!({"name": name, "arguments": own})));
            writeln!(lark, "tool_{idx}: {body}")
        }
        ToolFormat::Mistral => {
            let id = json!({"type": "string", "pattern": "^[a-zA-Z0-9]{9}$"});
            let body = schema(tool, |own| object(json!({"name": name, "arguments": own, "id": id})));
            writeln!(lark, "tool_{idx}: {body}")
        }
        ToolFormat::Llama3 => {
            let body = schema(tool, |own| object(json!({"name": name, "parameters": own})));
            writeln!(lark, "tool_{idx}: {body}")
        }
    };
}

/// Returns the schema of an object with exactly `properties`, in their order.
fn object(properties: Value) -> Value {
    let required: Vec<&String> = properties.as_object().into_iter().flat_map(|map| map.keys()).collect();
    let required = json!(required);
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

/// Returns `%json` with the tool's schema in the place that `wrap` gives it. References in a schema
/// are from its root, so its definitions move to the new one.
fn schema(tool: &Tool, wrap: impl FnOnce(Value) -> Value) -> String {
    let mut own = tool.parameters.clone();
    let definitions = take_definitions(&mut own);
    let mut root = wrap(own);
    finish_schema(&mut root, definitions);
    format!("%json {root}")
}

type Definitions = Vec<(String, Value)>;

fn take_definitions(schema: &mut Value) -> Definitions {
    let Some(entries) = schema.as_object_mut() else {
        return Vec::new();
    };
    ["$defs", "definitions"]
        .into_iter()
        .filter_map(|key| Some((key.to_owned(), entries.shift_remove(key)?)))
        .collect()
}

fn finish_schema(root: &mut Value, definitions: Definitions) {
    if let Some(entries) = root.as_object_mut() {
        entries.extend(definitions);
        // The white space that Python writes, which is what the models have seen.
        let style = json!({"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": false});
        entries.insert("x-guidance".to_owned(), style);
    }
}

/// A text parameter is any text up to its closing tag, any other is JSON.
fn write_xml_tool(lark: &mut String, idx: usize, tool: &Tool) {
    let empty = serde_json::Map::new();
    let properties = tool.parameters["properties"].as_object().unwrap_or(&empty);
    let is_required = |name: &str| {
        tool.parameters["required"].as_array().is_some_and(|names| names.iter().any(|other| other == name))
    };
    let mut rule = format!("tool_{idx}: {}", quoted(&format!("<function={}>\n", tool.name)));
    let mut rules = String::new();
    for (at, (name, own)) in properties.iter().enumerate() {
        let optional = if is_required(name) { "" } else { "?" };
        let _ = write!(rule, " parameter_{idx}_{at}{optional}");
        let open = quoted(&format!("<parameter={name}>\n"));
        let value = format!("value_{idx}_{at}");
        if own["type"] == "string" && own.get("enum").is_none() {
            let _ = writeln!(rules, "parameter_{idx}_{at}: {open} {value}");
            let _ = writeln!(rules, "{value}[suffix=\"\\n</parameter>\\n\"]: /(?s:.*)/");
        } else {
            let _ = writeln!(rules, "parameter_{idx}_{at}: {open} {value} \"\\n</parameter>\\n\"");
            let _ = writeln!(rules, "{value}: {}", xml_value(tool, own));
        }
    }
    let _ = writeln!(lark, "{rule} \"</function>\"");
    lark.push_str(&rules);
}

/// A choice of texts is written bare, all else as JSON.
fn xml_value(tool: &Tool, own: &Value) -> String {
    let texts = own["enum"].as_array().filter(|_| own["type"] == "string");
    if let Some(texts) = texts {
        return texts.iter().filter_map(Value::as_str).map(quoted).collect::<Vec<_>>().join(" | ");
    }
    let mut root = own.clone();
    finish_schema(&mut root, take_definitions(&mut tool.parameters.clone()));
    format!("%json {root}")
}

//! Grammars of chat answers: thoughts first where the model thinks, then content, tool calls, or either.
//!
//! In: a prompt's wire format, the tools on offer, what the answer must be. Out: a [`GrammarSpec`].
//! Never: lets a tool's or a schema's words be more than text in the grammar.
//! Source: llguidance's `docs/syntax.md`; its options for JSON, `JsonCompileOptions`.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{Prompt, Tool, ToolFormat};
use crate::{GrammarSpec, Tokenizer};

/// How many tools one answer calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallCount {
    /// One.
    One,
    /// One or more.
    Many,
}

/// Whether an answer calls tools.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CallRule {
    /// It does not.
    #[default]
    Never,
    /// The model decides; once it begins to call, it does nothing else.
    May(CallCount),
    /// It is a call and nothing else.
    Must(CallCount),
}

/// What an answer must be, once the model has thought.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AnswerRule {
    /// Whether it calls tools.
    pub calls: CallRule,
    /// What it says where it calls none; anything when not set.
    pub content: Option<GrammarSpec>,
}

/// Returns the grammar of answers to `prompt` that follow `rule` and call none but `tools`, or `None` where any answer
/// does: nothing is ruled, or calls are free in a format that tells them from text only at their end (Llama 3.1).
///
/// A model that thinks may do so first, in whatever words.
pub fn answer_grammar(
    prompt: &Prompt,
    tools: &[Tool],
    rule: &AnswerRule,
    tokenizer: &Tokenizer,
) -> Option<GrammarSpec> {
    let calls = match (prompt.format.tools, rule.calls) {
        (Some(format), CallRule::May(count) | CallRule::Must(count)) if !tools.is_empty() => {
            Some(Calls::new(format, tools, count, tokenizer))
        }
        _ => None,
    };
    let is_must = matches!(rule.calls, CallRule::Must(_));
    let content = rule.content.as_ref().filter(|_| !(is_must && calls.is_some()));
    let has_thoughts = prompt.starts_in_reasoning || prompt.format.reasoning.is_some();
    let (body, is_free) = match (&calls, content) {
        (None, None) => return None,
        (None, Some(content)) if !has_thoughts => return Some(content.clone()),
        (None, Some(_)) => ("content".to_owned(), false),
        (Some(calls), Some(_)) => (format!("content | {}", calls.whole()), false),
        (Some(calls), None) if is_must => (calls.whole(), false),
        (Some(calls), None) => (calls.after_text()?, true),
    };
    let mut lark = format!("%llguidance {{}}\n{}body: {body}\n", start(prompt, is_free, tokenizer));
    if is_free {
        lark.push_str("TEXT: /(?s:.*)/\n");
    }
    if let Some(content) = content {
        let _ = writeln!(lark, "content: {}", said(content));
    }
    if let Some(calls) = calls {
        lark.push_str(&calls.rules);
    }
    Some(GrammarSpec::Lark(lark))
}

/// Returns the rules up to `body`. A `body` that begins with free text needs no rule for the space before it, and cannot
/// be told from thoughts whose tag is text.
fn start(prompt: &Prompt, is_free: bool, tokenizer: &Tokenizer) -> String {
    let Some(tags) = prompt.format.reasoning else { return "start: body\n".to_owned() };
    let (open, close) = (tokenizer.special(tags.open), tokenizer.special(tags.close));
    let space = if is_free { "" } else { "SPACE? " };
    let mut rules = if prompt.starts_in_reasoning {
        format!("start: thoughts {space}body\n")
    } else if is_free && open.is_none() {
        return "start: body\n".to_owned();
    } else {
        format!("start: body | {} thoughts {space}body\n", marker(tokenizer, tags.open))
    };
    if close.is_some() {
        let close = marker(tokenizer, tags.close);
        let _ = writeln!(rules, "thoughts: THOUGHTS {close}\nTHOUGHTS: /(?s:.*)/");
    } else {
        let _ = writeln!(rules, "thoughts[suffix={}]: /(?s:.*)/", quoted(tags.close));
    }
    if !is_free {
        rules.push_str("SPACE: /[ \\n]{1,4}/\n");
    }
    rules
}

/// Returns what follows `content:`.
fn said(content: &GrammarSpec) -> String {
    let styled = |schema: &Value| {
        let mut schema = if *schema == Value::Bool(true) { json!({}) } else { schema.clone() };
        if schema.get("x-guidance").is_none() {
            finish_schema(&mut schema, Vec::new());
        }
        format!("%json {schema}")
    };
    match content {
        GrammarSpec::JsonSchema(schema) => styled(schema),
        GrammarSpec::JsonObject => styled(&json!({"type": "object"})),
        GrammarSpec::Regex(regex) => format!("/{}/", slashed(regex)),
        GrammarSpec::Lark(lark) => format!("%lark {{\n{lark}\n}}"),
    }
}

/// Returns a regular expression as it stands between slashes, on one line.
fn slashed(regex: &str) -> String {
    let mut is_escaped = false;
    let mut out = String::with_capacity(regex.len());
    for c in regex.chars() {
        match c {
            '/' if !is_escaped => out.push_str("\\/"),
            '\n' => out.push_str(if is_escaped { "n" } else { "\\n" }),
            c => out.push(c),
        }
        is_escaped = c == '\\' && !is_escaped;
    }
    out
}

/// The calls of an answer, as rules.
struct Calls {
    /// What a call begins with, as text; none where that is no mark of its own.
    trigger: Option<&'static str>,
    /// The same as a terminal.
    open: String,
    is_special: bool,
    /// `calls`, which is what follows the first `open`, and all that it needs.
    rules: String,
}

impl Calls {
    fn new(format: ToolFormat, tools: &[Tool], count: CallCount, tokenizer: &Tokenizer) -> Self {
        let mark = |name: &str| marker(tokenizer, name);
        let names: Vec<String> = (0..tools.len()).map(|idx| format!("tool_{idx}")).collect();
        let any = names.join(" | ");
        let (trigger, rules) = match format {
            ToolFormat::Hermes | ToolFormat::QwenXml => {
                let more = format!("rest (\"\\n\" {} rest)*", mark("<tool_call>"));
                let calls = if count == CallCount::One { "rest" } else { &more };
                let close = mark("</tool_call>");
                let rules = format!("calls: {calls}\nrest: \"\\n\" ({any}) \"\\n\" {close}\n");
                (Some("<tool_call>"), rules)
            }
            ToolFormat::DeepSeek => {
                let calls = if count == CallCount::One { "call" } else { "call (\"\\n\" call)*" };
                let (end, call) = (mark("<｜tool▁calls▁end｜>"), mark("<｜tool▁call▁begin｜>"));
                let (separator, call_end) = (mark("<｜tool▁sep｜>"), mark("<｜tool▁call▁end｜>"));
                let rules = format!(
                    "calls: {calls} {end}\ncall: {call} \"function\" {separator} ({any}) \"\\n```\" {call_end}\n"
                );
                (Some("<｜tool▁calls▁begin｜>"), rules)
            }
            ToolFormat::Mistral => {
                let calls = if count == CallCount::One { "call" } else { "call (\", \" call)*" };
                let rules = format!("calls: \"[\" {calls} \"]\"\ncall: {any}\n");
                (Some("[TOOL_CALLS]"), rules)
            }
            ToolFormat::Llama3 => (None, format!("calls: {any}\n")),
        };
        let mut calls = Self {
            trigger,
            open: trigger.map(mark).unwrap_or_default(),
            is_special: trigger.is_some_and(|name| tokenizer.special(name).is_some()),
            rules,
        };
        for (idx, tool) in tools.iter().enumerate() {
            write_tool(&mut calls.rules, format, idx, tool);
        }
        calls
    }

    /// Returns calls and nothing else.
    fn whole(&self) -> String {
        format!("{} calls", self.open).trim_start().to_owned()
    }

    /// Returns free text with or without calls at its end. Text goes on up to the first trigger, wherever that stands.
    fn after_text(&self) -> Option<String> {
        let trigger = self.trigger?;
        Some(match self.is_special {
            true => format!("TEXT | TEXT {} calls", self.open),
            false => format!("TEXT | until calls\nuntil[suffix={}]: /(?s:.*)/", quoted(trigger)),
        })
    }
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

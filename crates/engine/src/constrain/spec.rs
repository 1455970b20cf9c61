//! What a caller may ask an answer to be.
//!
//! In: a schema, a regular expression, a grammar. Out: the form `llguidance` compiles, within bounds.

use llguidance::JsonCompileOptions;
use llguidance::api::TopLevelGrammar;
use serde_json::{Deserializer, Value, json};

use super::{GrammarError, expansion};

/// What an answer must be.
///
/// Whatever text the answer contains, special tokens are no part of it (I-3). Only [`GrammarSpec::Lark`] can name one
/// (`<|im_end|>`), so a Lark grammar must come from a program, never from a document.
#[derive(Clone, Debug, PartialEq)]
pub enum GrammarSpec {
    /// JSON that fits a schema (2020-12), with its properties in the schema's order.
    ///
    /// It is on one line, with a blank after `,` and `:`, as Python writes it, unless the schema's `x-guidance` says
    /// otherwise. A keyword that cannot be enforced is an error. An answer that reaches
    /// [`StopRules::n_max_tokens`](crate::StopRules) is cut short: give strings and arrays a length.
    JsonSchema(Value),
    /// Any JSON object.
    JsonObject,
    /// Text that a regular expression of Rust's `regex` matches from its first byte to its last.
    Regex(String),
    /// A context-free grammar in `llguidance`'s variant of Lark, from its rule `start`. An end-of-generation token that
    /// it names ends the answer there.
    Lark(String),
}

/// Longest grammar, and so the longest text it can force: a mask cuts all of that into tokens, 0.1 s at this length.
const N_MAX_BYTES: usize = 256 << 10;

/// Most atoms of a regular expression or terminal whose repetitions are written out, for the same reason.
const N_MAX_ATOMS: u64 = 100_000;

/// Deepest nesting of a schema: as deep as `serde_json` reads one. It is followed by recursion, and a stack has an end.
const N_MAX_DEPTH: usize = 128;

impl GrammarSpec {
    pub(super) fn to_llguidance(&self) -> Result<TopLevelGrammar, GrammarError> {
        match self {
            Self::JsonSchema(schema) => json_schema(schema),
            Self::JsonObject => json_schema(&json!({ "type": "object" })),
            Self::Regex(regex) => {
                check_length(regex)?;
                check_expansion(expansion::of_regex(regex))?;
                Ok(TopLevelGrammar::from_regex(regex))
            }
            Self::Lark(lark) => {
                check_length(lark)?;
                check_expansion(expansion::of_lark(lark))?;
                embedded_schemas(lark).try_for_each(|schema| check_schema(&schema))?;
                if lark.contains("allow_invalid_utf8") {
                    return Err(GrammarError::Unsupported(
                        "`allow_invalid_utf8`: an answer is text".to_owned(),
                    ));
                }
                Ok(TopLevelGrammar::from_lark(lark.clone()))
            }
        }
    }
}

fn json_schema(schema: &Value) -> Result<TopLevelGrammar, GrammarError> {
    check_schema(schema)?;
    let mut schema = match schema {
        Value::Bool(true) => json!({}),
        schema => schema.clone(),
    };
    let Some(object) = schema.as_object() else {
        return Err(GrammarError::Syntax("a schema is an object, or `true`".to_owned()));
    };
    if !object.contains_key("x-guidance") {
        one_line().apply_to(&mut schema);
    }
    Ok(TopLevelGrammar::from_json_schema(schema))
}

fn check_schema(schema: &Value) -> Result<(), GrammarError> {
    if !is_within(schema, N_MAX_DEPTH) {
        return Err(GrammarError::TooExpensive(format!("the schema nests deeper than {N_MAX_DEPTH}")));
    }
    check_length(&schema.to_string())?;
    check_expansion(n_expanded(schema))
}

/// Returns the schemas that stand in a Lark grammar. What is no JSON is an error where it is compiled.
fn embedded_schemas(lark: &str) -> impl Iterator<Item = Value> {
    lark.split("%json").skip(1).filter_map(|rest| Deserializer::from_str(rest).into_iter().next()?.ok())
}

/// White space that is free lets a small model at temperature 1 write it for ever, and forces no tokens.
fn one_line() -> JsonCompileOptions {
    JsonCompileOptions {
        item_separator: ", ".to_owned(),
        key_separator: ": ".to_owned(),
        whitespace_flexible: false,
        ..JsonCompileOptions::default()
    }
}

fn is_within(value: &Value, n_levels: usize) -> bool {
    match value {
        Value::Array(_) | Value::Object(_) if n_levels == 0 => false,
        Value::Array(items) => items.iter().all(|item| is_within(item, n_levels - 1)),
        Value::Object(members) => members.values().all(|member| is_within(member, n_levels - 1)),
        _ => true,
    }
}

/// Returns the largest expansion of a schema's patterns; what merely looks like one does no harm.
fn n_expanded(schema: &Value) -> u64 {
    match schema {
        Value::Array(items) => items.iter().map(n_expanded).max().unwrap_or(0),
        Value::Object(members) => {
            let pattern = members.get("pattern").and_then(Value::as_str).map_or(0, expansion::of_regex);
            let properties = members.get("patternProperties").and_then(Value::as_object);
            let names = properties.into_iter().flatten().map(|(name, _)| expansion::of_regex(name));
            members.values().map(n_expanded).chain(names).chain([pattern]).max().unwrap_or(0)
        }
        _ => 0,
    }
}

fn check_expansion(n_atoms: u64) -> Result<(), GrammarError> {
    if n_atoms > N_MAX_ATOMS {
        let what = format!("its repetitions, written out, have {n_atoms} parts; {N_MAX_ATOMS} is the most");
        return Err(GrammarError::TooExpensive(what));
    }
    Ok(())
}

fn check_length(text: &str) -> Result<(), GrammarError> {
    if text.len() > N_MAX_BYTES {
        let what = format!("it is {} bytes long; {N_MAX_BYTES} is the most", text.len());
        return Err(GrammarError::TooExpensive(what));
    }
    Ok(())
}

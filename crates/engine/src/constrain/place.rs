//! Where in a schema the fault lies: `llguidance` says what is wrong and not where.
//!
//! In: a schema that was refused. Out: a JSON pointer to its innermost part that is refused alone, for the same reason.

use serde_json::{Map, Value};

use super::GrammarError;

/// Most parts that are tried: each is compiled.
const N_MAX_TRIED: usize = 256;

/// Keywords whose members are schemas, and those that are a schema or a list of them.
const MEMBERS: [&str; 4] = ["properties", "patternProperties", "$defs", "definitions"];
const PARTS: [&str; 11] = [
    "items",
    "prefixItems",
    "additionalProperties",
    "anyOf",
    "oneOf",
    "allOf",
    "not",
    "if",
    "then",
    "else",
    "contains",
];

/// Returns the place of `error` in `schema`, empty for the root; `fault` says what is wrong with a schema.
///
/// What is too expensive is so as a whole, and trying its parts would be too.
pub(super) fn of(
    schema: &Value,
    error: &GrammarError,
    fault: impl Fn(Value) -> Option<GrammarError>,
) -> String {
    if matches!(error, GrammarError::TooExpensive(_)) {
        return String::new();
    }
    let definitions: Map<String, Value> = ["$defs", "definitions"]
        .into_iter()
        .filter_map(|key| Some((key.to_owned(), schema.get(key)?.clone())))
        .collect();
    let mut n_left = N_MAX_TRIED;
    let is_to_blame = |part: &Value, n_left: &mut usize| {
        let Some(object) = part.as_object().filter(|_| *n_left > 0) else { return false };
        *n_left -= 1;
        let mut alone = definitions.clone();
        alone.extend(object.clone());
        fault(Value::Object(alone)).is_some_and(|found| error.what().contains(found.what()))
    };
    let (mut place, mut pointer) = (schema, String::new());
    while let Some((at, part)) = parts(place).into_iter().find(|(_, part)| is_to_blame(part, &mut n_left)) {
        place = part;
        pointer.push_str(&at);
    }
    pointer
}

/// Returns the schemas that stand in `schema`, each with its pointer from there.
fn parts(schema: &Value) -> Vec<(String, &Value)> {
    let escaped = |name: &str| name.replace('~', "~0").replace('/', "~1");
    let mut parts = Vec::new();
    for key in PARTS {
        match schema.get(key) {
            Some(Value::Array(list)) => {
                parts.extend(list.iter().enumerate().map(|(idx, part)| (format!("/{key}/{idx}"), part)));
            }
            Some(part) => parts.push((format!("/{key}"), part)),
            None => {}
        }
    }
    for key in MEMBERS {
        let members = schema.get(key).and_then(Value::as_object).into_iter().flatten();
        parts.extend(members.map(|(name, part)| (format!("/{key}/{}", escaped(name)), part)));
    }
    parts
}

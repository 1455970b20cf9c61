//! What an answer is to be, under the names that OpenAI, llama.cpp and vLLM give it.
//!
//! In: fields of a body. Out: a grammar that compiles, or a refusal that names the field and the place in it.
//! Source: OpenAI API reference, `response_format`; llama.cpp, `tools/server/README.md`, `json_schema` and `grammar`;
//! vLLM, "Structured Outputs", `structured_outputs` and the older `guided_…`.

use engine::{Engine, GrammarSpec};
use serde::Deserialize;
use serde_json::Value;

use super::refusal::Refusal;

/// Fields of both bodies; one of them at most may be set.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Formats {
    response_format: Option<Value>,
    json_schema: Option<Value>,
    grammar: Option<String>,
    guided_json: Option<Value>,
    guided_regex: Option<String>,
    guided_choice: Option<Vec<String>>,
    guided_grammar: Option<String>,
    structured_outputs: Option<Structured>,
}

#[derive(Debug, Default, Deserialize)]
struct Structured {
    json: Option<Value>,
    json_object: Option<bool>,
    regex: Option<String>,
    choice: Option<Vec<String>>,
    grammar: Option<String>,
}

impl Formats {
    /// Returns the grammar that is asked for, if any.
    pub(super) fn into_spec(self, engine: &Engine) -> Result<Option<GrammarSpec>, Refusal> {
        let Some((param, spec)) = self.chosen()? else { return Ok(None) };
        engine.check_grammar(&spec).map_err(|error| Refusal::from(error).about(param))?;
        Ok(Some(spec))
    }

    fn chosen(self) -> Result<Option<(&'static str, GrammarSpec)>, Refusal> {
        let structured = self.structured_outputs.unwrap_or_default();
        let response_format = self.response_format.filter(|format| !format.is_null());
        let specs = [
            ("response_format", response_format.map(response_format_spec).transpose()?.flatten()),
            ("json_schema", self.json_schema.map(GrammarSpec::JsonSchema)),
            ("grammar", self.grammar.map(|text| lark("grammar", text)).transpose()?),
            ("guided_json", self.guided_json.map(|json| schema("guided_json", json)).transpose()?),
            ("guided_regex", self.guided_regex.map(GrammarSpec::Regex)),
            ("guided_choice", self.guided_choice.map(|texts| choice("guided_choice", &texts)).transpose()?),
            ("guided_grammar", self.guided_grammar.map(|text| lark("guided_grammar", text)).transpose()?),
            (
                "structured_outputs",
                structured.json.map(|json| schema("structured_outputs", json)).transpose()?,
            ),
            (
                "structured_outputs",
                structured.json_object.filter(|is_so| *is_so).map(|_| GrammarSpec::JsonObject),
            ),
            ("structured_outputs", structured.regex.map(GrammarSpec::Regex)),
            (
                "structured_outputs",
                structured.choice.map(|texts| choice("structured_outputs", &texts)).transpose()?,
            ),
            (
                "structured_outputs",
                structured.grammar.map(|text| lark("structured_outputs", text)).transpose()?,
            ),
        ];
        let mut specs = specs.into_iter().filter_map(|(param, spec)| Some((param, spec?)));
        match (specs.next(), specs.next()) {
            (Some((first, _)), Some((second, _))) => {
                Err(Refusal::of(second, format!("`{first}` says already what the answer must be")))
            }
            (found, _) => Ok(found),
        }
    }
}

fn response_format_spec(format: Value) -> Result<Option<GrammarSpec>, Refusal> {
    const PARAM: &str = "response_format";
    match format["type"].as_str() {
        Some("text") => Ok(None),
        // llama.cpp's server takes a schema here too.
        Some("json_object") => Ok(Some(match format.get("schema") {
            Some(schema) => GrammarSpec::JsonSchema(schema.clone()),
            None => GrammarSpec::JsonObject,
        })),
        // Strict or not: what can be enforced is.
        Some("json_schema") => match format["json_schema"].get("schema") {
            Some(schema) => Ok(Some(GrammarSpec::JsonSchema(schema.clone()))),
            None => Err(Refusal::of(PARAM, "`response_format.json_schema.schema` is missing")),
        },
        _ => Err(Refusal::of(PARAM, "`response_format.type` is `text`, `json_object` or `json_schema`")),
    }
}

/// vLLM takes a schema as JSON or as JSON in a text.
fn schema(param: &'static str, schema: Value) -> Result<GrammarSpec, Refusal> {
    let schema = match schema {
        Value::String(text) => serde_json::from_str(&text)
            .map_err(|error| Refusal::of(param, format!("the schema is not JSON: {error}")))?,
        schema => schema,
    };
    Ok(GrammarSpec::JsonSchema(schema))
}

fn choice(param: &'static str, texts: &[String]) -> Result<GrammarSpec, Refusal> {
    if texts.is_empty() || texts.iter().any(String::is_empty) {
        return Err(Refusal::of(param, "a choice has at least one text, and none is empty"));
    }
    // A text as JSON writes it is one of Lark's too, whatever it says.
    let texts: Vec<String> = texts.iter().map(|text| Value::from(text.as_str()).to_string()).collect();
    Ok(GrammarSpec::Lark(format!("start: {}", texts.join(" | "))))
}

fn lark(param: &'static str, text: String) -> Result<GrammarSpec, Refusal> {
    if text.contains("::=") {
        let message = "this is llguidance's Lark (`start: \"a\" | \"b\"`); GBNF and EBNF are not supported";
        return Err(Refusal::of(param, message));
    }
    Ok(GrammarSpec::Lark(text))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_thing_has_many_names() {
        let check = |body: Value, expected: Result<Option<GrammarSpec>, &str>| {
            let formats: Formats = serde_json::from_value(body.clone()).expect("fields");
            let found = formats.chosen().map(|found| found.map(|(_, spec)| spec));
            let found = found.map_err(|refusal| refusal.json()["error"]["param"].as_str().map(str::to_owned));
            assert_eq!(found, expected.map_err(|param| Some(param.to_owned())), "{body}");
        };
        let schema = || json!({"type": "integer"});
        let by_schema = || Ok(Some(GrammarSpec::JsonSchema(schema())));
        let named =
            json!({"type": "json_schema", "json_schema": {"name": "n", "strict": true, "schema": schema()}});
        check(json!({}), Ok(None));
        check(json!({"response_format": null, "structured_outputs": null}), Ok(None));
        check(json!({"response_format": {"type": "text"}}), Ok(None));
        check(json!({"response_format": {"type": "json_object"}}), Ok(Some(GrammarSpec::JsonObject)));
        check(json!({"response_format": {"type": "json_object", "schema": schema()}}), by_schema());
        check(json!({"response_format": named}), by_schema());
        check(json!({"json_schema": schema()}), by_schema());
        check(json!({"guided_json": schema().to_string()}), by_schema());
        check(json!({"structured_outputs": {"json": schema()}}), by_schema());
        check(json!({"guided_regex": "a+"}), Ok(Some(GrammarSpec::Regex("a+".into()))));
        let either = || Ok(Some(GrammarSpec::Lark("start: \"a\" | \"b\\\"\"".into())));
        check(json!({"guided_choice": ["a", "b\""]}), either());
        check(json!({"structured_outputs": {"choice": ["a", "b\""]}}), either());
        check(json!({"grammar": "start: \"a\""}), Ok(Some(GrammarSpec::Lark("start: \"a\"".into()))));
        check(json!({"grammar": "root ::= \"a\""}), Err("grammar"));
        check(json!({"guided_choice": []}), Err("guided_choice"));
        check(json!({"guided_json": "{"}), Err("guided_json"));
        check(json!({"response_format": {"type": "xml"}}), Err("response_format"));
        check(json!({"response_format": {"type": "json_schema", "json_schema": {}}}), Err("response_format"));
        check(json!({"guided_regex": "a", "json_schema": schema()}), Err("guided_regex"));
    }
}

//! The tools on offer, and whether the answer calls them.
//!
//! In: OpenAI's `tools`, `tool_choice`, `parallel_tool_calls`. Out: the engine's, or a refusal that names the place.
//! Source: OpenAI API reference, "Create chat completion".

use engine::{CallCount, CallRule, Engine, GrammarError, GrammarSpec, Tool};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::http::refusal::Refusal;

/// One tool.
#[derive(Debug, Deserialize)]
pub(super) struct ToolParam {
    #[serde(rename = "type")]
    kind: String,
    function: Option<Function>,
}

#[derive(Debug, Deserialize)]
struct Function {
    name: String,
    description: Option<String>,
    parameters: Option<Value>,
    strict: Option<bool>,
}

/// Longest name of a tool, as OpenAI has it.
const N_MAX_NAME: usize = 64;

/// What an answer may call.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) tools: Vec<Tool>,
    pub(super) rule: CallRule,
    /// For each tool, whether its arguments must be enforced to the letter.
    is_strict: Vec<bool>,
    /// The tool that must be called, if it is a certain one.
    chosen: Option<usize>,
}

impl Offer {
    pub(super) fn read(
        params: Vec<ToolParam>,
        choice: Option<&Value>,
        is_parallel: Option<bool>,
    ) -> Result<Self, Refusal> {
        let mut offer = Self {
            tools: Vec::with_capacity(params.len()),
            rule: CallRule::Never,
            is_strict: Vec::with_capacity(params.len()),
            chosen: None,
        };
        for (idx, param) in params.into_iter().enumerate() {
            offer.add(idx, param)?;
        }
        let count = if is_parallel == Some(false) { CallCount::One } else { CallCount::Many };
        offer.rule = match choice {
            None | Some(Value::Null) if offer.tools.is_empty() => CallRule::Never,
            None | Some(Value::Null) => CallRule::May(count),
            Some(choice) => offer.choose(choice, count)?,
        };
        Ok(offer)
    }

    fn add(&mut self, idx: usize, param: ToolParam) -> Result<(), Refusal> {
        let wrong = |what: &str| Refusal::of("tools", format!("`tools[{idx}]{what}"));
        let Some(function) = param.function.filter(|_| param.kind == "function") else {
            return Err(wrong("` is no function, and nothing else is supported"));
        };
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        let name = function.name;
        if !(1..=N_MAX_NAME).contains(&name.len()) || !name.bytes().all(is_plain) {
            return Err(wrong(".function.name` has 1 to 64 letters, digits, `_`, `-` or `.`"));
        }
        if self.tools.iter().any(|tool| tool.name == name) {
            return Err(wrong(".function.name` is another tool's name"));
        }
        let mut parameters = match function.parameters {
            None | Some(Value::Null) => json!({"properties": {}}),
            Some(parameters @ Value::Object(_)) => parameters,
            Some(_) => return Err(wrong(".function.parameters` is no schema")),
        };
        match parameters.get("type") {
            // Arguments are an object, whether the schema says so or not.
            None => parameters["type"] = "object".into(),
            Some(kind) if kind == "object" => {}
            Some(_) => return Err(wrong(".function.parameters` is no schema of an object")),
        }
        self.is_strict.push(function.strict == Some(true));
        self.tools.push(Tool { name, description: function.description.unwrap_or_default(), parameters });
        Ok(())
    }

    fn choose(&mut self, choice: &Value, count: CallCount) -> Result<CallRule, Refusal> {
        let wrong = |message: String| Err(Refusal::of("tool_choice", message));
        match choice.as_str() {
            Some("none") => return Ok(CallRule::Never),
            Some("auto") if self.tools.is_empty() => return Ok(CallRule::Never),
            Some("auto") => return Ok(CallRule::May(count)),
            _ if self.tools.is_empty() => return wrong("there are no `tools` to choose from".to_owned()),
            Some("required") => return Ok(CallRule::Must(count)),
            _ => {}
        }
        match choice["function"]["name"].as_str() {
            Some(name) => {
                self.chosen = self.tools.iter().position(|tool| tool.name == name);
                match self.chosen {
                    Some(_) => Ok(CallRule::Must(CallCount::One)),
                    None => wrong(format!("there is no tool `{name}`")),
                }
            }
            None => wrong("it is `auto`, `none`, `required`, or names a function".to_owned()),
        }
    }

    /// Returns the tools that may be called, as the grammar enforces them: where the model is free to call, a tool that
    /// is not strict and whose schema is beyond what can be enforced takes any object.
    pub(super) fn callable(&self, engine: &Engine) -> Result<Vec<Tool>, Refusal> {
        let is_callable = |idx: usize| match self.rule {
            CallRule::Never => false,
            CallRule::May(_) | CallRule::Must(_) => self.chosen.is_none_or(|chosen| chosen == idx),
        };
        let callable = self.tools.iter().enumerate().filter(|(idx, _)| is_callable(*idx));
        callable.map(|(idx, tool)| self.enforceable(engine, idx, tool.clone())).collect()
    }

    fn enforceable(&self, engine: &Engine, idx: usize, tool: Tool) -> Result<Tool, Refusal> {
        let is_lenient = matches!(self.rule, CallRule::May(_)) && !self.is_strict[idx];
        match engine.check_grammar(&GrammarSpec::JsonSchema(tool.parameters.clone())) {
            Ok(()) => Ok(tool),
            Err(engine::Error::Grammar(GrammarError::Unsupported(_) | GrammarError::TooExpensive(_)))
                if is_lenient =>
            {
                Ok(Tool { parameters: json!({"type": "object"}), ..tool })
            }
            Err(error) => {
                let place = format!("`tools[{idx}].function.parameters`");
                Err(Refusal::from(error).about("tools").within(&place))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(tools: Value, choice: Option<Value>, is_parallel: Option<bool>) -> Result<Offer, Refusal> {
        let tools = serde_json::from_value(tools).expect("tools");
        Offer::read(tools, choice.as_ref(), is_parallel)
    }

    fn tool(name: &str) -> Value {
        json!({"type": "function", "function": {"name": name}})
    }

    #[test]
    fn who_chooses_decides_whether_and_what_is_called() {
        let check = |choice: Option<Value>, is_parallel, rule: CallRule, chosen: Option<usize>| {
            let offer = read(json!([tool("a"), tool("b")]), choice, is_parallel).expect("an offer");
            assert_eq!((offer.rule, offer.chosen), (rule, chosen));
        };
        let named = json!({"type": "function", "function": {"name": "b"}});
        check(None, None, CallRule::May(CallCount::Many), None);
        check(Some(json!(null)), Some(true), CallRule::May(CallCount::Many), None);
        check(Some(json!("auto")), Some(false), CallRule::May(CallCount::One), None);
        check(Some(json!("none")), None, CallRule::Never, None);
        check(Some(json!("required")), None, CallRule::Must(CallCount::Many), None);
        check(Some(json!("required")), Some(false), CallRule::Must(CallCount::One), None);
        check(Some(named), None, CallRule::Must(CallCount::One), Some(1));
        let none = read(json!([]), Some(json!("auto")), None).expect("an offer of nothing");
        assert_eq!(none.rule, CallRule::Never);
    }

    #[test]
    fn a_wrong_tool_or_choice_is_refused_with_its_place() {
        let check = |tools: Value, choice: Option<Value>, param: &str, expected: &str| {
            let error = read(tools, choice, None).expect_err("refused").json()["error"].clone();
            assert_eq!(error["param"], param);
            assert!(error["message"].as_str().is_some_and(|told| told.contains(expected)), "{error}");
        };
        check(json!([tool("a"), tool("a")]), None, "tools", "`tools[1].function.name` is another");
        check(json!([tool("a b")]), None, "tools", "`tools[0].function.name` has");
        check(json!([{"type": "custom", "custom": {}}]), None, "tools", "`tools[0]` is no function");
        let text = json!({"name": "a", "parameters": {"type": "string"}});
        check(json!([{"type": "function", "function": text}]), None, "tools", "no schema of an object");
        check(json!([]), Some(json!("required")), "tool_choice", "no `tools`");
        check(json!([tool("a")]), Some(json!("any")), "tool_choice", "`auto`");
        let named = json!({"type": "function", "function": {"name": "b"}});
        check(json!([tool("a")]), Some(named), "tool_choice", "no tool `b`");
    }

    #[test]
    fn arguments_are_an_object_whether_the_schema_says_so_or_not() {
        let offer = read(json!([tool("a")]), None, None).expect("an offer");
        assert_eq!(offer.tools[0].parameters, json!({"properties": {}, "type": "object"}));
    }
}

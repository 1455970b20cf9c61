//! Grammars of tool calls, each as llguidance 1.9.1 took it: it accepted a list and a stop in every format, and
//! refused an unknown tool, missing arguments and plain text. Whoever changes one asks llguidance again.

use serde_json::json;

use super::*;

fn tools() -> Vec<Tool> {
    let list = json!({
        "type": "object",
        "properties": {
            "path": {"type": "string"},
            "depth": {"type": "integer"},
            "kind": {"type": "string", "enum": ["file", "dir \"x\""]},
            "by": {"$ref": "#/$defs/key"},
        },
        "required": ["path", "by"],
        "$defs": {"key": {"type": "array", "items": {"type": "string"}}},
    });
    let tool =
        |name: &str, parameters| Tool { name: name.to_owned(), description: "d".to_owned(), parameters };
    vec![tool("list", list), tool("stop", json!({"type": "object", "properties": {}}))]
}

const STYLE: &str =
    r#""x-guidance":{"item_separator":", ","key_separator":": ","whitespace_flexible":false}"#;
const OWN: &str = r##"{"type":"object","properties":{"path":{"type":"string"},"depth":{"type":"integer"},"kind":{"type":"string","enum":["file","dir \"x\""]},"by":{"$ref":"#/$defs/key"}},"required":["path","by"]}"##;
const DEFS: &str = r#""$defs":{"key":{"type":"array","items":{"type":"string"}}}"#;

#[track_caller]
fn check(format: ToolFormat, names: &[&str], trigger: &str, expect: &[&str]) {
    let grammar = tool_call_grammar(format, &tools(), &vocabulary(names)).expect("there are tools");
    assert_eq!(grammar.trigger, trigger);
    let lines: Vec<&str> = grammar.lark.lines().collect();
    assert_eq!(lines, expect, "{format:?}");
}

#[test]
fn each_format_has_its_grammar() {
    let head = "%llguidance {}";
    let named = |arguments: &str, more: &str, required: &str| {
        format!(
            r#"tool_0: %json {{"type":"object","properties":{{"name":{{"const":"list"}},"{arguments}":{OWN}{more}}},"required":["name","{arguments}"{required}],"additionalProperties":false,{DEFS},{STYLE}}}"#
        )
    };
    let stop = |arguments: &str, more: &str, required: &str| {
        format!(
            r#"tool_1: %json {{"type":"object","properties":{{"name":{{"const":"stop"}},"{arguments}":{{"type":"object","properties":{{}}}}{more}}},"required":["name","{arguments}"{required}],"additionalProperties":false,{STYLE}}}"#
        )
    };
    check(
        ToolFormat::Hermes,
        &[],
        "<tool_call>",
        &[
            head,
            r#"start: call ("\n" call)*"#,
            r#"call: "<tool_call>" "\n" (tool_0 | tool_1) "\n" "</tool_call>""#,
            &named("arguments", "", ""),
            &stop("arguments", "", ""),
        ],
    );
    check(
        ToolFormat::Mistral,
        &["[TOOL_CALLS]"],
        "[TOOL_CALLS]",
        &[
            head,
            r#"start: <[256]> "[" call (", " call)* "]""#,
            "call: tool_0 | tool_1",
            &named("arguments", r#","id":{"type":"string","pattern":"^[a-zA-Z0-9]{9}$"}"#, r#","id""#),
            &stop("arguments", r#","id":{"type":"string","pattern":"^[a-zA-Z0-9]{9}$"}"#, r#","id""#),
        ],
    );
    check(
        ToolFormat::Llama3,
        &NAMES,
        "{\"name\": \"",
        &[head, "start: tool_0 | tool_1", &named("parameters", "", ""), &stop("parameters", "", "")],
    );
    let own_with_defs = format!("{},{DEFS},{STYLE}}}", &OWN[..OWN.len() - 1]);
    check(
        ToolFormat::DeepSeek,
        &["<｜tool▁sep｜>"],
        "<｜tool▁calls▁begin｜>",
        &[
            head,
            r#"start: "<｜tool▁calls▁begin｜>" call ("\n" call)* "<｜tool▁calls▁end｜>""#,
            r#"call: "<｜tool▁call▁begin｜>" "function" <[256]> (tool_0 | tool_1) "\n```" "<｜tool▁call▁end｜>""#,
            r#"tool_0: "list\n```json\n" arguments_0"#,
            &format!("arguments_0: %json {own_with_defs}"),
            r#"tool_1: "stop\n```json\n" arguments_1"#,
            &format!(r#"arguments_1: %json {{"type":"object","properties":{{}},{STYLE}}}"#),
        ],
    );
}

#[test]
fn qwen_xmls_grammar_has_text_bare_and_the_rest_as_json() {
    check(
        ToolFormat::QwenXml,
        &["<tool_call>", "</tool_call>"],
        "<tool_call>",
        &[
            "%llguidance {}",
            r#"start: call ("\n" call)*"#,
            r#"call: <[256]> "\n" (tool_0 | tool_1) "\n" <[257]>"#,
            r#"tool_0: "<function=list>\n" parameter_0_0 parameter_0_1? parameter_0_2? parameter_0_3 "</function>""#,
            r#"parameter_0_0: "<parameter=path>\n" value_0_0"#,
            r#"value_0_0[suffix="\n</parameter>\n"]: /(?s:.*)/"#,
            r#"parameter_0_1: "<parameter=depth>\n" value_0_1 "\n</parameter>\n""#,
            &format!(r#"value_0_1: %json {{"type":"integer",{DEFS},{STYLE}}}"#),
            r#"parameter_0_2: "<parameter=kind>\n" value_0_2 "\n</parameter>\n""#,
            r#"value_0_2: "file" | "dir \"x\"""#,
            r#"parameter_0_3: "<parameter=by>\n" value_0_3 "\n</parameter>\n""#,
            &format!(r##"value_0_3: %json {{"$ref":"#/$defs/key",{DEFS},{STYLE}}}"##),
            r#"tool_1: "<function=stop>\n" "</function>""#,
        ],
    );
}

#[test]
fn without_tools_there_is_no_grammar() {
    assert_eq!(tool_call_grammar(ToolFormat::Hermes, &[], &vocabulary(&[])), None);
}

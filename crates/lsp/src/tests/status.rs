//! What the server says it is about, and where it keeps silent.

use serde_json::{Value, json};

use super::editor::{Editor, URI, never};
use super::model::real;
use crate::{LoadModel, LoadPhase, LoadStep};

fn states(editor: &Editor) -> Vec<Value> {
    let told = editor.heard.iter().filter(|message| message["method"] == "tandem/status");
    told.map(|message| message["params"]["state"].clone()).collect()
}

async fn status(editor: &mut Editor) -> Value {
    let id = editor.ask("tandem/status", json!({})).await;
    editor.answer(&id).await["result"].take()
}

async fn execute(editor: &mut Editor, command: &str, arguments: Value) -> Value {
    let id =
        editor.ask("workspace/executeCommand", json!({ "command": command, "arguments": arguments })).await;
    editor.answer(&id).await
}

/// Asks as an editor does while its user types, and returns how it was answered.
async fn outcome(editor: &mut Editor, uri: &str, trigger: i64) -> Value {
    let params = json!({
        "textDocument": { "uri": uri },
        "position": { "line": 0, "character": 4 },
        "context": { "triggerKind": trigger },
    });
    let id = editor.ask("textDocument/inlineCompletion", params).await;
    editor.answer(&id).await;
    let id = editor.ask("tandem/why", json!({ "textDocument": { "uri": uri } })).await;
    editor.answer(&id).await["result"]["outcome"].take()
}

#[tokio::test]
async fn a_model_that_loads_is_loading_and_then_ready() {
    let load = real();
    let slowly: LoadModel = Box::new(|hear| {
        hear(LoadStep::Progress { phase: LoadPhase::Fetching, fraction: 0.5 });
        load(hear)
    });
    let (mut editor, _) = Editor::start(slowly, json!({})).await;
    editor.wait_for(|message| message["params"]["state"] == "ready").await;
    let told: Vec<&Value> =
        editor.heard.iter().filter(|message| message["method"] == "tandem/status").collect();
    let first: Vec<&Value> = told.iter().take(2).map(|message| &message["params"]["fraction"]).collect();
    assert_eq!(first, [&json!(0.0), &json!(0.35)]);
    assert!(states(&editor).iter().rev().skip(1).all(|state| state == "loading"), "{:?}", states(&editor));
    assert_eq!(status(&mut editor).await, json!({ "state": "ready", "reason": null }));
    editor.quit().await;
}

#[tokio::test]
async fn a_model_that_cannot_be_had_is_an_error_with_its_reason() {
    let fails: LoadModel = Box::new(|_| Err("no model; hint: run `agent models pull`".to_owned()));
    let (mut editor, _) = Editor::start(fails, json!({})).await;
    let told = editor.wait_for(|message| message["params"]["state"] == "error").await;
    assert_eq!(told["params"]["reason"], "no model; hint: run `agent models pull`");
    editor.quit().await;
}

#[tokio::test]
async fn a_snooze_silences_what_nobody_asked_for_and_ends() {
    let (mut editor, _) = Editor::start(never(), json!({})).await;
    editor.open(URI, "x = ", 1).await;
    // It waits for the model, and is answered when the snooze begins.
    let waiting = editor
        .ask(
            "textDocument/inlineCompletion",
            json!({
                "textDocument": { "uri": URI },
                "position": { "line": 0, "character": 4 },
                "context": { "triggerKind": 2 },
            }),
        )
        .await;
    for refused in [json!([]), json!([{ "minutes": -1 }]), json!(["soon"])] {
        assert_eq!(execute(&mut editor, "tandem.snooze", refused).await["error"]["code"], -32602);
    }
    execute(&mut editor, "tandem.snooze", json!([{ "minutes": 5 }])).await;
    assert_eq!(editor.answer(&waiting).await["result"], Value::Null);
    assert_eq!(status(&mut editor).await, json!({ "state": "off", "reason": "it is snoozed" }));
    assert_eq!(outcome(&mut editor, URI, 2).await, "snoozed");
    // Who presses a key for it waits for the model.
    let invoked = editor.ask_at(URI, 0, 4).await;
    execute(&mut editor, "tandem.unsnooze", json!([])).await;
    assert_eq!(status(&mut editor).await["state"], "loading");
    assert_eq!(states(&editor), ["loading", "off", "loading"]);
    assert!(!editor.heard.iter().any(|message| message["id"] == invoked));
    editor.cancel(&invoked).await;
    editor.quit().await;
}

#[tokio::test]
async fn secrets_and_disabled_languages_never_reach_the_model_not_even_for_who_asks() {
    let (mut editor, _) = Editor::start(never(), json!({})).await;
    for (uri, options, expected) in [
        ("file:///r/.env", json!({}), "secret_file"),
        ("file:///r/k%65y.pem", json!({}), "secret_file"),
        ("untitled:/secrets.yaml", json!({}), "secret_file"),
        ("file:///r/a.py", json!({ "disabledLanguages": ["python"] }), "disabled_language"),
        ("file:///r/a.py", json!({ "languages": ["rust"] }), "disabled_language"),
        ("file:///r/a.py", json!({ "enable": false }), "disabled"),
    ] {
        editor.tell("workspace/didChangeConfiguration", json!({ "settings": { "tandem": options } })).await;
        editor.open(uri, "x = ", 1).await;
        for trigger in [1, 2] {
            assert_eq!(outcome(&mut editor, uri, trigger).await, expected, "{uri}");
        }
    }
    editor.quit().await;
}

#[tokio::test]
async fn a_line_with_much_behind_the_cursor_is_left_alone_while_its_user_types() {
    let (mut editor, _) = Editor::start(never(), json!({})).await;
    editor.open(URI, "x = (first_argument, second_argument)", 1).await;
    editor.change(URI, 2, json!([{ "text": "x =  (first_argument, second_argument)" }])).await;
    assert_eq!(outcome(&mut editor, URI, 2).await, "text_behind");
    editor.quit().await;
}

#[tokio::test]
async fn an_editor_without_ghost_text_has_it_in_its_list_and_says_when_it_was_accepted() {
    let (mut editor, capabilities) = Editor::start(real(), json!({})).await;
    assert!(capabilities["completionProvider"].is_object(), "{capabilities}");
    let code = "def area(w, h):\n    return w * h\n\n\ndef volume(w, h, d):\n    ret";
    editor.open(URI, code, 1).await;
    let position = json!({ "line": 5, "character": 7 });
    let params =
        json!({ "textDocument": { "uri": URI }, "position": position, "context": { "triggerKind": 1 } });
    let id = editor.ask("textDocument/completion", params).await;
    let list = editor.answer(&id).await["result"].take();
    assert_eq!(list["isIncomplete"], true);
    let item = &list["items"][0];
    let text = item["textEdit"]["newText"].as_str().expect("a text");
    assert!(text.starts_with("return"), "{list}");
    assert_eq!(item["textEdit"]["range"], json!({ "start": { "line": 5, "character": 4 }, "end": position }));
    let rest = &text[3..];
    editor.change(URI, 2, json!([{ "range": { "start": position, "end": position }, "text": rest }])).await;
    execute(&mut editor, "tandem.accepted", item["command"]["arguments"].clone()).await;
    let fates: Vec<_> = editor.fates.lock().expect("it").iter().map(|event| event.fate).collect();
    assert_eq!(fates[1..], [crate::fate::Fate::Accepted { n_chars: rest.chars().count() }]);
    let elsewhere = json!({ "line": 0, "character": 0 });
    let id = editor
        .ask("textDocument/completion", json!({ "textDocument": { "uri": URI }, "position": elsewhere }))
        .await;
    assert_eq!(editor.answer(&id).await["result"], json!({ "isIncomplete": true, "items": [] }));
    editor.quit().await;
}

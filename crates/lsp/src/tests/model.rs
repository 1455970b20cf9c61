//! The model: while it loads, when it cannot be had, and the real one.

use std::path::PathBuf;
use std::time::Duration;

use complete::Model;
use engine::{Engine, EngineOptions};
use serde_json::{Value, json};

use super::editor::{Editor, URI};
use crate::{LoadModel, LoadPhase, LoadStep};

fn fails() -> LoadModel {
    Box::new(|hear| {
        hear(LoadStep::Announce("a model of 98 MiB under Apache-2.0 is fetched".to_owned()));
        hear(LoadStep::Progress { phase: LoadPhase::Fetching, fraction: 0.5 });
        hear(LoadStep::Progress { phase: LoadPhase::Fetching, fraction: 0.6 });
        hear(LoadStep::Progress { phase: LoadPhase::Loading, fraction: 7.0 });
        Err("no model; hint: run `agent models pull`".to_owned())
    })
}

fn is_show(message: &Value, kind: i64) -> bool {
    message["method"] == "window/showMessage" && message["params"]["type"] == kind
}

#[tokio::test]
async fn a_model_that_cannot_be_had_is_said_once_and_requests_get_null() {
    let panics: LoadModel = Box::new(|_| panic!("on purpose"));
    for (load, expected) in [(fails(), "agent models pull"), (panics, "please report")] {
        let (mut editor, _) = Editor::start(load, json!({})).await;
        editor.open(URI, "x = ", 1).await;
        let early = editor.ask_at(URI, 0, 4).await;
        assert_eq!(editor.answer(&early).await["result"], Value::Null);
        let said = editor.wait_for(|message| is_show(message, 1)).await;
        assert!(said["params"]["message"].as_str().is_some_and(|text| text.contains(expected)), "{said}");
        for _ in 0..3 {
            let late = editor.ask_at(URI, 0, 4).await;
            assert_eq!(editor.answer(&late).await["result"], Value::Null);
        }
        assert_eq!(editor.heard.iter().filter(|message| is_show(message, 1)).count(), 1);
        let is_progress =
            |message: &&Value| message["method"].as_str().is_some_and(|name| name.contains("rogress"));
        assert_eq!(
            editor.heard.iter().find(is_progress),
            None,
            "an editor that shows no progress hears of none"
        );
        editor.quit().await;
    }
}

#[tokio::test]
async fn an_editor_that_shows_progress_is_asked_and_sees_begin_report_and_end() {
    let (mut editor, _) = Editor::start(fails(), json!({ "window": { "workDoneProgress": true } })).await;
    editor.wait_for(|message| is_show(message, 1)).await;
    assert!(editor.heard.iter().any(|message| is_show(message, 3)), "what is fetched is announced");
    let methods: Vec<&str> = editor.heard.iter().filter_map(|message| message["method"].as_str()).collect();
    let create = methods.iter().position(|&method| method == "window/workDoneProgress/create");
    let first = methods.iter().position(|&method| method == "$/progress");
    assert!(create.is_some() && create < first, "{methods:?}");
    let progress: Vec<String> = editor
        .heard
        .iter()
        .filter(|message| message["method"] == "$/progress")
        .map(|message| {
            let value = &message["params"]["value"];
            let title = value["title"].as_str().unwrap_or_default();
            let line = format!("{} {title} {} {}", value["kind"], value["message"], value["percentage"]);
            line.replace('"', "")
        })
        .collect();
    let expected = ["begin model null 0", "report  fetching 35", "report  loading 100", "end  failed null"];
    assert_eq!(progress, expected, "the second report of a phase came too soon after the first");
    editor.quit().await;
}

#[tokio::test]
async fn a_load_that_fails_ahead_of_its_first_step_has_begun_and_ended_too() {
    let fails: LoadModel = Box::new(|_| Err("no such model".to_owned()));
    let panics: LoadModel = Box::new(|_| panic!("on purpose"));
    for load in [fails, panics] {
        let (mut editor, _) = Editor::start(load, json!({ "window": { "workDoneProgress": true } })).await;
        editor.wait_for(|message| is_show(message, 1)).await;
        let of_bar = editor.heard.iter().filter(|message| message["method"] == "$/progress");
        let kinds: Vec<&Value> = of_bar.map(|message| &message["params"]["value"]["kind"]).collect();
        assert_eq!(kinds, ["begin", "end"]);
        editor.quit().await;
    }
}

#[tokio::test]
async fn an_editor_that_forgets_initialized_is_answered_too() {
    let mut editor = Editor::connect(fails());
    let id = editor.ask("initialize", json!({ "capabilities": {} })).await;
    editor.answer(&id).await;
    editor.open(URI, "x = ", 1).await;
    let id = editor.ask_at(URI, 0, 4).await;
    assert_eq!(editor.answer(&id).await["result"], Value::Null);
    editor.quit().await;
}

/// The model's file; these tests are about the real model and nothing else.
fn model_path() -> PathBuf {
    let path = std::env::var_os("TANDEM_TEST_MODEL");
    path.expect("TANDEM_TEST_MODEL is not set: run `cargo xtask model`, which prints its path").into()
}

pub(super) fn real() -> LoadModel {
    let path = model_path();
    Box::new(move |hear| {
        let mut progress = |fraction| hear(LoadStep::Progress { phase: LoadPhase::Loading, fraction });
        let engine = Engine::load(&path, EngineOptions::default(), &mut progress);
        engine.map(Model::Engine).map_err(|error| error.to_string())
    })
}

const PYTHON: &str = "# 😀\r\ndef add(a, b):\r\n    return a + b\r\n\r\ndef subtract(a, b):\r\n    return 😀";

#[tokio::test]
async fn the_real_model_completes_at_the_cursor_in_utf16_columns() {
    let (mut editor, _) = Editor::start(real(), json!({})).await;
    let text = PYTHON.replace(" 😀", " ");
    editor.open(URI, &format!("# 😀{}", &text[2..]), 1).await;
    let id = editor.ask_at(URI, 5, 11).await;
    let result = editor.answer(&id).await["result"].take();
    let items = result["items"].as_array().expect("ghost text");
    assert_eq!(items.len(), 1);
    assert!(items[0]["insertText"].as_str().is_some_and(|text| text.contains('a')), "{result}");
    let at = json!({ "line": 5, "character": 11 });
    assert_eq!(items[0]["range"], json!({ "start": at, "end": at }));
    editor.quit().await;
}

#[tokio::test]
async fn ghost_text_begins_with_the_item_selected_in_the_editors_list() {
    let (mut editor, _) = Editor::start(real(), json!({})).await;
    editor.open(URI, "import math\r\n\r\ndef area(radius):\r\n    return math.😀", 1).await;
    let range = json!({ "start": { "line": 3, "character": 15 }, "end": { "line": 3, "character": 18 } });
    let params = json!({
        "textDocument": { "uri": URI },
        "position": { "line": 3, "character": 18 },
        "context": { "triggerKind": 1, "selectedCompletionInfo": { "range": range, "text": ".pi" } },
    });
    let id = editor.ask("textDocument/inlineCompletion", params).await;
    let result = editor.answer(&id).await["result"].take();
    let item = &result["items"][0];
    assert!(
        item["insertText"].as_str().is_some_and(|text| text.starts_with(".pi") && text.len() > 3),
        "{result}"
    );
    assert_eq!(item["range"], range);
    editor.quit().await;
}

#[tokio::test]
async fn a_request_that_runs_is_cancelled_and_the_next_one_answered() {
    let (mut editor, _) = Editor::start(real(), json!({})).await;
    let code = "def area(w, h):\n    return w * h\n\n\ndef volume(w, h, d):\n    return ";
    editor.open(URI, code, 1).await;
    // Once this is answered the model is loaded, and what is asked next runs at once.
    let first = editor.ask_at(URI, 5, 11).await;
    assert!(editor.answer(&first).await["result"]["items"].is_array());
    // Another beginning: nothing of the first prompt's KV cache is of use, so all of it is computed again.
    let at = json!({ "line": 0, "character": 0 });
    let edit = json!([{ "range": { "start": at, "end": at }, "text": "# other\n" }]);
    editor.change(URI, 2, edit).await;
    let second = editor.ask_at(URI, 6, 11).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    editor.cancel(&second).await;
    assert_eq!(editor.answer(&second).await["error"]["code"], -32800);
    let third = editor.ask_at(URI, 6, 11).await;
    assert!(editor.answer(&third).await["result"]["items"].is_array());
    editor.quit().await;
}

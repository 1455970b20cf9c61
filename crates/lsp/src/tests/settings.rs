//! Settings, from the editor and from `tandem.toml`, folder by folder.

use std::path::Path;

use serde_json::{Value, json};

use super::editor::{Editor, never};
use crate::LoadModel;

const ALL: &str = r#"{
    "textDocument": { "inlineCompletion": {} },
    "workspace": {
        "configuration": true,
        "didChangeConfiguration": { "dynamicRegistration": true },
        "didChangeWatchedFiles": { "dynamicRegistration": true }
    }
}"#;

fn no_model() -> LoadModel {
    Box::new(|_| Err("not here".to_owned()))
}

fn uri(path: &Path) -> String {
    format!("file://{}", path.display())
}

fn write(dir: &Path, text: &str) {
    std::fs::write(dir.join("tandem.toml"), text).expect("written");
}

fn all() -> Value {
    serde_json::from_str(ALL).expect("JSON")
}

async fn begin(editor: &mut Editor, folders: &[&Path], capabilities: Value, options: Value) {
    let folders: Vec<Value> = folders.iter().map(|dir| json!({ "uri": uri(dir), "name": "x" })).collect();
    let params = json!({ "processId": null, "rootUri": null, "workspaceFolders": folders,
        "capabilities": capabilities, "initializationOptions": options });
    editor.initialize(params).await;
}

/// Opens a file of a folder, and returns what counts there and why nothing is shown.
async fn counts(editor: &mut Editor, dir: &Path, name: &str) -> Value {
    let uri = uri(&dir.join(name));
    editor.open(&uri, "x = ", 1).await;
    let id = editor.ask("tandem/status", json!({ "textDocument": { "uri": uri } })).await;
    editor.answer(&id).await["result"]["document"].take()
}

fn warnings(editor: &Editor) -> Vec<String> {
    let boxes = editor.heard.iter().filter(|message| message["method"] == "window/showMessage");
    let warnings = boxes.filter(|message| message["params"]["type"] == 2);
    warnings.map(|message| message["params"]["message"].to_string()).collect()
}

#[tokio::test]
async fn each_folder_has_its_own_file_and_the_editors_word_counts_more() {
    let (a, b) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    write(a.path(), "[complete]\nmax_lines = 1\nlook_ahead = false\n");
    write(b.path(), "[complete]\ndisabled_languages = ['python']\n");
    let mut editor = Editor::connect(no_model());
    editor.configuration =
        json!([{ "maxLines": 3 }, { "maxLines": 3 }, { "maxLines": 2, "lookAhead": null }]);
    begin(&mut editor, &[a.path(), b.path()], all(), json!({ "minConfidence": 0.5, "maxLines": 9 })).await;
    // The model is wanted only when the editor has said its settings.
    editor.wait_for(|message| message["params"]["state"] == "error").await;
    let asked = editor.wait_for(|message| message["method"] == "workspace/configuration").await;
    let scopes: Vec<&Value> =
        asked["params"]["items"].as_array().expect("items").iter().map(|item| &item["scopeUri"]).collect();
    assert_eq!(scopes, [&Value::Null, &json!(uri(a.path())), &json!(uri(b.path()))]);
    let in_a = counts(&mut editor, a.path(), "x.py").await;
    let settings = &in_a["settings"];
    assert_eq!((&settings["max_lines"], &settings["look_ahead"]), (&json!(3), &json!(false)));
    assert_eq!((&settings["min_confidence"], &in_a["refused"]), (&json!(0.5), &Value::Null));
    let in_b = counts(&mut editor, b.path(), "x.py").await;
    assert_eq!((&in_b["settings"]["max_lines"], &in_b["refused"]), (&json!(2), &json!("disabled_language")));
    assert_eq!(counts(&mut editor, b.path(), ".env.py").await["refused"], "secret_file");
    let outside = tempfile::tempdir().expect("a folder");
    let outside = counts(&mut editor, outside.path(), "x.py").await;
    assert_eq!(
        (&outside["settings"]["max_lines"], &outside["settings"]["look_ahead"]),
        (&json!(3), &json!(true))
    );
    editor.quit().await;
}

#[tokio::test]
async fn settings_and_folders_may_change_and_a_file_is_read_again_when_it_has() {
    let (a, b) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let mut editor = Editor::connect(never());
    editor.configuration = json!([{}, {}]);
    begin(&mut editor, &[a.path()], all(), Value::Null).await;
    let registered = editor.wait_for(|message| message["method"] == "client/registerCapability").await;
    let of = |method: &str| {
        let all = registered["params"]["registrations"].as_array().expect("a list");
        all.iter().find(|one| one["method"] == method).expect("registered")["registerOptions"].clone()
    };
    assert_eq!(of("workspace/didChangeConfiguration"), json!({ "section": "tandem" }));
    let watchers = json!([{ "globPattern": "**/tandem.toml" }]);
    assert_eq!(of("workspace/didChangeWatchedFiles"), json!({ "watchers": watchers }));
    assert_eq!(counts(&mut editor, a.path(), "x.py").await["refused"], Value::Null);

    write(a.path(), "[complete]\nenable = false\n");
    let changes = json!([{ "uri": uri(&a.path().join("tandem.toml")), "type": 1 }]);
    editor.tell("workspace/didChangeWatchedFiles", json!({ "changes": changes })).await;
    assert_eq!(counts(&mut editor, a.path(), "x.py").await["refused"], "disabled");
    editor
        .wait_for(|message| message["method"] == "tandem/status" && message["params"]["state"] == "off")
        .await;

    write(b.path(), "[complete]\nmax_lines = 7\n");
    let event = json!({ "added": [{ "uri": uri(b.path()), "name": "b" }], "removed": [{ "uri": uri(a.path()), "name": "a" }] });
    editor.tell("workspace/didChangeWorkspaceFolders", json!({ "event": event })).await;
    assert_eq!(counts(&mut editor, b.path(), "x.py").await["settings"]["max_lines"], 7);
    assert_eq!(counts(&mut editor, a.path(), "x.py").await["refused"], Value::Null);

    editor.configuration =
        json!([{ "disabledLanguages": ["python"] }, { "maxLines": 4, "disabledLanguages": [] }]);
    let n_asked = |editor: &Editor| {
        editor.heard.iter().filter(|message| message["method"] == "workspace/configuration").count()
    };
    let n_before = n_asked(&editor);
    editor
        .tell("workspace/didChangeConfiguration", json!({ "settings": { "tandem": { "enable": false } } }))
        .await;
    // It asks instead of believing what was pushed.
    let mut refused = Value::Null;
    while refused != "disabled_language" {
        refused = counts(&mut editor, a.path(), "x.py").await["refused"].take();
    }
    assert!(n_asked(&editor) > n_before);
    let in_b = counts(&mut editor, b.path(), "x.py").await;
    assert_eq!((&in_b["refused"], &in_b["settings"]["max_lines"]), (&Value::Null, &json!(4)));
    assert_eq!(warnings(&editor), [""; 0]);
    editor.quit().await;
}

#[tokio::test]
async fn an_editor_that_cannot_be_asked_is_believed() {
    let a = tempfile::tempdir().expect("a folder");
    write(a.path(), "[complete]\nmax_lines = 1\n");
    let mut editor = Editor::connect(never());
    let options = json!({ "tandem": { "min_confidence": 0.75 } });
    let params = json!({ "rootUri": uri(a.path()), "capabilities": {}, "initializationOptions": options });
    editor.initialize(params).await;
    let pushed = json!({ "settings": { "tandem": { "disabledLanguages": ["python"] } } });
    editor.tell("workspace/didChangeConfiguration", pushed).await;
    let found = counts(&mut editor, a.path(), "x.py").await;
    assert_eq!(found["refused"], "disabled_language");
    assert_eq!(
        (&found["settings"]["max_lines"], &found["settings"]["min_confidence"]),
        (&json!(1), &json!(0.75))
    );
    assert!(!editor.heard.iter().any(|message| message["method"] == "workspace/configuration"));
    editor.quit().await;
}

#[tokio::test]
async fn what_cannot_be_is_said_once_with_its_key_and_file() {
    let a = tempfile::tempdir().expect("a folder");
    write(
        a.path(),
        "[complete]\nmax_lines = 'many'\nmodel = '/tmp/other.gguf'\ndisabled_languages = ['python']\n",
    );
    let mut editor = Editor::connect(never());
    editor.configuration = json!([{ "minConfidence": 7, "lookAhead": false }, { "minConfidence": 7 }]);
    begin(&mut editor, &[a.path()], all(), Value::Null).await;
    editor.wait_for(|message| message["params"]["message"].to_string().contains("min")).await;
    let found = counts(&mut editor, a.path(), "x.py").await;
    assert_eq!(
        (&found["refused"], &found["settings"]["look_ahead"]),
        (&json!("disabled_language"), &json!(false))
    );
    let changes = json!([{ "uri": uri(&a.path().join("tandem.toml")), "type": 2 }]);
    editor.tell("workspace/didChangeWatchedFiles", json!({ "changes": changes })).await;
    write(a.path(), "[complete\n");
    editor.tell("workspace/didChangeWatchedFiles", json!({ "changes": changes })).await;
    editor.wait_for(|message| message["params"]["message"].to_string().contains("not TOML")).await;
    assert_eq!(
        counts(&mut editor, a.path(), "x.py").await["refused"],
        "disabled_language",
        "what was read stays"
    );
    let warnings = warnings(&editor);
    assert_eq!(warnings.len(), 3, "{warnings:#?}");
    for part in ["tandem.toml", "`complete.max_lines`", "`complete.model`", "left out"] {
        assert!(warnings[0].contains(part), "{part}: {}", warnings[0]);
    }
    assert_eq!(warnings[1].matches("minConfidence").count(), 1, "{}", warnings[1]);
    editor.quit().await;
}

#[tokio::test]
async fn a_settings_file_that_is_none_holds_nothing_up() {
    let a = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(a.path().join("tandem.toml")).expect("a folder");
    let mut editor = Editor::connect(never());
    begin(&mut editor, &[a.path()], json!({}), Value::Null).await;
    assert_eq!(counts(&mut editor, a.path(), "x.py").await["refused"], Value::Null);
    editor.wait_for(|message| message["params"]["message"].to_string().contains("not a file")).await;
    editor.quit().await;
}

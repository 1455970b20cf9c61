//! What the model sees of other files: two files, a session, and the real model.

use serde_json::{Value, json};

use super::editor::Editor;
use super::model::real;

const MAIN: &str = "from area import area\n\n\ndef volume(width, height, depth):\n    return \n";

/// Asks, and returns what `tandem/why` says of it.
async fn ask(editor: &mut Editor, uri: &str, line: u32, character: u32) -> Value {
    let id = editor.ask_at(uri, line, character).await;
    editor.answer(&id).await;
    let id = editor.ask("tandem/why", json!({ "textDocument": { "uri": uri } })).await;
    editor.answer(&id).await["result"].take()
}

/// Asks at places far apart until the prompt satisfies, since a context that is late waits for the next one.
async fn ask_until(editor: &mut Editor, uri: &str, version: &mut i32, is_it: impl Fn(&str) -> bool) -> Value {
    for _ in 0..50 {
        // A blank line more: no answer of before holds.
        *version += 1;
        let at = json!({ "line": 2, "character": 0 });
        editor
            .change(
                uri,
                *version,
                json!([{ "range": { "start": at, "end": at }, "text": "# x\n".repeat(12) }]),
            )
            .await;
        let line = 4 + 12 * (*version as u32 - 1);
        let why = ask(editor, uri, line, 11).await;
        if why["prompt"].as_str().is_some_and(&is_it) {
            return why;
        }
    }
    panic!("the prompt is never as expected");
}

#[tokio::test]
async fn a_function_of_another_file_is_in_the_prompt_as_that_file_is_now() {
    let folder = tempfile::tempdir().expect("a folder");
    let uri = |name: &str| format!("file://{}", folder.path().join(name).display());
    std::fs::write(folder.path().join("area.py"), "def area(width: float): pass\n").expect("written");
    let mut editor = Editor::connect(real());
    let folders = json!([{ "uri": uri(""), "name": "w" }]);
    let params = json!({
        "capabilities": {}, "workspaceFolders": folders, "initializationOptions": { "context": "repo" },
    });
    let id = editor.ask("initialize", params).await;
    editor.answer(&id).await;
    editor.tell("initialized", json!({})).await;
    let (main, area) = (uri("main.py"), uri("area.py"));
    editor.open(&main, MAIN, 1).await;
    let mut version = 1;
    ask_until(&mut editor, &main, &mut version, |prompt| {
        prompt.starts_with("# area.py\ndef area(width: float): ...\n")
    })
    .await;
    // Opened, it is what the editor says; closed, what is on the disk.
    editor.open(&area, "def area(radius: int): pass\n", 1).await;
    ask_until(&mut editor, &main, &mut version, |prompt| prompt.contains("def area(radius: int)")).await;
    editor.tell("textDocument/didClose", json!({ "textDocument": { "uri": area } })).await;
    let why =
        ask_until(&mut editor, &main, &mut version, |prompt| prompt.contains("def area(width: float)")).await;
    assert!(why["n_prompt"].as_u64() > Some(0));

    // While the context stands, a key costs its own tokens.
    let line = 4 + 12 * (version as u32 - 1);
    for (idx, typed) in ["q", "z", "_", "(", "j"].into_iter().enumerate() {
        let character = 11 + idx as u32;
        let at = json!({ "line": line, "character": character });
        version += 1;
        editor.change(&main, version, json!([{ "range": { "start": at, "end": at }, "text": typed }])).await;
        let why = ask(&mut editor, &main, line, character + 1).await;
        if why["source"] == "model" {
            assert!(why["prompt"].as_str().is_some_and(|prompt| prompt.starts_with("# area.py\n")), "{why}");
            assert!(why["n_prefilled"].as_u64() <= Some(8), "{why}");
        }
    }
    editor.quit().await;
}

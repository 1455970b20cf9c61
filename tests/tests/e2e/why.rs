//! `agent why` in situations whose reason is known, and `agent stats` after a session.

use e2e::{Home, run, text};
use serde_json::Value;

/// What is said of `$0` in a file of its own folder, which has a `tandem.toml` if `toml` says something.
fn why(file: &str, marked: &str, toml: &str, more: &[&str]) -> (String, Value) {
    let home = Home::new();
    let folder = home.path().join("project");
    std::fs::create_dir(&folder).unwrap();
    if !toml.is_empty() {
        std::fs::write(folder.join("tandem.toml"), toml).unwrap();
    }
    let at = marked.find("$0").unwrap();
    let path = folder.join(file);
    std::fs::write(&path, marked.replace("$0", "")).unwrap();
    let before = &marked[..at];
    let column = before.rsplit('\n').next().unwrap().chars().count() + 1;
    let place = format!("{}:{}:{column}", path.display(), before.matches('\n').count() + 1);
    let said = run(home.agent().args(["why", &place]).args(more));
    assert!(said.status.success(), "{marked:?}: {}", text(&said.stderr));
    let json = run(home.agent().args(["why", "--json", &place]).args(more));
    (text(&said.stdout).to_owned(), serde_json::from_slice(&json.stdout).unwrap())
}

#[test]
fn what_would_be_shown_and_why_is_said_rightly_in_eleven_situations() {
    let check = |file: &str, marked: &str, toml: &str, more: &[&str], outcome: &str, words: &[&str]| {
        let (said, json) = why(file, marked, toml, more);
        assert_eq!(json["outcome"], outcome, "{file} {marked:?}: {said}");
        assert!(words.iter().all(|word| said.contains(word)), "{file} {marked:?}: {said}");
    };
    let area = "def area(width, height):\n    return $0\n";
    let (said, json) = why("a.py", area, "", &[]);
    assert_eq!(json["outcome"], "shown", "{said}");
    assert!(said.starts_with("Shown (line 2, automatic): `width * height`"), "{said}");
    assert!(said.contains("% sure") && said.contains("from the KV cache"), "{said}");
    assert_eq!(json["prompt"], "def area(width, height):\n    return ", "the exact prompt");

    check(
        "a.py",
        "$0",
        "",
        &[],
        "nothing_before",
        &["nothing stands before the cursor", "No model was asked"],
    );
    check("a.py", "pri$0nt(1)\n", "", &[], "inside_word", &["inside a word"]);
    check("a.py", "pri$0nt(1)\n", "", &["--invoked"], "shown", &["invoked"]);
    check("a.py", "x = $0width * height + width * height + depth\n", "", &[], "inside_word", &[]);
    check(
        "a.py",
        "x = $0 + height * width + height * width + depth\n",
        "",
        &[],
        "text_behind",
        &["behind the cursor"],
    );
    check(".env", "KEY=1\nTOKEN=$0\n", "", &["--invoked"], "secret_file", &["secret"]);
    let off = "[complete]\nenable = false\n";
    check("a.py", area, off, &["--invoked"], "disabled", &["settings"]);
    let no_python = "[complete]\ndisabled_languages = [\"python\"]\n";
    check("a.py", area, no_python, &[], "disabled_language", &["in this language"]);
    let very_sure = "[complete]\nmin_confidence = 0.99\n";
    check("a.py", area, very_sure, &[], "unsure", &["sure", "99 %"]);
    let there = "def area(width, height):\n    return width * heig$0\n    return width * height\n";
    check("a.py", there, "", &[], "already_there", &["follows the cursor already"]);
    let zeros = format!("xs = [{}$0\n", "0, ".repeat(40));
    check("a.py", &zeros, "", &["--invoked"], "repeats", &["again and again"]);
}

//! `agent complete`, as a person or a script calls it.

use e2e::{Home, run, text};
use serde_json::Value;

#[test]
fn a_completion_is_printed_healed_at_the_cursor() {
    let home = Home::new();
    let file = home.path().join("read.py");
    std::fs::write(&file, "def read_lines(path):\n    with open(path) as f:\n        retur\n").unwrap();
    let place = format!("{}:3:14", file.display());
    let plain = run(home.agent().args(["complete", &place]));
    assert!(plain.status.success());
    assert!(text(&plain.stdout).starts_with("n "), "`retur` goes on with n, not with another token");

    let output = run(home.agent().args(["complete", "--json", &place]));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["insert"].as_str().unwrap(), text(&plain.stdout).trim_end_matches('\n'));
    assert!(json["n_prompt"].as_u64().unwrap() > 10);
    assert_eq!(json["n_reused"], 0);
    assert!(json["ttft_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(json["reason"], Value::Null);
}

#[test]
fn no_completion_comes_with_its_reason_and_mistakes_with_a_hint() {
    let home = Home::new();
    let file = home.path().join("a.py");
    std::fs::write(&file, "\nx = 1\n").unwrap();
    let output = run(home.agent().args(["complete", "--json", &format!("{}:1:1", file.display())]));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["reason"], "nothing_before");

    let check = |place: String, expected: &str| {
        let output = run(home.agent().args(["complete", &place]));
        assert_eq!(output.status.code(), Some(2), "{place}");
        assert!(text(&output.stderr).contains(expected), "{place}");
    };
    check(format!("{}:9:1", file.display()), "has 3 lines, not 9");
    check(format!("{}:2:99", file.display()), "line 2 ends at column 6");
    check(file.display().to_string(), "is not FILE:LINE:COL");
    check("nowhere.py:1:1".into(), "cannot read nowhere.py");
    std::fs::write(&file, b"x = '\xff'\n").unwrap();
    check(format!("{}:1:1", file.display()), "is not UTF-8 at byte 5");
}

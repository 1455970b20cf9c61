//! A record in sentences, for a human who asks why.
//!
//! In: a request's record. Out: a few lines.
//! Never: says what the record does not hold.

use serde_json::Value;

/// Characters of ghost text that are quoted.
const N_QUOTED: usize = 60;

/// Returns what a record says; `because` is why nothing was shown, if nothing was.
pub(super) fn account(record: &Value, because: Option<&str>) -> Vec<String> {
    let number = |name: &str| record[name].as_u64().unwrap_or_default();
    let ms = |name: &str| record["ms"][name].as_f64().unwrap_or_default();
    let place = format!("line {}, {}", number("line") + 1, record["trigger"].as_str().unwrap_or_default());
    let mut lines = vec![match (because, record["text"].as_str()) {
        (Some(because), _) => format!("Nothing was shown ({place}): {because}."),
        (None, text) => format!("Shown ({place}): {}", quoted(text.unwrap_or_default())),
    }];
    if let Some(sure) = record["confidence"].as_f64() {
        let least = match record["min_confidence"].as_f64() {
            Some(least) if record["trigger"] == "automatic" => {
                format!("; {} are asked for while typing", percent(least))
            }
            _ => String::new(),
        };
        lines.push(format!("The model was {} sure of its line{least}.", percent(sure)));
    }
    lines.push(match record["source"].as_str() {
        Some("cache") => format!(
            "No model was asked: {} bytes of an earlier answer had been typed, and the rest of it still holds. It took {:.1} ms.",
            number("n_typed"),
            ms("total")
        ),
        Some("model") => format!(
            "The model read {} tokens, {} of them from the KV cache, and wrote {}, those it chose among included. It took {:.0} ms: \
             {:.0} waiting, {:.0} reading, {:.0} writing.",
            number("n_prompt"),
            number("n_reused"),
            number("n_generated"),
            ms("total"),
            ms("queue"),
            ms("prefill"),
            ms("decode")
        ),
        _ => format!("No model was asked. It took {:.1} ms.", ms("total")),
    });
    if let (Some(prompt), Some(most)) = (record["prompt"].as_str(), record["n_max_prefix_bytes"].as_u64()) {
        let n_lines = prompt.lines().count();
        lines.push(format!(
            "It saw {} bytes before the cursor, {n_lines} lines, of the {most} that it may see.",
            prompt.len()
        ));
    }
    lines
}

fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

fn quoted(text: &str) -> String {
    let n_lines = text.lines().count();
    let mut line: String = text.lines().next().unwrap_or_default().chars().take(N_QUOTED).collect();
    if line.len() < text.lines().next().unwrap_or_default().len() {
        line.push('…');
    }
    let more = if n_lines > 1 { format!(" and {} lines more", n_lines - 1) } else { String::new() };
    format!("`{line}`{more}.")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::account;

    #[test]
    fn a_record_is_told_in_sentences() {
        let record = json!({
            "outcome": "shown", "line": 11, "trigger": "automatic", "text": "foo(1)\n    bar", "source": "model",
            "confidence": 0.824, "min_confidence": 0.25, "n_prompt": 577, "n_reused": 576, "n_generated": 12,
            "ms": {"total": 61.2, "queue": 0.1, "prefill": 6.6, "decode": 54.4}, "prompt": "a\nb", "n_max_prefix_bytes": 2048,
        });
        let lines = account(&record, None);
        assert_eq!(lines[0], "Shown (line 12, automatic): `foo(1)` and 1 lines more.");
        assert_eq!(lines[1], "The model was 82 % sure of its line; 25 % are asked for while typing.");
        assert!(
            lines[2].contains("read 577 tokens, 576 of them from the KV cache, and wrote 12"),
            "{lines:?}"
        );
        assert!(lines[2].contains("61 ms: 0 waiting, 7 reading, 54 writing"), "{lines:?}");
        assert_eq!(lines[3], "It saw 3 bytes before the cursor, 2 lines, of the 2048 that it may see.");

        let record = json!({
            "outcome": "inside_word", "line": 0, "trigger": "automatic", "text": null, "source": "none", "ms": {"total": 0.04},
        });
        let lines = account(&record, Some("the cursor is inside a word"));
        assert_eq!(lines[0], "Nothing was shown (line 1, automatic): the cursor is inside a word.");
        assert_eq!(lines[1..], ["No model was asked. It took 0.0 ms."]);

        let record = json!({
            "outcome": "shown", "line": 0, "trigger": "invoked", "text": "x", "source": "cache", "n_typed": 3,
            "ms": {"total": 1.0},
        });
        assert!(account(&record, None)[1].starts_with("No model was asked: 3 bytes of an earlier answer"));
    }
}

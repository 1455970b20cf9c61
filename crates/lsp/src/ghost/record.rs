//! How the last request of each document was answered, for who asks why.
//!
//! In: answers. Out: JSON for `tandem/why`.
//! Never: reaches a log; it holds the text that the model saw (I-9).

use std::collections::HashMap;
use std::time::Duration;

use complete::{GhostText, NoneReason, Options};
use serde_json::{Value, json};

use super::account::account;
use super::{Origin, Waiting};

/// The newest record of each document.
#[derive(Default)]
pub(super) struct Records {
    by_uri: HashMap<String, Value>,
}

impl Records {
    pub(super) fn insert(
        &mut self,
        open: &Waiting,
        result: Result<&GhostText, NoneReason>,
        origin: &Origin,
        options: &Options,
    ) {
        let mut record = json!({
            "outcome": result.err().map_or("shown", NoneReason::name),
            "version": open.version,
            "trigger": match open.place.trigger {
                complete::Trigger::Invoked => "invoked",
                complete::Trigger::Automatic => "automatic",
            },
            "line": open.place.document.line_of(open.place.offset),
            "text": result.ok().map(|ghost| &ghost.insert),
            "source": match origin {
                Origin::Gate => "none",
                Origin::Cache { .. } => "cache",
                Origin::Model { .. } => "model",
            },
            "n_prompt": 0, "n_reused": 0, "n_prefilled": 0, "n_scored": 0, "n_generated": 0,
            "ms": {"total": ms(open.since.elapsed())},
        });
        match origin {
            Origin::Gate => {}
            Origin::Cache { n_typed, .. } => record["n_typed"] = json!(n_typed),
            Origin::Model { statistics, prompt, logprobs, .. } => {
                record["prompt"] = json!(prompt);
                record["logprobs"] = json!(logprobs);
                record["n_prompt"] = json!(statistics.n_prompt);
                record["n_reused"] = json!(statistics.n_reused);
                record["n_prefilled"] = json!(statistics.n_prompt - statistics.n_reused);
                record["n_scored"] = json!(statistics.n_scored);
                record["n_generated"] = json!(statistics.n_generated);
                record["ms"]["queue"] = json!(ms(statistics.timings.queue));
                record["ms"]["prefill"] = json!(ms(statistics.timings.prefill));
                record["ms"]["decode"] = json!(ms(statistics.timings.decode));
            }
        }
        let evidence = origin.evidence();
        if evidence.n_tokens > 0 {
            record["confidence"] = json!(evidence.confidence);
            record["min_confidence"] = json!(options.min_confidence);
        }
        record["n_max_prefix_bytes"] = json!(options.n_max_prefix_bytes);
        record["account"] = json!(account(&record, result.err().map(NoneReason::explanation)));
        self.by_uri.insert(open.uri.clone(), record);
    }

    pub(super) fn forget(&mut self, uri: &str) {
        self.by_uri.remove(uri);
    }

    pub(super) fn why(&self, uri: &str) -> Option<Value> {
        self.by_uri.get(uri).cloned()
    }
}

fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e4).round() / 10.0
}

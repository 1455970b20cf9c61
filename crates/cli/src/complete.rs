//! `agent complete FILE:LINE:COL`: one completion on the command line, as an editor would get it.

use std::io::Write as _;

use clap::Args;
use complete::text_model::{self, Unavailable};
use complete::{Completion, Options, Request, Trigger};
use engine::CancelToken;
use serde_json::{Value, json};
use text::Document;

use crate::endpoint::{EndpointModel, GhostEndpointArgs};
use crate::failure::{Failure, code};
use crate::model;
use crate::place::Place;

/// Print the completion at a place in a file
#[derive(Args, Debug)]
pub(crate) struct CompleteArgs {
    /// FILE:LINE:COL, both counted from 1, COL in characters; FILE may be `-` for standard input
    place: String,
    /// Print JSON with tokens, timings and the reason when there is no completion
    #[arg(long)]
    json: bool,
    /// Most tokens to generate
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    #[command(flatten)]
    endpoint: GhostEndpointArgs,
    #[command(flatten)]
    engine: model::EngineArgs,
}

pub(crate) fn run(args: &CompleteArgs) -> Result<u8, Failure> {
    let place = Place::parse(&args.place)?;
    let text = place.read()?;
    let document = Document::open(&text, 1).snapshot();
    let offset = place.offset(&text)?;
    let endpoint = args.endpoint.choose()?;
    let mut options = endpoint.as_ref().map_or_else(Options::default, EndpointModel::options);
    if let Some(n) = args.max_tokens {
        options.n_max_tokens = n;
        options.decode_time = std::time::Duration::MAX;
        options.answer_time_invoked = std::time::Duration::MAX;
    }
    let mut trees = complete::clean::Trees::default();
    trees.open(&place.file, "");
    let tree = trees.update(&place.file, &document).cloned();
    let request = Request {
        document: &document,
        offset,
        trigger: Trigger::Invoked,
        tree: tree.as_ref(),
        context: None,
    };
    let (mut completion, model) = match endpoint {
        Some(model) => by_endpoint(&model, &request, &options)?,
        None => {
            let (engine, installed) = model::load(&args.engine)?;
            let cancel = CancelToken::new();
            let completion = complete::complete(&engine, &request, &options, "", &mut |_| true, &cancel)?;
            (completion, json!({"model_sha256": installed.sha256.to_string()}))
        }
    };

    completion.result = completion.result.and_then(|ghost| trees.clean(&place.file, &request, ghost));

    let mut stdout = std::io::stdout().lock();
    if args.json {
        writeln!(stdout, "{}", report(&completion, model))?;
    } else {
        match &completion.result {
            Ok(ghost) => writeln!(stdout, "{}", ghost.insert)?,
            Err(reason) => say!("no completion: {}", reason.name().replace('_', " ")),
        }
    }
    Ok(code::OK)
}

/// Returns the completion, and what `--json` says of the model.
fn by_endpoint(
    model: &EndpointModel,
    request: &Request<'_>,
    options: &Options,
) -> Result<(Completion, Value), Failure> {
    say!("{}", model.where_text_goes());
    let completion = text_model::complete(model, request, options, &mut |_| true, &CancelToken::new());
    let completion = completion.map_err(|why| match why {
        Unavailable::Failed(error) => match error.downcast::<remote::Error>() {
            Ok(error) => Failure::from(*error),
            Err(error) => Failure::new(code::MODEL, &*error),
        },
        Unavailable::Resting => Failure::new(code::MODEL, &why),
    })?;
    Ok((completion, json!({"endpoint": model.url(), "endpoint_model": model.name()})))
}

fn report(completion: &Completion, model: Value) -> Value {
    let statistics = &completion.statistics;
    let ms = |duration: std::time::Duration| (duration.as_secs_f64() * 1e4).round() / 10.0;
    let mut report = json!({
        "insert": completion.result.as_ref().ok().map(|ghost| &ghost.insert),
        "reason": completion.result.as_ref().err().map(|reason| reason.name()),
        "n_prompt": statistics.n_prompt,
        "n_reused": statistics.n_reused,
        "n_scored": statistics.n_scored,
        "n_generated": statistics.n_generated,
        "queue_ms": ms(statistics.timings.queue),
        "prefill_ms": ms(statistics.timings.prefill),
        "ttft_ms": ms(statistics.timings.ttft),
        "decode_ms": ms(statistics.timings.decode),
    });
    if let (Some(report), Value::Object(model)) = (report.as_object_mut(), model) {
        report.extend(model);
    }
    report
}

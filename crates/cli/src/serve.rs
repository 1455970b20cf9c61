//! `agent serve`: the engine as a process of its own, which other commands start when they need it.
//!
//! In: a model, and by choice an address for HTTP. Out: answers over a Unix socket and HTTP; a log in the data
//! directory.
//! Never: listens where another user or machine could call.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use ::models::Dirs;
use ::serve::{Address, BoundedLog, Claim, HttpOptions, ModelFile, ServeOptions, StopFlag};
use clap::Args;
use engine::Engine;

use crate::failure::{Failure, code};
use crate::log_filter;
use crate::model::{ModelArgs, find, share};
use crate::models::ensure_with_progress;
use crate::trace::TraceArgs;

/// Run the engine for all editors and agents of yours; they start it themselves when it is not there
#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// Answer HTTP too, at an address of loopback such as 127.0.0.1:8012; port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    http: Option<SocketAddr>,
    /// Key that callers over HTTP must send; TANDEM_API_KEY does the same and is not seen in `ps`
    #[arg(long, value_name = "KEY", requires = "http")]
    api_key: Option<String>,
    /// Leave when nobody has been here for so long, 0 for never; 600 without --http, else 0; TANDEM_IDLE_SECONDS
    /// does the same
    #[arg(long, value_name = "SECONDS")]
    idle: Option<u64>,
    /// Say in JSON what the server that runs for the model is doing
    #[arg(long, conflicts_with_all = ["http", "stop", "idle", "trace"])]
    status: bool,
    /// End the server that runs for the model
    #[arg(long, conflicts_with_all = ["http", "idle", "trace"])]
    stop: bool,
    /// Started by another command: a session of its own
    #[arg(long, hide = true)]
    detached: bool,
    #[command(flatten)]
    trace: TraceArgs,
    #[command(flatten)]
    model: ModelArgs,
}

/// What an on-demand server waits for its next client.
const DEFAULT_IDLE_SECONDS: u64 = 600;

pub(crate) fn run(args: &ServeArgs) -> Result<u8, Failure> {
    if args.detached {
        // It fails for who says it in a shell, where the terminal's own session does no harm.
        let _ = ::serve::become_detached();
    }
    let http = args.http.map(|address| HttpOptions::new(address, key(args))).transpose()?;
    let idle = idle(args)?;
    let installed = ensure_with_progress(args.model.model.as_deref(), args.model.offline)?;
    let kv = args.model.kv_type()?;
    let (model, address) = find(&installed, kv)?;
    if args.status {
        return status(&address);
    }
    if args.stop {
        ::serve::ask_to_stop(&address)?;
        say!("the server of {} ends", model.name());
        return Ok(code::OK);
    }
    start_log(&address)?;
    let stop = StopFlag::new();
    let raised = stop.clone();
    ctrlc::set_handler(move || raised.raise()).map_err(|error| Failure::new(code::INTERNAL, &error))?;
    let (engine, claim, trace) = match Claim::take(&address) {
        Ok(claim) => {
            let engine = Engine::load(model.path(), args.model.engine_options()?, &mut |_| {})?;
            if let Some(remark) = engine.remark() {
                say!("{remark}");
            }
            let (engine, trace) = args.trace.record(engine, &installed, kv)?;
            (engine, Some(claim), trace)
        }
        Err(::serve::Error::Served { pid }) if args.trace.is_named() => {
            let message = format!("process {pid} serves {} already, without this trace", model.name());
            return Err(Failure::usage(message).hint("`agent serve --stop` ends it"));
        }
        // Its engine answers our HTTP.
        Err(::serve::Error::Served { pid }) if http.is_some() => {
            say!("process {pid} runs the model; this one adds HTTP to it");
            let (engine, remark) = share(&installed, &args.model.engine_options()?)?;
            if let Some(remark) = remark {
                say!("{remark}");
            }
            (engine, None, None)
        }
        Err(::serve::Error::Served { pid }) => {
            // Without a word where nobody reads: whoever started us finds the other one.
            if !args.detached {
                say!("process {pid} serves {} already", model.name());
            }
            return Ok(code::OK);
        }
        Err(error) => return Err(error.into()),
    };
    let mut on_ready = ready(args, &model);
    let served = ::serve::serve(ServeOptions { engine, model, claim, idle, http }, &mut on_ready, &stop);
    if let Some(trace) = trace {
        // Here, because a request that did not end in time may still hold the engine.
        trace.finish();
    }
    served?;
    Ok(code::OK)
}

fn key(args: &ServeArgs) -> String {
    args.api_key.clone().or_else(|| std::env::var("TANDEM_API_KEY").ok()).unwrap_or_default()
}

fn idle(args: &ServeArgs) -> Result<Option<Duration>, Failure> {
    let variable = std::env::var("TANDEM_IDLE_SECONDS").unwrap_or_default();
    let seconds = match (args.idle, variable.as_str()) {
        (Some(seconds), _) => seconds,
        (None, "") if args.http.is_some() => 0,
        (None, "") => DEFAULT_IDLE_SECONDS,
        (None, text) => text
            .parse()
            .map_err(|_| Failure::usage(format!("TANDEM_IDLE_SECONDS is no number of seconds: {text}")))?,
    };
    Ok((seconds > 0).then(|| Duration::from_secs(seconds)))
}

fn status(address: &Address) -> Result<u8, Failure> {
    use std::io::Write as _;
    writeln!(std::io::stdout(), "{:#}", ::serve::ask_status(address)?)?;
    Ok(code::OK)
}

/// Logs to a file of the model's own: a server that was started on demand has no terminal.
fn start_log(address: &Address) -> Result<(), Failure> {
    let path = Dirs::from_env()?.data().join("logs").join(format!("serve-{}.log", address.tag()));
    let log = Mutex::new(BoundedLog::open(&path)?);
    tracing_subscriber::fmt().with_env_filter(log_filter("info")).with_writer(log).with_ansi(false).init();
    Ok(())
}

/// Tells whoever started it by hand that it serves, and where.
fn ready(args: &ServeArgs, model: &ModelFile) -> impl FnMut(Option<SocketAddr>) + use<> {
    let (is_detached, name) = (args.detached, model.name().to_owned());
    move |http| match http {
        _ if is_detached => {}
        Some(address) => say!("serving {name} at http://{address}"),
        None => say!("serving {name}"),
    }
}

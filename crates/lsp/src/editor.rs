//! What the server asks of its editor.
//!
//! In: the main loop's wishes. Out: `client/registerCapability`, `workspace/configuration`; what comes of them as events.
//! Never: holds anything up; some editors never answer.
//! Thread: tasks of the transport's.
//! Source: LSP 3.17, "Register Capability", "Configuration Request", "DidChangeWatchedFiles Notification".

use std::time::Duration;

use crossbeam_channel::Sender;
use serde_json::{Value, json};
use tower_lsp::Client;
use tower_lsp::ls_types::{ConfigurationItem, Registration, notification::Notification};

use crate::folders::FILE;
use crate::from_proto;
use crate::main_loop::Event;

/// The files whose changes the editor tells of, as globs: all that the server reads itself.
const WATCHED: &[&str] = &[FILE];
/// How long the editor may take to say its settings; ghost text waits for them.
const CONFIGURATION_TIMEOUT: Duration = Duration::from_secs(2);

/// What an editor lets the server ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Can {
    /// `workspace/configuration`.
    pub(crate) configuration: bool,
    /// To be told of its changes.
    pub(crate) register_configuration: bool,
    /// To be told of files' changes.
    pub(crate) register_files: bool,
}

/// `tandem/status`, to the editor.
pub(crate) enum StatusChanged {}

impl Notification for StatusChanged {
    type Params = Value;
    const METHOD: &'static str = "tandem/status";
}

/// Asks to be told of what changes outside of the open documents.
pub(crate) async fn register(client: Client, can: Can) {
    let mut registrations = Vec::new();
    let mut add = |method: &str, options: Value| {
        let (id, method) = (format!("tandem/{method}"), method.to_owned());
        registrations.push(Registration { id, method, register_options: Some(options) });
    };
    if can.register_configuration {
        add("workspace/didChangeConfiguration", json!({ "section": from_proto::SECTION }));
    }
    if can.register_files {
        let watchers: Vec<Value> =
            WATCHED.iter().map(|glob| json!({ "globPattern": format!("**/{glob}") })).collect();
        add("workspace/didChangeWatchedFiles", json!({ "watchers": watchers }));
    }
    if !registrations.is_empty()
        && let Err(error) = client.register_capability(registrations).await
    {
        tracing::warn!(%error, "the editor does not tell of changed settings and files");
    }
}

/// Asks for the settings everywhere and in each folder. There is always one [`Event::Configured`].
pub(crate) async fn ask_configuration(client: Client, folders: Vec<String>, events: Sender<Event>) {
    let section = Some(from_proto::SECTION.to_owned());
    let mut items = vec![ConfigurationItem { scope_uri: None, section: section.clone() }];
    items.extend(
        folders.iter().map(|uri| ConfigurationItem { scope_uri: uri.parse().ok(), section: section.clone() }),
    );
    let values = match tokio::time::timeout(CONFIGURATION_TIMEOUT, client.configuration(items)).await {
        Ok(Ok(values)) => values,
        Ok(Err(error)) => {
            tracing::warn!(%error, "the editor does not say its settings");
            Vec::new()
        }
        Err(_) => {
            tracing::warn!("the editor does not say its settings in time");
            Vec::new()
        }
    };
    let mut values = values.into_iter();
    let everywhere = values.next();
    let by_folder = folders.into_iter().zip(values).collect();
    // It fails only when the session is over.
    let _ = events.send(Event::Configured { everywhere, by_folder });
}

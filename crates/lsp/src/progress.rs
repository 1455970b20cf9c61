//! What the editor is told without having asked: how far the model is, and what went wrong.
//!
//! In: notices from any thread. Out: `$/progress`, `window/showMessage`, `window/logMessage`, `tandem/status`.
//! Never: progress for an editor that did not say it shows it.
//! Thread: a task of the transport's; [`Handle`] never waits.
//! Source: LSP 3.17, "Work Done Progress", "Creating Work Done Progress".

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::Sender;
use serde_json::Value;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tower_lsp::ls_types::{MessageType, ProgressToken};
use tower_lsp::{Bounded, Client, NotCancellable, OngoingProgress};

use crate::editor::{self, Can, StatusChanged};
use crate::main_loop::Event;
use crate::{LoadPhase, LoadStep};

/// How long the editor may take to agree to a progress bar; some never answer.
const CREATE_TIMEOUT: Duration = Duration::from_secs(5);

enum Notice {
    LoadBegins,
    Step(LoadStep),
    LoadEnded(Result<(), String>),
    Warning(String),
    /// As a box.
    Warn(String),
    Status(Value),
    Register(Can),
    AskConfiguration(Vec<String>),
}

/// Tells the editor something, from any thread.
#[derive(Clone)]
pub(crate) struct Handle {
    notices: UnboundedSender<Notice>,
    supports_progress: Arc<AtomicBool>,
}

/// The other end of a [`Handle`].
pub(crate) struct Teller {
    notices: UnboundedReceiver<Notice>,
    supports_progress: Arc<AtomicBool>,
}

/// Returns a handle and the end that tells.
pub(crate) fn channel() -> (Handle, Teller) {
    let (sender, notices) = mpsc::unbounded_channel();
    let supports_progress = Arc::new(AtomicBool::new(false));
    (
        Handle { notices: sender, supports_progress: Arc::clone(&supports_progress) },
        Teller { notices, supports_progress },
    )
}

impl Handle {
    /// Says whether the editor shows progress.
    pub(crate) fn supports_progress(&self, does: bool) {
        self.supports_progress.store(does, Ordering::Release);
    }

    /// Says that the model is wanted; [`Self::load_ended`] must follow.
    pub(crate) fn load_begins(&self) {
        self.send(Notice::LoadBegins);
    }

    pub(crate) fn load_step(&self, step: LoadStep) {
        self.send(Notice::Step(step));
    }

    /// Says that the model is there, or why it is not.
    pub(crate) fn load_ended(&self, result: Result<(), String>) {
        self.send(Notice::LoadEnded(result));
    }

    /// Puts a line into the editor's log.
    pub(crate) fn log_warning(&self, text: String) {
        self.send(Notice::Warning(text));
    }

    /// Shows the user something to put right.
    pub(crate) fn warn(&self, text: String) {
        self.send(Notice::Warn(text));
    }

    /// Says what the server is about.
    pub(crate) fn status(&self, status: Value) {
        self.send(Notice::Status(status));
    }

    /// Asks to be told of changes.
    pub(crate) fn register(&self, can: Can) {
        self.send(Notice::Register(can));
    }

    /// Asks for the settings; [`Event::Configured`] follows.
    pub(crate) fn ask_configuration(&self, folders: Vec<String>) {
        self.send(Notice::AskConfiguration(folders));
    }

    fn send(&self, notice: Notice) {
        // It fails only when the session is over.
        let _ = self.notices.send(notice);
    }
}

impl Teller {
    /// Tells until all handles are gone.
    pub(crate) async fn run(mut self, client: Client, events: Sender<Event>) {
        let mut bar = None;
        let mut percent = 0;
        while let Some(notice) = self.notices.recv().await {
            match notice {
                Notice::LoadBegins => bar = self.begin(&client).await,
                Notice::Step(LoadStep::Announce(text)) => client.show_message(MessageType::INFO, text).await,
                Notice::Step(LoadStep::Progress { phase, fraction }) => {
                    // LSP: the percentage must not fall. A fetch that follows a failed check would make it.
                    percent = percent.max(percent_of(phase, fraction));
                    if let Some(bar) = &bar {
                        bar.report_with_message(name(phase), percent).await;
                    }
                }
                Notice::LoadEnded(result) => {
                    if let Some(bar) = bar.take() {
                        bar.finish_with_message(if result.is_ok() { "ready" } else { "failed" }).await;
                    }
                    if let Err(reason) = result {
                        client.show_message(MessageType::ERROR, format!("Tandem: {reason}")).await;
                    }
                }
                Notice::Warn(text) => client.show_message(MessageType::WARNING, text).await,
                Notice::Status(status) => client.send_notification::<StatusChanged>(status).await,
                // The editor may take its time.
                Notice::Register(can) => drop(tokio::spawn(editor::register(client.clone(), can))),
                Notice::AskConfiguration(folders) => {
                    let asking = editor::ask_configuration(client.clone(), folders, events.clone());
                    drop(tokio::spawn(asking));
                }
                Notice::Warning(text) => client.log_message(MessageType::WARNING, text).await,
            }
        }
    }

    async fn begin(&self, client: &Client) -> Option<OngoingProgress<Bounded, NotCancellable>> {
        if !self.supports_progress.load(Ordering::Acquire) {
            return None;
        }
        let token = ProgressToken::String("tandem/load".to_owned());
        let create = client.create_work_done_progress(token.clone());
        match tokio::time::timeout(CREATE_TIMEOUT, create).await {
            Ok(Ok(())) => Some(
                client
                    // Editors put the server's name ahead of it.
                    .progress(token, "model")
                    .with_percentage(0)
                    .begin()
                    .await,
            ),
            Ok(Err(_)) | Err(_) => None,
        }
    }
}

/// Returns how far the bar is: each phase has its own part of it, in the order they come.
fn percent_of(phase: LoadPhase, fraction: f32) -> u32 {
    let (start, end) = match phase {
        LoadPhase::Fetching => (0.0, 70.0),
        LoadPhase::Unpacking => (70.0, 80.0),
        LoadPhase::Checking => (80.0, 90.0),
        LoadPhase::Loading => (90.0, 100.0),
    };
    (start + (end - start) * fraction.clamp(0.0, 1.0)) as u32
}

/// Returns how much of getting the model is done, 0 to 1.
pub(crate) fn fraction_of(phase: LoadPhase, fraction: f32) -> f32 {
    percent_of(phase, fraction) as f32 / 100.0
}

fn name(phase: LoadPhase) -> &'static str {
    match phase {
        LoadPhase::Fetching => "fetching",
        LoadPhase::Unpacking => "unpacking",
        LoadPhase::Checking => "checking",
        LoadPhase::Loading => "loading",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_percentage_never_falls_from_phase_to_phase() {
        use LoadPhase::{Checking, Fetching, Loading, Unpacking};
        let steps = [Fetching, Unpacking, Checking, Loading]
            .into_iter()
            .flat_map(|phase| [-1.0, 0.0, 0.5, 1.0, 7.0].map(|fraction| percent_of(phase, fraction)));
        let steps: Vec<u32> = steps.collect();
        assert!(steps.is_sorted(), "{steps:?}");
        assert_eq!((steps.first(), steps.last()), (Some(&0), Some(&100)));
    }
}

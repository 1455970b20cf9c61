//! The one place where an error becomes a message, a hint and an exit code.
//!
//! In: the libraries' errors. Out: two lines on stderr and a number that scripts can rely on.

use std::error::Error;
use std::fmt::Write as _;
use std::process::ExitCode;

/// What `agent` exits with. Also in README.md.
#[cfg_attr(windows, expect(dead_code, reason = "some are of `fix` alone"))]
pub(crate) mod code {
    pub(crate) const OK: u8 = 0;
    /// Our fault.
    pub(crate) const INTERNAL: u8 = 1;
    /// The command line was wrong; clap exits with the same number.
    pub(crate) const USAGE: u8 = 2;
    /// `fix` tried everything it knows and no candidate passed.
    pub(crate) const NO_FIX: u8 = 3;
    /// `fix` spent its budget.
    pub(crate) const BUDGET_SPENT: u8 = 5;
    /// The model is missing, damaged, or cannot be run, or its endpoint does not answer.
    pub(crate) const MODEL: u8 = 7;
    /// The repository is not in a state that can be worked on.
    pub(crate) const REPOSITORY_STATE: u8 = 8;
    /// The files changed so that a proposal no longer fits; nothing was written.
    pub(crate) const CONFLICT: u8 = 9;
    /// Ctrl-C, as shells say it.
    pub(crate) const INTERRUPTED: u8 = 130;
}

/// An error on its way to the user.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    /// Whether nobody reads our output any more, which is no fault: `agent … | head`.
    is_unheard: bool,
}

impl Failure {
    /// Returns a failure that tells the whole chain of an error's sources.
    pub(crate) fn new(code: u8, error: &dyn Error) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            let text = error.to_string();
            // Some libraries repeat their source in their own text.
            if !message.contains(&text) {
                let _ = write!(message, ": {text}");
            }
            source = error.source();
        }
        Self { code, message, hint: None, is_unheard: false }
    }

    /// Returns a failure of the user's input.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { code: code::USAGE, message: message.into(), hint: None, is_unheard: false }
    }

    /// Adds what the user can do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Prints the failure to stderr and returns its exit code.
    pub(crate) fn report(&self) -> ExitCode {
        if self.is_unheard {
            return ExitCode::SUCCESS;
        }
        say!("error: {}", self.message);
        if let Some(hint) = &self.hint {
            say!("hint: {hint}");
        }
        ExitCode::from(self.code)
    }
}

impl From<engine::Error> for Failure {
    fn from(error: engine::Error) -> Self {
        let code = match &error {
            engine::Error::Candle(_) | engine::Error::Gone | engine::Error::KvFull(_) => code::INTERNAL,
            engine::Error::Busy { .. } | engine::Error::Link { .. } => code::INTERNAL,
            engine::Error::EmptyPrompt | engine::Error::UnknownToken(_) => code::INTERNAL,
            engine::Error::Step(_) | engine::Error::NoGpu(_) | engine::Error::Gpu(_) => code::INTERNAL,
            engine::Error::PromptTooLong { .. } | engine::Error::Grammar(_) => code::USAGE,
            engine::Error::Io { .. }
            | engine::Error::Gguf { .. }
            | engine::Error::Tokenizer(_)
            | engine::Error::Unsupported { .. }
            | engine::Error::Draft { .. }
            | engine::Error::DraftVocabulary { .. }
            | engine::Error::Inconsistent(_) => code::MODEL,
        };
        let failure = Self::new(code, &error);
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

#[cfg(unix)]
impl From<agent::Error> for Failure {
    fn from(error: agent::Error) -> Self {
        use agent::Error as E;
        let error = match error {
            E::Engine(error) => return error.into(),
            E::Author { source } => {
                return match source.downcast::<remote::Error>() {
                    Ok(error) => (*error).into(),
                    Err(source) => Self::new(code::MODEL, &*source),
                };
            }
            error => error,
        };
        let code = match &error {
            E::NotARepository { .. } | E::RepositoryState { .. } | E::TooLarge { .. } => {
                code::REPOSITORY_STATE
            }
            E::ReadOnly { .. } | E::NotARegularFile { .. } | E::Busy | E::BaseLost { .. } => {
                code::REPOSITORY_STATE
            }
            E::NoSuchProposal(_) | E::AmbiguousId { .. } | E::NotOnePending { .. } => code::USAGE,
            E::NoSuchHunk { .. } | E::AlreadyDecided { .. } | E::Path { .. } => code::USAGE,
            E::Conflict { .. } => code::CONFLICT,
            E::CannotRun { .. } => code::USAGE,
            E::Git { .. } | E::Io { .. } | E::Damaged { .. } | E::RollbackFailed { .. } => code::INTERNAL,
            E::NotProposable { .. } | E::Command { .. } => code::INTERNAL,
            E::Engine(_) | E::Author { .. } => code::INTERNAL,
        };
        let failure = Self::new(code, &error);
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl From<::serve::Error> for Failure {
    fn from(error: ::serve::Error) -> Self {
        use ::serve::Error as E;
        let code = match error {
            E::Engine(error) => return error.into(),
            E::NotLoopback(_) | E::NoKey | E::NotServed => code::USAGE,
            E::Trace { .. } => code::USAGE,
            _ => code::INTERNAL,
        };
        let failure = Self::new(code, &error);
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl From<remote::Error> for Failure {
    fn from(error: remote::Error) -> Self {
        use remote::Error as E;
        let code = match &error {
            E::BadUrl { .. } | E::BadKey | E::Certificates { .. } | E::Denied { .. } => code::USAGE,
            E::NotFound { .. } | E::UnknownModel { .. } | E::NotOneModel { .. } => code::USAGE,
            E::Redirected { .. } | E::WebPage { .. } => code::USAGE,
            E::Thread(_) => code::INTERNAL,
            _ => code::MODEL,
        };
        let failure = Self::new(code, &error);
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        let is_unheard = error.kind() == std::io::ErrorKind::BrokenPipe;
        Self { is_unheard, ..Self::new(code::INTERNAL, &error) }
    }
}

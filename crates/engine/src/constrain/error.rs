//! What can be wrong with a grammar, one variant per thing its author can do about it.

/// A failure to constrain an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// The grammar, regular expression or schema is malformed; its author can correct it.
    #[error("the grammar cannot be read: {0}")]
    Syntax(String),
    /// The grammar is well formed and asks for what cannot be enforced; its author can leave it out.
    #[error("the grammar asks for what is not supported: {0}")]
    Unsupported(String),
    /// No text at all fits; its author has contradicted himself.
    #[error("no text fits the grammar: {0}")]
    Unsatisfiable(String),
    /// Compiling or following it takes more time or memory than a request may; its author can make it smaller.
    #[error("the grammar is too expensive: {0}")]
    TooExpensive(String),
    /// The answer so far fits, and the vocabulary has no token that goes on: it lacks a byte the grammar wants.
    #[error("no token of this model can continue what the grammar wants")]
    DeadEnd,
    /// The vocabulary cannot be put in a trie; another model may do.
    #[error("the vocabulary cannot be used with grammars: {0}")]
    Vocabulary(String),
    /// The machine that follows grammars contradicts itself: a bug of ours or of its own.
    #[error("following the grammar failed: {0}")]
    Failed(String),
}

impl GrammarError {
    /// Returns what the grammar's author can do about it, if anything.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Syntax(_) => {
                Some("check it against JSON Schema 2020-12, the syntax of Rust's regex, or llguidance's Lark")
            }
            Self::Unsupported(_) => Some(
                "leave the keyword out and check the answer afterwards; `anyOf` works where `oneOf` does not",
            ),
            Self::Unsatisfiable(_) => Some("look for bounds or types that exclude each other"),
            Self::TooExpensive(_) => Some("use smaller repetition counts, fewer alternatives, or split it"),
            Self::DeadEnd => {
                Some("leave unusual control characters out of the grammar, or use another model")
            }
            Self::Vocabulary(_) => Some("choose another model with `--model`"),
            Self::Failed(_) => None,
        }
    }

    /// Returns the error with the place in a schema that is to blame; nothing is added for the root.
    pub(super) fn at(self, pointer: &str) -> Self {
        if pointer.is_empty() {
            return self;
        }
        let placed = |what: String| format!("{what}, at `{pointer}`");
        match self {
            Self::Syntax(what) => Self::Syntax(placed(what)),
            Self::Unsupported(what) => Self::Unsupported(placed(what)),
            Self::Unsatisfiable(what) => Self::Unsatisfiable(placed(what)),
            Self::TooExpensive(what) => Self::TooExpensive(placed(what)),
            other => other,
        }
    }

    /// Returns what is wrong, without the kind of wrong it is.
    pub(super) fn what(&self) -> &str {
        match self {
            Self::Syntax(what)
            | Self::Unsupported(what)
            | Self::Unsatisfiable(what)
            | Self::TooExpensive(what)
            | Self::Vocabulary(what)
            | Self::Failed(what) => what,
            Self::DeadEnd => "",
        }
    }

    /// Returns the error that `llguidance` told in words, which is all it tells.
    pub(super) fn told(message: &str) -> Self {
        let message = summary(message);
        let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
        if message.starts_with("panic") {
            Self::Failed(message)
        } else if says(&["Unsatisfiable"]) {
            Self::Unsatisfiable(message)
        } else if says(TOO_EXPENSIVE) {
            Self::TooExpensive(message)
        } else if says(UNSUPPORTED) {
            Self::Unsupported(message)
        } else {
            Self::Syntax(message)
        }
    }
}

/// What `llguidance` says where one of its limits is reached.
const TOO_EXPENSIVE: &[&str] = &[
    "schema too large",
    "is too large",
    "DNF too large",
    "too big",
    "too many",
    "Too many",
    "too complex",
    "too deeply",
    "exceed",
    "fuel",
    "precomputation failed",
    "level exceeded",
];

/// What it says of what it does not do.
const UNSUPPORTED: &[&str] =
    &["supported", "Unimplemented", "not implemented", "Unknown format", "Failed to generate regex"];

/// Most bytes of an error that quotes the grammar.
const N_MAX_QUOTED: usize = 200;

/// Returns the line of what `llguidance` says that says it, and where a regular expression is wrong: the others are
/// its state.
fn summary(message: &str) -> String {
    let mut lines = message.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or("no reason is given");
    let cut = match first.char_indices().find(|(at, _)| *at >= N_MAX_QUOTED) {
        Some((at, _)) => format!("{} …", &first[..at]),
        None => first.to_owned(),
    };
    match lines.find_map(|line| line.strip_prefix("error: ")) {
        Some(why) => format!("{cut} {why}"),
        None => cut,
    }
}

//! What the model sees of other files, and of this one beyond the window: signatures behind the names in use.
//!
//! In: an [`Index`] of files, a cursor. Out: [`Context`], which stands in front of the window.
//! Never: changes the order or the text of what it has while that holds: the KV cache is good up to the first change.
//! Thread: any; reading files takes the caller's thread, so not the one that types.

use std::path::Path;
use std::str::FromStr;
use std::sync::OnceLock;

use engine::{TokenId, Tokenizer};
use syntax::Language;

mod index;
mod item;
mod plan;
mod read;
mod resolve;

pub use index::{Index, OpenFile, Secrets};

/// From where context may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum ContextScope {
    /// There is none: the model sees the window alone.
    ///
    /// The default, until `cargo xtask eval holes --cross-file` has shown that a wider one pays for the default model.
    #[default]
    Off,
    /// From the document itself, beyond the window.
    File,
    /// Also from open documents, and from files of the workspace that the document imports.
    Repo,
}

impl ContextScope {
    /// All of them, the narrowest first.
    pub const ALL: [Self; 3] = [Self::Off, Self::File, Self::Repo];

    /// Returns the name in settings and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::File => "file",
            Self::Repo => "repo",
        }
    }
}

impl FromStr for ContextScope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|scope| scope.name() == text);
        named.ok_or_else(|| format!("`{text}` is not one of `off`, `file` and `repo`"))
    }
}

/// Some lines of a file that the model sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Snippet {
    /// The file, as the model is told of it.
    path: String,
    /// Lines ended by `\n`.
    text: String,
}

/// What stands in front of the window of one document.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// The document, as the model is told of it.
    path: String,
    /// The name of its workspace folder; empty if there is none.
    repo: String,
    /// What begins and what ends a comment in the document's language.
    comment: (&'static str, &'static str),
    // INVARIANT: in the order in which they were chosen; while a document is typed in, snippets are only added behind.
    snippets: Vec<Snippet>,
    /// The ids of all that, once they were asked for.
    tokens: OnceLock<Vec<TokenId>>,
}

impl PartialEq for Context {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path && self.snippets == other.snippets
    }
}

impl Context {
    /// Returns nothing yet, for a document.
    pub(crate) fn of(path: String, repo: String, language: Language) -> Self {
        let line = language.line_comment().map(|begin| (begin, ""));
        let comment = line.or(language.block_comment()).unwrap_or_default();
        Self { path, repo, comment, ..Self::default() }
    }

    /// Returns whether it adds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.snippets.is_empty()
    }

    /// Returns its size in bytes, without what tells its parts apart.
    #[must_use]
    pub fn n_bytes(&self) -> usize {
        self.snippets.iter().map(|snippet| snippet.text.len()).sum()
    }

    /// Returns what a model without file separators sees: each file under a comment with its path, the document last.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (path, lines) in self.files() {
            text.push_str(&self.heading(path));
            text.push_str(&lines);
            text.push('\n');
        }
        if !text.is_empty() {
            text.push_str(&self.heading(&self.path));
        }
        text
    }

    /// Returns the ids that stand in front of the window; no text becomes a special token (I-3).
    ///
    /// A model that was trained on files behind separators, and to fill in the middle, gets them by their ids.
    pub(crate) fn tokens(&self, tokenizer: &Tokenizer) -> &[TokenId] {
        self.tokens.get_or_init(|| {
            let specials = tokenizer.specials();
            match specials.file_sep.filter(|_| specials.fim_middle.is_some() && !self.is_empty()) {
                Some(file_sep) => {
                    self.separated(specials.repo_name, file_sep, &|text| tokenizer.encode_first(text))
                }
                None => tokenizer.encode_first(&self.text()),
            }
        })
    }

    fn separated(
        &self,
        repo_name: Option<TokenId>,
        file_sep: TokenId,
        encode: &dyn Fn(&str) -> Vec<TokenId>,
    ) -> Vec<TokenId> {
        let mut tokens = Vec::new();
        if let Some(repo_name) = repo_name.filter(|_| !self.repo.is_empty()) {
            tokens.push(repo_name);
            tokens.extend(encode(&format!("{}\n", self.repo)));
        }
        for (path, lines) in self.files() {
            tokens.push(file_sep);
            tokens.extend(encode(&format!("{path}\n{lines}")));
        }
        tokens.push(file_sep);
        tokens.extend(encode(&format!("{}\n", self.path)));
        tokens
    }

    /// Returns the paths with their lines; neighbours of one file stand together.
    fn files(&self) -> impl Iterator<Item = (&str, String)> {
        self.snippets.chunk_by(|a, b| a.path == b.path).map(|some| {
            let lines: String = some.iter().map(|snippet| snippet.text.as_str()).collect();
            (some[0].path.as_str(), lines)
        })
    }

    fn heading(&self, path: &str) -> String {
        let (begin, end) = self.comment;
        format!("{begin} {path} {end}").trim().to_owned() + "\n"
    }
}

/// Returns a file's path as the model is told of it: without its folder, by `/`.
fn shown_path(path: &Path, root: Option<&Path>) -> String {
    let within = root.and_then(|root| path.strip_prefix(root).ok());
    let within = within.unwrap_or_else(|| path.file_name().map_or(path, Path::new));
    within.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests;

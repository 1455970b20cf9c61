//! A path that a proposal may name.
//!
//! In: text from git, a model or a stored proposal. Out: a [`RepoPath`], or why not.
//! Never: looks at the disk; symbolic links are refused where the path is used.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Error;

/// A file's path inside the work tree: UTF-8, relative, `/` between components, none of them special.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
// INVARIANT: passed `check`; joined to the work tree's root it cannot leave it except through a link.
pub struct RepoPath(String);

/// Why a path was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathProblem {
    /// Nothing there.
    #[error("is empty")]
    Empty,
    /// Starts at a root or a drive.
    #[error("is not relative")]
    NotRelative,
    /// Has an empty component, `.` or `..`.
    #[error("has a component that is empty, `.` or `..`")]
    NotPlain,
    /// Reaches into git's own files.
    #[error("reaches into git's own directory")]
    GitDir,
    /// Has a backslash, a colon or a control character, which some system or terminal reads as more than a name.
    #[error("has a backslash, a colon or a control character")]
    OddCharacter,
    /// Is not UTF-8.
    #[error("is not UTF-8")]
    NotUtf8,
}

impl RepoPath {
    /// Returns the path if a proposal may name it.
    ///
    /// # Errors
    /// [`Error::Path`] with the problem; whoever made the path can fix it.
    pub fn new(path: &str) -> Result<Self, Error> {
        match check(path) {
            Ok(()) => Ok(Self(path.to_owned())),
            Err(problem) => Err(Error::Path { path: path.to_owned(), problem }),
        }
    }

    /// Returns the path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the path for the file system, still relative.
    pub fn as_path(&self) -> &Path {
        Path::new(&self.0)
    }

    /// Returns the directories above the file, outermost first, and the file's name.
    pub(crate) fn split(&self) -> (Vec<&str>, &str) {
        match self.0.rsplit_once('/') {
            Some((dirs, name)) => (dirs.split('/').collect(), name),
            None => (Vec::new(), &self.0),
        }
    }
}

impl fmt::Display for RepoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for RepoPath {
    type Error = Error;

    fn try_from(path: String) -> Result<Self, Error> {
        Self::new(&path)
    }
}

impl From<RepoPath> for String {
    fn from(path: RepoPath) -> Self {
        path.0
    }
}

fn check(path: &str) -> Result<(), PathProblem> {
    if path.is_empty() {
        return Err(PathProblem::Empty);
    }
    if path.starts_with('/') {
        return Err(PathProblem::NotRelative);
    }
    if path.chars().any(|c| c == '\\' || c == ':' || c.is_control()) {
        return Err(PathProblem::OddCharacter);
    }
    for component in path.split('/') {
        if component.is_empty() || component == "." || component == ".." {
            return Err(PathProblem::NotPlain);
        }
        if is_git_dir(component) {
            return Err(PathProblem::GitDir);
        }
    }
    Ok(())
}

/// Returns whether some file system takes this name for `.git`.
///
/// Source: git's `is_hfs_dotgit` and `is_ntfs_dotgit` (CVE-2014-9390): HFS+ ignores these code points,
/// NTFS ignores case, trailing dots and spaces, and knows the short name `GIT~1`.
fn is_git_dir(component: &str) -> bool {
    let seen: String = component
        .chars()
        .filter(|c| !matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}'))
        .flat_map(char::to_lowercase)
        .collect();
    let seen = seen.trim_end_matches(['.', ' ']);
    seen == ".git" || seen == "git~1"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_relative_paths_are_taken() {
        for good in ["a", "a/b.rs", ".github/x", ".gitignore", "a/..b", "ünï/ code.py", "a.git/b"] {
            assert_eq!(RepoPath::new(good).expect(good).as_str(), good);
        }
        for (bad, why) in [
            ("", PathProblem::Empty),
            ("/etc/passwd", PathProblem::NotRelative),
            ("../x", PathProblem::NotPlain),
            ("a/../../x", PathProblem::NotPlain),
            ("a//b", PathProblem::NotPlain),
            ("a/", PathProblem::NotPlain),
            ("./a", PathProblem::NotPlain),
            (".git/hooks/post-checkout", PathProblem::GitDir),
            ("a/.GiT/config", PathProblem::GitDir),
            (".git./config", PathProblem::GitDir),
            (".git /config", PathProblem::GitDir),
            ("GIT~1/config", PathProblem::GitDir),
            (".g\u{200c}it/config", PathProblem::GitDir),
            ("C:/x", PathProblem::OddCharacter),
            ("a\\b", PathProblem::OddCharacter),
            ("a\u{1b}[2J", PathProblem::OddCharacter),
            ("a\nb", PathProblem::OddCharacter),
        ] {
            match RepoPath::new(bad) {
                Err(Error::Path { problem, .. }) => assert_eq!(problem, why, "{bad:?}"),
                other => panic!("{bad:?} gave {other:?}"),
            }
        }
    }

    #[test]
    fn a_stored_path_is_checked_when_it_is_read() {
        serde_json::from_str::<RepoPath>("\"a/b\"").expect("a plain path is read");
        serde_json::from_str::<RepoPath>("\"../b\"").expect_err("a path that leaves is refused");
    }
}

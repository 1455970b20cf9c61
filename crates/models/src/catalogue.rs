//! The models that can be asked for by name.
//!
//! In: the catalogue compiled in, and the user's `models.toml`.
//! Out: [`Entry`] by name; a path where the name is one.
//! Never: an unknown key, a name listed twice or a half-read file passed over in silence.

use std::io;
use std::path::Path;

use serde::Deserialize;

use crate::entry::EntryTable;
use crate::{Dirs, Entry, Error, Origin, pin};

const BUILT_IN: &str = include_str!("../catalogue.toml");

/// The models that can be asked for by name; a user's entry shadows a built-in one.
#[derive(Debug, Clone)]
pub struct Catalogue {
    // INVARIANT: never empty, and `default_idx` is inside.
    entries: Vec<Entry>,
    default_idx: usize,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CatalogueFile {
    default: Option<String>,
    #[serde(default)]
    model: Vec<EntryTable>,
}

impl Catalogue {
    /// Returns the built-in catalogue with the user's own entries laid over it. Its default is the one that the user
    /// names, else the one that was first used here, else the built-in one.
    ///
    /// # Errors
    /// [`Error::Catalogue`], [`Error::Entry`], [`Error::LockFile`] and [`Error::Io`] name the file and the place in it:
    /// the user mends `models.toml`.
    pub fn load(dirs: &Dirs) -> Result<Self, Error> {
        let path = dirs.user_catalogue();
        let user = match std::fs::read_to_string(&path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(Error::io("read", &path)(error)),
        };
        let built_in = parse(BUILT_IN, Path::new("catalogue.toml"), Origin::BuiltIn)?;
        let user = match user {
            Some(text) => parse(&text, &path, Origin::User)?,
            None => (None, Vec::new()),
        };
        let kept = pin::read_default(dirs.data())?;
        Self::merge(built_in, kept, user, &path)
    }

    /// Returns every entry: the user's own first, then the built-in ones.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Returns the entry of exactly this name.
    #[must_use]
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// Returns the entry that is used when nobody asks for another.
    #[must_use]
    pub fn default_entry(&self) -> &Entry {
        &self.entries[self.default_idx]
    }

    /// Returns the entry of this name, or one for the file when the name is a path.
    ///
    /// # Errors
    /// [`Error::UnknownModel`] with the nearest name: the user corrects it.
    pub fn resolve(&self, name: &str) -> Result<Entry, Error> {
        if let Some(entry) = self.entry(name) {
            return Ok(entry.clone());
        }
        let path = name.strip_prefix("path:").unwrap_or(name);
        let is_path =
            path.len() < name.len() || path.contains(std::path::is_separator) || path.ends_with(".gguf");
        if is_path && !name.starts_with("hf:") && !name.starts_with("pypi:") {
            let path = std::path::absolute(path).map_err(Error::io("find", Path::new(path)))?;
            // The user's entry for this very file knows more about it than the path does.
            let listed = self
                .entries
                .iter()
                .find(|entry| matches!(&entry.source, crate::Source::Path(listed) if *listed == path));
            return Ok(listed.cloned().unwrap_or_else(|| Entry::local(&path)));
        }
        Err(Error::UnknownModel { name: name.to_owned(), nearest: self.nearest(name) })
    }

    fn merge(
        (built_in_default, built_in): (Option<String>, Vec<Entry>),
        kept_default: Option<String>,
        (user_default, user): (Option<String>, Vec<Entry>),
        user_path: &Path,
    ) -> Result<Self, Error> {
        let is_shadowed = |entry: &Entry| user.iter().any(|own| own.name == entry.name);
        let kept: Vec<_> = built_in.into_iter().filter(|entry| !is_shadowed(entry)).collect();
        let entries: Vec<_> = user.into_iter().chain(kept).collect();
        // One that is not listed any more cannot be kept.
        let kept_default = kept_default.filter(|name| entries.iter().any(|entry| entry.name == *name));
        let default = user_default.or(kept_default).or(built_in_default).unwrap_or_default();
        let default_idx = entries.iter().position(|entry| entry.name == default);
        let Some(default_idx) = default_idx else {
            return Err(Error::Entry {
                path: user_path.to_owned(),
                name: default,
                reason: "it is named as `default`, but no entry has that name".to_owned(),
            });
        };
        Ok(Self { entries, default_idx })
    }

    fn nearest(&self, name: &str) -> Option<String> {
        let name = name.to_lowercase();
        let by_distance = self.entries.iter().map(|entry| {
            let known = entry.name.to_lowercase();
            // A beginning that is right counts more than the letters that are missing after it.
            let n_edits =
                if known.starts_with(&name) && name.len() >= 3 { 0 } else { edit_distance(&known, &name) };
            (n_edits, entry)
        });
        let (n_edits, entry) = by_distance.min_by_key(|(n_edits, _)| *n_edits)?;
        // Beyond a third of the letters it is another word, not a slip.
        (n_edits <= entry.name.len().max(3) / 3).then(|| entry.name.clone())
    }
}

fn parse(text: &str, path: &Path, origin: Origin) -> Result<(Option<String>, Vec<Entry>), Error> {
    let file: CatalogueFile = toml::from_str(text)
        .map_err(|error| Error::Catalogue { path: path.to_owned(), source: Box::new(error) })?;
    let mut entries: Vec<Entry> = Vec::new();
    for table in file.model {
        let refused = |(name, reason)| Error::Entry { path: path.to_owned(), name, reason };
        let entry = table.check(origin).map_err(refused)?;
        if entries.iter().any(|other| other.name == entry.name) {
            return Err(refused((entry.name, "it is listed twice".to_owned())));
        }
        entries.push(entry);
    }
    Ok((file.default, entries))
}

/// Levenshtein's distance: inserted, removed and replaced letters.
fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (left_idx, left_char) in left.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], left_idx + 1);
        for (right_idx, right_char) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(left_char != *right_char);
            diagonal = row[right_idx + 1];
            row[right_idx + 1] = replaced.min(diagonal + 1).min(row[right_idx] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Source;

    fn load(models_toml: &str) -> Result<Catalogue, Error> {
        let dir = tempfile::tempdir().expect("a temp folder");
        std::fs::write(dir.path().join("models.toml"), models_toml).expect("written");
        Catalogue::load(&Dirs::new(dir.path(), dir.path()))
    }

    fn refusal(models_toml: &str) -> String {
        load(models_toml).expect_err("must be refused").to_string()
    }

    #[test]
    fn the_built_in_catalogue_pins_its_default() {
        let catalogue = load("").expect("the built-in catalogue is sound");
        let entry = catalogue.default_entry();
        assert_eq!(entry.name, "smollm2-135m-fim");
        assert_eq!(entry.source.file_name(), "SmolLM2-135M-Instruct.Q4_1.gguf");
        assert!(catalogue.entries().iter().all(|entry| entry.bytes.is_some()));
        assert!(catalogue.entries().iter().all(|entry| entry.licence.is_some()));
        assert!(entry.sha256.is_some() && entry.fim.is_none());
    }

    #[test]
    fn a_user_entry_shadows_the_built_in_one_and_may_be_the_default() {
        let catalogue = load(
            r#"
            default = "mine"
            [[model]]
            name = "smollm2-135m-instruct"
            source = "path:/m/own.gguf"
            [[model]]
            name = "mine"
            source = "hf:me/mine/mine.gguf@v2"
            n_ctx = 32768
            fim = { prefix = "<p>", suffix = "<s>", middle = "<m>" }
            "#,
        )
        .expect("sound");
        assert_eq!(catalogue.default_entry().name, "mine");
        assert_eq!(catalogue.default_entry().n_ctx, Some(32768));
        let shadowing = catalogue.entry("smollm2-135m-instruct").expect("listed");
        assert_eq!(shadowing.origin, Origin::User);
        assert_eq!(shadowing.source, Source::Path("/m/own.gguf".into()));
        assert_eq!(catalogue.entries().len(), 3);
    }

    #[test]
    fn the_default_that_was_first_used_stays_until_its_user_names_another() {
        let dir = tempfile::tempdir().expect("a temp folder");
        let dirs = Dirs::new(dir.path(), dir.path());
        let user = "[[model]]\nname = \"mine\"\nsource = \"path:/m.gguf\"\n";
        std::fs::write(dir.path().join("models.toml"), user).expect("written");
        let default = || Catalogue::load(&dirs).expect("sound").default_entry().name.clone();
        let built_in = default();
        let store = crate::Store::new(&dirs);
        store.keep_default("mine").expect("written");
        store.keep_default(&built_in).expect("read");
        assert_eq!(default(), "mine", "the first one stays");
        std::fs::write(dir.path().join("models.toml"), format!("default = \"{built_in}\"\n{user}"))
            .expect("written");
        assert_eq!(default(), built_in, "its user's word is above it");
        std::fs::write(dir.path().join("models.toml"), "").expect("written");
        assert_eq!(default(), built_in, "what is not listed any more is not kept");
    }

    #[test]
    fn an_unknown_key_is_refused_by_name_with_its_line() {
        let message = refusal("[[model]]\nname = \"a\"\nsource = \"path:/a\"\nsha265 = \"00\"\n");
        assert!(message.contains("models.toml"), "{message}");
        assert!(message.contains("line 4") && message.contains("`sha265`"), "{message}");
        let message = refusal("defualt = \"a\"\n");
        assert!(message.contains("line 1") && message.contains("`defualt`"), "{message}");
    }

    #[test]
    fn bad_toml_is_refused_with_its_line() {
        let message = refusal("\n[[model]\n");
        assert!(message.contains("line 2"), "{message}");
    }

    #[test]
    fn the_hint_for_an_unsound_file_names_every_key() {
        for (models_toml, n_keys) in [
            ("x = 1\n", 2),
            ("[[model]]\nx = 1\n", 10),
            ("[[model]]\nfim = { x = 1 }\n", 3),
            ("[[model]]\nadapter = { x = 1 }\n", 2),
        ] {
            let error = load(models_toml).expect_err("must be refused");
            let (message, hint) = (error.to_string(), error.hint().expect("a user's file"));
            // The parser's own list of what it takes.
            let (_, expected) = message.split_once("expected ").expect(&message);
            let keys: Vec<_> = expected.split('`').skip(1).step_by(2).collect();
            assert_eq!(keys.len(), n_keys, "{message}");
            for key in keys {
                assert!(hint.contains(&format!("`{key}`")), "{key} is not in: {hint}");
            }
        }
    }

    #[test]
    fn an_unsound_entry_is_refused_by_name() {
        for (toml, expect) in [
            ("[[model]]\nname = \"../x\"\nsource = \"path:/a\"", "`../x`"),
            ("[[model]]\nname = \"a\"\nsource = \"a.gguf\"", "begins with none"),
            ("[[model]]\nname = \"a\"\nsource = \"path:/a\"\nsha256 = \"12\"", "64 hex"),
            ("[[model]]\nname = \"a\"\nsource = \"pypi:p==1/f\"", "needs `bytes`"),
            ("default = \"nobody\"", "`nobody`"),
            ("[[model]]\nname=\"a\"\nsource=\"path:/a\"\n[[model]]\nname=\"a\"\nsource=\"path:/b\"", "twice"),
        ] {
            let message = refusal(toml);
            assert!(message.contains(expect), "{message}");
        }
    }

    #[test]
    fn an_unknown_name_suggests_the_nearest() {
        let catalogue = load("").expect("sound");
        let nearest = |name: &str| match catalogue.resolve(name) {
            Err(Error::UnknownModel { nearest, .. }) => nearest,
            other => panic!("{name}: {other:?}"),
        };
        let known = Some("smollm2-135m-instruct".to_owned());
        assert_eq!(nearest("smollm-135m-instruct"), known);
        assert_eq!(nearest("SmolLM2-135M-Instruct"), known);
        assert_eq!(nearest("smollm2"), known);
        assert_eq!(nearest("gpt-2"), None);
    }

    #[test]
    fn a_path_in_place_of_a_name_is_a_local_model() {
        let catalogue = load("[[model]]\nname = \"mine\"\nsource = \"path:/m/x.gguf\"").expect("sound");
        let entry = catalogue.resolve("/m/y.gguf").expect("a path");
        assert_eq!((entry.origin, entry.name.as_str()), (Origin::CommandLine, "/m/y.gguf"));
        let entry = catalogue.resolve("y.gguf").expect("a path");
        assert!(matches!(entry.source, Source::Path(path) if path.is_absolute()));
        assert_eq!(catalogue.resolve("path:/m/x.gguf").expect("listed").name, "mine");
        assert!(catalogue.resolve("hf:o/r/x.gguf@v").is_err());
    }
}

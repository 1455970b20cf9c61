//! What a user wants of ghost text.
//!
//! In: the `[complete]` table of a `tandem.toml`, an editor's `tandem.*`. Out: [`Settings`], and a sentence for what of them
//! cannot be.
//! Never: fails; what cannot be is left out and the rest counts. Takes a model or an endpoint: a repository must not say
//! where its reader's source goes.
//! Thread: any; plain data.

use std::path::Path;
use std::sync::Arc;

use complete::context::{ContextScope, Secrets};
use complete::{NoneReason, Options};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use serde_json::{Map, Value, json};

/// Files that hold secrets by their names, as git-secrets, gitleaks and the editors' assistants have them: their text
/// reaches neither a model nor a cache.
const SECRET_FILES: &[&str] = &[
    ".env*",
    "*.pem",
    "*.key",
    "*.p12",
    "*.pfx",
    "*.jks",
    "*.keystore",
    "*.kdbx",
    "*.ppk",
    "*.gpg",
    "id_rsa*",
    "id_dsa*",
    "id_ecdsa*",
    "id_ed25519*",
    "credentials",
    "secrets.*",
    ".netrc",
    "_netrc",
    ".npmrc",
    ".pypirc",
    ".pgpass",
    ".git-credentials",
    ".htpasswd",
    "*.tfvars",
    "*.tfstate",
];
/// Most lines of ghost text that may be wished for.
const N_MAX_LINES: u64 = 100;
/// The keys, as `tandem.toml` spells them.
const KEYS: &str =
    "enable, languages, disabled_languages, context, max_lines, min_confidence, look_ahead, secret_files";

/// What counts for a document.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether there is ghost text.
    pub enable: bool,
    /// The only languages with ghost text, by their ids; without it all are.
    pub languages: Option<Vec<String>>,
    /// Languages without.
    pub disabled_languages: Vec<String>,
    /// Which text a model may see.
    pub context: ContextScope,
    /// Most lines of a ghost text.
    pub max_lines: Option<usize>,
    /// Least probability of being right for ghost text that nobody pressed a key for; without it the server's own.
    pub min_confidence: Option<f32>,
    /// Whether lines are written ahead while nobody types.
    pub look_ahead: bool,
    secret_globs: Vec<String>,
    secret_files: Arc<GlobSet>,
}

/// What one source says: nothing, of most keys.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Layer {
    enable: Option<bool>,
    languages: Option<Vec<String>>,
    disabled_languages: Option<Vec<String>>,
    context: Option<ContextScope>,
    max_lines: Option<usize>,
    min_confidence: Option<f32>,
    look_ahead: Option<bool>,
    secret_files: Vec<String>,
}

impl Layer {
    /// Returns what a `tandem.toml` says, and what of it cannot be.
    ///
    /// # Errors
    /// The text is not TOML, and why.
    pub(crate) fn from_toml(text: &str) -> Result<(Self, Vec<String>), String> {
        let file: Value = toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
        let mut wrongs = Vec::new();
        let layer = match file.get("complete") {
            None => Self::default(),
            Some(Value::Object(table)) => Self::read(table, "complete", Unknown::Wrong, &mut wrongs),
            Some(_) => {
                wrongs.push("`complete` is not a table".to_owned());
                Self::default()
            }
        };
        Ok((layer, wrongs))
    }

    /// Returns what an editor says, with or without its own `tandem` around it, and what of it cannot be.
    pub(crate) fn from_editor(value: &Value) -> (Self, Vec<String>) {
        let mut wrongs = Vec::new();
        let ours = value.get("tandem").filter(|ours| ours.is_object()).unwrap_or(value);
        let Value::Object(table) = ours else { return (Self::default(), wrongs) };
        // Editors hand on all that begins with `tandem.`, also what is for their own side.
        let mut layer = Self::read(table, "tandem", Unknown::Foreign, &mut wrongs);
        if let Some(Value::Object(table)) = table.get("complete") {
            layer = Self::read(table, "tandem.complete", Unknown::Foreign, &mut wrongs).over(layer);
        }
        (layer, wrongs)
    }

    fn read(table: &Map<String, Value>, prefix: &str, unknown: Unknown, wrongs: &mut Vec<String>) -> Self {
        let mut layer = Self::default();
        // `null` is an editor's way to say that nothing is said.
        for (key, value) in table.iter().filter(|(_, value)| !value.is_null()) {
            let wanted = match snake(key).as_str() {
                "enable" => take(&mut layer.enable, value.as_bool(), "true or false"),
                "languages" => take(&mut layer.languages, words(value), "a list of language ids"),
                "disabled_languages" => {
                    take(&mut layer.disabled_languages, words(value), "a list of language ids")
                }
                "context" => take(
                    &mut layer.context,
                    value.as_str().and_then(|name| name.parse().ok()),
                    "\"off\", \"file\" or \"repo\"",
                ),
                "max_lines" => {
                    let n_lines = value.as_u64().filter(|n| (1..=N_MAX_LINES).contains(n));
                    take(&mut layer.max_lines, n_lines.map(|n| n as usize), "a whole number from 1 to 100")
                }
                "min_confidence" => {
                    let probability = value.as_f64().filter(|p| (0.0..=1.0).contains(p));
                    take(&mut layer.min_confidence, probability.map(|p| p as f32), "a number from 0 to 1")
                }
                "look_ahead" => take(&mut layer.look_ahead, value.as_bool(), "true or false"),
                "secret_files" => match words(value).filter(|globs| globs.iter().all(|glob| is_glob(glob))) {
                    Some(globs) => {
                        layer.secret_files = globs;
                        None
                    }
                    None => Some("a list of globs"),
                },
                "model" | "endpoint" if unknown == Unknown::Wrong => {
                    wrongs.push(format!("`{prefix}.{key}` is not a repository's to choose"));
                    None
                }
                _ if unknown == Unknown::Wrong => {
                    wrongs.push(format!("there is no `{prefix}.{key}`; the keys are {KEYS}"));
                    None
                }
                _ => None,
            };
            if let Some(wanted) = wanted {
                wrongs.push(format!("`{prefix}.{key}` must be {wanted}"));
            }
        }
        layer
    }

    /// Returns what both say; where both do, this one counts. A file that is secret to one is secret.
    pub(crate) fn over(self, below: Self) -> Self {
        Self {
            enable: self.enable.or(below.enable),
            languages: self.languages.or(below.languages),
            disabled_languages: self.disabled_languages.or(below.disabled_languages),
            context: self.context.or(below.context),
            max_lines: self.max_lines.or(below.max_lines),
            min_confidence: self.min_confidence.or(below.min_confidence),
            look_ahead: self.look_ahead.or(below.look_ahead),
            secret_files: self.secret_files.into_iter().chain(below.secret_files).collect(),
        }
    }

    /// Returns the settings, with the defaults for what is not said.
    pub(crate) fn settings(self) -> Settings {
        let own = SECRET_FILES.iter().map(|&glob| glob.to_owned());
        let secret_globs: Vec<String> = own.chain(self.secret_files).collect();
        let mut secret_files = GlobSetBuilder::new();
        for glob in &secret_globs {
            // They were tried when they were read.
            if let Ok(glob) = compiled(glob) {
                secret_files.add(glob);
            }
        }
        Settings {
            enable: self.enable.unwrap_or(true),
            languages: self.languages,
            disabled_languages: self.disabled_languages.unwrap_or_default(),
            context: self.context.unwrap_or_default(),
            max_lines: self.max_lines,
            min_confidence: self.min_confidence,
            look_ahead: self.look_ahead.unwrap_or(true),
            secret_globs,
            secret_files: Arc::new(secret_files.build().unwrap_or_default()),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Layer::default().settings()
    }
}

impl Settings {
    /// Returns why there is no ghost text in a document, if so.
    #[must_use]
    pub fn refuses(&self, path: &Path, language_id: &str) -> Option<NoneReason> {
        let is_language = |id: &String| id == language_id;
        if self.is_secret(path) {
            Some(NoneReason::SecretFile)
        } else if !self.enable {
            Some(NoneReason::Disabled)
        } else if self.disabled_languages.iter().any(is_language)
            || self.languages.as_ref().is_some_and(|only| !only.iter().any(is_language))
        {
            Some(NoneReason::DisabledLanguage)
        } else {
            None
        }
    }

    /// Returns whether a file may hold secrets: its text may not reach a model, for its own sake or another file's.
    #[must_use]
    pub fn is_secret(&self, path: &Path) -> bool {
        self.secret_files.is_match(path)
    }

    /// Returns what says so, for a thread that reads other files.
    pub(crate) fn secrets(&self) -> Secrets {
        let secret_files = Arc::clone(&self.secret_files);
        Secrets::new(move |path| secret_files.is_match(path))
    }

    /// Returns the server's limits as these settings change them.
    pub(crate) fn options(&self, options: Options) -> Options {
        Options {
            min_confidence: self.min_confidence.unwrap_or(options.min_confidence),
            n_lines_ahead: if self.look_ahead { options.n_lines_ahead } else { 0 },
            context: self.context,
            ..options
        }
    }

    /// Returns the first lines of a ghost text, as many as there may be.
    pub(crate) fn cut<'a>(&self, insert: &'a str) -> &'a str {
        let end = self.max_lines.and_then(|n| insert.match_indices('\n').nth(n - 1));
        end.map_or(insert, |(at, _)| insert[..at].trim_end_matches('\r'))
    }

    /// Returns them for who asks what counts.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "enable": self.enable,
            "languages": self.languages,
            "disabled_languages": self.disabled_languages,
            "context": self.context.name(),
            "max_lines": self.max_lines,
            "min_confidence": self.min_confidence,
            "look_ahead": self.look_ahead,
            "secret_files": self.secret_globs,
        })
    }
}

/// What a key is that is none of ours.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unknown {
    Wrong,
    Foreign,
}

/// Takes a value; returns what it should have been if it is none.
fn take<T>(place: &mut Option<T>, value: Option<T>, wanted: &'static str) -> Option<&'static str> {
    let is_wrong = value.is_none();
    *place = value;
    is_wrong.then_some(wanted)
}

/// Returns a key as `tandem.toml` spells it: editors have `maxLines` for `max_lines`.
fn snake(key: &str) -> String {
    let mut snake = String::new();
    for c in key.chars() {
        if c.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

fn words(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|word| word.as_str().map(str::to_owned)).collect()
}

fn is_glob(glob: &str) -> bool {
    compiled(glob).is_ok()
}

/// A glob is for names anywhere; one with a `/` for the ends of paths.
fn compiled(glob: &str) -> Result<globset::Glob, globset::Error> {
    let glob = glob.trim_start_matches('/');
    GlobBuilder::new(&format!("**/{glob}")).case_insensitive(true).literal_separator(true).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toml(text: &str) -> (Layer, Vec<String>) {
        Layer::from_toml(text).expect("TOML")
    }

    #[test]
    fn the_editors_word_counts_more_than_the_files_and_the_defaults_least() {
        let (file, wrongs) = toml(
            "template = true\n[fix]\ntest = 'make'\n[complete]\nenable = false\nmax_lines = 3\nlook_ahead = false\n\
             languages = ['rust']\ncontext = 'file'\nsecret_files = ['*.sql']\n",
        );
        assert_eq!(wrongs, [""; 0]);
        let editor = json!({ "enable": true, "maxLines": null, "minConfidence": 0.5, "agentPath": "x",
            "secretFiles": ["keys/**"] });
        let (editor, wrongs) = Layer::from_editor(&editor);
        assert_eq!(wrongs, [""; 0]);
        let settings = editor.over(file).settings();
        let mut found = settings.to_json();
        let secret = found["secret_files"].take();
        let expected = json!({ "enable": true, "languages": ["rust"], "disabled_languages": [], "context": "file",
            "max_lines": 3, "min_confidence": 0.5, "look_ahead": false, "secret_files": null });
        assert_eq!(found, expected);
        let last: Vec<&Value> = secret.as_array().expect("a list").iter().rev().take(2).collect();
        assert_eq!(last, ["*.sql", "keys/**"]);
        let options = settings.options(Options::default());
        assert_eq!((options.min_confidence, options.n_lines_ahead), (0.5, 0));
        let (options, own) = (Settings::default().options(Options::default()), Options::default());
        assert_eq!((options.min_confidence, options.n_lines_ahead), (own.min_confidence, own.n_lines_ahead));
    }

    #[test]
    fn an_editor_may_say_it_in_any_of_its_ways() {
        let check = |value: Value| {
            let (layer, wrongs) = Layer::from_editor(&value);
            assert_eq!((layer.settings().max_lines, wrongs.len()), (Some(2), 0), "{value}");
        };
        check(json!({ "maxLines": 2 }));
        check(json!({ "max_lines": 2 }));
        check(json!({ "tandem": { "maxLines": 2 } }));
        check(json!({ "tandem": { "maxLines": 5, "complete": { "max_lines": 2 } } }));
        for nothing in [json!(null), json!([]), json!("x"), json!({ "other": { "maxLines": 2 } })] {
            assert_eq!(Layer::from_editor(&nothing), (Layer::default(), Vec::new()), "{nothing}");
        }
    }

    #[test]
    fn what_cannot_be_is_named_and_the_rest_counts() {
        let check = |line: &str, expected: &str| {
            let (layer, wrongs) = toml(&format!("[complete]\n{line}\ndisabled_languages = ['c']\n"));
            assert!(wrongs.len() == 1 && wrongs[0].contains(expected), "{line}: {wrongs:?}");
            let rest = Layer { disabled_languages: Some(vec!["c".to_owned()]), ..Layer::default() };
            assert_eq!(layer, rest, "{line}");
        };
        check("enable = 'yes'", "`complete.enable` must be true or false");
        check("languages = 'rust'", "`complete.languages` must be a list");
        check("languages = [1]", "`complete.languages` must be a list");
        check("context = 'all'", "`complete.context` must be \"off\", \"file\" or \"repo\"");
        check("max_lines = 0", "`complete.max_lines` must be a whole number");
        check("max_lines = -1", "`complete.max_lines` must be a whole number");
        check("min_confidence = 1.5", "`complete.min_confidence` must be a number from 0 to 1");
        check("look_ahead = 1", "`complete.look_ahead` must be true or false");
        check("secret_files = ['[']", "`complete.secret_files` must be a list of globs");
        check("look_ahed = true", "there is no `complete.look_ahed`; the keys are enable,");
        check("model = '/tmp/x.gguf'", "`complete.model` is not a repository's to choose");
        check("endpoint = 'http://x'", "`complete.endpoint` is not a repository's to choose");
        assert_eq!(toml("complete = 5\n").1, ["`complete` is not a table"]);
        assert!(Layer::from_toml("[complete").expect_err("no TOML").contains("line 1"));
    }

    #[test]
    fn a_document_is_refused_for_its_secrets_first_then_for_its_language() {
        let check = |settings: &Settings, path: &str, language: &str, expected: Option<NoneReason>| {
            assert_eq!(settings.refuses(Path::new(path), language), expected, "{path}");
        };
        let settings =
            toml("[complete]\ndisabled_languages = ['markdown']\nsecret_files = ['vault/*', '*.SQL']")
                .0
                .settings();
        check(&settings, "/r/a.py", "python", None);
        check(&settings, "/r/a.md", "markdown", Some(NoneReason::DisabledLanguage));
        let secret = Some(NoneReason::SecretFile);
        for path in
            ["/r/.env", "/r/.env.local", "/k/ID_RSA", "/r/x.PEM", "/h/.netrc", "/r/secrets.yaml", "/r/a.sql"]
        {
            check(&settings, path, "markdown", secret);
        }
        check(&settings, "/r/vault/a.py", "python", secret);
        check(&settings, "/r/vault/b/a.py", "python", None);
        check(&settings, "/r/environment.py", "python", None);
        let only = toml("[complete]\nlanguages = ['rust']").0.settings();
        check(&only, "/r/a.rs", "rust", None);
        check(&only, "/r/a.py", "python", Some(NoneReason::DisabledLanguage));
        let off = toml("[complete]\nenable = false").0.settings();
        check(&off, "/r/a.rs", "rust", Some(NoneReason::Disabled));
    }

    #[test]
    fn as_many_lines_are_shown_as_there_may_be() {
        let one = toml("[complete]\nmax_lines = 1").0.settings();
        assert_eq!((one.cut("a\r\nb"), one.cut("a\nb"), one.cut("a")), ("a", "a", "a"));
        let two = toml("[complete]\nmax_lines = 2").0.settings();
        assert_eq!((two.cut("a\nb\nc"), two.cut("\n\nc")), ("a\nb", "\n"));
        assert_eq!(Settings::default().cut("a\nb\nc"), "a\nb\nc");
    }
}

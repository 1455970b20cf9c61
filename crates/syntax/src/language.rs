//! The languages with a grammar, and the facts about each that no tree tells.
//!
//! In: a path or LSP's language id. Out: the language, its grammar, its comments, quotes and blocks.
//! Source: the language ids are those of LSP 3.17, "TextDocumentItem", and Neovim's file types.

use std::path::Path;

/// A language with a grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Language {
    /// POSIX shell and Bash.
    Bash,
    /// C.
    C,
    /// C++, and headers, which it reads whichever of the two they are.
    Cpp,
    /// C#.
    CSharp,
    /// CSS.
    Css,
    /// Go.
    Go,
    /// HTML.
    Html,
    /// Java.
    Java,
    /// JavaScript, modules and JSX included.
    JavaScript,
    /// JSON, with comments or without.
    Json,
    /// Lua.
    Lua,
    /// Markdown's blocks; what is inside a paragraph is just text.
    Markdown,
    /// PHP, within HTML.
    Php,
    /// Python 3.
    Python,
    /// Ruby.
    Ruby,
    /// Rust.
    Rust,
    /// TOML.
    Toml,
    /// TypeScript with JSX.
    Tsx,
    /// TypeScript.
    TypeScript,
    /// YAML.
    Yaml,
}

/// What makes a block of a language a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlockForm {
    /// `{` opens it, `}` closes it.
    Braces,
    /// `:` at a line's end opens it, less indentation closes it.
    Indentation,
    /// Words open and close it, as `then` and `end` do.
    Words,
    /// Tags open and close it.
    Tags,
    /// The language has none.
    None,
}

impl Language {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::Bash,
        Self::C,
        Self::Cpp,
        Self::CSharp,
        Self::Css,
        Self::Go,
        Self::Html,
        Self::Java,
        Self::JavaScript,
        Self::Json,
        Self::Lua,
        Self::Markdown,
        Self::Php,
        Self::Python,
        Self::Ruby,
        Self::Rust,
        Self::Toml,
        Self::Tsx,
        Self::TypeScript,
        Self::Yaml,
    ];

    /// Returns the language that a file's name or extension says.
    ///
    /// ```
    /// use std::path::Path;
    /// use syntax::Language;
    /// assert_eq!(Language::of(Path::new("src/lib.rs")), Some(Language::Rust));
    /// assert_eq!(Language::of(Path::new("Gemfile")), Some(Language::Ruby));
    /// assert_eq!(Language::of(Path::new("notes.txt")), None);
    /// ```
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        Self::of_name(name).or_else(|| Self::of_extension(path.extension()?.to_str()?))
    }

    fn of_name(name: &str) -> Option<Self> {
        match name {
            ".bashrc" | ".bash_profile" | ".bash_aliases" | ".envrc" | ".profile" | "APKBUILD"
            | "PKGBUILD" => Some(Self::Bash),
            "Pipfile.lock" | "composer.lock" | "flake.lock" | ".prettierrc" => Some(Self::Json),
            "SConscript" | "SConstruct" | "wscript" => Some(Self::Python),
            "Brewfile" | "Fastfile" | "Gemfile" | "Guardfile" | "Podfile" | "Rakefile" | "Vagrantfile" => {
                Some(Self::Ruby)
            }
            "Cargo.lock" | "Pipfile" | "poetry.lock" | "uv.lock" => Some(Self::Toml),
            ".clang-format" | ".clang-tidy" | "CITATION.cff" => Some(Self::Yaml),
            _ => None,
        }
    }

    fn of_extension(extension: &str) -> Option<Self> {
        match extension {
            "bash" | "bats" | "sh" => Some(Self::Bash),
            "c" => Some(Self::C),
            "c++" | "cc" | "cpp" | "cxx" | "h" | "h++" | "hh" | "hpp" | "hxx" | "inl" | "ipp" | "tpp" => {
                Some(Self::Cpp)
            }
            "cs" | "csx" => Some(Self::CSharp),
            "css" => Some(Self::Css),
            "go" => Some(Self::Go),
            "htm" | "html" | "xhtml" => Some(Self::Html),
            "java" => Some(Self::Java),
            "cjs" | "js" | "jsx" | "mjs" => Some(Self::JavaScript),
            "geojson" | "json" | "jsonc" | "webmanifest" => Some(Self::Json),
            "lua" | "rockspec" => Some(Self::Lua),
            "markdown" | "md" => Some(Self::Markdown),
            "php" | "phtml" => Some(Self::Php),
            "py" | "pyi" | "pyw" => Some(Self::Python),
            "gemspec" | "rake" | "rb" | "ru" => Some(Self::Ruby),
            "rs" => Some(Self::Rust),
            "toml" => Some(Self::Toml),
            "tsx" => Some(Self::Tsx),
            "cts" | "mts" | "ts" => Some(Self::TypeScript),
            "yaml" | "yml" => Some(Self::Yaml),
            _ => None,
        }
    }

    /// Returns the language of LSP's `languageId`.
    ///
    /// ```
    /// use syntax::Language;
    /// assert_eq!(Language::of_id("typescriptreact"), Some(Language::Tsx));
    /// assert_eq!(Language::of_id("plaintext"), None);
    /// ```
    #[must_use]
    pub fn of_id(id: &str) -> Option<Self> {
        match id {
            "bash" | "sh" | "shellscript" => Some(Self::Bash),
            "c" => Some(Self::C),
            "cpp" => Some(Self::Cpp),
            "cs" | "csharp" => Some(Self::CSharp),
            "css" => Some(Self::Css),
            "go" => Some(Self::Go),
            "html" => Some(Self::Html),
            "java" => Some(Self::Java),
            "javascript" | "javascriptreact" => Some(Self::JavaScript),
            "json" | "jsonc" => Some(Self::Json),
            "lua" => Some(Self::Lua),
            "markdown" => Some(Self::Markdown),
            "php" => Some(Self::Php),
            "python" => Some(Self::Python),
            "ruby" => Some(Self::Ruby),
            "rust" => Some(Self::Rust),
            "toml" => Some(Self::Toml),
            "typescriptreact" => Some(Self::Tsx),
            "typescript" => Some(Self::TypeScript),
            "dockercompose" | "github-actions-workflow" | "yaml" => Some(Self::Yaml),
            _ => None,
        }
    }

    /// Returns the id that editors know the language by.
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            Self::Bash => "shellscript",
            Self::C => "c",
            Self::Cpp => "cpp",
            Self::CSharp => "csharp",
            Self::Css => "css",
            Self::Go => "go",
            Self::Html => "html",
            Self::Java => "java",
            Self::JavaScript => "javascript",
            Self::Json => "json",
            Self::Lua => "lua",
            Self::Markdown => "markdown",
            Self::Php => "php",
            Self::Python => "python",
            Self::Ruby => "ruby",
            Self::Rust => "rust",
            Self::Toml => "toml",
            Self::Tsx => "typescriptreact",
            Self::TypeScript => "typescript",
            Self::Yaml => "yaml",
        }
    }

    /// Returns its name as fenced code blocks have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::C => "c",
            Self::Cpp => "cpp",
            Self::CSharp => "csharp",
            Self::Css => "css",
            Self::Go => "go",
            Self::Html => "html",
            Self::Java => "java",
            Self::JavaScript => "javascript",
            Self::Json => "json",
            Self::Lua => "lua",
            Self::Markdown => "markdown",
            Self::Php => "php",
            Self::Python => "python",
            Self::Ruby => "ruby",
            Self::Rust => "rust",
            Self::Toml => "toml",
            Self::Tsx => "tsx",
            Self::TypeScript => "typescript",
            Self::Yaml => "yaml",
        }
    }

    pub(crate) fn grammar(self) -> tree_sitter::Language {
        match self {
            Self::Bash => tree_sitter_bash::LANGUAGE.into(),
            Self::C => tree_sitter_c::LANGUAGE.into(),
            Self::Cpp => tree_sitter_cpp::LANGUAGE.into(),
            Self::CSharp => tree_sitter_c_sharp::LANGUAGE.into(),
            Self::Css => tree_sitter_css::LANGUAGE.into(),
            Self::Go => tree_sitter_go::LANGUAGE.into(),
            Self::Html => tree_sitter_html::LANGUAGE.into(),
            Self::Java => tree_sitter_java::LANGUAGE.into(),
            Self::JavaScript => tree_sitter_javascript::LANGUAGE.into(),
            Self::Json => tree_sitter_json::LANGUAGE.into(),
            Self::Lua => tree_sitter_lua::LANGUAGE.into(),
            Self::Markdown => tree_sitter_md::LANGUAGE.into(),
            Self::Php => tree_sitter_php::LANGUAGE_PHP.into(),
            Self::Python => tree_sitter_python::LANGUAGE.into(),
            Self::Ruby => tree_sitter_ruby::LANGUAGE.into(),
            Self::Rust => tree_sitter_rust::LANGUAGE.into(),
            Self::Toml => tree_sitter_toml_ng::LANGUAGE.into(),
            Self::Tsx => tree_sitter_typescript::LANGUAGE_TSX.into(),
            Self::TypeScript => tree_sitter_typescript::LANGUAGE_TYPESCRIPT.into(),
            Self::Yaml => tree_sitter_yaml::LANGUAGE.into(),
        }
    }

    /// Returns whether what a text of one language defines may be used in one of the other.
    #[must_use]
    pub fn shares_names_with(self, other: Self) -> bool {
        const FAMILIES: [&[Language]; 2] =
            [&[Language::C, Language::Cpp], &[Language::JavaScript, Language::Tsx, Language::TypeScript]];
        self == other || FAMILIES.iter().any(|family| family.contains(&self) && family.contains(&other))
    }

    /// Returns what begins a comment that ends with its line.
    #[must_use]
    pub fn line_comment(self) -> Option<&'static str> {
        match self {
            Self::C
            | Self::Cpp
            | Self::CSharp
            | Self::Go
            | Self::Java
            | Self::JavaScript
            | Self::Json
            | Self::Php
            | Self::Rust
            | Self::Tsx
            | Self::TypeScript => Some("//"),
            Self::Bash | Self::Python | Self::Ruby | Self::Toml | Self::Yaml => Some("#"),
            Self::Lua => Some("--"),
            Self::Css | Self::Html | Self::Markdown => None,
        }
    }

    /// Returns what begins and what ends a comment that may go over several lines.
    #[must_use]
    pub fn block_comment(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::C
            | Self::Cpp
            | Self::CSharp
            | Self::Css
            | Self::Go
            | Self::Java
            | Self::JavaScript
            | Self::Json
            | Self::Php
            | Self::Rust
            | Self::Tsx
            | Self::TypeScript => Some(("/*", "*/")),
            Self::Html | Self::Markdown => Some(("<!--", "-->")),
            Self::Lua => Some(("--[[", "]]")),
            Self::Ruby => Some(("=begin", "=end")),
            Self::Bash | Self::Python | Self::Toml | Self::Yaml => None,
        }
    }

    /// Returns what makes a block.
    #[must_use]
    pub fn block_form(self) -> BlockForm {
        match self {
            Self::C
            | Self::Cpp
            | Self::CSharp
            | Self::Css
            | Self::Go
            | Self::Java
            | Self::JavaScript
            | Self::Json
            | Self::Php
            | Self::Rust
            | Self::Tsx
            | Self::TypeScript => BlockForm::Braces,
            Self::Python | Self::Yaml => BlockForm::Indentation,
            Self::Bash | Self::Lua | Self::Ruby => BlockForm::Words,
            Self::Html => BlockForm::Tags,
            Self::Markdown | Self::Toml => BlockForm::None,
        }
    }

    /// Returns what quotes a string, longer ones first; a string ends with what began it.
    ///
    /// Rust's `'` is not one of them: it is a lifetime as often as a character.
    #[must_use]
    pub fn quotes(self) -> &'static [&'static str] {
        match self {
            Self::Python => &["\"\"\"", "'''", "\"", "'"],
            Self::Toml => &["\"\"\"", "'''", "\"", "'"],
            Self::CSharp | Self::Java => &["\"\"\"", "\"", "'"],
            Self::JavaScript | Self::Tsx | Self::TypeScript => &["\"", "'", "`"],
            Self::Go => &["\"", "`", "'"],
            Self::Rust | Self::Json => &["\""],
            Self::Bash
            | Self::C
            | Self::Cpp
            | Self::Css
            | Self::Html
            | Self::Lua
            | Self::Php
            | Self::Ruby
            | Self::Yaml => &["\"", "'"],
            Self::Markdown => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_says_the_language() {
        let check = |path: &str, expected| assert_eq!(Language::of(Path::new(path)), expected, "{path}");
        check("a/b.py", Some(Language::Python));
        check("a.tar.rs", Some(Language::Rust));
        check("a.mts", Some(Language::TypeScript));
        check("a.tsx", Some(Language::Tsx));
        check("a.jsx", Some(Language::JavaScript));
        check("a.h", Some(Language::Cpp));
        check("a/Gemfile", Some(Language::Ruby));
        check("Cargo.lock", Some(Language::Toml));
        check("composer.lock", Some(Language::Json));
        check(".bashrc", Some(Language::Bash));
        check("README", None);
        check("rs", None);
        check("a.", None);
        check("", None);
        check("/", None);
    }

    #[test]
    fn every_language_has_a_grammar_and_knows_its_comments() {
        for language in Language::ALL {
            let mut parser = tree_sitter::Parser::new();
            parser.set_language(&language.grammar()).expect("the grammar is of a version tree-sitter reads");
            let comments = [
                language.line_comment().map(|begin| format!("{begin} c\n")),
                language.block_comment().map(|(begin, end)| format!("{begin}\nc\n{end}\n")),
            ];
            for comment in comments.into_iter().flatten() {
                let code = if language == Language::Php { format!("<?php\n{comment}") } else { comment };
                let tree = parser.parse(&code, None).expect("there is no limit");
                let sexp = tree.root_node().to_sexp();
                assert!(!tree.root_node().has_error(), "{language:?} {code:?} {sexp}");
                assert!(
                    sexp.contains("comment") || sexp.contains("html_block"),
                    "{language:?} {code:?} {sexp}"
                );
            }
        }
    }

    #[test]
    fn every_language_has_an_id() {
        let ids = [
            "shellscript",
            "c",
            "cpp",
            "csharp",
            "css",
            "go",
            "html",
            "java",
            "javascript",
            "json",
            "lua",
            "markdown",
            "php",
            "python",
            "ruby",
            "rust",
            "toml",
            "typescriptreact",
            "typescript",
            "yaml",
        ];
        assert_eq!(ids.map(Language::of_id), Language::ALL.map(Some));
        assert_eq!(Language::ALL.map(|language| Language::of_id(language.id())), Language::ALL.map(Some));
    }
}

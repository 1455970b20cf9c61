//! Texts that end the process inside of a grammar's scanner, and so are not parsed.
//!
//! In: a text about to be parsed. Out: whether it is safe.
//!
//! A scanner keeps its state in 1024 bytes of tree-sitter's. Some write past them, or read back another length than
//! they wrote, and what tree-sitter then asserts is no panic but an abort. Until a grammar with the mend is released,
//! what could get there is refused, with room to spare; no text that a person wrote for others should be.
//!
//! Source: tree-sitter-python #350, tree-sitter-ruby #269, tree-sitter-yaml #48 and #49, of the versions in
//! `Cargo.lock`; for Bash its `src/scanner.c`, `serialize` and `brace_start`.

use std::collections::BTreeSet;

use crate::Language;
use crate::source::Replaced;

/// Of 510 blocks within each other, two bytes each; a nested string takes one.
const N_MAX_PYTHON_INDENTS: usize = 380;
/// A heredoc's length is kept in one byte.
const N_MAX_RUBY_WORD_BYTES: usize = 200;
/// How many heredocs are open is kept in one byte.
const N_MAX_BASH_HEREDOCS: usize = 250;
/// Of 253 collections within each other, four bytes each; a place may open a mapping and a sequence.
const N_MAX_YAML_PLACES: usize = 120;
/// Rows are kept in 15 bits.
const N_MAX_YAML_LINES: usize = 32_000;

/// Returns whether a text can be parsed without ending the process.
pub(crate) fn is_safe(language: Language, text: &Replaced<'_>) -> bool {
    match language {
        Language::Bash => is_safe_bash(text.bytes()),
        Language::Python => is_safe_python(text.bytes()),
        Language::Ruby => is_safe_ruby(text.bytes()),
        Language::Yaml => is_safe_yaml(text.bytes()),
        _ => true,
    }
}

fn is_safe_python(bytes: impl Iterator<Item = u8>) -> bool {
    let mut indents = BTreeSet::new();
    // `None` within a line's code.
    let mut indent = Some(0_usize);
    for byte in bytes {
        indent = match (byte, indent) {
            (b'\n', _) => Some(0),
            (b' ', Some(n)) => Some(n + 1),
            (b'\t', Some(n)) => Some(n + 8),
            (_, Some(n)) => {
                // Most lines begin as the one above.
                if indents.last() != Some(&n) {
                    indents.insert(n);
                }
                None
            }
            (_, None) => None,
        };
    }
    indents.len() <= N_MAX_PYTHON_INDENTS
}

fn is_safe_ruby(bytes: impl Iterator<Item = u8>) -> bool {
    // Where the first heredoc began whose quoted word is not over, for each quote: any `<<` may be one to the scanner.
    let mut words: [(u8, Option<usize>); 3] = [(b'"', None), (b'\'', None), (b'`', None)];
    let mut n_word_bytes = None;
    let mut n_less = 0;
    let mut last = b'\n';
    for (at, byte) in bytes.enumerate() {
        let begins = n_less >= 2;
        n_word_bytes = match n_word_bytes {
            Some(n) if is_word(byte) => Some(n + 1),
            None if begins && is_word(byte) => Some(1),
            _ => None,
        };
        for (quote, start) in &mut words {
            if byte == *quote {
                *start = begins.then_some(at);
            }
            if start.is_some_and(|start| at - start > N_MAX_RUBY_WORD_BYTES) {
                return false;
            }
        }
        if n_word_bytes > Some(N_MAX_RUBY_WORD_BYTES) {
            return false;
        }
        n_less = match byte {
            b'<' if last == b'<' => n_less + 1,
            b'<' => 1,
            b'-' | b'~' if last == b'<' => n_less,
            _ => 0,
        };
        last = byte;
    }
    true
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

fn is_safe_bash(bytes: impl Iterator<Item = u8>) -> bool {
    let mut n_heredocs = 0;
    let mut n_less = 0;
    let mut in_braces = false;
    for byte in bytes {
        n_less = if byte == b'<' { n_less + 1 } else { 0 };
        n_heredocs += usize::from(n_less == 2);
        // `isdigit` of a character beyond U+00FF reads what it must not.
        if in_braces && byte >= 0xc4 {
            return false;
        }
        in_braces = byte == b'{' || in_braces && (byte.is_ascii_digit() || byte == b'.');
    }
    n_heredocs <= N_MAX_BASH_HEREDOCS
}

fn is_safe_yaml(bytes: impl Iterator<Item = u8>) -> bool {
    let (mut n_lines, mut n_most_head, mut n_most_inner) = (0_usize, 0_usize, 0_usize);
    let (mut n_head, mut n_inner) = (0_usize, 0_usize);
    let mut in_head = true;
    let mut last = b'\n';
    for byte in bytes.chain([b'\n']) {
        let is_space = matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        in_head &= matches!(byte, b' ' | b'\t' | b'-' | b'?');
        n_head += usize::from(in_head);
        let opens =
            matches!(last, b'-' | b'?' | b':' | b'|' | b'>') && is_space || last == b'"' && byte == b':';
        n_inner += usize::from(opens && !in_head);
        if byte == b'\n' {
            n_lines += 1;
            n_most_head = n_most_head.max(n_head);
            n_most_inner = n_most_inner.max(n_inner);
            (n_head, n_inner, in_head) = (0, 0, true);
        }
        last = byte;
    }
    n_lines <= N_MAX_YAML_LINES && n_most_head + n_most_inner <= N_MAX_YAML_PLACES
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::SyntaxTree;

    fn is_parsed(language: Language, text: &str) -> bool {
        SyntaxTree::parse(language, &text.into(), Duration::MAX).is_some()
    }

    /// Returns lines of ever more indentation.
    fn stairs(n_steps: usize, step: &str) -> String {
        let mut text = String::new();
        for n in 0..n_steps {
            let _ = writeln!(text, "{}{step}", " ".repeat(n));
        }
        text
    }

    #[test]
    fn what_would_abort_is_not_parsed() {
        let python = |n| format!("{}{}'a'\n", stairs(n, "if 1:"), " ".repeat(n));
        assert!(!is_parsed(Language::Python, &python(600)));
        assert!(is_parsed(Language::Python, &python(300)));
        assert!(!is_parsed(Language::Yaml, &stairs(300, "a:")));
        assert!(is_parsed(Language::Yaml, &stairs(100, "a:")));
        assert!(!is_parsed(Language::Yaml, &"- ".repeat(300)));
        assert!(!is_parsed(Language::Yaml, &"a: 1\n".repeat(33_000)));
        let ruby = |n| format!("<<~\"BASH\n{}\nBASH\n", "a".repeat(n));
        assert!(!is_parsed(Language::Ruby, &ruby(600)));
        assert!(is_parsed(Language::Ruby, &ruby(100)));
        assert!(!is_parsed(Language::Ruby, &format!("<<{}\n", "A".repeat(300))));
        assert!(is_parsed(Language::Ruby, &format!("a << \"{}\"\n", "A".repeat(300))));
        assert!(!is_parsed(Language::Bash, &format!("a {}\n", "<<E ".repeat(300))));
        assert!(is_parsed(Language::Bash, &"a <<E\nb\nE\n".repeat(200)));
        assert!(!is_parsed(Language::Bash, "echo {1..\u{10ffff}\n"));
        assert!(is_parsed(Language::Bash, "echo é{a,é}\n"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

        #[test]
        fn what_is_parsed_does_not_abort(
            language in proptest::sample::select(vec![
                Language::Bash, Language::Python, Language::Ruby, Language::Yaml,
            ]),
            lines in proptest::collection::vec(
                (0_usize..130, proptest::collection::vec(proptest::sample::select(vec![
                    "a", ": ", "- ", "? ", "[", "{", "}", "|", "<<", "<<~\"", "'", "\"", "E", "if 1:", "f'{", "%w(",
                    "&a ", "!t ", "😀", "#", "\t",
                ]), 0..40)),
                0..60,
            ),
        ) {
            let mut text = String::new();
            for (n, parts) in lines {
                let _ = writeln!(text, "{}{}", " ".repeat(n), parts.concat());
            }
            let _ = SyntaxTree::parse(language, &text.as_str().into(), Duration::from_millis(200));
        }
    }
}

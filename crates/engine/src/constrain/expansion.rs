//! How much text a grammar's repetitions force, read off it without compiling it.
//!
//! In: a regular expression, or Lark. Out: a bound, in atoms (characters, classes); alternatives are added up.
//! Never: judges syntax; what is malformed gets some number here, and an error where it is compiled.
//! Source: `llguidance` 1.9.1 bounds its states, its items and its work on a mask, but not the bytes that a lexeme
//! forces: it writes all of `a{1000000000}` out, and cuts it into tokens at every step.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex::Regex;

/// Returns the atoms that `regex` has when each repetition is written out as often as it must.
pub(super) fn of_regex(regex: &str) -> u64 {
    let mut sum = Sum::default();
    let mut rest = regex.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match first {
            b'\\' => {
                sum.atom(1);
                rest = after.get(1..).unwrap_or(&[]);
            }
            b'[' => {
                sum.atom(1);
                rest = after_class(after);
            }
            b'(' => sum.open(),
            b')' => sum.close(),
            b'{' => rest = sum.repeat(after),
            b'}' | b'*' | b'+' | b'?' | b'|' => {}
            _ => sum.atom(1),
        }
    }
    sum.finish()
}

/// Returns the same of the largest of a Lark grammar's terminals and of its rules, where a rule counts as one atom in
/// another: what rules repeat is bounded by the items of a step.
pub(super) fn of_lark(lark: &str) -> u64 {
    static DEFINITION: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"(?m)^[ \t]*[?!]?([A-Za-z_][A-Za-z0-9_]*)[^:\n/\x22]*:")
            .expect("a regular expression of ours")
    });
    let names: Vec<_> = DEFINITION.captures_iter(lark).filter_map(|found| found.get(1)).collect();
    let ends = names.iter().skip(1).map(|name| name.start()).chain([lark.len()]);
    let bodies: Vec<(&str, &str)> =
        names.iter().zip(ends).map(|(name, end)| (name.as_str(), &lark[name.end()..end])).collect();
    // Each round knows terminals one level deeper; they cannot be recursive.
    let mut sizes: HashMap<&str, u64> = HashMap::new();
    for _ in 0..=bodies.len().min(N_MAX_LEVELS) {
        let before = sizes.clone();
        let size = |name: &str| match name.starts_with(|c: char| c.is_ascii_uppercase() || c == '_') {
            true => before.get(name).copied().unwrap_or(1),
            false => 1,
        };
        for (name, body) in &bodies {
            // A nested grammar may use a name once more.
            let largest = sizes.entry(name).or_default();
            *largest = (*largest).max(of_body(body, &size));
        }
        if sizes == before {
            break;
        }
    }
    sizes.into_values().max().unwrap_or(0)
}

/// Terminals in terminals in terminals: more levels than a grammar needs.
const N_MAX_LEVELS: usize = 64;

fn of_body(body: &str, size: &dyn Fn(&str) -> u64) -> u64 {
    let mut sum = Sum::default();
    let mut at = 0;
    let bytes = body.as_bytes();
    while let Some(&first) = bytes.get(at) {
        let after = &bytes[at + 1..];
        at = match first {
            b'/' if after.first() == Some(&b'/') => at + 1 + length(after, |byte| byte != b'\n'),
            b'"' | b'/' => {
                let n_bytes = quoted(after, first);
                let quoted = &body[at + 1..at + 1 + n_bytes];
                sum.atom(if first == b'"' { n_bytes as u64 } else { of_regex(quoted) });
                at + 2 + n_bytes
            }
            b'(' | b'[' => {
                sum.open();
                at + 1
            }
            b')' | b']' => {
                sum.close();
                at + 1
            }
            b'{' | b'~' => bytes.len() - sum.repeat(after).len(),
            _ if first.is_ascii_alphabetic() || first == b'_' => {
                let end = at + length(&bytes[at..], |byte| byte.is_ascii_alphanumeric() || byte == b'_');
                sum.atom(size(&body[at..end]));
                end
            }
            _ => at + 1,
        };
    }
    sum.finish()
}

/// Adds up atoms, group in group.
#[derive(Default)]
struct Sum {
    outer: Vec<u64>,
    total: u64,
    /// The atom or group that a repetition would repeat; not yet in `total`.
    last: u64,
}

impl Sum {
    fn atom(&mut self, size: u64) {
        self.total = self.total.saturating_add(self.last);
        self.last = size;
    }

    fn open(&mut self) {
        self.atom(0);
        self.outer.push(std::mem::take(&mut self.total));
    }

    fn close(&mut self) {
        self.last = self.total.saturating_add(self.last);
        self.total = self.outer.pop().unwrap_or(0);
    }

    /// Reads the count after `{` or `~`, if there is one; returns what follows its digits.
    fn repeat<'b>(&mut self, after: &'b [u8]) -> &'b [u8] {
        let after = &after[length(after, |byte| byte == b' ')..];
        let (digits, rest) = after.split_at(length(after, |byte| byte.is_ascii_digit()));
        if !digits.is_empty() {
            let count = digits
                .iter()
                .fold(0u64, |count, digit| count.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
            // Of `{0,9}` none must come, but it may.
            self.last = self.last.saturating_mul(count.max(1));
        }
        // What a most is, is not forced, and no atom either.
        match rest.first() {
            Some(b',') => &rest[length(rest, |byte| byte != b'}')..],
            _ => rest,
        }
    }

    fn finish(mut self) -> u64 {
        while !self.outer.is_empty() {
            self.close();
        }
        self.total.saturating_add(self.last)
    }
}

fn length(bytes: &[u8], is_in: impl Fn(u8) -> bool) -> usize {
    bytes.iter().position(|&byte| !is_in(byte)).unwrap_or(bytes.len())
}

/// Returns the bytes before the next `quote` that no backslash precedes.
fn quoted(bytes: &[u8], quote: u8) -> usize {
    let mut is_escaped = false;
    let is_end = |byte: &u8| {
        let is_end = *byte == quote && !is_escaped;
        is_escaped = *byte == b'\\' && !is_escaped;
        is_end
    };
    bytes.iter().position(is_end).unwrap_or(bytes.len())
}

/// Returns what follows a class whose `[` has been read.
fn after_class(class: &[u8]) -> &[u8] {
    // In `[]a]` and `[^]a]` the first bracket is one of the class.
    let n_head = usize::from(class.first() == Some(&b'^'));
    let n_head = n_head + usize::from(class.get(n_head) == Some(&b']'));
    let inner = &class[n_head..];
    &inner[(quoted(inner, b']') + 1).min(inner.len())..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_multiply_what_they_repeat() {
        let check = |regex: &str, expected: u64| assert_eq!(of_regex(regex), expected, "{regex}");
        check("", 0);
        check("abc", 3);
        check("ab{10}c", 12);
        check("(ab){10}c", 21);
        check("((ab){10}c){3,}|d", 64);
        check(r"\d{4}-[0-9a-f]{2,9}", 7);
        check(r"[]{9}]{5}\{7}", 5 + 1 + 1);
        check("x{0,1000}y*", 2);
        check("a{99999999999999999999999}", u64::MAX);
        check("(((((a{10}", 10);
        check("))))a{10}", 10);
    }

    #[test]
    fn a_terminal_is_as_large_as_those_it_is_made_of() {
        let check = |lark: &str, expected: u64| assert_eq!(of_lark(lark), expected, "{lark}");
        check("start: A\nA: B{10}\nB: C~3 \"x\"\nC: \"ab\"", 70);
        check("start: sum\nsum: sum \"+\" sum | /[0-9]{3}/", 6);
        check("start: \"(((\" /a\\/{5}/ // {9} (\n", 3 + 6);
        check("start: %json { \"maxLength\": 99999 }", 1 + 9);
        check("start: A\nA: B{9}\nB: \"ab\"\nx: %lark {\nstart: A\nA: \"a\"\n}", 18);
    }
}

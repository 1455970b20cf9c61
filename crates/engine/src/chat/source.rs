//! A template's source, made ready for the compiler.
//!
//! In: Jinja, as the model's maker wrote it. Out: Jinja with marks for the special tokens it names,
//! on the same lines. Never: touches code outside of string literals, but for `{% generation %}`.

use super::mark::Marks;
use crate::Tokenizer;

/// Replaces the names of special tokens in text and string literals by their marks, and drops the
/// tags that only training uses.
pub(super) fn prepare(source: &str, tokenizer: &Tokenizer, marks: &mut Marks) -> String {
    let mut reader = Reader { rest: source, out: String::with_capacity(source.len()), tokenizer, marks };
    while !reader.rest.is_empty() {
        let data_end = ["{{", "{%", "{#"].iter().filter_map(|open| reader.rest.find(open)).min();
        reader.named(data_end.unwrap_or(reader.rest.len()));
        if reader.rest.starts_with("{#") {
            let end = reader.rest.find("#}").map_or(reader.rest.len(), |end| end + 2);
            reader.copy(end);
        } else if !reader.rest.is_empty() {
            reader.tag();
        }
    }
    reader.out
}

struct Reader<'s> {
    rest: &'s str,
    out: String,
    tokenizer: &'s Tokenizer,
    marks: &'s mut Marks,
}

impl Reader<'_> {
    fn copy(&mut self, n_bytes: usize) {
        let (done, rest) = self.rest.split_at(n_bytes);
        self.out.push_str(done);
        self.rest = rest;
    }

    /// Copies `n_bytes` in which names are replaced.
    fn named(&mut self, n_bytes: usize) {
        let (mut text, rest) = self.rest.split_at(n_bytes);
        self.rest = rest;
        while let Some((range, token)) = self.tokenizer.find_special(text) {
            self.out.push_str(&text[..range.start]);
            match self.marks.mark(token) {
                Some(mark) => self.out.push(mark),
                None => self.out.push_str(&text[range.clone()]),
            }
            text = &text[range.end..];
        }
        self.out.push_str(text);
    }

    /// Copies a tag, `{{ … }}` or `{% … %}`; text between `raw` and `endraw` is no code either.
    fn tag(&mut self) {
        let close = if self.rest.starts_with("{{") { "}}" } else { "%}" };
        let source = self.rest;
        let out_start = self.out.len();
        self.copy(2);
        self.code(close);
        let tag = &source[..source.len() - self.rest.len()];
        match tag_name(tag) {
            "generation" | "endgeneration" => {
                // A comment trims white space as the tag would.
                self.out.truncate(out_start);
                let sign =
                    |c: u8| if matches!(c, b'-' | b'+') { (c as char).to_string() } else { String::new() };
                let bytes = tag.as_bytes();
                let (first, last) = (sign(bytes[2]), sign(bytes[bytes.len() - 3]));
                self.out.push_str(&format!("{{#{first} {last}#}}"));
            }
            "raw" => {
                let end = self.rest.find("endraw").and_then(|at| self.rest[..at].rfind("{%"));
                self.named(end.unwrap_or(self.rest.len()));
            }
            _ => {}
        }
    }

    /// Copies code up to and with `close`, which may be in string literals or in braces before.
    fn code(&mut self, close: &str) {
        let mut depth = 0_usize;
        while let Some(c) = self.rest.chars().next() {
            if depth == 0 && self.rest.starts_with(close) {
                return self.copy(close.len());
            }
            match c {
                '\'' | '"' => {
                    self.copy(1);
                    self.named(literal_len(self.rest, c));
                    self.copy(self.rest.len().min(1));
                }
                _ => {
                    depth = match c {
                        '{' => depth + 1,
                        '}' => depth.saturating_sub(1),
                        _ => depth,
                    };
                    self.copy(c.len_utf8());
                }
            }
        }
    }
}

/// Returns the word a tag begins with.
fn tag_name(tag: &str) -> &str {
    let is_edge = |c: char| matches!(c, '{' | '}' | '%' | '-' | '+') || c.is_whitespace();
    let name = tag.trim_matches(is_edge);
    if tag.starts_with("{%") { name } else { "" }
}

/// Returns the bytes before the quote that ends a literal.
fn literal_len(text: &str, quote: char) -> usize {
    let mut is_escaped = false;
    let end = text.char_indices().find(|(_, c)| {
        let is_end = *c == quote && !is_escaped;
        is_escaped = *c == '\\' && !is_escaped;
        is_end
    });
    end.map_or(text.len(), |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::tests::vocabulary;

    #[test]
    fn names_become_marks_in_text_and_literals_only() {
        let tokenizer = vocabulary(&["<a>", "[1]", "<\"b>"]);
        #[track_caller]
        fn check(tokenizer: &Tokenizer, source: &str, expect: &str) {
            let mut marks = Marks::default();
            let prepared = prepare(source, tokenizer, &mut marks);
            let shown: String = prepared
                .chars()
                .map(|c| match (c as u32).checked_sub(0x10_0000) {
                    Some(idx) => char::from(b'A' + idx as u8),
                    None => c,
                })
                .collect();
            assert_eq!(shown, expect);
        }
        check(&tokenizer, "<a>x<a>[1]", "AxAB");
        check(&tokenizer, "{{ x[1] + '[1]' ~ \"<a>\" }}[1]", "{{ x[1] + 'A' ~ \"B\" }}A");
        check(&tokenizer, r"{{ 'it\'s <a>' }}{{ a<a> b }}", r"{{ 'it\'s A' }}{{ a<a> b }}");
        check(&tokenizer, "{{ {'a': {'<a>': 1}} }}<a>", "{{ {'a': {'A': 1}} }}A");
        check(
            &tokenizer,
            "{# <a> {{ #}<a>{% if x['}}'] == '%}<a>' %}",
            "{# <a> {{ #}A{% if x['}}'] == '%}A' %}",
        );
        check(&tokenizer, "{% raw %}{{ <a> }}{%- endraw %}<a>", "{% raw %}{{ A }}{%- endraw %}A");
        check(&tokenizer, "{%- generation -%}<a>{% endgeneration %}\n", "{#- -#}A{# #}\n");
        check(&tokenizer, "{{ '<\"b>' }}", "{{ 'A' }}");
        check(&tokenizer, "{{ 'open <a>", "{{ 'open A");
        check(&tokenizer, "{", "{");
        check(&tokenizer, "{%%}", "{%%}");
        check(&tokenizer, "{%generation%}", "{# #}");
    }
}

//! Whether a model has begun to say the same thing again and again, as small ones do.
//!
//! In: what is written so far. Out: where the repetition begins.
//! Source: Knuth, Morris and Pratt's prefix function finds the shortest period of a text's end.

/// Bytes at the end of a text that are looked at.
const N_MAX_BYTES: usize = 160;
/// How often a text stands there, at least, to be a repetition: a long one is no accident sooner.
const fn n_times(n_period: usize) -> usize {
    match n_period {
        0..=4 => 6,
        5..=10 => 4,
        _ => 3,
    }
}

/// Returns the byte at which the second round of what `text` repeats at its end begins, if it repeats anything.
///
/// A rule of one punctuation mark, as comments have, is none, nor is white space.
pub(crate) fn repetition(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let end = &bytes[bytes.len().saturating_sub(N_MAX_BYTES)..];
    let reversed: Vec<u8> = end.iter().rev().copied().collect();
    // border[n]: the longest proper prefix of the first n bytes that is their suffix too.
    let mut border = vec![0; reversed.len() + 1];
    let mut k = 0;
    for n in 1..reversed.len() {
        while k > 0 && reversed[n] != reversed[k] {
            k = border[k];
        }
        k += usize::from(reversed[n] == reversed[k]);
        border[n + 1] = k;
    }
    for n in (1..=reversed.len()).rev() {
        let n_period = n - border[n];
        let is_rule = n_period == 1 && !reversed[0].is_ascii_alphanumeric();
        let is_space = reversed[..n_period].iter().all(u8::is_ascii_whitespace);
        if !is_rule && !is_space && n >= n_times(n_period) * n_period {
            let at = bytes.len() - n + n_period;
            return (at..=bytes.len()).find(|&at| text.is_char_boundary(at));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::repetition;

    #[test]
    fn what_is_said_again_and_again_is_found_and_code_is_not() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(repetition(text).map(|at| &text[..at]), expected, "{text:?}");
        };
        check("x = T, T, T, T, T, T, T, ", Some("x = T,"));
        check("# 1.1.1.1.1.1.1.1.1", Some("# 1."));
        check("Ext extends Ext extends Ext extends Ext extends", Some("Ext extends "));
        check("foo.extend(bar).extend(baz).extend(qux)", None);
        check("# ----------------------------------------", None);
        check("a = [0, 0, 0]", None);
        check("for (i = 0; i < 10; i++) {", None);
        check("aaaaaaaa", Some("a"));
        check("                        x", None);
        check("x\n                                        ", None);
        check("é é é é é é é é ", Some("é "));
        check("", None);
        check("    self.a = a\n    self.b = b\n    self.c = c\n", None);
        check("    x = 1\n    x = 1\n    x = 1\n    x = 1\n", Some("    x = 1\n"));
    }
}

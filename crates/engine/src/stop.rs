//! Stop texts, with hold-back: nothing that may turn out to be the start of a stop text is shown too early.

/// Watches an answer for stop texts.
#[derive(Debug)]
pub(crate) struct StopTexts {
    texts: Vec<String>,
}

/// What of the answer may be shown.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Watch {
    /// The answer up to this byte is safe to show; go on.
    Safe(usize),
    /// A stop text begins at this byte; the answer ends there.
    Stop(usize),
}

impl StopTexts {
    pub(crate) fn new(texts: Vec<String>) -> Self {
        Self { texts: texts.into_iter().filter(|text| !text.is_empty()).collect() }
    }

    /// Judges the whole answer so far; `from` is a byte known to be safe.
    pub(crate) fn watch(&self, answer: &str, from: usize) -> Watch {
        let rest = &answer[from..];
        if let Some(at) = self.texts.iter().filter_map(|text| rest.find(text.as_str())).min() {
            return Watch::Stop(from + at);
        }
        let held_back = self.texts.iter().map(|text| overlap(rest, text)).max().unwrap_or(0);
        Watch::Safe(answer.len() - held_back)
    }
}

/// Returns the length of the longest proper beginning of `text` that `answer` ends with.
fn overlap(answer: &str, text: &str) -> usize {
    (1..text.len())
        .rev()
        .filter(|&n| text.is_char_boundary(n))
        .find(|&n| answer.ends_with(&text[..n]))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_text_is_held_back_until_it_is_decided() {
        let stops = StopTexts::new(vec!["\n\n".into(), "def ".into(), "é!".into()]);
        let check = |answer: &str, expected| assert_eq!(stops.watch(answer, 0), expected, "{answer:?}");
        check("x = 1", Watch::Safe(5));
        check("x = 1\n", Watch::Safe(5));
        check("x = 1\nde", Watch::Safe(6));
        check("x = 1\ndef f", Watch::Stop(6));
        check("a\n\nb", Watch::Stop(1));
        check("aé", Watch::Safe(1));
        check("", Watch::Safe(0));
    }
}

//! Lines of the model's, from a prompt to where a line ends.
//!
//! In: token ids. Out: [`Line`]s, the likeliest first.
//! Never: chooses among them; that is [`choice`](crate::choice)'s.

use std::time::{Duration, Instant};

use engine::{
    CancelToken, Drafting, Engine, GenerateRequest, Generation, Priority, Sampling, ScoreRequest, StopReason,
    StopRules, TokenId,
};

use crate::gate::Around;
use crate::prompt::Prompt;
use crate::repetition::repetition;
use crate::{Options, Statistics};

/// The likeliest tokens looked at for each place of a line.
const N_TOP: usize = 4;

/// Fewest tokens of a prompt whose time says what one takes: a few take as long as one.
const MIN_TIMED: usize = 64;

/// What the model writes to the end of a line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    /// Its ids, those of the healed part first.
    pub(crate) tokens: Vec<TokenId>,
    /// Its text without the healed part and the line break.
    pub(crate) text: String,
    /// Natural logarithm of each token's probability.
    pub(crate) logprobs: Vec<f32>,
    /// Why it ended.
    pub(crate) stop: StopReason,
}

impl Line {
    /// Takes off white space at its beginning where the editor has indented the line already.
    pub(crate) fn begin_at(&mut self, around: &Around) {
        if around.is_indented() {
            self.text.drain(..self.text.len() - self.text.trim_start().len());
        }
    }
}

/// A place in a line where another token would have been nearly as likely.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Doubt {
    /// Tokens of the line before it.
    pub(crate) n_before: usize,
    /// The other token.
    pub(crate) token: TokenId,
    /// Its logprob.
    pub(crate) logprob: f32,
    /// How much less likely it is than the token that was chosen; 0 or less.
    pub(crate) margin: f32,
}

/// Asks the engine on behalf of one completion, and counts what it took.
pub(crate) struct Writer<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) options: &'a Options,
    /// Most lines besides the likeliest.
    pub(crate) n_others: usize,
    pub(crate) priority: Priority,
    pub(crate) cancel: &'a CancelToken,
    pub(crate) statistics: Statistics,
    /// When there should be an answer.
    until: Option<Instant>,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(
        engine: &'a Engine,
        options: &'a Options,
        n_others: usize,
        priority: Priority,
        cancel: &'a CancelToken,
    ) -> Self {
        Self { engine, options, n_others, priority, cancel, statistics: Statistics::default(), until: None }
    }

    /// Wants an answer so much later: what only makes it better, or longer, is left out where there is no time for it.
    pub(crate) fn answer_within(mut self, time: Duration) -> Self {
        self.until = Instant::now().checked_add(time);
        self
    }

    /// Returns how much time is left.
    fn left(&self) -> Duration {
        self.until.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()))
    }

    /// Returns whether there is time to write a few lines more like the first, all at once, and to judge them.
    pub(crate) fn has_time_for_others(&self) -> bool {
        self.left() > 2 * self.statistics.timings.decode
    }

    /// Returns whether there is time to compute so many tokens more besides, as far as the prompt's own time tells.
    pub(crate) fn has_time_to_read(&self, n_tokens: usize) -> bool {
        let n_read = self.statistics.n_prompt.saturating_sub(self.statistics.n_reused);
        if n_read < MIN_TIMED {
            return true;
        }
        let of_each = self.statistics.timings.prefill.div_f64(n_read as f64);
        self.left() > 2 * self.statistics.timings.decode + of_each.mul_f64(n_tokens as f64)
    }

    /// Returns whether there is time to write on.
    pub(crate) fn has_time(&self) -> bool {
        !self.left().is_zero()
    }

    /// Returns the likeliest line and where it was in doubt, the likeliest others first.
    ///
    /// `on_text` hears the text as it comes and says whether more of it is wanted. When its time is over, the line goes on
    /// until `is_worth` says that there is something to show: who stopped typing would wait for ever otherwise, and who
    /// types on cancels it.
    pub(crate) fn line(
        &mut self,
        prompt: &Prompt,
        previous: &str,
        is_worth: &dyn Fn(&str) -> bool,
        on_text: &mut dyn FnMut(&str) -> bool,
    ) -> Result<(Line, Vec<Doubt>), engine::Error> {
        let time = self.left().max(self.options.line_time);
        let mut request = self.request(prompt, vec!["\n".into()], self.options.decode_time);
        request.n_top = if self.n_others > 0 { N_TOP } else { 0 };
        if !previous.is_empty() {
            let previous = [&prompt.healed[..], previous.as_bytes()].concat();
            request.drafting.previous = self.engine.tokenizer().encode(&String::from_utf8_lossy(&previous));
        }
        let (mut text, mut begun, mut n_worth) = (String::new(), None, None);
        let mut hear = |piece: &str| {
            // The engine may have written on by the time it is told.
            if n_worth.is_some() {
                return false;
            }
            text.push_str(piece);
            let is_late = begun.get_or_insert_with(Instant::now).elapsed() >= time;
            n_worth = (is_late && is_worth(&text)).then_some(text.len());
            on_text(piece) && n_worth.is_none()
        };
        let mut generation = self.generate(request, &mut hear)?;
        if let Some(n_worth) = n_worth.filter(|_| generation.stop == StopReason::Enough) {
            generation.stop = StopReason::Time;
            self.cut(&mut generation, prompt.healed.len(), n_worth);
        }
        let doubts = self.doubts(&generation, prompt.healed.len());
        Ok((line(generation), doubts))
    }

    /// Takes off what was written behind the first bytes of an answer's text, its healed part not counted.
    fn cut(&self, generation: &mut Generation, n_healed: usize, n_bytes: usize) {
        let tokenizer = self.engine.tokenizer();
        let mut n_written = 0;
        let within = generation.tokens.iter().take_while(|token| {
            let is_within = n_written < n_healed + n_bytes;
            n_written += tokenizer.token_bytes(**token).len();
            is_within
        });
        let n_tokens = within.count();
        generation.tokens.truncate(n_tokens);
        generation.logprobs.truncate(n_tokens);
        generation.top.truncate(n_tokens);
        if generation.text.is_char_boundary(n_bytes) {
            generation.text.truncate(n_bytes);
        }
    }

    /// Returns the line that takes the other token at a doubt, unless it was cut short, and what it took.
    pub(crate) fn other(
        &self,
        prompt: &Prompt,
        first: &Line,
        doubt: &Doubt,
    ) -> Result<(Option<Line>, Statistics), engine::Error> {
        let tokenizer = self.engine.tokenizer();
        let mut tokens = first.tokens[..doubt.n_before].to_vec();
        tokens.push(doubt.token);
        let mut logprobs = first.logprobs[..doubt.n_before].to_vec();
        logprobs.push(doubt.logprob);
        let mut bytes = tokenizer.decode(&tokens);
        let owed = prompt.healed.get(bytes.len()..).unwrap_or_default().to_vec();
        bytes.drain(..bytes.len().min(prompt.healed.len()));
        let mut text = String::from_utf8_lossy(&bytes).into_owned();
        let mut statistics = Statistics::default();
        let mut stop = StopReason::StopText;
        if let Some(end) = text.find('\n') {
            text.truncate(end);
        } else {
            let begun = Prompt { tokens: [&prompt.tokens[..], &tokens].concat(), healed: owed };
            let decode_time = self.options.decode_time.min(self.left());
            let request = self.request(&begun, vec!["\n".into()], decode_time);
            let generation = self.engine.generate(request, &mut |_| true, self.cancel)?;
            statistics.add(&generation);
            let rest = line(generation);
            tokens.extend(rest.tokens);
            text.push_str(&rest.text);
            logprobs.extend(rest.logprobs);
            stop = rest.stop;
        }
        let is_whole = matches!(stop, StopReason::StopText | StopReason::EndOfGeneration);
        Ok((is_whole.then_some(Line { tokens, text, logprobs, stop }), statistics))
    }

    /// Returns how likely the tokens of a text are from an index on, the sum of their logprobs; or nothing if that was
    /// cancelled.
    pub(crate) fn likelihood(
        &self,
        tokens: Vec<TokenId>,
        from: usize,
    ) -> Result<(Option<f32>, Statistics), engine::Error> {
        let n_scored = tokens.len() - from;
        if n_scored == 0 {
            return Ok((Some(0.0), Statistics::default()));
        }
        let priority = self.priority;
        let request =
            ScoreRequest { tokens, from, n_top: 0, asked: std::collections::BTreeMap::new(), priority };
        let scores = self.engine.score(request, self.cancel)?;
        let sum = scores.map(|scores| scores.iter().map(|score| score.logprob).sum());
        Ok((sum, Statistics { n_scored, ..Statistics::default() }))
    }

    /// Returns how likely a text is to end behind these tokens, as the logprob of whatever ends it; or nothing if that was
    /// cancelled.
    pub(crate) fn likelihood_of_end(
        &self,
        mut tokens: Vec<TokenId>,
    ) -> Result<(Option<f32>, Statistics), engine::Error> {
        let ends = self.engine.tokenizer().specials().end_of_generation.clone();
        let Some(&end) = ends.first() else { return Ok((Some(0.0), Statistics::default())) };
        let from = tokens.len();
        tokens.push(end);
        let asked = std::collections::BTreeMap::from([(from, ends)]);
        let request = ScoreRequest { tokens, from, n_top: 0, asked, priority: self.priority };
        let scores = self.engine.score(request, self.cancel)?;
        let of_any = |logprobs: &[f32]| logprobs.iter().map(|logprob| logprob.exp()).sum::<f32>().ln();
        let likelihood = scores.map(|scores| scores.iter().map(|score| of_any(&score.asked)).sum());
        Ok((likelihood, Statistics { n_scored: 1, ..Statistics::default() }))
    }

    /// Returns what follows the prompt for as long as `on_text` wants more.
    pub(crate) fn rest(
        &mut self,
        prompt: &Prompt,
        on_text: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Generation, engine::Error> {
        let request = self.request(prompt, Vec::new(), self.options.decode_time.min(self.left()));
        self.generate(request, on_text)
    }

    /// Generates until nobody wants more, or it is the same again and again.
    fn generate(
        &mut self,
        request: GenerateRequest,
        on_text: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Generation, engine::Error> {
        let mut text = String::new();
        let mut hear = |piece: &str| {
            text.push_str(piece);
            on_text(piece) && repetition(&text).is_none()
        };
        let generation = self.engine.generate(request, &mut hear, self.cancel)?;
        self.statistics.add(&generation);
        Ok(generation)
    }

    fn request(&self, prompt: &Prompt, stop_texts: Vec<String>, decode_time: Duration) -> GenerateRequest {
        GenerateRequest {
            prompt: prompt.tokens.clone(),
            healed: prompt.healed.clone(),
            grammar: None,
            shown: Vec::new(),
            sampling: Sampling::greedy(),
            stop: StopRules {
                n_max_tokens: self.options.n_max_tokens,
                texts: stop_texts,
                decode_time: Some(decode_time),
            },
            drafting: Drafting::default(),
            n_top: 0,
            priority: self.priority,
        }
    }

    fn doubts(&self, generation: &Generation, n_healed: usize) -> Vec<Doubt> {
        let tokenizer = self.engine.tokenizer();
        let mut doubts = Vec::new();
        let (mut before, mut n_bytes) = (0.0, 0);
        for (n_before, top) in generation.top.iter().enumerate() {
            let (token, chosen) = (generation.tokens[n_before], generation.logprobs[n_before]);
            for &(other, other_logprob) in top {
                // What ends the text leaves nothing to choose; a line that ends within the healed part is no line.
                let is_text = !tokenizer.is_special(other);
                let is_late = n_bytes >= n_healed || !tokenizer.token_bytes(other).contains(&b'\n');
                if other != token && is_text && is_late {
                    let margin = other_logprob - chosen;
                    doubts.push((
                        before + other_logprob,
                        Doubt { n_before, token: other, logprob: other_logprob, margin },
                    ));
                }
            }
            before += chosen;
            n_bytes += tokenizer.token_bytes(token).len();
        }
        doubts.sort_by(|(a, _), (b, _)| f32::total_cmp(b, a));
        doubts.into_iter().map(|(_, doubt)| doubt).collect()
    }
}

fn line(generation: Generation) -> Line {
    Line {
        logprobs: generation.logprobs,
        tokens: generation.tokens,
        text: generation.text,
        stop: generation.stop,
    }
}

//! A suffix automaton: where in a text its latest tokens, or any others, stood before.
//!
//! In: tokens, one at a time. Out: the longest match and the end of its most recent occurrence.
//! Source: Blumer et al., "The smallest automaton recognizing the subwords of a text" (1985): at most two states and
//! three transitions a token. SAM-Decoding (ACL 2025, arXiv 2411.10666) drafts from it, but from a match's first
//! occurrence; the most recent one is likelier to go on as the text does.

use super::edges::Edges;
use crate::TokenId;

const ROOT: u32 = 0;

/// Stands at the end of a text that another one follows; no vocabulary is that large.
const BREAK: TokenId = TokenId(u32::MAX);

/// Most states of a token's suffixes that hear of it, the longest first.
///
/// In ordinary text fewer than ten have to. In one that repeats itself thousands of times, as many would have to, and
/// then it hardly matters which of the occurrences is copied.
const N_MAX_LINKS: usize = 64;

/// An automaton that knows every run of tokens of its text.
#[derive(Clone, Debug)]
pub(crate) struct Automaton {
    text: Vec<TokenId>,
    states: Vec<State>,
    edges: Edges,
    /// The state of the whole text.
    last: u32,
}

/// All runs of tokens that end at the same places of the text.
#[derive(Clone, Copy, Debug)]
struct State {
    /// Tokens of the longest such run. The others are its suffixes that are longer than the link's longest.
    n_longest: u32,
    /// The state of the longest suffix that ends at more places.
    link: u32,
    /// The index after the most recent of the places that a token of the same text follows, or of all if there is none.
    end: u32,
}

/// A run of tokens found in a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Match {
    /// Its length.
    pub(crate) n_tokens: usize,
    /// The index after its most recent occurrence; 0 when nothing matches.
    pub(crate) end: usize,
}

/// The longest run in an automaton that some other text ends with, kept up to date as that text grows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor {
    state: u32,
    n_tokens: u32,
}

impl Automaton {
    /// Returns the automaton of an empty text that is expected to grow to `n_tokens`.
    pub(crate) fn with_room_for(n_tokens: usize) -> Self {
        let mut automaton = Self {
            text: Vec::with_capacity(n_tokens),
            states: Vec::with_capacity(2 * n_tokens),
            edges: Edges::with_room_for(n_tokens),
            last: ROOT,
        };
        automaton.clear();
        automaton
    }

    /// Forgets the text.
    pub(crate) fn clear(&mut self) {
        self.text.clear();
        self.states.clear();
        self.edges.clear();
        self.last = self.add_state(State { n_longest: 0, link: ROOT, end: 0 });
    }

    /// Adds a token to the text, in constant time on average.
    pub(crate) fn append(&mut self, token: TokenId) {
        self.note_last();
        self.extend(token);
    }

    /// Ends the text; what is appended from now on is another one, which no run of tokens reaches into.
    pub(crate) fn end_text(&mut self) {
        self.extend(BREAK);
    }

    /// Returns the longest run the text ends with that also stands elsewhere in it.
    pub(crate) fn repeat(&self) -> Match {
        let State { n_longest, end, .. } = self.state(self.state(self.last).link);
        Match { n_tokens: n_longest as usize, end: end as usize }
    }

    /// Moves a cursor on by a token of its text.
    pub(crate) fn advance(&self, cursor: Cursor, token: TokenId) -> Cursor {
        let Cursor { mut state, mut n_tokens } = cursor;
        loop {
            if let Some(target) = self.edges.target(state, token) {
                return Cursor { state: target, n_tokens: n_tokens + 1 };
            }
            if state == ROOT {
                return Cursor::default();
            }
            state = self.state(state).link;
            n_tokens = self.state(state).n_longest;
        }
    }

    /// Returns the longest run that ends where the cursor's does and that a token of the same text follows somewhere.
    pub(crate) fn find(&self, cursor: Cursor) -> Match {
        let Cursor { mut state, mut n_tokens } = cursor;
        while state != ROOT {
            let end = self.state(state).end as usize;
            if self.text.get(end).is_some_and(|&token| token != BREAK) {
                return Match { n_tokens: n_tokens as usize, end };
            }
            state = self.state(state).link;
            n_tokens = self.state(state).n_longest;
        }
        Match::default()
    }

    /// Returns what follows `end` in the same text.
    pub(crate) fn after(&self, end: usize) -> &[TokenId] {
        let rest = &self.text[end..];
        let n_tokens = rest.iter().position(|&token| token == BREAK).unwrap_or(rest.len());
        &rest[..n_tokens]
    }

    pub(crate) fn text(&self) -> &[TokenId] {
        &self.text
    }

    /// Returns the memory that is held, in bytes.
    pub(crate) fn n_bytes(&self) -> usize {
        self.text.capacity() * size_of::<TokenId>()
            + self.states.capacity() * size_of::<State>()
            + self.edges.n_bytes()
    }

    fn state(&self, state: u32) -> State {
        self.states[state as usize]
    }

    fn add_state(&mut self, state: State) -> u32 {
        self.states.push(state);
        self.edges.add_state();
        self.states.len() as u32 - 1
    }

    fn extend(&mut self, token: TokenId) {
        self.text.push(token);
        let end = self.text.len() as u32;
        let new = self.add_state(State { n_longest: end, link: ROOT, end });
        let mut at = self.last;
        // The suffixes that were never followed by the token are now; the first that was is the new state's link.
        let known = loop {
            if let Some(target) = self.edges.target(at, token) {
                break Some(target);
            }
            self.edges.set(at, token, new);
            if at == ROOT {
                break None;
            }
            at = self.state(at).link;
        };
        if let Some(target) = known {
            let is_longest = self.state(target).n_longest == self.state(at).n_longest + 1;
            let link = if is_longest { target } else { self.split(at, token, target) };
            self.states[new as usize].link = link;
        }
        self.last = new;
    }

    /// Takes the runs out of `target` that end in `at`'s runs and `token`: they end at one place more from now on.
    fn split(&mut self, mut at: u32, token: TokenId, target: u32) -> u32 {
        let shorter = State { n_longest: self.state(at).n_longest + 1, ..self.state(target) };
        let copy = self.add_state(shorter);
        self.edges.copy(target, copy);
        self.states[target as usize].link = copy;
        while self.edges.target(at, token) == Some(target) {
            self.edges.set(at, token, copy);
            if at == ROOT {
                break;
            }
            at = self.state(at).link;
        }
        copy
    }

    /// Notes that the longest repeated run the text ends with ends here, and its suffixes do.
    ///
    /// That is done when the next token is known to come: a run that nothing follows is no use to a drafter.
    fn note_last(&mut self) {
        let mut at = self.state(self.last).link;
        for _ in 0..N_MAX_LINKS {
            if at == ROOT {
                break;
            }
            self.states[at as usize].end = self.text.len() as u32;
            at = self.state(at).link;
        }
    }
}

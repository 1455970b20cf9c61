//! A proposal's name: short, sortable by time, easy to type.
//!
//! In: a time and chance. Out: eight characters.
//! Source: Crockford's base 32, which leaves out i, l, o and u.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const N_CHARS: usize = 8;
/// 40 bits are 26 of time, in units of 64 s since 1970 (until 2106), and 14 of chance.
const CHANCE_BITS: u32 = 14;

/// A proposal's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
// INVARIANT: `N_CHARS` characters of `ALPHABET`; so it can be part of a ref and of a file name.
pub struct ProposalId(String);

impl ProposalId {
    /// Returns a name for a proposal made at this time; another each time, most likely.
    pub(crate) fn new(created_ms: u64) -> Self {
        // The standard library seeds every hasher from the system's own randomness.
        let chance = RandomState::new().build_hasher().finish() & ((1 << CHANCE_BITS) - 1);
        let bits = ((created_ms / 64_000) << CHANCE_BITS) | chance;
        let chars = (0..N_CHARS).rev().map(|place| char::from(ALPHABET[(bits >> (5 * place)) as usize % 32]));
        Self(chars.collect())
    }

    /// Returns the name if it is one.
    pub fn parse(name: &str) -> Option<Self> {
        let is_name = name.len() == N_CHARS && name.bytes().all(|byte| ALPHABET.contains(&byte));
        is_name.then(|| Self(name.to_owned()))
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProposalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns what a user typed with letters that look alike made the ones a name has.
pub(super) fn normalise(typed: &str) -> String {
    let like = |c| match c {
        'o' => '0',
        'i' | 'l' => '1',
        c => c,
    };
    typed.trim().to_lowercase().chars().map(like).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_by_time_and_can_be_read_back() {
        let early = ProposalId::new(1_700_000_000_000);
        let late = ProposalId::new(1_700_000_128_000);
        assert!(early < late, "{early} < {late}");
        assert_eq!(ProposalId::parse(early.as_str()), Some(early));
        for bad in ["", "1234567", "123456789", "../../ab", "abcdefgi", "ABCDEFGH"] {
            assert_eq!(ProposalId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn letters_that_look_alike_are_the_same() {
        assert_eq!(normalise(" 1OlIAbc"), "1011abc");
    }
}

//! The bytes each token stands for, and the tokens that can begin a given run of bytes.
//!
//! In: what each token stands for. Out: bytes by id, ids by bytes.

use super::TokenId;

/// Bytes of every token, by id, with an index by bytes over those that are text.
#[derive(Debug)]
pub(super) struct Vocabulary {
    bytes: Vec<u8>,
    /// `n_tokens + 1` positions in `bytes`: token `id` lies between `starts[id]` and the next.
    starts: Vec<usize>,
    /// Ids of the tokens with bytes, in the order of these and, among equals, of the ids.
    by_bytes: Vec<TokenId>,
}

impl Vocabulary {
    /// Builds the table of so many tokens; `write` writes a token's bytes behind what it is given, none for one that stands
    /// for no text.
    pub(super) fn new(n_tokens: usize, write: impl Fn(TokenId, &mut Vec<u8>)) -> Self {
        let mut table = Self { bytes: Vec::new(), starts: vec![0], by_bytes: Vec::new() };
        for id in (0..).take(n_tokens).map(TokenId) {
            let start = table.bytes.len();
            write(id, &mut table.bytes);
            table.starts.push(table.bytes.len());
            if table.bytes.len() > start {
                table.by_bytes.push(id);
            }
        }
        let mut by_bytes = std::mem::take(&mut table.by_bytes);
        by_bytes.sort_by(|a, b| (table.get(*a), a).cmp(&(table.get(*b), b)));
        table.by_bytes = by_bytes;
        table
    }

    /// Returns how many tokens there are.
    pub(super) fn n_tokens(&self) -> usize {
        self.starts.len() - 1
    }

    /// Returns the bytes of `id`; none for a token that is not text or not there.
    pub(super) fn get(&self, id: TokenId) -> &[u8] {
        let idx = id.0 as usize;
        match self.starts.get(idx..=idx.saturating_add(1)) {
            Some([start, end]) => &self.bytes[*start..*end],
            _ => &[],
        }
    }

    /// Returns the tokens whose bytes begin with `need`.
    pub(super) fn beginning_with(&self, need: &[u8]) -> &[TokenId] {
        let from = self.by_bytes.partition_point(|id| self.get(*id) < need);
        let rest = &self.by_bytes[from..];
        &rest[..rest.partition_point(|id| self.get(*id).starts_with(need))]
    }

    /// Returns the tokens whose bytes are exactly `bytes`.
    pub(super) fn equal_to(&self, bytes: &[u8]) -> &[TokenId] {
        let rest = self.beginning_with(bytes);
        &rest[..rest.partition_point(|id| self.get(*id).len() == bytes.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_by_their_first_bytes() {
        let texts = ["", "ab", "a", " a", "b", "abc", "", "a｜b"];
        let write = |id: TokenId, to: &mut Vec<u8>| to.extend_from_slice(texts[id.0 as usize].as_bytes());
        let table = Vocabulary::new(texts.len(), write);
        let ids = |found: &[TokenId]| found.iter().map(|id| id.0).collect::<Vec<_>>();
        assert_eq!(table.n_tokens(), 8);
        assert_eq!(ids(table.beginning_with(b"a")), [2, 1, 5, 7]);
        assert_eq!(ids(table.beginning_with(b"ab")), [1, 5]);
        assert_eq!(ids(table.beginning_with(b"")), [3, 2, 1, 5, 7, 4]);
        assert_eq!(ids(table.beginning_with(b"zz")), [] as [u32; 0]);
        assert_eq!(ids(table.equal_to(b"ab")), [1]);
        assert_eq!(ids(table.equal_to(b"")), [] as [u32; 0]);
        assert_eq!(table.get(TokenId(7)), "a｜b".as_bytes());
        assert_eq!(table.get(TokenId(3)), b" a");
        assert_eq!(table.get(TokenId(0)), b"");
        assert_eq!(table.get(TokenId(8)), b"");
        assert_eq!(table.get(TokenId(u32::MAX)), b"");
    }
}

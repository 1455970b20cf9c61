//! The transitions of an automaton over tokens.
//!
//! In: a state and a token. Out: the state they lead to. Nearly all states have one transition and a few have
//! thousands, over a vocabulary of 150,000: so there is one hash table for all states, and a list for each, which is
//! walked only when a state is copied.
//! Source: multiplicative hashing and linear probing as in Knuth, The Art of Computer Programming, volume 3, 6.4.

use crate::TokenId;

/// No edge.
const NONE: u32 = u32::MAX;

/// All transitions of all states.
#[derive(Clone, Debug)]
pub(crate) struct Edges {
    edges: Vec<Edge>,
    /// By state: the edge inserted last, or [`NONE`].
    heads: Vec<u32>,
    /// `[power of two]`: the place of an edge in `edges`, or [`NONE`].
    slots: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Edge {
    state: u32,
    token: TokenId,
    target: u32,
    /// The edge of the same state inserted before, or [`NONE`].
    next: u32,
}

impl Edges {
    /// Returns edges of no states, with room for those of `n_tokens` tokens of ordinary text.
    pub(crate) fn with_room_for(n_tokens: usize) -> Self {
        let n_slots = (4 * n_tokens).next_power_of_two().max(16);
        Self {
            edges: Vec::with_capacity(2 * n_tokens),
            heads: Vec::with_capacity(2 * n_tokens),
            slots: vec![NONE; n_slots],
        }
    }

    /// Forgets all states.
    pub(crate) fn clear(&mut self) {
        self.edges.clear();
        self.heads.clear();
        self.slots.fill(NONE);
    }

    /// Adds a state without edges, the next in number.
    pub(crate) fn add_state(&mut self) {
        self.heads.push(NONE);
    }

    /// Returns where `token` leads from `state`.
    pub(crate) fn target(&self, state: u32, token: TokenId) -> Option<u32> {
        let slot = self.slot(state, token);
        self.edges.get(self.slots[slot] as usize).map(|edge| edge.target)
    }

    /// Makes `token` lead from `state` to `target`.
    pub(crate) fn set(&mut self, state: u32, token: TokenId, target: u32) {
        let mut slot = self.slot(state, token);
        if let Some(edge) = self.edges.get_mut(self.slots[slot] as usize) {
            edge.target = target;
            return;
        }
        // At most three slots in four are taken, so that a search is short and ends.
        if (self.edges.len() + 1) * 4 > self.slots.len() * 3 {
            self.grow();
            slot = self.slot(state, token);
        }
        let idx = self.edges.len() as u32;
        self.slots[slot] = idx;
        let next = std::mem::replace(&mut self.heads[state as usize], idx);
        self.edges.push(Edge { state, token, target, next });
    }

    /// Gives `to`, which has none, the edges of `from`.
    pub(crate) fn copy(&mut self, from: u32, to: u32) {
        let mut idx = self.heads[from as usize];
        while let Some(&edge) = self.edges.get(idx as usize) {
            self.set(to, edge.token, edge.target);
            idx = edge.next;
        }
    }

    /// Returns the memory that is held, in bytes.
    pub(crate) fn n_bytes(&self) -> usize {
        self.edges.capacity() * size_of::<Edge>()
            + (self.heads.capacity() + self.slots.capacity()) * size_of::<u32>()
    }

    /// Returns the slot that holds the edge, or the free one where it belongs.
    fn slot(&self, state: u32, token: TokenId) -> usize {
        let mask = self.slots.len() - 1;
        let key = u64::from(state) << 32 | u64::from(token.0);
        // The upper bits of the product depend on all bits of the key.
        let hash = key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let mut slot = hash as usize & mask;
        while let Some(edge) = self.edges.get(self.slots[slot] as usize) {
            if (edge.state, edge.token) == (state, token) {
                break;
            }
            slot = (slot + 1) & mask;
        }
        slot
    }

    fn grow(&mut self) {
        let n_slots = self.slots.len() * 2;
        self.slots.clear();
        self.slots.resize(n_slots, NONE);
        for idx in 0..self.edges.len() {
            let Edge { state, token, .. } = self.edges[idx];
            let slot = self.slot(state, token);
            self.slots[slot] = idx as u32;
        }
    }
}

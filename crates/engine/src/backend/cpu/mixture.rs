//! A feed-forward of experts: each row passes through the few that a router chooses for it.
//!
//! In: normed rows. Out: what their experts add to them. Never: adds up in an order that depends on the other rows (I-7): a
//! row's experts are added in their own order.
//!
//! The rows of each expert are gathered, so an expert's weights are read once for all of them, and the products of all
//! experts are one go over the threads.

use crate::backend::float;
use crate::backend::weights::{Mixture, multiply};
use crate::kernel::{Activations, Buffer, GroupMut, N_GROUPED, Pool};
use crate::{Error, ModelSpec};

/// Rows that are sent to their experts together. Of Qwen3-30B-A3B's 128 experts a row wants 8, so each has about 32 of
/// these; what they make of them takes 38 KB for each row.
pub(super) const N_TOGETHER: usize = 512;

/// Buffers of a step.
#[derive(Default)]
pub(super) struct Scratch {
    /// The router's logits: `[n_rows, n_experts]`.
    logits: Buffer,
    /// Each expert's rows, in order, with the weight of what it adds to them.
    rows: Vec<Vec<(usize, f32)>>,
    /// The first is for the expert with the most rows, so that it alone grows to as many: which experts a text wants
    /// differs from layer to layer.
    work: Vec<Work>,
}

/// What one expert computes.
#[derive(Default)]
struct Work {
    expert_idx: usize,
    x: Activations,
    gate: Buffer,
    up: Buffer,
    gated: Activations,
    out: Buffer,
}

impl Scratch {
    /// Adds to `branch: [n_rows, n_embd]` what the experts make of `normed`.
    pub(super) fn forward(
        &mut self,
        pool: &Pool,
        spec: &ModelSpec,
        mixture: &Mixture,
        normed: &Activations,
        branch: &mut [f32],
    ) -> Result<(), Error> {
        self.route(pool, mixture, normed)?;
        let rows = &self.rows;
        let mut used: Vec<usize> = (0..rows.len()).filter(|idx| !rows[*idx].is_empty()).collect();
        used.sort_by_key(|idx| std::cmp::Reverse(rows[*idx].len()));
        self.work.resize_with(self.work.len().max(used.len()), Work::default);
        let work = &mut self.work[..used.len()];
        for (work, expert_idx) in work.iter_mut().zip(&used) {
            work.expert_idx = *expert_idx;
        }
        pool.for_each(work.iter_mut(), |work| work.gather(spec, &rows[work.expert_idx], normed));

        let mut products = Vec::with_capacity(2 * used.len());
        for Work { expert_idx, x, gate, up, .. } in work.iter_mut() {
            let expert = &mixture.experts[*expert_idx];
            products.push((&expert.gate, &*x, &mut gate[..]));
            products.push((&expert.up, &*x, &mut up[..]));
        }
        multiply(pool, &mut products)?;
        pool.for_each(work.iter_mut(), |work| work.activate(spec));

        let down = |expert_idx: usize| &mixture.experts[expert_idx].down;
        let products = work.iter_mut().map(|work| (down(work.expert_idx), &work.gated, &mut work.out[..]));
        multiply(pool, &mut products.collect::<Vec<_>>())?;
        let mut work: Vec<&Work> = work.iter().collect();
        work.sort_by_key(|work| work.expert_idx);
        for work in work {
            for ((row, weight), out) in rows[work.expert_idx].iter().zip(work.out.chunks_exact(spec.n_embd)) {
                float::add_weighted(&mut branch[row * spec.n_embd..(row + 1) * spec.n_embd], out, *weight);
            }
        }
        Ok(())
    }

    /// Gives each expert its rows: of each row those with the highest logits, weighed by their softmax.
    fn route(&mut self, pool: &Pool, mixture: &Mixture, normed: &Activations) -> Result<(), Error> {
        let (n_experts, n_used) = (mixture.experts.len(), mixture.n_used);
        self.logits.resize(normed.n_rows() * n_experts);
        multiply(pool, &mut [(&mixture.router, normed, &mut self.logits[..])])?;
        self.rows.resize_with(n_experts, Vec::new);
        self.rows.iter_mut().for_each(Vec::clear);
        let mut order: Vec<usize> = Vec::with_capacity(n_experts);
        for (row, logits) in self.logits.chunks_exact(n_experts).enumerate() {
            order.clear();
            order.extend(0..n_experts);
            // By logit, then by number: all are different.
            let by_logit = |a: &usize, b: &usize| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b));
            if n_used < n_experts {
                order.select_nth_unstable_by(n_used, by_logit);
            }
            let chosen = &mut order[..n_used];
            chosen.sort_unstable();
            let mut weights: Vec<f32> = chosen.iter().map(|expert| logits[*expert]).collect();
            let sum = float::weights(&mut weights, 1.0);
            for (expert, weight) in chosen.iter().zip(weights) {
                self.rows[*expert].push((row, weight / sum));
            }
        }
        Ok(())
    }
}

impl Work {
    /// Takes the expert's `rows` out of all.
    fn gather(&mut self, spec: &ModelSpec, rows: &[(usize, f32)], normed: &Activations) {
        let n = rows.len();
        self.x.resize(n, spec.n_embd);
        for (group, rows) in self.x.groups_mut().zip(rows.chunks(N_GROUPED)) {
            for (x, (row, _)) in group.x.chunks_exact_mut(spec.n_embd).zip(rows) {
                x.copy_from_slice(&normed.x[row * spec.n_embd..(row + 1) * spec.n_embd]);
            }
            group.quantise();
        }
        self.gate.resize(n * spec.n_ff);
        self.up.resize(n * spec.n_ff);
        self.gated.resize(n, spec.n_ff);
        self.out.resize(n * spec.n_embd);
    }

    fn activate(&mut self, spec: &ModelSpec) {
        let n = N_GROUPED * spec.n_ff;
        for ((gate, up), gated) in self.gate.chunks(n).zip(self.up.chunks(n)).zip(self.gated.groups_mut()) {
            float::swiglu(gate, up, gated.x);
            GroupMut::quantise(gated);
        }
    }
}

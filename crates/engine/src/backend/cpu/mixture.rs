//! A feed-forward of experts: each row passes through the few that a router chooses for it.
//!
//! In: normed rows. Out: what their experts add to them. Never: adds up in an order that depends on the other rows (I-7): a
//! row's experts are added in their own order.
//!
//! The rows of each expert are gathered, so an expert's weights are read once for all of them, and the products of all
//! experts are one go over the threads.

use crate::backend::float;
use crate::backend::weights::{Mixture, SwiGlu, multiply};
use crate::kernel::{Activations, Buffer, GroupMut, N_GROUPED, Pool};
use crate::{Error, ModelSpec};

/// Rows that are sent to their experts together: many, for each expert has a few of them only.
pub(super) const N_TOGETHER: usize = 512;

/// Buffers of a step.
#[derive(Default)]
pub(super) struct Scratch {
    /// The router's logits: `[n_rows, n_experts]`.
    logits: Buffer,
    work: Vec<Work>,
}

/// What one expert computes.
#[derive(Default)]
struct Work {
    /// Its rows, each with the weight of what it adds.
    rows: Vec<(usize, f32)>,
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
        let mut used: Vec<(&mut Work, &SwiGlu)> =
            self.work.iter_mut().zip(&mixture.experts).filter(|(work, _)| !work.rows.is_empty()).collect();
        pool.for_each(used.iter_mut(), |(work, _)| work.gather(spec, normed));

        let mut products = Vec::with_capacity(2 * used.len());
        for (Work { x, gate, up, .. }, expert) in &mut used {
            products.push((&expert.gate, &*x, &mut gate[..]));
            products.push((&expert.up, &*x, &mut up[..]));
        }
        multiply(pool, &mut products)?;
        pool.for_each(used.iter_mut(), |(work, _)| work.activate(spec));

        let products = used.iter_mut().map(|(work, expert)| (&expert.down, &work.gated, &mut work.out[..]));
        multiply(pool, &mut products.collect::<Vec<_>>())?;
        for (work, _) in used {
            for ((row, weight), out) in work.rows.iter().zip(work.out.chunks_exact(spec.n_embd)) {
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
        self.work.resize_with(n_experts, Work::default);
        self.work.iter_mut().for_each(|work| work.rows.clear());
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
                self.work[*expert].rows.push((row, weight / sum));
            }
        }
        Ok(())
    }
}

impl Work {
    /// Takes the expert's rows out of all.
    fn gather(&mut self, spec: &ModelSpec, normed: &Activations) {
        let n = self.rows.len();
        self.x.resize(n, spec.n_embd);
        for (group, rows) in self.x.groups_mut().zip(self.rows.chunks(N_GROUPED)) {
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

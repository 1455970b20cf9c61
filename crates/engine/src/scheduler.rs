//! The engine thread's loop: Interactive before Background, one step at a time.
//!
//! In: jobs on a channel. Out: their answers. A job that panics costs the jobs of that moment, not the engine.
//! Thread: this is the engine thread.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crossbeam_channel::Receiver;

use crate::job::{Job, Parts, Progress};
use crate::retained::Retained;
use crate::{Error, KvPool, ModelSpec};

/// Steps jobs until every [`Engine`](crate::Engine) handle is gone.
pub(crate) fn run(mut parts: Parts, spec: &ModelSpec, n_kv_tokens: usize, inbox: &Receiver<Box<dyn Job>>) {
    let mut jobs: Vec<Box<dyn Job>> = Vec::new();
    loop {
        if jobs.is_empty() {
            match inbox.recv() {
                Ok(job) => jobs.push(job),
                Err(_) => return,
            }
        }
        jobs.extend(inbox.try_iter());
        // The first of the most urgent: a keystroke overtakes an agent's run at the next step.
        let Some(idx) = (0..jobs.len()).min_by_key(|&idx| (jobs[idx].priority(), idx)) else {
            continue;
        };
        match catch_unwind(AssertUnwindSafe(|| jobs[idx].step(&mut parts))) {
            Ok(Progress::More) => {}
            Ok(Progress::Done) => drop(jobs.remove(idx)),
            Err(_) => {
                tracing::error!(
                    n_jobs = jobs.len(),
                    "a step panicked; its requests failed and the KV cache was emptied"
                );
                for mut job in jobs.drain(..) {
                    job.fail(Error::Gone);
                }
                // The pool's counts may be wrong now, and nobody holds a sequence any more.
                parts.kv = KvPool::new(spec, n_kv_tokens);
                parts.retained = Retained::default();
            }
        }
    }
}

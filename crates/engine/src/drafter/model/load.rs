//! A draft model from its file: whether it can draft for a model, and what its steps cost here.
//!
//! In: a GGUF file, the target model's tokenizer and threads. Out: a [`DraftModel`] whose costs are known.
//! Never: takes a model whose token ids mean something else.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::DraftModel;
use crate::drafter::odds::ClaimedOdds;
use crate::job::Pace;
use crate::retained::Retained;
use crate::scheduler::Load;
use crate::{
    CpuBackend, Error, Gguf, KvPool, KvType, LoadProgress, Logits, ModelSpec, Sequence, StepCosts, TokenId,
    Tokenizer,
};

/// Rows of the steps that are measured at once, in this order: a first one that meets cold caches and does not count,
/// one that tells the pace of a prompt, and those of an answer.
const MEASURED_ROWS: [usize; 7] = [32, 32, 16, 16, 1, 1, 1];

impl DraftModel {
    /// Loads a model that drafts for another, whose tokenizer is `tokenizer`; `target` runs that one if a CPU does.
    ///
    /// # Errors
    /// [`Error::Draft`] for a file that cannot be used, [`Error::DraftVocabulary`] for one of another vocabulary.
    pub(crate) fn load(
        path: &Path,
        target: Option<&CpuBackend>,
        tokenizer: &Tokenizer,
        kv: (KvType, usize),
        load: Arc<Load>,
        progress: LoadProgress<'_>,
    ) -> Result<Self, Error> {
        let in_draft = |source| Error::Draft { source: Box::new(source) };
        let gguf = Gguf::open(path).map_err(|source| in_draft(Error::opening(path, source)))?;
        let spec = ModelSpec::from_gguf(&gguf).map_err(in_draft)?;
        let own = Tokenizer::from_gguf(&gguf).map_err(|source| in_draft(source.into()))?;
        if let Some(what) = difference(tokenizer, &own) {
            return Err(Error::DraftVocabulary { what });
        }
        let backend = match target {
            Some(target) => CpuBackend::load_beside(target, &gguf, &spec, progress),
            None => CpuBackend::load(&gguf, &spec, None, progress),
        }
        .map_err(in_draft)?;
        let (kv_type, n_kv_tokens) = kv;
        let mut model = Self {
            kv: KvPool::new(&spec, n_kv_tokens, kv_type),
            spec,
            backend,
            n_kv_tokens,
            retained: Retained::default(),
            logits: Logits::default(),
            costs: StepCosts::default(),
            pace: Pace::new(),
            odds: ClaimedOdds::default(),
            allowance: 0.0,
            spent: Duration::ZERO,
            load,
        };
        model.measure().map_err(in_draft)?;
        Ok(model)
    }

    /// Learns what its steps cost before the first is asked for: whether it is asked depends on that.
    fn measure(&mut self) -> Result<(), Error> {
        let mut sequence = Sequence::default();
        for (idx, n_rows) in MEASURED_ROWS.into_iter().enumerate() {
            let n_rows = n_rows.min(self.spec.n_ctx).min(self.n_kv_tokens);
            self.kv.truncate(&mut sequence, 0);
            self.kv.reserve(&mut sequence, n_rows)?;
            let tokens: Vec<TokenId> =
                (0..n_rows).map(|row| TokenId((row % self.spec.n_vocab) as u32)).collect();
            let started = Instant::now();
            self.forward(&mut sequence, &tokens, 1, &|| false)?;
            let elapsed = started.elapsed();
            match idx {
                0 => {}
                1 => self.pace = Pace::measured(n_rows, elapsed),
                _ => self.costs.observe(n_rows, elapsed),
            }
        }
        self.kv.release(sequence);
        Ok(())
    }
}

/// Returns in what two vocabularies differ; nothing if each id means the same in both.
///
/// Which of the special tokens end a text may differ: the target model decides about that.
fn difference(target: &Tokenizer, own: &Tokenizer) -> Option<String> {
    if target.n_vocab() != own.n_vocab() {
        return Some(format!("{} tokens and not {}", own.n_vocab(), target.n_vocab()));
    }
    let name = |tokenizer: &Tokenizer, id| match tokenizer.special_name(id) {
        Some(name) => format!("the special token {name:?}"),
        None => format!("{:?}", String::from_utf8_lossy(tokenizer.token_bytes(id))),
    };
    (0..target.n_vocab() as u32).map(TokenId).find_map(|id| {
        let is_equal = target.is_special(id) == own.is_special(id)
            && target.token_bytes(id) == own.token_bytes(id)
            && target.special_name(id) == own.special_name(id);
        (!is_equal).then(|| format!("token {} is {} and not {}", id.0, name(own, id), name(target, id)))
    })
}

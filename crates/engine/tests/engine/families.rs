//! Models of every family beside transformers and llama.cpp.
//!
//! `tests/fixtures/make/families.py` made the models, which are tiny and random, and the logits.

use std::path::{Path, PathBuf};

use engine::{
    Backend, CancelToken, CpuBackend, Device, Engine, EngineOptions, Gguf, KvPool, KvType, Logits, ModelSpec,
    RowSpan, Sequence, StepBatch, StepControl, StepEnd, TokenId, top_tokens,
};
use serde_json::Value;

use crate::greedy;
use crate::parity::nmse;

/// Most by which a row's logits may differ from those in double precision: keys and values are f16, activations have 14
/// bits. llama.cpp in f32 is at 1e-11; with its activations of 8 bits at 2e-3.
const MAX_NMSE: f64 = 2e-5;

/// A family's model, its tokens and the logits after some of them.
pub(crate) struct Family {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) tokens: Vec<TokenId>,
    pub(crate) rows: Vec<usize>,
    pub(crate) logits: Vec<Vec<f32>>,
}

pub(crate) fn families() -> Vec<Family> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/families");
    let fixture: Value = serde_json::from_slice(&std::fs::read(dir.join("logits.json")).unwrap()).unwrap();
    let family = |(name, value): (&String, &Value)| {
        let numbers =
            |row: &Value| row.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect();
        let mut rows: Vec<(usize, Vec<f32>)> = value["rows"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(row, logits)| (row.parse().unwrap(), numbers(logits)))
            .collect();
        rows.sort_by_key(|(row, _)| *row);
        let ids = value["tokens"].as_array().unwrap().iter();
        let (rows, logits) = rows.into_iter().unzip();
        Family {
            name: name.clone(),
            path: dir.join(format!("{name}.gguf")),
            tokens: ids.map(|id| TokenId(id.as_u64().unwrap() as u32)).collect(),
            rows,
            logits,
        }
    };
    fixture["families"].as_object().unwrap().iter().map(family).collect()
}

/// Returns the logits after every token, computed in steps of at most `n_together`.
fn logits(path: &Path, tokens: &[TokenId], n_together: usize) -> Vec<Vec<f32>> {
    let gguf = Gguf::open(path).unwrap();
    let spec = ModelSpec::from_gguf(&gguf).unwrap();
    let mut backend = CpuBackend::load(&gguf, &spec, None, &mut |_| {}).unwrap();
    let mut kv = KvPool::new(&spec, tokens.len(), KvType::F16);
    let mut sequence = Sequence::default();
    let mut all = Vec::new();
    for part in tokens.chunks(n_together) {
        kv.reserve(&mut sequence, part.len()).unwrap();
        let span =
            RowSpan { blocks: sequence.blocks(), start: sequence.tokens().len(), n_tokens: part.len() };
        let wanted: Vec<usize> = (0..part.len()).collect();
        let batch = StepBatch { tokens: part, spans: &[span], logits: &wanted };
        let mut logits = Logits::default();
        let control = StepControl { should_stop: &|| false };
        assert_eq!(backend.forward(&batch, &mut kv, &mut logits, &control).unwrap(), StepEnd::Done);
        all.extend(wanted.iter().map(|idx| logits.row(*idx).to_vec()));
        sequence.commit(part);
    }
    all
}

#[test]
fn every_family_gives_the_logits_of_transformers() {
    let families = families();
    let names: Vec<&str> = families.iter().map(|family| family.name.as_str()).collect();
    assert_eq!(names, ["llama3", "nemo", "qwen2", "r1-yarn", "qwen3", "qwen3-moe", "mixtral"]);
    for family in families {
        let got = logits(&family.path, &family.tokens, family.tokens.len());
        for (row, want) in family.rows.iter().zip(&family.logits) {
            let nmse = nmse(&got[*row], want);
            println!("{}, row {row}: NMSE {nmse:.2e}", family.name);
            assert!(nmse < MAX_NMSE, "{}, row {row}: NMSE {nmse}", family.name);
            assert_eq!(
                top_tokens(&got[*row], 1)[0].0,
                top_tokens(want, 1)[0].0,
                "{}, row {row}",
                family.name
            );
        }
    }
}

/// I-7, for what a family computes that the default model does not.
#[test]
fn a_familys_logits_do_not_depend_on_how_a_prompt_was_cut() {
    for family in families() {
        let whole = logits(&family.path, &family.tokens, family.tokens.len());
        for n_together in [1, 7] {
            let cut = logits(&family.path, &family.tokens, n_together);
            assert_eq!(whole, cut, "{} in steps of {n_together}", family.name);
        }
    }
}

/// More rows than are sent to their experts together.
#[test]
fn a_long_prompts_rows_get_what_they_get_alone() {
    for family in families().into_iter().filter(|family| ["mixtral", "qwen3-moe"].contains(&&*family.name)) {
        let tokens: Vec<TokenId> = (0..7).flat_map(|_| family.tokens.clone()).collect();
        assert!(tokens.len() > 512 + 96);
        let (whole, cut) = (logits(&family.path, &tokens, tokens.len()), logits(&family.path, &tokens, 100));
        assert_eq!(whole, cut, "{}", family.name);
    }
}

#[test]
fn an_engine_answers_with_the_likeliest_tokens_of_every_family() {
    for family in families() {
        let options = EngineOptions { device: Device::Cpu, ..EngineOptions::default() };
        let engine = Engine::load(&family.path, options, &mut |_| {}).unwrap();
        let specials = engine.tokenizer().specials();
        assert!(
            specials.fim_prefix.is_some() && specials.fim_suffix.is_some() && specials.fim_middle.is_some()
        );
        let prompt = engine.tokenizer().encode("def there(once):\n    return the");
        let answer = engine.generate(greedy(prompt.clone(), 40), &mut |_| true, &CancelToken::new()).unwrap();
        let all = [&prompt[..], &answer.tokens].concat();
        let best: Vec<TokenId> =
            logits(&family.path, &all, all.len()).iter().map(|row| top_tokens(row, 1)[0].0).collect();
        assert_eq!(answer.tokens, best[prompt.len() - 1..all.len() - 1], "{}", family.name);
        let is_over = answer.tokens.len() == 40 || specials.is_end(best[all.len() - 1]);
        assert!(is_over, "{} stopped after {} tokens", family.name, answer.tokens.len());
    }
}

//! What a model is, read from its file's own metadata.
//!
//! In: GGUF metadata. Out: [`ModelSpec`]. Never: guesses; what is not understood is refused by its name.
//! Source: the key names of ggml's GGUF specification, section "Standardized key-value pairs".

use crate::{Error, Gguf};

/// Which halves of a head's dimensions are rotated together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RopePairing {
    /// Neighbours (0, 1), (2, 3), …; GGUF files of the `llama` architecture.
    #[default]
    Norm,
    /// Dimension i with dimension i + n/2; GPT-NeoX and most others.
    Neox,
}

/// Rotary position embedding.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RopeSpec {
    /// Base of the wavelengths.
    pub theta: f32,
    /// Dimensions of a head that are rotated; the rest passes through.
    pub n_dims: usize,
    /// Positions are divided by this (linear scaling); 1 for most.
    pub position_divisor: f32,
    /// Stretching to more positions than a model was trained with, by wavelength.
    pub yarn: Option<YarnSpec>,
    /// Which dimensions form a pair.
    pub pairing: RopePairing,
}

/// YaRN: wavelengths that came round often in training stay, those that never did are stretched, the ones between in part.
///
/// Source: Peng et al. 2023, "YaRN: Efficient Context Window Extension of Large Language Models", section 3.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct YarnSpec {
    /// By how much the context is longer than in training.
    pub factor: f32,
    /// Positions in training.
    pub n_original: usize,
    /// Turns over `n_original` positions from which on a wavelength stays, and below which it is stretched whole.
    pub beta: [f32; 2],
    /// What rotated queries and keys are multiplied by.
    pub magnitude: f32,
}

impl RopeSpec {
    /// Returns what rotated queries and keys are multiplied by.
    pub(crate) fn magnitude(&self) -> f64 {
        self.yarn.map_or(1.0, |yarn| f64::from(yarn.magnitude))
    }
}

/// A mixture of experts: each token passes through a few of them, whose weights add up to 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpertSpec {
    /// Experts of a layer.
    pub n_experts: usize,
    /// Experts that a token passes through.
    pub n_used: usize,
}

/// The shape of a decoder.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelSpec {
    /// `general.architecture`.
    pub architecture: String,
    /// `general.name`, or the architecture.
    pub name: String,
    /// Size of the vocabulary.
    pub n_vocab: usize,
    /// Most tokens a sequence may have.
    pub n_ctx: usize,
    /// Width of the residual stream.
    pub n_embd: usize,
    /// Width of the feed-forward's inner layer, or of one expert's.
    pub n_ff: usize,
    /// The experts of a feed-forward; none where every token passes through all of it.
    pub experts: Option<ExpertSpec>,
    /// Decoder layers.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; each serves `n_heads / n_kv_heads` query heads.
    pub n_kv_heads: usize,
    /// Dimensions of a head.
    pub head_dim: usize,
    /// Epsilon of the RMS norms.
    pub norm_eps: f32,
    /// Whether query, key and value have a bias.
    pub has_qkv_bias: bool,
    /// Whether each query and key head is normalised before it is rotated.
    pub has_qk_norm: bool,
    /// Rotary position embedding.
    pub rope: RopeSpec,
}

/// What a family of models does that is not in its file's metadata.
struct Family {
    architecture: &'static str,
    pairing: RopePairing,
    /// None where the tensors say it.
    has_qkv_bias: Option<bool>,
    has_qk_norm: bool,
}

/// The families that run. Mistral, Mistral Nemo, Mixtral, DeepSeek-Coder, SmolLM2 and R1's distills of Llama are files of `llama`; R1's
/// distills of Qwen are files of `qwen2`.
const FAMILIES: [Family; 4] = [
    Family { architecture: "llama", pairing: RopePairing::Norm, has_qkv_bias: None, has_qk_norm: false },
    Family {
        architecture: "qwen2",
        pairing: RopePairing::Neox,
        has_qkv_bias: Some(true),
        has_qk_norm: false,
    },
    Family {
        architecture: "qwen3",
        pairing: RopePairing::Neox,
        has_qkv_bias: Some(false),
        has_qk_norm: true,
    },
    Family {
        architecture: "qwen3moe",
        pairing: RopePairing::Neox,
        has_qkv_bias: Some(false),
        has_qk_norm: true,
    },
];

/// Bounds on what a header may claim; beyond them it lies or is no model of ours. Far above any open model of 2026.
const MAX_LAYERS: u64 = 1024;
const MAX_WIDTH: u64 = 1 << 20;
const MAX_CTX: u64 = 1 << 24;
const MAX_EXPERTS: u64 = 4096;

impl ModelSpec {
    /// Reads the shape from a GGUF file's metadata.
    ///
    /// # Errors
    /// [`Error::Unsupported`] names what this engine does not run; [`Error::Inconsistent`] what cannot be true.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, Error> {
        let inconsistent = |source: crate::gguf::Error| Error::Inconsistent(source.to_string());
        let architecture = gguf.str("general.architecture").map_err(inconsistent)?.to_owned();
        let Some(family) = FAMILIES.iter().find(|family| family.architecture == architecture) else {
            let known: Vec<String> =
                FAMILIES.iter().map(|family| format!("`{}`", family.architecture)).collect();
            return Err(unsupported(&architecture, &format!("this engine runs {}", known.join(", "))));
        };
        let key = |name: &str| format!("{architecture}.{name}");
        let count = |name: &str, max: u64| -> Result<usize, Error> {
            let value = gguf.u64(&key(name)).map_err(inconsistent)?;
            if value == 0 || value > max {
                return Err(Error::Inconsistent(format!("{} is {value}", key(name))));
            }
            Ok(value as usize)
        };
        let or = |name: &str, default: usize| -> Result<usize, Error> {
            if gguf.contains(&key(name)) { count(name, MAX_WIDTH) } else { Ok(default) }
        };
        let number = |name: &str, default: f32| -> Result<f32, Error> {
            let value =
                if gguf.contains(&key(name)) { gguf.f32(&key(name)).map_err(inconsistent)? } else { default };
            if value.is_finite() && value > 0.0 {
                Ok(value)
            } else {
                Err(Error::Inconsistent(format!("{} is {value}", key(name))))
            }
        };

        let n_embd = count("embedding_length", MAX_WIDTH)?;
        let n_heads = count("attention.head_count", MAX_WIDTH)?;
        let n_kv_heads = or("attention.head_count_kv", n_heads)?;
        let head_dim = or("attention.key_length", n_embd / n_heads)?;
        let experts = experts(gguf, &architecture, &count)?;
        let n_vocab = gguf.str_array("tokenizer.ggml.tokens").map_err(inconsistent)?.count();
        let spec = Self {
            name: gguf.str("general.name").unwrap_or(&architecture).to_owned(),
            n_vocab,
            n_ctx: count("context_length", MAX_CTX)?,
            n_embd,
            n_ff: match experts {
                Some(_) if gguf.contains(&key("expert_feed_forward_length")) => {
                    count("expert_feed_forward_length", MAX_WIDTH)?
                }
                _ => count("feed_forward_length", MAX_WIDTH)?,
            },
            experts,
            n_layers: count("block_count", MAX_LAYERS)?,
            n_heads,
            n_kv_heads,
            head_dim,
            norm_eps: number("attention.layer_norm_rms_epsilon", 1e-5)?,
            has_qkv_bias: family.has_qkv_bias.unwrap_or_else(|| gguf.tensor("blk.0.attn_q.bias").is_ok()),
            has_qk_norm: family.has_qk_norm,
            rope: RopeSpec {
                theta: number("rope.freq_base", 10_000.0)?,
                n_dims: or("rope.dimension_count", head_dim)?,
                pairing: family.pairing,
                ..rope_scaling(gguf, &architecture, &number, &count)?
            },
            architecture,
        };
        spec.check(gguf)?;
        Ok(spec)
    }

    fn check(&self, gguf: &Gguf) -> Result<(), Error> {
        let key = |name: &str| format!("{}.{name}", self.architecture);
        if gguf.contains(&key("attention.value_length"))
            && gguf.u64(&key("attention.value_length")).ok() != Some(self.head_dim as u64)
        {
            return Err(unsupported(&self.architecture, "values of another length than keys"));
        }
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            return Err(Error::Inconsistent(format!(
                "{} query heads over {} kv heads",
                self.n_heads, self.n_kv_heads
            )));
        }
        if self.rope.n_dims > self.head_dim || !self.rope.n_dims.is_multiple_of(2) || self.head_dim == 0 {
            return Err(Error::Inconsistent(format!(
                "{} rotated of {} dimensions",
                self.rope.n_dims, self.head_dim
            )));
        }
        Ok(())
    }
}

/// Returns a mixture's sizes, if a model is one.
fn experts(
    gguf: &Gguf,
    architecture: &str,
    count: &impl Fn(&str, u64) -> Result<usize, Error>,
) -> Result<Option<ExpertSpec>, Error> {
    let number = |name: &str| gguf.u64(&format!("{architecture}.{name}")).ok();
    if number("expert_count").is_none_or(|n| n == 0) {
        return Ok(None);
    }
    // 1 is the softmax, and what a file without the key means.
    if number("expert_gating_func").is_some_and(|n| n > 1) {
        return Err(unsupported(architecture, "experts chosen by another function than softmax"));
    }
    let n_experts = count("expert_count", MAX_EXPERTS)?;
    let n_used = count("expert_used_count", n_experts as u64)?;
    Ok(Some(ExpertSpec { n_experts, n_used }))
}

/// Returns how positions are stretched.
fn rope_scaling(
    gguf: &Gguf,
    architecture: &str,
    number: &impl Fn(&str, f32) -> Result<f32, Error>,
    count: &impl Fn(&str, u64) -> Result<usize, Error>,
) -> Result<RopeSpec, Error> {
    let plain = RopeSpec { position_divisor: 1.0, ..RopeSpec::default() };
    match gguf.str(&format!("{architecture}.rope.scaling.type")) {
        Err(_) | Ok("none") => Ok(plain),
        Ok("linear") => Ok(RopeSpec { position_divisor: number("rope.scaling.factor", 1.0)?, ..plain }),
        Ok("yarn") => {
            let factor = number("rope.scaling.factor", 1.0)?;
            let magnitude = number("rope.scaling.attn_factor", 1.0)? * (1.0 + 0.1 * factor.max(1.0).ln());
            let yarn = YarnSpec {
                factor,
                n_original: count("rope.scaling.original_context_length", MAX_CTX)?,
                beta: [
                    number("rope.scaling.yarn_beta_fast", 32.0)?,
                    number("rope.scaling.yarn_beta_slow", 1.0)?,
                ],
                magnitude,
            };
            Ok(RopeSpec { yarn: Some(yarn), ..plain })
        }
        Ok(other) => Err(unsupported(architecture, &format!("rope scaling `{other}`"))),
    }
}

fn unsupported(architecture: &str, what: &str) -> Error {
    Error::Unsupported { architecture: architecture.to_owned(), what: what.to_owned() }
}

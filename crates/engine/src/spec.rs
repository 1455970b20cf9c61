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

/// The families that run. Mistral Nemo, DeepSeek-Coder, SmolLM2 and R1's distills of Llama are files of `llama`; R1's distills
/// of Qwen are files of `qwen2`.
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
        let of_expert = gguf.opt_u64(&key("expert_feed_forward_length")).map_err(inconsistent)?;
        let sliding_window = match gguf.opt_u64(&key("attention.sliding_window")).map_err(inconsistent)? {
            None | Some(0) => usize::MAX,
            Some(n_positions) => usize::try_from(n_positions).unwrap_or(usize::MAX),
        };
        let n_vocab = gguf.str_array("tokenizer.ggml.tokens").map_err(inconsistent)?.count();
        let spec = Self {
            name: gguf.str("general.name").unwrap_or(&architecture).to_owned(),
            n_vocab,
            // Within a sliding window every position is seen, as here.
            n_ctx: count("context_length", MAX_CTX)?.min(sliding_window),
            n_embd,
            n_ff: match experts {
                Some(_) if of_expert.is_some_and(|n| n > 0) => {
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
    let key = |name: &str| format!("{architecture}.{name}");
    let number = |name: &str| gguf.opt_u64(&key(name)).map_err(inconsistent);
    if number("expert_count")?.is_none_or(|n| n == 0) {
        return Ok(None);
    }
    // Each means what a file without it does: 1 is the softmax, of which the weights always add up to 1 here.
    for (name, neutral) in [("expert_gating_func", 1), ("expert_shared_count", 0), ("expert_group_count", 1)]
    {
        if number(name)?.is_some_and(|n| n > neutral) {
            return Err(unsupported(architecture, &format!("`{}`", key(name))));
        }
    }
    let scale = gguf.opt_f32(&key("expert_weights_scale")).map_err(inconsistent)?;
    if scale.is_some_and(|scale| scale != 0.0 && scale != 1.0) {
        return Err(unsupported(architecture, &format!("`{}`", key("expert_weights_scale"))));
    }
    let n_experts = count("expert_count", MAX_EXPERTS)?;
    let n_used = count("expert_used_count", n_experts as u64)?;
    Ok(Some(ExpertSpec { n_experts, n_used }))
}

/// Returns how positions are stretched. A factor of 0 is how llama.cpp writes none.
///
/// Not read, as in llama.cpp for these families: `yarn_ext_factor`, and `yarn_attn_factor`, by which transformers replaces the
/// magnitude where it stands for a config's `attention_factor`, and does not where for its `attn_factor`.
fn rope_scaling(
    gguf: &Gguf,
    architecture: &str,
    number: &impl Fn(&str, f32) -> Result<f32, Error>,
    count: &impl Fn(&str, u64) -> Result<usize, Error>,
) -> Result<RopeSpec, Error> {
    let key = |name: &str| format!("{architecture}.{name}");
    let factor = |name: &str| -> Result<Option<f32>, Error> {
        match gguf.opt_f32(&key(name)).map_err(inconsistent)? {
            None | Some(0.0) => Ok(None),
            Some(_) => number(name, 1.0).map(Some),
        }
    };
    let plain = RopeSpec { position_divisor: 1.0, ..RopeSpec::default() };
    match gguf.opt_str(&key("rope.scaling.type")).map_err(inconsistent)? {
        Some("none") => Ok(plain),
        // What a file without the key means, and the older key of the factor.
        Some("linear") | None => {
            let divisor = match factor("rope.scaling.factor")? {
                None => factor("rope.scale_linear")?,
                divisor => divisor,
            };
            Ok(RopeSpec { position_divisor: divisor.unwrap_or(1.0), ..plain })
        }
        Some("yarn") => {
            let factor = factor("rope.scaling.factor")?.unwrap_or(1.0);
            let magnitude = number("rope.scaling.attn_factor", 1.0)? * (1.0 + 0.1 * factor.max(1.0).ln());
            let of_training = "rope.scaling.original_context_length";
            let n_original = gguf.opt_u64(&key(of_training)).map_err(inconsistent)?;
            let of_training = if n_original.is_some_and(|n| n > 0) { of_training } else { "context_length" };
            let yarn = YarnSpec {
                factor,
                n_original: count(of_training, MAX_CTX)?,
                beta: [
                    number("rope.scaling.yarn_beta_fast", 32.0)?,
                    number("rope.scaling.yarn_beta_slow", 1.0)?,
                ],
                magnitude,
            };
            Ok(RopeSpec { yarn: Some(yarn), ..plain })
        }
        Some(other) => Err(unsupported(architecture, &format!("rope scaling `{other}`"))),
    }
}

fn inconsistent(source: crate::gguf::Error) -> Error {
    Error::Inconsistent(source.to_string())
}

fn unsupported(architecture: &str, what: &str) -> Error {
    Error::Unsupported { architecture: architecture.to_owned(), what: what.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::test_file::GgufWriter;

    fn spec(architecture: &str, change: impl FnOnce(GgufWriter) -> GgufWriter) -> Result<ModelSpec, Error> {
        let key = |name: &str| format!("{architecture}.{name}");
        let file = GgufWriter::new()
            .str("general.architecture", architecture)
            .u32(&key("context_length"), 4096)
            .u32(&key("embedding_length"), 64)
            .u32(&key("feed_forward_length"), 96)
            .u32(&key("block_count"), 2)
            .u32(&key("attention.head_count"), 4)
            .strs("tokenizer.ggml.tokens", &["a", "b"]);
        let gguf = Gguf::from_bytes(change(file).write().bytes).expect("a valid file");
        ModelSpec::from_gguf(&gguf)
    }

    #[track_caller]
    fn refused(architecture: &str, change: impl FnOnce(GgufWriter) -> GgufWriter, why: &str) {
        let error = spec(architecture, change).expect_err("must be refused").to_string();
        assert!(error.contains(why), "{error}");
    }

    fn number(file: GgufWriter, key: &str, number: f32) -> GgufWriter {
        file.raw(key, 6, &number.to_le_bytes())
    }

    #[test]
    fn a_family_says_what_the_metadata_do_not() {
        let llama = spec("llama", |file| file).expect("a model");
        assert_eq!(
            (llama.rope.pairing, llama.has_qkv_bias, llama.has_qk_norm),
            (RopePairing::Norm, false, false)
        );
        let qwen2 = spec("qwen2", |file| file).expect("a model");
        assert_eq!(
            (qwen2.rope.pairing, qwen2.has_qkv_bias, qwen2.has_qk_norm),
            (RopePairing::Neox, true, false)
        );
        let qwen3 = spec("qwen3", |file| file).expect("a model");
        assert_eq!(
            (qwen3.rope.pairing, qwen3.has_qkv_bias, qwen3.has_qk_norm),
            (RopePairing::Neox, false, true)
        );
        refused("mamba", |file| file, "`mamba` is not supported: this engine runs `llama`, `qwen2`");
    }

    #[test]
    fn a_mixture_that_is_another_or_lies_is_refused() {
        let sizes = |file: GgufWriter, n: u32, n_used: u32| {
            file.u32("qwen3moe.expert_count", n).u32("qwen3moe.expert_used_count", n_used)
        };
        let mixture = spec("qwen3moe", |file| {
            sizes(file, 8, 2)
                .u32("qwen3moe.expert_feed_forward_length", 32)
                .u32("qwen3moe.expert_gating_func", 1)
        });
        let mixture = mixture.expect("a mixture");
        assert_eq!(mixture.experts, Some(ExpertSpec { n_experts: 8, n_used: 2 }));
        assert_eq!(mixture.n_ff, 32);
        refused("qwen3moe", |file| sizes(file, 8, 9), "expert_used_count is 9");
        refused("qwen3moe", |file| sizes(file, 8, 0), "expert_used_count is 0");
        refused("qwen3moe", |file| sizes(file, 1 << 20, 8), "expert_count is 1048576");
        refused("qwen3moe", |file| file.u32("qwen3moe.expert_count", 8), "expert_used_count");
        for (key, n) in [("expert_gating_func", 2), ("expert_shared_count", 1), ("expert_group_count", 8)] {
            refused("qwen3moe", |file| sizes(file, 8, 2).u32(&format!("qwen3moe.{key}"), n), key);
        }
        let scaled = |file| number(sizes(file, 8, 2), "qwen3moe.expert_weights_scale", 2.5);
        refused("qwen3moe", scaled, "expert_weights_scale");
        refused("qwen3moe", |file| file.str("qwen3moe.expert_count", "8"), "expert_count");
    }

    #[test]
    fn positions_are_stretched_as_the_file_says_or_it_is_refused() {
        let kind = |file: GgufWriter, kind: &str| file.str("qwen2.rope.scaling.type", kind);
        let factor = |file, n| number(file, "qwen2.rope.scaling.factor", n);
        let rope = |change: &dyn Fn(GgufWriter) -> GgufWriter| spec("qwen2", change).expect("a model").rope;
        assert_eq!(rope(&|file| file).position_divisor, 1.0);
        assert_eq!(rope(&|file| factor(file, 4.0)).position_divisor, 4.0);
        assert_eq!(rope(&|file| number(file, "qwen2.rope.scale_linear", 2.0)).position_divisor, 2.0);
        assert_eq!(rope(&|file| factor(kind(file, "none"), 4.0)).position_divisor, 1.0);
        let yarn = rope(&|file| factor(kind(file, "yarn"), 4.0)).yarn.expect("YaRN");
        assert_eq!((yarn.factor, yarn.n_original, yarn.beta), (4.0, 4096, [32.0, 1.0]));
        assert!((yarn.magnitude - 1.138_629_4).abs() < 1e-6);
        refused("qwen2", |file| kind(file, "longrope"), "rope scaling `longrope`");
        // As llama.cpp writes a model that is not stretched.
        assert_eq!(rope(&|file| factor(kind(file, "linear"), 0.0)).position_divisor, 1.0);
        let unknown = |file: GgufWriter| file.u32("qwen2.rope.scaling.original_context_length", 0);
        assert_eq!(rope(&|file| unknown(kind(file, "yarn"))).yarn.expect("YaRN").n_original, 4096);
        refused("qwen2", |file| file.u32("qwen2.rope.scaling.type", 1), "rope.scaling.type");
        refused("qwen2", |file| factor(kind(file, "yarn"), f32::NAN), "rope.scaling.factor");
    }

    #[test]
    fn a_context_ends_with_the_window_that_slides() {
        let window = |n: u32| spec("llama", |file| file.u32("llama.attention.sliding_window", n));
        assert_eq!(window(512).expect("a model").n_ctx, 512);
        assert_eq!(window(8192).expect("a model").n_ctx, 4096);
    }
}

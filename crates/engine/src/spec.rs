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
    /// Which dimensions form a pair.
    pub pairing: RopePairing,
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
    /// Width of the feed-forward's inner layer.
    pub n_ff: usize,
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
    /// Rotary position embedding.
    pub rope: RopeSpec,
}

/// Bounds on what a header may claim; beyond them it lies or is no model of ours. Far above any open model of 2026.
const MAX_LAYERS: u64 = 1024;
const MAX_WIDTH: u64 = 1 << 20;
const MAX_CTX: u64 = 1 << 24;

impl ModelSpec {
    /// Reads the shape from a GGUF file's metadata.
    ///
    /// # Errors
    /// [`Error::Unsupported`] names what this engine does not run; [`Error::Inconsistent`] what cannot be true.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, Error> {
        let inconsistent = |source: crate::gguf::Error| Error::Inconsistent(source.to_string());
        let architecture = gguf.str("general.architecture").map_err(inconsistent)?.to_owned();
        if architecture != "llama" {
            return Err(unsupported(&architecture, "only `llama` runs so far"));
        }
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
        let n_vocab = gguf.str_array("tokenizer.ggml.tokens").map_err(inconsistent)?.count();
        let spec = Self {
            name: gguf.str("general.name").unwrap_or(&architecture).to_owned(),
            n_vocab,
            n_ctx: count("context_length", MAX_CTX)?,
            n_embd,
            n_ff: count("feed_forward_length", MAX_WIDTH)?,
            n_layers: count("block_count", MAX_LAYERS)?,
            n_heads,
            n_kv_heads,
            head_dim,
            norm_eps: number("attention.layer_norm_rms_epsilon", 1e-5)?,
            rope: RopeSpec {
                theta: number("rope.freq_base", 10_000.0)?,
                n_dims: or("rope.dimension_count", head_dim)?,
                position_divisor: rope_divisor(gguf, &architecture, &number)?,
                pairing: RopePairing::Norm,
            },
            architecture,
        };
        spec.check(gguf)?;
        Ok(spec)
    }

    fn check(&self, gguf: &Gguf) -> Result<(), Error> {
        let key = |name: &str| format!("{}.{name}", self.architecture);
        if gguf.contains(&key("expert_count")) && gguf.u64(&key("expert_count")).is_ok_and(|n| n > 0) {
            return Err(unsupported(&self.architecture, "mixture of experts"));
        }
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

fn rope_divisor(
    gguf: &Gguf,
    architecture: &str,
    number: &impl Fn(&str, f32) -> Result<f32, Error>,
) -> Result<f32, Error> {
    match gguf.str(&format!("{architecture}.rope.scaling.type")) {
        Err(_) | Ok("none") => Ok(1.0),
        Ok("linear") => number("rope.scaling.factor", 1.0),
        Ok(other) => Err(unsupported(architecture, &format!("rope scaling `{other}`"))),
    }
}

fn unsupported(architecture: &str, what: &str) -> Error {
    Error::Unsupported { architecture: architecture.to_owned(), what: what.to_owned() }
}

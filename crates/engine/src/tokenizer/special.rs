//! The tokens with a role, by the metadata and by the names that model makers use.
//!
//! In: ids in the metadata, names of tokens that are not text. Out: [`SpecialTokens`].
//! Source: the names, `llama_vocab::impl::load` in llama.cpp's `src/llama-vocab.cpp`.

use super::{Error, TokenId};
use crate::gguf::Gguf;

/// In which order a model that fills in the middle was trained to see what is around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FimOrder {
    /// Prefix, suffix, middle: what a FIM model knows unless it says otherwise.
    #[default]
    PrefixFirst,
    /// Suffix, then the prefix, which the middle continues without a mark between: what is typed only adds tokens.
    SuffixFirst,
}

impl FimOrder {
    /// Ours: no other format has a key for it.
    const KEY: &str = "tandem.fim_order";

    fn read(gguf: &Gguf) -> Result<Self, Error> {
        match gguf.opt_str(Self::KEY)? {
            None | Some("psm") => Ok(Self::PrefixFirst),
            Some("spm") => Ok(Self::SuffixFirst),
            Some(other) => Err(Error::FimOrder(other.to_owned())),
        }
    }
}

/// The ids with a role. A model that lacks one has `None`, and no text can make any of them (I-3).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SpecialTokens {
    /// Begins a prompt.
    pub bos: Option<TokenId>,
    /// Ends a text.
    pub eos: Option<TokenId>,
    /// Ends a turn of a conversation (`<|im_end|>`, `<|eot_id|>`).
    pub eot: Option<TokenId>,
    /// FIM: what follows is the text before the cursor.
    pub fim_prefix: Option<TokenId>,
    /// FIM: what follows is the text after the cursor.
    pub fim_suffix: Option<TokenId>,
    /// FIM: what follows is to be written.
    pub fim_middle: Option<TokenId>,
    /// FIM: in which order the three stand.
    pub fim_order: FimOrder,
    /// FIM: fills a sequence up, in training.
    pub fim_pad: Option<TokenId>,
    /// What follows is the name of a repository.
    pub repo_name: Option<TokenId>,
    /// What follows is another file.
    pub file_sep: Option<TokenId>,
    /// Whether a prompt must begin with `bos`, which is then there.
    pub add_bos: bool,
    /// The ids after which nothing is to be generated, in ascending order.
    pub end_of_generation: Vec<TokenId>,
}

const EOT_NAMES: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<EOT>",
    "_<EOT>",
    "▁<EOT>",
    "[EOT]",
    "<｜end▁of▁sentence｜>",
    "<end_of_utterance>",
];
const FIM_PREFIX_NAMES: &[&str] = &[
    "<|fim_prefix|>",
    "<fim-prefix>",
    "<fim_prefix>",
    "<｜fim▁begin｜>",
    "<PRE>",
    "▁<PRE>",
    "<|code_prefix|>",
    "<|prefix|>",
];
const FIM_SUFFIX_NAMES: &[&str] = &[
    "<|fim_suffix|>",
    "<fim-suffix>",
    "<fim_suffix>",
    "<｜fim▁hole｜>",
    "<SUF>",
    "▁<SUF>",
    "<|code_suffix|>",
    "<|suffix|>",
];
const FIM_MIDDLE_NAMES: &[&str] = &[
    "<|fim_middle|>",
    "<fim-middle>",
    "<fim_middle>",
    "<｜fim▁end｜>",
    "<MID>",
    "▁<MID>",
    "<|code_middle|>",
    "<|middle|>",
];
const FIM_PAD_NAMES: &[&str] = &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"];
const REPO_NAMES: &[&str] =
    &["<|repo_name|>", "<|fim_repo|>", "<fim-repo>", "<repo_name>", "<REPO>", "<reponame>"];
const FILE_SEP_NAMES: &[&str] = &["<|file_sep|>", "<file_sep>"];
const END_NAMES: &[&str] = &["<|return|>", "<|call|>", "<|flush|>", "</s>", "<|eom_id|>", "[EOS]", "<eos>"];

/// Returns whether model makers use `name` for a token with a role.
pub(super) fn is_known_name(name: &str) -> bool {
    [
        EOT_NAMES,
        FIM_PREFIX_NAMES,
        FIM_SUFFIX_NAMES,
        FIM_MIDDLE_NAMES,
        FIM_PAD_NAMES,
        REPO_NAMES,
        FILE_SEP_NAMES,
        END_NAMES,
    ]
    .iter()
    .any(|names| names.contains(&name))
}

/// Where a role is named: metadata keys, the current one first, then token names.
struct Role {
    keys: &'static [&'static str],
    names: &'static [&'static str],
}

impl SpecialTokens {
    /// Returns whether nothing is to be generated after `id`.
    pub fn is_end(&self, id: TokenId) -> bool {
        self.end_of_generation.binary_search(&id).is_ok()
    }

    /// Returns what a prompt must begin with, if anything.
    pub fn first(&self) -> Option<TokenId> {
        self.bos.filter(|_| self.add_bos)
    }

    /// Takes tokens for what begins and ends a text where the file names none.
    pub(super) fn assume(&mut self, bos: Option<TokenId>, eos: Option<TokenId>) {
        self.bos = self.bos.or(bos);
        if self.eos.is_none()
            && let Some(eos) = eos
        {
            self.eos = Some(eos);
            self.end_of_generation.push(eos);
            self.end_of_generation.sort_unstable();
            self.end_of_generation.dedup();
        }
    }

    /// Reads the roles; `special` returns the id of a token that is not text, by its name. Whether a prompt begins with BOS is
    /// for the caller to say.
    pub(super) fn read(
        gguf: &Gguf,
        n_vocab: usize,
        special: impl Fn(&str) -> Option<TokenId>,
    ) -> Result<Self, Error> {
        let find = |role: Role| -> Result<Option<TokenId>, Error> {
            for key in role.keys {
                if let Some(id) = metadata_id(gguf, key, n_vocab)? {
                    return Ok(Some(id));
                }
            }
            Ok(role.names.iter().find_map(|name| special(name)))
        };
        let mut roles = Self {
            bos: find(Role { keys: &["tokenizer.ggml.bos_token_id"], names: &[] })?,
            eos: find(Role { keys: &["tokenizer.ggml.eos_token_id"], names: &[] })?,
            eot: find(Role { keys: &["tokenizer.ggml.eot_token_id"], names: EOT_NAMES })?,
            fim_prefix: find(Role {
                keys: &["tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.prefix_token_id"],
                names: FIM_PREFIX_NAMES,
            })?,
            fim_suffix: find(Role {
                keys: &["tokenizer.ggml.fim_suf_token_id", "tokenizer.ggml.suffix_token_id"],
                names: FIM_SUFFIX_NAMES,
            })?,
            fim_middle: find(Role {
                keys: &["tokenizer.ggml.fim_mid_token_id", "tokenizer.ggml.middle_token_id"],
                names: FIM_MIDDLE_NAMES,
            })?,
            fim_order: FimOrder::read(gguf)?,
            fim_pad: find(Role { keys: &["tokenizer.ggml.fim_pad_token_id"], names: FIM_PAD_NAMES })?,
            repo_name: find(Role { keys: &["tokenizer.ggml.fim_rep_token_id"], names: REPO_NAMES })?,
            file_sep: find(Role { keys: &["tokenizer.ggml.fim_sep_token_id"], names: FILE_SEP_NAMES })?,
            add_bos: false,
            end_of_generation: Vec::new(),
        };
        let eom = metadata_id(gguf, "tokenizer.ggml.eom_token_id", n_vocab)?;
        let ends = [roles.eos, roles.eot, eom, roles.fim_pad, roles.repo_name, roles.file_sep];
        let named = EOT_NAMES.iter().chain(END_NAMES).map(|name| special(name));
        roles.end_of_generation = ends.into_iter().chain(named).flatten().collect();
        roles.end_of_generation.sort_unstable();
        roles.end_of_generation.dedup();
        Ok(roles)
    }

    /// Returns the ids with a role, each with what names it in an error.
    pub(super) fn roles(&self) -> impl Iterator<Item = (&'static str, TokenId)> {
        [
            ("bos", self.bos),
            ("eos", self.eos),
            ("eot", self.eot),
            ("fim_prefix", self.fim_prefix),
            ("fim_suffix", self.fim_suffix),
            ("fim_middle", self.fim_middle),
            ("fim_pad", self.fim_pad),
            ("repo_name", self.repo_name),
            ("file_sep", self.file_sep),
        ]
        .into_iter()
        .filter_map(|(role, id)| Some((role, id?)))
        .chain(self.end_of_generation.iter().map(|id| ("end of generation", *id)))
    }
}

fn metadata_id(gguf: &Gguf, key: &str, n_vocab: usize) -> Result<Option<TokenId>, Error> {
    match gguf.opt_u32(key)? {
        Some(id) if id as usize >= n_vocab => Err(Error::IdOutOfRange { key: key.to_owned(), id, n_vocab }),
        id => Ok(id.map(TokenId)),
    }
}

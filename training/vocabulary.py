"""The model's own tokenizer, out of its GGUF.

In: a GGUF whose tokenizer is byte-level BPE cut by the `smollm` rule. Out: a `tokenizers.Tokenizer` that gives the ids
of llama.cpp and of crates/engine/src/tokenizer, and never a special id: text that looks like one is text.
"""

import json

import gguf
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

END_OF_TEXT, TURN_START, TURN_END = 0, 1, 2
# The base model's, which its code repositories' issues had; the adapter reuses them.
SUFFIX, PREFIX, MIDDLE = 8, 9, 10
N_SPECIALS = 17


def read(path):
    reader = gguf.GGUFReader(path)
    rule = reader.fields["tokenizer.ggml.pre"].contents()
    if rule != "smollm":
        raise SystemExit(f"error: {path} cuts text by the rule {rule!r}\nhint: this knows the rule 'smollm' only")
    tokens, merges = (reader.fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "merges"))
    pairs = [tuple(merge.split(" ")) for merge in merges]
    tokenizer = tokenizers.Tokenizer(models.BPE({token: idx for idx, token in enumerate(tokens)}, pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def of_bytes():
    """A vocabulary of the 256 bytes alone, behind as many specials, for tests without a model."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {f"<special {idx}>": idx for idx in range(N_SPECIALS)} | {one: N_SPECIALS + idx for idx, one in enumerate(letters)}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def fingerprint(tokenizer):
    """What tells two vocabularies apart in the data card."""
    import hashlib

    return hashlib.sha256(json.dumps(tokenizer.get_vocab(), sort_keys=True).encode()).hexdigest()[:16]

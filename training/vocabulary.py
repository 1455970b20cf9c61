"""The model's own tokenizer, out of its GGUF.

In: a GGUF whose tokenizer is byte-level BPE cut by the `smollm` rule. Out: a `tokenizers.Tokenizer` that gives the ids
of llama.cpp and of crates/engine/src/tokenizer, and never a special id: text that looks like one is text.
"""

import hashlib
import json
import struct

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

END_OF_TEXT, TURN_START, TURN_END = 0, 1, 2
# The base model's, which its code repositories' issues had; the adapter reuses them.
SUFFIX, PREFIX, MIDDLE = 8, 9, 10
N_SPECIALS = 17


# Of GGUF's value types those of a fixed size, by number, and how `struct` names them.
PLAIN_VALUES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING_VALUE, ARRAY_VALUE = 8, 9


def read(path):
    about = metadata(path)
    rule = about["tokenizer.ggml.pre"]
    if rule != "smollm":
        raise SystemExit(f"error: {path} cuts text by the rule {rule!r}\nhint: this knows the rule 'smollm' only")
    pairs = [tuple(merge.split(" ")) for merge in about["tokenizer.ggml.merges"]]
    return cut_as_smollm(models.BPE({token: idx for idx, token in enumerate(about["tokenizer.ggml.tokens"])}, pairs))


def metadata(path):
    """Returns a GGUF's key-value pairs."""
    with open(path, "rb") as stream:
        number = lambda kind: struct.unpack("<" + kind, stream.read(struct.calcsize(kind)))[0]
        text = lambda: stream.read(number("Q")).decode("utf-8", "replace")

        def value(kind):
            if kind == ARRAY_VALUE:
                inner, n = number("I"), number("Q")
                return [value(inner) for _ in range(n)]
            return text() if kind == STRING_VALUE else number(PLAIN_VALUES[kind])

        if stream.read(4) != b"GGUF":
            raise SystemExit(f"error: {path} is no GGUF file\nhint: give --model the model's GGUF")
        number("I")
        number("Q")
        return {text(): value(number("I")) for _ in range(number("Q"))}


def cut_as_smollm(model):
    """A tokenizer whose text is cut as crates/engine/src/tokenizer/split.rs cuts it by the rule `smollm`."""
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def of_bytes():
    """A vocabulary of the 256 bytes alone, behind as many specials, for tests without a model."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {f"<special {idx}>": idx for idx in range(N_SPECIALS)} | {
        one: N_SPECIALS + idx for idx, one in enumerate(letters)
    }
    return cut_as_smollm(models.BPE(vocabulary, []))


def fingerprint(tokenizer):
    """What tells two vocabularies apart in the data card."""
    return hashlib.sha256(json.dumps(tokenizer.get_vocab(), sort_keys=True).encode()).hexdigest()[:16]

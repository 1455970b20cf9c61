"""A random llama as a GGUF file.

In: sizes, a seed. Out: the file's bytes; no text makes sense to it.
"""

from dataclasses import dataclass

import numpy as np

import blocks
import gguf

N_VOCAB = 96


@dataclass(frozen=True)
class Sizes:
    n_vocab: int
    n_embd: int
    n_ff: int
    n_layers: int
    n_heads: int
    n_kv_heads: int

    def matrices(self):
        """(n_in, n_out) of a layer's matrices."""
        n_kv = self.n_embd // self.n_heads * self.n_kv_heads
        return {
            "attn_q": (self.n_embd, self.n_embd),
            "attn_k": (self.n_embd, n_kv),
            "attn_v": (self.n_embd, n_kv),
            "attn_output": (self.n_embd, self.n_embd),
            "ffn_gate": (self.n_embd, self.n_ff),
            "ffn_up": (self.n_embd, self.n_ff),
            "ffn_down": (self.n_ff, self.n_embd),
        }


TINY = Sizes(n_vocab=N_VOCAB, n_embd=64, n_ff=128, n_layers=2, n_heads=2, n_kv_heads=1)
SMOLLM2_135M = Sizes(n_vocab=49152, n_embd=576, n_ff=1536, n_layers=30, n_heads=9, n_kv_heads=3)


def base_file(seed=0, sizes=TINY):
    """The GGUF bytes of a random model."""
    rng = np.random.default_rng(seed)
    texts = [f"<|{i}|>" for i in range(17)] + [chr(0x10000 + i) for i in range(sizes.n_vocab - 17)]
    metadata = [
        ("general.architecture", gguf.STRING, "llama"),
        ("general.name", gguf.STRING, "Random"),
        ("llama.block_count", gguf.UINT32, sizes.n_layers),
        ("llama.context_length", gguf.UINT32, 1024),
        ("llama.embedding_length", gguf.UINT32, sizes.n_embd),
        ("llama.feed_forward_length", gguf.UINT32, sizes.n_ff),
        ("llama.attention.head_count", gguf.UINT32, sizes.n_heads),
        ("llama.attention.head_count_kv", gguf.UINT32, sizes.n_kv_heads),
        ("llama.rope.freq_base", gguf.FLOAT32, 10000.0),
        ("llama.attention.layer_norm_rms_epsilon", gguf.FLOAT32, 1e-5),
        ("tokenizer.ggml.tokens", gguf.ARRAY, (gguf.STRING, texts)),
    ]
    embedding = rng.normal(0, 0.5, (sizes.n_vocab * sizes.n_embd // 32, 32)).astype(np.float32)
    tensors = [("token_embd.weight", (sizes.n_embd, sizes.n_vocab), gguf.Q8_0, blocks.write_q8_0(embedding))]
    gains = np.ones(sizes.n_embd, dtype=np.float32).tobytes()
    for layer in range(sizes.n_layers):
        for name, shape in sizes.matrices().items():
            n_blocks = shape[0] * shape[1] // 32
            q = rng.integers(0, 16, (n_blocks, 32), dtype=np.uint8)
            d = rng.uniform(0.02, 0.04, n_blocks).astype(np.float16)
            m = (-7.5 * d).astype(np.float16)
            tensors.append((f"blk.{layer}.{name}.weight", shape, gguf.Q4_1, blocks.write_q4_1(q, d, m)))
        for name in ("attn_norm", "ffn_norm"):
            tensors.append((f"blk.{layer}.{name}.weight", (sizes.n_embd,), gguf.F32, gains))
    tensors.append(("output_norm.weight", (sizes.n_embd,), gguf.F32, gains))
    return gguf.file_bytes(metadata, tensors)

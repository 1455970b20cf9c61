"""A random llama of two layers as a GGUF file.

In: a seed. Out: the file's bytes; no text makes sense to it.
"""

import numpy as np

import blocks
import gguf

N_VOCAB, N_EMBD, N_FF, N_LAYERS, HEAD_DIM = 96, 64, 128, 2, 32


def base_file(seed=0):
    """A random llama's GGUF bytes."""
    rng = np.random.default_rng(seed)
    texts = [f"<|{i}|>" for i in range(17)] + [chr(0x100 + i) for i in range(N_VOCAB - 17)]
    metadata = [
        ("general.architecture", gguf.STRING, "llama"),
        ("general.name", gguf.STRING, "Tiny"),
        ("llama.block_count", gguf.UINT32, N_LAYERS),
        ("llama.context_length", gguf.UINT32, 1024),
        ("llama.embedding_length", gguf.UINT32, N_EMBD),
        ("llama.feed_forward_length", gguf.UINT32, N_FF),
        ("llama.attention.head_count", gguf.UINT32, N_EMBD // HEAD_DIM),
        ("llama.attention.head_count_kv", gguf.UINT32, 1),
        ("llama.rope.freq_base", gguf.FLOAT32, 10000.0),
        ("llama.attention.layer_norm_rms_epsilon", gguf.FLOAT32, 1e-5),
        ("tokenizer.ggml.tokens", gguf.ARRAY, (gguf.STRING, texts)),
    ]
    embedding = rng.normal(0, 0.5, (N_VOCAB * N_EMBD // 32, 32)).astype(np.float32)
    tensors = [("token_embd.weight", (N_EMBD, N_VOCAB), gguf.Q8_0, blocks.write_q8_0(embedding))]
    sizes = {
        "attn_q": (N_EMBD, N_EMBD),
        "attn_k": (N_EMBD, HEAD_DIM),
        "attn_v": (N_EMBD, HEAD_DIM),
        "attn_output": (N_EMBD, N_EMBD),
        "ffn_gate": (N_EMBD, N_FF),
        "ffn_up": (N_EMBD, N_FF),
        "ffn_down": (N_FF, N_EMBD),
    }
    for layer in range(N_LAYERS):
        for name, shape in sizes.items():
            n_blocks = shape[0] * shape[1] // 32
            q = rng.integers(0, 16, (n_blocks, 32), dtype=np.uint8)
            d = rng.uniform(0.02, 0.04, n_blocks).astype(np.float16)
            m = (-7.5 * d).astype(np.float16)
            tensors.append((f"blk.{layer}.{name}.weight", shape, gguf.Q4_1, blocks.write_q4_1(q, d, m)))
        for name in ("attn_norm", "ffn_norm"):
            tensors.append((f"blk.{layer}.{name}.weight", (N_EMBD,), gguf.F32, ones(N_EMBD)))
    tensors.append(("output_norm.weight", (N_EMBD,), gguf.F32, ones(N_EMBD)))
    return gguf.file_bytes(metadata, tensors)


def ones(n):
    return np.ones(n, dtype=np.float32).tobytes()

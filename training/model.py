"""A llama model whose matrices are Q4_1 blocks, as PyTorch functions over flat rows of tokens.

In: a GGUF file's bytes. Out: logits' losses, gradients with respect to the matrices. A batch is N tokens: documents of
the same padded length T one after another, each from position 0; everything but the attention sees [N, ...] alone, so
that one compiled shape serves every T. Source: llama.cpp's build_llama; "norm" rope turns neighbouring pairs.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

import blocks
import gguf

# Each layer's matrices in this order, so that q, k, v and gate, up are one matrix each.
MATRICES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
# On a GPU never MATH: it would take the memory of every document's scores, and say nothing.
BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]
# Ids that the base never saw, so that their rows are all alike: suffix, prefix, middle.
FIRST_ROW, N_ROWS = 8, 3


@dataclass(frozen=True)
class Shape:
    """Sizes in numbers of values."""

    n_layers: int
    n_embd: int
    n_ff: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    n_vocab: int
    rope_base: float
    epsilon: float

    @classmethod
    def read(cls, header):
        n_heads, n_embd = header["llama.attention.head_count"], header["llama.embedding_length"]
        return cls(
            n_layers=header["llama.block_count"],
            n_embd=n_embd,
            n_ff=header["llama.feed_forward_length"],
            n_heads=n_heads,
            n_kv_heads=header["llama.attention.head_count_kv"],
            head_dim=n_embd // n_heads,
            n_vocab=header.tensor("token_embd.weight").shape[1],
            rope_base=header["llama.rope.freq_base"],
            epsilon=header["llama.attention.layer_norm_rms_epsilon"],
        )


@dataclass
class Base:
    """The base model on the host: `matrices` are (name, n_out, n_in) in the order of `q`, `d`, `m`."""

    shape: Shape
    header: gguf.Header
    matrices: list
    q: np.ndarray
    d: np.ndarray
    m: np.ndarray
    gains: np.ndarray
    gain_names: list
    embedding: np.ndarray

    @property
    def n_weights(self):
        return self.q.size


def read_base(data):
    """Reads a GGUF file's bytes; ValueError when a matrix is not Q4_1."""
    header = gguf.read_header(data)
    shape = Shape.read(header)
    matrices, parts = [], []
    for layer in range(shape.n_layers):
        for name in MATRICES:
            tensor = header.tensor(f"blk.{layer}.{name}.weight")
            if tensor.kind != gguf.Q4_1:
                raise ValueError(f"{tensor.name} is not Q4_1: give a model whose matrices all are")
            matrices.append((tensor.name, tensor.shape[1], tensor.shape[0]))
            parts.append(blocks.read_q4_1(data[tensor.start : tensor.start + tensor.n_bytes]))
    gain_names = [f"blk.{i}.{name}.weight" for i in range(shape.n_layers) for name in ("attn_norm", "ffn_norm")]
    gain_names.append("output_norm.weight")
    gains = [header.tensor(name) for name in gain_names]
    embedding = header.tensor("token_embd.weight")
    return Base(
        shape=shape,
        header=header,
        matrices=matrices,
        q=np.concatenate([q for q, _, _ in parts]),
        d=np.concatenate([d for _, d, _ in parts]),
        m=np.concatenate([m for _, _, m in parts]),
        gains=np.concatenate([np.frombuffer(data[t.start : t.start + t.n_bytes], np.float32) for t in gains]),
        gain_names=gain_names,
        embedding=blocks.read_q8_0(data[embedding.start : embedding.start + embedding.n_bytes]).reshape(
            shape.n_vocab, shape.n_embd
        ),
    )


def rms_norm(x, gain, epsilon):
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon) * gain).to(x.dtype)


def before_attention(x, gain, w_qkv, cos, sin, epsilon, n_heads, n_kv_heads):
    """x: [N, n_embd]; cos, sin: [N, 1, head_dim / 2]. Returns q: [N, n_heads, head_dim], k, v: [N, n_kv_heads, ...]."""
    head_dim = w_qkv.shape[0] // (n_heads + 2 * n_kv_heads)
    n_kv = n_kv_heads * head_dim
    qk, v = (rms_norm(x, gain, epsilon) @ w_qkv.t()).split([w_qkv.shape[0] - n_kv, n_kv], -1)
    even, odd = qk.reshape(len(x), -1, head_dim // 2, 2).float().unbind(-1)
    turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2).to(x.dtype)
    q, k = turned.split([n_heads, n_kv_heads], 1)
    return q.contiguous(), k.contiguous(), v.reshape(len(x), n_kv_heads, head_dim).contiguous()


def after_attention(x, attended, w_output, gain, w_gate_up, w_down, epsilon):
    """Adds the attention's and the feed-forward's part to x: [N, n_embd]."""
    x = x + attended @ w_output.t()
    gate, up = (rms_norm(x, gain, epsilon) @ w_gate_up.t()).chunk(2, -1)
    return x + (F.silu(gate.float()) * up.float()).to(x.dtype) @ w_down.t()


def attend(q, k, v, n_padded, groups_heads):
    """Attends within each document of `n_padded` tokens: [N, heads, head_dim] to [N, n_heads * head_dim]."""
    n_tokens, n_heads, head_dim = q.shape

    def rows(x):
        if not groups_heads and x.shape[1] != n_heads:
            x = x.repeat_interleave(n_heads // x.shape[1], 1)
        return x.view(-1, n_padded, x.shape[1], head_dim).transpose(1, 2)

    with sdpa_kernel(BACKENDS if q.is_cuda else [*BACKENDS, SDPBackend.MATH]):
        out = F.scaled_dot_product_attention(rows(q), rows(k), rows(v), is_causal=True, enable_gqa=groups_heads)
    return out.transpose(1, 2).reshape(n_tokens, n_heads * head_dim)


def softmax_gradient(logits, targets, weights):
    """Returns the losses [R] f32 and the weighted losses' gradient to the logits, in the logits' type."""
    wide = logits.float()
    log_sum = wide.logsumexp(-1, keepdim=True)
    losses = (log_sum - wide.gather(1, targets[:, None])).squeeze(1)
    share = (wide - log_sum).exp()
    is_target = torch.arange(logits.shape[1], device=logits.device) == targets[:, None]
    return losses, ((share - is_target.float()) * weights[:, None]).to(logits.dtype)


class FrozenHead(torch.autograd.Function):
    """The weighted sum of cross-entropies under a head that is not trained, so that forward finds the gradient too."""

    @staticmethod
    def forward(ctx, rows, head, targets, weights, gradient, n_chunks):
        losses, slopes = [], []
        for x, target, weight in zip(rows.chunk(n_chunks), targets.chunk(n_chunks), weights.chunk(n_chunks)):
            loss, slope = gradient(x @ head.t(), target, weight)
            losses.append(loss)
            slopes.append(slope @ head)
        losses = torch.cat(losses)
        ctx.save_for_backward(torch.cat(slopes))
        ctx.mark_non_differentiable(losses)
        return (losses * weights).sum(), losses

    @staticmethod
    def backward(ctx, slope, _):
        (rows,) = ctx.saved_tensors
        return rows * slope.to(rows.dtype), None, None, None, None, None


class Functions:
    """What a step calls: compiled; or not, and then recomputed on the way back, since it would keep too much."""

    def __init__(self, compiled):
        self.compiled = compiled
        layer = self.wrap if compiled else (lambda f: partial(checkpoint, f, use_reentrant=False))
        self.before, self.after = layer(before_attention), layer(after_attention)
        self.softmax_gradient = self.wrap(softmax_gradient)

    def wrap(self, function):
        return torch.compile(function, dynamic=False) if self.compiled else function


class Model:
    """Views of flat buffers as the model's leaves, and the pass over them.

    `matrices`: [n_weights] in the compute type; `small`: the gains, then N_ROWS rows of n_embd that stand for three ids
    in the embedding and in the head, f32. Their gradients gather in `matrix_slopes` and `small_slopes`.
    """

    def __init__(self, shape, matrices, small, embedding, groups_heads=True):
        self.shape, self.embedding, self.head = shape, embedding, embedding.clone()
        self.matrix_slopes, self.small_slopes = torch.zeros_like(matrices), torch.zeros_like(small)
        self.groups_heads, self.tables, self.layers = groups_heads, {}, []
        width = shape.n_embd
        n_qkv = (shape.n_heads + 2 * shape.n_kv_heads) * shape.head_dim
        sizes = [(n_qkv, width), (width, width), (2 * shape.n_ff, width), (width, shape.n_ff)]
        at, small_at = 0, 0
        for _ in range(shape.n_layers):
            leaves = []
            for size in sizes:
                leaves.append(leaf(matrices, self.matrix_slopes, at, size))
                at += size[0] * size[1]
            for _ in range(2):
                leaves.append(leaf(small, self.small_slopes, small_at, (width,)))
                small_at += width
            self.layers.append(leaves)
        self.output_gain = leaf(small, self.small_slopes, small_at, (width,))
        self.rows = leaf(small, self.small_slopes, small_at + width, (N_ROWS, width))
        if at != matrices.numel():
            raise ValueError(f"{matrices.numel()} weights for matrices of {at}")

    def rope(self, n_tokens, n_padded):
        """cos and sin, [n_tokens, 1, head_dim / 2] f32, of positions that begin again every `n_padded`."""
        if (n_tokens, n_padded) not in self.tables:
            pairs = torch.arange(0, self.shape.head_dim, 2, dtype=torch.float64)
            turns = torch.arange(n_padded, dtype=torch.float64)[:, None] * self.shape.rope_base ** (
                -pairs / self.shape.head_dim
            )
            turns = turns.repeat(n_tokens // n_padded, 1)[:, None].to(self.embedding.device)
            self.tables[n_tokens, n_padded] = turns.cos().float(), turns.sin().float()
        return self.tables[n_tokens, n_padded]

    def embed(self, ids):
        row_ids = torch.arange(FIRST_ROW, FIRST_ROW + N_ROWS, device=ids.device)
        which = (ids[:, None] == row_ids).to(self.embedding.dtype)
        plain = F.embedding(ids, self.embedding) * (1 - which.sum(1, keepdim=True))
        return plain + which @ round_rows(self.rows).to(plain.dtype)

    def hidden(self, functions, ids, n_padded):
        """ids: [N]. Returns what comes before the last norm, [N, n_embd]."""
        x = self.embed(ids)
        cos, sin = self.rope(len(ids), n_padded)
        epsilon, heads = self.shape.epsilon, (self.shape.n_heads, self.shape.n_kv_heads)
        for w_qkv, w_output, w_gate_up, w_down, attn_gain, ffn_gain in self.layers:
            q, k, v = functions.before(x, attn_gain, w_qkv, cos, sin, epsilon, *heads)
            attended = attend(q, k, v, n_padded, self.groups_heads)
            x = functions.after(x, attended, w_output, ffn_gain, w_gate_up, w_down, epsilon)
        return x

    def normed(self, x):
        return rms_norm(x, self.output_gain, self.shape.epsilon)

    def set_head(self):
        """Puts the trained rows into the head, which is the embedding; no gradient flows into them from there."""
        self.head[FIRST_ROW : FIRST_ROW + N_ROWS] = round_rows(self.rows.detach()).to(self.head.dtype)


def leaf(values, slopes, at, size):
    """A view of `values` that gathers its gradient in the same place of `slopes`."""
    n = int(np.prod(size))
    view = values[at : at + n].view(size).detach().requires_grad_(True)
    view.grad = slopes[at : at + n].view(size)
    return view


class RoundRows(torch.autograd.Function):
    """Q8_0's rounding, straight through in the gradient."""

    @staticmethod
    def forward(ctx, rows):
        groups = rows.reshape(-1, blocks.N_WEIGHTS)
        d = groups.abs().amax(1, keepdim=True) / 127
        scaled = groups * torch.where(d > 0, 1 / d, 0)
        q = torch.trunc(scaled + torch.copysign(torch.full_like(scaled, 0.5), scaled))
        return (d.half().float() * q).view_as(rows)

    @staticmethod
    def backward(ctx, slope):
        return slope


round_rows = RoundRows.apply

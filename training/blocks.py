"""Quantised blocks as arrays: what a Q4_1 or Q8_0 tensor's bytes mean, and how two sets of blocks differ.

In, out: numpy arrays. A Q4_1 block is 32 weights d * q + m in 20 bytes: d, m [f16], then 16 bytes whose low halves are
the weights 0 to 15 and whose high halves are 16 to 31. A Q8_0 block is 32 weights d * q in 34 bytes: d [f16], q [i8].
"""

import zlib

import numpy as np

N_WEIGHTS = 32


def read_q4_1(raw):
    """Returns q: [n_blocks, 32] u8, d and m: [n_blocks] f16."""
    blocks = np.frombuffer(raw, dtype=np.uint8).reshape(-1, 20)
    scales = blocks[:, :4].copy().view(np.float16)
    return unpack(blocks[:, 4:]), scales[:, 0].copy(), scales[:, 1].copy()


def write_q4_1(q, d, m):
    """The bytes of blocks, the inverse of `read_q4_1`."""
    blocks = np.empty((len(q), 20), dtype=np.uint8)
    blocks[:, :4] = np.stack([d, m], axis=1).astype(np.float16).view(np.uint8)
    blocks[:, 4:] = pack(q)
    return blocks.tobytes()


def pack(q):
    """[n_blocks, 32] values below 16 to [n_blocks, 16] bytes, in Q4_1's order."""
    return (q[:, :16] | (q[:, 16:] << 4)).astype(np.uint8)


def unpack(packed):
    return np.concatenate([packed & 15, packed >> 4], axis=1)


def weights_q4_1(q, d, m):
    """[n_blocks, 32] f32."""
    return d.astype(np.float32)[:, None] * q.astype(np.float32) + m.astype(np.float32)[:, None]


def read_q8_0(raw):
    """Returns the weights, [n_blocks, 32] f32."""
    blocks = np.frombuffer(raw, dtype=np.uint8).reshape(-1, 34)
    d = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    return d * blocks[:, 2:].copy().view(np.int8).astype(np.float32)


def write_q8_0(weights):
    """The bytes of weights [n_blocks, 32] f32, rounded as ggml's `quantize_row_q8_0_ref` does."""
    most = np.abs(weights).max(axis=1)
    d = (most / np.float32(127)).astype(np.float32)
    inverse = np.divide(np.float32(1), d, out=np.zeros_like(d), where=d > 0)
    scaled = weights.astype(np.float32) * inverse[:, None]
    q = np.trunc(scaled + np.copysign(np.float32(0.5), scaled)).astype(np.int8)
    blocks = np.empty((len(weights), 34), dtype=np.uint8)
    blocks[:, :2] = d.astype(np.float16)[:, None].view(np.uint8)
    blocks[:, 2:] = q.view(np.uint8)
    return blocks.tobytes()


def add_nibbles(packed, delta):
    """Adds the halves of two arrays of bytes, each half modulo 16."""
    return ((packed + delta) & 15) | ((packed + (delta & 0xF0)) & 0xF0)


def subtract_nibbles(packed, base):
    return ((packed - base) & 15) | ((packed - (base & 0xF0)) & 0xF0)


def write_scale_delta(scales, base):
    """How [n] f16 bit patterns moved, in 2n bytes: a plane of low bytes, then one of high bytes.

    The difference modulo 65536 as a signed number, folded (0, -1, 1, -2, ... to 0, 1, 2, 3, ...), so that the high
    plane is nearly all zeros.
    """
    moved = (scales - base).view(np.int16)
    folded = ((moved << 1) ^ (moved >> 15)).view(np.uint16)
    return (folded & 0xFF).astype(np.uint8).tobytes() + (folded >> 8).astype(np.uint8).tobytes()


def read_scale_delta(raw, base):
    planes = np.frombuffer(raw, dtype=np.uint8).reshape(2, -1).astype(np.uint16)
    folded = planes[0] | (planes[1] << 8)
    return base + ((folded >> 1) ^ (0 - (folded & 1)).astype(np.uint16))


def compressor(window_bits):
    """Deflate for differences, in which nothing repeats: without a search for it, which costs time and some size."""
    return zlib.compressobj(9, zlib.DEFLATED, window_bits, 9, zlib.Z_HUFFMAN_ONLY)

"""GGUF files as bytes: what stands where, and a header with other metadata.

In: the bytes of a GGUF file, version 3, little endian. Out: `Header`; the bytes of a new header. Never: tensor types
beyond those of `BLOCKS`. Source: docs/gguf.md of ggml.
"""

import struct
from dataclasses import dataclass

F32, Q4_1, Q8_0 = 0, 3, 8
# For each type: how many weights a block has, and how many bytes.
BLOCKS = {F32: (1, 4), Q4_1: (32, 20), Q8_0: (32, 34)}
UINT32, FLOAT32, BOOL, STRING, ARRAY = 4, 6, 7, 8, 9
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", UINT32: "I", 5: "i", FLOAT32: "f", BOOL: "?", 10: "Q", 11: "q", 12: "d"}
ALIGNMENT = 32


@dataclass
class Tensor:
    """One tensor: `shape` with the fastest dimension first, `start` in bytes from the file's beginning."""

    name: str
    shape: tuple
    kind: int
    start: int

    @property
    def n_weights(self):
        n = 1
        for size in self.shape:
            n *= size
        return n

    @property
    def n_blocks(self):
        return self.n_weights // BLOCKS[self.kind][0]

    @property
    def n_bytes(self):
        return self.n_blocks * BLOCKS[self.kind][1]


@dataclass
class Header:
    """Metadata as (key, type, value), in order; `spans` are the bytes that each stands in, key included."""

    metadata: list
    spans: list
    tensors: list
    infos: tuple
    data_start: int

    def __getitem__(self, key):
        return next(value for name, _, value in self.metadata if name == key)

    def tensor(self, name):
        return next(tensor for tensor in self.tensors if tensor.name == name)


class Reader:
    """A place in bytes that moves on with what is read."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def number(self, code):
        (value,) = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize("<" + code)
        return value

    def string(self):
        n_bytes = self.number("Q")
        self.at += n_bytes
        return bytes(self.data[self.at - n_bytes : self.at]).decode()

    def value(self, kind):
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            kind, n_items = self.number("I"), self.number("Q")
            return (kind, [self.value(kind) for _ in range(n_items)])
        return self.number(SCALARS[kind])


def aligned(n_bytes):
    return -(-n_bytes // ALIGNMENT) * ALIGNMENT


def read_header(data):
    """Reads what stands before the tensors' data; ValueError when it is no GGUF file of version 3."""
    if bytes(data[:4]) != b"GGUF":
        raise ValueError("not a GGUF file: it does not begin with GGUF")
    reader = Reader(data)
    reader.at = 4
    version, n_tensors, n_metadata = reader.number("I"), reader.number("Q"), reader.number("Q")
    if version != 3:
        raise ValueError(f"GGUF version {version}: only version 3 is read")
    metadata, spans, tensors = [], [], []
    for _ in range(n_metadata):
        start = reader.at
        key, kind = reader.string(), reader.number("I")
        metadata.append((key, kind, reader.value(kind)))
        spans.append((start, reader.at))
    infos_start = reader.at
    for _ in range(n_tensors):
        name, n_dims = reader.string(), reader.number("I")
        shape = tuple(reader.number("Q") for _ in range(n_dims))
        tensors.append(Tensor(name, shape, reader.number("I"), reader.number("Q")))
    infos = (infos_start, reader.at)
    data_start = aligned(reader.at)
    for tensor in tensors:
        tensor.start += data_start
    return Header(metadata, spans, tensors, infos, data_start)


def string_bytes(text):
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def value_bytes(kind, value):
    if kind == STRING:
        return string_bytes(value)
    if kind == ARRAY:
        kind, items = value
        return struct.pack("<IQ", kind, len(items)) + b"".join(value_bytes(kind, item) for item in items)
    return struct.pack("<" + SCALARS[kind], value)


def entry_bytes(key, kind, value):
    return string_bytes(key) + struct.pack("<I", kind) + value_bytes(kind, value)


def header_bytes(metadata, tensors, data_start):
    """Writes a header; `tensors` start where they do in a file whose data begins at `data_start`."""
    parts = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(metadata))]
    parts += [entry_bytes(*entry) for entry in metadata]
    for tensor in tensors:
        parts.append(string_bytes(tensor.name) + struct.pack("<I", len(tensor.shape)))
        parts.append(struct.pack(f"<{len(tensor.shape)}Q", *tensor.shape))
        parts.append(struct.pack("<IQ", tensor.kind, tensor.start - data_start))
    raw = b"".join(parts)
    return raw + bytes(aligned(len(raw)) - len(raw))


def file_bytes(metadata, tensors):
    """Writes a whole file; `tensors` are (name, shape, type, bytes)."""
    infos, data, at = [], [], 0
    for name, shape, kind, raw in tensors:
        infos.append(Tensor(name, shape, kind, at))
        raw = raw + bytes(aligned(len(raw)) - len(raw))
        data.append(raw)
        at += len(raw)
    return header_bytes(metadata, infos, 0) + b"".join(data)

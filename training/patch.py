#!/usr/bin/env python3
"""An adapter as a patch: from the base GGUF to the GGUF that a training made of it.

`patch.py make BASE.gguf RESULT OUT.patch`: RESULT is the folder that train.py wrote.
`patch.py apply BASE.gguf PATCH NEW.gguf`: writes the result, and fails when it is not the one that was made.

A patch is a zip file with deflated entries. `patch.json` holds `format` 1, `base_sha256`, `base_bytes`,
`result_sha256`, `result_bytes` and `ops`, whose outputs one after another are the result:

    {"op": "copy", "offset", "len"}          bytes of the base
    {"op": "insert", "len"}                  bytes of insert.bin
    {"op": "xor", "offset", "len"}           bytes of the base, each xor one of xor.bin
    {"op": "nibbles", "offset", "n_blocks"}  Q4_1 blocks of the base: d and m as they are; to both halves of each of
                                             the 16 bytes the halves of a byte of nibbles.bin are added modulo 16
    {"op": "blocks", "offset", "n_blocks"}   likewise, and d and m move by scales.bin: for the op's d, then for its m,
                                             a plane of low bytes and one of high bytes, [n_blocks] each, of what is
                                             added to the f16's bits modulo 65536, folded so that 0, -1, 1, -2, ...
                                             are written as 0, 1, 2, 3, ...

Offsets are in bytes from the base's beginning. Each op reads its entry on from where the last one stopped.
"""

import hashlib
import json
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np

import blocks
import export
import gguf

FORMAT = 1
NAME = "SmolLM2-135M-Instruct-FIM"
ROLES = {8: ("suf", "<fim_suffix>"), 9: ("pre", "<fim_prefix>"), 10: ("mid", "<fim_middle>")}
ENTRIES = ("insert", "xor", "nibbles", "scales")


def main(words):
    if len(words) == 4 and words[0] == "make":
        base = Path(words[1]).read_bytes()
        patch = difference(base, result_file(base, words[2]))
        write_patch(patch, words[3])
        print(f"{words[3]}: {Path(words[3]).stat().st_size} bytes for a result of {patch['patch']['result_sha256']}")
    elif len(words) == 4 and words[0] == "apply":
        Path(words[3]).write_bytes(apply(Path(words[1]).read_bytes(), read_patch(words[2])))
    else:
        sys.exit(__doc__)


def result_file(base, folder):
    """The whole GGUF that a training's result makes of the base's bytes."""
    result, sections = export.read_result(folder)
    if hashlib.sha256(base).hexdigest() != result["base_sha256"]:
        raise ValueError(f"{folder} belongs to another base: give the file with sha256 {result['base_sha256']}")
    header = gguf.read_header(base)
    data = np.frombuffer(base, dtype=np.uint8).copy()
    put_blocks(data, header, result["matrices"], sections)
    gains, at = sections["gains"], 0
    for name in result["gains"]:
        tensor = header.tensor(name)
        data[tensor.start : tensor.start + tensor.n_bytes] = np.frombuffer(gains, np.uint8)[at : at + tensor.n_bytes]
        at += tensor.n_bytes
    embedding = header.tensor("token_embd.weight")
    start = embedding.start + min(ROLES) * (embedding.n_bytes // embedding.shape[1])
    data[start : start + len(sections["rows"])] = np.frombuffer(sections["rows"], np.uint8)
    new_header = gguf.header_bytes(metadata_of_result(header.metadata), header.tensors, header.data_start)
    return new_header + data[header.data_start :].tobytes()


def put_blocks(data, header, matrices, sections):
    """Moves the matrices' nibbles, and their scales where there are any, in the file's bytes `data`."""
    nibbles = np.frombuffer(sections["nibbles"], np.uint8).reshape(-1, 16)
    n_blocks, at = len(nibbles), 0
    old = [blocks_at(data, header.tensor(name)) for name, _ in matrices]
    scales = None
    if "scales" in sections:
        before = np.concatenate([block[:, :4] for block in old]).view(np.uint16)
        half = 2 * n_blocks
        raw = sections["scales"]
        planes = [blocks.read_scale_delta(raw[i * half : (i + 1) * half], before[:, i]) for i in (0, 1)]
        scales = np.stack(planes, axis=1)
    for (_, n), block in zip(matrices, old):
        block[:, 4:] = blocks.add_nibbles(block[:, 4:], nibbles[at : at + n])
        if scales is not None:
            block[:, :4] = scales[at : at + n].view(np.uint8)
        at += n


def blocks_at(data, tensor):
    """A view of a Q4_1 tensor's bytes, [n_blocks, 20]."""
    return data[tensor.start : tensor.start + tensor.n_bytes].reshape(-1, 20)


def metadata_of_result(metadata):
    """The base's metadata with the three tokens' names and roles, and another name for the model."""
    changed = []
    for key, kind, value in metadata:
        if key == "general.name":
            value = NAME
        if key == "general.finetune":
            value = "FIM"
        if key == "tokenizer.ggml.tokens":
            value = (value[0], [ROLES[i][1] if i in ROLES else text for i, text in enumerate(value[1])])
        changed.append((key, kind, value))
    changed += [(f"tokenizer.ggml.fim_{role}_token_id", gguf.UINT32, i) for i, (role, _) in ROLES.items()]
    changed.append(("tandem.fim_order", gguf.STRING, "spm"))
    return changed


def difference(base, new):
    """The patch from one GGUF file's bytes to another's with the same tensors: a dict of patch.json and entries."""
    old_header, new_header = gguf.read_header(base), gguf.read_header(new)
    ops = Ops()
    header_ops(ops, base, old_header, new, new_header)
    at, shift = old_header.data_start, new_header.data_start - old_header.data_start
    base_bytes, new_bytes = np.frombuffer(base, np.uint8), np.frombuffer(new, np.uint8)
    for tensor in sorted(old_header.tensors, key=lambda tensor: tensor.start):
        ops.copy(at, tensor.start - at)
        at = tensor.start + tensor.n_bytes
        old, changed = base_bytes[tensor.start : at], new_bytes[tensor.start + shift : at + shift]
        if tensor.kind == gguf.Q4_1:
            ops.q4_1(tensor.start, old.reshape(-1, 20), changed.reshape(-1, 20))
        else:
            ops.bytes(tensor.start, old, changed)
    ops.copy(at, len(base) - at)
    patch = {
        "format": FORMAT,
        "base_sha256": hashlib.sha256(base).hexdigest(),
        "base_bytes": len(base),
        "result_sha256": hashlib.sha256(new).hexdigest(),
        "result_bytes": len(new),
        "ops": ops.ops,
    }
    return {"patch": patch} | {name: b"".join(parts) for name, parts in ops.entries.items()}


def header_ops(ops, base, old, new, new_header):
    """Copies what the headers have in common: whole entries of metadata, or their beginnings and ends."""
    spans = {entry[0]: span for entry, span in zip(old.metadata, old.spans)}
    ops.insert(new[:24])
    for (key, _, _), (start, end) in zip(new_header.metadata, new_header.spans):
        old_start, old_end = spans.get(key, (0, 0))
        before, after = base[old_start:old_end], new[start:end]
        n_first = n_common(before, after)
        n_last = n_common(before[n_first:][::-1], after[n_first:][::-1])
        ops.copy(old_start, n_first)
        ops.insert(after[n_first : len(after) - n_last])
        ops.copy(old_end - n_last, n_last)
    if base[slice(*old.infos)] != new[slice(*new_header.infos)]:
        raise ValueError("the two files have other tensors: only their values may differ")
    ops.copy(old.infos[0], old.infos[1] - old.infos[0])
    ops.insert(new[new_header.infos[1] : new_header.data_start])


def n_common(left, right):
    """How many bytes two byte strings begin with alike."""
    n = min(len(left), len(right))
    differs = np.flatnonzero(np.frombuffer(left, np.uint8)[:n] != np.frombuffer(right, np.uint8)[:n])
    return int(differs[0]) if len(differs) else n


class Ops:
    """Operations in the order of their output; neighbours of one kind become one."""

    def __init__(self):
        self.ops, self.entries = [], {name: [] for name in ENTRIES}

    def add(self, op, offset, size_key, size, block_bytes=1):
        last = self.ops[-1] if self.ops else {}
        joins = last.get("op") == op and op != "blocks"
        if joins and (offset is None or last["offset"] + last[size_key] * block_bytes == offset):
            last[size_key] += size
        elif size:
            place = {} if offset is None else {"offset": offset}
            self.ops.append({"op": op} | place | {size_key: size})

    def copy(self, offset, size):
        self.add("copy", offset, "len", size)

    def insert(self, raw):
        self.add("insert", None, "len", len(raw))
        self.entries["insert"].append(bytes(raw))

    def bytes(self, offset, old, new):
        """Copies what is alike before and after the bytes that differ, and xors those."""
        differs = np.flatnonzero(old != new)
        first, end = (int(differs[0]), int(differs[-1]) + 1) if len(differs) else (0, 0)
        self.copy(offset, first)
        self.add("xor", offset + first, "len", end - first)
        self.entries["xor"].append((old[first:end] ^ new[first:end]).tobytes())
        self.copy(offset + end, len(old) - end)

    def q4_1(self, offset, old, new):
        if (old == new).all():
            self.copy(offset, old.size)
            return
        self.entries["nibbles"].append(blocks.subtract_nibbles(new[:, 4:], old[:, 4:]).tobytes())
        if (old[:, :4] == new[:, :4]).all():
            self.add("nibbles", offset, "n_blocks", len(old), 20)
            return
        self.add("blocks", offset, "n_blocks", len(old))
        before, after = (x[:, :4].copy().view(np.uint16) for x in (old, new))
        self.entries["scales"] += [blocks.write_scale_delta(after[:, i], before[:, i]) for i in (0, 1)]


def apply(base, patch):
    """The result's bytes; ValueError when the base is another one, or the result is not what was made."""
    about = patch["patch"]
    if about["format"] != FORMAT:
        raise ValueError(f"a patch of format {about['format']}: only {FORMAT} is read")
    if hashlib.sha256(base).hexdigest() != about["base_sha256"]:
        raise ValueError(f"the patch is for another base: give the file with sha256 {about['base_sha256']}")
    base, taken, parts = np.frombuffer(base, np.uint8), dict.fromkeys(ENTRIES, 0), []

    def take(entry, size):
        taken[entry] += size
        return patch[entry][taken[entry] - size : taken[entry]]

    for op in about["ops"]:
        if op["op"] == "insert":
            parts.append(take("insert", op["len"]))
            continue
        n = op.get("n_blocks", 0)
        old = base[op["offset"] : op["offset"] + op.get("len", 20 * n)]
        if op["op"] == "xor":
            old = old ^ np.frombuffer(take("xor", op["len"]), np.uint8)
        elif op["op"] in ("nibbles", "blocks"):
            old = old.reshape(-1, 20).copy()
            delta = np.frombuffer(take("nibbles", 16 * n), np.uint8).reshape(-1, 16)
            old[:, 4:] = blocks.add_nibbles(old[:, 4:], delta)
            if op["op"] == "blocks":
                before = old[:, :4].copy().view(np.uint16)
                scales = [blocks.read_scale_delta(take("scales", 2 * n), before[:, i]) for i in (0, 1)]
                old[:, :4] = np.stack(scales, axis=1).view(np.uint8)
        elif op["op"] != "copy":
            raise ValueError(f"a patch with an unknown op {op['op']!r}")
        parts.append(old.tobytes())
    result = b"".join(parts)
    if hashlib.sha256(result).hexdigest() != about["result_sha256"]:
        raise ValueError("what the patch makes of the base is not what it was made for: the patch is damaged")
    return result


def write_patch(patch, path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("patch", *ENTRIES):
            # A fixed date, so that the same result makes the same patch.
            info = zipfile.ZipInfo("patch.json" if name == "patch" else f"{name}.bin", (2020, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            raw = json.dumps(patch[name]).encode() if name == "patch" else patch[name]
            info.file_size = len(raw)
            with archive.open(info, "w") as entry:
                # zipfile's own interface does not let the strategy be chosen.
                entry._compressor = blocks.compressor(-zlib.MAX_WBITS)
                entry.write(raw)


def read_patch(path):
    with zipfile.ZipFile(path) as archive:
        patch = {"patch": json.loads(archive.read("patch.json"))}
        return patch | {name: archive.read(f"{name}.bin") for name in ENTRIES}


if __name__ == "__main__":
    main(sys.argv[1:])

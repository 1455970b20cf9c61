#!/usr/bin/env python3
"""Files in pieces of a limited size, for a machine that takes little at a time.

`pack.py make OUT MIB FILE...`: compresses the files and cuts them into OUT/piece-00, piece-01, ... of at most MIB MiB.
`pack.py unpack FOLDER OUT`: makes the files of all pieces in FOLDER again, checks them, and says how long it took.

The pieces one after another are a line of JSON, which names the files with their sizes and sha256 and the chunks'
packed sizes, and the chunks: each an xz stream of 32 MiB of one file, so that all cores work on both ways.
"""

import hashlib
import json
import lzma
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CHUNK_BYTES = 32 << 20
# Token ids are pairs of bytes; a model file is bytes.
FILTERS = {
    ".u16": {"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": CHUNK_BYTES, "lc": 0, "lp": 1, "pb": 1},
    "": {"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": CHUNK_BYTES},
}


def main(words):
    began = time.monotonic()
    if len(words) > 3 and words[0] == "make":
        sizes = make(Path(words[1]), float(words[2]), [Path(word) for word in words[3:]])
        print(f"{len(sizes)} pieces, {sum(sizes)} bytes, {time.monotonic() - began:.1f} s")
    elif len(words) == 3 and words[0] == "unpack":
        names = unpack(Path(words[1]), Path(words[2]))
        print(f"unpacked {', '.join(names)}: {time.monotonic() - began:.1f} s")
    else:
        sys.exit(__doc__)


def make(folder, piece_mib, paths):
    """Writes the pieces; returns their sizes in bytes."""
    chunks, files = [], []
    for path in paths:
        raw = path.read_bytes()
        parts = [raw[at : at + CHUNK_BYTES] for at in range(0, len(raw), CHUNK_BYTES)]
        files.append({"name": path.name, "n_bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()})
        files[-1]["n_chunks"] = len(parts)
        chunks += [(part, FILTERS.get(path.suffix, FILTERS[""])) for part in parts]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        packed = list(pool.map(lambda chunk: lzma.compress(chunk[0], filters=[chunk[1]]), chunks))
    index = {"files": files, "chunks": [len(chunk) for chunk in packed]}
    content = json.dumps(index).encode() + b"\n" + b"".join(packed)
    size = int(piece_mib * 2**20)
    pieces = [content[at : at + size] for at in range(0, len(content), size)]
    folder.mkdir(parents=True, exist_ok=True)
    for idx, piece in enumerate(pieces):
        (folder / f"piece-{idx:02}").write_bytes(piece)
    return [len(piece) for piece in pieces]


def unpack(folder, out):
    """Makes the files again; returns their names. ValueError when a piece is missing or damaged."""
    content = b"".join(path.read_bytes() for path in sorted(folder.glob("piece-*")))
    end = content.find(b"\n")
    if end < 0:
        raise ValueError(f"{folder} holds no first piece: copy piece-00 there too")
    index, at = json.loads(content[:end]), end + 1
    if len(content) - at != sum(index["chunks"]):
        raise ValueError(f"{folder} does not hold all pieces: {len(content) - at} bytes of {sum(index['chunks'])}")
    chunks = []
    for size in index["chunks"]:
        chunks.append(content[at : at + size])
        at += size
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = iter(list(pool.map(lzma.decompress, chunks)))
    out.mkdir(parents=True, exist_ok=True)
    for file in index["files"]:
        raw = b"".join(next(parts) for _ in range(file["n_chunks"]))
        if hashlib.sha256(raw).hexdigest() != file["sha256"]:
            raise ValueError(f"{file['name']} came out otherwise than it went in: pack it again")
        (out / file["name"]).write_bytes(raw)
    return [file["name"] for file in index["files"]]


if __name__ == "__main__":
    main(sys.argv[1:])

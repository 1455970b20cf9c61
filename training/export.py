"""A training's result on its way to `patch.py`: what differs from the base's blocks, compressed.

In: `Weights`. Out: `result.json` and `result-N.zlib` in a folder: one zlib stream, cut anywhere, whose content is the
sections that result.json names. Sections: `nibbles`, what is added to each weight's q, as Q4_1 packs them; `scales`,
how d and m moved (see blocks.py), if they did; `gains`, f32; `rows`, the Q8_0 bytes of three rows of the embedding.
"""

import hashlib
import json
import zlib
from pathlib import Path

import numpy as np

import blocks

MOST_BYTES = 15 << 20


def write_result(weights, base_sha256, folder):
    """Writes the trained model's difference to the base; returns what it holds, as result.json says it."""
    base = weights.base
    q, d, m, gains, rows = weights.shipped()
    sections = {"nibbles": blocks.subtract_nibbles(blocks.pack(q), blocks.pack(base.q)).tobytes()}
    if weights.mode != "grid":
        pairs = ((d, base.d), (m, base.m))
        sections["scales"] = b"".join(blocks.write_scale_delta(x.view(np.uint16), y.view(np.uint16)) for x, y in pairs)
    sections |= {"gains": gains.tobytes(), "rows": rows}
    content = b"".join(sections.values())
    compressor = blocks.compressor(zlib.MAX_WBITS)
    packed = compressor.compress(content) + compressor.flush()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for idx, at in enumerate(range(0, len(packed), MOST_BYTES)):
        names.append(f"result-{idx}.zlib")
        (folder / names[-1]).write_bytes(packed[at : at + MOST_BYTES])
    result = {
        "mode": weights.mode,
        "n_steps": weights.n_steps,
        "base_sha256": base_sha256,
        "files": names,
        "n_bytes": len(packed),
        "sha256": hashlib.sha256(content).hexdigest(),
        "sections": {name: len(section) for name, section in sections.items()},
        "matrices": [[name, n_out * n_in // blocks.N_WEIGHTS] for name, n_out, n_in in base.matrices],
        "gains": base.gain_names,
        "changed": float((q != base.q).mean()),
    }
    (folder / "result.json").write_text(json.dumps(result) + "\n")
    return result


def read_result(folder):
    """Returns result.json and the sections by name; ValueError when the files are not whole."""
    folder = Path(folder)
    result = json.loads((folder / "result.json").read_text())
    content = zlib.decompress(b"".join((folder / name).read_bytes() for name in result["files"]))
    if hashlib.sha256(content).hexdigest() != result["sha256"]:
        raise ValueError(f"{folder}: the result's files do not belong to its result.json: copy all of them again")
    sections, at = {}, 0
    for name, size in result["sections"].items():
        sections[name] = content[at : at + size]
        at += size
    return result, sections

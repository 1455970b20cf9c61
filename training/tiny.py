"""A model of two layers and documents of counting numbers: all of the training on a CPU, in some seconds.

In: nothing. Out: a falling loss in every mode, and a patched file whose weights are the trained ones bit for bit.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import torch

import blocks
import patch
from documents import MIDDLE, PREFIX, SUFFIX, TURN
from random_model import N_VOCAB, SMOLLM2_135M, TINY, base_file

N_STEPS = 60


def write_documents(folder, split, n_docs, seed, longest=120):
    """Documents of every kind, which count up from a random number: what is asked for can be known."""
    rng = np.random.default_rng(seed)
    tokens, lengths = [], []
    for _ in range(n_docs):
        n, kind = int(rng.integers(24, longest)), rng.integers(4)
        count = (17 + (rng.integers(N_VOCAB) + np.arange(n)) % (N_VOCAB - 17)).tolist()
        a, b = sorted(rng.choice(np.arange(4, n - 4), 2, replace=False))
        before, middle, after = count[:a], count[a:b], count[b:]
        doc, n_target = [
            ([SUFFIX, *after, PREFIX, *before, *middle, 0], len(middle) + 1),
            ([PREFIX, *before, SUFFIX, *after, MIDDLE, *middle, 0], len(middle) + 1),
            ([TURN, *count, 0], n // 2),
            ([*count, 0], n + 1),
        ][kind]
        tokens += doc
        lengths.append((len(doc), n_target))
    np.array(tokens, dtype="<u2").tofile(folder / f"{split}-256.u16")
    np.array(lengths, dtype="<u2").tofile(folder / f"{split}-256.len.u16")


def write_all(folder, sizes=TINY, n_docs=4000, longest=120):
    """Writes a base and documents for `train.py --base FOLDER/base.gguf --data FOLDER`."""
    (folder / "base.gguf").write_bytes(base_file(sizes=sizes))
    write_documents(folder, "train", n_docs, seed=1, longest=longest)
    write_documents(folder, "valid", 60, seed=2, longest=longest)


def trained(folder, modes):
    """Trains in `folder`; returns the summary and the trained weights."""
    import train

    folder = Path(folder)
    write_all(folder)
    words = f"--base {folder}/base.gguf --data {folder} --out {folder}/out --modes {modes} --seconds 1e9 --bake 1e9"
    words += f" --batch 1024 --accum 2 --max-steps {N_STEPS} --valid-docs 60 --lr-grid 0.1 --lr-scales 0.02"
    words += " --device cpu --dtype float32 --no-compile"
    return train.run_all(train.arguments(words.split()))


def probe(folder):
    """Writes a random model of SmolLM2-135M's sizes, to see on a GPU how fast training runs, and in what memory."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_all(folder, SMOLLM2_135M, n_docs=20000, longest=1000)


def patched(folder):
    """Makes the patch of what was trained in `folder`, and applies it; returns the new file's bytes."""
    folder = Path(folder)
    patch.main(["make", f"{folder}/base.gguf", f"{folder}/out", f"{folder}/out.patch"])
    patch.main(["apply", f"{folder}/base.gguf", f"{folder}/out.patch", f"{folder}/new.gguf"])
    return (folder / "new.gguf").read_bytes()


def main():
    """Returns the exit status: 0 when all was as it should be."""
    from model import read_base

    # More threads than a busy machine's idle cores make steps this small many times slower.
    torch.set_num_threads(1)
    torch.manual_seed(0)
    faults = []
    with tempfile.TemporaryDirectory() as folder:
        for modes in ("grid,scales,both", "scales"):
            summary, weights = trained(folder, modes)
            before, after = summary["before"]["fim"]["nll"], summary["after"]["fim"]["nll"]
            if not after < 0.8 * before:
                faults.append(f"{weights.mode}: the loss fell from {before} to {after} only")
            new = read_base(patched(folder))
            shipped = blocks.weights_q4_1(new.q, new.d, new.m)
            if not np.array_equal(shipped, weights.out.numpy()):
                faults.append(f"{weights.mode}: the patched file's weights are not the trained ones")
            if not np.array_equal(new.gains, weights.gains.numpy()):
                faults.append(f"{weights.mode}: the patched file's norms are not the trained ones")
            share = summary["result"]["changed"]
            print(f"{weights.mode}: loss {before} to {after}; changed {share:.3f} of the weights")
    print(json.dumps({"faults": faults}))
    return 1 if faults else 0

#!/usr/bin/env python3
"""Says how well GGUF models continue plain texts: whether an adapter has cost the model something.

In: models, and texts (files, or folders of them). Out: each model's loss a token and by how much it differs from the
first model's. Needs llama-cpp-python, which reads the models independently of Tandem.
"""

import argparse
import pathlib

import llama_cpp
import numpy

# Tokens that are seen together. All but the first count, so that short and long contexts are in the loss.
N_WINDOW = 512


def windows(llm, texts):
    for text in texts:
        tokens = llm.tokenize(text.encode(), add_bos=False, special=False)
        for start in range(0, len(tokens) - 16, N_WINDOW):
            yield tokens[start : start + N_WINDOW]


def loss(path, texts):
    """The mean of minus the natural logarithm of each token's probability, and of how many."""
    llm = llama_cpp.Llama(str(path), n_ctx=N_WINDOW, n_batch=N_WINDOW, logits_all=True, verbose=False)
    total, n_tokens = 0.0, 0
    for tokens in windows(llm, texts):
        llm.reset()
        llm.eval(tokens)
        logits = numpy.array(llm.scores[: len(tokens) - 1], dtype=numpy.float64)
        logits -= logits.max(axis=1, keepdims=True)
        of_next = logits[numpy.arange(len(tokens) - 1), tokens[1:]]
        total += float((numpy.log(numpy.exp(logits).sum(axis=1)) - of_next).sum())
        n_tokens += len(tokens) - 1
    return total / n_tokens, n_tokens


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", type=pathlib.Path, required=True)
    parser.add_argument("texts", nargs="+", type=pathlib.Path)
    arguments = parser.parse_args()
    files = [file for path in arguments.texts for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    texts = [file.read_text(errors="replace") for file in files if file.is_file()]
    if not any(len(text) > 64 for text in texts):
        raise SystemExit("error: there is no text to continue")
    first = None
    for path in arguments.models:
        mean, n_tokens = loss(path, texts)
        first = mean if first is None else first
        print(f"{path.name}: {mean:.4f} a token over {n_tokens} tokens, {100 * (mean / first - 1):+.2f} %", flush=True)


if __name__ == "__main__":
    main()

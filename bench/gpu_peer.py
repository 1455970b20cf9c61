#!/usr/bin/env python3
"""What PyTorch and transformers make of the shapes that `agent bench gpu` measures: random weights, bf16.

Decodes with a static cache, as a recorded CUDA graph where that works, else launch by launch, and says which. Needs torch
and transformers and a GPU; prints a line of JSON for each measurement.
"""

import argparse
import json
import time

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM, StaticCache

SHAPES = {"1.5b-16": (1536, 8960, 12, 2), "7b-16": (3584, 18944, 28, 4)}
BATCHES = (1, 8, 32)
N_STEPS = 48
DEPTH = 128
PROMPTS = (512, 2048)


def build(shape):
    """Returns a model of a shape on the GPU, made there."""
    n_embd, n_ff, n_heads, n_kv_heads = shape
    config = Qwen2Config(
        vocab_size=151_936, hidden_size=n_embd, intermediate_size=n_ff, num_hidden_layers=28, num_attention_heads=n_heads,
        num_key_value_heads=n_kv_heads, max_position_embeddings=32_768, tie_word_embeddings=False)
    config._attn_implementation = "sdpa"
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("meta"):
        model = Qwen2ForCausalLM(config)
    model = model.to_empty(device="cuda").eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.fill_(1.0) if "norm" in name else weight.normal_(0.0, weight.shape[-1] ** -0.5)
    # What is computed from the configuration has no values after `to_empty`.
    for module in model.modules():
        if hasattr(module, "inv_freq"):
            inverse = 1.0 / (1e6 ** (torch.arange(0, 128, 2, device="cuda", dtype=torch.float32) / 128))
            module.inv_freq = inverse
            if hasattr(module, "original_inv_freq"):
                module.original_inv_freq = inverse
    return model, config


def seconds(run, n):
    """Returns the seconds of one of `n` runs."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(n):
        run()
    torch.cuda.synchronize()
    return (time.perf_counter() - started) / n


def decode(model, config, n_sequences):
    """Returns the seconds of a step, and how it was launched."""
    cache = StaticCache(config=config, max_batch_size=n_sequences, max_cache_len=512, device="cuda", dtype=torch.bfloat16)
    prompt = torch.randint(0, 151_936, (n_sequences, DEPTH), device="cuda")
    model(prompt, past_key_values=cache, cache_position=torch.arange(DEPTH, device="cuda"), use_cache=True, logits_to_keep=1)
    token = torch.zeros((n_sequences, 1), dtype=torch.long, device="cuda")
    at = torch.full((1,), DEPTH, dtype=torch.long, device="cuda")

    def step():
        positions = at.unsqueeze(0).expand(n_sequences, 1)
        logits = model(token, past_key_values=cache, cache_position=at, position_ids=positions, use_cache=True).logits
        token.copy_(logits[:, -1].argmax(-1, keepdim=True))
        at.add_(1)

    for _ in range(3):
        step()
    eager = seconds(step, N_STEPS)
    yield "eager", eager
    at.fill_(DEPTH)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(2):
            step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    at.fill_(DEPTH)
    graph.replay()
    yield "graph", seconds(graph.replay, N_STEPS)


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="after which nothing new is begun")
    end = time.monotonic() + parser.parse_args().seconds

    def tell(**values):
        print(json.dumps({"peer": "transformers", **values}), flush=True)

    for name in ("7b-16", "1.5b-16"):
        if time.monotonic() > end - 15:
            break
        try:
            model, config = build(SHAPES[name])
        except Exception as error:  # The other shape may still work.
            tell(model=name, error=repr(error)[:300])
            continue
        for n_sequences in BATCHES:
            if time.monotonic() > end:
                break
            try:
                for how, took in decode(model, config, n_sequences):
                    tell(model=name, decode_batch=n_sequences, launched=how, ms_per_step=1e3 * took,
                         tokens_per_second=n_sequences / took)
            except Exception as error:
                tell(model=name, decode_batch=n_sequences, error=repr(error)[:300])
        for n_tokens in PROMPTS:
            if time.monotonic() > end:
                break
            try:
                prompt = torch.randint(0, 151_936, (1, n_tokens), device="cuda")
                model(prompt, logits_to_keep=1)
                took = seconds(lambda: model(prompt, logits_to_keep=1), 3)
                tell(model=name, prefill=n_tokens, ms=1e3 * took, tokens_per_second=n_tokens / took)
            except Exception as error:
                tell(model=name, prefill=n_tokens, error=repr(error)[:300])
        del model
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Measures `agent bench` beside llama.cpp: the same file, the same threads, one run of each in turn.

In: the `agent` binary in TANDEM_AGENT (a release build), a GGUF file in TANDEM_TEST_MODEL.
Out: bench/runs/DATE-NAME/{setup.md,raw.csv,summary.md}; the summary also on stdout.
Needs: llama-cpp-python (which builds llama.cpp for the machine) and gguf in the Python that runs it;
`cargo xtask bench peers` installs both.

Prefill, decoding and verifying are llama.cpp's own `llama_decode` calls, with flash attention and all cores, without
sampling or copies of the logits. Other formats are made from the file by llama.cpp's quantiser; the formats with blocks
of 256 from random weights of a larger shape, because the default model's rows do not divide by 256: a few layers of
Qwen2.5-1.5B, and of Qwen3-30B-A3B, which is a mixture of experts.
"""

import argparse
import csv
import dataclasses
import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess
import tempfile
import time

import gguf
import llama_cpp
import numpy

PP, TG = 512, 64
ROWS = [1, 2, 3, 4, 6, 8, 12, 16]
OF_MODEL = {"Q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0, "Q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0}
OF_RANDOM = {
    "Q4_K": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_S,
    "Q5_K": llama_cpp.LLAMA_FTYPE_MOSTLY_Q5_K_S,
    "Q6_K": llama_cpp.LLAMA_FTYPE_MOSTLY_Q6_K,
    "F16": None,
}
MIXTURE = "mixture"


@dataclasses.dataclass
class Shape:
    """A decoder; of its layers only a few are made."""

    architecture: str
    n_layers: int
    n_embd: int
    n_ff: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    n_experts: int = 0
    n_used: int = 0


DENSE = Shape("qwen2", 4, 1536, 8960, 12, 2, 128)
OF_EXPERTS = Shape("qwen3moe", 2, 2048, 768, 32, 4, 128, 128, 8)


class Peer:
    """llama.cpp with one model."""

    def __init__(self, path, n_threads, n_ctx):
        self.llm = llama_cpp.Llama(
            str(path), n_ctx=n_ctx, n_batch=512, n_ubatch=512, n_threads=n_threads, n_threads_batch=n_threads,
            flash_attn=True, logits_all=True, verbose=False,
        )

    def decode(self, n_tokens, n_past, logits_all=False):
        vocabulary = self.llm.n_vocab()
        tokens = [position * 7919 % vocabulary for position in range(n_past, n_past + n_tokens)]
        self.llm._batch.set_batch(batch=tokens, n_past=n_past, logits_all=logits_all)
        started = time.perf_counter()
        self.llm._ctx.decode(self.llm._batch)
        return time.perf_counter() - started

    def go_to(self, depth):
        self.llm._ctx.kv_cache_clear()
        for start in range(0, depth, 512):
            self.decode(min(512, depth - start), start)

    def prefill(self, depth):
        self.go_to(depth)
        return self.decode(PP, depth)

    def generate(self, depth):
        self.go_to(depth)
        return sum(self.decode(1, position) for position in range(depth, depth + TG))

    def verify(self, n_rows):
        self.go_to(0)
        return self.decode(n_rows, 0, logits_all=True)


def ours(agent, path, depths):
    """One run of each measurement, in seconds, by (name, depth)."""
    command = [agent, "bench", "--model", str(path), "--repeat", "1", "--pp", str(PP), "--tg", str(TG)]
    command += ["--rows", str(max(ROWS)), "--depth", ",".join(map(str, depths)), "--format", "json"]
    result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    runs = {(one["name"], one["depth"]): one["ms"] / 1e3 for one in result["measured"]}
    return runs, result


def quantised(source, ftype, path):
    if ftype is None:
        return source
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = ftype
    params.allow_requantize = True
    if llama_cpp.llama_model_quantize(str(source).encode(), str(path).encode(), params) != 0:
        raise SystemExit(f"llama.cpp could not make {path}")
    return path


def write_random(source, path, shape):
    """A decoder of random f16 weights with the tokenizer of `source`."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(path, shape.architecture)
    for field in reader.fields.values():
        if field.name.startswith("tokenizer."):
            sub_type = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=sub_type)
    writer.add_context_length(8192)
    writer.add_embedding_length(shape.n_embd)
    writer.add_block_count(shape.n_layers)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.n_heads)
    writer.add_head_count_kv(shape.n_kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(1e6)
    writer.add_layer_norm_rms_eps(1e-6)
    if shape.n_experts:
        writer.add_expert_count(shape.n_experts)
        writer.add_expert_used_count(shape.n_used)
        writer.add_expert_feed_forward_length(shape.n_ff)
    n_vocab = len(reader.fields["tokenizer.ggml.tokens"].data)
    random = numpy.random.default_rng(0)

    def matrix(name, *dims, dtype=numpy.float16):
        weights = random.standard_normal(dims, dtype=numpy.float32)
        writer.add_tensor(f"{name}.weight", (weights / dims[-1] ** 0.5).astype(dtype))

    def ones(name, n, part="weight"):
        writer.add_tensor(f"{name}.{part}", numpy.ones(n, numpy.float32))

    n_q, n_kv = shape.n_heads * shape.head_dim, shape.n_kv_heads * shape.head_dim
    matrix("token_embd", n_vocab, shape.n_embd)
    ones("output_norm", shape.n_embd)
    for layer in range(shape.n_layers):
        name = f"blk.{layer}"
        ones(f"{name}.attn_norm", shape.n_embd)
        ones(f"{name}.ffn_norm", shape.n_embd)
        for part, n_out in [("q", n_q), ("k", n_kv), ("v", n_kv)]:
            matrix(f"{name}.attn_{part}", n_out, shape.n_embd)
            if shape.architecture == "qwen2":
                ones(f"{name}.attn_{part}", n_out, "bias")
            elif part != "v":
                ones(f"{name}.attn_{part}_norm", shape.head_dim)
        matrix(f"{name}.attn_output", shape.n_embd, n_q)
        experts, suffix = ([shape.n_experts], "_exps") if shape.n_experts else ([], "")
        if shape.n_experts:
            matrix(f"{name}.ffn_gate_inp", shape.n_experts, shape.n_embd, dtype=numpy.float32)
        matrix(f"{name}.ffn_gate{suffix}", *experts, shape.n_ff, shape.n_embd)
        matrix(f"{name}.ffn_up{suffix}", *experts, shape.n_ff, shape.n_embd)
        matrix(f"{name}.ffn_down{suffix}", *experts, shape.n_embd, shape.n_ff)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def models(source, folder, wanted):
    """Files to measure, by format."""
    files = {"Q4_1": pathlib.Path(source)}
    for name, ftype in OF_MODEL.items():
        if name in wanted:
            files[name] = quantised(source, ftype, folder / f"{name}.gguf")
    if any(name in wanted for name in OF_RANDOM):
        write_random(source, folder / "random.gguf", DENSE)
    for name, ftype in OF_RANDOM.items():
        if name in wanted:
            files[f"{name}, {DENSE.n_embd} wide"] = quantised(folder / "random.gguf", ftype, folder / f"{name}.gguf")
    if MIXTURE in wanted:
        write_random(source, folder / "experts.gguf", OF_EXPERTS)
        path = folder / f"{MIXTURE}.gguf"
        files[f"{MIXTURE}, Q4_K"] = quantised(folder / "experts.gguf", llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_S, path)
        (folder / "experts.gguf").unlink()
    return {name: path for name, path in files.items() if name.split(",")[0] in wanted}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--depths", type=int, nargs="*", default=[0, 1024])
    parser.add_argument("--formats", nargs="*", default=["Q4_1", *OF_MODEL, *OF_RANDOM, MIXTURE])
    parser.add_argument("--name", default=platform.machine(), help="the machine, for the folder's name")
    args = parser.parse_args()
    agent, model = os.environ["TANDEM_AGENT"], os.environ["TANDEM_TEST_MODEL"]
    n_threads = os.cpu_count()
    rows, sizes, peaks = [], {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for format_name, path in models(model, pathlib.Path(folder), args.formats).items():
            peer = Peer(path, n_threads, max(args.depths) + PP + TG)
            peer.prefill(0)
            for run in range(1, args.runs + 1):
                measured, result = ours(agent, path, args.depths)
                sizes[format_name] = result["weight_bytes"]
                peaks[format_name] = result["peak_memory_bytes"], path.stat().st_size
                for (name, depth), seconds in measured.items():
                    rows.append((format_name, name, depth, run, "tandem", seconds))
                for depth in args.depths:
                    rows.append((format_name, f"pp{PP}", depth, run, "llama.cpp", peer.prefill(depth)))
                    rows.append((format_name, f"tg{TG}", depth, run, "llama.cpp", peer.generate(depth)))
                for n_rows in ROWS:
                    rows.append((format_name, f"T({n_rows})", 0, run, "llama.cpp", peer.verify(n_rows)))
            del peer
    write(args, rows, sizes, peaks, n_threads)


def summary_of(args, rows, sizes, peaks):
    def median(*key):
        return statistics.median(row[5] for row in rows if row[:3] == key[:3] and row[4] == key[3])

    lines = ["| format | | depth | tandem t/s | llama.cpp t/s | ratio |", "|---|---|---|---|---|---|"]
    for format_name in sizes:
        for name, n_tokens in [(f"pp{PP}", PP), (f"tg{TG}", TG)]:
            for depth in args.depths:
                mine, theirs = (median(format_name, name, depth, engine) for engine in ("tandem", "llama.cpp"))
                rates = f"{n_tokens / mine:.0f} | {n_tokens / theirs:.0f} | {theirs / mine:.2f}"
                lines.append(f"| {format_name} | {name} | {depth} | {rates} |")
    lines += ["", "Milliseconds of one step of m rows with all logits, and how many times T(1) that is:", ""]
    lines.append("| format | engine | " + " | ".join(f"T({n})" for n in ROWS) + " |")
    lines.append("|---|---|" + "---|" * len(ROWS))
    for format_name in sizes:
        for engine in ("tandem", "llama.cpp"):
            times = [median(format_name, f"T({n})", 0, engine) for n in ROWS]
            cells = [f"{1e3 * seconds:.2f} ({seconds / times[0]:.2f})" for seconds in times]
            lines.append(f"| {format_name} | {engine} | " + " | ".join(cells) + " |")
    lines += ["", "What decoding (tg at depth 0) reads of the weights, beside a loop that only reads them (median of nine):", ""]
    lines += ["| format | MB | read GB/s | decoding GB/s | share |", "|---|---|---|---|---|"]
    # Of a mixture a step reads a few experts only.
    for format_name, n_bytes in ((name, n) for name, n in sizes.items() if not name.startswith(MIXTURE)):
        read = n_bytes / median(format_name, "read", 0, "tandem") / 1e9
        decoded = n_bytes * TG / median(format_name, f"tg{TG}", 0, "tandem") / 1e9
        lines.append(f"| {format_name} | {n_bytes / 1e6:.0f} | {read:.1f} | {decoded:.1f} | {decoded / read:.0%} |")
    lines += ["", f"Loading, and the most memory a run had (it goes to depth {max(args.depths) + PP}):", ""]
    lines += ["| format | file MB | load ms | peak MB |", "|---|---|---|---|"]
    for format_name, (peak, n_bytes) in peaks.items():
        load = median(format_name, "load", 0, "tandem")
        lines.append(f"| {format_name} | {n_bytes / 1e6:.0f} | {1e3 * load:.0f} | {(peak or 0) / 1e6:.0f} |")
    return f"Medians of {args.runs}, interleaved.\n\n" + "\n".join(lines) + "\n"


def write(args, rows, sizes, peaks, n_threads):
    root = pathlib.Path(__file__).parent / "runs" / f"{datetime.date.today()}-{args.name}"
    root.mkdir(parents=True, exist_ok=True)
    with open(root / "raw.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["format", "name", "depth", "run", "engine", "seconds"])
        writer.writerows((*row[:5], f"{row[5]:.6f}") for row in rows)
    summary = summary_of(args, rows, sizes, peaks)
    (root / "summary.md").write_text(summary)
    info = {line.split(":")[0].strip(): line.split(":")[1].strip() for line in open("/proc/cpuinfo") if ":" in line}
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    (root / "setup.md").write_text(
        f"- machine: {info.get('model name')}, {n_threads} cores\n"
        f"- tandem: {commit}, release build, {n_threads} threads, TANDEM_ISA={os.environ.get('TANDEM_ISA', '')}\n"
        f"- llama.cpp: llama-cpp-python {llama_cpp.__version__} built here, flash attention on, {n_threads} threads\n"
        f"- its system: {llama_cpp.llama_print_system_info().decode().strip()}\n"
        f"- model: SmolLM2-135M-Instruct.Q4_1.gguf; Q4_0 and Q8_0 requantised from it by llama.cpp; those\n"
        f"  {DENSE.n_embd} wide are {DENSE.n_layers} layers of Qwen2.5-1.5B's shape, the mixture {OF_EXPERTS.n_layers} of Qwen3-30B-A3B's,\n"
        f"  of random weights\n"
    )
    print(summary)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Measures `agent bench` beside llama.cpp: the same file, the same threads, one run of each in turn.

In: the `agent` binary in TANDEM_AGENT (a release build), a GGUF file in TANDEM_TEST_MODEL.
Out: bench/runs/DATE-NAME/{setup.md,raw.csv,summary.md}; the summary also on stdout.
Needs: llama-cpp-python (which builds llama.cpp for the machine) and gguf in the Python that runs it;
`cargo xtask bench peers` installs both.

Prefill, decoding and verifying are llama.cpp's own `llama_decode` calls, with flash attention and all cores, without
sampling or copies of the logits. Other formats are made from the file by llama.cpp's quantiser; the formats with blocks
of 256 from random weights of a larger shape, because the default model's rows do not divide by 256.
"""

import argparse
import csv
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
# The shape of Qwen2.5-1.5B, with 4 of its 28 layers.
N_LAYERS, N_EMBD, N_FF, N_HEADS, N_KV_HEADS = 4, 1536, 8960, 12, 2


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


def write_random(source, path):
    """A Llama of random f16 weights with the tokenizer of `source`."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(path, "llama")
    for field in reader.fields.values():
        if field.name.startswith("tokenizer."):
            sub_type = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=sub_type)
    writer.add_context_length(8192)
    writer.add_embedding_length(N_EMBD)
    writer.add_block_count(N_LAYERS)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(N_HEADS)
    writer.add_head_count_kv(N_KV_HEADS)
    writer.add_rope_dimension_count(N_EMBD // N_HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    n_vocab = len(reader.fields["tokenizer.ggml.tokens"].data)
    random = numpy.random.default_rng(0)

    def matrix(name, n_out, n_in):
        weights = random.standard_normal((n_out, n_in), dtype=numpy.float32) / n_in**0.5
        writer.add_tensor(f"{name}.weight", weights.astype(numpy.float16))

    def norm(name):
        writer.add_tensor(f"{name}.weight", numpy.ones(N_EMBD, numpy.float32))

    n_kv = N_KV_HEADS * N_EMBD // N_HEADS
    matrix("token_embd", n_vocab, N_EMBD)
    norm("output_norm")
    for layer in range(N_LAYERS):
        norm(f"blk.{layer}.attn_norm")
        norm(f"blk.{layer}.ffn_norm")
        for part, n_out in [("attn_q", N_EMBD), ("attn_k", n_kv), ("attn_v", n_kv), ("attn_output", N_EMBD)]:
            matrix(f"blk.{layer}.{part}", n_out, N_EMBD)
        for part, n_out, n_in in [("gate", N_FF, N_EMBD), ("up", N_FF, N_EMBD), ("down", N_EMBD, N_FF)]:
            matrix(f"blk.{layer}.ffn_{part}", n_out, n_in)
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
        write_random(source, folder / "random.gguf")
    for name, ftype in OF_RANDOM.items():
        if name in wanted:
            files[f"{name}, 1536 wide"] = quantised(folder / "random.gguf", ftype, folder / f"{name}.gguf")
    return {name: path for name, path in files.items() if name.split(",")[0] in wanted}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--depths", type=int, nargs="*", default=[0, 1024])
    parser.add_argument("--formats", nargs="*", default=["Q4_1", *OF_MODEL, *OF_RANDOM])
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
    for format_name, n_bytes in sizes.items():
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
        f"- model: SmolLM2-135M-Instruct.Q4_1.gguf; Q4_0 and Q8_0 requantised from it by llama.cpp; those 1536 wide\n"
        f"  are {N_LAYERS} layers of random weights\n"
    )
    print(summary)


if __name__ == "__main__":
    main()

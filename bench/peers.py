#!/usr/bin/env python3
"""Measures `agent bench` beside llama.cpp: the same file, the same threads, one run of each in turn.

In: the `agent` binary in TANDEM_AGENT (a release build), a GGUF file in TANDEM_TEST_MODEL.
Out: bench/runs/DATE-NAME/{setup.md,raw.csv,summary.md}; the summary also on stdout.
Needs: `pip install llama-cpp-python` into the Python that runs it, which builds llama.cpp for the machine.

Prefill and decoding are llama.cpp's own `llama_decode` calls, with flash attention and all cores, without sampling or
copies of the logits. Other formats are made from the file by llama.cpp's quantiser.
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

import llama_cpp

PP, TG = 512, 64
FORMATS = {"q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0, "q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0}


class Peer:
    """llama.cpp with one model."""

    def __init__(self, path, n_threads, n_ctx):
        self.llm = llama_cpp.Llama(
            str(path), n_ctx=n_ctx, n_batch=512, n_ubatch=512, n_threads=n_threads, n_threads_batch=n_threads,
            flash_attn=True, verbose=False,
        )

    def decode(self, n_tokens, n_past):
        vocabulary = self.llm.n_vocab()
        tokens = [position * 7919 % vocabulary for position in range(n_past, n_past + n_tokens)]
        self.llm._batch.set_batch(batch=tokens, n_past=n_past, logits_all=False)
        self.llm._ctx.decode(self.llm._batch)

    def go_to(self, depth):
        self.llm._ctx.kv_cache_clear()
        for start in range(0, depth, 512):
            self.decode(min(512, depth - start), start)

    def prefill(self, depth):
        self.go_to(depth)
        started = time.perf_counter()
        self.decode(PP, depth)
        return time.perf_counter() - started

    def generate(self, depth):
        self.go_to(depth)
        started = time.perf_counter()
        for position in range(depth, depth + TG):
            self.decode(1, position)
        return time.perf_counter() - started


def ours(agent, path, depths):
    """One run of each measurement, in seconds, by (name, depth)."""
    command = [agent, "bench", "--model", str(path), "--repeat", "1", "--rows", "0", "--pp", str(PP), "--tg", str(TG)]
    command += ["--depth", ",".join(map(str, depths)), "--format", "json"]
    result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {(one["name"], one["depth"]): one["runs_ms"][0] / 1e3 for one in result["measured"]}


def requantised(source, folder):
    """The file in other formats, by name; the file itself under the name its own format has."""
    files = {"as it is": pathlib.Path(source)}
    for name, ftype in FORMATS.items():
        params = llama_cpp.llama_model_quantize_default_params()
        params.ftype = ftype
        params.allow_requantize = True
        path = pathlib.Path(folder) / f"{name}.gguf"
        if llama_cpp.llama_model_quantize(str(source).encode(), str(path).encode(), params) != 0:
            raise SystemExit(f"llama.cpp could not make {name}")
        files[name] = path
    return files


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--depths", type=int, nargs="*", default=[0, 1024])
    parser.add_argument("--name", default=platform.machine(), help="the machine, for the folder's name")
    args = parser.parse_args()
    agent, model = os.environ["TANDEM_AGENT"], os.environ["TANDEM_TEST_MODEL"]
    n_threads = os.cpu_count()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for format_name, path in requantised(model, folder).items():
            peer = Peer(path, n_threads, max(args.depths) + PP + TG)
            peer.prefill(0)
            for run in range(1, args.runs + 1):
                for (name, depth), seconds in ours(agent, path, args.depths).items():
                    rows.append((format_name, name, depth, run, "tandem", seconds))
                for depth in args.depths:
                    rows.append((format_name, f"pp{PP}", depth, run, "llama.cpp", peer.prefill(depth)))
                    rows.append((format_name, f"tg{TG}", depth, run, "llama.cpp", peer.generate(depth)))
            del peer
    write(args, rows, n_threads)


def write(args, rows, n_threads):
    root = pathlib.Path(__file__).parent / "runs" / f"{datetime.date.today()}-{args.name}"
    root.mkdir(parents=True, exist_ok=True)
    with open(root / "raw.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["format", "name", "depth", "run", "engine", "seconds"])
        writer.writerows((*row[:5], f"{row[5]:.6f}") for row in rows)
    lines = ["| format | | depth | tandem t/s | llama.cpp t/s | ratio |", "|---|---|---|---|---|---|"]
    for key in dict.fromkeys(row[:3] for row in rows):
        n_tokens = int(key[1][2:])
        rate = {
            engine: n_tokens / statistics.median(row[5] for row in rows if row[:3] == key and row[4] == engine)
            for engine in ("tandem", "llama.cpp")
        }
        ratio = rate["tandem"] / rate["llama.cpp"]
        lines.append(f"| {key[0]} | {key[1]} | {key[2]} | {rate['tandem']:.0f} | {rate['llama.cpp']:.0f} | {ratio:.2f} |")
    summary = f"Medians of {args.runs}, interleaved.\n\n" + "\n".join(lines) + "\n"
    (root / "summary.md").write_text(summary)
    info = {line.split(":")[0].strip(): line.split(":")[1].strip() for line in open("/proc/cpuinfo") if ":" in line}
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    (root / "setup.md").write_text(
        f"- machine: {info.get('model name')}, {n_threads} cores\n"
        f"- tandem: {commit}, release build, {n_threads} threads\n"
        f"- llama.cpp: llama-cpp-python {llama_cpp.__version__} built here, flash attention on, {n_threads} threads\n"
        f"- its system: {llama_cpp.llama_print_system_info().decode().strip()}\n"
        f"- model: SmolLM2-135M-Instruct.Q4_1.gguf; other formats requantised from it by llama.cpp\n"
    )
    print(summary)


if __name__ == "__main__":
    main()

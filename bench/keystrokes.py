#!/usr/bin/env python3
"""Types into real files key by key, through the real language server, and says what each key's ghost text cost.

In: the binary in TANDEM_AGENT, a model (see ghost.py); files of pinned packages (see packages.py). With --peer also
llama.cpp's own server under llama.vim's rules (see llama_vim.py); its binary is LLAMA_SERVER.
Out: tables on stdout; a row for each key in --csv FILE; with --save NAME all of it in bench/runs/DATE-NAME.
Exit code 1 if a bound (--most-prefilled, --least-kv-hit, --least-cached) does not hold.

Each key is a change and a request made automatically. At `--speed human` the next key comes when the typing model
(keys.py) says so, whether there was an answer or not; an answer that was not there by then is late. At `--speed max`
the next key comes with the answer. "No model": shown without a forward pass. "Keys saved": by accepting a ghost text
that is exactly what is typed next, or its whole lines that are; without --accept, what that would have saved. "Wrong":
shown, and its first word is not typed next. Sums (a key's tokens, KV hit, CPU) count answers that came too late, and speculation.
With --beside-fix, `agent fix` works on the same engine all the time, and its tests on the same cores.
With --peer use human speed: what llama.vim asks in advance, and cancels for nobody, delays the key that comes at once.
"Others' CPU": the share of the machine that was not ours meanwhile; times say nothing where it is not near zero.
"""

import argparse
import datetime
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

import ghost
import keys
import packages
import replay
import shared  # noqa: E402: of tests/lsp, where `ghost` looks too

FILES = [
    ("flask", "sessions.py"),
    ("requests", "models.py"),
    ("express", "application.js"),
    ("anyhow", "error.rs"),
    ("zod", "schemas.ts"),
]
OF_FIRST = [("flask", "sessions.py"), ("zod", "schemas.ts")]
HEADS = [
    [
        "file", "engine", "keys", "shown", "late", "no model", "ms by the model: p50, p95, max",
        "ms of all: p50, p95, max",
    ],
    [
        "file", "engine", "tokens prefilled: p50, p95", "prefilled a key", "decoded a key", "KV hit", "keys saved",
        "wrong", "CPU s per 100 keys", "CPU s per accepted character", "others' CPU",
    ],
]


def percent(part, whole):
    return f"{100 * part / whole:.0f} %" if whole else "-"


def table(heads, rows):
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(map(str, cells)) + " |" for cells in lines)


def tables(measured):
    """The tables of (file, engine, measures)."""
    first, second = [], []
    for file, engine, one in measured:
        by_model, every = (", ".join(f"{ms:.0f}" for ms in one[name]) for name in ("ms_by_model", "ms"))
        n_keys, n_shown = one["n_keys"], one["n_shown"]
        first.append([
            file, engine, n_keys, percent(n_shown, n_keys), percent(one["n_late"], n_keys),
            percent(one["n_cached"], n_shown), by_model, every,
        ])
        second.append([
            file, engine, ", ".join(f"{n:.0f}" for n in one["prefilled"]), f"{one['prefilled_per_key']:.1f}",
            f"{one['generated_per_key']:.1f}", f"{one['kv_hit']:.1%}", f"{one['saved']:.1%}", f"{one['wrong']:.1%}",
            f"{one['cpu_s_per_100_keys']:.1f}", f"{one['cpu_s_per_char']:.3f}",
            f"{one['others']:.0%}",
        ])
    return table(HEADS[0], first) + "\n\n" + table(HEADS[1], second)


def ratios(measured):
    """How much longer, and how much more, the peer takes, file by file."""
    rows = []
    by_file = {}
    for file, engine, one in measured:
        by_file.setdefault(file, {})[engine] = one
    for file, engines in by_file.items():
        mine, peer = engines.pop("tandem"), next(iter(engines.values()))
        of_ms = [f"{theirs / ours:.2f}" for ours, theirs in zip(mine["ms"], peer["ms"])]
        of_cpu = peer["cpu_s_per_100_keys"] / mine["cpu_s_per_100_keys"]
        of_tokens = peer["prefilled_per_key"] / max(mine["prefilled_per_key"], 1e-9)
        of_shown = (peer["n_shown"] / peer["n_keys"]) / (mine["n_shown"] / mine["n_keys"])
        rows.append([file, f"{of_shown:.2f}", *of_ms, f"{of_cpu:.2f}", f"{of_tokens:.2f}"])
    heads = ["file, peer / tandem", "shown in time", "ms p50", "ms p95", "ms max", "CPU", "tokens prefilled"]
    return table(heads, rows)


def chosen(args):
    return [one for one in FILES if one[1] in args.files]


def run_all(args):
    """Types all files through all engines, the engines in turn; returns the rows and the measures."""
    engines, fixing = [replay.Tandem()], None
    try:
        if args.beside_fix:
            fixing = Fixing(engines[0].session)
        if args.peer:
            import llama_vim

            engines.append(llama_vim.LlamaVim(engines[0].session.env["TANDEM_MODEL"]))
        rows, measured, sums = [], [], {engine.name: [[], {}, [0, 0, 0]] for engine in engines}
        for name, path in chosen(args):
            path = packages.source(name, path)
            stretch = keys.Stretch(path.read_text(encoding="utf-8"), args.keys)
            language = packages.package(name).language
            for engine in engines:
                typed, totals = replay.replay(
                    engine, path, language, stretch, args.speed, args.seed, args.accept, args.warm
                )
                print(f"{path.name}, {engine.name}: {len(typed)} keys in {totals['wall_s']:.0f} s", file=sys.stderr)
                counts = [*replay.saved(typed, stretch), len(stretch.keys)]
                measured.append((path.name, engine.name, replay.measures(typed, totals, *counts)))
                rows += typed
                all_rows, all_totals, all_counts = sums[engine.name]
                all_rows += typed
                all_totals.update((what, all_totals.get(what, 0) + n) for what, n in totals.items())
                all_counts[:] = [was + n for was, n in zip(all_counts, counts)]
        measured += [("all", name, replay.measures(some, totals, *counts)) for name, (some, totals, counts) in sums.items()]
        return rows, measured, [engine.about for engine in engines]
    finally:
        if fixing:
            fixing.end()
        for engine in engines:
            engine.end()


class Fixing:
    """`agent fix` beside a session, one after another."""

    def __init__(self, session):
        self._session, self._is_over, self._running = session, threading.Event(), None
        self._n_tried = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        while not self._is_over.is_set():
            with tempfile.TemporaryDirectory() as folder:
                env = self._session.env
                self._running = shared.start_fix(self._session.agent, folder, "python3 test_area.py", env)
                for line in self._running.stdout:
                    self._n_tried += json.loads(line)["event"] == "candidate"
                self._running.wait()

    def end(self):
        self._is_over.set()
        if self._running:
            self._running.terminate()
        self._thread.join()
        print(f"beside: `agent fix` tried {self._n_tried} edits", file=sys.stderr)


def first_ghost(name, path):
    """Milliseconds to the first ghost text in a file: with no process started, and with the model loaded."""
    path = packages.source(name, path)
    stretch = keys.Stretch(path.read_text(encoding="utf-8"), 1)
    started = time.perf_counter()
    session = ghost.Session()
    try:
        ms = []
        # The second text is new to the KV cache from its first token on.
        for uri, head in [(f"file://{path}", stretch.head), (f"file://{path}.second", "\n\n" + stretch.head[1:])]:
            document = replay.Document(head + stretch.keys[0], stretch.tail)
            session.open(uri, packages.package(name).language, document.text())
            session.ask(uri, document.position(), ghost.INVOKED)
            ms.append(1e3 * (time.perf_counter() - started))
            started = time.perf_counter()
        return [path.name, stretch.n_lines, *(f"{one:.0f}" for one in ms)]
    finally:
        session.end()


def write_csv(path, rows):
    shown = ({**row, "ms": f"{row['ms']:.1f}" if row["ms"] != "" else ""} for row in rows)
    ghost.write_csv(path, replay.COLUMNS, [{name: row[name] for name in replay.COLUMNS if name in row} for row in shown])


def save(args, rows, said, about):
    root = pathlib.Path(__file__).parent / "runs" / f"{datetime.date.today()}-{args.save}"
    root.mkdir(parents=True, exist_ok=True)
    write_csv(root / "keys.csv", rows)
    (root / "summary.md").write_text(said + "\n")
    info = {line.split(":")[0].strip(): line.split(":")[1].strip() for line in open("/proc/cpuinfo") if ":" in line}
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    pinned = ", ".join(f"{one.name} {one.version}" for one in packages.PACKAGES)
    lines = [
        f"- machine: {info.get('model name')}, {os.cpu_count()} cores",
        f"- harness: {commit}; {' '.join(sys.argv[1:])}; {args.keys} keys a file, seed {args.seed}",
        *(f"- {line}" for line in about),
        f"- files: {', '.join(path for _, path in chosen(args))} of {pinned}",
    ]
    (root / "setup.md").write_text("\n".join(lines) + "\n")


def broken_bounds(args, one):
    """What does not hold of the bounds that were given."""
    checks = [
        ("prefilled a key", one["prefilled_per_key"], args.most_prefilled, lambda got, bound: got <= bound),
        ("KV hit, %", 100 * one["kv_hit"], args.least_kv_hit, lambda got, bound: got >= bound),
        ("shown without the model, %", 100 * one["n_cached"] / max(one["n_shown"], 1), args.least_cached,
         lambda got, bound: got >= bound),
    ]
    return [
        f"{name}: {got:.1f}, and the bound is {bound:.1f}"
        for name, got, bound, holds in checks
        if bound is not None and not holds(got, bound)
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keys", metavar="N", type=int, default=500, help="keys typed in each file")
    names = [path for _, path in FILES]
    parser.add_argument("--files", nargs="+", choices=names, default=names, metavar="NAME", help="only these files")
    parser.add_argument("--speed", choices=[replay.HUMAN, replay.MAX], default=replay.HUMAN)
    parser.add_argument("--seed", metavar="N", type=int, default=1, help="which pauses")
    parser.add_argument("--accept", action="store_true", help="accept what is right, instead of typing it")
    parser.add_argument("--warm", action="store_true", help="ask once in each file before the first key; not counted")
    parser.add_argument("--peer", action="store_true", help="llama.cpp's server beside us, file by file")
    parser.add_argument("--beside-fix", action="store_true", help="with `agent fix` at work on the same engine")
    parser.add_argument("--first", action="store_true", help="only the time to a file's first ghost text")
    parser.add_argument("--csv", metavar="FILE", help="write a row for each key")
    parser.add_argument("--save", metavar="NAME", help="write bench/runs/DATE-NAME")
    parser.add_argument("--most-prefilled", metavar="N", type=float, help="most tokens prefilled a key, on average")
    parser.add_argument("--least-kv-hit", metavar="PERCENT", type=float, help="least share of prompt tokens reused")
    parser.add_argument("--least-cached", metavar="PERCENT", type=float, help="least share shown without the model")
    args = parser.parse_args()
    if args.first:
        heads = ["file", "lines", "ms, nothing started", "ms, model loaded"]
        print(table(heads, [first_ghost(*one) for one in OF_FIRST]))
        return 0
    rows, measured, about = run_all(args)
    said = tables(measured)
    if args.peer:
        said += "\n\n" + ratios(measured)
    print(said)
    if args.csv:
        write_csv(args.csv, rows)
    if args.save:
        save(args, rows, said, about)
    broken = broken_bounds(args, next(one for file, engine, one in measured if (file, engine) == ("all", "tandem")))
    for line in broken:
        print(f"FAILED: {line}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())

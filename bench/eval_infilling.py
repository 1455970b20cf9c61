#!/usr/bin/env python3
"""HumanEval-Infilling, single line, through the real language server: does the ghost text pass the problem's tests?

In: the binary in TANDEM_AGENT, a model (see ghost.py); bench/data/humaneval-infilling-single-line.jsonl.gz.
Out: pass@1 with its 95 % interval and what else there is to know, on stdout; a row for each problem in --csv FILE.
Exit code 1 if pass@1 is under --floor.

The document is the problem with an empty line, but for its indentation, in place of the missing one; the cursor is at
that line's end. Ghost text is inserted as Tab inserts it, a block too, and the problem's tests run on the whole. The
tests run after all problems are asked, each in a process and a folder of its own, with limits.
"""

import argparse
import ast
import concurrent.futures
import gzip
import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import tempfile
import warnings

import ghost

DATA = pathlib.Path(__file__).parent / "data" / "humaneval-infilling-single-line.jsonl.gz"
CPU_S, WALL_POLLS, POLL_S = 5, 200, 0.1
MEMORY_BYTES, FILE_BYTES = 2 << 30, 1 << 20
COLUMNS = [
    "task_id", "shown", "passed", "is_exact", "ms", "outcome", "n_prompt", "n_reused", "n_generated",
    "pass_parses", "shown_parses", "repeats_suffix", "text",
]


def problems():
    with gzip.open(DATA, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def parses(text):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def repeats_suffix(text, problem):
    """Whether a line of the ghost text is the next line of the document, where the missing line is another."""
    below = next((line.strip() for line in problem["suffix"].splitlines() if line.strip()), None)
    lines = [line.strip() for line in text.splitlines()]
    return below is not None and below in lines and below != problem["canonical_solution"].strip()


def ask(session, problem):
    """One problem's row, without what its tests say, and the document with the ghost text."""
    line = problem["canonical_solution"].rstrip("\n")
    indentation = line[: len(line) - len(line.lstrip())]
    before = problem["prompt"] + indentation
    document = before + "\n" + problem["suffix"]
    uri = f"file:///{problem['task_id']}.py"
    session.open(uri, "python", document)
    position = {"line": before.count("\n"), "character": len(indentation)}
    answer = session.ask(uri, position, ghost.INVOKED)
    session.close(uri)
    completed = answer.inserted_into(document)
    row = {
        "task_id": problem["task_id"],
        "shown": int(bool(answer.text)),
        "passed": 0,
        "is_exact": int(answer.text.rstrip() == line.strip()),
        "ms": f"{answer.ms:.1f}",
        "outcome": answer.why.get("outcome", ""),
        "pass_parses": int(parses(before + "pass\n" + problem["suffix"])),
        "shown_parses": int(parses(completed)),
        "repeats_suffix": int(repeats_suffix(answer.text, problem)),
        "text": answer.text,
    }
    row.update((name, answer.why.get(name, "")) for name in ("n_prompt", "n_reused", "n_generated"))
    return row, completed


def limit():
    for what, most in [
        (resource.RLIMIT_CPU, CPU_S), (resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_CORE, 0),
    ]:
        resource.setrlimit(what, (most, most))


def passes(program):
    """Whether a program ends well, in a process group and an empty folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "program.py"
        path.write_text(program, encoding="utf-8")
        process = subprocess.Popen(
            [sys.executable, "-I", path.name], cwd=folder, env={}, start_new_session=True, preexec_fn=limit,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        try:
            # Polls are counted, not seconds: somebody may stop us both for a while.
            for _ in range(WALL_POLLS):
                try:
                    return process.wait(timeout=POLL_S) == 0
                except subprocess.TimeoutExpired:
                    continue
            return False
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()


def summary_of(rows):
    shown = [row for row in rows if row["shown"]]
    parsed_before = [row for row in shown if row["pass_parses"]]
    ms = [float(row["ms"]) for row in rows]
    reasons = {}
    for row in rows:
        if not row["shown"]:
            reasons[row["outcome"]] = reasons.get(row["outcome"], 0) + 1

    def count(among, name):
        return ghost.share(sum(row[name] for row in among), len(among))

    n_broken = sum(not row["shown_parses"] for row in parsed_before)
    lines = [
        f"pass@1:                 {count(rows, 'passed')}",
        f"answered:               {count(rows, 'shown')}",
        f"passed of the answered: {count(shown, 'passed')}",
        f"the very line:          {count(rows, 'is_exact')}",
        f"adds a syntax error:    {ghost.share(n_broken, len(parsed_before))}, of shown where `pass` parses",
        f"does not parse:         {ghost.share(sum(not row['shown_parses'] for row in shown), len(shown))}, of shown",
        f"repeats the next line:  {count(shown, 'repeats_suffix')}, of shown",
        f"ms:                     median {ghost.median(ms):.0f}, p95 {ghost.quantile(ms, 0.95):.0f}",
        f"nothing shown:          {', '.join(f'{n} {why}' for why, n in sorted(reasons.items())) or 'never'}",
    ]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", metavar="N", type=int, default=200, help="how many, evenly spread")
    parser.add_argument("--all", action="store_true", help="all 1,033 problems")
    parser.add_argument("--csv", metavar="FILE", help="write a row for each problem")
    parser.add_argument("--floor", metavar="PERCENT", type=float, default=0.0, help="fail under this pass@1")
    args = parser.parse_args()
    chosen = problems()
    if not args.all:
        chosen = ghost.every(chosen, args.problems)
    with ghost.session() as session:
        asked = [ask(session, problem) for problem in chosen]
    rows = [row for row, _ in asked]
    programs = [
        f"{completed}\n{problem['test']}\ncheck({problem['entry_point']})\n"
        for problem, (_, completed) in zip(chosen, asked)
    ]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        # Without ghost text nothing is right, even where the missing line is not missed.
        is_worth = [bool(row["shown"] and row["shown_parses"]) for row in rows]
        passed = pool.map(lambda one: one[0] and passes(one[1]), zip(is_worth, programs))
        for row, did in zip(rows, passed):
            row["passed"] = int(did)
    if args.csv:
        ghost.write_csv(args.csv, COLUMNS, rows)
    print(summary_of(rows))
    percent = 100 * sum(row["passed"] for row in rows) / len(rows)
    if percent < args.floor:
        print(f"FAILED: pass@1 is {percent:.1f} %, under {args.floor:.1f} %", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

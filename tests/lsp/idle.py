#!/usr/bin/env python3
"""Measures what an idle `agent lsp` costs: after a completion, nobody asks for anything.

In: the binary in TANDEM_AGENT; a model it can find (TANDEM_MODEL, or the default one). Linux.
Out: one line with the processor time that all its threads used; exit code 0 if that is under 0.1 % of the time.
"""

import argparse
import os
import pathlib
import sys
import time

import conversation as lsp


def cpu_seconds(pid):
    """Processor time of all threads, to the nanosecond."""
    tasks = pathlib.Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", metavar="N", type=float, default=60.0, help="how long nobody asks")
    args = parser.parse_args()
    editor = lsp.Editor([os.environ["TANDEM_AGENT"], "lsp", "--stdio"], None)
    try:
        lsp.initialize(editor)
        text = lsp.Text("def area(width, height):\n    return ")
        editor.open(lsp.FILE, text.text)
        shown = lsp.show(editor, editor.complete(lsp.FILE, text.position(len(text.text))), text, 180.0)
        lsp.check(shown, "no ghost text")
        # What follows an answer by itself (letting threads sleep, saying that progress ended) is over by then.
        time.sleep(1.0)
        before = cpu_seconds(editor.process.pid)
        time.sleep(args.seconds)
        used = cpu_seconds(editor.process.pid) - before
        share = used / args.seconds
        print(f"idle for {args.seconds:.0f} s: {used * 1e3:.2f} ms of processor time, {share:.4%}")
        lsp.check(share < 0.001, "an idle server uses the processor")
        lsp.finish(editor)
    except lsp.Failed as failure:
        print(f"failed: {failure}", file=sys.stderr)
        return 1
    finally:
        editor.process.kill()
    return 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Teaches a Q4_1 model to fill in the middle, and writes what of its blocks is to be changed for that.

In: the base GGUF; the folder that prepare.py wrote. Out, in --out: result.json and result-N.zlib (see export.py),
log.jsonl, summary.json. The result has the base's size and speed: it is the base with other numbers in its blocks.

With --bake S every mode trains S seconds from the base, with a whole schedule of its own; the one with the least loss
on held-out holes then trains --seconds. Learning rates follow the share of the time that is over, so that a run always
ends with them at zero, however fast the machine is. SIGTERM ends a run early, with its result written.

`train.py --tiny` trains a random model of two layers on the CPU, all the way to a patched file, in some seconds.
"""

import argparse
import hashlib
import json
import mmap
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch

import export
from checkpoints import Checkpoints
from documents import Documents
from evaluate import evaluate
from model import FrozenHead, Functions, Model, attend, read_base
from weights import MODES, Rates, Steps, Weights

# The rates rise over this many steps, or this share of the run where that is shorter.
N_WARM_STEPS, WARM_SHARE = 30, 0.05
LOG_EVERY, CHECKPOINT_EVERY_S, MOST_BAD_STEPS = 10, 60, 20
# What is left of --deadline for the last evaluation and the result's files.
LAST_S = 30
N_HEAD_CHUNKS = 4
H100_FLOPS = 990e12

stopped = False
started = time.monotonic()


def say(text):
    print(f"[{time.monotonic() - started:6.1f}] {text}", flush=True)


class Run:
    """What all modes' trainings share: the base, the documents, the compiled functions, the log."""

    def __init__(self, args, base, base_sha256, documents, held_out):
        self.args, self.base, self.base_sha256 = args, base, base_sha256
        self.documents, self.held_out = documents, held_out
        self.device, self.dtype = torch.device(args.device), getattr(torch, args.dtype)
        self.embedding = torch.from_numpy(base.embedding).to(self.device, self.dtype)
        self.functions = Functions(args.compile)
        self.steps = Steps(self.functions.wrap)
        self.groups_heads = groups_heads_here(self.device, self.dtype)
        Path(args.out).mkdir(parents=True, exist_ok=True)
        self.log = open(Path(args.out) / "log.jsonl", "a")

    def write_log(self, **entry):
        self.log.write(json.dumps(entry) + "\n")
        self.log.flush()

    def trainee(self, spec):
        """The base with what `spec` says to be trained, compiled; without compilation where that fails."""
        mode, rates = mode_of(spec, self.args)
        weights = Weights(self.base, mode, rates, self.device, self.dtype, self.steps)
        model = Model(
            self.base.shape, weights.out.view(-1), weights.small, self.embedding, groups_heads=self.groups_heads
        )
        began, fault = time.monotonic(), None
        try:
            self.warm_up(weights, model)
        except Exception as error:
            if not self.functions.compiled:
                raise
            fault = f"{type(error).__name__}: {str(error)[:2000]}"
        # Out of the handler, where the error no longer holds the memory of the step that failed.
        if fault:
            say(f"compiling failed, going on without: {fault}")
            del weights, model
            self.functions = Functions(compiled=False)
            self.steps = Steps()
            torch.cuda.empty_cache()
            return self.trainee(spec)
        say(f"{spec}: ready after {time.monotonic() - began:.1f} s")
        return weights, model

    def warm_up(self, weights, model):
        """Runs one step that moves nothing, so that what is compiled is compiled before time counts."""
        stream = Batches(self.documents, self.args, seed=1)
        for _ in range(2):
            self.micro_step(model, stream.next())
            weights.step(model.matrix_slopes, model.small_slopes, 0.0)
            clear(model)
        weights.reset()
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def micro_step(self, model, batch):
        """Adds one batch's gradient; returns [summed target loss, n_targets, summed other loss, n_others]."""
        hidden = model.hidden(self.functions, batch.ids, batch.n_padded)
        rows = model.normed(hidden.index_select(0, batch.places))
        weights = batch.weights / batch.weights.sum().clamp_min(1) / self.args.accum
        total, losses = FrozenHead.apply(
            rows, model.head, batch.targets, weights, self.functions.softmax_gradient, N_HEAD_CHUNKS
        )
        total.backward()
        is_other = (batch.weights > 0) & ~batch.is_target
        sums = [(losses * batch.is_target).sum(), batch.is_target.sum(), (losses * is_other).sum(), is_other.sum()]
        return torch.stack([x.float() for x in sums])


class Batches:
    """Batches without end: every epoch a new order."""

    def __init__(self, documents, args, seed):
        self.documents, self.args = documents, args
        self.rng = np.random.default_rng(seed)
        self.generator = torch.Generator(device=documents.device).manual_seed(seed)
        self.waiting, self.n_epochs = [], 0

    def next(self):
        if not self.waiting:
            self.waiting = self.documents.epoch(self.args.batch, self.rng)
            self.n_epochs += 1
            if not self.waiting:
                raise ValueError(f"too few documents for a batch of {self.args.batch} tokens: give a smaller --batch")
        n_padded, docs = self.waiting.pop()
        return self.documents.batch(n_padded, docs, self.args.batch, self.args.places, self.generator)


def clear(model):
    model.matrix_slopes.zero_()
    model.small_slopes.zero_()


def train(run, weights, model, seconds, checkpoints, spent_s=0.0):
    """Trains until `seconds` are over, of which `spent_s` were before; returns a summary."""
    stream = Batches(run.documents, run.args, seed=run.args.seed + weights.n_steps)
    began, first_step = time.monotonic() - spent_s, weights.n_steps
    saved, since = time.monotonic(), (time.monotonic(), 0)
    n_tokens, sums, pacing, mean = 0, torch.zeros(4, device=run.device), [], None
    n_step_tokens = run.args.batch * run.args.accum
    while not stopped:
        elapsed = time.monotonic() - began
        share = max(elapsed / seconds, weights.n_steps / run.args.max_steps)
        if share >= 1:
            break
        rise = min(1.0, max((weights.n_steps + 1) / N_WARM_STEPS, share / WARM_SHARE))
        model.set_head()
        for _ in range(run.args.accum):
            sums += run.micro_step(model, stream.next())
        norm = weights.step(model.matrix_slopes, model.small_slopes, rise * (1 - share))
        clear(model)
        n_tokens += n_step_tokens
        pace(run.device, pacing)
        if weights.n_steps % LOG_EVERY == 0:
            target, n_target, rest, n_rest = sums.tolist()
            mean = (target / max(n_target, 1), rest / max(n_rest, 1))
            sums.zero_()
            now = time.monotonic()
            speed = (n_tokens - since[1]) / (now - since[0])
            since = (now, n_tokens)
            report(run, weights, now - began, n_tokens, speed, rise * (1 - share), mean, norm.item())
            if weights.n_bad.item() > MOST_BAD_STEPS:
                say("stopping: too many steps without a finite gradient; what was trained before them is kept")
                break
        if checkpoints and time.monotonic() - saved > CHECKPOINT_EVERY_S:
            saved = time.monotonic()
            checkpoints.write(weights, saved - began)
    return {
        "mode": weights.mode,
        "n_steps": weights.n_steps - first_step,
        "n_tokens": n_tokens,
        "seconds": round(time.monotonic() - began, 1),
        "n_epochs": stream.n_epochs,
        "n_bad_steps": int(weights.n_bad.item()),
        "last_loss_target": mean and round(mean[0], 4),
    }


def pace(device, pacing):
    """Lets the host run two steps ahead of the device, not more: the schedule follows the host's clock."""
    if device.type == "cuda":
        pacing.append(torch.cuda.Event())
        pacing[-1].record()
        if len(pacing) > 2:
            pacing.pop(0).synchronize()


def report(run, weights, elapsed, n_tokens, speed, rate_share, mean, norm):
    # Forward and backward of the matrices, and of the head for the drawn places; the attention is left out.
    flops = 6 * run.base.n_weights + 6 * run.embedding.numel() * run.args.places / run.args.batch
    say(
        f"{weights.mode} step {weights.n_steps} {elapsed:.1f} s {n_tokens / 1e6:.1f} M tokens {speed / 1e3:.1f} k/s "
        f"mfu {speed * flops / H100_FLOPS:.3f} rate {rate_share:.3f} norm {norm:.2f} "
        f"loss {mean[0]:.4f} context {mean[1]:.4f}"
    )
    run.write_log(
        mode=weights.mode,
        step=weights.n_steps,
        time=round(elapsed, 2),
        tokens=n_tokens,
        tokens_per_s=round(speed),
        lr=round(rate_share, 5),
        norm=round(norm, 4),
        loss_target=round(mean[0], 5),
        loss_context=round(mean[1], 5),
    )


def groups_heads_here(device, dtype):
    """Whether attention takes fewer key heads than query heads here, and rightly; else they are repeated."""
    q = torch.randn(128, 6, 64, device=device, dtype=dtype, requires_grad=True)
    k, v = (torch.randn(128, 2, 64, device=device, dtype=dtype, requires_grad=True) for _ in range(2))
    try:
        outcomes = []
        for groups_heads in (True, False):
            out = attend(q, k, v, 64, groups_heads)
            outcomes.append([out, *torch.autograd.grad(out.float().square().sum(), (q, k, v))])
        worst = max(((x - y).float().norm() / y.float().norm()).item() for x, y in zip(*outcomes))
    except RuntimeError as error:
        say(f"attention does not group heads here: {str(error)[:300]}")
        return False
    if worst > 0.02:
        say(f"attention groups heads wrongly here, by {worst}")
    return worst <= 0.02


def judge(run, weights, model, summary, name):
    began = time.monotonic()
    weights.refresh()
    scores = evaluate(model, run.held_out, run.args.valid_docs, run.args.batch)
    say(f"{name}: {json.dumps(scores)} ({time.monotonic() - began:.1f} s)")
    summary[name] = scores
    run.write_log(evaluated=name, **scores)
    return scores


def mode_of(spec, args):
    """The mode and the rates that MODE[:LR_GRID[:LR_SCALES[:DITHER]]] says."""
    mode, grid, scales, dither, *_ = *spec.split(":"), "", "", ""
    return mode, Rates(float(grid or args.lr_grid), float(scales or args.lr_scales), float(dither or args.dither))


def choose(run, specs, summary):
    """Trains each mode for --bake seconds; returns the one that fills held-out holes best."""
    best = {}
    for spec in specs:
        weights, model = run.trainee(spec)
        summary.setdefault("bake", {})[spec] = train(run, weights, model, run.args.bake, None)
        best[spec] = judge(run, weights, model, summary, f"bake-{spec}")["fim"]["nll"]
        del weights, model
        torch.cuda.empty_cache()
        if stopped:
            break
    winner = min(best, key=lambda spec: best[spec] if np.isfinite(best[spec]) else np.inf)
    say(f"chosen: {winner}, of {best}")
    return winner


def run_all(args):
    """Does what the command line asks for; returns the summary that was written, and the trained weights."""
    data = memoryview(mmap.mmap(os.open(args.base, os.O_RDONLY), 0, prot=mmap.PROT_READ))
    base = read_base(data)
    documents = Documents.read(args.data, "train", args.device)
    held_out = Documents.read(args.data, "valid", args.device)
    say(f"{len(documents.n_tokens)} documents of {documents.n_tokens.sum() / 1e6:.1f} M tokens")
    run = Run(args, base, hashlib.sha256(data).hexdigest(), documents, held_out)
    summary = {"args": vars(args), "torch": torch.__version__}
    if run.device.type == "cuda":
        summary["device"] = torch.cuda.get_device_name()
    say(f"on {summary.get('device', 'cpu')}, heads grouped: {run.groups_heads}")
    specs = args.modes.split(",")
    spec = choose(run, specs, summary) if args.bake and len(specs) > 1 else specs[0]
    checkpoints = Checkpoints(args.work)
    weights, model = run.trainee(spec)
    spent_s = 0.0
    if args.resume:
        spent_s = checkpoints.read(weights)
    else:
        judge(run, weights, model, summary, "before")
    seconds = args.seconds
    if args.deadline:
        seconds = min(seconds, spent_s + args.deadline - LAST_S - (time.monotonic() - started))
    say(f"training {spec} for {seconds - spent_s:.0f} s")
    summary["train"] = train(run, weights, model, max(seconds, 0.1), checkpoints, spent_s)
    summary["result"] = export.write_result(weights, run.base_sha256, args.out)
    for name in ("matrices", "gains"):
        del summary["result"][name]
    write_summary(args, summary)
    judge(run, weights, model, summary, "after")
    if run.device.type == "cuda":
        summary["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 1)
    write_summary(args, summary)
    say(f"done: {json.dumps(summary['result'])}, {json.dumps(summary['train'])}, peak {summary.get('peak_gib')} GiB")
    checkpoints.wait()
    return summary, weights


def write_summary(args, summary):
    (Path(args.out) / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")


def arguments(words=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--base", metavar="GGUF", help="the model to start from; all its matrices Q4_1")
    parser.add_argument("--data", metavar="FOLDER", help="what prepare.py wrote")
    parser.add_argument("--out", metavar="FOLDER", help="where the result goes")
    parser.add_argument("--work", metavar="FOLDER", help="where checkpoints go (default: OUT)")
    parser.add_argument("--seconds", type=float, default=600, help="time of the training, without what comes before")
    parser.add_argument("--deadline", type=float, default=0, help="seconds after the start at which all is written")
    parser.add_argument("--bake", type=float, default=0, help="seconds each mode gets to be chosen by")
    parser.add_argument("--modes", default="both", help="MODE[:LR_GRID[:LR_SCALES[:DITHER]]],... of grid, scales, both")
    parser.add_argument("--lr-grid", type=float, default=1.6e-2, help="of the weights, in grid steps")
    parser.add_argument("--lr-scales", type=float, default=2e-3, help="of the blocks' scales, in shares of them")
    parser.add_argument("--dither", type=float, default=0.45, help="how far from the grid weights start, below 0.5")
    parser.add_argument("--batch", type=int, default=61440, help="tokens of a batch, a multiple of 1024")
    parser.add_argument("--accum", type=int, default=2, help="batches of a step")
    parser.add_argument("--places", type=int, default=0, help="tokens of a batch whose loss counts (default: 4 of 15)")
    parser.add_argument("--max-steps", type=int, default=10**9, help="end after so many steps at the latest")
    parser.add_argument("--valid-docs", type=int, default=2000, help="held-out documents to evaluate on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--resume", action="store_true", help="go on from WORK's checkpoint")
    parser.add_argument("--probe", action="store_true", help="train a random base of full size, made in WORK")
    parser.add_argument("--tiny", action="store_true", help="train a tiny random model, to see that all of it works")
    args = parser.parse_args(words)
    args.work = args.work or args.out
    if args.probe:
        args.base, args.data = f"{args.work}/base.gguf", args.work
    if not args.tiny and not (args.base and args.data and args.out):
        parser.error("give --base, --data and --out, or --tiny")
    args.places = args.places or args.batch * 4 // 15 // N_HEAD_CHUNKS * N_HEAD_CHUNKS
    unknown = {spec.split(":")[0] for spec in args.modes.split(",")} - set(MODES)
    if unknown:
        parser.error(f"unknown mode {', '.join(sorted(unknown))}: take {', '.join(MODES)}")
    return args


def stop(*_):
    global stopped
    stopped = True


if __name__ == "__main__":
    chosen = arguments()
    if chosen.tiny:
        import tiny

        sys.exit(tiny.main())
    if chosen.probe:
        import tiny

        tiny.probe(chosen.work)
    signal.signal(signal.SIGTERM, stop)
    run_all(chosen)

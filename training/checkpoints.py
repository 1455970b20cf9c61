"""Checkpoints that a training goes on from.

In: `Weights`. Out: one file, which a new checkpoint replaces when it is whole. Thread: "checkpoint" writes it.
"""

import os
import threading
from pathlib import Path

import torch


class Checkpoints:
    """Writes checkpoints beside the training, one at a time; a new one replaces the last when it is whole."""

    def __init__(self, folder):
        self.path, self.thread = Path(folder) / "checkpoint.pt", None

    def write(self, weights, elapsed_s):
        """Takes a copy on the device now, and writes it in a thread, unless the last one is not written yet."""
        if self.thread and self.thread.is_alive():
            return
        kept = {name: value.clone() for name, value in weights.state.items()}
        kept |= {"small": weights.small.clone(), "mode": weights.mode, "n_steps": weights.n_steps}
        kept |= {"elapsed_s": elapsed_s}
        ready = torch.cuda.Event() if weights.small.is_cuda else None
        if ready:
            ready.record()
        self.thread = threading.Thread(target=self.save, args=(kept, ready), name="checkpoint", daemon=True)
        self.thread.start()

    def save(self, kept, ready):
        if ready:
            ready.synchronize()
            with torch.cuda.stream(torch.cuda.Stream()):
                kept = {name: x.cpu() if torch.is_tensor(x) else x for name, x in kept.items()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(kept, self.path.with_suffix(".new"))
        os.replace(self.path.with_suffix(".new"), self.path)

    def wait(self):
        if self.thread:
            self.thread.join()

    def read(self, weights):
        """Puts the last checkpoint into `weights`; returns how long its training had taken."""
        kept = torch.load(self.path, map_location=weights.device)
        if kept["mode"] != weights.mode:
            raise ValueError(f"the checkpoint is of mode {kept['mode']}: give --modes {kept['mode']}")
        for name, value in weights.state.items():
            value.copy_(kept[name])
        weights.small.copy_(kept["small"])
        weights.n_steps = kept["n_steps"]
        weights.refresh()
        return kept["elapsed_s"]

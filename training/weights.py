"""What is trained of a quantised model, how a step moves it, and what it is worth once rounded.

In: the base's blocks, gradients. Out: the weights that the next step computes with, which are exactly those that would
be shipped; the shipped blocks. Every matrix's every block lies in one flat buffer, so that a step is one kernel.

A weight is d * (q - 8) + c. Trained are, by mode, q as a real number u on the base's grid, rounded on the way forward
(`grid`); d = d0 * (1 + a) and c = c0 + 4 * d0 * b, rounded to f16 as d and m = c - 8 * d (`scales`: PEQA,
arXiv:2305.14152); or all of them (`both`). The gradient passes the rounding as if it were not there.
"""

from dataclasses import dataclass

import numpy as np
import torch

import blocks
from model import N_ROWS

MODES = ("grid", "scales", "both")
BETA_1, BETA_2, EPSILON = 0.9, 0.95, 1e-12
# A block's offset moves all of its weights alike, and its scale moves them by their distance from the middle, which is
# about 4: so both move a weight as far for the same learning rate.
OFFSET_REACH = 4.0
# Gains move in share of their size; rows as far as the embedding's other rows are apart.
GAIN_RATE, ROW_RATE = 1e-3, 4e-3


def adam(slope, value, first, second, rate, correction_1, correction_2):
    """Returns value, first, second after a step of Adam; the corrections are 1 / (1 - beta^n_steps)."""
    first = first + (slope - first) * (1 - BETA_1)
    second = second + (slope * slope - second) * (1 - BETA_2)
    return value - rate * (first * correction_1) / ((second * correction_2).sqrt() + EPSILON), first, second


def blocks_of(d0, c0, a, b):
    """d and m as f32 that f16 holds exactly."""
    d = (d0 * (1 + a)).clamp_min(1e-6).half().float()
    return d, (c0 + OFFSET_REACH * d0 * b - 8 * d).half().float()


def step_grid(slope, out, u, u1, u2, d, m, rate, keep, correction_1, correction_2):
    slope = torch.where(keep > 0, slope.float() * keep, 0) * d
    new, first, second = adam(slope, u, u1, u2, rate, correction_1, correction_2)
    new = new.clamp(0, 15)
    u.copy_(new), u1.copy_(first), u2.copy_(second)
    out.copy_(d * new.round() + m)


def step_scales(slope, out, u, d0, c0, a, a1, a2, b, b1, b2, rate, keep, correction_1, correction_2):
    slope = torch.where(keep > 0, slope.float() * keep, 0)
    slope_a = d0 * (slope * (u.round() - 8)).sum(1, keepdim=True)
    slope_b = OFFSET_REACH * d0 * slope.sum(1, keepdim=True)
    new_a, first_a, second_a = adam(slope_a, a, a1, a2, rate, correction_1, correction_2)
    new_b, first_b, second_b = adam(slope_b, b, b1, b2, rate, correction_1, correction_2)
    new_a = new_a.clamp_min(-0.9)
    a.copy_(new_a), a1.copy_(first_a), a2.copy_(second_a)
    b.copy_(new_b), b1.copy_(first_b), b2.copy_(second_b)
    d, m = blocks_of(d0, c0, new_a, new_b)
    out.copy_(d * u.round() + m)


def sum_squares(slopes):
    return slopes.float().square().sum()


class Steps:
    """The kernels of a step, each passed through `wrap` (torch.compile)."""

    def __init__(self, wrap=lambda f: f):
        self.grid, self.scales, self.sum_squares = wrap(step_grid), wrap(step_scales), wrap(sum_squares)


@dataclass
class Rates:
    """Learning rates: of u in grid steps, of a and b in shares of d; and how far from q u may start, in grid steps.

    A start off the grid's points changes no weight yet. But then a small move that many weights make together takes
    some of them over to the next point, where from the middle it would take none of them.
    """

    grid: float
    scales: float
    dither: float = 0.0


class Weights:
    """One mode's trained values and Adam's moments; `out`: [n_blocks, 32] in the compute type; `small`: gains, rows."""

    def __init__(self, base, mode, rates, device, dtype, steps=None):
        if mode not in MODES:
            raise ValueError(f"mode {mode!r}: one of {', '.join(MODES)}")
        self.base, self.mode, self.rates, self.device = base, mode, rates, device
        self.steps = steps or Steps()
        n_blocks = len(base.q)
        self.out = torch.empty(n_blocks, blocks.N_WEIGHTS, device=device, dtype=dtype)
        self.small = torch.empty(base.gains.size + N_ROWS * base.shape.n_embd, device=device)
        column = {"device": device, "dtype": torch.float32}
        self.state = {"u": torch.empty(n_blocks, blocks.N_WEIGHTS, **column)}
        if mode != "scales":
            self.state |= {name: torch.empty_like(self.state["u"]) for name in ("u1", "u2")}
        if mode != "grid":
            self.state |= {name: torch.empty(n_blocks, 1, **column) for name in ("a", "a1", "a2", "b", "b1", "b2")}
        self.state |= {name: torch.empty_like(self.small) for name in ("small1", "small2")}
        self.d0 = torch.from_numpy(base.d).to(device).float()[:, None]
        self.m0 = torch.from_numpy(base.m).to(device).float()[:, None]
        self.c0 = self.m0 + 8 * self.d0
        self.numbers = {name: torch.zeros((), device=device) for name in ("rate_u", "rate_s", "keep", "c1", "c2")}
        self.n_steps = 0
        self.n_bad = torch.zeros((), device=device)
        self.reset()

    def reset(self):
        """Goes back to the base, with three rows that are unlike each other."""
        for value in self.state.values():
            value.zero_()
        self.state["u"].copy_(torch.from_numpy(self.base.q))
        if self.mode != "scales":
            on_device = torch.Generator(device=self.device).manual_seed(6)
            reach = self.rates.dither
            start = torch.empty_like(self.state["u1"]).uniform_(-reach, reach, generator=on_device)
            self.state["u"].add_(start).clamp_(0, 15)
        self.refresh()
        width = self.base.shape.n_embd
        generator = torch.Generator().manual_seed(6)
        spread = float(self.base.embedding.std())
        rows = torch.randn(N_ROWS * width, generator=generator) * spread
        gains = torch.from_numpy(self.base.gains.copy())
        self.small.copy_(torch.cat([gains, rows]))
        reach = gains.abs().clamp_min(float(gains.abs().mean()) / 10) * GAIN_RATE
        self.small_rate = torch.cat([reach, torch.full_like(rows, ROW_RATE)]).to(self.device)
        self.n_steps = 0
        self.n_bad.zero_()

    @property
    def gains(self):
        return self.small[: self.base.gains.size]

    @property
    def rows(self):
        return self.small[self.base.gains.size :].view(N_ROWS, self.base.shape.n_embd)

    @torch.no_grad()
    def step(self, matrix_slopes, small_slopes, share):
        """Moves everything one step; `share` of the learning rates. Returns the gradient's norm, on the device.

        A step whose gradient is not finite counts as one of zeros, and in `n_bad`; it can spoil nothing.
        """
        self.n_steps += 1
        n, numbers = self.n_steps, self.numbers
        numbers["rate_u"].fill_(self.rates.grid * share)
        numbers["rate_s"].fill_(self.rates.scales * share)
        numbers["c1"].fill_(1 / (1 - BETA_1**n))
        numbers["c2"].fill_(1 / (1 - BETA_2**n))
        slopes = matrix_slopes.view(-1, blocks.N_WEIGHTS)
        norm = (self.steps.sum_squares(slopes) + small_slopes.square().sum()).sqrt()
        is_good = norm.isfinite()
        self.n_bad += (~is_good).float()
        numbers["keep"].copy_(torch.where(is_good, 1 / norm.clamp_min(1), 0))
        state, keep, c1, c2 = self.state, numbers["keep"], numbers["c1"], numbers["c2"]
        if self.mode != "grid":
            scales = [state[name] for name in ("a", "a1", "a2", "b", "b1", "b2")]
            self.steps.scales(
                slopes, self.out, state["u"], self.d0, self.c0, *scales, numbers["rate_s"], keep, c1, c2
            )
        if self.mode != "scales":
            grid = [state[name] for name in ("u", "u1", "u2")]
            self.steps.grid(slopes, self.out, *grid, *self.d_m(), numbers["rate_u"], keep, c1, c2)
        small_slopes = torch.where(is_good, small_slopes * keep, 0)
        moved = adam(small_slopes, self.small, state["small1"], state["small2"], self.small_rate * share, c1, c2)
        for value, new in zip((self.small, state["small1"], state["small2"]), moved):
            value.copy_(new)
        return norm

    @torch.no_grad()
    def refresh(self):
        """Computes `out` from what is trained."""
        d, m = self.d_m()
        self.out.copy_(d * self.state["u"].round() + m)

    def d_m(self):
        """The blocks' d and m, [n_blocks, 1] f32."""
        if self.mode == "grid":
            return self.d0, self.m0
        return blocks_of(self.d0, self.c0, self.state["a"], self.state["b"])

    @torch.no_grad()
    def shipped(self):
        """Returns q [n_blocks, 32] u8, d and m [n_blocks] f16, gains f32, and the rows' Q8_0 bytes."""
        d, m = self.d_m()
        if self.mode == "grid":
            d, m = self.base.d, self.base.m
        else:
            d, m = (x.view(-1).cpu().numpy().astype(np.float16) for x in (d, m))
        q = self.state["u"].round().to(torch.uint8).cpu().numpy()
        rows = self.rows.cpu().numpy().reshape(-1, blocks.N_WEIGHTS)
        return q, d, m, self.gains.cpu().numpy(), blocks.write_q8_0(rows)

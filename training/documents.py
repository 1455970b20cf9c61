"""Training documents on the device, and batches of them.

In: `SPLIT-T.u16` (token ids, documents back to back) and `SPLIT-T.len.u16` (n_tokens, n_target for each) of a folder.
Out: `Batch`es of a fixed number of tokens. A batch holds documents of one padded length; the lengths are the multiples
of 64 that divide the batch.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

SUFFIX, PREFIX, MIDDLE, TURN = 8, 9, 10, 1
KINDS = ("spm", "psm", "chat", "plain")
CHAT, PLAIN = 2, 3
GRAIN = 64
# What a token's loss counts: what is to be filled in, a repaired function, and everything else, of which only as many
# tokens are drawn as there are places left.
FILL_WEIGHT, CHAT_WEIGHT, REST_WEIGHT = 1.0, 0.5, 0.15


@dataclass
class Batch:
    """`ids`: [N]; `places`: [R], whose next tokens `targets` count `weights`, of which `is_target` are asked for."""

    ids: torch.Tensor
    n_padded: int
    places: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    is_target: torch.Tensor


class Documents:
    """All documents of one split; `n_tokens`, `n_target`, `kind`: [n_docs] on the host and on the device."""

    def __init__(self, tokens, lengths, device):
        n_tokens, n_target = lengths[:, 0].astype(np.int64), lengths[:, 1].astype(np.int64)
        starts = np.cumsum(n_tokens) - n_tokens
        if n_tokens.sum() != len(tokens):
            raise ValueError(f"{len(tokens)} tokens, but documents of {n_tokens.sum()}")
        first = tokens[starts]
        self.kind = np.select([first == SUFFIX, first == PREFIX, first == TURN], [0, 1, 2], 3)
        self.n_tokens, self.n_target, self.device = n_tokens, n_target, device
        self.tokens = torch.from_numpy(tokens.view(np.int16)).to(device)
        self.columns = torch.from_numpy(np.stack([starts, n_tokens, n_target, self.kind])).to(device)

    @classmethod
    def read(cls, folder, split, device):
        tokens, lengths = [], []
        for path in sorted(Path(folder).glob(f"{split}-*.len.u16")):
            lengths.append(np.fromfile(path, dtype="<u2").reshape(-1, 2))
            tokens.append(np.fromfile(str(path).replace(".len", ""), dtype="<u2"))
        if not tokens:
            raise ValueError(f"no {split}-*.len.u16 in {folder}: give the folder that prepare.py wrote")
        return cls(np.concatenate(tokens), np.concatenate(lengths), device)

    def epoch(self, n_batch, rng):
        """All documents once in random order: a list of (n_padded, indices); what fills no batch stays out."""
        lengths = padded_lengths(n_batch)
        bucket = np.searchsorted(lengths, self.n_tokens)
        batches = []
        for idx, n_padded in enumerate(lengths):
            docs = rng.permutation(np.flatnonzero(bucket == idx))
            per_batch = n_batch // n_padded
            batches += [(n_padded, docs[i : i + per_batch]) for i in range(0, len(docs) - per_batch + 1, per_batch)]
        return [batches[i] for i in rng.permutation(len(batches))]

    def lay_out(self, n_padded, docs):
        """Returns [n_docs, n_padded]: each token, the next one, whether that counts, and is asked for; the kinds."""
        docs = torch.from_numpy(docs).to(self.device)
        start, n_tokens, n_target, kind = (column[docs][:, None] for column in self.columns)
        at = torch.arange(n_padded, device=self.device)
        ids = (self.tokens[(start + at).clamp_max(len(self.tokens) - 1)].int() & 0xFFFF).long()
        ids = torch.where(at < n_tokens, ids, 0)
        following = ids.roll(-1, 1)
        counts = (at + 1 < n_tokens) & ((following < SUFFIX) | (following > MIDDLE))
        return ids, following, counts, counts & (at + 1 >= n_tokens - n_target), kind

    def batch(self, n_padded, docs, n_batch, n_places, generator):
        """Lays documents out; `n_places` tokens' losses are drawn, those that are asked for first."""
        ids, following, counts, is_asked, kind = self.lay_out(n_padded, docs)
        is_target = is_asked & (kind < PLAIN)
        weights = torch.where(is_target, torch.where(kind == CHAT, CHAT_WEIGHT, FILL_WEIGHT), REST_WEIGHT)
        order = torch.rand(ids.shape, generator=generator, device=self.device) + is_target.float()
        order = torch.where(counts, order, -1.0)
        ids, following, weights, order, is_target = (
            pad(x.reshape(-1), n_batch) for x in (ids, following, weights * counts, order, is_target)
        )
        places = order.topk(n_places, sorted=False).indices
        return Batch(ids, n_padded, places, following[places], weights[places], is_target[places])


def pad(x, n):
    return x if len(x) == n else torch.cat([x, x.new_zeros(n - len(x))])


def padded_lengths(n_batch, longest=1024):
    lengths = [n for n in range(GRAIN, longest + 1, GRAIN) if n_batch % n == 0]
    if longest not in lengths:
        raise ValueError(f"batches of {n_batch} tokens: give a multiple of {longest}")
    return np.array(lengths)

"""How well a model fills in: the losses of what held-out documents ask for, and how often all of it is the likeliest.

In: a model, held-out documents. Out: for each kind and for both FIM kinds together `n_docs`, `n_tokens`, `nll` (a
token's mean loss in nats), `exact` (the share of documents whose every asked token is the most probable one, which is
when greedy decoding writes the document's own text).
"""

import numpy as np
import torch

from documents import KINDS, pad, padded_lengths
from model import Functions

N_ROWS_AT_ONCE = 4096


@torch.no_grad()
def evaluate(model, documents, n_docs, n_batch):
    """Evaluates the first `n_docs` of a fixed shuffle; the batches are of `n_batch` tokens."""
    model.set_head()
    head, functions = model.head.float(), Functions(compiled=False)
    docs = np.random.default_rng(0).permutation(len(documents.n_tokens))[:n_docs]
    lengths = padded_lengths(n_batch)
    bucket = np.searchsorted(lengths, documents.n_tokens[docs])
    sums = np.zeros((len(KINDS), 4))
    for idx, n_padded in enumerate(lengths):
        inside = docs[bucket == idx]
        for at in range(0, len(inside), n_batch // n_padded):
            some = inside[at : at + n_batch // n_padded]
            ids, following, _, is_asked, kind = documents.lay_out(n_padded, some)
            hidden = model.normed(model.hidden(functions, pad(ids.reshape(-1), n_batch), n_padded))
            places = is_asked.reshape(-1).nonzero().squeeze(1)
            loss, is_best = losses(hidden[places], head, following.reshape(-1)[places])
            doc = places // n_padded
            missed = torch.zeros(len(some), device=doc.device).index_add_(0, doc, 1 - is_best.float())
            total = torch.zeros(len(some), device=doc.device, dtype=torch.float64).index_add_(0, doc, loss)
            columns = torch.stack([torch.ones_like(total), is_asked.sum(1), total, (missed == 0).double()], 1)
            np.add.at(sums, kind.squeeze(1).cpu().numpy(), columns.cpu().numpy())
    rows = dict(zip(KINDS, sums)) | {"fim": sums[0] + sums[1]}
    return {name: row_of(*row) for name, row in rows.items() if row[0]}


def losses(rows, head, targets):
    """[R] losses in f64, and whether each target has the highest logit."""
    loss, is_best = [], []
    for x, target in zip(rows.split(N_ROWS_AT_ONCE), targets.split(N_ROWS_AT_ONCE)):
        logits = x.float() @ head.t()
        own = logits.gather(1, target[:, None]).squeeze(1)
        loss.append((logits.logsumexp(1) - own).double())
        is_best.append(logits.argmax(1) == target)
    if not loss:
        return rows.new_zeros(0, dtype=torch.float64), rows.new_zeros(0, dtype=torch.bool)
    return torch.cat(loss), torch.cat(is_best)


def row_of(n_docs, n_tokens, loss, n_exact):
    return {
        "n_docs": int(n_docs),
        "n_tokens": int(n_tokens),
        "nll": round(float(loss) / max(int(n_tokens), 1), 4),
        "exact": round(float(n_exact) / int(n_docs), 4),
    }
